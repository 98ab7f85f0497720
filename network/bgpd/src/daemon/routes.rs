//! What has changed goes out: to the kernel, and to neighbours who have room for it. Called by the loop after each batch of
//! events. I/O: hands bytes to connections.

use std::net::IpAddr;

use bgp::policy::{Route, Source, Verdict};
use bgp::rib::PathView;
use bgp::session::Time;
use meta::Prefix;

use super::Daemon;
use super::actions::count;
use super::event::Key;
use super::locals::rest;
use crate::config::peering::is_of_link;
use crate::kernel::{Hop, Target, Wish};

/// Bytes of updates that a neighbour is given at once.
const WINDOW: usize = 64 << 10;
/// LOCAL_PREF and metric of a route of Calico's are this together.
const HIGHEST: u32 = i32::MAX as u32;
/// Next hops that are known, before those are looked for that no route has any more.
const MANY: usize = 1024;
/// Between two looks for those, where somebody has more than he may: each is at every path.
const PAUSE: Time = Time::from_secs(10);

impl Daemon {
    /// Lets out what the last events have changed.
    pub(super) fn settle(&mut self) {
        if self.is_deferred() {
            // RFC 4724 4.1: nothing is decided before all has been heard.
            self.ready.clear();
            return self.resolve();
        }
        self.resolve();
        let changed = self.rib.publish();
        if !changed.is_empty() {
            if self.config.kernel.routes && self.hands.is_some() {
                for prefix in changed {
                    let wish = self.wish(&prefix);
                    self.fib.want(prefix, wish);
                }
            }
            for key in self.peers.keys() {
                if let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.session.negotiated().is_some()) {
                    peer.dirty = true;
                    self.ready.insert(key);
                }
            }
        }
        for key in std::mem::take(&mut self.ready) {
            self.flush(key);
            self.peers.wind(key);
        }
    }

    /// All prefixes, once more: what the kernel is to have has changed.
    pub(super) fn want_all(&mut self) {
        for prefix in bgp::family::Family::ALL.into_iter().flat_map(|family| self.rib.prefixes(family)) {
            let wish = self.wish(&prefix);
            self.fib.want(prefix, wish);
        }
    }

    /// Next hops that have come are to be resolved; those that nothing goes by are forgotten.
    fn resolve(&mut self) {
        let now = self.now();
        let short = self.rib.lacks_room_for_next_hops() && now >= self.next_hops_looked_at + PAUSE;
        if short || self.rib.next_hops() > self.most_next_hops.max(MANY) {
            for address in self.rib.forget_next_hops() {
                self.fib.forget(address);
            }
            (self.most_next_hops, self.next_hops_looked_at) = (2 * self.rib.next_hops(), now);
        }
        for address in self.rib.new_next_hops() {
            self.fib.track(address);
        }
    }

    /// Tells a neighbour what he is to be told, as long as he takes it.
    fn flush(&mut self, key: Key) {
        let now = self.began.elapsed();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(way) = peer.session.way() else { return };
        peer.dirty = true;
        if peer.not_before > now {
            return;
        }
        // What he has no room for he is told when he has taken what he was given.
        peer.dirty = false;
        while let Some(room) = peer.links.get(way as usize).and_then(Option::as_ref).and_then(|link| link.room()) {
            let bytes = self.rib.flush(peer.id, WINDOW);
            if bytes.is_empty() {
                // He knows all: what comes now is gathered.
                if std::mem::take(&mut peer.telling) {
                    peer.not_before = now + peer.neighbor.peering.advertisement_interval;
                }
                return;
            }
            count(&bytes, &mut peer.counts.sent);
            room.send(bytes);
            peer.telling = true;
        }
    }

    /// What the kernel is to have of a prefix: nothing of what is there already, or of what its filter rejects.
    pub(super) fn wish(&self, prefix: &Prefix) -> Option<Wish> {
        let paths = self.rib.paths(prefix);
        let best = paths.first().filter(|best| best.used)?;
        let set = best.accepted?;
        let Some(peer) = self.peers.of(best.peer) else {
            let network = self.locals.network(best.peer, prefix)?;
            let target = match network.next_hop {
                Some(address) => Target::Hops(vec![Hop::new(address)]),
                None => rest(network.rest)?,
            };
            return Some(Wish { metric: self.config.kernel.metric, target });
        };
        let mut set = set.clone();
        if let Some(filter) = &self.config.kernel.export {
            let routes = &peer.peering().routes;
            let route = Route {
                prefix: *prefix,
                source: routes.source,
                peer: Some(peer.neighbor.address),
                peer_type: Some(match routes.source {
                    Source::External => bgp::policy::PeerType::External,
                    _ => bgp::policy::PeerType::Internal,
                }),
                interface: peer.peering().interface.as_deref(),
                own_address: None,
            };
            if filter.judge(&route, self.config.number, &mut set) == Verdict::Reject {
                return None;
            }
        }
        let kernel = &self.config.kernel;
        let metric = match set.local_preference.filter(|_| kernel.metric_of_local_preference) {
            Some(preference) => HIGHEST.saturating_sub(preference),
            None => kernel.metric,
        };
        let hops = paths.iter().take_while(|path| path.used).filter_map(|path| self.hop(path)).collect();
        Some(Wish { metric, target: Target::Hops(hops) })
    }

    fn hop(&self, path: &PathView<'_>) -> Option<Hop> {
        let next_hop = path.accepted?.next_hop;
        let link = || self.peers.of(path.peer).and_then(|peer| peer.peering().interface.clone());
        let address = match next_hop {
            // On a shared link both are told, and the link's own is what routers use.
            bgp::attribute::NextHop::V6 { link_local: Some(address), .. } if link().is_some() => IpAddr::V6(address),
            other => other.address(),
        };
        let link = if is_of_link(address) { link() } else { None };
        Some(Hop { link, ..Hop::new(address) })
    }
}
