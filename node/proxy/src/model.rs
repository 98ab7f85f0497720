//! The whole of the rules as elements of maps, and the difference between two wholes. Pure.
//!
//! ```text
//!  Service + EndpointSlices ── render ──> Rendered: entries (slot, way, value)
//!                                            │ set(name, rendered)
//!                                            v
//!   services   name ──> what it contributes        old and new of one Service: which slots it gives up and takes
//!   held       slot ──> first claim, others        two Services want one slot: the better rank has it
//!                                            │ settle(touched slots)
//!                                            v
//!  Transaction: chains to make, elements to remove, elements to add, chains to drop      ── apply ──> kernel, one batch
//! ```
//!
//! The law that `tests/it/difference.rs` checks against a kernel: whatever Services come, change and go in whatever
//! order, the transactions lead to the same whole as [`Model::whole`] of what is there, and each costs what its Service
//! has, however many others there are. An example: `a` and, later, `b` want the external address 1.2.3.4:80. `a` is
//! older and has the slot, `b` waits in `others`. `a` goes: its slot is touched, `b` is first now, and the transaction
//! replaces one element; no other is looked at.

use std::net::IpAddr;
use std::sync::Arc;

use linux::nft::{Data, Key, Verdict};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::chains::{Chain, REJECT, sets};
use crate::render::{NoLocal, Rendered, UdpServer};
use crate::service::{Group, HealthCheck, UDP, VirtualServer};

/// Namespace and name of a Service, with a slash between.
pub type Name = Arc<str>;

/// A place in one of the maps: which map, and the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    Service(VirtualServer),
    /// IPv6 or not, protocol, port.
    NodePort(bool, u8, u16),
    /// A list and the number in it.
    Endpoint(Group, u32),
    Hairpin(IpAddr),
    Sticky(Group, IpAddr, u16),
    NoEndpoints(VirtualServer),
    NoEndpointsNodePort(bool, u8, u16),
    ClusterIp(IpAddr),
    Firewall(VirtualServer),
}

/// By which kind of address or port a Service wants a place; the first in this order gets it. A cluster address beats
/// all others, or whoever may write a Service could answer for another's: the API server's, for one (CVE-2020-8554).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    Cluster,
    NodePort,
    LoadBalancer,
    External,
}

/// A place that a Service wants, with what it wants there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub slot: Slot,
    pub way: Way,
    pub value: Value,
}

/// What is at a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    Present,
    To(IpAddr, u16),
    Chain(Chain),
    Reject,
    Drop,
    /// Nothing in the kernel, but nobody else gets the place: who has an address has all maps of it.
    Vacant,
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
    /// Virtual servers of UDP whose endpoints changed or that are gone.
    pub udp: Vec<UdpServer>,
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

    /// The map.
    pub fn set(&self) -> &'static str {
        match self {
            Slot::Service(_) => sets::SERVICES,
            Slot::NodePort(..) => sets::NODE_PORTS,
            Slot::Endpoint(..) => sets::ENDPOINTS,
            Slot::Hairpin(_) => sets::HAIRPIN,
            Slot::Sticky(..) => sets::STICKY_ENDPOINTS,
            Slot::NoEndpoints(_) => sets::NO_ENDPOINTS,
            Slot::NoEndpointsNodePort(..) => sets::NO_ENDPOINTS_NODE_PORTS,
            Slot::ClusterIp(_) => sets::CLUSTER_IPS,
            Slot::Firewall(_) => sets::FIREWALL,
        }
    }

    /// The map and the key in it.
    pub fn key(&self) -> (&'static str, Key) {
        let server = |f: &VirtualServer| Key::new().addr(f.addr).protocol(f.protocol).port(f.port);
        let group = |g: &Group| Key::new().protocol(g.protocol).addr(g.vip).port(g.port);
        let number = |protocol: &u8, port: &u16| Key::new().protocol(*protocol).port(*port);
        let key = match self {
            Slot::Service(f) | Slot::NoEndpoints(f) | Slot::Firewall(f) => server(f),
            Slot::NodePort(_, protocol, port) | Slot::NoEndpointsNodePort(_, protocol, port) => number(protocol, port),
            Slot::Endpoint(g, n) => group(g).mark(*n),
            Slot::Hairpin(addr) => Key::new().addr(*addr).addr(*addr),
            Slot::Sticky(g, addr, port) => group(g).mark(u32::from(g.local)).addr(*addr).port(*port),
            Slot::ClusterIp(addr) => Key::new().addr(*addr),
        };
        (self.set(), key)
    }

    /// The address of a virtual server that is not a node port's.
    fn server(&self) -> Option<&VirtualServer> {
        match self {
            Slot::Service(server) | Slot::NoEndpoints(server) | Slot::Firewall(server) => Some(server),
            _ => None,
        }
    }

    /// Whether the element says whose it is: virtual servers do.
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
            Value::Vacant => None,
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
    health: FxHashMap<Name, HealthCheck>,
    no_local: NoLocal,
    held: FxHashMap<Slot, Held>,
    /// Who wants an address that is not its cluster address.
    aliases: FxHashMap<IpAddr, FxHashSet<Name>>,
    /// How many elements lead to a chain.
    uses: FxHashMap<(bool, Chain), usize>,
}

