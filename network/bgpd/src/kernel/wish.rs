//! What is wanted of a prefix, and the shape that this takes in the kernel. Pure. Used by `plan` and `ways`.

use std::net::IpAddr;

use linux::netlink::{NextHop, Route, RouteKind};
use meta::Prefix;

/// Next hops of a route: more than any decision gives, and a message has room for them.
const MOST_HOPS: usize = 256;
const MOST_WEIGHT: u32 = 256;

/// What a prefix shall have. Many prefixes share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wish {
    /// The lower one wins over routes of others. 0 counts as 1, as the kernel takes it for any.
    pub metric: u32,
    /// Where packets go.
    pub target: Target,
}

/// Where packets go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// To any of these that there is a way to; without one, there is no route.
    Hops(Vec<Hop>),
    /// Nowhere, and nobody is told.
    Blackhole,
    /// Nowhere; the sender is told that there is no such host.
    Unreachable,
    /// Nowhere; the sender is told that he may not.
    Prohibit,
}

/// A next hop as BGP knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Of either family; also far away, where the kernel has a route to it.
    pub address: IpAddr,
    /// It is on this link, whatever routes say: an unnumbered peer's, a link-local address.
    pub link: Option<String>,
    /// It is on `link` though no address of that says so: the other end of a tunnel.
    pub onlink: bool,
    /// Its share of the packets, from 1 to 256.
    pub weight: u16,
}

impl Hop {
    /// By routes.
    pub fn new(address: IpAddr) -> Hop {
        Hop { address, link: None, onlink: false, weight: 1 }
    }
}

impl Wish {
    /// By these next hops, all alike.
    pub fn by(metric: u32, hops: impl IntoIterator<Item = IpAddr>) -> Wish {
        Wish { metric, target: Target::Hops(hops.into_iter().map(Hop::new).collect()) }
    }
}

/// A route without its destination, such that two that are equal do the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub kind: RouteKind,
    /// Sorted, none twice.
    hops: Vec<Way>,
}

/// A next hop as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Way {
    /// None: what is sent is on the link.
    pub gateway: Option<IpAddr>,
    pub link: u32,
    pub onlink: bool,
    pub weight: u16,
}

impl Shape {
    /// To nowhere.
    pub fn reject(kind: RouteKind) -> Shape {
        Shape { kind, hops: Vec::new() }
    }

    /// By these; none when there are none.
    pub fn by(ways: impl IntoIterator<Item = Way>) -> Option<Shape> {
        let mut all: Vec<Way> = ways.into_iter().collect();
        all.sort_unstable();
        let mut hops: Vec<(Way, u32)> = Vec::new();
        for way in all {
            let weight = u32::from(way.weight.max(1));
            let same = |(known, _): &(Way, u32)| (known.gateway, known.link) == (way.gateway, way.link);
            match hops.iter_mut().find(|hop| same(hop)) {
                Some((_, sum)) => *sum += weight,
                None => hops.push((way, weight)),
            }
        }
        hops.truncate(MOST_HOPS);
        let divisor = hops.iter().fold(0, |divisor, (_, weight)| greatest_divisor(divisor, *weight)).max(1);
        let heaviest = hops.iter().map(|(_, weight)| weight / divisor).max()?;
        let scaled = |weight: u32| match heaviest {
            ..=MOST_WEIGHT => weight / divisor,
            heaviest => (weight / divisor * MOST_WEIGHT / heaviest).max(1),
        };
        let hops = hops.into_iter().map(|(way, weight)| Way { weight: scaled(weight) as u16, ..way }).collect();
        Some(Shape { kind: RouteKind::Unicast, hops })
    }

    /// As it was read.
    pub fn of(route: &Route) -> Shape {
        let way = |hop: &NextHop| Way {
            gateway: hop.gateway,
            link: hop.index.unwrap_or(0),
            onlink: hop.onlink,
            weight: hop.weight,
        };
        let mut hops: Vec<Way> = route.next_hops.iter().map(way).collect();
        hops.sort_unstable();
        Shape { kind: route.kind, hops }
    }

    pub fn hops(&self) -> &[Way] {
        &self.hops
    }

    /// The kernel has no IPv6 route by a router of IPv4.
    pub fn suits(&self, prefix: &Prefix) -> bool {
        !prefix.is_ipv6() || !self.hops.iter().any(|hop| hop.gateway.is_some_and(|gateway| gateway.is_ipv4()))
    }

    /// To a destination.
    pub fn route(&self, dst: Prefix, metric: u32, table: u32, protocol: u8) -> Route {
        let route = match self.kind {
            RouteKind::Unicast => Route::multipath(dst, self.hops.iter().map(next_hop).collect()),
            kind => Route::reject(dst, kind),
        };
        Route { metric, table, protocol, ..route }
    }
}

fn next_hop(way: &Way) -> NextHop {
    let hop = NextHop::link(way.link);
    NextHop { gateway: way.gateway, weight: way.weight, onlink: way.onlink, ..hop }
}

fn greatest_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(last: u8, weight: u16) -> Way {
        Way { gateway: Some(IpAddr::from([192, 0, 2, last])), link: 2, onlink: false, weight }
    }

    fn weights(ways: &[Way]) -> Vec<u16> {
        Shape::by(ways.iter().copied()).unwrap().hops().iter().map(|hop| hop.weight).collect()
    }

    #[test]
    fn hops_are_in_order_once_each_and_their_weights_small() {
        assert_eq!(Shape::by([way(2, 1), way(1, 1)]), Shape::by([way(1, 1), way(2, 1)]));
        assert_eq!(weights(&[way(1, 7)]), [1], "alone");
        assert_eq!(weights(&[way(1, 4), way(2, 8)]), [1, 2], "a common divisor");
        assert_eq!(weights(&[way(1, 1), way(2, 1), way(1, 2)]), [3, 1], "one router by two next hops");
        assert_eq!(weights(&[way(1, 256), way(1, 256), way(2, 1)]), [256, 1], "no more than the kernel takes");
        assert_eq!(Shape::by([]), None);
    }

    #[test]
    fn a_route_is_read_back_in_the_same_shape() {
        for dst in ["10.0.0.0/8", "fd00::/16"] {
            let dst: Prefix = dst.parse().unwrap();
            let shapes = [Shape::by([way(1, 1), way(2, 2)]).unwrap(), Shape::reject(RouteKind::Blackhole)];
            for shape in shapes {
                let route = shape.route(dst, 32, 254, 71);
                assert_eq!((route.dst, route.metric, route.table, route.protocol), (dst, 32, 254, 71));
                assert_eq!(Shape::of(&route), shape);
            }
        }
    }
}
