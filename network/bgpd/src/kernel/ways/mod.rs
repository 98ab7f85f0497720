//! What others have put into the kernel: links, addresses, and routes of other protocols; and by which of them a next hop is
//! reached. Pure: lists and news are told in. `task` asks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use linux::netlink::{Link, LinkAddress, Route, RouteKind};
use meta::Prefix;

use super::said::{Learned, LearnedHop};
use super::vrf;
use super::wish::{Hop, Shape, Target, Way, Wish};

/// The kernel's own: of links and their addresses (RTPROT_KERNEL), and of what another router said by ICMP.
const KERNELS: [u8; 2] = [1, 2];

/// See the module's head.
#[derive(Debug, Default)]
pub struct Ways {
    /// Links and addresses are those of this VRF.
    vrf: Option<String>,
    links: HashMap<u32, Link>,
    addresses: Vec<LinkAddress>,
    /// Of the table where next hops are looked up.
    routes: Routes,
    /// Of the table of ours, where that is another.
    beside: Option<Routes>,
}

/// How a next hop is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// 0 where it is on a link.
    pub metric: u32,
    /// Several where the route to it has several next hops.
    pub ways: Vec<Way>,
}

/// Routes of other protocols by their destination.
#[derive(Debug, Default)]
pub struct Routes {
    by: HashMap<Prefix, Vec<Foreign>>,
    /// How many prefixes there are of a length, of each family.
    lengths: [BTreeMap<u8, usize>; 2],
}

/// A route of another protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Foreign {
    protocol: u8,
    metric: u32,
    tos: u8,
    shape: Shape,
}

impl Ways {
    /// `beside`: routes of ours are in another table than that of ways.
    pub fn new(vrf: Option<String>, beside: bool) -> Ways {
        Ways { vrf, beside: beside.then(Routes::default), ..Ways::default() }
    }

    /// All links and addresses.
    pub fn list(&mut self, links: Vec<Link>, addresses: Vec<LinkAddress>) {
        self.links = links.into_iter().map(|link| (link.index, link)).collect();
        self.addresses = addresses;
    }

    /// All routes of others, of the table of ways or of the one beside.
    pub fn list_routes(&mut self, beside: bool, routes: Vec<Route>) {
        let table = if beside { self.beside.get_or_insert_default() } else { &mut self.routes };
        *table = Routes::default();
        routes.iter().for_each(|route| table.set(route));
    }

    /// A link is there, or is another than before. Whether that matters to any way.
    pub fn set_link(&mut self, link: Link) -> bool {
        let (index, up, carrier, master) = (link.index, link.up, link.carrier, link.master);
        let before = self.links.insert(index, link);
        if !up {
            self.lost(index);
        }
        before.is_none_or(|before| {
            (before.up, before.carrier, before.master) != (up, carrier, master)
                || before.name != self.links[&index].name
        })
    }

    pub fn remove_link(&mut self, index: u32) {
        self.links.remove(&index);
        self.addresses.retain(|address| address.index != index);
        self.lost(index);
    }

    /// The kernel takes IPv4 routes away with their link, and doesn't say so.
    fn lost(&mut self, index: u32) {
        self.routes.lost(index);
        self.beside.iter_mut().for_each(|routes| routes.lost(index));
    }

    pub fn set_address(&mut self, address: LinkAddress) {
        self.remove_address(&address);
        self.addresses.push(address);
    }

    pub fn remove_address(&mut self, address: &LinkAddress) {
        self.addresses.retain(|known| (known.index, known.prefix) != (address.index, address.prefix));
    }

    /// News of a route of another protocol. Whether what is left of it is uncertain.
    pub fn route(&mut self, beside: bool, route: &Route, gone: bool) -> bool {
        let table = if beside { self.beside.get_or_insert_default() } else { &mut self.routes };
        if !gone {
            table.set(route);
            return false;
        }
        table.remove(route)
    }

    /// Routes of others in the table of ours.
    fn ours(&self) -> &Routes {
        self.beside.as_ref().unwrap_or(&self.routes)
    }

    /// Whether another protocol has this place.
    pub fn is_taken(&self, prefix: &Prefix, metric: u32) -> bool {
        self.ours().by.get(prefix).is_some_and(|routes| routes.iter().any(|r| r.metric == metric && r.tos == 0))
    }

    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Whether a link is in the VRF, or, without one, in none.
    fn is_within(&self, index: u32) -> bool {
        let master = |link: &Link| self.links.get(&link.master?);
        self.links.get(&index).is_some_and(|link| vrf::is_within(link, master(link), self.vrf.as_deref()))
    }

