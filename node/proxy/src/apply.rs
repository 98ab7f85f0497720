//! Sends transactions to the kernel. Does I/O by netlink, and blocks: tens of microseconds for a Service.

use std::net::IpAddr;

use linux::conntrack::Conntrack;
use linux::netlink::Error;
use linux::netns::NetNs;
use linux::nft::{Batch, Element, Key, Nft};
use meta::Prefix;
use rustc_hash::FxHashMap;

use crate::chains::{self, Ranges, family};
use crate::config::Config;
use crate::model::{Slot, Transaction};
use crate::render::UdpServer;

/// Holds the sockets and knows the names.
#[derive(Debug)]
pub struct Applier {
    nft: Nft,
    config: Config,
    ranges: Ranges,
    /// Hosts without IPv6 netfilter have one table.
    families: Vec<bool>,
    /// How many rules the fixed chains have, IPv4's and IPv6's.
    fixed: [usize; 2],
}

impl Applier {
    /// For the configured namespace. `pods` are the ranges by which pods are told from others.
    pub fn open(config: Config, pods: Vec<Prefix>) -> Result<Self, Error> {
        let nft = match &config.netns {
            None => Nft::open()?,
            Some(path) => {
                let ns = NetNs::open(path)
                    .map_err(|source| Error::Io { what: format!("opening {}", path.display()), source })?;
                Nft::open_in(&ns)?
            }
        };
        let ranges = Ranges { pods, services: Vec::new() };
        Ok(Applier { nft, config, ranges, families: vec![false, true], fixed: [0; 2] })
    }

    /// Takes ranges of pods, where they are known, and of Services, for the whole that is sent next; whether they are others
    /// than before.
    pub fn set_ranges(&mut self, pods: Option<Vec<Prefix>>, services: &[Prefix]) -> bool {
        let pods = pods.unwrap_or_else(|| self.ranges.pods.clone());
        let ranges = Ranges { pods, services: outermost(services) };
        let changed = self.ranges != ranges;
        self.ranges = ranges;
        changed
    }

    /// Replaces whatever is in our tables by the whole. Packets see the old rules or the new, nothing between.
    pub fn replace(&mut self, whole: &Transaction) -> Result<(), Error> {
        for v6 in self.families.clone() {
            let mut batch = Batch::new(family(v6), &self.config.table);
            batch.add_table();
            batch.delete_table();
            chains::skeleton(&mut batch, v6, &self.config, &self.ranges);
            self.fill(&mut batch, whole, v6);
            match self.nft.commit(batch) {
                // A kernel without IPv6 netfilter: there is no IPv6 traffic to translate either.
                Err(e) if v6 && matches!(e.errno(), EAFNOSUPPORT | EOPNOTSUPP | ENOENT) => self.families = vec![false],
                answer => answer?,
            }
        }
        for v6 in self.families.clone() {
            self.fixed[usize::from(v6)] = self.count_rules(v6)?;
        }
        Ok(())
    }

