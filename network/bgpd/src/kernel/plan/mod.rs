//! What is wanted beside what is there, and the changes that make one of the other. Pure: routes are told in, changes come
//! out; what they were refused is told again. `task` carries them out.
//!
//! Of a prefix there is one route of ours at most; others of ours to it, with another metric, go. A route changes in place,
//! and one that gets another metric is there with the new one before that with the old goes: at no time is there none.

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use meta::Prefix;

use super::wish::{Shape, Wish};

/// All prefixes that shall have a route of ours, or have one.
#[derive(Debug, Default)]
pub struct Plan {
    entries: HashMap<Prefix, Entry>,
    /// Routes of ours beside the one of the entry: their metrics.
    strays: HashMap<Prefix, Vec<u32>>,
    /// Prefixes to look at; their entries say so.
    dirty: VecDeque<Prefix>,
    /// Prefixes that have not what they shall: another protocol has the place, or the kernel said no.
    refused: HashSet<Prefix>,
    /// One of each.
    wishes: HashSet<Arc<Wish>>,
    wanted: usize,
    there: usize,
    kept: usize,
    listed: bool,
}

#[derive(Debug, Default)]
struct Entry {
    wanted: Option<Arc<Wish>>,
    there: Option<There>,
    /// Of an earlier process, and nobody has wanted it yet.
    kept: bool,
    dirty: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct There {
    metric: u32,
    shape: Arc<Shape>,
}

/// One route of ours as a list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub prefix: Prefix,
    pub metric: u32,
    pub shape: Arc<Shape>,
}

/// One change of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub prefix: Prefix,
    pub metric: u32,
    pub step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none of ours with this metric.
    Add(Arc<Shape>),
    /// There is one, and this takes its place.
    Replace(Arc<Shape>),
    Delete,
}

/// What surrounds the plan.
pub trait Surroundings {
    /// The shape that a wish takes now; none where no next hop can be reached.
    fn shape(&self, wish: &Arc<Wish>) -> Option<Arc<Shape>>;
    /// Whether a route of another protocol has this place.
    fn is_taken(&self, prefix: &Prefix, metric: u32) -> bool;
}

impl Plan {
    /// One prefix shall have this, or nothing.
    pub fn want(&mut self, prefix: Prefix, wish: Option<Arc<Wish>>) {
        let prefix = prefix.network();
        let wish = wish.map(|wish| self.one_of(wish));
        let entry = match self.entries.entry(prefix) {
            Place::Occupied(entry) => entry.into_mut(),
            Place::Vacant(_) if wish.is_none() => return,
            Place::Vacant(place) => place.insert(Entry::default()),
        };
        self.wanted = self.wanted + usize::from(wish.is_some()) - usize::from(entry.wanted.is_some());
        let mut changed = entry.wanted != wish;
        if wish.is_none() && std::mem::take(&mut entry.kept) {
            self.kept -= 1;
            changed = true;
        }
        if changed {
            entry.wanted = wish;
            look_at(&mut self.dirty, prefix, entry);
        }
    }

    fn one_of(&mut self, wish: Arc<Wish>) -> Arc<Wish> {
        match self.wishes.get(&wish) {
            Some(known) => known.clone(),
            None => {
                self.wishes.insert(wish.clone());
                wish
            }
        }
    }

    /// Lets go of wishes that no prefix has.
    pub fn sweep(&mut self) {
        self.wishes.retain(|wish| Arc::strong_count(wish) > 1);
    }

    /// The shapes of these wishes are others than before.
    pub fn reshape(&mut self, wishes: &HashSet<Arc<Wish>>) {
        for (prefix, entry) in &mut self.entries {
            if entry.wanted.as_ref().is_some_and(|wish| wishes.contains(wish)) {
                look_at(&mut self.dirty, *prefix, entry);
            }
        }
    }

    /// All routes of ours that there are. Those of the first list are kept.
    pub fn list(&mut self, mut found: Vec<Found>) {
        found.sort_unstable_by_key(|found| (found.prefix, found.metric));
        let first = !std::mem::replace(&mut self.listed, true);
        self.strays.clear();
        for (prefix, entry) in &mut self.entries {
            let here = found.partition_point(|found| found.prefix < *prefix);
            if found.get(here).is_none_or(|found| found.prefix != *prefix) && entry.there.is_some() {
                entry.there = None;
                look_at(&mut self.dirty, *prefix, entry);
            }
        }
        for same in found.chunk_by(|a, b| a.prefix == b.prefix) {
            let Some(lowest) = same.first() else { continue };
            let prefix = lowest.prefix;
            let entry = self.entries.entry(prefix).or_default();
            let metric = entry.wanted.as_ref().map(|wish| metric_of(wish));
            let ours = same.iter().find(|found| Some(found.metric) == metric).unwrap_or(lowest);
            let there = Some(There { metric: ours.metric, shape: ours.shape.clone() });
            let strays: Vec<u32> = same.iter().map(|found| found.metric).filter(|m| *m != ours.metric).collect();
            if entry.there != there || !strays.is_empty() {
                entry.there = there;
                look_at(&mut self.dirty, prefix, entry);
            }
            if !strays.is_empty() {
                self.strays.insert(prefix, strays);
            }
            if first && entry.wanted.is_none() {
                self.kept += usize::from(!std::mem::replace(&mut entry.kept, true));
            }
        }
        self.there = self.entries.values().filter(|entry| entry.there.is_some()).count();
        self.retry();
    }