    fn is_up(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| link.up && link.carrier)
    }

    /// The shape that a wish takes now.
    pub fn shape(&self, wish: &Wish) -> Option<Shape> {
        match &wish.target {
            Target::Hops(hops) => Shape::by(hops.iter().flat_map(|hop| self.hop(hop))),
            Target::Blackhole => Some(Shape::reject(RouteKind::Blackhole)),
            Target::Unreachable => Some(Shape::reject(RouteKind::Unreachable)),
            Target::Prohibit => Some(Shape::reject(RouteKind::Prohibit)),
        }
    }

    fn hop(&self, hop: &Hop) -> Vec<Way> {
        let Some(name) = &hop.link else {
            let reached = self.reach(hop.address).map(|reached| reached.ways).unwrap_or_default();
            let shared = |way: Way| Way { weight: way.weight.saturating_mul(hop.weight.max(1)), ..way };
            return reached.into_iter().map(shared).collect();
        };
        let link = self.links.values().find(|link| link.name == *name && self.is_up(link.index));
        let way = |link: &Link| Way {
            gateway: Some(hop.address),
            link: link.index,
            onlink: hop.onlink,
            weight: hop.weight.max(1),
        };
        link.map(way).into_iter().collect()
    }

    /// How an address is reached: by the longest prefix, and of its routes by that of the lowest metric. None also of this
    /// host's own addresses.
    pub fn reach(&self, address: IpAddr) -> Option<Reached> {
        if self.addresses.iter().any(|own| own.prefix.addr == address && self.is_within(own.index)) {
            return None;
        }
        let route = self.routes.matching(address).find_map(|routes| self.best(routes))?;
        if route.shape.kind != RouteKind::Unicast {
            return None;
        }
        let direct = route.shape.hops().iter().all(|hop| hop.gateway.is_none());
        let way = |hop: &Way| Way { gateway: hop.gateway.or(Some(address)), ..*hop };
        let ways: Vec<Way> = route.shape.hops().iter().filter(|hop| self.is_up(hop.link)).map(way).collect();
        let metric = if direct { 0 } else { route.metric.max(1) };
        (!ways.is_empty()).then_some(Reached { metric, ways })
    }

    /// Of routes to one prefix the one that packets take. One whose links are all down the kernel has taken away; one
    /// whose link carries nothing is still taken, and so nothing of a shorter prefix is.
    fn best<'a>(&self, routes: &'a [Foreign]) -> Option<&'a Foreign> {
        let stands = |route: &&Foreign| {
            let up = |hop: &Way| self.links.get(&hop.link).is_some_and(|link| link.up);
            route.tos == 0 && (route.shape.hops().is_empty() || route.shape.hops().iter().any(up))
        };
        routes.iter().filter(stands).min_by_key(|route| route.metric)
    }

    /// The best route of another protocol to a prefix, as it is told.
    pub fn learned(&self, prefix: &Prefix) -> Option<Learned> {
        let routes = self.ours().by.get(prefix)?;
        let others: Vec<Foreign> = routes.iter().filter(|route| !KERNELS.contains(&route.protocol)).cloned().collect();
        let best = self.best(&others)?;
        let hop = |hop: &Way| {
            let link = self.links.get(&hop.link).map(|link| link.name.clone()).unwrap_or_default();
            LearnedHop { gateway: hop.gateway, link }
        };
        let hops = best.shape.hops().iter().map(hop).collect();
        Some(Learned { protocol: best.protocol, metric: best.metric, kind: best.shape.kind, hops })
    }

    /// Prefixes that others have routes to in the table of ours.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        self.ours().by.keys().copied()
    }

    /// Ranges of the addresses of links that are up, with the names of those.
    pub fn direct(&self) -> BTreeMap<Prefix, BTreeSet<String>> {
        let mut ranges: BTreeMap<Prefix, BTreeSet<String>> = BTreeMap::new();
        let ours =
            |address: &&LinkAddress| address.settled && is_shared(address.prefix.addr) && self.is_within(address.index);
        for address in self.addresses.iter().filter(ours) {
            if let Some(link) = self.links.get(&address.index).filter(|link| link.up && link.carrier) {
                ranges.entry(address.prefix.network()).or_default().insert(link.name.clone());
            }
        }
        ranges
    }
}

