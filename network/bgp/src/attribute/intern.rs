//! One copy of each set of attributes, however many routes and peers have it (hash consing). Two sets that are equal are
//! one allocation, so that "the same attributes" is a comparison of pointers everywhere else. Pure. The routes' tables own
//! one [`Interner`].
//!
//! A set that nobody holds is freed with the next sweep; a sweep comes when as many sets have been made as were left by
//! the one before, so that sweeping costs each set a constant; or when those made since then are [`SWEEP_BYTES`] long: who
//! tells one route with ever other long attributes must not fill the memory with what nobody holds.

use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::Attributes;

/// Below so many sets nothing is swept.
const SWEEP_FLOOR: usize = 1 << 10;

/// So many bytes of lists in new sets, and a sweep comes.
pub const SWEEP_BYTES: usize = 32 << 20;

/// A set that is there once. Equality and hash are of the allocation: only sets of one interner may be compared.
#[derive(Clone)]
pub struct Interned(Arc<Attributes>);

impl Interned {
    /// A number that no other set has while this one is held.
    pub fn key(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

impl Deref for Interned {
    type Target = Attributes;

    fn deref(&self) -> &Attributes {
        &self.0
    }
}

impl PartialEq for Interned {
    fn eq(&self, other: &Interned) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Interned {}

impl Hash for Interned {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl std::fmt::Debug for Interned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// All sets.
#[derive(Default)]
pub struct Interner {
    sets: HashTable<(u64, Interned)>,
    hasher: DefaultHashBuilder,
    /// So many sets are there when the next sweep is due.
    sweep_at: usize,
    /// Bytes of lists in sets made since the last.
    made: usize,
    /// The last set that was asked for: routes come in runs with the same.
    last: Option<Interned>,
}

impl Interner {
    /// The one copy of a set.
    pub fn intern(&mut self, set: Attributes) -> Interned {
        if let Some(last) = self.last.as_ref().filter(|last| ***last == set) {
            return last.clone();
        }
        let hash = self.hasher.hash_one(&set);
        let found = self.sets.find(hash, |(other, interned)| *other == hash && *interned.0 == set);
        let interned = match found {
            Some((_, interned)) => interned.clone(),
            None => {
                if self.sets.len() >= self.sweep_at || self.made >= SWEEP_BYTES {
                    self.sweep();
                }
                self.made += set.heap();
                let interned = Interned(Arc::new(set));
                self.sets.insert_unique(hash, (hash, interned.clone()), |(hash, _)| *hash);
                interned
            }
        };
        self.last = Some(interned.clone());
        interned
    }

    /// Frees what nobody holds.
    pub fn sweep(&mut self) {
        (self.last, self.made) = (None, 0);
        self.sets.retain(|(_, interned)| Arc::strong_count(&interned.0) > 1);
        self.sweep_at = (self.sets.len() * 2).max(SWEEP_FLOOR);
        if self.sets.capacity() > 4 * self.sweep_at {
            self.sets.shrink_to(self.sweep_at, |(hash, _)| *hash);
        }
    }

    /// How many sets there are, those included that nobody holds and no sweep has freed yet.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::NextHop;
    use super::*;

    fn set(med: u32) -> Attributes {
        Attributes { med: Some(med), ..Attributes::local(NextHop::V4(Ipv4Addr::LOCALHOST)) }
    }

    #[test]
    fn equal_sets_are_one() {
        let mut interner = Interner::default();
        let (a, b, c) = (interner.intern(set(1)), interner.intern(set(2)), interner.intern(set(1)));
        assert!(a == c && a != b && a.key() == c.key());
        assert_eq!(interner.len(), 2);
    }

    #[test]
    fn what_nobody_holds_is_freed() {
        let mut interner = Interner::default();
        let kept = interner.intern(set(0));
        for med in 1..100_000 {
            interner.intern(set(med));
        }
        assert!(interner.len() <= 2 * SWEEP_FLOOR, "{}", interner.len());
        interner.sweep();
        assert_eq!((interner.len(), kept.med), (1, Some(0)));
    }

    #[test]
    fn long_sets_that_nobody_holds_go_before_they_are_much() {
        let mut interner = Interner::default();
        let held: Vec<Interned> = (0..10_000).map(|med| interner.intern(set(med))).collect();
        // Each 64 KiB: by their number alone the next sweep would be 10,000 away, 640 MiB.
        for n in 0..2_000 {
            let communities = (0..16384).map(|low| crate::attribute::Community(n << 16 | low)).collect();
            interner.intern(Attributes { communities, ..set(0) });
            assert!(interner.len() <= held.len() + SWEEP_BYTES / (64 << 10) + 1, "{}", interner.len());
        }
    }
}
