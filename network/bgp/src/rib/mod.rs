//! Routes (RFC 4271 section 9): what each neighbour told, what of it is used, and what others are told of it.
//!
//! ```text
//!  UPDATE ──import──► paths of each prefix ──decision──► the best at their head ──publish──► the kernel
//!                     (Adj-RIB-In)                       (Loc-RIB)                   └──► a bit for each neighbour
//!                                                                                         (Adj-RIB-Out) ──flush──► UPDATE
//! ```
//!
//! One table holds both Adj-RIB-In and Loc-RIB: a path has the set that was told and the set that is used, mostly one and
//! the same, and every set is there once. Of an Adj-RIB-Out a bit says whether a prefix has been told; with which
//! attributes follows from the path and the neighbour's configuration.
//!
//! - [`table`]: prefixes and their paths; [`peer`]: neighbours and other sources
//! - [`import`], [`export`]: what becomes of attributes on the way in and out; [`flush`]: messages
//! - [`choose`]: the decision about a prefix; [`next_hops`]: the ways to next hops, of which each neighbour has a share
//!   ([`noticed`]); [`stale`]: routes over the end of a session; `view`: routes as they are shown
//!
//! Pure: the time is an argument. Called by the loop with what sessions say.

mod choose;
mod export;
mod flush;
mod import;
mod next_hops;
mod noticed;
mod peer;
mod stale;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use hashbrown::HashMap;
use meta::Prefix;

use crate::attribute::{Attributes, Interned, Interner, NextHop};
use crate::decision::{Options, Why};
use crate::family::{Families, Family};
use crate::message::nlri::Nlri;
use crate::message::update::Update;
use crate::session::Negotiated;
use choose::identity;
use noticed::Noticed;
use peer::{Peer, Refresh, Session};
use table::{Address, LONG_LIVED, Path, Tables};

pub use noticed::MAX_NEXT_HOPS_OF_ONE;
pub use peer::{NextHopMode, PeerConfig, PeerId};
pub use view::{PathView, Summary};

/// Neighbours and other sources that there may be: a path says whose it is in two bytes.
pub const MAX_PEERS: usize = u16::MAX as usize;

/// Paths of one neighbour to one prefix (RFC 7911): a reflector's are as many as its clients have ways out. Each costs a
/// look at all others whenever one changes.
pub const MAX_PATHS_OF_ONE: usize = 128;

/// Bytes of lists (an AS_PATH, communities) in a path's attributes that nobody counts: several times what is usual. With the
/// limit of prefixes they bound what a neighbour's usual routes take.
pub const LIGHT: usize = 512;

/// Bytes beyond [`LIGHT`] that the attributes of one neighbour's paths may have together. Prefixes are bounded by
/// `session::config::PrefixLimit`; but the attributes of each could be a message long, 64 KiB, and other for every one.
pub const MAX_HEAVY: usize = 16 << 20;

/// What is the same for all neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Speaker {
    /// The AS.
    pub number: u32,
    /// The identifier.
    pub identifier: Ipv4Addr,
    /// Of the cluster that it reflects for; its identifier where nobody said another.
    pub cluster_id: Ipv4Addr,
    /// For the decision.
    pub options: Options,
}

/// All routes.
pub struct Rib {
    speaker: Speaker,
    interner: Interner,
    tables: Tables,
    peers: Vec<Option<Box<Peer>>>,
    /// The metric of the way to a next hop, none where there is no way; what is not here is next door.
    next_hops: HashMap<IpAddr, Option<u32>>,
    /// Those whose ways have changed since the last decision.
    moved: HashSet<IpAddr>,
    /// Next hops of neighbours' routes, where somebody resolves them.
    noticed: Option<Noticed>,
    /// Somebody takes all paths, not the best alone (RFC 7911).
    all_paths: bool,
    /// Nothing is told while a restart is under way (RFC 4724 4.1).
    held_back: bool,
}

