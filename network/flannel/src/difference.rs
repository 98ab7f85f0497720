//! What is to change in the kernel, from what is wanted and what is there. Ours are the routes with our protocol number
//! into the network, and everything on links of ours; nothing else is touched. Pure. Caller: `kernel`.

use linux::netlink::{Fdb, Neighbour, Route, RouteKind, TABLE_MAIN};
use meta::Prefix;

use crate::backend::Wanted;
use crate::lease::Subnets;

/// What the kernel has, whosever it is.
#[derive(Clone, Debug, Default)]
pub struct There {
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
    pub fdb: Vec<Fdb>,
}

/// What of it is ours.
#[derive(Clone, Debug)]
pub struct Ours {
    /// The ranges of the network.
    pub networks: Vec<Prefix>,
    /// This host's own: whoever connects the pods has routes there.
    pub own: Subnets,
    /// Indexes of our links.
    pub links: Vec<u32>,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    PutNeighbour(Neighbour),
    PutFdb(Fdb),
    PutRoute(Route),
    DeleteRoute(Route),
    DeleteFdb(Fdb),
    DeleteNeighbour(Neighbour),
}

impl Ours {
    fn has(&self, route: &Route) -> bool {
        route.is_ours()
            && route.table == TABLE_MAIN
            && route.kind == RouteKind::Unicast
            && self.networks.iter().any(|network| network.covers(&route.dst))
            && !self.own.each().any(|own| own.overlaps(&route.dst))
    }
}

/// In such an order that a packet which finds a route finds the rest, too: routes come last and go first.
pub fn changes(wanted: &Wanted, there: &There, ours: &Ours) -> Vec<Change> {
    let mut changes = Vec::new();
    let missing = |n: &&Neighbour| !there.neighbours.iter().any(|t| same_neighbour(t, n));
    changes.extend(wanted.neighbours.iter().filter(missing).cloned().map(Change::PutNeighbour));
    let missing = |f: &&Fdb| !there.fdb.iter().any(|t| same_fdb(t, f));
    changes.extend(wanted.fdb.iter().filter(missing).cloned().map(Change::PutFdb));
    let missing = |r: &&Route| !there.routes.iter().any(|t| same_route(t, r));
    changes.extend(wanted.routes.iter().filter(missing).cloned().map(Change::PutRoute));

    // What replaces another of its kind is no reason to delete that one: it is gone by then.
    let replaced = |t: &Route| wanted.routes.iter().any(|r| (r.dst, r.metric, r.tos) == (t.dst, t.metric, t.tos));
    let stale = |t: &&Route| ours.has(t) && !replaced(t);
    changes.extend(there.routes.iter().filter(stale).cloned().map(Change::DeleteRoute));
    let on_link = |index: u32| ours.links.contains(&index);
    let stale = |t: &&Fdb| on_link(t.index) && t.dst.is_some() && !wanted.fdb.iter().any(|f| f.mac == t.mac);
    changes.extend(there.fdb.iter().filter(stale).cloned().map(Change::DeleteFdb));
    let stale = |t: &&Neighbour| {
        on_link(t.index)
            && t.is_permanent()
            && !wanted.neighbours.iter().any(|n| (n.index, n.addr) == (t.index, t.addr))
    };
    // Groups have fixed hardware addresses, which the kernel writes itself.
    let stale = |t: &&Neighbour| stale(t) && !t.addr.is_multicast();
    changes.extend(there.neighbours.iter().filter(stale).cloned().map(Change::DeleteNeighbour));
    changes
}

fn same_route(there: &Route, wanted: &Route) -> bool {
    let hop = |route: &Route| route.next_hops.first().map(|hop| (hop.gateway, hop.index, hop.onlink));
    let key = |route: &Route| (route.dst, route.kind, route.table, route.metric, route.protocol, route.source);
    there.next_hops.len() == wanted.next_hops.len() && hop(there) == hop(wanted) && key(there) == key(wanted)
}

fn same_neighbour(there: &Neighbour, wanted: &Neighbour) -> bool {
    there.is_permanent() && (there.index, there.addr, there.mac) == (wanted.index, wanted.addr, wanted.mac)
}

fn same_fdb(there: &Fdb, wanted: &Fdb) -> bool {
    (there.index, there.mac, there.dst) == (wanted.index, wanted.mac, wanted.dst)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use linux::netlink::Mac;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn ours() -> Ours {
        let own = Subnets { v4: Some(prefix("10.5.1.0/24")), v6: None };
        Ours { networks: vec![prefix("10.5.0.0/16")], own, links: vec![9] }
    }

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    /// The three entries of a host.
    fn host(n: u8) -> Wanted {
        let base = ip(&format!("10.5.{n}.0"));
        Wanted {
            routes: vec![Route::via(Prefix::new(base, 24), base, 9)],
            neighbours: vec![Neighbour::permanent(9, base, mac(n))],
            fdb: vec![Fdb::remote(9, mac(n), ip(&format!("192.0.2.{n}")))],
            complaints: Vec::new(),
        }
    }

    fn there(wanted: &Wanted) -> There {
        There { routes: wanted.routes.clone(), neighbours: wanted.neighbours.clone(), fdb: wanted.fdb.clone() }
    }

    #[test]
    fn a_host_that_comes_gets_its_route_last_and_one_that_goes_loses_it_first() {
        let wanted = host(2);
        let come = changes(&wanted, &There::default(), &ours());
        assert!(matches!(&come[..], [Change::PutNeighbour(_), Change::PutFdb(_), Change::PutRoute(_)]), "{come:?}");
        let gone = changes(&Wanted::default(), &there(&wanted), &ours());
        assert!(
            matches!(&gone[..], [Change::DeleteRoute(_), Change::DeleteFdb(_), Change::DeleteNeighbour(_)]),
            "{gone:?}"
        );
        assert_eq!(changes(&wanted, &there(&wanted), &ours()), []);
    }

    #[test]
    fn a_host_that_moved_is_replaced_not_deleted() {
        let (mut wanted, before) = (host(2), there(&host(2)));
        wanted.fdb[0].dst = Some(ip("192.0.2.77"));
        assert_eq!(changes(&wanted, &before, &ours()), [Change::PutFdb(wanted.fdb[0].clone())]);
        wanted.routes[0] = Route::via(prefix("10.5.2.0/24"), ip("192.0.2.77"), 2);
        let expected = [Change::PutFdb(wanted.fdb[0].clone()), Change::PutRoute(wanted.routes[0].clone())];
        assert_eq!(changes(&wanted, &before, &ours()), expected);
    }

    #[test]
    fn nothing_of_others_is_touched() {
        let route = |dst: &str| Route::via(prefix(dst), ip("192.0.2.9"), 2);
        let others = There {
            routes: vec![
                route("10.6.0.0/24"),
                route("10.5.1.0/24"),
                Route { protocol: 4, ..route("10.5.3.0/24") },
                Route { table: 255, ..route("10.5.3.0/24") },
                Route::reject(prefix("10.5.4.0/24"), RouteKind::Blackhole),
                route("0.0.0.0/0"),
            ],
            neighbours: vec![
                Neighbour::permanent(2, ip("192.0.2.9"), mac(9)),
                Neighbour { state: 2, ..Neighbour::permanent(9, ip("10.5.9.0"), mac(9)) },
                Neighbour::permanent(9, ip("ff02::16"), mac(9)),
            ],
            fdb: vec![Fdb::remote(3, mac(9), ip("192.0.2.9")), Fdb { dst: None, ..Fdb::remote(9, mac(9), ip("::")) }],
        };
        assert_eq!(changes(&Wanted::default(), &others, &ours()), []);
    }
}
