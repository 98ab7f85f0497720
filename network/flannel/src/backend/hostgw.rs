//! The backend host-gw: each host is the router to its pods. Nothing is added to a packet, so all hosts must be neighbours
//! on one link. Pure. Caller: the daemon.

use linux::netlink::Route;

use super::{External, Wanted, peers};
use crate::config::NetConf;
use crate::lease::{Lease, Subnets};

pub const TYPE: &str = "host-gw";

/// The routes to other hosts' pods.
pub fn wanted<'a>(
    conf: &NetConf,
    own: &Subnets,
    external: &External,
    leases: impl IntoIterator<Item = &'a Lease> + Clone,
) -> Wanted {
    let mut wanted = Wanted::default();
    for v6 in [false, true] {
        for (subnet, host, _) in peers(conf, own, leases.clone(), TYPE, v6, &mut wanted.complaints) {
            wanted.routes.push(Route::via(subnet, host, external.index));
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::super::tests::{conf, external, lease, subnets};
    use super::*;

    #[test]
    fn a_route_leads_to_each_other_host() {
        let leases = [lease("10.5.1.0/24", "192.0.2.1", TYPE, None), lease("10.5.2.0/24", "192.0.2.2", TYPE, None)];
        let wanted = wanted(&conf(r#"{"Type": "host-gw"}"#), &subnets("10.5.1.0/24"), &external(), &leases);
        let route = Route::via("10.5.2.0/24".parse().unwrap(), "192.0.2.2".parse().unwrap(), 2);
        assert_eq!(wanted, Wanted { routes: vec![route], ..Wanted::default() });
    }
}
