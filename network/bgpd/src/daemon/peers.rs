//! Everybody with whom there is or may be a session, and when each wants to be looked at. Pure data. Owned by the loop.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use bgp::rib::{PeerConfig, PeerId};
use bgp::session::config::Authentication;
use bgp::session::{Neighbour, Reason, State, Time, Way};
use meta::Prefix;
use tokio_util::sync::DropGuard;

use super::addresses::Own;
use super::bfd::Watch;
use super::connection::{Link, Options};
use super::event::{Key, Which};
use crate::config::peering::Place;
use crate::config::{Neighbor, Peering};

/// Where the TTL of a neighbour on the same link ends, and begins where it is looked at.
const MAX_TTL: u8 = 255;

/// So many connections without an answer are no lost packets.
const SUSPICIOUS: u32 = 3;

/// A neighbour.
#[derive(Debug)]
pub struct Peer {
    /// Where he is.
    pub neighbor: Neighbor,
    /// Of one who isn't named: the range by which he was let in.
    pub range: Option<Prefix>,
    /// His sessions.
    pub session: Neighbour,
    /// In the tables.
    pub id: PeerId,
    /// Connections, by who began them.
    pub links: [Option<Link>; 2],
    /// One of ours that is being made.
    pub connecting: Option<(Which, DropGuard)>,
    /// Our addresses towards him, as they were found.
    pub own: Own,
    /// Whether he is there, by BFD.
    pub watch: Option<Watch>,
    /// There may be something that he is to be told.
    pub dirty: bool,
    /// He is being told something.
    pub telling: bool,
    /// Not before this is he told more.
    pub not_before: Time,
    /// One who was let in by a range and says nothing goes then.
    pub patience: Option<Time>,
    /// What he has been counted.
    pub counts: Counts,
    /// When his session came or went.
    pub since: Time,
    /// How often it came.
    pub ups: u64,
    /// Why the last session or attempt ended.
    pub last: Option<String>,
    /// So many connections of ours in a row nobody has answered.
    pub unanswered: u32,
    /// When that was.
    pub last_at: Time,
}

/// Messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By type, from him.
    pub received: [u64; 5],
    /// By type, to him.
    pub sent: [u64; 5],
    /// Updates of his with an error that cost no session (RFC 7606).
    pub faults: u64,
    /// Routes of his that were not kept.
    pub left_out: u64,
    /// How often there was no room for a next hop of his.
    pub next_hops_left_out: u64,
}

impl Peer {
    /// Without a session.
    pub fn new(
        neighbor: Neighbor,
        range: Option<Prefix>,
        session: Neighbour,
        (id, own): (PeerId, Own),
        now: Time,
    ) -> Peer {
        Peer {
            neighbor,
            range,
            session,
            id,
            links: [None, None],
            connecting: None,
            own,
            watch: None,
            dirty: false,
            telling: false,
            not_before: Time::ZERO,
            patience: None,
            counts: Counts::default(),
            since: now,
            ups: 0,
            last: None,
            unanswered: 0,
            last_at: Time::ZERO,
        }
    }

    /// Whether this is the connection that is being made.
    pub fn is_connecting(&self, which: Which) -> bool {
        self.connecting.as_ref().is_some_and(|(connecting, _)| *connecting == which)
    }

    /// What is looked at and told in his name.
    pub fn peering(&self) -> &Peering {
        &self.neighbor.peering
    }

    /// His connection over which the session is, or furthest.
    pub fn link(&self) -> Option<&Link> {
        let [outgoing, incoming] = &self.links;
        match self.session.way() {
            Some(Way::Outgoing) => outgoing.as_ref(),
            Some(Way::Incoming) => incoming.as_ref(),
            None => outgoing.as_ref().or(incoming.as_ref()),
        }
    }

    /// Whether nothing holds him but that he was let in once.
    pub fn is_over(&self) -> bool {
        let quiet = self.links.iter().all(Option::is_none) && self.session.due().is_none();
        self.range.is_some() && quiet && self.session.state() <= State::Active
    }

    /// When he wants to be looked at.
    pub fn due(&self) -> Option<Time> {
        let told = (self.dirty && self.session.negotiated().is_some()).then_some(self.not_before);
        let watch = self.watch.as_ref().and_then(Watch::due);
        [self.session.due(), told, self.patience, watch].into_iter().flatten().min()
    }

    /// What is asked of his sockets.
    pub fn options(&self) -> Options {
        let peering = self.peering();
        let transport = &peering.session.transport;
        let internal = peering.routes.source == bgp::policy::Source::Internal;
        let hops = transport.multihop.unwrap_or(if internal && !transport.ttl_security { MAX_TTL } else { 1 });
        Options {
            source: peering.source,
            device: peering.interface.clone().or_else(|| peering.vrf.clone()),
            interface: peering.interface.clone(),
            authentication: transport.authentication.clone(),
            ttl: Some(if transport.ttl_security { MAX_TTL } else { hops }),
            min_ttl: transport.ttl_security.then_some(MAX_TTL - hops + 1),
        }
    }

