//! Routes as people and other parts look at them: which paths a prefix has, why each is where it is, what a neighbour is
//! told. Pure. Called by whoever shows routes, and by the kernel's side.

use meta::Prefix;

use super::export::{Leaving, export};
use super::peer::Peer;
use super::table::{Address, LONG_LIVED, Path, STALE};
use super::{PeerId, Rib};
use crate::attribute::Attributes;
use crate::decision::Why;
use crate::family::Family;
use crate::mrt;

/// A path to a prefix.
#[derive(Clone, Copy, Debug)]
pub struct PathView<'a> {
    /// Who told it.
    pub peer: PeerId,
    /// The neighbour's identifier of it.
    pub path_id: u32,
    /// As it was told.
    pub received: &'a Attributes,
    /// As it is used; none when it is refused.
    pub accepted: Option<&'a Attributes>,
    /// Whether packets go this way; the first of a prefix is the best.
    pub used: bool,
    /// Why it is where it is.
    pub why: Why,
    /// Kept over the end of its session.
    pub stale: bool,
    /// Kept beyond, as the last resort.
    pub long_lived: bool,
    /// When it came, in seconds.
    pub since: u32,
}

/// Bytes of a piece of a dump.
const PIECE: usize = 256 << 10;

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Prefixes of each family.
    pub prefixes: [usize; 2],
    /// Sets of attributes, those included that the next sweep frees.
    pub sets: usize,
}

fn view(path: &Path, used: bool) -> PathView<'_> {
    PathView {
        peer: path.peer,
        path_id: path.path_id,
        received: &path.received,
        accepted: path.accepted.as_deref(),
        used,
        why: path.why,
        stale: path.flags & STALE != 0,
        long_lived: path.flags & LONG_LIVED != 0,
        since: path.since,
    }
}

impl Rib {
    /// The paths to a prefix, those that are used first.
    pub fn paths(&self, prefix: &Prefix) -> Vec<PathView<'_>> {
        match Family::of(prefix) {
            Family::Ipv4Unicast => self.paths_in::<u32>(prefix),
            Family::Ipv6Unicast => self.paths_in::<u128>(prefix),
        }
    }

    fn paths_in<A: Address>(&self, prefix: &Prefix) -> Vec<PathView<'_>> {
        let table = A::table(&self.tables);
        let Some(place) = table.find(prefix) else { return Vec::new() };
        let entry = table.get(place);
        let used = usize::from(entry.used);
        entry.paths.as_slice().iter().enumerate().map(|(at, path)| view(path, at < used)).collect()
    }

    /// The best path to a prefix.
    pub fn best(&self, prefix: &Prefix) -> Option<PathView<'_>> {
        self.paths(prefix).into_iter().next().filter(|path| path.used)
    }

    /// Every prefix of a family that has a path, in the order that they came in.
    pub fn prefixes(&self, family: Family) -> Vec<Prefix> {
        match family {
            Family::Ipv4Unicast => self.prefixes_in::<u32>(),
            Family::Ipv6Unicast => self.prefixes_in::<u128>(),
        }
    }

    fn prefixes_in<A: Address>(&self) -> Vec<Prefix> {
        let table = A::table(&self.tables);
        let entries = (0..table.places()).map(|place| table.get(place));
        entries.filter(|entry| !entry.paths.as_slice().is_empty()).map(|entry| entry.prefix()).collect()
    }

    /// How many paths of a family he has told: what a limit is about.
    pub fn told(&self, id: PeerId, family: Family) -> u32 {
        self.peer(id).map_or(0, |peer| peer.paths[family.index()])
    }

    /// How many prefixes of a family wait for him.
    pub fn pending(&self, id: PeerId, family: Family) -> usize {
        self.peer(id).map_or(0, |peer| peer.out[family.index()].pending.len())
    }

    /// What he is told of a prefix.
    pub fn exported(&self, id: PeerId, prefix: &Prefix) -> Option<Attributes> {
        let to = self.peer(id)?;
        let best = self.best(prefix).filter(|best| best.peer != id)?;
        let (set, from) = (best.accepted?, self.peer(best.peer)?);
        export(&self.speaker, &Leaving { prefix: *prefix, set, from, long_lived: best.long_lived }, to)
    }

    /// Everything that neighbours told, as a dump of MRT (RFC 6396), a piece at a time. `at` is now and `began` the moment
    /// that times are counted from, both in seconds since 1970.
    pub fn dump(&self, at: u32, began: u32, mut write: impl FnMut(&[u8])) {
        let told = |peer: &&Peer| peer.config.source.is_bgp();
        let all: Vec<(usize, &Peer)> =
            self.peers.iter().enumerate().filter_map(|(id, peer)| Some((id, peer.as_deref().filter(told)?))).collect();
        let one = |(_, peer): &(usize, &Peer)| mrt::DumpPeer {
            identifier: peer.identifier,
            address: peer.config.address,
            number: peer.number,
        };
        let mut bytes = Vec::new();
        mrt::peers(at, self.speaker.identifier, &all.iter().map(one).collect::<Vec<_>>(), &mut bytes);
        let mut sequence = 0;
        for prefix in Family::ALL.into_iter().flat_map(|family| self.prefixes(family)) {
            let place = |id: PeerId| all.iter().position(|(known, _)| *known == usize::from(id.0));
            let paths = self.paths(&prefix);
            let dumped: Vec<mrt::DumpPath<'_>> = paths
                .iter()
                .filter_map(|path| {
                    let peer = place(path.peer).and_then(|at| u16::try_from(at).ok())?;
                    let since = began.saturating_add(path.since);
                    Some(mrt::DumpPath { peer, since, path_id: path.path_id, set: path.received })
                })
                .collect();
            if dumped.is_empty() {
                continue;
            }
            mrt::prefix(at, sequence, prefix, &dumped, &mut bytes);
            sequence += 1;
            if bytes.len() >= PIECE {
                write(&bytes);
                bytes.clear();
            }
        }
        write(&bytes);
    }

    /// How much there is.
    pub fn summary(&self) -> Summary {
        Summary { prefixes: [self.tables.v4.len(), self.tables.v6.len()], sets: self.interner.len() }
    }
}
