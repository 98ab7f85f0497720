//! How packets get to other hosts. What each backend wants in the kernel for the leases that there are is decided here and
//! in its file, purely; `crate::kernel` makes it so.
//!
//! | backend | for each other host | link | bytes it takes |
//! |---|---|---|---|
//! | `host-gw` | a route by the host's address, which must be on a link of ours | none | 0 |
//! | `vxlan` | route, neighbour, forwarding entry (see `vxlan`) | `flannel.VNI`, `flannel-v6.VNI` | 50, 70 |
//! | `wireguard` | a peer (see `wireguard`) | `flannel-wg`, `flannel-wg-v6` | 80 |
//! | `ipip` | a route by the host's address (see `ipip`) | `flannel.ipip` | 20 |
//! | `udp` | an entry in the table of the packet loop (see `udp`) | TUN `flannel0` | 28 |

pub mod hostgw;
pub mod ipip;
pub mod udp;
pub mod vxlan;
pub mod wireguard;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux::netlink::{Fdb, Neighbour, Route};
use meta::Prefix;

use crate::config::{ConfigError, NetConf};
use crate::lease::{Attributes, Lease, Subnets};

/// A backend with what the configuration says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    HostGw,
    Vxlan(vxlan::Options),
    Wireguard(wireguard::Options),
    Ipip(ipip::Options),
    Udp(udp::Options),
}

/// Those of upstream's that are not here, with the reason.
const ELSEWHERE: &[&str] = &["ipsec", "alloc", "extension", "tencent-vpc", "ali-vpc", "aws-vpc", "gce"];

/// The link by which this host reaches the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    /// Addresses of that link.
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// By which others reach us: those of the link, unless another was said.
    pub public_v4: Option<Ipv4Addr>,
    pub public_v6: Option<Ipv6Addr>,
}

impl External {
    pub fn local(&self, v6: bool) -> Option<IpAddr> {
        if v6 { self.v6.map(IpAddr::V6) } else { self.v4.map(IpAddr::V4) }
    }

    /// What a lease says of this host, before its backend adds to it.
    pub fn attributes(&self, conf: &NetConf, backend_type: &str) -> Attributes {
        Attributes {
            public_ip: self.public_v4.filter(|_| conf.v4.is_some()),
            public_ipv6: self.public_v6.filter(|_| conf.v6.is_some()),
            backend_type: backend_type.to_owned(),
            ..Attributes::default()
        }
    }
}

/// What is wanted in the kernel, of routes and what goes with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
    pub fdb: Vec<Fdb>,
    /// Leases that can't be followed, in sentences.
    pub complaints: Vec<String>,
}

impl Backend {
    pub fn of(conf: &NetConf) -> Result<Backend, ConfigError> {
        match conf.backend_type.as_str() {
            "host-gw" => Ok(Backend::HostGw),
            "vxlan" => vxlan::Options::of(&conf.backend).map(Backend::Vxlan),
            "wireguard" => wireguard::Options::of(conf).map(Backend::Wireguard),
            "ipip" | "udp" if conf.v6.is_some() => {
                let problem = format!("the {} backend carries IPv4 alone", conf.backend_type);
                Err(ConfigError::new("EnableIPv6", problem))
            }
            "ipip" => ipip::Options::of(&conf.backend).map(Backend::Ipip),
            "udp" => udp::Options::of(&conf.backend).map(Backend::Udp),
            other => {
                let known = if ELSEWHERE.contains(&other) { "can't be had here" } else { "is no backend" };
                let there = "there are vxlan, host-gw, wireguard, ipip and udp";
                Err(ConfigError::new("Backend.Type", format!("{other:?} {known}: {there}")))
            }
        }
    }