/// A path's name: of whom, and which of his.
#[derive(Clone, Copy)]
struct Name {
    peer: PeerId,
    path_id: u32,
}

impl Rib {
    /// Without routes.
    pub fn new(speaker: Speaker) -> Rib {
        Rib {
            speaker,
            interner: Interner::default(),
            tables: Tables::default(),
            peers: Vec::new(),
            next_hops: HashMap::new(),
            moved: HashSet::new(),
            noticed: None,
            all_paths: false,
            held_back: false,
        }
    }

    /// Puts a neighbour or another source in; none when there are [`MAX_PEERS`].
    pub fn add_peer(&mut self, config: PeerConfig) -> Option<PeerId> {
        let peer = Some(Box::new(Peer::new(config)));
        let free = self.peers.iter().position(Option::is_none);
        let at = free.unwrap_or(self.peers.len());
        if at >= MAX_PEERS {
            return None;
        }
        match self.peers.get_mut(at) {
            Some(place) => *place = peer,
            None => self.peers.push(peer),
        }
        u16::try_from(at).ok().map(PeerId)
    }

    /// Takes one out, with all his routes.
    pub fn remove_peer(&mut self, id: PeerId) {
        self.down(id, Families::NONE);
        self.forget_share(id);
        if let Some(place) = self.peers.get_mut(usize::from(id.0)) {
            *place = None;
        }
    }

    /// Changes what is configured of one: his routes are judged anew, and he is told all again.
    pub fn reconfigure(&mut self, id: PeerId, config: PeerConfig) {
        let Some(peer) = self.peer_mut(id) else { return };
        peer.config = config;
        let (heard, paths) = (peer.families(), peer.paths);
        if paths[Family::Ipv4Unicast.index()] > 0 {
            self.judge_again::<u32>(id);
        }
        if paths[Family::Ipv6Unicast.index()] > 0 {
            self.judge_again::<u128>(id);
        }
        heard.iter().for_each(|family| self.resend(id, family));
    }

    /// His session is there: he is to be told everything.
    pub fn up(&mut self, id: PeerId, negotiated: &Negotiated) {
        let Some(peer) = self.peer_mut(id) else { return };
        peer.number = negotiated.number;
        peer.identifier = negotiated.identifier;
        (peer.role, peer.long_lived) = (negotiated.role, !negotiated.long_lived.is_empty());
        peer.session = Some(Session {
            send: negotiated.send,
            role: negotiated.role,
            long_lived: !negotiated.long_lived.is_empty(),
            enhanced_refresh: negotiated.enhanced_refresh,
        });
        self.all_paths |= !negotiated.send.add_path.is_empty();
        for family in negotiated.families().iter() {
            if let Some(peer) = self.peer_mut(id) {
                peer.out[family.index()].end_of_rib = true;
            }
            self.resend(id, family);
        }
    }

    /// He is to be told all routes of a family again.
    pub fn resend(&mut self, id: PeerId, family: Family) {
        match family {
            Family::Ipv4Unicast => self.resend_in::<u32>(id),
            Family::Ipv6Unicast => self.resend_in::<u128>(id),
        }
    }

    /// The same because he asked, with a beginning and an end where he knows these.
    pub fn refresh(&mut self, id: PeerId, family: Family) {
        self.resend(id, family);
        if let Some(peer) = self.peer_mut(id)
            && peer.session.as_ref().is_some_and(|session| session.enhanced_refresh)
            // Before End-of-RIB none begins (RFC 7313 4): he hears all of it as it is.
            && !peer.out[family.index()].end_of_rib
        {
            peer.out[family.index()].refresh = Refresh::Asked;
        }
    }

    /// Nobody is told anything, until this is said again with `false`: a restarted speaker hears all neighbours first.
    pub fn hold_back(&mut self, held_back: bool) {
        self.held_back = held_back;
    }

