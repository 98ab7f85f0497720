//! What the kernel is to have, until it has been told: of each prefix the last wish, in batches. Pure. Filled by `routes`;
//! the loop sends what [`Fib::next`] gives whenever the kernel's side takes something.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use meta::Prefix;

use crate::kernel::{Command, Wish};

/// Prefixes of one batch.
const BATCH: usize = 2048;
/// Wishes that are known, at least, before those are looked for that nobody has any more.
const FEW: usize = 1024;

/// What is yet to be told.
#[derive(Debug, Default)]
pub struct Fib {
    pending: HashMap<Prefix, Option<Arc<Wish>>>,
    /// Next hops that are of interest from now on, or no longer: of each the last word.
    asked: BTreeMap<IpAddr, bool>,
    loaded: bool,
    /// One of each: a table has many prefixes and few ways.
    wishes: HashMap<Wish, Arc<Wish>>,
    sweep_at: usize,
}

impl Fib {
    /// A prefix shall have this, or nothing.
    pub fn want(&mut self, prefix: Prefix, wish: Option<Wish>) {
        let wish = wish.map(|wish| self.one_of(wish));
        self.pending.insert(prefix, wish);
    }

    /// The way to a next hop is of interest.
    pub fn track(&mut self, address: IpAddr) {
        self.asked.insert(address, true);
    }

    /// It is no longer.
    pub fn forget(&mut self, address: IpAddr) {
        self.asked.insert(address, false);
    }

    /// All that an earlier process had has been wanted again by now.
    pub fn loaded(&mut self) {
        self.loaded = true;
    }

    /// Whether there is something to tell.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty() || !self.asked.is_empty() || self.loaded
    }

    /// The next of it.
    pub fn next(&mut self) -> Option<Command> {
        if let Some((address, wanted)) = self.asked.pop_first() {
            return Some(if wanted { Command::Track(address) } else { Command::Forget(address) });
        }
        if self.pending.is_empty() {
            return std::mem::take(&mut self.loaded).then_some(Command::Loaded);
        }
        if self.pending.len() <= BATCH {
            return Some(Command::Want(self.pending.drain().collect()));
        }
        let some: Vec<Prefix> = self.pending.keys().copied().take(BATCH).collect();
        Some(Command::Want(some.into_iter().filter_map(|prefix| self.pending.remove_entry(&prefix)).collect()))
    }

    fn one_of(&mut self, wish: Wish) -> Arc<Wish> {
        if self.wishes.len() >= self.sweep_at.max(FEW) {
            self.wishes.retain(|_, known| Arc::strong_count(known) > 1);
            self.sweep_at = 2 * self.wishes.len();
        }
        match self.wishes.get(&wish) {
            Some(known) => Arc::clone(known),
            None => {
                let new = Arc::new(wish.clone());
                self.wishes.insert(wish, Arc::clone(&new));
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(host: u8) -> Option<Wish> {
        Some(Wish::by(32, [IpAddr::from([10, 0, 0, host])]))
    }

    fn prefix(n: u32) -> Prefix {
        Prefix::new(std::net::Ipv4Addr::from(n << 8), 24)
    }

    #[test]
    fn of_a_prefix_the_last_wish_is_told_and_all_before_the_end_of_it() {
        let mut fib = Fib::default();
        assert!(!fib.is_pending() && fib.next().is_none());
        fib.loaded();
        fib.want(prefix(1), wish(1));
        fib.want(prefix(1), wish(2));
        fib.want(prefix(2), None);
        fib.track(IpAddr::from([10, 0, 0, 2]));
        assert!(matches!(fib.next(), Some(Command::Track(_))));
        let Some(Command::Want(mut told)) = fib.next() else { panic!("wishes") };
        told.sort_by_key(|(prefix, _)| *prefix);
        assert_eq!(told.len(), 2);
        assert_eq!((told[0].1.as_deref().cloned(), told[1].1.is_none()), (wish(2), true));
        assert!(matches!(fib.next(), Some(Command::Loaded)) && !fib.is_pending());
    }

    #[test]
    fn of_a_next_hop_that_comes_and_goes_the_last_word_is_told() {
        let mut fib = Fib::default();
        let address = |host: u8| IpAddr::from([10, 0, 0, host]);
        for _ in 0..1000 {
            fib.track(address(1));
            fib.forget(address(1));
            fib.forget(address(2));
            fib.track(address(2));
        }
        assert!(matches!(fib.next(), Some(Command::Forget(one)) if one == address(1)));
        assert!(matches!(fib.next(), Some(Command::Track(two)) if two == address(2)));
        assert!(!fib.is_pending());
    }

    #[test]
    fn many_are_batches_and_share_their_ways() {
        let mut fib = Fib::default();
        (0..5000).for_each(|n| fib.want(prefix(n), wish((n % 2) as u8)));
        let mut told = Vec::new();
        while let Some(Command::Want(batch)) = fib.next() {
            assert!(batch.len() <= BATCH);
            told.extend(batch);
        }
        let ways: std::collections::HashSet<_> =
            told.iter().filter_map(|(_, wish)| wish.as_ref().map(Arc::as_ptr)).collect();
        assert_eq!((told.len(), ways.len()), (5000, 2));
    }
}
