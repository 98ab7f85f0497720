//! Another configuration while it runs: sessions whose own configuration did not change go on, routes are judged anew where
//! only filters did. What can't be changed so is refused before anything is. Called by the loop. I/O: logs, sets keys of
//! sockets.

use std::collections::HashMap;

use bgp::policy::Source;
use bgp::session::config::Authentication;
use bgp::session::{Input, Way};

use super::Daemon;
use super::dump::{self, Dump};
use super::event::Key;
use super::keys::keys;
use super::peers::Peer;
use crate::config::peering::Place;
use crate::config::{Config, Neighbor, Peering, seed};

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    added: usize,
    removed: usize,
    reset: usize,
    judged: usize,
}

impl Daemon {
    /// Goes by another configuration from now on; in words, what changed.
    pub(super) fn configure(&mut self, new: Config) -> Result<String, String> {
        fixed(&self.config, &new)?;
        let updates = dump::opened(&new.mrt)?;
        let old = std::mem::replace(&mut self.config, new);
        match Dump::new(updates, &self.config.mrt, self.dump.take()) {
            Ok(dump) => self.dump = dump,
            Err(error) => tracing::error!(%error, "mrt: nothing is written from now on"),
        }
        let now = super::seconds(self.now());
        let networks = self.config.networks.clone();
        self.locals.set_networks(&networks, &mut self.rib, now);
        if (&old.kernel.direct, &old.kernel.learn) != (&self.config.kernel.direct, &self.config.kernel.learn) {
            self.locals.set_imports(&self.config.kernel.clone(), &mut self.rib);
        }
        self.rib.set_options(self.config.options);
        let changes = self.neighbors();
        self.set_keys();
        self.watchers();
        self.routers();
        let kernel = |config: &Config| {
            (config.kernel.metric, config.kernel.metric_of_local_preference, config.kernel.export.clone())
        };
        let differs = kernel(&old) != kernel(&self.config) || old.networks != self.config.networks;
        // After a restart the kernel keeps what it had until all is decided, and then hears of all.
        if differs && !self.is_deferred() && self.config.kernel.routes && self.hands.is_some() {
            self.want_all();
        }
        self.others_are_waited_for();
        let Changes { added, removed, reset, judged } = changes;
        let told = format!(
            "neighbors: {added} added, {removed} removed, {reset} with a new session, {judged} with routes judged anew"
        );
        tracing::info!("another configuration: {told}");
        Ok(told)
    }

    fn neighbors(&mut self) -> Changes {
        let mut changes = Changes::default();
        let mut wanted: HashMap<Place, Neighbor> =
            self.config.neighbors.iter().map(|neighbor| (neighbor.written(), neighbor.clone())).collect();
        for key in self.peers.keys() {
            let Some(peer) = self.peers.get(key) else { continue };
            let next = match wanted.remove(&peer.neighbor.written()) {
                // An unnumbered one is where he was found.
                Some(neighbor) => Some((Neighbor { address: peer.neighbor.address, ..neighbor }, None)),
                None => self.in_a_range(peer),
            };
            match next {
                Some((neighbor, range)) => self.follow(key, neighbor, range, &mut changes),
                None => {
                    tracing::info!(neighbor = %peer.neighbor.address, "is no neighbour any more");
                    self.input(key, Input::Deconfigured);
                    self.remove(key);
                    changes.removed += 1;
                }
            }
        }
        changes.added = wanted.len();
        for neighbor in self.config.neighbors.clone() {
            if wanted.contains_key(&neighbor.written()) {
                self.begin(neighbor);
            }
        }
        changes
    }

    /// One who isn't named stays if a range would let him in.
    fn in_a_range(&self, peer: &Peer) -> Option<(Neighbor, Option<meta::Prefix>)> {
        peer.range?;
        let address = peer.neighbor.address;
        let range = self.config.dynamic.iter().find(|range| range.prefix.contains(address))?;
        let mut peering = range.peering.clone();
        peering.session.seed = seed(address);
        if peering.interface.is_none() {
            peering.interface = peer.neighbor.place().1;
        }
        peering.enabled.then_some((Neighbor { address, peering }, Some(range.prefix)))
    }