/// Others may have a way to it.
fn is_shared(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

impl Routes {
    fn set(&mut self, route: &Route) {
        let foreign = Foreign::of(route);
        let prefix = route.dst.network();
        let routes = self.by.entry(prefix).or_default();
        if routes.is_empty() {
            *self.lengths[usize::from(prefix.is_ipv6())].entry(prefix.len).or_default() += 1;
        }
        // IPv4 has one route of a metric. IPv6 has several that differ in their links, unless they have gateways.
        let same = |known: &Foreign| {
            (known.metric, known.tos) == (foreign.metric, foreign.tos)
                && (!prefix.is_ipv6()
                    || known.shape.is_by_gateway() && foreign.shape.is_by_gateway()
                    || *known == foreign)
        };
        routes.retain(|known| !same(known));
        routes.push(foreign);
    }

    /// Whether there may be something left of it: a next hop of several was removed.
    fn remove(&mut self, route: &Route) -> bool {
        let gone = Foreign::of(route);
        let prefix = route.dst.network();
        let Some(routes) = self.by.get_mut(&prefix) else { return false };
        let before = routes.len();
        let same = |known: &Foreign| {
            (known.metric, known.tos, known.protocol) == (gone.metric, gone.tos, gone.protocol)
                && (!prefix.is_ipv6() || gone.shape.hops().iter().all(|hop| known.shape.hops().contains(hop)))
        };
        let uncertain = routes.iter().any(|known| same(known) && known.shape != gone.shape);
        routes.retain(|known| !same(known));
        if before > 0 && routes.is_empty() {
            self.forget(prefix);
        }
        uncertain
    }

    fn forget(&mut self, prefix: Prefix) {
        self.by.remove(&prefix);
        let lengths = &mut self.lengths[usize::from(prefix.is_ipv6())];
        if let Some(count) = lengths.get_mut(&prefix.len) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&prefix.len);
            }
        }
    }

    /// A link is down: IPv4 routes that have no other go.
    fn lost(&mut self, index: u32) {
        let mut empty = Vec::new();
        for (prefix, routes) in self.by.iter_mut().filter(|(prefix, _)| !prefix.is_ipv6()) {
            routes.retain(|route| {
                let hops = route.shape.hops();
                hops.is_empty() || hops.iter().any(|hop| hop.link != index)
            });
            if routes.is_empty() {
                empty.push(*prefix);
            }
        }
        empty.into_iter().for_each(|prefix| self.forget(prefix));
    }

    /// Routes to prefixes that hold an address, the longest prefix first.
    fn matching(&self, address: IpAddr) -> impl Iterator<Item = &[Foreign]> {
        let lengths = self.lengths[usize::from(address.is_ipv6())].keys().rev();
        lengths.filter_map(move |len| self.by.get(&Prefix::new(address, *len).network()).map(Vec::as_slice))
    }
}

impl Foreign {
    fn of(route: &Route) -> Foreign {
        Foreign { protocol: route.protocol, metric: route.metric, tos: route.tos, shape: Shape::of(route) }
    }
}

impl Shape {
    fn is_by_gateway(&self) -> bool {
        self.hops().iter().any(|hop| hop.gateway.is_some())
    }
}

/// The shapes of wishes, found once for each.
#[derive(Debug, Default)]
pub struct Shapes {
    by: HashMap<Arc<Wish>, Option<Arc<Shape>>>,
    /// One of each.
    pool: HashSet<Arc<Shape>>,
}

impl Shapes {
    /// The one copy of a shape.
    pub fn one_of(&mut self, shape: Shape) -> Arc<Shape> {
        if let Some(known) = self.pool.get(&shape) {
            return known.clone();
        }
        let shape = Arc::new(shape);
        self.pool.insert(shape.clone());
        shape
    }

    /// Finds a wish's shape, unless it is known.
    pub fn find(&mut self, wish: &Arc<Wish>, ways: &Ways) {
        if !self.by.contains_key(wish) {
            let shape = ways.shape(wish).map(|shape| self.one_of(shape));
            self.by.insert(wish.clone(), shape);
        }
    }

    /// Finds all of them anew; those that have changed.
    pub fn find_again(&mut self, ways: &Ways) -> HashSet<Arc<Wish>> {
        let mut changed = HashSet::new();
        let wishes: Vec<Arc<Wish>> = self.by.keys().cloned().collect();
        for wish in wishes {
            let shape = ways.shape(&wish).map(|shape| self.one_of(shape));
            if self.by.insert(wish.clone(), shape.clone()) != Some(shape) {
                changed.insert(wish);
            }
        }
        changed
    }

    /// The shape that was found.
    pub fn get(&self, wish: &Arc<Wish>) -> Option<Arc<Shape>> {
        self.by.get(wish).cloned().flatten()
    }

    /// Lets go of what only this one and the plan's own list of wishes hold.
    pub fn sweep(&mut self) {
        self.by.retain(|wish, _| Arc::strong_count(wish) > 2);
        self.pool.retain(|shape| Arc::strong_count(shape) > 1);
    }
}

#[cfg(test)]
mod tests;
