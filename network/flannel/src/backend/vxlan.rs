//! The backend vxlan: Ethernet in UDP, made by the kernel. Nothing is learnt: each other host has three entries, so that
//! no packet waits for an answer. Pure. Caller: the daemon.
//!
//! ```text
//! route      10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink     the pods of the other host
//! neighbour  10.5.2.0 has c6:5b:…                              its link's hardware address, from its lease
//! fdb        c6:5b:… dst 192.0.2.7                             its public address, from its lease
//! ```
//!
//! With `DirectRouting` a host that is a neighbour on the link gets a plain route by its address instead.

use std::net::IpAddr;

use linux::netlink::{Fdb, Mac, Neighbour, NextHop, Route, Vxlan};
use meta::Prefix;
use serde_json::{Value, json};

use super::{External, Wanted, peers};
use crate::config::{ConfigError, Fields, NetConf};
use crate::lease::{Lease, Subnets};

pub const TYPE: &str = "vxlan";
/// The kernel's own default, older than the registered 4789.
const PORT: u16 = 8472;
const LARGEST_VNI: u32 = (1 << 24) - 1;

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub vni: u32,
    pub port: u16,
    /// Of the outer packets; 0 is the external link's.
    pub mtu: u32,
    pub gbp: bool,
    pub learning: bool,
    pub direct_routing: bool,
}

/// The bytes around a packet: Ethernet, VXLAN, UDP and IP.
pub fn overhead(v6: bool) -> u32 {
    if v6 { 70 } else { 50 }
}

impl Options {
    pub fn of(fields: &Fields) -> Result<Options, ConfigError> {
        let port = fields.number("Port", 0, u32::from(u16::MAX))? as u16;
        Ok(Options {
            vni: fields.number("VNI", 1, LARGEST_VNI)?,
            port: if port == 0 { PORT } else { port },
            mtu: fields.number("MTU", 0, 65_535)?,
            gbp: fields.flag("GBP", false)?,
            learning: fields.flag("Learning", false)?,
            direct_routing: fields.flag("DirectRouting", false)?,
        })
    }

    /// The name of a family's link.
    pub fn link(&self, v6: bool) -> String {
        format!("{}.{}", if v6 { "flannel-v6" } else { "flannel" }, self.vni)
    }

    /// What that link is like.
    pub fn shape(&self, external: &External, v6: bool) -> Vxlan {
        Vxlan {
            id: self.vni,
            port: self.port,
            local: external.local(v6),
            // Left to routing: hosts may be behind other links of this one, as are nodes in namespaces of it.
            parent: None,
            learning: self.learning,
            gbp: self.gbp,
        }
    }

    /// What other hosts must know of a link of ours.
    pub fn data(&self, mac: Mac) -> Value {
        json!({"VNI": self.vni, "VtepMAC": mac.to_string()})
    }
}

/// The hardware address in what a lease says of its host's link.
pub fn mac(data: Option<&Value>) -> Option<Mac> {
    let text = data?.get("VtepMAC")?.as_str()?;
    let mut bytes = [0u8; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    // A group's address is nobody's own.
    let own = bytes[0] & 1 == 0 && bytes != [0; 6];
    (parts.next().is_none() && own).then_some(Mac(bytes))
}

/// The entries for other hosts. `link` is the index of a family's link; `is_neighbour` says whether an address is on a
/// link of this host.
pub fn wanted<'a>(
    (conf, options): (&NetConf, &Options),
    own: &Subnets,
    external: &External,
    leases: impl IntoIterator<Item = &'a Lease> + Clone,
    link: impl Fn(bool) -> Option<u32>,
    is_neighbour: impl Fn(IpAddr) -> bool,
) -> Wanted {
    let mut wanted = Wanted::default();
    for v6 in [false, true] {
        let Some(index) = link(v6) else { continue };
        for (subnet, host, attributes) in peers(conf, own, leases.clone(), TYPE, v6, &mut wanted.complaints) {
            let data = if v6 { &attributes.data6 } else { &attributes.data };
            if options.direct_routing && is_neighbour(host) {
                wanted.routes.push(Route::via(subnet, host, external.index));
            } else if let Some(mac) = mac(data.as_ref()) {
                wanted.routes.push(route(subnet, index));
                wanted.neighbours.push(Neighbour::permanent(index, subnet.addr, mac));
                wanted.fdb.push(Fdb::remote(index, mac, host));
            } else {
                let told = format!("the lease of {subnet} has no BackendData with a VtepMAC such as c6:5b:0a:00:00:01");
                wanted.complaints.push(told);
            }
        }
    }
    wanted
}