    /// What he said; how many routes were not kept, as too many ([`MAX_PATHS_OF_ONE`]) or too long ([`MAX_HEAVY`]). `now` is in seconds.
    pub fn update(&mut self, id: PeerId, update: &Update<'_>, now: u32) -> usize {
        let mut left_out = 0;
        for list in update.withdrawn() {
            for nlri in list.iter() {
                self.withdraw(id, nlri);
            }
        }
        for (next_hop, list) in update.announced() {
            let set = Attributes { next_hop, ..update.attributes.clone() };
            left_out += match list.family() {
                Family::Ipv4Unicast => self.announce::<u32>(id, set, list.iter(), now),
                Family::Ipv6Unicast => self.announce::<u128>(id, set, list.iter(), now),
            };
        }
        for family in update.disabled.iter() {
            self.each_path(family, id, |_| false);
        }
        left_out
    }

    /// A route of this host.
    pub fn originate(&mut self, id: PeerId, prefix: Prefix, set: Attributes, now: u32) {
        let nlri = Nlri::from(prefix.network());
        match Family::of(&prefix) {
            Family::Ipv4Unicast => self.announce::<u32>(id, set, [nlri].into_iter(), now),
            Family::Ipv6Unicast => self.announce::<u128>(id, set, [nlri].into_iter(), now),
        };
    }

    /// A route is gone.
    pub fn withdraw(&mut self, id: PeerId, nlri: Nlri) {
        match Family::of(&nlri.prefix) {
            Family::Ipv4Unicast => self.withdraw_in::<u32>(id, nlri),
            Family::Ipv6Unicast => self.withdraw_in::<u128>(id, nlri),
        }
    }

    /// Notes for every neighbour what has changed, and gives the prefixes whose best or used paths did: for the kernel. To
    /// be called after each batch of messages.
    pub fn publish(&mut self) -> Vec<Prefix> {
        self.follow_next_hops();
        let mut prefixes = Vec::new();
        self.publish_in::<u32>(&mut prefixes);
        self.publish_in::<u128>(&mut prefixes);
        prefixes
    }

    /// What a neighbour is to be told now, in about `most` bytes; nothing when he knows all. To be called again when he has
    /// taken it.
    pub fn flush(&mut self, id: PeerId, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.held_back {
            return bytes;
        }
        let Some(mut peer) = self.peers.get_mut(usize::from(id.0)).and_then(Option::take) else { return bytes };
        let Rib { speaker, tables, interner, peers, .. } = self;
        let mut flush = flush::Flush::new(speaker, tables, interner, peers, (id, &*peer));
        for family in peer.families().iter() {
            match family {
                Family::Ipv4Unicast => flush.family::<u32>(&mut peer, most, &mut bytes),
                Family::Ipv6Unicast => flush.family::<u128>(&mut peer, most, &mut bytes),
            }
        }
        if let Some(place) = self.peers.get_mut(usize::from(id.0)) {
            *place = Some(peer);
        }
        bytes
    }

    fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(usize::from(id.0))?.as_deref()
    }

    fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(id.0))?.as_deref_mut()
    }

    /// Routes of one set. What the import makes of it is found once, unless the filter asks for the prefix.
    fn announce<A: Address>(
        &mut self,
        id: PeerId,
        set: Attributes,
        routes: impl Iterator<Item = Nlri>,
        now: u32,
    ) -> usize {
        let Some(peer) = self.peers.get(usize::from(id.0)).and_then(|peer| peer.as_deref()) else { return 0 };
        let why = import::refused(&self.speaker, peer, &set);
        let (transparent, by_set) = (import::is_transparent(peer), peer.config.import.is_of_attributes());
        let received = self.interner.intern(set);
        let mut left_out = 0;
        let mut known: Option<Result<Interned, Why>> = match why {
            Some(why) => Some(Err(why)),
            None => transparent.then(|| Ok(received.clone())),
        };
        self.notice(id, known.as_ref());
        for nlri in routes {
            let accepted = match &known {
                Some(known) => known.clone(),
                None => {
                    let accepted = self.judge(id, nlri.prefix, &received);
                    self.notice(id, Some(&accepted));
                    known = by_set.then(|| accepted.clone());
                    accepted
                }
            };
            let name = Name { peer: id, path_id: nlri.path_id };
            left_out += usize::from(!self.put::<A>(name, &nlri.prefix, &received, accepted, now));
        }
        left_out
    }

    fn judge(&mut self, id: PeerId, prefix: Prefix, received: &Interned) -> Result<Interned, Why> {
        let peer = self.peers.get(usize::from(id.0)).and_then(|peer| peer.as_deref()).ok_or(Why::Filter)?;
        if let Some(why) = import::refused(&self.speaker, peer, received) {
            return Err(why);
        }
        let accepted = import::accepted(peer, prefix, received).ok_or(Why::Filter)?;
        Ok(if accepted == **received { received.clone() } else { self.interner.intern(accepted) })
    }

    /// Whether there was room for it.
    fn put<A: Address>(
        &mut self,
        name: Name,
        prefix: &Prefix,
        received: &Interned,
        accepted: Result<Interned, Why>,
        now: u32,
    ) -> bool {
        let heavy = heavy(received);
        if heavy > 0 && self.peer(name.peer).is_some_and(|peer| peer.heavy + heavy > MAX_HEAVY) {
            // Nor is what he said of it before true any more.
            self.withdraw_in::<A>(name.peer, Nlri { prefix: *prefix, path_id: name.path_id });
            return false;
        }
        let table = A::table_mut(&mut self.tables);
        let place = table.place(prefix);
        let entry = table.get_mut(place);
        let before = identity(entry);
        let (accepted, why) = match accepted {
            Ok(set) => (Some(set), Why::Only),
            Err(why) => (None, why),
        };
        let (mut ids, mut his) = (0, 0);
        let same = |path: &&mut Path| {
            ids = ids.max(path.local_id);
            his += usize::from(path.peer == name.peer);
            path.peer == name.peer && path.path_id == name.path_id
        };
        match entry.paths.as_mut_slice().iter_mut().find(same) {
            Some(path) => {
                if path.received == *received && path.accepted == accepted && path.flags == 0 {
                    return true;
                }
                if let Some(peer) = self.peers.get_mut(usize::from(name.peer.0)).and_then(|peer| peer.as_deref_mut()) {
                    peer.heavy = (peer.heavy + heavy).saturating_sub(self::heavy(&path.received));
                }
                (path.received, path.accepted, path.why) = (received.clone(), accepted, why);
                (path.flags, path.since) = (0, now);
            }
            None if his >= MAX_PATHS_OF_ONE => return false,
            None => {
                let (Name { peer, path_id }, received) = (name, received.clone());
                let local_id = unused(ids, entry.paths.as_slice());
                entry.paths.push(Path { received, accepted, since: now, path_id, local_id, peer, flags: 0, why });
                if let Some(peer) = self.peer_mut(name.peer) {
                    peer.paths[A::FAMILY.index()] += 1;
                    peer.heavy += heavy;
                }
            }
        }
        self.choose::<A>(place, before);
        true
    }

    fn withdraw_in<A: Address>(&mut self, id: PeerId, nlri: Nlri) {
        let table = A::table_mut(&mut self.tables);
        let Some(place) = table.find(&nlri.prefix) else { return };
        self.keep::<A>(place, id, |path| path.path_id != nlri.path_id);
    }

    /// Keeps those of his paths of which `keep` says so.
    fn keep<A: Address>(&mut self, place: u32, id: PeerId, mut keep: impl FnMut(&mut Path) -> bool) {
        let entry = A::table_mut(&mut self.tables).get_mut(place);
        let (mut mine, mut lighter) = (false, 0);
        let before = identity(entry);
        let gone = entry.paths.retain(|path| {
            let his = path.peer == id;
            mine |= his;
            let stays = !his || keep(path);
            lighter += if stays { 0 } else { heavy(&path.received) };
            stays
        });
        if !mine {
            return;
        }
        if let Some(peer) = self.peer_mut(id) {
            let count = &mut peer.paths[A::FAMILY.index()];
            *count = count.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
            peer.heavy = peer.heavy.saturating_sub(lighter);
        }
        if gone > 0 {
            self.choose::<A>(place, before);
            A::table_mut(&mut self.tables).release(place);
        }
    }

    fn judge_again<A: Address>(&mut self, id: PeerId) {
        for place in 0..A::table(&self.tables).places() {
            let entry = A::table(&self.tables).get(place);
            let (prefix, before) = (entry.prefix(), identity(entry));
            let his = |path: &&Path| path.peer == id;
            let sets: Vec<Interned> =
                entry.paths.as_slice().iter().filter(his).map(|path| path.received.clone()).collect();
            if sets.is_empty() {
                continue;
            }
            let mut judged: Vec<Result<Interned, Why>> =
                sets.iter().map(|set| self.judge(id, prefix, set)).rev().collect();
            judged.iter().for_each(|accepted| self.notice(id, Some(accepted)));
            let entry = A::table_mut(&mut self.tables).get_mut(place);
            for path in entry.paths.as_mut_slice().iter_mut().filter(|path| path.peer == id) {
                (path.accepted, path.why) = match judged.pop() {
                    Some(Ok(set)) => (Some(set), Why::Only),
                    Some(Err(why)) => (None, why),
                    None => (None, Why::Filter),
                };
                if path.flags & LONG_LIVED != 0 {
                    stale::mark(&mut self.interner, path);
                }
            }
            self.choose::<A>(place, before);
        }
    }

    fn publish_in<A: Address>(&mut self, prefixes: &mut Vec<Prefix>) {
        let family = A::FAMILY;
        let places = A::table_mut(&mut self.tables).changes();
        for peer in self.peers.iter_mut().flatten().filter(|peer| peer.families().has(family)) {
            let pending = &mut peer.out[family.index()].pending;
            places.iter().for_each(|place| {
                pending.insert(*place);
            });
        }
        let table = A::table_mut(&mut self.tables);
        prefixes.extend(places.iter().map(|place| table.get(*place).prefix()));
        table.published(places);
    }

    fn resend_in<A: Address>(&mut self, id: PeerId) {
        let Rib { tables, peers, .. } = self;
        let Some(peer) = peers.get_mut(usize::from(id.0)).and_then(|peer| peer.as_deref_mut()) else { return };
        let table = A::table(tables);
        let out = &mut peer.out[A::FAMILY.index()];
        // What was told is told once more, though it has not changed.
        out.paths.values_mut().flatten().for_each(|(_, told)| *told = None);
        for place in 0..table.places() {
            let entry = table.get(place);
            if entry.used > 0 || entry.advertised > 0 {
                out.pending.insert(place);
            }
        }
    }
}

/// Bytes of a set's lists that its neighbour is charged for.
fn heavy(set: &Attributes) -> usize {
    set.heap().saturating_sub(LIGHT)
}

/// A name for a new path: none of the others has it.
fn unused(greatest: u32, paths: &[Path]) -> u32 {
    let taken = |id: u32| paths.iter().any(|path| path.local_id == id);
    match greatest.checked_add(1) {
        Some(next) if greatest < 1 << 16 => next,
        // After long churn of a prefix with several paths: the lowest that is free.
        _ => (1..).find(|id| !taken(*id)).unwrap_or(1),
    }
}

/// The next hop of a route of this host that has none of its own.
pub fn own_next_hop(family: Family) -> NextHop {
    match family {
        Family::Ipv4Unicast => NextHop::new(Ipv4Addr::UNSPECIFIED.into()),
        Family::Ipv6Unicast => NextHop::new(std::net::Ipv6Addr::UNSPECIFIED.into()),
    }
}
