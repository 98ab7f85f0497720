//! What the specification passes between runtime and plugins. Pure.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The versions of the specification that are spoken here, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// What is spoken when nobody says otherwise.
pub const VERSION: &str = "1.1.0";

/// The outcome of ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddResult {
    /// The version that the result is written in.
    #[serde(rename = "cniVersion", default, skip_serializing_if = "String::is_empty")]
    pub cni_version: String,
    /// Made or found, on the host and inside, in the order of their making.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Addresses, the primary first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpConfig>,
    /// Routes inside the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteConfig>,
    /// Servers for the container; the kubelet writes its own for pods.
    #[serde(default)]
    pub dns: Dns,
}

/// One of [`AddResult::interfaces`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// On its side: `eth0` inside, `veth…` on the host.
    pub name: String,
    /// Six bytes in hexadecimal with colons; empty where the link has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Bytes; 0: not said.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// The namespace's path; empty: on the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
}

/// One of [`AddResult::ips`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// Which of the interfaces has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// With prefix length: `10.42.0.5/24`.
    pub address: String,
    /// The next hop of the default route, on the same link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// "4" or "6", before version 1.0.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// One of [`AddResult::routes`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteConfig {
    /// A range: `0.0.0.0/0`.
    pub dst: String,
    /// The next hop; none: the gateway of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
}

/// `dns` of a configuration or result: what a container's resolv.conf would say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses of servers, in the order in which they are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Suffixes that short names are tried with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of resolv.conf(5): `ndots:5`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A port of the host that leads to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// 1 to 65535; 0 maps nothing.
    #[serde(rename = "hostPort")]
    pub host_port: u16,
    /// 1 to 65535.
    #[serde(rename = "containerPort")]
    pub container_port: u16,
    /// Of both ports.
    #[serde(default)]
    pub protocol: Protocol,
    /// Only on this address of the host; none, or 0.0.0.0: on all.
    #[serde(rename = "hostIP", default, deserialize_with = "lenient_ip", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// The protocols that have ports; older configurations write them in capitals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// 6 of the IANA's protocol numbers.
    #[default]
    #[serde(alias = "TCP")]
    Tcp,
    /// 17 of the IANA's protocol numbers.
    #[serde(alias = "UDP")]
    Udp,
    /// 132 of the IANA's protocol numbers.
    #[serde(alias = "SCTP")]
    Sctp,
}

impl Protocol {
    /// IPPROTO_*.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl AddResult {
    /// The first address of the pod.
    pub fn ip(&self) -> Option<IpAddr> {
        self.addresses().first().copied()
    }

    /// Every address of the pod, the primary first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let address = |ip: &IpConfig| ip.address.split('/').next()?.parse().ok();
        self.ips.iter().filter_map(address).collect()
    }

    /// As JSON in the words of a version of the specification.
    pub fn to_json(&self, version: &str) -> Value {
        let mut result = self.clone();
        result.cni_version = version.to_owned();
        for ip in &mut result.ips {
            let family = if ip.address.contains(':') { "6" } else { "4" };
            ip.version = version.starts_with("0.").then(|| family.to_owned());
        }
        if version != VERSION {
            result.interfaces.iter_mut().for_each(|i| i.mtu = 0);
        }
        serde_json::to_value(result).expect("strings, numbers and lists are JSON")
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// An empty string means no address, as kubelets write it.
fn lenient_ip<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(deserializer)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_speak_the_version_asked_for() {
        let ip = IpConfig { interface: Some(0), address: "10.0.0.2/24".into(), gateway: None, version: None };
        let eth0 = Interface { name: "eth0".into(), mtu: 1400, ..Interface::default() };
        let result = AddResult { ips: vec![ip], interfaces: vec![eth0], ..AddResult::default() };
        let old = result.to_json("0.4.0");
        assert_eq!((&old["ips"][0]["version"], &old["interfaces"][0]["mtu"]), (&Value::from("4"), &Value::Null));
        let new = result.to_json("1.1.0");
        assert_eq!((&new["ips"][0]["version"], &new["interfaces"][0]["mtu"]), (&Value::Null, &Value::from(1400)));
    }

    #[test]
    fn port_mappings_are_read_as_kubelets_write_them() {
        let text = r#"{"hostPort":80,"containerPort":8080,"protocol":"TCP","hostIP":""}"#;
        let port: PortMapping = serde_json::from_str(text).unwrap();
        assert_eq!((port.protocol, port.host_ip), (Protocol::Tcp, None));
    }
}
