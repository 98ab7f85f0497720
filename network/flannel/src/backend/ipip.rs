//! The backend ipip: IPv4 in IPv4, made by the kernel, by one link for all hosts: the gateway of the route says which. Pure.
//! Caller: the daemon.
//!
//! ```text
//! route      10.5.2.0/24 via 192.0.2.7 dev flannel.ipip onlink     the pods of the other host, at its public address
//! ```
//!
//! With `DirectRouting` a host that is a neighbour on the link gets a plain route by its address instead.

use std::net::{IpAddr, Ipv4Addr};

use linux::netlink::{Ipip, NextHop, Route};

use super::{External, Wanted, peers};
use crate::config::{ConfigError, Fields, NetConf};
use crate::lease::{Lease, Subnets};

pub const TYPE: &str = "ipip";
/// The bytes around a packet: IP.
pub const OVERHEAD: u32 = 20;
/// A host has one: links of this kind are told apart by their addresses alone.
pub const LINK: &str = "flannel.ipip";

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub direct_routing: bool,
}

impl Options {
    pub fn of(fields: &Fields) -> Result<Options, ConfigError> {
        Ok(Options { direct_routing: fields.flag("DirectRouting", false)? })
    }
}

/// What the link is like.
pub fn shape(local: Ipv4Addr) -> Ipip {
    Ipip { local: Some(local), remote: None }
}

/// The routes to other hosts' pods. `link` is the index of the link; `is_neighbour` says whether an address is on a link of
/// this host.
pub fn wanted<'a>(
    (conf, options): (&NetConf, &Options),
    own: &Subnets,
    external: &External,
    leases: impl IntoIterator<Item = &'a Lease>,
    link: u32,
    is_neighbour: impl Fn(IpAddr) -> bool,
) -> Wanted {
    let mut wanted = Wanted::default();
    for (subnet, host, _) in peers(conf, own, leases, TYPE, false, &mut wanted.complaints) {
        wanted.routes.push(match options.direct_routing && is_neighbour(host) {
            true => Route::via(subnet, host, external.index),
            false => Route::multipath(subnet, vec![NextHop { onlink: true, ..NextHop::via(host, link) }]),
        });
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::tests::{conf, external, lease, subnets};
    use super::*;

    fn look(backend: &str) -> Wanted {
        let conf = conf(backend);
        let Backend::Ipip(options) = Backend::of(&conf).unwrap() else { panic!() };
        let leases = [lease("10.5.2.0/24", "192.0.2.2", TYPE, None), lease("10.5.3.0/24", "198.51.100.3", TYPE, None)];
        let near = |host: IpAddr| host.to_string().starts_with("192.0.2.");
        wanted((&conf, &options), &subnets("10.5.1.0/24"), &external(), &leases, 9, near)
    }

    #[test]
    fn each_other_host_is_the_gateway_of_its_pods_whatever_link_it_is_on() {
        let through = |subnet: &str, host: &str| {
            let hop = NextHop { onlink: true, ..NextHop::via(host.parse::<IpAddr>().unwrap(), 9) };
            Route::multipath(subnet.parse().unwrap(), vec![hop])
        };
        let all = look(r#"{"Type": "ipip"}"#);
        let expected = vec![through("10.5.2.0/24", "192.0.2.2"), through("10.5.3.0/24", "198.51.100.3")];
        assert_eq!(all, Wanted { routes: expected, ..Wanted::default() });
        let near = look(r#"{"Type": "ipip", "DirectRouting": true}"#);
        let plain = Route::via("10.5.2.0/24".parse().unwrap(), "192.0.2.2".parse().unwrap(), 2);
        assert_eq!(near.routes, [plain, through("10.5.3.0/24", "198.51.100.3")]);
    }
}
