//! The routes of one family: prefixes with the paths that there are to each. Built for a million: an entry is forty bytes
//! with its one path in it, entries lie in chunks that never move, and the index beside them is eight bytes each. The number
//! of an entry's place stays while somebody needs it, so that what a neighbour has been told is a bit at that place. Pure.
//! Owned by [`super::Rib`].

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;

use hashbrown::hash_table::Entry as Slot;
use hashbrown::{DefaultHashBuilder, HashTable};
use meta::Prefix;

use super::PeerId;
use crate::attribute::Interned;
use crate::decision::Why;
use crate::family::Family;

/// Entries of a chunk: 160 KiB of IPv4.
const CHUNK: usize = 1 << 12;

/// An address as a number.
pub(super) trait Address: Copy + Eq + Hash + 'static {
    const FAMILY: Family;
    /// The number of an address of this family.
    fn from_ip(address: IpAddr) -> Self;
    fn to_ip(self) -> IpAddr;
    fn table(tables: &Tables) -> &Table<Self>;
    fn table_mut(tables: &mut Tables) -> &mut Table<Self>;
}

impl Address for u32 {
    const FAMILY: Family = Family::Ipv4Unicast;

    fn from_ip(address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(_) => 0,
        }
    }

    fn to_ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }

    fn table(tables: &Tables) -> &Table<u32> {
        &tables.v4
    }

    fn table_mut(tables: &mut Tables) -> &mut Table<u32> {
        &mut tables.v4
    }
}

impl Address for u128 {
    const FAMILY: Family = Family::Ipv6Unicast;

    fn from_ip(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(_) => 0,
            IpAddr::V6(v6) => v6.into(),
        }
    }

    fn to_ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }

    fn table(tables: &Tables) -> &Table<u128> {
        &tables.v6
    }

    fn table_mut(tables: &mut Tables) -> &mut Table<u128> {
        &mut tables.v6
    }
}

/// Both families'.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) v4: Table<u32>,
    pub(super) v6: Table<u128>,
}

/// Bits of a path's flags.
pub(super) const STALE: u8 = 1;
pub(super) const LONG_LIVED: u8 = 2;

/// One path: an entry of the Adj-RIB-In, and what the import made of it.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// As it was told.
    pub(super) received: Interned,
    /// As it is used; none when it is refused.
    pub(super) accepted: Option<Interned>,
    /// When it came, in seconds.
    pub(super) since: u32,
    /// The neighbour's name for it (RFC 7911).
    pub(super) path_id: u32,
    /// Ours.
    pub(super) local_id: u32,
    pub(super) peer: PeerId,
    pub(super) flags: u8,
    pub(super) why: Why,
}

/// The paths of a prefix: those that are used first, the best at their head. One is the rule, and costs nothing beside.
#[derive(Debug, Default)]
pub(super) enum Paths {
    #[default]
    None,
    One(Path),
    Many(Vec<Path>),
}

impl Paths {
    pub(super) fn as_slice(&self) -> &[Path] {
        match self {
            Paths::None => &[],
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Paths::None => &mut [],
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(paths) => paths,
        }
    }

    pub(super) fn push(&mut self, path: Path) {
        *self = match std::mem::take(self) {
            Paths::None => Paths::One(path),
            Paths::One(first) => Paths::Many(vec![first, path]),
            Paths::Many(mut paths) => {
                paths.push(path);
                Paths::Many(paths)
            }
        };
    }

    /// Keeps those of which `keep` says so; how many went.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Path) -> bool) -> usize {
        let before = self.as_slice().len();
        match self {
            Paths::None => {}
            Paths::One(path) => {
                if !keep(path) {
                    *self = Paths::None;
                }
            }
            Paths::Many(paths) => {
                paths.retain_mut(keep);
                if paths.len() < 2 {
                    *self = paths.pop().map_or(Paths::None, Paths::One);
                }
            }
        }
        before - self.as_slice().len()
    }
}

/// A prefix.
#[derive(Debug)]
pub(super) struct Entry<A> {
    pub(super) paths: Paths,
    pub(super) address: A,
    pub(super) length: u8,
    /// So many paths are used: 0 when all are refused.
    pub(super) used: u8,
    /// So many neighbours have been told of it: until they are told that it is gone, it stays.
    pub(super) advertised: u16,
}

