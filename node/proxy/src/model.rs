//! The whole of the rules as elements of maps, and the difference between two wholes. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use linux::nft::{Data, Key, Verdict};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::chains::{Chain, REJECT, sets};
use crate::render::{Rendered, UdpFront};
use crate::service::{Front, Group, HealthCheck};

/// Namespace and name of a Service, with a slash between.
pub type Name = Arc<str>;

/// A place in one of the maps: which map, and the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    Service(Front),
    /// IPv6 or not, protocol, port.
    NodePort(bool, u8, u16),
    /// A list and the number in it.
    Endpoint(Group, u32),
    Hairpin(IpAddr),
    Sticky(Group, IpAddr, u16),
    NoEndpoints(Front),
    NoEndpointsNodePort(bool, u8, u16),
    ClusterIp(IpAddr),
    Firewall(Front),
}

/// What is at a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    Present,
    To(IpAddr, u16),
    Chain(Chain),
    Reject,
    Drop,
}

/// All elements.
pub type Ruleset = FxHashMap<Slot, Value>;

/// What is to be done to get from one whole to another, atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    pub new_chains: Vec<(bool, Chain)>,
    pub remove: Vec<Slot>,
    pub add: Vec<(Slot, Value, Option<Name>)>,
    pub dead_chains: Vec<(bool, Chain)>,
}

/// What a change of one Service means for the kernel and for flows.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub transaction: Transaction,
    /// UDP ways in whose endpoints changed or that are gone.
    pub udp: Vec<UdpFront>,
}

impl Slot {
    /// Whether it is in the table of the ip6 family.
    pub fn is_v6(&self) -> bool {
        match self {
            Slot::Service(f) | Slot::NoEndpoints(f) | Slot::Firewall(f) => f.addr.is_ipv6(),
            Slot::NodePort(v6, ..) | Slot::NoEndpointsNodePort(v6, ..) => *v6,
            Slot::Endpoint(g, _) | Slot::Sticky(g, ..) => g.vip.is_ipv6(),
            Slot::Hairpin(addr) | Slot::ClusterIp(addr) => addr.is_ipv6(),
        }
    }

    /// The map and the key in it.
    pub fn key(&self) -> (&'static str, Key) {
        let front = |f: &Front| Key::new().addr(f.addr).protocol(f.protocol).port(f.port);
        let group = |g: &Group| Key::new().protocol(g.protocol).addr(g.vip).port(g.port);
        let number = |protocol: &u8, port: &u16| Key::new().protocol(*protocol).port(*port);
        match self {
            Slot::Service(f) => (sets::SERVICES, front(f)),
            Slot::NodePort(_, protocol, port) => (sets::NODE_PORTS, number(protocol, port)),
            Slot::Endpoint(g, n) => (sets::ENDPOINTS, group(g).mark(*n)),
            Slot::Hairpin(addr) => (sets::HAIRPIN, Key::new().addr(*addr).addr(*addr)),
            Slot::Sticky(g, addr, port) => {
                (sets::STICKY_ENDPOINTS, group(g).mark(u32::from(g.local)).addr(*addr).port(*port))
            }
            Slot::NoEndpoints(f) => (sets::NO_ENDPOINTS, front(f)),
            Slot::NoEndpointsNodePort(_, protocol, port) => (sets::NO_ENDPOINTS_NODE_PORTS, number(protocol, port)),
            Slot::ClusterIp(addr) => (sets::CLUSTER_IPS, Key::new().addr(*addr)),
            Slot::Firewall(f) => (sets::FIREWALL, front(f)),
        }
    }

    /// Whether the element says whose it is: the ways in do.
    fn is_named(&self) -> bool {
        matches!(self, Slot::Service(_) | Slot::NodePort(..) | Slot::NoEndpoints(_) | Slot::NoEndpointsNodePort(..))
    }
}

impl Value {
    pub fn data(&self) -> Option<Data> {
        match self {
            Value::Present => None,
            Value::To(addr, port) => Some(Data::Value(Key::new().addr(*addr).port(*port))),
            Value::Chain(chain) => Some(Data::Verdict(Verdict::Goto(chain.name()))),
            Value::Reject => Some(Data::Verdict(Verdict::Goto(REJECT.to_owned()))),
            Value::Drop => Some(Data::Verdict(Verdict::Drop)),
        }
    }

