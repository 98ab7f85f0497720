//! What people ask of the tables and sessions, answered as data. Called by the loop; each answer is made in one go.

use std::collections::BTreeMap;

use bgp::family::Family;
use bgp::policy::{Filter, Source};
use bgp::rib::PathView;
use bgp::session::config::RemoteAs;
use bgp::session::{Negotiated, State, Time};
use meta::Prefix;

use super::Daemon;
use super::peers::Peer;
use crate::control::view::{self, AttributesView, Families, FilterView, KernelView, NeighborView, RouteView, Summary};
use crate::control::{Answer, Query, Which, Who};

impl Daemon {
    pub(super) fn answer(&mut self, query: Query) -> Answer {
        match query {
            Query::Summary => Answer::Summary(Box::new(self.summary())),
            Query::Neighbors(one) => {
                let meant = |peer: &Peer| one.as_ref().is_none_or(|one| one.is(&peer.neighbor));
                let all = self.peers.iter().filter(|(_, peer)| meant(peer));
                let mut all: Vec<NeighborView> = all.map(|(_, peer)| self.neighbor(peer)).collect();
                all.sort_by_key(|neighbor| neighbor.address);
                match (one, all.is_empty()) {
                    (Some(one), true) => Answer::Nothing(format!("there is no neighbor {one}")),
                    _ => Answer::Neighbors(all),
                }
            }
            Query::Prefixes(family) => Answer::Prefixes(self.rib.prefixes(family)),
            Query::Page(prefixes, which) => self.page(&prefixes, &which),
            Query::Longest(address) => {
                let width = Prefix::host(address).len;
                let prefixes = (0..=width).rev().map(|len| Prefix::new(address, len).network());
                let found = prefixes.filter_map(|prefix| self.route(prefix)).next();
                Answer::Routes(found.into_iter().collect())
            }
            Query::Filters => Answer::Filters(self.filters()),
            Query::Measure => {
                let status = self.hands.as_ref().map(|hands| hands.status.borrow().clone());
                self.metrics.measure(&self.peers, &self.rib, status.as_ref());
                Answer::Done
            }
        }
    }

    fn summary(&self) -> Summary {
        let rib = self.rib.summary();
        let established = self.peers.iter().filter(|(_, peer)| peer.session.negotiated().is_some()).count();
        let kernel = self.hands.as_ref().map(|hands| {
            let status = hands.status.borrow().clone();
            KernelView {
                wanted: status.wanted,
                there: status.there,
                kept: status.kept,
                refused: status.refused,
                refusal: status.refusal,
            }
        });
        Summary {
            router_id: self.config.identifier,
            number: self.config.number,
            cluster_id: self.config.cluster_id,
            vrf: self.config.vrf.clone(),
            uptime_seconds: self.now().as_secs(),
            listening: self.listeners.addresses(),
            neighbors: self.peers.iter().count(),
            established,
            prefixes: Families::new(rib.prefixes),
            attribute_sets: rib.sets,
            waiting_for_neighbors: self.is_deferred(),
            kernel,
        }
    }

    fn neighbor(&self, peer: &Peer) -> NeighborView {
        let (peering, negotiated, link) = (peer.peering(), peer.session.negotiated(), peer.link());
        let families =
            |each: fn(&Daemon, &Peer, Family) -> u32| Families::new(Family::ALL.map(|f| each(self, peer, f)));
        NeighborView {
            address: peer.neighbor.address,
            interface: peering.interface.clone(),
            description: peering.description.clone(),
            group: peering.group.clone(),
            range: peer.range,
            number: number(peer, negotiated),
            remote_as: remote_as(peering.session.remote_as),
            state: if peering.enabled { format!("{:?}", peer.session.state()) } else { "Disabled".to_owned() },
            enabled: peering.enabled,
            since_seconds: self.now().saturating_sub(peer.since).as_secs(),
            sessions: peer.ups,
            router_id: negotiated.map(|negotiated| negotiated.identifier),
            local: link.map(|link| link.local),
            remote: link.map(|link| link.remote),
            hold_time_seconds: negotiated.and_then(|negotiated| negotiated.hold_time).map(|time| time.as_secs()),
            capabilities: negotiated.map(capabilities).unwrap_or_default(),
            received: families(|daemon, peer, family| daemon.rib.told(peer.id, family)),
            waiting: Families::new(Family::ALL.map(|family| self.rib.pending(peer.id, family))),
            end_of_rib: peer.session.told().iter().map(|family| family.to_string()).collect(),
            messages_received: peer.counts.received.into(),
            messages_sent: peer.counts.sent.into(),
            faults: peer.counts.faults,
            left_out: peer.counts.left_out,
            next_hops_left_out: peer.counts.next_hops_left_out,
            client: peering.routes.client,
            import: peering.routes.import.name.clone(),
            export: peering.routes.export.name.clone(),
            last_error: peer.last.clone(),
            last_error_seconds: peer.last.as_ref().map(|_| self.now().saturating_sub(peer.last_at).as_secs()),
            next: next(peer, self.now()),
            bfd: peer.watch.as_ref().map(|watch| watch.state().to_owned()),
        }
    }

