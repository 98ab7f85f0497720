//! Routes of both families: where packets to a range of addresses go. Does I/O through `Socket`; [`decode`] is pure.
//!
//! ```text
//! Route::link(dst, eth0)               dst dev eth0 scope link            the range is on the link itself
//! Route::via(dst, gateway, eth0)       dst via gateway dev eth0           … behind a router (host-gw of flannel)
//! Route::multipath(dst, hops)          dst nexthop via a weight 1         … behind several, by weight (ECMP of BGP)
//!                                          nexthop via b weight 1
//! Route::reject(dst, Blackhole)        blackhole dst                      nowhere: a range of ours that has no pods yet
//! ```
//!
//! A table has one route for a destination, a metric and a type of service: [`Rtnl::put_route`] replaces that one,
//! whoever made it. Of routes to one destination that differ in metric the lowest is used. So a route of an
//! administrator to the same destination stays as long as it has another metric, and those of an earlier version of ours,
//! which had no protocol of their own, become ours when they are put again. Whoever has many routes to keep adds them by
//! [`Rtnl::change_routes`]: there what is another's stays, and thousands go in one system call.

use std::net::IpAddr;

use meta::Prefix;

use super::Error;
use super::message::{Message, Writer, attrs, split, u16_at, u32_at};
use super::rtnl::{
    Attribute, CREATE_NEW, CREATE_OR_REPLACE, PROTOCOL, Rtnl, family, ip, missing_is_done, octets, write_all,
};
use super::socket::{Refusal, flags};

pub(super) const NEWROUTE: u16 = 24;
pub(super) const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
/// What the kernel says of every IPv6 route; only another preference is worth keeping.
const PREF_MEDIUM: &[u8] = &[0];
/// Of `struct rtnexthop`: length, flags, weight less one, interface.
const NEXT_HOP: usize = 8;
const RTNH_F_ONLINK: u8 = 4;

/// The table of ordinary routes.
pub const TABLE_MAIN: u32 = 254;
/// What the kernel makes of an IPv6 route without a metric.
const IPV6_METRIC: u32 = 1024;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
/// Any, where a route is named to be deleted.
const SCOPE_NOWHERE: u8 = 255;
/// The same of kinds.
const RTN_UNSPEC: u8 = 0;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to; a length of 0 is the default route.
    pub dst: Prefix,
    /// What becomes of the packets.
    pub kind: RouteKind,
    /// Routers or links that lead there; several share the packets by weight, a flow staying on one. Empty where `kind`
    /// leads nowhere.
    pub next_hops: Vec<NextHop>,
    /// 254 is the main one, 255 the kernel's own of local addresses.
    pub table: u32,
    /// The lowest wins. IPv4's default is 0, IPv6's 1024.
    pub metric: u32,
    /// Who made it: [`PROTOCOL`] for us, 2 the kernel, 4 an administrator.
    pub protocol: u8,
    /// The address that packets of this host's own leave from, where they have none yet.
    pub source: Option<IpAddr>,
    /// RT_SCOPE_*: how far away the destination is. IPv6 knows only 0.
    pub scope: u8,
    /// Only packets of this type of service (IPv4).
    pub tos: u8,
    /// Only packets from these addresses (IPv6).
    pub from: Option<Prefix>,
    /// What is beside it, to be written back as it was.
    pub other: Vec<Attribute>,
}

/// What a route does with packets: RTN_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// They go to a next hop.
    Unicast,
    /// They are for this host.
    Local,
    /// Sent to everybody on the link.
    Broadcast,
    /// To the nearest of several hosts; here: for this one.
    Anycast,
    /// To a group; only the kernel makes these.
    Multicast,
    /// They are dropped, and nobody is told.
    Blackhole,
    /// They are dropped; the sender is told that there is no such host.
    Unreachable,
    /// They are dropped; the sender is told that it may not.
    Prohibit,
    /// The table says nothing of them; the next rule does.
    Throw,
    /// By the kernel's number.
    Other(u8),
}

/// What becomes of one route among many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteChange {
    /// There must be none to the same destination with the same metric, whoever made it.
    Add(Route),
    /// It takes the place of the one to the same destination with the same metric, if there is one.
    Put(Route),
    /// Those of one protocol to a destination go, wherever they lead.
    Delete {
        /// Where to.
        dst: Prefix,
        /// Of which table.
        table: u32,
        /// 0 is any.
        metric: u32,
        /// Whose.
        protocol: u8,
    },
}