    fn chain(&self) -> Option<&Chain> {
        match self {
            Value::Chain(chain) => Some(chain),
            _ => None,
        }
    }
}

impl Transaction {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

/// From one whole to another.
pub fn diff(old: &Ruleset, new: &Ruleset) -> Transaction {
    let mut t = Transaction::default();
    for (slot, value) in new {
        match old.get(slot) {
            Some(same) if same == value => {}
            was => {
                if was.is_some() {
                    t.remove.push(*slot);
                }
                t.add.push((*slot, value.clone(), None));
            }
        }
    }
    t.remove.extend(old.keys().filter(|slot| !new.contains_key(slot)));
    let (before, after) = (chains_of(old), chains_of(new));
    t.new_chains = needed_first(after.difference(&before).cloned());
    t.dead_chains = needed_first(before.difference(&after).cloned());
    t.dead_chains.reverse();
    t
}

fn chains_of(ruleset: &Ruleset) -> FxHashSet<(bool, Chain)> {
    let mut chains = FxHashSet::default();
    for (slot, value) in ruleset {
        if let Some(chain) = value.chain() {
            let key = (slot.is_v6(), chain.clone());
            if chains.insert(key) {
                chains.extend(chain.needs().map(|needed| (slot.is_v6(), needed)));
            }
        }
    }
    chains
}

/// A chain is made after those that it goes to.
fn needed_first(chains: impl Iterator<Item = (bool, Chain)>) -> Vec<(bool, Chain)> {
    let mut chains: Vec<_> = chains.collect();
    chains.sort_by_cached_key(|(v6, chain)| (chain.needs().is_some(), *v6, chain.name()));
    chains
}

/// All that Services contribute, kept so that a change of one costs what that one has.
#[derive(Debug, Default)]
pub struct Model {
    services: FxHashMap<Name, Rendered>,
    held: FxHashMap<Slot, Held>,
    /// How many elements lead to a chain.
    uses: FxHashMap<(bool, Chain), usize>,
}

/// Who has a place. Two Services may want one: an external address, the hairpin of a pod behind both.
#[derive(Debug)]
struct Held {
    owner: Name,
    value: Value,
    others: Vec<(Name, Value)>,
}

impl Model {
    /// Takes what a Service contributes now and says what to change.
    pub fn set(&mut self, name: &Name, rendered: Rendered) -> Change {
        let old = self.services.remove(name).unwrap_or_default();
        let mut change = Change { udp: stale_udp(&old.udp, &rendered.udp), ..Change::default() };
        let mut touched: FxHashMap<Slot, Option<Value>> = FxHashMap::default();
        let wanted: FxHashMap<Slot, &Value> = rendered.entries.iter().map(|(slot, value)| (*slot, value)).collect();
        for (slot, value) in &old.entries {
            if wanted.get(slot).is_none_or(|new| *new != value) {
                self.release(name, *slot, &mut touched);
            }
        }
        for (slot, value) in &rendered.entries {
            self.claim(name, *slot, value, &mut touched);
        }
        if !rendered.entries.is_empty() || rendered.health.is_some() {
            self.services.insert(name.clone(), rendered);
        }
        self.settle(touched, &mut change.transaction);
        change
    }

    pub fn remove(&mut self, name: &Name) -> Change {
        self.set(name, Rendered::default())
    }

