//! Figures for Prometheus. Counted where things happen, or set when they are read. Called by the loop; the page is served by
//! [`crate::pages`].

use std::sync::Arc;

use bgp::bfd::State;
use bgp::family::Family;
use bgp::rib::Rib;
use telemetry::{Counter, Family as Series, Gauge, Registry};

use super::peers::{Peer, Peers};
use crate::kernel::Status;

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
    bfd: Series<Gauge, 1>,
    sessions: Series<Counter, 1>,
    received: Series<Gauge, 2>,
    waiting: Series<Gauge, 2>,
    faults: Series<Counter, 1>,
    left_out: Series<Counter, 1>,
    next_hops: Series<Counter, 1>,
    messages: Series<Counter, 3>,
    prefixes: Series<Gauge, 1>,
    sets: Series<Gauge, 0>,
    /// Of the kernel's routes what is wanted, there and refused.
    kernel: [Series<Gauge, 0>; 3],
}

impl Metrics {
    /// At nothing.
    pub fn new() -> Metrics {
        let registry = Arc::new(Registry::default());
        let counter = |name, help| registry.counter(name, help, ["neighbor"]);
        let gauge = |name, help| registry.gauge(name, help, ["neighbor"]);
        let by_family = |name, help| registry.gauge(name, help, ["family", "neighbor"]);
        let alone = |name, help| registry.gauge(name, help, []);
        let strangers = registry.counter("bgp_strangers_refused_total", "Connections from where no neighbor is.", []);
        Metrics {
            strangers: strangers.with([]),
            changes: counter("bgp_state_changes_total", "Changes of a session's state."),
            up: gauge("bgp_neighbor_up", "Whether a neighbor has a session."),
            bfd: gauge("bgp_neighbor_bfd_up", "Whether BFD hears a neighbor that it watches."),
            sessions: counter("bgp_neighbor_sessions_total", "How often a neighbor's session came up."),
            received: by_family(
                "bgp_neighbor_prefixes_received",
                "Prefixes, with add-path paths, that a neighbor has told.",
            ),
            waiting: by_family("bgp_neighbor_prefixes_waiting", "Prefixes that a neighbor is yet to be told."),
            faults: counter("bgp_neighbor_faults_total", "Updates with an error that cost no session (RFC 7606)."),
            left_out: counter("bgp_neighbor_routes_left_out_total", "Routes of a neighbor that were not kept."),
            next_hops: counter(
                "bgp_neighbor_next_hops_left_out_total",
                "How often there was no room for a next hop of a neighbor's.",
            ),
            messages: registry.counter(
                "bgp_neighbor_messages_total",
                "Messages since the neighbor is known.",
                ["direction", "neighbor", "type"],
            ),
            prefixes: registry.gauge("bgp_prefixes", "Prefixes that have a path.", ["family"]),
            sets: alone("bgp_attribute_sets", "Sets of attributes that routes share."),
            kernel: [
                alone("bgp_kernel_routes_wanted", "Prefixes that shall have a route in the kernel."),
                alone("bgp_kernel_routes_there", "Routes of this speaker in the kernel."),
                alone("bgp_kernel_routes_refused", "Routes that the kernel refused, or that give way to others'."),
            ],
            registry,
        }
    }

    /// Sets what is read now; of the kernel's side where it is used.
    pub fn measure(&self, peers: &Peers, rib: &Rib, kernel: Option<&Status>) {
        for (_, peer) in peers.iter() {
            let neighbor = peer.neighbor.name();
            let up = peer.session.negotiated().is_some();
            self.up.with([&neighbor]).set(f64::from(u8::from(up)));
            match &peer.watch {
                Some(watch) => self.bfd.with([&neighbor]).set(f64::from(u8::from(watch.bfd.state() == State::Up))),
                None => self.bfd.remove("neighbor", &neighbor),
            }
            raise(&self.sessions.with([&neighbor]), peer.ups);
            raise(&self.faults.with([&neighbor]), peer.counts.faults);
            raise(&self.left_out.with([&neighbor]), peer.counts.left_out);
            raise(&self.next_hops.with([&neighbor]), peer.counts.next_hops_left_out);
            for (name, family) in FAMILIES {
                self.received.with([name, &neighbor]).set(rib.told(peer.id, family).into());
                self.waiting.with([name, &neighbor]).set(rib.pending(peer.id, family) as f64);
            }
            for (direction, counts) in [("received", peer.counts.received), ("sent", peer.counts.sent)] {
                for (kind, count) in MESSAGES.iter().zip(counts) {
                    raise(&self.messages.with([direction, &neighbor, kind]), count);
                }
            }
        }
        let summary = rib.summary();
        for ((name, _), count) in FAMILIES.iter().zip(summary.prefixes) {
            self.prefixes.with([name]).set(count as f64);
        }
        self.sets.with([]).set(summary.sets as f64);
        if let Some(status) = kernel {
            for (figure, count) in self.kernel.iter().zip([status.wanted, status.there, status.refused]) {
                figure.with([]).set(count as f64);
            }
        }
    }

