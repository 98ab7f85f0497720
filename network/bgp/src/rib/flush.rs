//! The Adj-RIB-Out: what a neighbour is yet to be told becomes messages, when he can take them. Routes that share their
//! attributes share messages. A neighbour who does not read is asked for nothing and costs a bit a prefix: what he is told
//! at last is how things are then. Pure. Called by [`super::Rib::flush`].

use hashbrown::HashMap;

use super::export::{Leaving, export};
use super::peer::{Out, Peer, Refresh};
use super::table::{Address, Entry, LONG_LIVED, Path, Tables};
use super::{PeerId, Speaker};
use crate::attribute::{Interned, Interner};
use crate::family::Family;
use crate::message::nlri::Nlri;
use crate::message::refresh::{RouteRefresh, Subtype};
use crate::message::{Coding, Message, pack};

/// Prefixes that are looked at before their messages are made: enough to fill these, and what is made beyond a caller's
/// limit stays small.
const BATCH: usize = 2_048;

/// What is made of them.
#[derive(Default)]
struct Batch {
    withdrawn: Vec<Nlri>,
    /// In the order in which their first routes came.
    announced: Vec<(Interned, Vec<Nlri>)>,
    groups: HashMap<usize, usize>,
}

impl Batch {
    fn announce(&mut self, set: &Interned, nlri: Nlri) {
        // Routes come in runs.
        if let Some((last, routes)) = self.announced.last_mut()
            && last == set
        {
            return routes.push(nlri);
        }
        let new = self.announced.len();
        let at = *self.groups.entry(set.key()).or_insert(new);
        match self.announced.get_mut(at) {
            Some((_, routes)) => routes.push(nlri),
            None => self.announced.push((set.clone(), vec![nlri])),
        }
    }
}

fn refresh(family: Family, subtype: Subtype, bytes: &mut Vec<u8>) {
    bytes.extend(Message::RouteRefresh(RouteRefresh { family: family.wire(), subtype }).write());
}

/// What is needed beside the neighbour.
pub(super) struct Flush<'a> {
    tables: &'a mut Tables,
    exporter: Exporter<'a>,
}

/// Makes of a path what the neighbour is told.
struct Exporter<'a> {
    speaker: &'a Speaker,
    interner: &'a mut Interner,
    peers: &'a [Option<Box<Peer>>],
    to: PeerId,
    /// What a set of a neighbour becomes: not where the filter asks for the prefix, too.
    memo: Memo,
    memorable: bool,
}

/// By the set and whom it is from; the set is held so that its key stays its own.
type Memo = HashMap<Key, (Interned, Option<Interned>)>;
type Key = (usize, PeerId, bool);