    /// What a Service contributed last.
    pub fn rendered(&self, name: &Name) -> Option<&Rendered> {
        self.services.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    /// Health check ports with the Services that have them.
    pub fn health_checks(&self) -> Vec<(Name, HealthCheck)> {
        self.services.iter().filter_map(|(name, r)| Some((name.clone(), r.health?))).collect()
    }

    pub fn ruleset(&self) -> Ruleset {
        self.held.iter().map(|(slot, held)| (*slot, held.value.clone())).collect()
    }

    /// The transaction that makes the whole from nothing.
    pub fn whole(&self) -> Transaction {
        let add = |(slot, held): (&Slot, &Held)| (*slot, held.value.clone(), named(slot, &held.owner));
        Transaction {
            new_chains: needed_first(self.uses.keys().cloned()),
            add: self.held.iter().map(add).collect(),
            ..Transaction::default()
        }
    }

    /// All UDP ways in.
    pub fn udp(&self) -> Vec<UdpFront> {
        self.services.values().flat_map(|r| r.udp.iter().cloned()).collect()
    }

    fn claim(&mut self, name: &Name, slot: Slot, value: &Value, touched: &mut FxHashMap<Slot, Option<Value>>) {
        match self.held.get_mut(&slot) {
            None => {
                touched.entry(slot).or_insert(None);
                self.held.insert(slot, Held { owner: name.clone(), value: value.clone(), others: Vec::new() });
            }
            Some(held) if held.owner == *name => {
                if held.value != *value {
                    touched.entry(slot).or_insert_with(|| Some(held.value.clone()));
                    held.value = value.clone();
                }
            }
            Some(held) => {
                held.others.retain(|(other, _)| other != name);
                held.others.push((name.clone(), value.clone()));
                Self::elect(held, slot, touched);
            }
        }
    }

    /// The first by name has the place: it does not depend on who came first.
    fn elect(held: &mut Held, slot: Slot, touched: &mut FxHashMap<Slot, Option<Value>>) {
        let Some(at) = (0..held.others.len()).min_by_key(|i| held.others[*i].0.clone()) else { return };
        if held.others[at].0 < held.owner {
            touched.entry(slot).or_insert_with(|| Some(held.value.clone()));
            let (owner, value) = held.others.swap_remove(at);
            let loser = (std::mem::replace(&mut held.owner, owner), std::mem::replace(&mut held.value, value));
            held.others.push(loser);
        }
    }

    fn release(&mut self, name: &Name, slot: Slot, touched: &mut FxHashMap<Slot, Option<Value>>) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        if held.owner != *name {
            held.others.retain(|(other, _)| other != name);
            return;
        }
        touched.entry(slot).or_insert_with(|| Some(held.value.clone()));
        match (0..held.others.len()).min_by_key(|i| held.others[*i].0.clone()) {
            Some(at) => (held.owner, held.value) = held.others.swap_remove(at),
            None => {
                self.held.remove(&slot);
            }
        }
    }

    /// Turns the places that were touched, with what was there, into what to send.
    fn settle(&mut self, touched: FxHashMap<Slot, Option<Value>>, t: &mut Transaction) {
        let mut chains: FxHashMap<(bool, Chain), isize> = FxHashMap::default();
        for (slot, old) in touched {
            let new = self.held.get(&slot);
            if old.as_ref() == new.map(|h| &h.value) {
                continue;
            }
            for (value, step) in [(old.as_ref(), -1), (new.map(|h| &h.value), 1)] {
                if let Some(chain) = value.and_then(Value::chain) {
                    *chains.entry((slot.is_v6(), chain.clone())).or_default() += step;
                    if let Some(needed) = chain.needs() {
                        *chains.entry((slot.is_v6(), needed)).or_default() += step;
                    }
                }
            }
            if old.is_some() {
                t.remove.push(slot);
            }
            t.add.extend(new.map(|h| (slot, h.value.clone(), named(&slot, &h.owner))));
        }
        let mut made = Vec::new();
        let mut dead = Vec::new();
        for (chain, step) in chains {
            let before = self.uses.get(&chain).copied().unwrap_or(0);
            let after = before.saturating_add_signed(step);
            match (before, after) {
                (0, 1..) => made.push(chain.clone()),
                (1.., 0) => dead.push(chain.clone()),
                _ => {}
            }
            if after == 0 {
                self.uses.remove(&chain);
            } else {
                self.uses.insert(chain, after);
            }
        }
        t.new_chains = needed_first(made.into_iter());
        t.dead_chains = needed_first(dead.into_iter());
        t.dead_chains.reverse();
    }
}

fn named(slot: &Slot, owner: &Name) -> Option<Name> {
    slot.is_named().then(|| owner.clone())
}

/// The ways in by UDP that lead elsewhere than before, or nowhere.
fn stale_udp(old: &[UdpFront], new: &[UdpFront]) -> Vec<UdpFront> {
    let gone = old.iter().filter(|o| !new.iter().any(|n| (n.addr, n.port) == (o.addr, o.port)));
    let gone = gone.map(|o| UdpFront { endpoints: Vec::new(), ..o.clone() });
    let changed = new.iter().filter(|n| !old.contains(n)).cloned();
    gone.chain(changed).collect()
}