/// One way to a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The router; none: the destination is on the link. It may be of IPv6 for an IPv4 route (RFC 5549).
    pub gateway: Option<IpAddr>,
    /// The link to leave by; none only where the gateway alone says it.
    pub index: Option<u32>,
    /// Its share of the packets among the route's next hops, from 1 to 256; 1 where it is alone.
    pub weight: u16,
    /// The gateway is on the link though no address says so.
    pub onlink: bool,
    /// Of a route of several: what is beside it there.
    pub other: Vec<Attribute>,
}

impl NextHop {
    /// Directly on a link.
    pub fn link(index: u32) -> Self {
        NextHop { gateway: None, index: Some(index), weight: 1, onlink: false, other: Vec::new() }
    }

    /// By a router that is on a link.
    pub fn via(gateway: impl Into<IpAddr>, index: u32) -> Self {
        NextHop { gateway: Some(gateway.into()), ..NextHop::link(index) }
    }
}

impl Route {
    /// To `dst`, directly reachable on a link.
    pub fn link(dst: Prefix, index: u32) -> Self {
        Route::multipath(dst, vec![NextHop::link(index)])
    }

    /// To `dst` by a gateway.
    pub fn via(dst: Prefix, gateway: IpAddr, index: u32) -> Self {
        Route::multipath(dst, vec![NextHop::via(gateway, index)])
    }

    /// To `dst` by any of these.
    pub fn multipath(dst: Prefix, next_hops: Vec<NextHop>) -> Self {
        let far = dst.is_ipv6() || next_hops.iter().any(|hop| hop.gateway.is_some());
        let scope = if far { SCOPE_UNIVERSE } else { SCOPE_LINK };
        Route { next_hops, scope, ..Route::reject(dst, RouteKind::Unicast) }
    }

    /// To `dst`, and no further: for the kinds that lead nowhere.
    pub fn reject(dst: Prefix, kind: RouteKind) -> Self {
        Route {
            dst: dst.network(),
            kind,
            next_hops: Vec::new(),
            table: TABLE_MAIN,
            metric: if dst.is_ipv6() { IPV6_METRIC } else { 0 },
            protocol: PROTOCOL,
            source: None,
            scope: SCOPE_UNIVERSE,
            tos: 0,
            from: None,
            other: Vec::new(),
        }
    }

    /// Whether we made it, in this version of ours or another: what a clean-up may remove.
    pub fn is_ours(&self) -> bool {
        self.protocol == PROTOCOL
    }

    /// The link of the first next hop.
    pub fn index(&self) -> Option<u32> {
        self.next_hops.first()?.index
    }

    /// The router of the first next hop.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.next_hops.first()?.gateway
    }
}

