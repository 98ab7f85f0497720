//! What a neighbour's sessions want done: connections, messages, routes that come and go; and what is told of it. The
//! loop's. I/O: logs, and begins tasks.

use std::net::{IpAddr, SocketAddr};

use bgp::rib::PeerId;
use bgp::session::{Action, Input, Reason, State, Time, Way};
use tokio::net::TcpStream;

use super::Daemon;
use super::addresses::index_of;
use super::event::{Key, Which};
use crate::config::peering::is_of_link;
use crate::control::view::without_filter;

impl Daemon {
    /// Does what a neighbour's sessions want, in their order.
    pub(super) fn act(&mut self, key: Key, before: State, actions: Vec<Action>, mut waiting: Option<TcpStream>) {
        let (mut gone, mut given_up) = (false, false);
        for action in actions {
            match action {
                Action::Connect => {
                    // It was time for the next, and the last had not been answered.
                    if given_up {
                        self.unanswered(key);
                    }
                    self.connect(key);
                }
                Action::Accept => {
                    if let Some(stream) = waiting.take() {
                        gone = !self.take_stream(key, stream);
                    }
                }
                Action::Refuse(message) => {
                    if let Some(stream) = waiting.take() {
                        self.tasks.refuse(stream, message);
                    }
                }
                Action::Send(way, bytes) => self.send(key, way, bytes),
                Action::Close(way) => {
                    if let Some(peer) = self.peers.get_mut(key) {
                        if way == Way::Outgoing {
                            given_up = peer.connecting.take().is_some();
                        }
                        if let Some(place) = peer.links.get_mut(way as usize) {
                            *place = None;
                        }
                    }
                }
                Action::Up(way, negotiated) => self.up(key, way, &negotiated),
                Action::Down { reason, kept } => self.down(key, &reason, kept),
                Action::Failed(reason) => self.failed(key, &reason),
                Action::Stale(fate) => self.on_routes(key, |rib, id| rib.fate(id, fate)),
                Action::Resend(family) => {
                    self.on_routes(key, |rib, id| rib.refresh(id, family));
                    self.ready.insert(key);
                }
                Action::RefreshBegins(family) => self.on_routes(key, |rib, id| rib.refresh_begins(id, family)),
                Action::EndOfRib(family) => {
                    if let Some(peer) = self.peers.get(key) {
                        tracing::debug!(neighbor = %peer.neighbor.address, %family, "has told all");
                    }
                    self.deferral_over();
                }
            }
        }
        self.changed(key, before);
        if gone {
            self.input(key, Input::ConnectionLost(Way::Incoming));
        }
        self.tidy(key);
    }

    fn on_routes(&mut self, key: Key, act: impl FnOnce(&mut bgp::rib::Rib, PeerId)) {
        if let Some(peer) = self.peers.get(key) {
            act(&mut self.rib, peer.id);
        }
    }