    /// What the tables are told of him.
    pub fn routes(&self) -> PeerConfig {
        routes(&self.neighbor, self.own)
    }

    /// What silence of his may mean.
    pub fn signed_otherwise(&self) -> &'static str {
        match self.peering().authentication() {
            Some(Authentication::Md5(_)) => "; a wrong password looks like this",
            Some(Authentication::Ao(_)) => "; another key or another number of it (tcp-ao) looks like this",
            None => "",
        }
    }

    /// One more connection of ours was not answered, not even refused; whether that is news.
    pub fn was_not_answered(&mut self, now: Time) -> bool {
        self.unanswered = self.unanswered.saturating_add(1);
        let address = self.neighbor.address;
        let mut words = format!("no answer from {address}");
        // The kernel drops what is signed otherwise than it should be, on either side, and says nothing.
        if self.unanswered >= SUSPICIOUS {
            words += self.signed_otherwise();
        }
        self.failed(words, now)
    }

    /// Remembers why something ended; whether it is another reason than the last time.
    pub fn ended(&mut self, reason: &Reason, now: Time) -> bool {
        self.failed(reason.to_string(), now)
    }

    /// The same, in words.
    pub fn failed(&mut self, words: String, now: Time) -> bool {
        self.last_at = now;
        self.last.replace(words.clone()) != Some(words)
    }
}

/// What the tables are told of a neighbour; `own` are our addresses as they were found.
pub fn routes(neighbor: &Neighbor, mut own: Own) -> PeerConfig {
    let routes = &neighbor.peering.routes;
    for address in &routes.own_addresses {
        match address {
            IpAddr::V4(_) => own.v4 = Some(*address),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => own.link_local = Some(*v6),
            IpAddr::V6(_) => own.v6 = Some(*address),
        }
    }
    PeerConfig {
        own_addresses: [own.v4, own.v6],
        own_link_local: own.link_local,
        interface: neighbor.peering.interface.as_deref().map(Arc::from),
        client: routes.client,
        next_hop: routes.next_hop,
        allowed_own_as: routes.allowed_own_as,
        enforce_first_as: routes.enforce_first_as,
        remove_private: routes.remove_private,
        as_override: routes.as_override,
        import: Arc::clone(&routes.import),
        export: Arc::clone(&routes.export),
        ..PeerConfig::new(routes.source, neighbor.address, routes.local_as)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Peers {
    all: BTreeMap<Key, Peer>,
    by_place: HashMap<Place, Key>,
    by_id: HashMap<PeerId, Key>,
    /// The unnumbered ones.
    by_link: HashMap<String, Key>,
    next: u64,
    timers: BTreeSet<(Time, Key)>,
    due: HashMap<Key, Time>,
}

impl Peers {
    /// Puts one in.
    pub fn insert(&mut self, peer: Peer) -> Key {
        self.next += 1;
        let key = Key(self.next);
        self.by_place.insert(peer.neighbor.place(), key);
        self.by_id.insert(peer.id, key);
        if let Some(link) = peer.peering().interface.clone().filter(|_| peer.peering().unnumbered) {
            self.by_link.insert(link, key);
        }
        self.all.insert(key, peer);
        key
    }

    /// Takes one out.
    pub fn remove(&mut self, key: Key) -> Option<Peer> {
        let peer = self.all.remove(&key)?;
        let place = peer.neighbor.place();
        if self.by_place.get(&place) == Some(&key) {
            self.by_place.remove(&place);
        }
        self.by_id.remove(&peer.id);
        self.by_link.retain(|_, other| *other != key);
        if let Some(due) = self.due.remove(&key) {
            self.timers.remove(&(due, key));
        }
        Some(peer)
    }

    /// One of them.
    pub fn get(&self, key: Key) -> Option<&Peer> {
        self.all.get(&key)
    }

    /// One of them, to be changed; [`Peers::wind`] is to be called then.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Peer> {
        self.all.get_mut(&key)
    }

    /// Who is there.
    pub fn at(&self, place: &Place) -> Option<Key> {
        self.by_place.get(place).copied()
    }

    /// The unnumbered one of a link.
    pub fn on_link(&self, link: &str) -> Option<Key> {
        self.by_link.get(link).copied()
    }

    /// Whose routes these are.
    pub fn of(&self, id: PeerId) -> Option<&Peer> {
        self.all.get(self.by_id.get(&id)?)
    }

    /// Each.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Peer)> {
        self.all.iter().map(|(key, peer)| (*key, peer))
    }

    /// Names of each: for who changes them on the way.
    pub fn keys(&self) -> Vec<Key> {
        self.all.keys().copied().collect()
    }

    /// Sets one's timer anew.
    pub fn wind(&mut self, key: Key) {
        let due = self.all.get(&key).and_then(Peer::due);
        if self.due.get(&key).copied() == due {
            return;
        }
        if let Some(old) = self.due.remove(&key) {
            self.timers.remove(&(old, key));
        }
        if let Some(due) = due {
            self.due.insert(key, due);
            self.timers.insert((due, key));
        }
    }

    /// When somebody wants to be looked at next.
    pub fn next_due(&self) -> Option<Time> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Who wants to be looked at by now.
    pub fn due(&self, now: Time) -> Vec<Key> {
        self.timers.iter().take_while(|(due, _)| *due <= now).map(|(_, key)| *key).collect()
    }

    /// How many were let in by a range.
    pub fn of_range(&self, range: &Prefix) -> usize {
        self.all.values().filter(|peer| peer.range.as_ref() == Some(range)).count()
    }

    /// Which connection an event is of: none when it is closed already.
    pub fn link_mut(&mut self, which: Which) -> Option<&mut Link> {
        let link = self.all.get_mut(&which.key)?.links.get_mut(which.way as usize)?;
        link.as_mut().filter(|link| link.which == which)
    }
}

