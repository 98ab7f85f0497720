//! Where a proxied request goes. Pure: from objects and the request's path and query.

use meta::Status;
use serde_json::Value;

/// How far a backend is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// No TLS.
    Plain,
    /// TLS with the server's client certificate, checked against the kubelets' CA when there is one.
    Kubelet,
    /// TLS without checking.
    Anyone,
}

/// One backend and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub trust: Trust,
    pub host: String,
    pub port: u16,
    pub path_and_query: String,
    /// What a pod or service is told of the way to it: `x-forwarded-…`.
    pub forwarded: Vec<(&'static str, String)>,
}

/// Port of a kubelet that does not say.
const KUBELET_PORT: u16 = 10250;

/// `[scheme:]name[:port]` of a proxied name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxiedName<'a> {
    pub https: bool,
    pub name: &'a str,
    /// A number or a name; empty when left out.
    pub port: &'a str,
}

impl<'a> ProxiedName<'a> {
    pub fn parse(text: &'a str) -> Result<ProxiedName<'a>, Status> {
        let parts: Vec<&str> = text.split(':').collect();
        let bad = || Status::bad_request(format!("invalid service request {}", meta::text::quote(text)));
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return Err(bad()),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(bad());
        }
        Ok(ProxiedName { https: scheme == "https", name, port })
    }
}

/// The kubelet of a node.
pub fn kubelet(node: &Value, preferred: &[String], path_and_query: String) -> Result<Backend, Status> {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let address = preferred.iter().find_map(|wanted| {
        addresses.iter().find(|address| address["type"] == wanted.as_str()).and_then(|a| a["address"].as_str())
    });
    let Some(host) = address else {
        return Err(Status::internal(format!("no preferred addresses found; known addresses: [] (node {name})")));
    };
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(KUBELET_PORT);
    Ok(Backend { trust: Trust::Kubelet, host: host.to_owned(), port, path_and_query, forwarded: Vec::new() })
}

/// Refuses what no pod or node can have as its address: a status is written by others, and the host's own loopback
/// must not be reached by writing one.
pub fn proxyable(address: &str) -> Result<(), Status> {
    match meta::ip::parse(address).is_some_and(meta::ip::is_global_unicast) {
        true => Ok(()),
        false => Err(Status::bad_request("address not allowed")),
    }
}

/// Whether an address of Endpoints is that of the pod that it refers to, in the Service's own namespace.
pub fn backs(pod: &Value, address: &Value, namespace: &str) -> bool {
    let refers = address["targetRef"]["namespace"] == namespace;
    let ip = &address["ip"];
    let of_pod = &pod["status"];
    let listed = of_pod["podIPs"].as_array().into_iter().flatten().any(|of_pod| of_pod["ip"] == *ip);
    let own = ip.is_string() && (listed || of_pod["podIP"] == *ip);
    refers && own && proxyable(ip.as_str().unwrap_or_default()).is_ok()
}

/// A path with a query.
pub fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Percent-encodes what may not stand in a query value.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Names of the containers of a pod: plain ones, init containers, ephemeral ones.
fn containers<'a>(pod: &'a Value, list: &str) -> Vec<&'a str> {
    pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
}

/// The container that a request is about: named, or the only one.
pub fn container<'a>(pod: &'a Value, wanted: &'a str) -> Result<&'a str, Status> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let plain = containers(pod, "containers");
    if !wanted.is_empty() {
        let lists = ["containers", "initContainers", "ephemeralContainers"];
        if lists.iter().any(|list| containers(pod, list).contains(&wanted)) {
            return Ok(wanted);
        }
        return Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}")));
    }
    match plain.as_slice() {
        [one] => Ok(one),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        many => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
            for (list, word) in [("initContainers", "init"), ("ephemeralContainers", "ephemeral")] {
                let others = containers(pod, list);
                if !others.is_empty() {
                    message.push_str(&format!(" or one of the {word} containers: [{}]", others.join(" ")));
                }
            }
            Err(Status::bad_request(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn proxied_names_have_optional_scheme_and_port() {
        let parse = |text| ProxiedName::parse(text).map(|n| (n.https, n.name, n.port));
        assert_eq!(parse("web").ok(), Some((false, "web", "")));
        assert_eq!(parse("web:http").ok(), Some((false, "web", "http")));
        assert_eq!(parse("https:web:443").ok(), Some((true, "web", "443")));
        assert_eq!(parse("https:web:").ok(), Some((true, "web", "")));
        assert!(parse("ftp:web:1").is_err() && parse(":::").is_err());
    }

    #[test]
    fn only_the_address_of_a_pod_of_the_namespace_backs_a_service() {
        let pod = |ip: &str| json!({"metadata": {"name": "p"}, "status": {"podIP": ip, "podIPs": [{"ip": ip}, {"ip": "fd00::5"}]}});
        let address = |ip: &str, namespace: &str| json!({"ip": ip, "targetRef": {"kind": "Pod", "name": "p", "namespace": namespace}});
        assert!(backs(&pod("10.0.0.5"), &address("10.0.0.5", "a"), "a"));
        assert!(backs(&pod("10.0.0.5"), &address("fd00::5", "a"), "a"));
        assert!(!backs(&pod("10.0.0.5"), &address("10.0.0.6", "a"), "a"), "another address");
        assert!(!backs(&pod("10.0.0.5"), &address("10.0.0.5", "b"), "a"), "another namespace");
        assert!(!backs(&pod("10.0.0.5"), &json!({"ip": "10.0.0.5"}), "a"), "no reference");
        assert!(!backs(&pod("127.0.0.1"), &address("127.0.0.1", "a"), "a"), "a status that lies");
        assert!(!backs(&json!({}), &json!({"targetRef": {"namespace": "a"}}), "a"), "no address at all");
    }

    #[test]
    fn a_pod_with_one_container_needs_no_name() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, "").ok(), Some("a"));
        assert_eq!(container(&pod, "i").ok(), Some("i"));
        assert_eq!(container(&pod, "x").expect_err("none").message, "container x is not valid for pod p");
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(
            container(&two, "").expect_err("two").message,
            "a container name must be specified for pod p, choose one of: [a b]"
        );
    }
}