    /// Routes of some prefixes: all paths, or those of one neighbour, or what one is told.
    fn page(&self, prefixes: &[Prefix], which: &Which) -> Answer {
        let find = |who: &Option<Who>| match who {
            None => Ok(None),
            Some(who) => {
                let mut meant = self.peers.iter().map(|(_, peer)| peer).filter(|peer| who.is(&peer.neighbor));
                match (meant.next(), meant.next()) {
                    (None, _) => Err(format!("there is no neighbor {who}")),
                    (one, None) => Ok(one),
                    // An address of a link is that of several.
                    (Some(one), Some(_)) => {
                        let link = one.peering().interface.as_deref().unwrap_or("LINK");
                        Err(format!(
                            "{who} is several neighbors, each on a link of its own: say which, as {who}%{link}"
                        ))
                    }
                }
            }
        };
        let (from, to) = match (find(&which.from), find(&which.to)) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(why), _) | (_, Err(why)) => return Answer::Nothing(why),
        };
        let mut routes = Vec::new();
        for prefix in prefixes {
            let Some(mut route) = self.route(*prefix) else { continue };
            if let Some(from) = from {
                let (address, link) = from.neighbor.place();
                route.paths.retain(|path| path.neighbor == Some(address) && (link.is_none() || path.interface == link));
            }
            if let Some(to) = to {
                // What he is told of it: the best, as he is told it.
                route.paths.truncate(1);
                match self.rib.exported(to.id, prefix) {
                    Some(set) => route.paths.iter_mut().for_each(|path| path.attributes = AttributesView::new(&set)),
                    None => route.paths.clear(),
                }
            }
            if !route.paths.is_empty() {
                routes.push(route);
            }
        }
        Answer::Routes(routes)
    }

    fn route(&self, prefix: Prefix) -> Option<RouteView> {
        let now = self.now();
        let paths: Vec<view::PathView> =
            self.rib.paths(&prefix).iter().enumerate().map(|(at, path)| self.path(path, at == 0, now)).collect();
        (!paths.is_empty()).then_some(RouteView { prefix, paths })
    }

    fn path(&self, path: &PathView<'_>, first: bool, now: Time) -> view::PathView {
        let peer = self.peers.of(path.peer);
        let (source, interface) = match peer {
            Some(peer) => (peer.peering().routes.source, peer.peering().interface.clone()),
            None => match self.locals.source(path.peer) {
                Some((source, interface)) => (source, interface.map(str::to_owned)),
                None => (Source::Static, None),
            },
        };
        view::PathView {
            neighbor: peer.map(|peer| peer.neighbor.address),
            source: match source {
                Source::Static => "static",
                Source::Direct => "direct",
                Source::Kernel => "kernel",
                Source::Internal => "internal",
                Source::External => "external",
            }
            .to_owned(),
            interface,
            used: path.used,
            best: path.used && first,
            why: path.why.words().to_owned(),
            refused: path.why.is_refused(),
            stale: path.stale,
            long_lived: path.long_lived,
            age_seconds: now.as_secs().saturating_sub(path.since.into()),
            path_id: path.path_id,
            attributes: AttributesView::new(path.accepted.unwrap_or(path.received)),
        }
    }

    fn filters(&self) -> Vec<FilterView> {
        let mut used: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let mut note = |filter: &'_ Filter, who: String| {
            let name = self.config.filters.iter().map(|named| named.filter.name.as_str()).find(|n| *n == filter.name);
            if let Some(name) = name {
                used.entry(name).or_default().push(who);
            }
        };
        for (_, peer) in self.peers.iter() {
            let (address, routes) = (peer.neighbor.address, &peer.peering().routes);
            note(&routes.import, format!("import of {address}"));
            note(&routes.export, format!("export to {address}"));
        }
        let kernel = &self.config.kernel;
        for (filter, who) in [
            (kernel.export.as_ref(), "kernel.export"),
            (kernel.direct.as_ref().map(|direct| &direct.import), "kernel.direct"),
            (kernel.learn.as_ref().map(|learn| &learn.import), "kernel.learn"),
        ] {
            if let Some(filter) = filter {
                note(filter, who.to_owned());
            }
        }
        let one = |named: &crate::config::Named| FilterView {
            name: named.filter.name.clone(),
            written: named.written.clone(),
            used_by: used.get(named.filter.name.as_str()).cloned().unwrap_or_default(),
        };
        self.config.filters.iter().map(one).collect()
    }
}