    /// Applies differences, in order and together. When they are refused, nothing has changed in that family, and
    /// the caller replaces.
    pub fn apply<'t>(&mut self, differences: impl IntoIterator<Item = &'t Transaction> + Clone) -> Result<(), Error> {
        for v6 in self.families.clone() {
            let mut batch = Batch::new(family(v6), &self.config.table);
            for t in differences.clone() {
                self.fill(&mut batch, t, v6);
            }
            self.nft.commit(batch)?;
        }
        Ok(())
    }

    /// The number of the last transaction of anyone on this host.
    pub fn generation(&mut self) -> Result<u32, Error> {
        self.nft.generation()
    }

    /// Whether our tables are there with their fixed rules: as many as there were after they were made.
    pub fn is_whole(&mut self) -> Result<bool, Error> {
        for v6 in self.families.clone() {
            if !self.nft.has_table(family(v6), &self.config.table)?
                || self.count_rules(v6)? != self.fixed[usize::from(v6)]
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether each set has as many elements as it is to have. Costs what listing all of them does.
    pub fn has_all(&mut self, wanted: &FxHashMap<(bool, &'static str), usize>) -> Result<bool, Error> {
        for ((v6, set), count) in wanted {
            if self.families.contains(v6) && self.nft.elements(family(*v6), &self.config.table, set)?.len() != *count {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The rules of the chains that are always there.
    fn count_rules(&mut self, v6: bool) -> Result<usize, Error> {
        let rules = self.nft.rules(family(v6), &self.config.table)?;
        Ok(rules.iter().filter(|rule| chains::is_fixed(&rule.chain)).count())
    }

    /// Whether our tables are there.
    pub fn is_present(&mut self) -> Result<bool, Error> {
        self.nft.has_table(family(false), &self.config.table)
    }

    fn fill(&self, batch: &mut Batch, t: &Transaction, v6: bool) {
        for (_, chain) in t.new_chains.iter().filter(|(six, _)| *six == v6) {
            chains::add(batch, chain, v6, &self.config);
        }
        let mut removed: FxHashMap<&'static str, Vec<Key>> = FxHashMap::default();
        for (set, key) in t.remove.iter().filter(|slot| slot.is_v6() == v6).map(Slot::key) {
            removed.entry(set).or_default().push(key);
        }
        for (set, keys) in removed {
            batch.delete_elements(set, keys.into_iter().map(Element::new));
        }
        let mut added: FxHashMap<&'static str, Vec<usize>> = FxHashMap::default();
        for (at, (slot, ..)) in t.add.iter().enumerate().filter(|(_, (slot, ..))| slot.is_v6() == v6) {
            added.entry(slot.set()).or_default().push(at);
        }
        for (set, places) in added {
            batch.reserve(places.len());
            batch.add_each(set, places, |at, write| {
                let (slot, value, name) = &t.add[at];
                let (data, comment) = (value.data(), name.as_deref());
                write(&Element { data: data.as_ref(), comment, ..Element::new(slot.key().1) });
            });
        }
        for (_, chain) in t.dead_chains.iter().filter(|(six, _)| *six == v6) {
            batch.delete_chain(&chain.name());
        }
    }
}

/// Ranges of Services that are taken. Who may make them is the administrator.
const MOST_RANGES: usize = 1024;

/// Those that are in no other, sorted: a set of ranges holds none twice.
fn outermost(ranges: &[Prefix]) -> Vec<Prefix> {
    let mut all: Vec<Prefix> = ranges.iter().map(Prefix::network).collect();
    // What covers comes before what it covers.
    all.sort_unstable_by_key(|range| (range.addr, range.len));
    let mut kept: Vec<Prefix> = Vec::new();
    for range in all {
        if kept.len() < MOST_RANGES && !kept.last().is_some_and(|last| last.covers(&range)) {
            kept.push(range);
        }
    }
    kept
}

const EAFNOSUPPORT: i32 = 97;
const EOPNOTSUPP: i32 = 95;
const ENOENT: i32 = 2;

/// Forgets UDP flows to these virtual servers that lead elsewhere than to their endpoints. Returns how many.
pub fn forget_stale(conntrack: &mut Conntrack, servers: &[UdpServer]) -> Result<usize, Error> {
    const UDP: u8 = 17;
    if servers.is_empty() {
        return Ok(0);
    }
    let by_way: FxHashMap<(Option<IpAddr>, u16), &UdpServer> = servers.iter().map(|f| ((f.addr, f.port), f)).collect();
    conntrack.forget_where(UDP, |flow| {
        let to = (flow.original.destination, flow.original.destination_port);
        let from = (flow.reply.source, flow.reply.source_port);
        if let Some(server) = by_way.get(&(Some(to.0), to.1)) {
            return !server.endpoints.contains(&from);
        }
        // A node port's flow that was never translated may be someone else's: a socket of the host.
        let node_port = by_way.get(&(None, to.1)).filter(|f| from != to || !f.endpoints.is_empty());
        node_port.is_some_and(|server| !server.endpoints.contains(&from))
    })
}

/// Removes our tables; idempotent. For `reset`.
pub fn remove(table: &str) -> Result<(), Error> {
    let mut nft = Nft::open()?;
    for v6 in [false, true] {
        match nft.remove_table(family(v6), table) {
            Err(e) if v6 && matches!(e.errno(), EAFNOSUPPORT | EOPNOTSUPP | ENOENT) => {}
            answer => answer?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ranges_that_lie_in_one_another_the_outer_ones_are_left() {
        let texts = [
            "10.96.0.0/16",
            "10.43.0.0/16",
            "10.43.7.0/24",
            "fd43::/112",
            "10.43.0.0/24",
            "10.43.0.0/16",
            "fd43::/108",
        ];
        let ranges: Vec<Prefix> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let left: Vec<String> = outermost(&ranges).iter().map(Prefix::to_string).collect();
        assert_eq!(left, ["10.43.0.0/16", "10.96.0.0/16", "fd43::/108"]);
    }
}