    /// Nobody has answered a connection of ours.
    pub(super) fn unanswered(&mut self, key: Key) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(key) else { return };
        // He may be there by a connection of his.
        if peer.links.iter().all(Option::is_none)
            && peer.was_not_answered(now)
            && let Some(why) = &peer.last
        {
            tracing::warn!(neighbor = %peer.neighbor.address, "no session: {why}");
        }
    }

    fn which(&mut self, key: Key, way: Way) -> Which {
        self.connections += 1;
        Which { key, way, number: self.connections }
    }

    fn connect(&mut self, key: Key) {
        let which = self.which(key, Way::Outgoing);
        let now = self.now();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let options = peer.options();
        // A socket of that link would speak in another table than the routes are in. It may be put right yet.
        if let Some(why) = options.interface.as_ref().and_then(|link| self.own.elsewhere(link, now)) {
            if peer.failed(format!("no connection could be made: interface: {why}"), now) {
                tracing::warn!(neighbor = %peer.neighbor.address, "no session: interface: {why}");
            }
            return;
        }
        let to = match (peer.neighbor.address, &options.interface) {
            (IpAddr::V6(v6), Some(interface)) if is_of_link(v6.into()) => match index_of(interface) {
                Some(index) => std::net::SocketAddrV6::new(v6, peer.peering().port, 0, index).into(),
                // It may come yet: the next attempt looks again.
                None => {
                    peer.failed(format!("no connection could be made: there is no interface {interface}"), now);
                    return;
                }
            },
            (address, _) => SocketAddr::new(address, peer.peering().port),
        };
        peer.connecting = Some((which, self.tasks.connect(which, to, options)));
    }

    /// Takes a connection that came; not where it is gone already, which his session is to hear when it has been told of it.
    fn take_stream(&mut self, key: Key, stream: TcpStream) -> bool {
        let which = self.which(key, Way::Incoming);
        let Some(peer) = self.peers.get_mut(key) else { return true };
        let Ok(link) = self.tasks.take(which, stream, peer.peering()) else { return false };
        peer.links[which.way as usize] = Some(link);
        true
    }

    fn send(&mut self, key: Key, way: Way, bytes: Vec<u8>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        count(&bytes, &mut peer.counts.sent);
        if let Some(link) = peer.links.get(way as usize).and_then(Option::as_ref)
            && !link.send(bytes)
        {
            // He takes nothing, and hears of us by what he has not taken; the send hold timer runs.
            tracing::debug!(neighbor = %peer.neighbor.address, "a message was left out: he does not read");
        }
    }

    fn up(&mut self, key: Key, way: Way, negotiated: &bgp::session::Negotiated) {
        let now = self.began.elapsed();
        let Some(peer) = self.peers.get_mut(key) else { return };
        if let Some(local) = peer.links.get(way as usize).and_then(Option::as_ref).map(|link| link.local.ip()) {
            let own = self.own.of(local, now);
            if peer.own != own {
                peer.own = own;
                self.rib.reconfigure(peer.id, peer.routes());
            }
        }
        (peer.since, peer.ups, peer.patience) = (now, peer.ups + 1, None);
        (peer.telling, peer.not_before) = (false, Time::ZERO);
        self.rib.up(peer.id, negotiated);
        self.ready.insert(key);
        let families: Vec<String> = negotiated.families().iter().map(|family| family.to_string()).collect();
        tracing::info!(
            neighbor = %peer.neighbor.address, r#as = negotiated.number, identifier = %negotiated.identifier,
            hold = ?negotiated.hold_time, "session up: {}", families.join(", ")
        );
        let routes = &peer.peering().routes;
        if let Some(silent) = without_filter(&routes.import.name, &routes.export.name) {
            tracing::warn!(
                neighbor = %peer.neighbor.address, "{silent}: between ASes nothing flows before a filter is named \
                 (RFC 8212); `accept` is one that takes all"
            );
        }
        self.deferral_over();
    }

    fn down(&mut self, key: Key, reason: &Reason, kept: bgp::family::Families) {
        let now = self.began.elapsed();
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.ended(reason, now);
        let lasted = now.saturating_sub(peer.since);
        (peer.since, peer.dirty) = (now, false);
        self.rib.down(peer.id, kept);
        let routes = if kept.is_empty() { "his routes go" } else { "his routes stay until he is back" };
        let lasted = meta::duration::human(i64::try_from(lasted.as_secs()).unwrap_or(i64::MAX));
        tracing::warn!(neighbor = %peer.neighbor.address, %lasted, "session down: {reason}; {routes}");
    }

    fn failed(&mut self, key: Key, reason: &Reason) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let collision = matches!(reason, Reason::Sent(said) | Reason::Received(said)
            if said.code == bgp::message::notification::code::CEASE
                && said.subcode == bgp::message::notification::cease::COLLISION);
        if collision || matches!(reason, Reason::ConnectionFailed) {
            return;
        }
        // The same again and again is told once.
        if peer.ended(reason, now) {
            tracing::warn!(neighbor = %peer.neighbor.address, "no session: {reason}");
        }
    }

    /// Another state of his sessions, for who keeps a dump.
    fn changed(&mut self, key: Key, before: State) {
        let Some(peer) = self.peers.get(key) else { return };
        let state = peer.session.state();
        if state != before {
            self.metrics.changes.with([&peer.neighbor.name()]).inc();
            tracing::debug!(neighbor = %peer.neighbor.address, "{before:?} -> {state:?}");
            if let Some(dump) = self.dump.as_mut() {
                dump.state(peer, before, state);
            }
        }
    }
}

/// Counts messages by their type.
pub(super) fn count(mut bytes: &[u8], counts: &mut [u64; 5]) {
    while let Some(head) = bytes.first_chunk::<{ bgp::message::HEADER }>() {
        let length = usize::from(u16::from_be_bytes([head[16], head[17]]));
        if let Some(count) = usize::from(head[18]).checked_sub(1).and_then(|kind| counts.get_mut(kind)) {
            *count += 1;
        }
        bytes = bytes.get(length.max(bgp::message::HEADER)..).unwrap_or_default();
    }
}