/// What comes next of one with whom there is no session.
fn next(peer: &Peer, now: Time) -> Option<String> {
    let passive = peer.peering().session.passive;
    if !peer.peering().enabled || !peer.neighbor.is_found() {
        return None;
    }
    let soon = peer.session.next_try().map(|due| {
        // Begun seconds count: "in 0s" is never.
        let left = due.saturating_sub(now).as_secs() + 1;
        meta::duration::human(i64::try_from(left).unwrap_or(i64::MAX))
    });
    match (peer.session.state(), soon) {
        (State::Idle, Some(soon)) if passive => Some(format!("he is let in again in {soon}")),
        (State::Idle | State::Active, Some(soon)) => Some(format!("tried again in {soon}")),
        (State::Connect, Some(soon)) => Some(format!("being tried, and again in {soon}")),
        // The kernel drops what is signed otherwise, and nobody sees it.
        (State::Active, None) => Some(format!("he is waited for (passive){}", peer.signed_otherwise())),
        _ => None,
    }
}

fn number(peer: &Peer, negotiated: Option<&Negotiated>) -> Option<u32> {
    match (negotiated, peer.peering().session.remote_as) {
        (Some(negotiated), _) => Some(negotiated.number),
        (None, RemoteAs::Number(number)) => Some(number),
        (None, RemoteAs::Internal) => Some(peer.peering().routes.local_as),
        (None, RemoteAs::External) => None,
    }
}

fn remote_as(wanted: RemoteAs) -> String {
    match wanted {
        RemoteAs::Number(number) => number.to_string(),
        RemoteAs::Internal => "internal".to_owned(),
        RemoteAs::External => "external".to_owned(),
    }
}

/// What was agreed on, in the words of its RFCs.
fn capabilities(negotiated: &Negotiated) -> Vec<String> {
    let (receive, send) = (&negotiated.receive, &negotiated.send);
    let mut all: Vec<String> = negotiated.families().iter().map(|family| family.to_string()).collect();
    let flags = [
        (send.four_octet_as, "4-octet AS"),
        (send.extended_messages, "extended messages"),
        (negotiated.refresh, "route refresh"),
        (negotiated.enhanced_refresh, "enhanced route refresh"),
        (negotiated.restart.is_some(), "graceful restart"),
        (negotiated.restart_on_notification, "graceful restart on notification"),
        (!negotiated.long_lived.is_empty(), "long-lived graceful restart"),
        (negotiated.role.is_some(), "role"),
    ];
    all.extend(flags.iter().filter(|(agreed, _)| *agreed).map(|(_, words)| (*words).to_owned()));
    let of = |families: bgp::family::Families, words: &str| {
        let words = words.to_owned();
        families.iter().map(move |family| format!("{words} ({family})")).collect::<Vec<_>>()
    };
    all.extend(of(receive.add_path, "add-path from him"));
    all.extend(of(send.add_path, "add-path to him"));
    all.extend(of(send.extended_next_hop, "IPv6 next hops"));
    all
}
