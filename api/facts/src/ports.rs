//! Ports of the host that containers ask for. Two pods can't have the same one on the same address. Asked by the
//! scheduler before it binds and by the kubelet before it starts.

use k8s_openapi::api::core::v1::PodSpec;

/// What an empty `hostIP` means: every address.
const ANY: &str = "0.0.0.0";

/// A host port that a container wants: address (`0.0.0.0` is every address), protocol, port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Of the host, as text; `0.0.0.0` for every address.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// 1 to 65535.
    pub port: i32,
}

impl HostPort {
    /// Whether not both can be had: the same port and protocol, on the same address or on one that contains the other.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == ANY || other.ip == ANY || self.ip == other.ip)
    }
}

/// Host ports of a pod while it runs: those of its containers and sidecars. An init container that ends gives its ports
/// back before the others start, so it is not asked for.
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let wanted = |text: &Option<String>, default: &str| {
        text.as_deref().filter(|text| !text.is_empty()).unwrap_or(default).to_owned()
    };
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|port| *port > 0)?;
            Some(HostPort { ip: wanted(&p.host_ip, ANY), protocol: wanted(&p.protocol, "TCP"), port })
        })
        .collect()
}

/// Whether one of the wanted ports is taken.
pub fn conflict(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    wanted.iter().any(|wanted| taken.iter().any(|taken| wanted.conflicts(taken)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn upstreams_cases_of_conflicts() {
        let port = |(protocol, ip, port): (&str, &str, i32)| {
            let port = json!({"containerPort": 1, "hostPort": port, "hostIP": ip, "protocol": protocol});
            let spec = json!({"containers": [{"name": "c", "ports": [port]}]});
            host_ports(&serde_json::from_value(spec).unwrap())
        };
        for (taken, wanted, expected, why) in [
            (("TCP", "127.0.0.1", 80), ("TCP", "127.0.0.1", 80), true, "the same"),
            (("TCP", "127.0.0.1", 80), ("TCP", "127.0.0.1", 81), false, "another port"),
            (("TCP", "127.0.0.1", 80), ("TCP", "127.0.0.2", 80), false, "another address"),
            (("TCP", "127.0.0.1", 80), ("UDP", "127.0.0.1", 80), false, "another protocol"),
            (("TCP", "0.0.0.0", 80), ("TCP", "127.0.0.1", 80), true, "every address contains it"),
            (("TCP", "127.0.0.1", 80), ("TCP", "0.0.0.0", 80), true, "the other way round"),
            (("TCP", "0.0.0.0", 80), ("UDP", "127.0.0.1", 80), false, "every address, another protocol"),
            (("TCP", "", 80), ("TCP", "127.0.0.1", 80), true, "no address is every address"),
            (("", "10.0.0.1", 80), ("TCP", "10.0.0.1", 80), true, "no protocol is TCP"),
            (("TCP", "10.0.0.1", 0), ("TCP", "10.0.0.1", 0), false, "0 is no port of the host"),
            (("TCP", "::", 80), ("TCP", "127.0.0.1", 80), false, "an address like others, to upstream"),
        ] {
            assert_eq!(conflict(&port(wanted), &port(taken)), expected, "{why}: {taken:?} {wanted:?}");
        }
    }

    /// The kubelet once refused pods whose init containers asked for a taken port.
    #[test]
    fn sidecars_count_and_init_containers_do_not() {
        let container =
            |name: &str, port: i32| json!({"name": name, "ports": [{"containerPort": 1, "hostPort": port}]});
        let mut sidecar = container("s", 2);
        sidecar["restartPolicy"] = json!("Always");
        let spec = json!({"containers": [container("c", 1)], "initContainers": [sidecar, container("i", 3)]});
        let ports: Vec<i32> = host_ports(&serde_json::from_value(spec).unwrap()).iter().map(|p| p.port).collect();
        assert_eq!(ports, [1, 2]);
    }
}