impl Rtnl {
    /// Of all tables, both families, the kernel's own among them.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        self.socket.dump(GETROUTE, "listing routes", |w| w.raw(&[0; 12]), |m| decode(m.body))
    }

    /// Of one table, both families, or of all: what `each` makes of every route. Nothing else is kept, so that a table of a
    /// million routes costs what is made of them.
    pub fn routes_of<T>(
        &mut self,
        table: Option<u32>,
        mut each: impl FnMut(Route) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let fill = |w: &mut Writer| {
            w.raw(&[0; 12]);
            if let Some(table) = table {
                w.attr_u32(RTA_TABLE, table);
            }
        };
        // Kernels before 5.0 tell all tables whatever is asked.
        let asked = |route: &Route| table.is_none_or(|table| table == route.table);
        let answer = self.socket.dump(GETROUTE, "listing routes", fill, |m| each(decode(m.body).filter(asked)?));
        match answer {
            // A table that nobody has put anything into.
            Err(e) if e.is_missing() => Ok(Vec::new()),
            answer => answer,
        }
    }

    /// Makes changes in one system call, in their order; those that the kernel refused come back by their number. What is
    /// gone already is deleted.
    pub fn change_routes(&mut self, changes: &[RouteChange]) -> Result<Vec<(usize, Error)>, Error> {
        let mut w = Writer::new();
        let mut first = None;
        for change in changes {
            let seq = self.socket.next_seq();
            first.get_or_insert(seq);
            match change {
                RouteChange::Add(route) => put(&mut w, NEWROUTE, CREATE_NEW, seq, route),
                RouteChange::Put(route) => put(&mut w, NEWROUTE, CREATE_OR_REPLACE, seq, route),
                RouteChange::Delete { dst, table, metric, protocol } => {
                    let any = if dst.is_ipv6() { SCOPE_UNIVERSE } else { SCOPE_NOWHERE };
                    let (table, metric, protocol) = (*table, *metric, *protocol);
                    let kind = RouteKind::Other(RTN_UNSPEC);
                    put(
                        &mut w,
                        DELROUTE,
                        0,
                        seq,
                        &Route { table, metric, protocol, scope: any, ..Route::reject(*dst, kind) },
                    );
                }
            }
        }
        let Some(first) = first else { return Ok(Vec::new()) };
        let refusals = self.socket.batch(w.bytes(), "changing routes")?;
        let refused = |refusal: Refusal| {
            let at = refusal.seq.wrapping_sub(first) as usize;
            let (doing, dst, deleted) = match changes.get(at)? {
                RouteChange::Add(route) | RouteChange::Put(route) => ("adding", route.dst, false),
                RouteChange::Delete { dst, .. } => ("removing", *dst, true),
            };
            let what = format!("{doing} route to {dst}");
            let error = Error::Refused { what, errno: refusal.errno, message: refusal.message };
            (!(deleted && error.is_missing())).then_some((at, error))
        };
        Ok(refusals.into_iter().filter_map(refused).collect())
    }

    /// The route that a packet to `to` would take, with the source address that it would have. None when there is none,
    /// or one that drops it. Nothing is sent.
    pub fn route_to(&mut self, to: IpAddr) -> Result<Option<Route>, Error> {
        /// No route, one that is unreachable, one that prohibits, a blackhole.
        const NO_WAY: [i32; 4] = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL];
        let fill = |w: &mut Writer| {
            let mut body = [0u8; 12];
            body[0] = family(to.is_ipv6());
            body[1] = Prefix::host(to).len;
            w.raw(&body);
            w.attr(RTA_DST, &octets(to));
        };
        let each = |m: &Message<'_>| decode(m.body);
        match self.socket.get(GETROUTE, &format!("asking for the route to {to}"), fill, each) {
            Err(e) if e.is_missing() || NO_WAY.contains(&e.errno()) => Ok(None),
            answer => answer,
        }
    }

    /// Adds a route, or takes the place of the one to the same destination with the same metric.
    pub fn put_route(&mut self, route: &Route) -> Result<(), Error> {
        let what = format!("adding route to {}", route.dst);
        self.socket.request(NEWROUTE, CREATE_OR_REPLACE, &what, |w| write(w, route))
    }

    /// Removes this very route: one to the same destination of another protocol, kind or next hop stays.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        let what = format!("removing route to {}", route.dst);
        missing_is_done(self.socket.request(DELROUTE, 0, &what, |w| write(w, route)))
    }

    /// The way that IPv4 packets to anywhere leave by: the main table's default with the lowest metric.
    pub fn default_route(&mut self) -> Result<Option<Route>, Error> {
        let is_default = |r: &Route| {
            r.dst == Prefix::everything(false)
                && r.kind == RouteKind::Unicast
                && r.table == TABLE_MAIN
                && r.index().is_some()
        };
        Ok(self.routes()?.into_iter().filter(is_default).min_by_key(|r| r.metric))
    }
}

/// A message that is answered only if it is refused.
fn put(w: &mut Writer, kind: u16, flags: u16, seq: u32, route: &Route) {
    let m = w.begin(kind, flags::REQUEST | flags, seq);
    write(w, route);
    w.end(m);
}