/// A neighbour by his line in the file, for tests.
#[cfg(test)]
pub fn peer(line: &str) -> Peer {
    use crate::config::{Kind, parse};
    let text = format!("{{router-id: 10.0.0.1, as: 64512, neighbors: [{{address: 10.0.0.2, {line}}}]}}");
    let config = parse(&text, Kind::Speaker, &|_| Err(String::new())).expect("a configuration");
    let neighbor = config.neighbors[0].clone();
    let speaker = bgp::rib::Speaker {
        number: config.number,
        identifier: config.identifier,
        cluster_id: config.cluster_id,
        options: bgp::decision::Options::default(),
    };
    let id = bgp::rib::Rib::new(speaker).add_peer(routes(&neighbor, Own::default())).expect("room");
    let session = Neighbour::new(neighbor.peering.session.clone(), false);
    Peer::new(neighbor, None, session, (id, Own::default()), Time::ZERO)
}

#[cfg(test)]
mod tests {
    use bgp::session::{Input, Negotiated};

    use super::*;

    #[test]
    fn how_far_packets_go_and_come_follows_from_who_he_is() {
        let of = |line: &str| {
            let options = peer(line).options();
            (options.ttl, options.min_ttl)
        };
        assert_eq!(of("remote-as: internal"), (Some(255), None), "anywhere in the AS");
        assert_eq!(of("remote-as: 65001"), (Some(1), None), "on the link");
        assert_eq!(of("remote-as: 65001, multihop: 3"), (Some(3), None));
        assert_eq!(of("remote-as: 65001, ttl-security: true"), (Some(255), Some(255)));
        assert_eq!(of("remote-as: 65001, ttl-security: true, multihop: 3"), (Some(255), Some(253)));
        assert_eq!(of("remote-as: internal, ttl-security: true"), (Some(255), Some(255)));
    }

    #[test]
    fn own_addresses_that_were_said_go_before_those_that_were_found() {
        let neighbor = peer("remote-as: internal, own-addresses: ['fd00::7', 'fe80::7']").neighbor;
        let found = Own { v4: Some([10, 0, 0, 1].into()), v6: Some("fd00::1".parse().expect("one")), link_local: None };
        let routes = routes(&neighbor, found);
        let told: Vec<String> = routes.own_addresses.iter().flatten().map(ToString::to_string).collect();
        assert_eq!(told, ["10.0.0.1", "fd00::7"]);
        assert_eq!(routes.own_link_local, Some("fe80::7".parse().expect("one")));
    }

    /// One who is to be told something wakes the loop only where there is a session: else it would never sleep.
    #[test]
    fn timers_are_the_earliest_of_what_is_wanted() {
        let mut peers = Peers::default();
        let key = peers.insert(peer("remote-as: internal"));
        assert_eq!((peers.next_due(), peers.due(Time::from_secs(9))), (None, vec![]));
        let peer = peers.get_mut(key).expect("him");
        peer.dirty = true;
        assert_eq!(peer.session.negotiated().map(Negotiated::families), None);
        peers.wind(key);
        assert_eq!(peers.next_due(), None);
        peers.get_mut(key).expect("him").session.step(Input::Start, Time::from_secs(100));
        peers.wind(key);
        let due = peers.next_due().expect("the next attempt");
        assert!(due > Time::from_secs(100) && peers.due(due) == [key]);
        peers.get_mut(key).expect("him").patience = Some(Time::from_secs(1));
        peers.wind(key);
        assert_eq!(peers.next_due(), Some(Time::from_secs(1)));
        assert_eq!(peers.at(&("10.0.0.2".parse().expect("one"), None)), Some(key));
        peers.remove(key);
        assert_eq!((peers.next_due(), peers.keys()), (None, vec![]));
    }
}
