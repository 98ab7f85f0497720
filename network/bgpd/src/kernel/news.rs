//! What the speaker is told of the kernel: what has changed since it was told last, each thing once however often it
//! changes meanwhile. Pure. `task` sends it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use meta::Prefix;

use super::said::{Event, Learned};
use super::ways::Ways;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Topic {
    Listed,
    NextHop(IpAddr),
    Learned(Prefix),
    Direct(Prefix),
    Link(u32),
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct News {
    queue: VecDeque<Topic>,
    waiting: HashMap<Topic, Event>,
    next_hops: HashMap<IpAddr, Option<u32>>,
    learned: HashMap<Prefix, Learned>,
    direct: BTreeMap<Prefix, BTreeSet<String>>,
    links: HashMap<u32, (String, bool)>,
}

impl News {
    fn tell(&mut self, topic: Topic, event: Event) {
        if self.waiting.insert(topic.clone(), event).is_none() {
            self.queue.push_back(topic);
        }
    }

    /// The next event.
    pub fn take(&mut self) -> Option<Event> {
        let topic = self.queue.pop_front()?;
        self.waiting.remove(&topic)
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// All that was there at the start is in the queue by now.
    pub fn listed(&mut self) {
        self.tell(Topic::Listed, Event::Listed);
    }

    /// This next hop is of interest.
    pub fn track(&mut self, address: IpAddr, ways: &Ways) {
        let metric = ways.reach(address).map(|reached| reached.metric);
        self.next_hops.insert(address, metric);
        self.tell(Topic::NextHop(address), Event::NextHop(address, metric));
    }

    pub fn forget(&mut self, address: IpAddr) {
        self.next_hops.remove(&address);
    }

    /// Links, addresses or routes have changed.
    pub fn look(&mut self, ways: &Ways) {
        self.look_at_links(ways);
        let direct = ways.direct();
        let both: BTreeSet<Prefix> = self.direct.keys().chain(direct.keys()).copied().collect();
        let changed = both.into_iter().filter(|prefix| self.direct.get(prefix) != direct.get(prefix));
        for prefix in changed.collect::<Vec<_>>() {
            let links = direct.get(&prefix).into_iter().flatten().cloned().collect();
            self.tell(Topic::Direct(prefix), Event::Direct(prefix, links));
        }
        self.direct = direct;
        let metric = |address: &IpAddr| ways.reach(*address).map(|reached| reached.metric);
        let changed = |(address, before): (&IpAddr, &mut Option<u32>)| {
            let now = metric(address);
            (std::mem::replace(before, now) != now).then_some((*address, now))
        };
        let changed: Vec<_> = self.next_hops.iter_mut().filter_map(changed).collect();
        for (address, metric) in changed {
            self.tell(Topic::NextHop(address), Event::NextHop(address, metric));
        }
    }

    fn look_at_links(&mut self, ways: &Ways) {
        let now: HashMap<u32, (String, bool)> =
            ways.links().map(|link| (link.index, (link.name.clone(), link.up && link.carrier))).collect();
        let before = std::mem::take(&mut self.links);
        for (index, (name, up)) in &before {
            if *up && !now.contains_key(index) {
                self.tell(Topic::Link(*index), Event::Link { name: name.clone(), index: *index, up: false });
            }
        }
        for (index, link) in &now {
            if before.get(index) != Some(link) {
                let (name, up) = link.clone();
                self.tell(Topic::Link(*index), Event::Link { name, index: *index, up });
            }
        }
        self.links = now;
    }

    /// Routes of others to this prefix have changed.
    pub fn look_at(&mut self, prefix: Prefix, ways: &Ways) {
        let now = ways.learned(&prefix);
        if self.learned.get(&prefix) == now.as_ref() {
            return;
        }
        match now.clone() {
            Some(learned) => self.learned.insert(prefix, learned),
            None => self.learned.remove(&prefix),
        };
        self.tell(Topic::Learned(prefix), Event::Learned(prefix, now));
    }

    /// Routes of others may have changed, any of them.
    pub fn look_at_all(&mut self, ways: &Ways) {
        let all: BTreeSet<Prefix> = self.learned.keys().copied().chain(ways.prefixes()).collect();
        all.into_iter().for_each(|prefix| self.look_at(prefix, ways));
    }
}