    /// The type as leases have it.
    pub fn lease_type(&self) -> &'static str {
        match self {
            Backend::HostGw => "host-gw",
            Backend::Vxlan(_) => vxlan::TYPE,
            Backend::Wireguard(_) => wireguard::TYPE,
            Backend::Ipip(_) => ipip::TYPE,
            Backend::Udp(_) => "",
        }
    }

    /// What is left of a packet of the external link.
    pub fn mtu(&self, external: &External, conf: &NetConf) -> u32 {
        let outer = |said: u32| if said == 0 { external.mtu } else { said };
        match self {
            Backend::HostGw => external.mtu,
            Backend::Vxlan(options) => outer(options.mtu).saturating_sub(vxlan::overhead(conf.v6.is_some())),
            Backend::Wireguard(options) => outer(options.mtu).saturating_sub(wireguard::OVERHEAD),
            Backend::Ipip(_) => external.mtu.saturating_sub(ipip::OVERHEAD),
            Backend::Udp(_) => external.mtu.saturating_sub(udp::OVERHEAD),
        }
    }

    /// The names of its links where they are known beforehand: a TUN link takes the first that is free, and goes with its
    /// process. `number` is that of the cluster on this host.
    pub fn links(&self, conf: &NetConf, number: u16) -> Vec<String> {
        match self {
            Backend::HostGw | Backend::Udp(_) => Vec::new(),
            Backend::Vxlan(options) => {
                let has = [(false, conf.v4.is_some()), (true, conf.v6.is_some())];
                has.iter().filter(|(_, has)| *has).map(|(v6, _)| options.link(*v6)).collect()
            }
            Backend::Wireguard(options) => {
                options.links(conf).iter().map(|(v6, _, _)| wireguard::link(*v6, number)).collect()
            }
            Backend::Ipip(_) => vec![ipip::LINK.to_owned()],
        }
    }
}

/// Why a lease can't be followed, if so: what lies outside of the network, is this host's own, or is another backend's.
fn astray(conf: &NetConf, own: &Subnets, lease: &Lease, subnet: Prefix, backend_type: &str) -> Option<String> {
    let theirs = &lease.attributes.backend_type;
    if !conf.covers(&lease.subnets) {
        Some(format!("the lease of {subnet} lies outside of the network"))
    } else if lease.subnets.overlaps(own) {
        Some(format!("the lease of {subnet} overlaps this host's own"))
    } else if theirs != backend_type {
        Some(format!("the host of {subnet} has the backend {theirs:?}, this one {backend_type:?}"))
    } else {
        None
    }
}