fn write(w: &mut Writer, route: &Route) {
    let mut body = [0u8; 12];
    body[0] = family(route.dst.is_ipv6());
    body[1] = route.dst.len;
    body[2] = route.from.map_or(0, |from| from.len);
    body[3] = route.tos;
    body[4] = u8::try_from(route.table).unwrap_or(0);
    body[5] = route.protocol;
    body[6] = route.scope;
    body[7] = route.kind.number();
    if let [hop] = &route.next_hops[..] {
        body[8] = hop.flags();
    }
    w.raw(&body);
    if route.dst.len > 0 {
        w.attr(RTA_DST, &octets(route.dst.network().addr));
    }
    if let Some(from) = route.from {
        w.attr(RTA_SRC, &octets(from.addr));
    }
    match &route.next_hops[..] {
        [] => {}
        [hop] => {
            if let Some(index) = hop.index {
                w.attr_u32(RTA_OIF, index);
            }
            write_gateway(w, route, hop);
        }
        many => w.attr(RTA_MULTIPATH, &many.iter().flat_map(|hop| next_hop(route, hop)).collect::<Vec<u8>>()),
    }
    if let Some(source) = route.source {
        w.attr(RTA_PREFSRC, &octets(source));
    }
    if route.metric > 0 {
        w.attr_u32(RTA_PRIORITY, route.metric);
    }
    w.attr_u32(RTA_TABLE, route.table);
    write_all(w, &route.other);
}

fn write_gateway(w: &mut Writer, route: &Route, hop: &NextHop) {
    match hop.gateway {
        Some(gateway) if gateway.is_ipv6() == route.dst.is_ipv6() => w.attr(RTA_GATEWAY, &octets(gateway)),
        Some(gateway) => {
            let of = u16::from(family(gateway.is_ipv6())).to_ne_bytes();
            w.attr(RTA_VIA, &[&of[..], &octets(gateway)].concat());
        }
        None => {}
    }
}

/// One `struct rtnexthop` with its attributes.
fn next_hop(route: &Route, hop: &NextHop) -> Vec<u8> {
    let mut w = Writer::new();
    write_gateway(&mut w, route, hop);
    write_all(&mut w, &hop.other);
    let weight = hop.weight.clamp(1, 256) - 1;
    let len = (NEXT_HOP + w.len()) as u16;
    let head = [&len.to_ne_bytes()[..], &[hop.flags(), weight as u8], &hop.index.unwrap_or(0).to_ne_bytes()];
    [&head.concat()[..], w.bytes()].concat()
}

/// Takes a message's body apart. None for what is no IP route: the tables of multicast routers and of MPLS.
pub(super) fn decode(body: &[u8]) -> Option<Route> {
    let (fixed, rest) = split(body, 12)?;
    let v6 = match i32::from(fixed[0]) {
        libc::AF_INET => false,
        libc::AF_INET6 => true,
        _ => return None,
    };
    let everything = Prefix::everything(v6);
    let mut hop = NextHop { index: None, ..NextHop::link(0) };
    hop.onlink = fixed[8] & RTNH_F_ONLINK != 0;
    let mut route = Route {
        metric: 0,
        table: u32::from(fixed[4]),
        protocol: fixed[5],
        scope: fixed[6],
        tos: fixed[3],
        from: (fixed[2] > 0).then_some(Prefix { len: fixed[2], ..everything }),
        ..Route::reject(everything, RouteKind::of(fixed[7]))
    };
    route.dst.len = fixed[1];
    for (kind, value) in attrs(rest) {
        match kind {
            RTA_DST => route.dst.addr = ip(value)?,
            RTA_SRC => route.from = Some(Prefix { addr: ip(value)?, len: fixed[2] }),
            RTA_GATEWAY => hop.gateway = ip(value),
            RTA_VIA => hop.gateway = value.get(2..).and_then(ip),
            RTA_OIF => hop.index = u32_at(value, 0),
            RTA_MULTIPATH => route.next_hops = next_hops(value),
            RTA_PREFSRC => route.source = ip(value),
            RTA_PRIORITY => route.metric = u32_at(value, 0)?,
            RTA_TABLE => route.table = u32_at(value, 0)?,
            RTA_CACHEINFO => {} // counts: another at each look
            RTA_PREF if value == PREF_MEDIUM => {}
            _ => route.other.push(Attribute::new(kind, value)),
        }
    }
    // IPv6 hangs a route that leads nowhere on loopback.
    if (hop.gateway.is_some() || hop.index.is_some()) && !route.kind.leads_nowhere() {
        route.next_hops.push(hop);
    }
    Some(route)
}