fn route(subnet: Prefix, index: u32) -> Route {
    Route::multipath(subnet, vec![NextHop { onlink: true, ..NextHop::via(subnet.addr, index) }])
}

#[cfg(test)]
mod tests {
    use super::super::tests::{conf, external, lease, subnets};
    use super::super::{Backend, Wanted};
    use super::*;

    const DATA: &str = r#"{"VNI": 1, "VtepMAC": "c6:5b:0a:00:00:02"}"#;

    fn look(backend: &str, leases: &[Lease]) -> Wanted {
        let conf = conf(backend);
        let Backend::Vxlan(options) = Backend::of(&conf).unwrap() else { panic!() };
        let near = |host: IpAddr| host.to_string().starts_with("192.0.2.");
        let own = subnets("10.5.1.0/24");
        wanted((&conf, &options), &own, &external(), leases, |v6| (!v6).then_some(9), near)
    }

    #[test]
    fn each_other_host_has_a_route_a_neighbour_and_a_place() {
        let leases = [lease("10.5.2.0/24", "192.0.2.2", TYPE, Some(DATA))];
        let wanted = look(r#"{"Type": "vxlan"}"#, &leases);
        let (base, mac): (IpAddr, _) = ("10.5.2.0".parse().unwrap(), Mac([0xc6, 0x5b, 10, 0, 0, 2]));
        let hop = NextHop { onlink: true, ..NextHop::via(base, 9) };
        assert_eq!(wanted.routes, [Route::multipath("10.5.2.0/24".parse().unwrap(), vec![hop])]);
        assert_eq!(wanted.neighbours, [Neighbour::permanent(9, base, mac)]);
        assert_eq!(wanted.fdb, [Fdb::remote(9, mac, "192.0.2.2".parse::<IpAddr>().unwrap())]);
        assert_eq!(wanted.complaints, [""; 0]);
    }

    #[test]
    fn with_direct_routing_neighbours_need_no_tunnel() {
        let leases = [
            lease("10.5.2.0/24", "192.0.2.2", TYPE, Some(DATA)),
            lease("10.5.3.0/24", "198.51.100.3", TYPE, Some(DATA)),
        ];
        let wanted = look(r#"{"Type": "vxlan", "DirectRouting": true}"#, &leases);
        assert_eq!(wanted.routes[0], Route::via("10.5.2.0/24".parse().unwrap(), "192.0.2.2".parse().unwrap(), 2));
        assert_eq!((wanted.routes.len(), wanted.neighbours.len(), wanted.fdb.len()), (2, 1, 1));
    }

    #[test]
    fn a_lease_without_a_hardware_address_is_told() {
        for data in
            [r#"{"VNI": 1}"#, r#"{"VtepMAC": "c6:5b"}"#, r#"{"VtepMAC": "01:00:5e:00:00:01"}"#, r#"{"VtepMAC": 7}"#]
        {
            let wanted = look(r#"{"Type": "vxlan"}"#, &[lease("10.5.2.0/24", "192.0.2.2", TYPE, Some(data))]);
            assert_eq!((wanted.routes.len(), wanted.complaints.len()), (0, 1), "{data}");
        }
        let own = json!({"VtepMAC": "c6:5b:0a:00:00:02"});
        assert_eq!(mac(Some(&own)).unwrap().to_string(), "c6:5b:0a:00:00:02");
    }

    #[test]
    fn defaults_are_upstreams() {
        let Backend::Vxlan(options) = Backend::of(&conf(r#"{"type": "vxlan"}"#)).unwrap() else { panic!() };
        assert_eq!((options.vni, options.port, options.link(false).as_str()), (1, 8472, "flannel.1"));
        let shape = options.shape(&external(), false);
        assert_eq!((shape.local, shape.parent, shape.learning), (external().local(false), None, false));
        assert_eq!(options.data(Mac([2, 0, 0, 0, 0, 1])), json!({"VNI": 1, "VtepMAC": "02:00:00:00:00:01"}));
    }
}