    /// One is gone, and with him what was counted of him: of who comes by a range there are always others.
    pub fn forget(&self, peer: &Peer) {
        let (label, neighbor) = ("neighbor", peer.neighbor.name());
        self.changes.remove(label, &neighbor);
        self.up.remove(label, &neighbor);
        self.bfd.remove(label, &neighbor);
        self.sessions.remove(label, &neighbor);
        self.received.remove(label, &neighbor);
        self.waiting.remove(label, &neighbor);
        self.faults.remove(label, &neighbor);
        self.left_out.remove(label, &neighbor);
        self.next_hops.remove(label, &neighbor);
        self.messages.remove(label, &neighbor);
    }
}

/// A count that was kept elsewhere.
fn raise(counter: &Counter, count: u64) {
    counter.add(count.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;

    use bgp::bfd::Bfd;
    use bgp::decision::Options;
    use bgp::rib::Speaker;
    use bgp::session::Time;

    use super::*;
    use crate::daemon::bfd::Watch;
    use crate::daemon::peers::peer;

    /// Names and types, as a page has them once there is something of each.
    const ALL: [(&str, &str); 16] = [
        ("bgp_attribute_sets", "gauge"),
        ("bgp_kernel_routes_refused", "gauge"),
        ("bgp_kernel_routes_there", "gauge"),
        ("bgp_kernel_routes_wanted", "gauge"),
        ("bgp_neighbor_bfd_up", "gauge"),
        ("bgp_neighbor_faults_total", "counter"),
        ("bgp_neighbor_messages_total", "counter"),
        ("bgp_neighbor_next_hops_left_out_total", "counter"),
        ("bgp_neighbor_prefixes_received", "gauge"),
        ("bgp_neighbor_prefixes_waiting", "gauge"),
        ("bgp_neighbor_routes_left_out_total", "counter"),
        ("bgp_neighbor_sessions_total", "counter"),
        ("bgp_neighbor_up", "gauge"),
        ("bgp_prefixes", "gauge"),
        ("bgp_state_changes_total", "counter"),
        ("bgp_strangers_refused_total", "counter"),
    ];

    #[test]
    fn every_figure_has_its_name_type_and_place_in_the_readme() {
        let (metrics, mut peers) = (Metrics::new(), Peers::default());
        let here = [10, 0, 0, 1].into();
        let rib = Rib::new(Speaker { number: 1, identifier: here, cluster_id: here, options: Options::default() });
        let key = peers.insert(peer("remote-as: internal"));
        let him = peers.get_mut(key).expect("him");
        let config = bgp::bfd::Config::default();
        him.watch = Some(Watch {
            bfd: Bfd::new(config, 7, Time::ZERO),
            config,
            far: false,
            socket: None,
            to: SocketAddr::from(([10, 0, 0, 2], 3784)),
            from: (None, None),
        });
        (him.ups, him.counts.faults, him.counts.left_out, him.counts.next_hops_left_out) = (2, 3, 4, 5);
        him.counts.received = [1, 2, 0, 9, 0];
        metrics.changes.with(["10.0.0.2"]).inc();
        let status = Status { wanted: 6, there: 7, kept: 0, refused: 8, refusal: None };
        metrics.measure(&peers, &rib, Some(&status));
        metrics.measure(&peers, &rib, Some(&status));
        let page = metrics.registry.text();
        let told: Vec<(&str, &str)> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        assert_eq!(told, ALL);
        for line in [
            "bgp_neighbor_bfd_up{neighbor=\"10.0.0.2\"} 0",
            "bgp_neighbor_faults_total{neighbor=\"10.0.0.2\"} 3",
            "bgp_neighbor_messages_total{direction=\"received\",neighbor=\"10.0.0.2\",type=\"keepalive\"} 9",
            "bgp_neighbor_next_hops_left_out_total{neighbor=\"10.0.0.2\"} 5",
            "bgp_neighbor_routes_left_out_total{neighbor=\"10.0.0.2\"} 4",
            "bgp_neighbor_sessions_total{neighbor=\"10.0.0.2\"} 2",
            "bgp_kernel_routes_wanted 6",
            "bgp_kernel_routes_there 7",
            "bgp_kernel_routes_refused 8",
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line}\n{page}");
        }
        let readme = include_str!("../../../../README.md");
        let there: BTreeSet<&str> = readme.split('`').filter(|word| word.starts_with("bgp_")).collect();
        assert_eq!(there, ALL.map(|(name, _)| name).into(), "README's BGP page");
        peers.get_mut(key).expect("him").watch = None;
        metrics.measure(&peers, &rib, None);
        assert!(!metrics.registry.text().contains("bgp_neighbor_bfd_up"), "nobody watches him");
        metrics.forget(peers.get_mut(key).expect("him"));
        assert!(!metrics.registry.text().contains("10.0.0.2"));
    }
}
