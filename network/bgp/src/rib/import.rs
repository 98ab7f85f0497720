//! What becomes of a route on its way in: loops, leaks and the import filter (RFC 4271 9.1.2, 4456 8, 9234 5). Pure. Called
//! by [`super::Rib`] for each set of attributes that is told, and for each prefix only where the filter asks for it.

use meta::Prefix;

use super::Speaker;
use super::peer::Peer;
use crate::attribute::Attributes;
use crate::decision::Why;
use crate::message::capability::Role;
use crate::policy::{Route, Verdict};

/// What speaks against a set, whatever the prefix.
pub(super) fn refused(speaker: &Speaker, peer: &Peer, set: &Attributes) -> Option<Why> {
    let own = |number| set.as_path.count(number) > usize::from(peer.config.allowed_own_as);
    if own(speaker.number) || peer.config.local_as != speaker.number && own(peer.config.local_as) {
        return Some(Why::AsLoop);
    }
    if peer.is_external() && peer.config.enforce_first_as && set.as_path.first() != Some(peer.number) {
        return Some(Why::FirstAs);
    }
    // What goes by us goes nowhere (RFC 4271 5.1.3).
    if peer.config.source.is_bgp() && peer.config.own_addresses.contains(&Some(set.next_hop.address())) {
        return Some(Why::NextHop);
    }
    if set.originator_id == Some(speaker.identifier) {
        return Some(Why::OriginatorLoop);
    }
    if set.cluster_list.contains(&speaker.cluster_id) {
        return Some(Why::ClusterLoop);
    }
    leaked(peer, set).then_some(Why::RouteLeak)
}

/// RFC 9234 5, 1 and 2: what has been told to a customer or peer already does not come back from one.
fn leaked(peer: &Peer, set: &Attributes) -> bool {
    match (peer.role, set.only_to_customer) {
        (Some(Role::Provider | Role::RouteServer), Some(_)) => true,
        (Some(Role::Peer), Some(number)) => number != peer.number,
        _ => false,
    }
}

/// The set as it is used: marked on its way down (RFC 9234 5, 3), and changed by the filter; none when that rejects it.
pub(super) fn accepted(peer: &Peer, prefix: Prefix, received: &Attributes) -> Option<Attributes> {
    let mut set = received.clone();
    if let (Some(Role::Customer | Role::Peer | Role::RouteServerClient), None) = (peer.role, set.only_to_customer) {
        set.only_to_customer = Some(peer.number);
    }
    let config = &peer.config;
    let route = Route {
        prefix,
        source: config.source,
        peer: config.source.is_bgp().then_some(config.address),
        peer_type: peer.peer_type(),
        interface: config.interface.as_deref(),
        own_address: config.own_addresses[usize::from(prefix.is_ipv6())],
    };
    (config.import.judge(&route, config.local_as, &mut set) == Verdict::Accept).then_some(set)
}

/// Whether [`accepted`] leaves every set as it is.
pub(super) fn is_transparent(peer: &Peer) -> bool {
    peer.config.import.is_transparent() && peer.role.is_none()
}
