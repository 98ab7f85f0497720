//! What is to change in the kernel, from what is wanted and what is there. Ours are the routes with our protocol number
//! into the network, and everything on links of ours; nothing else is touched. Pure. Caller: `kernel`.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;

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

/// In such an order that a packet which finds a route finds the rest, too: routes come last and go first. Each thing is
/// looked up, so that hundreds of hosts cost hundreds of steps.
pub fn changes(wanted: &Wanted, there: &There, ours: &Ours) -> Vec<Change> {
    let mut changes = Vec::new();
    let neighbours: HashMap<_, _> = there.neighbours.iter().map(|n| (neighbour_key(n), n)).collect();
    let missing = |n: &&Neighbour| !neighbours.get(&neighbour_key(n)).is_some_and(|t| same_neighbour(t, n));
    changes.extend(wanted.neighbours.iter().filter(missing).cloned().map(Change::PutNeighbour));
    let fdb = grouped(&there.fdb, fdb_key);
    let missing = |f: &&Fdb| !fdb.get(&fdb_key(f)).is_some_and(|same| same.iter().any(|t| same_fdb(t, f)));
    changes.extend(wanted.fdb.iter().filter(missing).cloned().map(Change::PutFdb));
    let routes = grouped(&there.routes, route_key);
    let missing = |r: &&Route| !routes.get(&route_key(r)).is_some_and(|same| same.iter().any(|t| same_route(t, r)));
    changes.extend(wanted.routes.iter().filter(missing).cloned().map(Change::PutRoute));

    // What replaces another of its kind is no reason to delete that one: it is gone by then.
    let keys: HashSet<_> = wanted.routes.iter().map(route_key).collect();
    let stale = |t: &&Route| ours.has(t) && !keys.contains(&route_key(t));
    changes.extend(there.routes.iter().filter(stale).cloned().map(Change::DeleteRoute));
    let on_link = |index: u32| ours.links.contains(&index);
    let keys: HashSet<_> = wanted.fdb.iter().map(fdb_key).collect();
    let stale = |t: &&Fdb| on_link(t.index) && t.dst.is_some() && !keys.contains(&fdb_key(t));
    changes.extend(there.fdb.iter().filter(stale).cloned().map(Change::DeleteFdb));
    let keys: HashSet<_> = wanted.neighbours.iter().map(neighbour_key).collect();
    // Groups have fixed hardware addresses, which the kernel writes itself.
    let stale = |t: &&Neighbour| {
        on_link(t.index) && t.is_permanent() && !t.addr.is_multicast() && !keys.contains(&neighbour_key(t))
    };
    changes.extend(there.neighbours.iter().filter(stale).cloned().map(Change::DeleteNeighbour));
    changes
}

/// What a route takes the place of.
fn route_key(route: &Route) -> (Prefix, u32, u8) {
    (route.dst, route.metric, route.tos)
}

fn neighbour_key(neighbour: &Neighbour) -> (u32, IpAddr) {
    (neighbour.index, neighbour.addr)
}

fn fdb_key(entry: &Fdb) -> (u32, [u8; 6]) {
    (entry.index, entry.mac.0)
}

fn grouped<T, K: Eq + Hash>(all: &[T], key: impl Fn(&T) -> K) -> HashMap<K, Vec<&T>> {
    let mut groups: HashMap<K, Vec<&T>> = HashMap::with_capacity(all.len());
    for one in all {
        groups.entry(key(one)).or_default().push(one);
    }
    groups
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
    use std::time::{Duration, Instant};

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

    /// Each was held against each: a second for every thousand hosts squared.
    #[test]
    fn ten_thousand_hosts_are_compared_in_a_moment() {
        let mut wanted = Wanted::default();
        for n in 0..10_000u32 {
            let base = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a05_0000 + n * 16));
            let [_, a, b, c] = n.to_be_bytes();
            let mac = Mac([2, 0, 0, a, b, c]);
            wanted.routes.push(Route::via(Prefix::new(base, 28), base, 9));
            wanted.neighbours.push(Neighbour::permanent(9, base, mac));
            wanted.fdb.push(Fdb::remote(9, mac, ip("192.0.2.7")));
        }
        let ours = Ours { networks: vec![prefix("10.0.0.0/8")], ..ours() };
        let began = Instant::now();
        assert_eq!(changes(&wanted, &there(&wanted), &ours), []);
        assert_eq!(changes(&wanted, &There::default(), &ours).len(), 30_000);
        assert_eq!(changes(&Wanted::default(), &there(&wanted), &ours).len(), 30_000 - 16);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
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
