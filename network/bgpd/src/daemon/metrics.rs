//! Figures for Prometheus. Counted where things happen, or set when they are read. Called by the loop; the page is served by
//! [`crate::pages`].

use std::sync::Arc;

use bgp::family::Family;
use bgp::rib::Rib;
use telemetry::{Counter, Family as Series, Gauge, Registry};

use super::peers::{Peer, Peers};

/// Families' names in labels.
const FAMILIES: [(&str, Family); 2] = [("ipv4", Family::Ipv4Unicast), ("ipv6", Family::Ipv6Unicast)];
/// Messages' names in labels, by their type.
const MESSAGES: [&str; 5] = ["open", "update", "notification", "keepalive", "route_refresh"];

/// All of them.
pub struct Metrics {
    /// The page.
    pub registry: Arc<Registry>,
    /// Connections of nobody who is known.
    pub strangers: Counter,
    /// Changes of state.
    pub changes: Series<Counter, 1>,
    up: Series<Gauge, 1>,
    sessions: Series<Gauge, 1>,
    received: Series<Gauge, 2>,
    waiting: Series<Gauge, 2>,
    next_hops: Series<Gauge, 1>,
    messages: Series<Gauge, 3>,
    prefixes: Series<Gauge, 1>,
    sets: Gauge,
}

impl Metrics {
    /// At nothing.
    pub fn new() -> Metrics {
        let registry = Arc::new(Registry::default());
        let strangers = registry.counter("bgp_strangers_refused_total", "Connections from where no neighbor is.", []);
        let sets = registry.gauge("bgp_attribute_sets", "Sets of attributes that routes share.", []);
        Metrics {
            strangers: strangers.with([]),
            changes: registry.counter("bgp_state_changes_total", "Changes of a session's state.", ["neighbor"]),
            up: registry.gauge("bgp_neighbor_up", "Whether a neighbor has a session.", ["neighbor"]),
            sessions: registry.gauge("bgp_neighbor_sessions", "How often a neighbor's session came up.", ["neighbor"]),
            received: registry.gauge(
                "bgp_neighbor_prefixes_received",
                "Prefixes, with add-path paths, that a neighbor has told.",
                ["family", "neighbor"],
            ),
            waiting: registry.gauge(
                "bgp_neighbor_prefixes_waiting",
                "Prefixes that a neighbor is yet to be told.",
                ["family", "neighbor"],
            ),
            next_hops: registry.gauge(
                "bgp_neighbor_next_hops_left_out",
                "How often there was no room for a next hop of a neighbor's.",
                ["neighbor"],
            ),
            messages: registry.gauge(
                "bgp_neighbor_messages",
                "Messages since the neighbor is known.",
                ["direction", "neighbor", "type"],
            ),
            prefixes: registry.gauge("bgp_prefixes", "Prefixes that have a path.", ["family"]),
            sets: sets.with([]),
            registry,
        }
    }

    /// Sets what is read now.
    pub fn measure(&self, peers: &Peers, rib: &Rib) {
        for (_, peer) in peers.iter() {
            let neighbor = peer.neighbor.name();
            let up = peer.session.negotiated().is_some();
            self.up.with([&neighbor]).set(f64::from(u8::from(up)));
            self.sessions.with([&neighbor]).set(peer.ups as f64);
            self.next_hops.with([&neighbor]).set(peer.counts.next_hops_left_out as f64);
            for (name, family) in FAMILIES {
                self.received.with([name, &neighbor]).set(rib.told(peer.id, family).into());
                self.waiting.with([name, &neighbor]).set(rib.pending(peer.id, family) as f64);
            }
            for (direction, counts) in [("received", peer.counts.received), ("sent", peer.counts.sent)] {
                for (kind, count) in MESSAGES.iter().zip(counts) {
                    self.messages.with([direction, &neighbor, kind]).set(count as f64);
                }
            }
        }
        let summary = rib.summary();
        for ((name, _), count) in FAMILIES.iter().zip(summary.prefixes) {
            self.prefixes.with([name]).set(count as f64);
        }
        self.sets.set(summary.sets as f64);
    }

    /// One is gone, and with him what was counted of him: of who comes by a range there are always others.
    pub fn forget(&self, peer: &Peer) {
        let (label, neighbor) = ("neighbor", peer.neighbor.name());
        self.changes.remove(label, &neighbor);
        self.up.remove(label, &neighbor);
        self.sessions.remove(label, &neighbor);
        self.received.remove(label, &neighbor);
        self.waiting.remove(label, &neighbor);
        self.next_hops.remove(label, &neighbor);
        self.messages.remove(label, &neighbor);
    }
}
