//! The ranges of pods and Services that a new cluster has where nobody says any: 10.42.0.0/16 and 10.43.0.0/16, and the
//! next two where another cluster of this host has these, or the host has a way to an address of theirs already. I/O:
//! netlink. Caller: [`super::Which::resolve`].

use linux::netlink::{Error, Route, RouteKind, Rtnl, TABLE_MAIN};
use meta::{Prefix, Ranges};

use super::known;
use super::register::SLOTS;

/// What the ways of this host lead to, but for the one to all that is unknown.
pub fn routes(rtnl: &mut Rtnl) -> Result<impl Iterator<Item = Route> + use<>, Error> {
    let ordinary = |route: &Route| route.table == TABLE_MAIN && route.kind == RouteKind::Unicast && route.dst.len > 0;
    Ok(rtnl.routes()?.into_iter().filter(ordinary))
}

/// For a cluster with this number. Those of its number where the host doesn't say what it has: the check before a start
/// tells what is wrong with them.
pub fn ranges(slot: u16) -> (Ranges, Ranges) {
    let clusters = known();
    let had = clusters.iter().flat_map(|host| host.cluster.pod_cidr.iter().chain(host.cluster.service_cidr.iter()));
    let mut taken: Vec<Prefix> = had.collect();
    if let Ok(routes) = Rtnl::open().and_then(|mut rtnl| routes(&mut rtnl)) {
        taken.extend(routes.map(|route| route.dst));
    }
    first(slot, &taken)
}

/// Where all are taken, as by a route to 10.0.0.0/8, those of its number.
fn first(slot: u16, taken: &[Prefix]) -> (Ranges, Ranges) {
    let pair = |n: u16| [42 + 2 * n, 43 + 2 * n].map(|octet| Prefix::new([10, octet as u8, 0, 0], 16));
    let free = |pair: &[Prefix; 2]| !taken.iter().any(|taken| pair.iter().any(|range| range.overlaps(taken)));
    let [pods, services] = (slot..SLOTS).chain(0..slot).map(pair).find(free).unwrap_or_else(|| pair(slot));
    (pods.into(), services.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cluster_gets_ranges_that_nobody_has() {
        let chosen = |slot, taken: &[&str]| {
            let taken: Vec<Prefix> = taken.iter().map(|range| range.parse().expect("a range")).collect();
            first(slot, &taken).0.to_string()
        };
        assert_eq!(chosen(0, &["192.168.0.0/16"]), "10.42.0.0/16");
        assert_eq!(chosen(1, &[]), "10.44.0.0/16");
        assert_eq!(chosen(0, &["10.42.0.0/24"]), "10.44.0.0/16", "a bridge that somebody left");
        assert_eq!(chosen(0, &["10.43.7.0/24", "10.44.0.1/32"]), "10.46.0.0/16");
        assert_eq!(chosen(79, &["10.200.0.0/16"]), "10.42.0.0/16", "after the last the first");
        assert_eq!(chosen(2, &["10.0.0.0/8"]), "10.46.0.0/16", "nothing is free");
    }
}