    /// What is wanted of somebody is this from now on.
    fn follow(&mut self, key: Key, neighbor: Neighbor, range: Option<meta::Prefix>, changes: &mut Changes) {
        let now = self.now();
        let around =
            self.config.dynamic.iter().map(|range| range.prefix).filter(|range| range.contains(neighbor.address));
        let mut ranges: Vec<meta::Prefix> = around.collect();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let old = std::mem::replace(&mut peer.neighbor, neighbor);
        ranges.extend(std::mem::replace(&mut peer.range, range));
        let (before, new) = (&old.peering, &peer.neighbor.peering);
        let (same, routes) = (
            before.same_session(new) && signs_anew(peer, before, &ranges),
            before.routes != new.routes || before.interface != new.interface,
        );
        // What is being connected would come up with the keys of before, and keep one that was taken out.
        let outdated = same && before.authentication() != new.authentication() && peer.connecting.is_some();
        let (was, enabled, session) = (before.enabled, new.enabled, new.session.clone());
        // What it is of changes nothing in the tables but by another session.
        let other_kind = kind(before) != kind(new);
        if routes {
            self.rib.reconfigure(peer.id, peer.routes());
            self.ready.insert(key);
            changes.judged += usize::from(same);
        }
        debug_assert!(!(other_kind && same), "whose AS it is, is agreed on");
        if outdated {
            peer.connecting = None;
            self.input(key, Input::ConnectionLost(Way::Outgoing));
        } else if !same {
            changes.reset += 1;
            tracing::info!(neighbor = %peer.neighbor.address, "his session begins anew: its configuration has changed");
            // For good, and so that he keeps no routes of ours: a change of the configuration ends it for a moment.
            if was && !enabled {
                self.input(key, Input::Stop("disabled".to_owned()));
            }
            let Some(peer) = self.peers.get_mut(key) else { return };
            let state = peer.session.state();
            let actions = peer.session.reconfigure(session, now);
            self.act(key, state, actions, None);
            if enabled && !was {
                self.begin_session(key);
            }
        }
        self.watch(key);
        self.peers.wind(key);
    }

    /// Who signs, and with what.
    pub(super) fn set_keys(&mut self) {
        let found = self.peers.iter().map(|(_, peer)| &peer.neighbor).filter(|neighbor| neighbor.peering.unnumbered);
        for (address, error) in self.listeners.set_keys(keys(&self.config, found)) {
            tracing::error!(neighbor = %address, %error, "the kernel takes no keys for him: he cannot connect");
        }
    }
}

/// Connections of a neighbour sign by his keys of now; whether they do. `ranges`: those that he is or was in.
fn signs_anew(peer: &Peer, before: &Peering, ranges: &[meta::Prefix]) -> bool {
    let (Some(Authentication::Ao(old)), Some(Authentication::Ao(new))) =
        (before.authentication(), peer.peering().authentication())
    else {
        return true;
    };
    let ranges: Vec<_> = ranges.iter().map(|range| (range.addr, range.len)).collect();
    let changed =
        peer.links.iter().flatten().filter(|_| old != new).try_for_each(|link| link.roll_over(&ranges, old, new));
    if let Err(error) = &changed {
        tracing::warn!(neighbor = %peer.neighbor.address, "his keys cannot change while his session goes on: {error}");
    }
    changed.is_ok()
}

fn kind(peering: &Peering) -> Source {
    peering.routes.source
}

/// What cannot be changed while it runs.
fn fixed(old: &Config, new: &Config) -> Result<(), String> {
    let kernel = |config: &Config| {
        let learned = |learned: &Option<crate::config::Learned>| {
            learned.as_ref().map(|learned| (learned.interfaces.clone(), learned.protocols.clone()))
        };
        let kernel = &config.kernel;
        (kernel.routes, kernel.tables.clone(), learned(&kernel.direct), learned(&kernel.learn))
    };
    let fields = [
        ("as", old.number == new.number),
        ("router-id", old.identifier == new.identifier),
        ("vrf", old.vrf == new.vrf),
        ("cluster-id", old.cluster_id == new.cluster_id),
        ("listen", old.listen == new.listen),
        ("control-socket", old.control_socket == new.control_socket),
        ("metrics", old.metrics == new.metrics),
        ("kernel (all but metrics and filters)", kernel(old) == kernel(new)),
    ];
    let changed: Vec<&str> = fields.iter().filter(|(_, same)| !same).map(|(field, _)| *field).collect();
    match changed[..] {
        [] => Ok(()),
        _ => Err(format!("nothing was changed: {} can only be changed by a restart", changed.join(", "))),
    }
}
