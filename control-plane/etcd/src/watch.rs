//! Which watchers a change concerns. Pure: an index from keys and ranges to whoever watches them, generic in what a
//! watcher is. Identical ranges are one group, so a thousand watchers of one prefix cost one match per change.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::recent::Change;
use crate::span::Span;

/// The index; `W` is the watcher's handle.
#[derive(Debug)]
pub struct Groups<W> {
    singles: HashMap<Bytes, Vec<(u64, W)>>,
    ranges: BTreeMap<Span, Vec<(u64, W)>>,
}

/// The changes of one group, in order, and its watchers.
pub type Routed<'a, W> = (Arc<[Arc<Change>]>, &'a [(u64, W)]);

impl<W> Default for Groups<W> {
    fn default() -> Self {
        Groups { singles: HashMap::new(), ranges: BTreeMap::new() }
    }
}

impl<W> Groups<W> {
    pub fn insert(&mut self, span: &Span, id: u64, watcher: W) {
        let group = match span.is_single() {
            true => self.singles.entry(span.start.clone()).or_default(),
            false => self.ranges.entry(span.clone()).or_default(),
        };
        group.push((id, watcher));
    }

    pub fn remove(&mut self, span: &Span, id: u64) -> Option<W> {
        fn take<W>(group: &mut Vec<(u64, W)>, id: u64) -> Option<W> {
            let at = group.iter().position(|(i, _)| *i == id)?;
            Some(group.swap_remove(at).1)
        }
        if span.is_single() {
            let group = self.singles.get_mut(&span.start)?;
            let watcher = take(group, id);
            if group.is_empty() {
                self.singles.remove(&span.start);
            }
            return watcher;
        }
        let group = self.ranges.get_mut(span)?;
        let watcher = take(group, id);
        if group.is_empty() {
            self.ranges.remove(span);
        }
        watcher
    }

    /// Every watcher.
    pub fn iter(&self) -> impl Iterator<Item = &W> {
        self.singles.values().chain(self.ranges.values()).flatten().map(|(_, w)| w)
    }

    /// For each group that the changes concern: its changes, in order, and its watchers.
    pub fn route<'a>(&'a self, changes: &[Arc<Change>]) -> Vec<Routed<'a, W>> {
        let mut routed = Vec::new();
        if !self.singles.is_empty() {
            let mut hit: BTreeMap<&Bytes, Vec<Arc<Change>>> = BTreeMap::new();
            for change in changes.iter().filter(|c| self.singles.contains_key(&c.kv.key)) {
                hit.entry(&change.kv.key).or_default().push(change.clone());
            }
            for (key, changes) in hit {
                routed.push((changes.into(), self.singles[key].as_slice()));
            }
        }
        for (span, watchers) in &self.ranges {
            let hit: Vec<Arc<Change>> = changes.iter().filter(|c| span.contains(&c.kv.key)).cloned().collect();
            if !hit.is_empty() {
                routed.push((hit.into(), watchers.as_slice()));
            }
        }
        routed
    }
}