fn next_hops(mut bytes: &[u8]) -> Vec<NextHop> {
    let mut hops = Vec::new();
    while let Some(len) = u16_at(bytes, 0).map(usize::from).filter(|len| (NEXT_HOP..=bytes.len()).contains(len)) {
        let (flags, weight) = (bytes[2], u16::from(bytes[3]) + 1);
        let mut hop = NextHop { gateway: None, index: u32_at(bytes, 4).filter(|i| *i > 0), ..NextHop::link(0) };
        (hop.weight, hop.onlink) = (weight, flags & RTNH_F_ONLINK != 0);
        for (kind, value) in attrs(&bytes[NEXT_HOP..len]) {
            match kind {
                RTA_GATEWAY => hop.gateway = ip(value),
                RTA_VIA => hop.gateway = value.get(2..).and_then(ip),
                _ => hop.other.push(Attribute::new(kind, value)),
            }
        }
        hops.push(hop);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

impl NextHop {
    fn flags(&self) -> u8 {
        if self.onlink { RTNH_F_ONLINK } else { 0 }
    }
}

impl RouteKind {
    fn of(number: u8) -> Self {
        match number {
            1 => RouteKind::Unicast,
            2 => RouteKind::Local,
            3 => RouteKind::Broadcast,
            4 => RouteKind::Anycast,
            5 => RouteKind::Multicast,
            6 => RouteKind::Blackhole,
            7 => RouteKind::Unreachable,
            8 => RouteKind::Prohibit,
            9 => RouteKind::Throw,
            other => RouteKind::Other(other),
        }
    }

    fn number(self) -> u8 {
        match self {
            RouteKind::Unicast => 1,
            RouteKind::Local => 2,
            RouteKind::Broadcast => 3,
            RouteKind::Anycast => 4,
            RouteKind::Multicast => 5,
            RouteKind::Blackhole => 6,
            RouteKind::Unreachable => 7,
            RouteKind::Prohibit => 8,
            RouteKind::Throw => 9,
            RouteKind::Other(other) => other,
        }
    }

    fn leads_nowhere(self) -> bool {
        matches!(self, RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(route: &Route) -> Option<Route> {
        let mut w = Writer::new();
        write(&mut w, route);
        decode(w.bytes())
    }

    #[test]
    fn what_is_written_is_read_back_also_what_has_no_name_here() {
        let odd = Attribute { kind: 99, value: vec![1, 2, 3] };
        let hop = |text: &str, weight: u16| NextHop { weight, ..NextHop::via(text.parse::<IpAddr>().unwrap(), 3) };
        for dst in ["10.1.0.0/16", "0.0.0.0/0", "fd00:1::/48", "::/0"] {
            let dst: Prefix = dst.parse().unwrap();
            let hops = if dst.is_ipv6() {
                vec![hop("fd00::1", 1), hop("fd00::2", 256), NextHop::link(9)]
            } else {
                vec![hop("10.0.0.1", 7), NextHop { onlink: true, ..hop("fd00::2", 1) }, NextHop::link(9)]
            };
            let mut many = Route { tos: 16, metric: 70, table: 1000, ..Route::multipath(dst, hops) };
            many.next_hops[1].other.push(odd.clone());
            many.other.push(odd.clone());
            many.source = many.next_hops[0].gateway;
            let alone = NextHop { weight: 1, ..many.next_hops[0].clone() };
            let one = Route { next_hops: vec![alone], ..many.clone() };
            let from = Route { from: Some(Prefix { len: 8, ..dst }), ..one.clone() };
            let kinds = (0..12).map(|n| Route { next_hops: vec![], kind: RouteKind::of(n), ..many.clone() });
            for route in [many.clone(), one, from].into_iter().chain(kinds) {
                assert_eq!(read_back(&route), Some(route));
            }
        }
    }

    #[test]
    fn next_hops_that_are_cut_end_the_walk() {
        let route = Route::link("10.0.0.0/8".parse().unwrap(), 1);
        let whole = next_hop(&route, &NextHop::via([10, 0, 0, 1], 3));
        for cut in 0..whole.len() {
            assert_eq!(next_hops(&whole[..cut]), []);
        }
        assert_eq!(next_hops(&[whole.clone(), whole].concat()).len(), 2);
    }
}