    /// What was refused before may be taken now.
    pub fn retry(&mut self) {
        for prefix in &self.refused {
            if let Some(entry) = self.entries.get_mut(prefix) {
                look_at(&mut self.dirty, *prefix, entry);
            }
        }
    }

    /// Somebody else has put a route of ours.
    pub fn put(&mut self, found: Found) {
        let entry = self.entries.entry(found.prefix).or_default();
        match &entry.there {
            Some(there) if there.metric != found.metric => {
                let strays = self.strays.entry(found.prefix).or_default();
                if !strays.contains(&found.metric) {
                    strays.push(found.metric);
                }
            }
            before => {
                self.there += usize::from(before.is_none());
                entry.there = Some(There { metric: found.metric, shape: found.shape });
            }
        }
        look_at(&mut self.dirty, found.prefix, entry);
    }

    /// Somebody else has removed a route of ours, or put another in its place.
    pub fn removed(&mut self, prefix: Prefix, metric: u32) {
        if let Some(strays) = self.strays.get_mut(&prefix) {
            strays.retain(|stray| *stray != metric);
        }
        if let Some(entry) = self.entries.get_mut(&prefix) {
            if entry.there.as_ref().is_some_and(|there| there.metric == metric) {
                entry.there = None;
                self.there -= 1;
            }
            look_at(&mut self.dirty, prefix, entry);
        }
    }

    /// Whether there is a route of ours, as far as is known.
    pub fn has(&self, prefix: &Prefix, metric: u32) -> bool {
        self.entries.get(prefix).and_then(|entry| entry.there.as_ref()).is_some_and(|there| there.metric == metric)
    }

    /// Routes of another protocol to a prefix have changed.
    pub fn others_changed(&mut self, prefix: Prefix) {
        if let Some(entry) = self.entries.get_mut(&prefix) {
            look_at(&mut self.dirty, prefix, entry);
        }
    }

    /// What an earlier process had and nobody wants goes.
    pub fn loaded(&mut self) {
        for (prefix, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.kept) {
            entry.kept = false;
            look_at(&mut self.dirty, *prefix, entry);
        }
        self.kept = 0;
    }

    /// Nothing is wanted any more.
    pub fn clear(&mut self) {
        self.loaded();
        for (prefix, entry) in &mut self.entries {
            entry.wanted = None;
            look_at(&mut self.dirty, *prefix, entry);
        }
        self.wanted = 0;
    }

    /// Whether there is something to look at.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The next changes, about `most` of them, in their order. They count as made; what was refused is told by
    /// [`Plan::refused`].
    pub fn changes(&mut self, most: usize, around: &impl Surroundings) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < most
            && let Some(prefix) = self.dirty.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&prefix) else { continue };
            entry.dirty = false;
            self.refused.remove(&prefix);
            let shape = |wish: &Arc<Wish>| Some((metric_of(wish), around.shape(wish).filter(|s| s.suits(&prefix))?));
            let wanted = entry.wanted.as_ref().and_then(shape);
            if wanted.is_some() {
                self.kept -= usize::from(std::mem::take(&mut entry.kept));
            } else if entry.kept {
                continue;
            }
            let before = entry.there.take();
            self.there -= usize::from(before.is_some());
            let mut change = |metric: u32, step: Step| changes.push(Change { prefix, metric, step });
            let mut old: Vec<u32> = self.strays.remove(&prefix).unwrap_or_default();
            match (wanted, before) {
                (Some((metric, shape)), Some(there)) if there.metric == metric => {
                    if there.shape != shape {
                        change(metric, Step::Replace(shape.clone()));
                    }
                    entry.there = Some(There { metric, shape });
                }
                (Some((metric, shape)), before) => {
                    old.extend(before.map(|there| there.metric));
                    if around.is_taken(&prefix, metric) {
                        self.refused.insert(prefix);
                    } else {
                        // A stray may have this very metric: then it is ours.
                        let step = if old.contains(&metric) { Step::Replace } else { Step::Add };
                        change(metric, step(shape.clone()));
                        entry.there = Some(There { metric, shape });
                    }
                }
                (None, before) => old.extend(before.map(|there| there.metric)),
            }
            self.there += usize::from(entry.there.is_some());
            let now = entry.there.as_ref().map(|there| there.metric);
            old.into_iter().filter(|metric| Some(*metric) != now).for_each(|metric| change(metric, Step::Delete));
            if entry.wanted.is_none() && entry.there.is_none() {
                self.entries.remove(&prefix);
            }
        }
        changes
    }

    /// The kernel didn't make a change. What is there now is not known before the next list.
    pub fn refused(&mut self, change: &Change) {
        let Some(entry) = self.entries.get_mut(&change.prefix).filter(|_| change.step != Step::Delete) else { return };
        if entry.there.as_ref().is_some_and(|there| there.metric == change.metric) {
            entry.there = None;
            self.there -= 1;
        }
        self.refused.insert(change.prefix);
    }

    /// Prefixes wanted, routes there, of which kept, and refused.
    pub fn counts(&self) -> [usize; 4] {
        [self.wanted, self.there, self.kept, self.refused.len()]
    }
}

fn look_at(dirty: &mut VecDeque<Prefix>, prefix: Prefix, entry: &mut Entry) {
    if !std::mem::replace(&mut entry.dirty, true) {
        dirty.push_back(prefix);
    }
}

fn metric_of(wish: &Wish) -> u32 {
    wish.metric.max(1)
}

#[cfg(test)]
mod tests;
