//! The ways to next hops: which addresses somebody is to resolve, what he says of them, and the decisions that change with
//! it (RFC 4271 9.1.2.1). Where nobody resolves, every next hop is next door: so it is for a reflector through which no
//! packet goes. Pure. Called by the loop; what is new is noticed on import.

use std::collections::HashMap;
use std::net::IpAddr;

use super::noticed::resolvable;
use super::table::{Address, Path};
use super::{PeerId, Rib, identity};
use crate::attribute::Interned;
use crate::decision::{Options, Why};

impl Rib {
    /// From now on next hops are resolved: there is no way to one before [`Rib::next_hop`] says so.
    pub fn resolve_next_hops(&mut self) {
        self.noticed.get_or_insert_default();
    }

    /// Next hops that have come since the last call: whose ways are to be found.
    pub fn new_next_hops(&mut self) -> Vec<IpAddr> {
        self.noticed.as_mut().map(|noticed| std::mem::take(&mut noticed.new)).unwrap_or_default()
    }

    /// Whether there are some of which nobody has said yet whether there is a way: what is decided now isn't for long.
    pub fn awaits_next_hops(&self) -> bool {
        self.noticed.as_ref().is_some_and(|noticed| !noticed.unanswered.is_empty())
    }

    /// How many are known, those included that no route has any more.
    pub fn next_hops(&self) -> usize {
        self.noticed.as_ref().map_or(0, |noticed| noticed.all.len())
    }

    /// How often there was no room for a next hop of a neighbour's.
    pub fn refused_next_hops(&self, id: PeerId) -> u64 {
        self.noticed.as_ref().and_then(|noticed| noticed.shares.get(&id)).map_or(0, |share| share.refused)
    }

    /// Whether somebody has more than he may: those that no route has any more may be among them.
    pub fn lacks_room_for_next_hops(&self) -> bool {
        self.noticed.as_ref().is_some_and(|noticed| noticed.short)
    }

    /// Forgets those that no route has any more, and says which: it looks at every path. Those for which there was no room
    /// are new where there is some now.
    pub fn forget_next_hops(&mut self) -> Vec<IpAddr> {
        let mut used = HashMap::new();
        self.used_in::<u32>(&mut used);
        self.used_in::<u128>(&mut used);
        let Some(noticed) = &mut self.noticed else { return Vec::new() };
        let gone: Vec<IpAddr> = noticed.all.keys().filter(|address| !used.contains_key(address)).copied().collect();
        for address in &gone {
            noticed.remove(address);
            self.next_hops.remove(address);
        }
        noticed.new.retain(|address| used.contains_key(address));
        noticed.short = false;
        for (address, of) in used {
            if noticed.add(address, of) {
                self.next_hops.insert(address, None);
            }
        }
        gone
    }

    /// One is gone: what was charged to him is nobody's.
    pub(super) fn forget_share(&mut self, id: PeerId) {
        if let Some(noticed) = &mut self.noticed
            && noticed.shares.remove(&id).is_some_and(|share| share.charged > 0)
        {
            noticed.all.values_mut().filter(|of| **of == Some(id)).for_each(|of| *of = None);
        }
    }

    /// The way to a next hop: its metric, or that there is none. What follows is decided by [`Rib::publish`].
    pub fn next_hop(&mut self, address: IpAddr, metric: Option<u32>) {
        if let Some(noticed) = &mut self.noticed {
            noticed.unanswered.remove(&address);
        }
        if self.next_hops.insert(address, metric) != Some(metric) {
            self.moved.insert(address);
        }
    }

    /// Decides about what goes by next hops whose ways have changed: all of them in one look at the tables, as who tells
    /// routes can name a next hop of its own in each.
    pub(super) fn follow_next_hops(&mut self) {
        if self.moved.is_empty() {
            return;
        }
        let moved = std::mem::take(&mut self.moved);
        let by = |path: &Path| path.accepted.as_ref().is_some_and(|set| moved.contains(&set.next_hop.address()));
        self.choose_where::<u32>(by);
        self.choose_where::<u128>(by);
    }

    /// Decides anew about everything, by other options.
    pub fn set_options(&mut self, options: Options) {
        if self.speaker.options != options {
            self.speaker.options = options;
            self.choose_where::<u32>(|_| true);
            self.choose_where::<u128>(|_| true);
        }
    }

    /// Notes the next hop of what is used.
    pub(super) fn notice(&mut self, of: PeerId, accepted: Option<&Result<Interned, Why>>) {
        let (Some(noticed), Some(Ok(set))) = (&mut self.noticed, accepted) else { return };
        if let Some(address) = resolvable(set.next_hop)
            && noticed.add(address, of)
        {
            self.next_hops.entry(address).or_insert(None);
        }
    }

    fn used_in<A: Address>(&self, used: &mut HashMap<IpAddr, PeerId>) {
        let table = A::table(&self.tables);
        for place in 0..table.places() {
            let paths = table.get(place).paths.as_slice().iter();
            used.extend(paths.filter_map(|path| Some((resolvable(path.accepted.as_ref()?.next_hop)?, path.peer))));
        }
    }

    fn choose_where<A: Address>(&mut self, changed: impl Fn(&Path) -> bool) {
        for place in 0..A::table(&self.tables).places() {
            let entry = A::table(&self.tables).get(place);
            if entry.paths.as_slice().iter().any(&changed) {
                let before = identity(entry);
                self.choose::<A>(place, before);
            }
        }
    }
}