impl<A: Address> Entry<A> {
    pub(super) fn prefix(&self) -> Prefix {
        Prefix::new(self.address.to_ip(), self.length)
    }

    pub(super) fn best(&self) -> Option<&Path> {
        self.paths.as_slice().first().filter(|_| self.used > 0)
    }

    fn is_free(&self) -> bool {
        self.advertised == 0 && matches!(self.paths, Paths::None)
    }
}

/// A place of the index. With the hash beside it the index grows without a look at the entries, which lie anywhere.
#[derive(Clone, Copy)]
struct Indexed {
    place: u32,
    hash: u32,
}

impl Indexed {
    /// As many bits as the index takes: it wants the first seven and the last ones.
    fn spread(hash: u32) -> u64 {
        u64::from(hash) << 32 | u64::from(hash)
    }
}

/// All prefixes of a family.
pub(super) struct Table<A> {
    chunks: Vec<Vec<Entry<A>>>,
    index: HashTable<Indexed>,
    hasher: DefaultHashBuilder,
    /// Places to use again.
    free: Vec<u32>,
    /// What has changed and is not published yet: these places stay, so that who follows hears of what is gone.
    changed: Places,
    order: Vec<u32>,
}

impl<A> Default for Table<A> {
    fn default() -> Table<A> {
        Table {
            chunks: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            free: Vec::new(),
            changed: Places::default(),
            order: Vec::new(),
        }
    }
}

fn at<A>(chunks: &[Vec<Entry<A>>], place: u32) -> &Entry<A> {
    &chunks[place as usize / CHUNK][place as usize % CHUNK]
}

/// Whether this is the place of a prefix.
fn is<A: Address>(chunks: &[Vec<Entry<A>>], place: u32, address: A, length: u8) -> bool {
    let entry = at(chunks, place);
    entry.address == address && entry.length == length
}

impl<A: Address> Table<A> {
    /// How many prefixes there are.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Places, those of no prefix included: all are below it.
    pub(super) fn places(&self) -> u32 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        u32::try_from(full + self.chunks.last().map_or(0, Vec::len)).unwrap_or(u32::MAX)
    }

    pub(super) fn get(&self, place: u32) -> &Entry<A> {
        at(&self.chunks, place)
    }

    pub(super) fn get_mut(&mut self, place: u32) -> &mut Entry<A> {
        &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }

    fn hash(&self, address: A, length: u8) -> u32 {
        self.hasher.hash_one((address, length)) as u32
    }

    pub(super) fn find(&self, prefix: &Prefix) -> Option<u32> {
        let (address, length) = (A::from_ip(prefix.addr), prefix.len);
        let hash = self.hash(address, length);
        let same = |found: &Indexed| found.hash == hash && is(&self.chunks, found.place, address, length);
        self.index.find(Indexed::spread(hash), same).map(|found| found.place)
    }

    /// The place of a prefix; a new one where it has none.
    pub(super) fn place(&mut self, prefix: &Prefix) -> u32 {
        let (address, length) = (A::from_ip(prefix.addr), prefix.len);
        let hash = self.hash(address, length);
        let Table { chunks, index, free, .. } = self;
        let same = |found: &Indexed| found.hash == hash && is(chunks, found.place, address, length);
        match index.entry(Indexed::spread(hash), same, |known| Indexed::spread(known.hash)) {
            Slot::Occupied(found) => found.get().place,
            Slot::Vacant(slot) => {
                let entry = Entry { paths: Paths::None, address, length, used: 0, advertised: 0 };
                let place = match free.pop() {
                    Some(place) => {
                        chunks[place as usize / CHUNK][place as usize % CHUNK] = entry;
                        place
                    }
                    None => append(chunks, entry),
                };
                slot.insert(Indexed { place, hash });
                place
            }
        }
    }

    /// Notes that a prefix has changed.
    pub(super) fn change(&mut self, place: u32) {
        if self.changed.insert(place) {
            self.order.push(place);
        }
    }

    /// What has changed, in order; with [`Table::published`] it is given back.
    pub(super) fn changes(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.order)
    }

    /// Those have heard of it who follow.
    pub(super) fn published(&mut self, mut changes: Vec<u32>) {
        for place in changes.drain(..) {
            self.changed.remove(place);
            self.release(place);
        }
        // Its memory is for the next batch.
        self.order = changes;
    }

    /// Gives a place back, unless somebody needs it.
    pub(super) fn release(&mut self, place: u32) {
        let entry = at(&self.chunks, place);
        if !entry.is_free() || self.changed.has(place) {
            return;
        }
        let hash = Indexed::spread(self.hash(entry.address, entry.length));
        if let Ok(found) = self.index.find_entry(hash, |other| other.place == place) {
            found.remove();
            self.free.push(place);
        }
    }
}