/// The other hosts' leases of a family that a backend can follow: their subnet and their address. What lies outside of the
/// network, or is another backend's, is told.
fn peers<'a>(
    conf: &NetConf,
    own: &Subnets,
    leases: impl IntoIterator<Item = &'a Lease>,
    backend_type: &str,
    v6: bool,
    complaints: &mut Vec<String>,
) -> Vec<(Prefix, IpAddr, &'a Attributes)> {
    let mut peers = Vec::new();
    for lease in leases {
        let subnet = if v6 { lease.subnets.v6 } else { lease.subnets.v4 };
        let Some(subnet) = subnet.filter(|_| lease.subnets != *own) else { continue };
        let attributes = &lease.attributes;
        if let Some(complaint) = astray(conf, own, lease, subnet, backend_type) {
            complaints.push(complaint);
        } else if let Some(address) = attributes.address(v6) {
            peers.push((subnet, address, attributes));
        } else {
            complaints.push(format!("the lease of {subnet} does not say how its host is reached"));
        }
    }
    peers
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn conf(backend: &str) -> NetConf {
        let text = format!(r#"{{"Network": "10.5.0.0/16", "Backend": {backend}}}"#);
        NetConf::parse(text.as_bytes()).unwrap()
    }

    pub fn subnets(text: &str) -> Subnets {
        Subnets { v4: Some(text.parse().unwrap()), v6: None }
    }

    pub fn lease(subnet: &str, host: &str, backend_type: &str, data: Option<&str>) -> Lease {
        let attributes = Attributes {
            public_ip: Some(host.parse().unwrap()),
            backend_type: backend_type.into(),
            data: data.map(|text| serde_json::from_str(text).unwrap()),
            ..Attributes::default()
        };
        Lease { subnets: subnets(subnet), attributes }
    }

    pub fn external() -> External {
        let address = Some(Ipv4Addr::new(192, 0, 2, 1));
        External {
            index: 2,
            name: "eth0".into(),
            mtu: 1500,
            v4: address,
            v6: None,
            public_v4: address,
            public_v6: None,
        }
    }

    #[test]
    fn a_backend_that_is_not_here_is_refused_with_those_that_are() {
        let said = |backend: &str| Backend::of(&conf(backend)).unwrap_err().to_string();
        for (backend, end) in [
            (
                r#"{"Type": "ipsec"}"#,
                "Backend.Type: \"ipsec\" can't be had here: there are vxlan, host-gw, wireguard, ipip and udp",
            ),
            (r#"{"Type": "weave"}"#, "\"weave\" is no backend: there are vxlan, host-gw, wireguard, ipip and udp"),
            ("{}", "Backend.Type: \"\" is no backend: there are vxlan, host-gw, wireguard, ipip and udp"),
            (r#"{"Type": "vxlan", "VNI": 16777216}"#, "Backend.VNI: 16777216 is not a number from 0 to 16777215"),
            (r#"{"Type": "udp", "Port": 0}"#, "Backend.Port: 0 is no port that others can send to"),
        ] {
            assert!(said(backend).ends_with(end), "{}", said(backend));
        }
        for four in ["udp", "ipip"] {
            let six = format!(
                r#"{{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48", "Backend": {{"Type": "{four}"}}}}"#
            );
            let said = Backend::of(&NetConf::parse(six.as_bytes()).unwrap()).unwrap_err().to_string();
            assert!(said.ends_with(&format!("EnableIPv6: the {four} backend carries IPv4 alone")), "{said}");
        }
    }

    #[test]
    fn what_a_packet_may_have_is_what_the_backend_leaves() {
        let rows = [
            (r#"{"Type": "host-gw"}"#, 1500),
            (r#"{"Type": "vxlan"}"#, 1450),
            (r#"{"Type": "vxlan", "MTU": 9000}"#, 8950),
            (r#"{"Type": "wireguard"}"#, 1420),
            (r#"{"Type": "wireguard", "MTU": 9000}"#, 8920),
            (r#"{"Type": "ipip"}"#, 1480),
            (r#"{"Type": "udp"}"#, 1472),
        ];
        for (backend, mtu) in rows {
            let conf = conf(backend);
            assert_eq!(Backend::of(&conf).unwrap().mtu(&external(), &conf), mtu, "{backend}");
        }
    }

    #[test]
    fn leases_that_lead_astray_are_told_and_not_followed() {
        let conf = conf(r#"{"Type": "host-gw"}"#);
        let leases = [
            lease("10.5.1.0/24", "192.0.2.1", "host-gw", None),
            lease("10.5.2.0/24", "192.0.2.2", "host-gw", None),
            lease("0.0.0.0/0", "192.0.2.66", "host-gw", None),
            lease("10.5.1.128/25", "192.0.2.66", "host-gw", None),
            lease("10.5.3.0/24", "192.0.2.3", "vxlan", None),
        ];
        let mut complaints = Vec::new();
        let peers = peers(&conf, &subnets("10.5.1.0/24"), &leases, "host-gw", false, &mut complaints);
        let peers: Vec<String> = peers.iter().map(|(subnet, host, _)| format!("{subnet} {host}")).collect();
        assert_eq!(peers, ["10.5.2.0/24 192.0.2.2"]);
        let expected = [
            "the lease of 0.0.0.0/0 lies outside of the network",
            "the lease of 10.5.1.128/25 overlaps this host's own",
            "the host of 10.5.3.0/24 has the backend \"vxlan\", this one \"host-gw\"",
        ];
        assert_eq!(complaints, expected);
    }
}