impl<'a> Flush<'a> {
    pub(super) fn new(
        speaker: &'a Speaker,
        tables: &'a mut Tables,
        interner: &'a mut Interner,
        peers: &'a [Option<Box<Peer>>],
        to: (PeerId, &Peer),
    ) -> Flush<'a> {
        let memorable = to.1.config.export.is_of_attributes();
        let exporter = Exporter { speaker, interner, peers, to: to.0, memo: Memo::new(), memorable };
        Flush { tables, exporter }
    }

    /// Appends messages until there are about `most` bytes or nothing is left.
    pub(super) fn family<A: Address>(&mut self, peer: &mut Peer, most: usize, bytes: &mut Vec<u8>) {
        let Some(coding) = peer.session.as_ref().map(|session| session.send) else { return };
        let family = A::FAMILY;
        let mut out = std::mem::take(&mut peer.out[family.index()]);
        if out.refresh == Refresh::Asked {
            out.refresh = Refresh::Begun;
            refresh(family, Subtype::Begin, bytes);
        }
        while bytes.len() < most && out.pending.len() > 0 {
            let mut batch = Batch::default();
            for _ in 0..BATCH {
                let next = out.pending.next(out.cursor).or_else(|| out.pending.next(0));
                let Some(place) = next else { break };
                out.pending.remove(place);
                out.cursor = place + 1;
                if coding.add_path.has(family) {
                    self.paths::<A>(peer, &mut out, place, &mut batch);
                } else {
                    self.best::<A>(peer, &mut out, place, &mut batch);
                }
            }
            self.write::<A>(&coding, &mut out, batch, bytes);
        }
        if out.pending.len() == 0 {
            if std::mem::take(&mut out.end_of_rib) {
                pack::end_of_rib(family, bytes);
            }
            if std::mem::take(&mut out.refresh) == Refresh::Begun {
                refresh(family, Subtype::End, bytes);
            }
        }
        peer.out[family.index()] = out;
    }

    /// Without add-path: the best.
    fn best<A: Address>(&mut self, peer: &Peer, out: &mut Out, place: u32, batch: &mut Batch) {
        let entry = A::table_mut(self.tables).get_mut(place);
        let nlri = Nlri::from(entry.prefix());
        match entry.best().and_then(|path| self.exporter.export(&nlri, path, peer)) {
            Some(set) => {
                entry.advertised += u16::from(out.advertised.insert(place));
                batch.announce(&set, nlri);
            }
            None if out.advertised.remove(place) => {
                self.forgotten::<A>(place);
                batch.withdrawn.push(nlri);
            }
            None => {}
        }
    }

    /// With add-path: every path that is no worse than refused.
    fn paths<A: Address>(&mut self, peer: &Peer, out: &mut Out, place: u32, batch: &mut Batch) {
        let entry = A::table(self.tables).get(place);
        let prefix = entry.prefix();
        let paths: Vec<Path> = entry.paths.as_slice().iter().filter(|path| !path.why.is_refused()).cloned().collect();
        let mut told = out.paths.remove(&place).unwrap_or_default();
        let had = !told.is_empty();
        let mut now = Vec::new();
        for path in paths {
            let nlri = Nlri { prefix, path_id: path.local_id };
            let Some(set) = self.exporter.export(&nlri, &path, peer) else { continue };
            let before = told.iter().position(|(id, _)| *id == path.local_id).map(|at| told.swap_remove(at));
            now.push((path.local_id, Some(set.clone())));
            if before.is_none_or(|(_, before)| before.as_ref() != Some(&set)) {
                batch.announce(&set, nlri);
            }
        }
        batch.withdrawn.extend(told.into_iter().map(|(path_id, _)| Nlri { prefix, path_id }));
        match (had, now.is_empty()) {
            (false, false) => A::table_mut(self.tables).get_mut(place).advertised += 1,
            (true, true) => self.forgotten::<A>(place),
            _ => {}
        }
        if !now.is_empty() {
            out.paths.insert(place, now);
        }
    }

    /// One neighbour less has been told of a prefix.
    fn forgotten<A: Address>(&mut self, place: u32) {
        let table = A::table_mut(self.tables);
        let entry: &mut Entry<A> = table.get_mut(place);
        entry.advertised = entry.advertised.saturating_sub(1);
        table.release(place);
    }

    fn write<A: Address>(&mut self, coding: &Coding, out: &mut Out, batch: Batch, bytes: &mut Vec<u8>) {
        let family: Family = A::FAMILY;
        pack::withdraw(coding, family, &batch.withdrawn, bytes);
        for (set, routes) in batch.announced {
            if pack::announce(coding, family, &set, &routes, bytes).is_ok() {
                continue;
            }
            // What he cannot be told he must not have of before.
            pack::withdraw(coding, family, &routes, bytes);
            for nlri in &routes {
                let Some(place) = A::table(self.tables).find(&nlri.prefix) else { continue };
                let gone = match out.paths.get_mut(&place) {
                    Some(paths) => {
                        paths.retain(|(id, _)| *id != nlri.path_id);
                        paths.is_empty() && out.paths.remove(&place).is_some()
                    }
                    None => out.advertised.remove(place),
                };
                if gone {
                    self.forgotten::<A>(place);
                }
            }
        }
    }
}

impl Exporter<'_> {
    fn export(&mut self, nlri: &Nlri, path: &Path, to: &Peer) -> Option<Interned> {
        let set = path.accepted.as_ref()?;
        let long_lived = path.flags & LONG_LIVED != 0;
        // Not back to whom it is from.
        let from = self.peers.get(usize::from(path.peer.0))?.as_ref().filter(|_| path.peer != self.to)?;
        let key = (set.key(), path.peer, long_lived);
        if let Some((_, known)) = self.memo.get(&key) {
            return known.clone();
        }
        let leaving = Leaving { prefix: nlri.prefix, set, from, long_lived };
        let exported = export(self.speaker, &leaving, to).map(|set| self.interner.intern(set));
        if self.memorable {
            self.memo.insert(key, (set.clone(), exported.clone()));
        }
        exported
    }
}
