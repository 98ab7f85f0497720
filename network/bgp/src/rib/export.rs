//! What becomes of a route on its way out: who may hear of it, and with which attributes (RFC 4271 5.1 and 9.2, 4456, 1997,
//! 9234, 9494). Pure. Called by [`super::flush`] for each set that is told to a neighbour.

use std::net::{IpAddr, Ipv4Addr};

use meta::Prefix;

use super::Speaker;
use super::peer::{NextHopMode, Peer};
use crate::attribute::{Attributes, Community, NextHop};
use crate::message::capability::Role;
use crate::policy::{Route, Verdict};

/// A route that is to go out.
pub(super) struct Leaving<'a> {
    pub(super) prefix: Prefix,
    pub(super) set: &'a Attributes,
    pub(super) from: &'a Peer,
    /// Kept beyond its session (RFC 9494).
    pub(super) long_lived: bool,
}

/// The attributes with which a neighbour is told; none when he is not.
pub(super) fn export(speaker: &Speaker, route: &Leaving<'_>, to: &Peer) -> Option<Attributes> {
    if !may_hear(route, to) {
        return None;
    }
    let mut set = route.set.clone();
    let received = set.next_hop;
    if to.is_external() && route.from.config.source.is_bgp() {
        // A MED is between two ASes (RFC 4271 5.1.4). The filter may set one.
        set.med = None;
    }
    let judged = Route {
        prefix: route.prefix,
        source: route.from.config.source,
        peer: Some(to.config.address),
        peer_type: to.peer_type(),
        interface: route.from.config.interface.as_deref(),
        own_address: to.config.own_addresses[usize::from(route.prefix.is_ipv6())],
    };
    if to.config.export.judge(&judged, to.config.local_as, &mut set) == Verdict::Reject {
        return None;
    }
    if is_long_lived(route) {
        // No filter takes that away (RFC 9494 4.3).
        set.add_community(Community::LLGR_STALE);
    }
    if set.next_hop == received {
        set.next_hop = next_hop(route, to, received)?;
    }
    if to.is_external() {
        external(&mut set, to)
    } else {
        internal(speaker, &mut set, route.from)
    }
    mark(&mut set, to);
    Some(set)
}

fn may_hear(route: &Leaving<'_>, to: &Peer) -> bool {
    let (set, from) = (route.set, route.from);
    // RFC 4456: what a neighbour of this AS told goes to another of them only from a client, or to one.
    if from.is_internal() && to.is_internal() && !from.config.client && !to.config.client {
        return false;
    }
    let held_back = |community: Community| set.has(community);
    if held_back(Community::NO_ADVERTISE) {
        return false;
    }
    if to.is_external() && (held_back(Community::NO_EXPORT) || held_back(Community::NO_EXPORT_SUBCONFED)) {
        return false;
    }
    let Some(session) = &to.session else { return false };
    if is_long_lived(route) && !session.long_lived {
        return false;
    }
    // RFC 9234 5: what came from above or aside goes down only.
    let up = matches!(session.role, Some(Role::Customer | Role::Peer | Role::RouteServerClient));
    !(up && set.only_to_customer.is_some())
}

/// Whether it is only kept, by us or by somebody who has it from who keeps it (RFC 9494 4.3). Who speaks of no such routes
/// with him who told it takes the community for any other.
fn is_long_lived(route: &Leaving<'_>) -> bool {
    route.long_lived || route.from.long_lived && route.set.has(Community::LLGR_STALE)
}

fn next_hop(route: &Leaving<'_>, to: &Peer, received: NextHop) -> Option<NextHop> {
    let keep = match to.config.next_hop {
        NextHopMode::Own => false,
        NextHopMode::Keep => true,
        NextHopMode::Auto => to.is_internal() && route.from.config.source.is_bgp(),
    };
    // An address of one link is nobody's on another (RFC 2545 3).
    let nowhere = match received.address() {
        IpAddr::V4(v4) => v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    if keep && !nowhere {
        return Some(match received {
            // Its address on the link goes only to who is on that link, too, and this speaker with them (RFC 2545 3): of one
            // who is not, packets would go nowhere. Nothing here says that he is.
            NextHop::V6 { global, .. } => NextHop::V6 { global, link_local: None },
            v4 @ NextHop::V4(_) => v4,
        });
    }
    let [v4, v6] = to.config.own_addresses;
    // Without an address of its family, IPv4 may go by IPv6 (RFC 8950): the packer says whether he takes that.
    let own = if route.prefix.is_ipv6() { v6? } else { v4.or(v6)? };
    Some(match NextHop::new(own) {
        NextHop::V6 { global, .. } => NextHop::V6 { global, link_local: to.config.own_link_local },
        v4 @ NextHop::V4(_) => v4,
    })
}

/// Out of the AS (RFC 4271 5.1.2 and 5.1.5).
fn external(set: &mut Attributes, to: &Peer) {
    let (config, his) = (&to.config, to.number);
    set.local_preference = None;
    set.originator_id = None;
    set.cluster_list = Box::default();
    set.extended_communities = set.extended_communities.iter().copied().filter(|c| c.is_transitive()).collect();
    let mut path = set.as_path.without_confederation();
    if config.remove_private {
        path = path.without_private();
    }
    if config.as_override {
        path = path.map(|number| Some(if number == his { config.local_as } else { number }));
    }
    set.as_path = path.prepend(config.local_as, 1);
}

/// Inside of it; and on from one of its speakers to another, reflected (RFC 4456 8).
fn internal(speaker: &Speaker, set: &mut Attributes, from: &Peer) {
    set.local_preference = Some(set.preference());
    if from.is_internal() {
        set.originator_id.get_or_insert(from.identifier);
        let list: Vec<Ipv4Addr> = [&[speaker.cluster_id], &set.cluster_list[..]].concat();
        set.cluster_list = list.into();
    }
}

/// RFC 9234 5: what goes down or aside says so.
fn mark(set: &mut Attributes, to: &Peer) {
    let role = to.session.as_ref().and_then(|session| session.role);
    if let (Some(Role::Provider | Role::Peer | Role::RouteServer), None) = (role, set.only_to_customer) {
        set.only_to_customer = Some(to.config.local_as);
    }
}