/// Who has a place. Several Services may want one: an external address, the hairpin of a pod behind both.
#[derive(Debug)]
struct Held {
    first: Claim,
    others: Vec<Claim>,
}

/// A Service's wish for a place.
#[derive(Clone, Debug)]
struct Claim {
    rank: Rank,
    value: Value,
}

/// Whose turn it is: by way, then the Service that is there longest, then the first by name. It does not depend on
/// whom the proxy heard of first, so all nodes agree, and a new Service never takes an older one's place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    way: Way,
    since: i64,
    name: Name,
}

/// Places that a change touched: who was there, and with what.
#[derive(Default)]
struct Touched {
    was: FxHashMap<Slot, Option<Claim>>,
    /// The whole is sent afterwards: nobody asks what changed.
    ignored: bool,
}

impl Touched {
    fn note(&mut self, slot: Slot, was: impl FnOnce() -> Option<Claim>) {
        if !self.ignored {
            self.was.entry(slot).or_insert_with(was);
        }
    }
}

impl Held {
    fn put(&mut self, claim: Claim) {
        self.others.retain(|other| other.rank.name != claim.rank.name);
        if self.first.rank.name == claim.rank.name {
            self.first = claim;
        } else {
            self.others.push(claim);
        }
        if let Some(best) = self.best().filter(|at| self.others[*at].rank < self.first.rank) {
            std::mem::swap(&mut self.first, &mut self.others[best]);
        }
    }

    /// Takes a Service's wish away; false: nobody is left.
    fn drop(&mut self, name: &Name) -> bool {
        self.others.retain(|other| other.rank.name != *name);
        if self.first.rank.name != *name {
            return true;
        }
        let Some(next) = self.best() else { return false };
        self.first = self.others.swap_remove(next);
        true
    }

    fn best(&self) -> Option<usize> {
        (0..self.others.len()).min_by_key(|at| &self.others[*at].rank)
    }
}

impl Model {
    /// Makes room for about as many Services and places as there are to be in all: what grows by and by is copied again
    /// and again.
    pub fn reserve(&mut self, services: usize, places: usize) {
        self.services.reserve(services.saturating_sub(self.services.len()));
        self.held.reserve(places.saturating_sub(self.held.len()));
    }

    /// Takes what a Service contributes now and says what to change.
    pub fn set(&mut self, name: &Name, rendered: Rendered) -> Change {
        let mut touched = Touched::default();
        touched.was.reserve(rendered.entries.len());
        let udp = self.take(name, rendered, &mut touched);
        let mut change = Change { udp, ..Change::default() };
        self.settle(touched, &mut change.transaction);
        change
    }

    /// Takes what Services contribute now, for the whole to be sent ([`Model::whole`]): many times faster than one by one
    /// with what changes.
    pub fn set_all(&mut self, all: impl IntoIterator<Item = (Name, Rendered)>) {
        let mut touched = Touched { ignored: true, ..Touched::default() };
        for (name, rendered) in all {
            self.take(&name, rendered, &mut touched);
        }
        let mut uses: FxHashMap<(bool, Chain), usize> = FxHashMap::default();
        for (slot, claim) in self.elements() {
            if let Some(chain) = claim.value.chain() {
                *uses.entry((slot.is_v6(), chain.clone())).or_default() += 1;
                if let Some(needed) = chain.needs() {
                    *uses.entry((slot.is_v6(), needed)).or_default() += 1;
                }
            }
        }
        self.uses = uses;
    }

