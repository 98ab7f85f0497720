//! What connections bring: to whom it belongs, and what his sessions and the tables hear of it. The loop's, with the sockets'
//! side in `connection`; what sessions then want is in `actions`. I/O: logs.

use std::net::{IpAddr, SocketAddr};

use bgp::family::Family;
use bgp::message::frame;
use bgp::rib::MAX_NEXT_HOPS_OF_ONE;
use bgp::session::config::PrefixLimit;
use bgp::session::{Input, Time, Way};
use tokio::net::TcpStream;

use super::event::{Event, Key, Which};
use super::peers::{Peer, routes};
use super::{Daemon, seconds};
use crate::config::peering::{Place, is_of_link};
use crate::config::{Neighbor, Peering, seed};

/// Who was let in by a range and has no session by then makes room for another.
const PATIENCE: Time = Time::from_secs(30);

impl Daemon {
    /// Takes what a task tells.
    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::Accepted { stream, from, keys } if self.listeners.is_current(keys) => self.accepted(stream, from),
            // He came before the keys of now were asked of him, and may come again.
            Event::Accepted { .. } => {}
            Event::Connected(which, stream) => self.connected(which, stream),
            Event::NotConnected(which, error) => {
                let now = self.now();
                let Some(peer) = self.peers.get_mut(which.key).filter(|peer| peer.is_connecting(which)) else { return };
                peer.connecting = None;
                tracing::debug!(neighbor = %peer.neighbor.address, %error, "no connection");
                if error.kind() == std::io::ErrorKind::TimedOut {
                    self.unanswered(which.key);
                } else {
                    peer.unanswered = 0;
                    peer.failed(format!("no connection could be made: {error}"), now);
                }
                self.input(which.key, Input::ConnectionLost(which.way));
            }
            Event::Heard(which, chunk, _permit) => self.heard(which, chunk),
            Event::Lost(which, error) => {
                if self.peers.link_mut(which).is_none() {
                    return;
                }
                if let (Some(error), Some(peer)) = (error, self.peers.get_mut(which.key)) {
                    tracing::debug!(neighbor = %peer.neighbor.address, %error, "the connection broke");
                }
                self.input(which.key, Input::ConnectionLost(which.way));
                self.drop_link(which);
            }
            Event::Room(which) => {
                if self.peers.link_mut(which).is_some() {
                    self.ready.insert(which.key);
                }
            }
            Event::Router { link, news } => self.advertised(&link, news),
            Event::Watched { from, far, packet } => self.heard_of(from, far, &packet),
            Event::Stuck(which) => {
                let here = self.peers.link_mut(which).is_some();
                if here && self.peers.get(which.key).is_some_and(|peer| peer.session.way() == Some(which.way)) {
                    self.input(which.key, Input::SendHoldTimerExpires);
                } else if here {
                    self.input(which.key, Input::ConnectionLost(which.way));
                    self.drop_link(which);
                }
            }
        }
    }

    /// Tells a neighbour's sessions something, and does what they want.
    pub(super) fn input(&mut self, key: Key, input: Input) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let before = peer.session.state();
        let actions = peer.session.step(input, now);
        self.act(key, before, actions, None);
    }

    /// A timer of his has run out.
    pub(super) fn time(&mut self, key: Key) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.patience.is_some_and(|patience| patience <= now) {
            peer.patience = None;
            let links: Vec<Which> = peer.links.iter().flatten().map(|link| link.which).collect();
            for which in links {
                self.input(key, Input::ConnectionLost(which.way));
                self.drop_link(which);
            }
        }
        self.watched(key, now);
        if self.peers.get(key).is_some_and(|peer| peer.session.due().is_some_and(|due| due <= now)) {
            self.input(key, Input::Time);
        }
        if self.peers.get(key).is_some_and(|peer| peer.dirty && peer.not_before <= now) {
            self.ready.insert(key);
        }
        self.tidy(key);
    }

    /// A connection of somebody's: of a neighbour, of one whom a range lets in, or of nobody.
    fn accepted(&mut self, stream: TcpStream, from: SocketAddr) {
        let Some(place) = place(&stream, from) else { return };
        // The kernel hands over what comes out of VRFs where it is told to (net.ipv4.tcp_l3mdev_accept): there an address is
        // another's.
        if self.config.vrf.is_none()
            && let Some(why) = linux::tcp::bound_device(&stream).map_or_else(
                |error| Some(error.to_string()),
                |device| self.own.elsewhere(&device?, self.began.elapsed()),
            )
        {
            self.metrics.strangers.inc();
            if let Some(others) = self.strangers.tell(self.began.elapsed()) {
                tracing::info!(from = %from.ip(), others_since_the_last_line = others, "a connection was refused: {why}");
            }
            return;
        }
        let known = self.peers.at(&place);
        let Some(key) = known.or_else(|| self.by_link(&place)).or_else(|| self.let_in(&place, &stream)) else {
            self.metrics.strangers.inc();
            tracing::debug!(%from, "refused: no neighbour is there");
            // A range that let him in no more has said so.
            let known = self.config.dynamic.iter().any(|range| range.prefix.contains(place.0));
            if !known && let Some(others) = self.strangers.tell(self.began.elapsed()) {
                tracing::info!(from = %from.ip(), others_since_the_last_line = others,
                    "a connection was refused: no neighbor and no dynamic range has this address");
            }
            return;
        };
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.peering().authentication().is_some_and(|key| !self.listeners.demands(from.ip(), key)) {
            tracing::warn!(neighbor = %peer.neighbor.address, "refused: the kernel has not taken his password or keys");
            return self.tidy(key);
        }
        if !is_near(peer, &stream) {
            tracing::warn!(neighbor = %peer.neighbor.address, "refused: his packets come from further away (ttl-security)");
            return self.tidy(key);
        }
        let options = peer.options();
        let applied = options.keep_to_link(&stream, from.ip()).and_then(|()| options.apply(&stream, from.is_ipv6()));
        if let Err(error) = applied {
            tracing::warn!(neighbor = %peer.neighbor.address, %error, "his connection could not be taken");
            return self.tidy(key);
        }
        if !is_ours(peer.peering(), &stream) {
            tracing::debug!(neighbor = %peer.neighbor.address, "refused: to another address than source-address");
            return self.tidy(key);
        }
        let (now, before) = (self.began.elapsed(), peer.session.state());
        let actions = peer.session.step(Input::Connected(Way::Incoming), now);
        self.act(key, before, actions, Some(stream));
    }

    /// One whom a range lets in, if it has room.
    fn let_in(&mut self, place: &Place, stream: &TcpStream) -> Option<Key> {
        let range = self.config.dynamic.iter().find(|range| range.prefix.contains(place.0))?;
        let on_link = range.peering.interface.is_none() || place.1.is_none() || range.peering.interface == place.1;
        if !range.peering.enabled || !on_link {
            return None;
        }
        if self.peers.of_range(&range.prefix) >= range.limit as usize {
            tracing::warn!(neighbor = %place.0, range = %range.prefix, limit = range.limit, "refused: the range is full");
            return None;
        }
        let (prefix, mut peering) = (range.prefix, range.peering.clone());
        peering.session.seed = seed(place.0);
        if peering.interface.is_none() {
            peering.interface.clone_from(&place.1);
        }
        let local = stream.local_addr().ok()?.ip();
        let key = self.add(Neighbor { address: place.0, peering }, Some(prefix), Some(local))?;
        if let Some(peer) = self.peers.get_mut(key) {
            let now = self.began.elapsed();
            peer.patience = Some(now + PATIENCE);
            // Who is passive does nothing yet.
            peer.session.step(Input::Start, now);
        }
        Some(key)
    }

    fn connected(&mut self, which: Which, stream: TcpStream) {
        let Some(peer) = self.peers.get_mut(which.key).filter(|peer| peer.is_connecting(which)) else { return };
        peer.connecting = None;
        peer.unanswered = 0;
        match self.tasks.take(which, stream, peer.peering()) {
            Ok(link) => {
                if let Some(place) = peer.links.get_mut(which.way as usize) {
                    *place = Some(link);
                }
                self.input(which.key, Input::Connected(which.way));
            }
            Err(_) => self.input(which.key, Input::ConnectionLost(which.way)),
        }
    }

    /// Bytes of a connection: every message that is whole by now.
    fn heard(&mut self, which: Which, chunk: Vec<u8>) {
        let Some(link) = self.peers.link_mut(which) else { return };
        let mut bytes = std::mem::take(&mut link.rest);
        if bytes.is_empty() {
            bytes = chunk;
        } else {
            bytes.extend_from_slice(&chunk);
        }
        let mut taken = 0;
        while self.peers.link_mut(which).is_some() {
            match self.message(which, bytes.get(taken..).unwrap_or_default()) {
                Some(length) => taken += length,
                None => break,
            }
        }
        if let Some(link) = self.peers.link_mut(which) {
            // What is left of a chunk does not keep all of it.
            link.rest = bytes.get(taken..).unwrap_or_default().to_vec();
        }
        self.limits(which.key);
    }

    /// The first message of some bytes; how long it was, none when it is not whole.
    fn message(&mut self, which: Which, bytes: &[u8]) -> Option<usize> {
        let now = self.began.elapsed();
        let Daemon { peers, rib, dump, shares, .. } = self;
        let peer = peers.get_mut(which.key)?;
        let before = peer.session.state();
        let (frame, length) = match frame(bytes, peer.session.extended(which.way)) {
            Ok(Some(found)) => found,
            Ok(None) => return None,
            Err(notification) => {
                let actions = peer.session.broken(which.way, notification, now);
                self.act(which.key, before, actions, None);
                return None;
            }
        };
        if let Some(count) = peer.counts.received.get_mut(frame.kind as usize - 1) {
            *count += 1;
        }
        if let (Some(dump), Some(whole)) = (dump.as_mut(), bytes.get(..length)) {
            dump.message(peer, which.way, whole);
        }
        let id = peer.id;
        let (actions, update) = peer.session.received(which.way, frame, now);
        if let Some(update) = update {
            for fault in &update.faults {
                peer.counts.faults += 1;
                tracing::warn!(neighbor = %peer.neighbor.address, "an UPDATE of his: {fault}");
            }
            peer.counts.left_out += rib.update(id, &update, seconds(now)) as u64;
            let refused = rib.refused_next_hops(id);
            if refused > peer.counts.next_hops_left_out && shares.tell(now).is_some() {
                tracing::warn!(
                    neighbor = %peer.neighbor.address,
                    "he names more than {MAX_NEXT_HOPS_OF_ONE} next hops: routes by the others are not used"
                );
            }
            peer.counts.next_hops_left_out = refused;
        }
        if !actions.is_empty() || peer.session.state() != before {
            self.act(which.key, before, actions, None);
        }
        Some(length)
    }

    /// Whether he has told more than he may.
    fn limits(&mut self, key: Key) {
        let Some(peer) = self.peers.get(key) else { return };
        let Some(negotiated) = peer.session.negotiated() else { return self.peers.wind(key) };
        let id = peer.id;
        let families: Vec<_> = negotiated.families().iter().collect();
        for family in families {
            let told = self.rib.told(id, family);
            let limit = self.peers.get(key).and_then(|peer| peer.session.config().prefix_limits[family.index()]);
            if let Some(limit) = limit.filter(|limit| told > limit.most) {
                self.input(key, Input::Prefixes(family, told));
                self.told_too_much(key, family, limit);
            }
        }
        self.peers.wind(key);
    }

    /// By which field, and when he may come again.
    fn told_too_much(&mut self, key: Key, family: Family, limit: PrefixLimit) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let field = match family {
            Family::Ipv4Unicast => "prefix-limits.ipv4",
            Family::Ipv6Unicast => "prefix-limits.ipv6",
        };
        let again = match limit.restart {
            Some(rest) => {
                let rest = meta::duration::human(i64::try_from(rest.as_secs()).unwrap_or(i64::MAX));
                format!("he is tried again {rest} after that ({field}.restart-after)")
            }
            None => format!("he is not tried again before he is disabled and enabled (no {field}.restart-after)"),
        };
        let most = limit.most;
        let why = format!("he told more than {most} prefixes of {family} ({field}.most); {again}");
        tracing::warn!(neighbor = %peer.neighbor.address, "maximum number of prefixes: {why}");
        peer.failed(format!("we ended it: maximum number of prefixes: {why}"), now);
    }

    fn drop_link(&mut self, which: Which) {
        if self.peers.link_mut(which).is_some()
            && let Some(peer) = self.peers.get_mut(which.key)
        {
            peer.links[which.way as usize] = None;
        }
        self.tidy(which.key);
    }

    /// One whom nothing holds goes; others' timers are set.
    pub(super) fn tidy(&mut self, key: Key) {
        if self.peers.get(key).is_some_and(Peer::is_over) {
            self.remove(key);
        }
        self.peers.wind(key);
    }

    /// Takes a neighbour out.
    pub(super) fn remove(&mut self, key: Key) {
        self.watch_ends(key);
        if let Some(peer) = self.peers.remove(key) {
            self.rib.remove_peer(peer.id);
            self.metrics.forget(&peer);
        }
    }

    /// Puts a neighbour in; none when there are too many.
    pub(super) fn add(
        &mut self,
        neighbor: Neighbor,
        range: Option<meta::Prefix>,
        local: Option<IpAddr>,
    ) -> Option<Key> {
        let now = self.began.elapsed();
        let local = local.or(neighbor.peering.source);
        let own = local.map(|local| self.own.of(local, now)).unwrap_or_default();
        let restarted = self.restart.is_some();
        let session = bgp::session::Neighbour::new(neighbor.peering.session.clone(), restarted);
        let Some(id) = self.rib.add_peer(routes(&neighbor, own)) else {
            tracing::error!(neighbor = %neighbor.address, "there are too many neighbours: he is left out");
            return None;
        };
        let key = self.peers.insert(Peer::new(neighbor, range, session, (id, own), now));
        self.watch(key);
        Some(key)
    }
}

/// Where somebody connects from.
fn place(stream: &TcpStream, from: SocketAddr) -> Option<Place> {
    let interface = match from {
        SocketAddr::V6(v6) if is_of_link(from.ip()) => {
            Some(rustix::net::netdevice::index_to_name(stream, v6.scope_id()).ok()?)
        }
        _ => None,
    };
    Some((from.ip(), interface))
}

/// To whom he connected, where that was said.
fn is_ours(peering: &Peering, stream: &TcpStream) -> bool {
    peering.source.is_none_or(|source| stream.local_addr().is_ok_and(|local| local.ip() == source))
}

/// Whether his SYN came no further than it may: what it brought was there before the socket looks by itself.
fn is_near(peer: &Peer, stream: &TcpStream) -> bool {
    let least = peer.options().min_ttl;
    least.is_none_or(|least| linux::tcp::syn_ttl(stream).ok().flatten().is_some_and(|ttl| ttl >= least))
}