fn append<A>(chunks: &mut Vec<Vec<Entry<A>>>, entry: Entry<A>) -> u32 {
    if chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
        chunks.push(Vec::with_capacity(CHUNK));
    }
    let full = (chunks.len() - 1) * CHUNK;
    let last = chunks.last_mut().map(|chunk| {
        chunk.push(entry);
        full + chunk.len() - 1
    });
    // Four billion entries of forty bytes are more than any memory.
    last.and_then(|place| u32::try_from(place).ok()).unwrap_or(u32::MAX)
}

/// Places, a bit each.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    words: Vec<u64>,
    count: usize,
}

impl Places {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn has(&self, place: u32) -> bool {
        self.words.get(place as usize / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// Whether it was not there before.
    pub(super) fn insert(&mut self, place: u32) -> bool {
        let at = place as usize / 64;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        let bit = 1 << (place % 64);
        let new = self.words[at] & bit == 0;
        self.words[at] |= bit;
        self.count += usize::from(new);
        new
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, place: u32) -> bool {
        let was = self.has(place);
        if was {
            self.words[place as usize / 64] &= !(1 << (place % 64));
            self.count -= 1;
        }
        was
    }

    /// The first from a place on.
    pub(super) fn next(&self, from: u32) -> Option<u32> {
        let at = from as usize / 64;
        let first = self.words.get(at)? & (u64::MAX << (from % 64));
        let rest = self.words.iter().copied().enumerate().skip(at + 1);
        let (word, bits) = std::iter::once((at, first)).chain(rest).find(|(_, bits)| *bits != 0)?;
        u32::try_from(word * 64 + bits.trailing_zeros() as usize).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_ipv4_is_forty_bytes() {
        assert_eq!((size_of::<Path>(), size_of::<Entry<u32>>()), (32, 40));
    }

    #[test]
    fn places_are_found_kept_and_used_again() {
        let mut table: Table<u32> = Table::default();
        let prefix = |n: u32| Prefix::new(IpAddr::V4((n << 8).into()), 24);
        let places: Vec<u32> = (0..10_000).map(|n| table.place(&prefix(n))).collect();
        assert_eq!((table.len(), table.places()), (10_000, 10_000));
        assert!((0..10_000).all(|n| table.find(&prefix(n)) == Some(places[n as usize])));
        table.get_mut(places[7]).advertised = 1;
        table.release(places[7]);
        table.release(places[8]);
        assert_eq!((table.find(&prefix(7)), table.find(&prefix(8))), (Some(places[7]), None));
        assert_eq!((table.place(&prefix(20_000)), table.places()), (places[8], 10_000));
        assert_eq!(table.find(&Prefix::new(IpAddr::V4(0.into()), 23)), None);
    }

    #[test]
    fn bits_are_walked_in_order() {
        let mut places = Places::default();
        for place in [200, 3, 64, 63, 3] {
            places.insert(place);
        }
        assert_eq!(places.len(), 4);
        let mut found = Vec::new();
        while let Some(place) = places.next(0) {
            found.push(place);
            assert!(places.remove(place));
        }
        assert_eq!((found, places.len()), (vec![3, 63, 64, 200], 0));
        places.insert(64);
        assert_eq!((places.next(64), places.next(65), places.next(9_999)), (Some(64), None, None));
    }
}