    /// Takes what a Service contributes now; the virtual servers of UDP whose flows are stale.
    fn take(&mut self, name: &Name, rendered: Rendered, touched: &mut Touched) -> Vec<UdpServer> {
        let old = self.services.remove(name).unwrap_or_default();
        if !old.entries.is_empty() {
            let wanted: FxHashSet<Slot> = rendered.entries.iter().map(|entry| entry.slot).collect();
            for entry in old.entries.iter().filter(|entry| !wanted.contains(&entry.slot)) {
                self.release(name, entry.slot, touched);
            }
        }
        self.note_aliases(name, &old, &rendered);
        for entry in &rendered.entries {
            self.place(name, rendered.since, entry, touched);
        }
        for entry in old.entries.iter().chain(&rendered.entries) {
            if let Slot::ClusterIp(addr) = entry.slot {
                self.replace_aliases(addr, touched);
            }
        }
        self.count(name, &old, &rendered);
        let mut udp = stale_udp(&old.udp, &rendered.udp);
        udp.retain(|server| self.answers_at(name, server));
        if !rendered.entries.is_empty() || rendered.health.is_some() {
            self.services.insert(name.clone(), rendered);
        }
        udp.extend(self.udp_of_successors(name, touched));
        udp
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

    /// Keeps what is told of all Services, so that nobody looks at all of them for one change.
    fn count(&mut self, name: &Name, old: &Rendered, new: &Rendered) {
        match new.health {
            Some(check) => drop(self.health.insert(name.clone(), check)),
            None => drop(self.health.remove(name)),
        }
        for family in 0..2 {
            let (sum, was, is) = (&mut self.no_local, &old.no_local, &new.no_local);
            sum.internal[family] = sum.internal[family] + is.internal[family] - was.internal[family];
            sum.external[family] = sum.external[family] + is.external[family] - was.external[family];
        }
    }

    /// Health check ports with the Services that have them.
    pub fn health_checks(&self) -> Vec<(Name, HealthCheck)> {
        self.health.iter().map(|(name, check)| (name.clone(), *check)).collect()
    }

    /// Ports whose policy keeps traffic on this node, where nobody takes it.
    pub fn no_local(&self) -> NoLocal {
        self.no_local
    }

    pub fn ruleset(&self) -> Ruleset {
        self.elements().map(|(slot, first)| (*slot, first.value.clone())).collect()
    }

    /// How many elements each set has, IPv6's and IPv4's apart. Sets that packets fill are not here.
    pub fn counts(&self) -> FxHashMap<(bool, &'static str), usize> {
        let every = [
            sets::SERVICES,
            sets::NODE_PORTS,
            sets::ENDPOINTS,
            sets::HAIRPIN,
            sets::STICKY_ENDPOINTS,
            sets::NO_ENDPOINTS,
            sets::NO_ENDPOINTS_NODE_PORTS,
            sets::CLUSTER_IPS,
            sets::FIREWALL,
        ];
        let mut counts: FxHashMap<_, _> =
            every.iter().flat_map(|set| [((false, *set), 0), ((true, *set), 0)]).collect();
        for (slot, _) in self.elements() {
            *counts.entry((slot.is_v6(), slot.set())).or_default() += 1;
        }
        counts
    }

    /// The transaction that makes the whole from nothing.
    pub fn whole(&self) -> Transaction {
        let mut add = Vec::with_capacity(self.held.len());
        add.extend(self.elements().map(|(slot, first)| (*slot, first.value.clone(), named(slot, &first.rank.name))));
        Transaction { new_chains: needed_first(self.uses.keys().cloned()), add, ..Transaction::default() }
    }

    /// All virtual servers of UDP.
    pub fn udp(&self) -> Vec<UdpServer> {
        let all = self.services.iter().flat_map(|(name, r)| r.udp.iter().map(move |server| (name, server)));
        all.filter(|(name, server)| self.answers_at(name, server)).map(|(_, server)| server.clone()).collect()
    }

    /// What is in the kernel.
    fn elements(&self) -> impl Iterator<Item = (&Slot, &Claim)> {
        self.held.iter().map(|(slot, held)| (slot, &held.first)).filter(|(_, first)| first.value != Value::Vacant)
    }

    /// Whether the virtual server is the Service's own, or nobody's: flows of others are not its business.
    fn answers_at(&self, name: &Name, udp: &UdpServer) -> bool {
        let Some(addr) = udp.addr else { return true };
        let slot = Slot::Service(VirtualServer { addr, protocol: UDP, port: udp.port });
        self.held.get(&slot).is_none_or(|held| held.first.rank.name == *name)
    }

    /// Virtual servers of UDP that another Service has now.
    fn udp_of_successors(&self, name: &Name, touched: &Touched) -> Vec<UdpServer> {
        let mut found = Vec::new();
        for (slot, before) in &touched.was {
            let Slot::Service(VirtualServer { addr, protocol: UDP, port }) = *slot else { continue };
            let before = before.as_ref().map(|claim| &claim.rank.name);
            let owner = self.held.get(slot).map(|held| &held.first.rank.name);
            let Some(owner) = owner.filter(|owner| *owner != name && Some(*owner) != before) else { continue };
            let servers = self.services.get(owner).into_iter().flat_map(|r| &r.udp);
            found.extend(servers.filter(|f| f.addr == Some(addr) && f.port == port).cloned());
        }
        found
    }

    fn note_aliases(&mut self, name: &Name, old: &Rendered, new: &Rendered) {
        for addr in old.entries.iter().filter_map(alias) {
            if let Some(names) = self.aliases.get_mut(&addr) {
                names.remove(name);
                if names.is_empty() {
                    self.aliases.remove(&addr);
                }
            }
        }
        for addr in new.entries.iter().filter_map(alias) {
            self.aliases.entry(addr).or_default().insert(name.clone());
        }
    }

    /// Decides anew about the wishes for an address, which became a cluster address or is none any more.
    fn replace_aliases(&mut self, addr: IpAddr, touched: &mut Touched) {
        for name in self.aliases.get(&addr).cloned().unwrap_or_default() {
            // The Service that is being set is not there: its wishes were looked at.
            let Some(rendered) = self.services.get(&name) else { continue };
            let since = rendered.since;
            let entries: Vec<_> = rendered.entries.iter().filter(|e| alias(e) == Some(addr)).cloned().collect();
            for entry in &entries {
                self.place(&name, since, entry, touched);
            }
        }
    }

    /// Claims a place, unless it is by another way at the cluster address of another Service: that one has all ports.
    fn place(&mut self, name: &Name, since: i64, entry: &Entry, touched: &mut Touched) {
        let owner = alias(entry).and_then(|addr| self.held.get(&Slot::ClusterIp(addr)));
        if owner.is_some_and(|held| held.first.rank.name != *name) {
            return self.release(name, entry.slot, touched);
        }
        let rank = Rank { way: entry.way, since, name: name.clone() };
        let claim = Claim { rank, value: entry.value.clone() };
        match self.held.get_mut(&entry.slot) {
            None => {
                touched.note(entry.slot, || None);
                self.held.insert(entry.slot, Held { first: claim, others: Vec::new() });
            }
            Some(held) => {
                touched.note(entry.slot, || Some(held.first.clone()));
                held.put(claim);
            }
        }
    }

    fn release(&mut self, name: &Name, slot: Slot, touched: &mut Touched) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        if held.first.rank.name == *name {
            touched.note(slot, || Some(held.first.clone()));
        }
        if !held.drop(name) {
            self.held.remove(&slot);
        }
    }

    /// Turns the places that were touched, with what was there, into what to send.
    fn settle(&mut self, touched: Touched, t: &mut Transaction) {
        let mut chains: FxHashMap<(bool, Chain), isize> = FxHashMap::default();
        let in_kernel = |claim: &&Claim| claim.value != Value::Vacant;
        t.add.reserve(touched.was.len());
        for (slot, old) in &touched.was {
            let old = old.as_ref().filter(in_kernel);
            let new = self.held.get(slot).map(|held| &held.first).filter(in_kernel);
            let owner = |claim: &Claim| named(slot, &claim.rank.name);
            if old.map(|c| (&c.value, owner(c))) == new.map(|c| (&c.value, owner(c))) {
                continue;
            }
            for (claim, step) in [(old, -1), (new, 1)] {
                if let Some(chain) = claim.and_then(|claim| claim.value.chain()) {
                    *chains.entry((slot.is_v6(), chain.clone())).or_default() += step;
                    if let Some(needed) = chain.needs() {
                        *chains.entry((slot.is_v6(), needed)).or_default() += step;
                    }
                }
            }
            if old.is_some() {
                t.remove.push(*slot);
            }
            t.add.extend(new.map(|claim| (*slot, claim.value.clone(), owner(claim))));
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

/// The address by which the entry is a way in beside the cluster address.
fn alias(entry: &Entry) -> Option<IpAddr> {
    entry.slot.server().filter(|_| entry.way != Way::Cluster).map(|server| server.addr)
}

fn named(slot: &Slot, owner: &Name) -> Option<Name> {
    slot.is_named().then(|| owner.clone())
}

/// The ways in by UDP that lead elsewhere than before, or nowhere.
fn stale_udp(old: &[UdpServer], new: &[UdpServer]) -> Vec<UdpServer> {
    let gone = old.iter().filter(|o| !new.iter().any(|n| (n.addr, n.port) == (o.addr, o.port)));
    let gone = gone.map(|o| UdpServer { endpoints: Vec::new(), ..o.clone() });
    let changed = new.iter().filter(|n| !old.contains(n)).cloned();
    gone.chain(changed).collect()
}
