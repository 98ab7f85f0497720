//! All names of the cluster, changed a Service at a time. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::corefile::Pods;
use crate::records::{Contribution, Node, SPECIFICATION};
use crate::wire::{Name, kind};

/// Namespace and name of a Service.
pub type Key = client::Key;

/// The name table of one cluster.
#[derive(Debug)]
pub struct Table {
    zone: Name,
    zone_labels: usize,
    ttl: u32,
    /// The number of the zone's version, as SOA has it.
    serial: u32,
    /// Before the first lists are in, nothing can be said not to be there.
    synced: bool,
    nodes: FxHashMap<Name, Node>,
    pointers: FxHashMap<IpAddr, Vec<(Key, Name)>>,
    namespaces: FxHashSet<Arc<str>>,
    pods: Pods,
    verified: Arc<RwLock<PodAddresses>>,
    owned: FxHashMap<Key, Owned>,
}

/// The addresses of pods by namespace, kept while names of pods are to be verified.
#[derive(Debug, Default)]
pub struct PodAddresses {
    /// Before the first list is in, nothing can be said not to be there.
    pub synced: bool,
    by_address: FxHashMap<IpAddr, Vec<Arc<str>>>,
}

impl PodAddresses {
    pub fn add(&mut self, namespace: &str, addr: IpAddr) {
        self.by_address.entry(addr).or_default().push(namespace.into());
    }

    /// Takes one pod's away: another of the namespace may have the address, too, when it goes from one to the next.
    pub fn remove(&mut self, namespace: &str, addr: IpAddr) {
        let Some(all) = self.by_address.get_mut(&addr) else { return };
        if let Some(at) = all.iter().position(|n| &**n == namespace) {
            all.swap_remove(at);
        }
        if all.is_empty() {
            self.by_address.remove(&addr);
        }
    }
}

#[derive(Debug, Default)]
struct Owned {
    names: Vec<Name>,
    addresses: Vec<IpAddr>,
}

impl Table {
    /// An empty cluster. `addresses` are the server's own: its name is `ns.dns` in the zone.
    pub fn new(zone: Name, ttl: u32, addresses: &[IpAddr]) -> Self {
        let zone = zone.to_lowercase();
        let zone_labels = zone.to_string().split('.').filter(|l| !l.is_empty()).count();
        let mut table = Table {
            zone_labels,
            ttl,
            serial: 0,
            synced: false,
            nodes: FxHashMap::default(),
            pointers: FxHashMap::default(),
            namespaces: FxHashSet::default(),
            pods: Pods::Insecure,
            verified: Arc::default(),
            owned: FxHashMap::default(),
            zone,
        };
        table.add_fixed(addresses);
        table
    }

    fn add_fixed(&mut self, addresses: &[IpAddr]) {
        let server = Name::under(&["ns", "dns"], &self.zone);
        let mut apex = Node::default();
        if let Some(server) = &server {
            apex.put(kind::NS, self.ttl, [server.as_bytes().to_vec()]);
        }
        self.nodes.insert(self.zone.clone(), apex);
        if let Some(server) = server {
            let mut node = Node::default();
            let octets = |v6: bool| {
                addresses.iter().filter(move |a| a.is_ipv6() == v6).map(|a| match a {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().to_vec(),
                })
            };
            node.put(kind::A, self.ttl, octets(false));
            node.put(kind::AAAA, self.ttl, octets(true));
            self.nodes.insert(server, node);
        }
        let mut version = Node::default();
        let mut text = vec![SPECIFICATION.len() as u8];
        text.extend_from_slice(SPECIFICATION.as_bytes());
        version.put(kind::TXT, self.ttl, [text]);
        for (labels, node) in [(&["dns-version"], version), (&["svc"], Node::default()), (&["pod"], Node::default())] {
            if let Some(name) = Name::under(labels, &self.zone) {
                self.nodes.insert(name, node);
            }
        }
    }

    /// Takes what a Service has now; `serial` is the version that the zone has with it.
    pub fn set(&mut self, key: &Key, contribution: Contribution, serial: u32) {
        self.serial = serial;
        if let Some(old) = self.owned.remove(key) {
            for name in &old.names {
                self.nodes.remove(name);
            }
            for addr in &old.addresses {
                if let Some(names) = self.pointers.get_mut(addr) {
                    names.retain(|(owner, _)| owner != key);
                    if names.is_empty() {
                        self.pointers.remove(addr);
                    }
                }
            }
        }
        let mut owned = Owned::default();
        for (name, node) in contribution.names {
            let name = name.to_lowercase();
            owned.names.push(name.clone());
            self.nodes.insert(name, node);
        }
        for (addr, name) in contribution.pointers {
            owned.addresses.push(addr);
            self.pointers.entry(addr).or_default().push((key.clone(), name));
        }
        if !owned.names.is_empty() {
            self.owned.insert(key.clone(), owned);
        }
    }

    /// Namespaces have names with nothing behind them, and pods that are named by their address.
    pub fn set_namespace(&mut self, namespace: &str, there: bool) {
        if there {
            self.namespaces.insert(namespace.into());
        } else {
            self.namespaces.remove(namespace);
        }
    }

    /// What becomes of pods that are named by their address.
    pub fn set_pods(&mut self, pods: Pods, verified: Arc<RwLock<PodAddresses>>) {
        (self.pods, self.verified) = (pods, verified);
    }

    /// Whether a namespace has a pod of this address, as far as that is looked at; none when it is not known yet.
    pub fn has_pod(&self, addr: IpAddr, namespace: &[u8]) -> Option<bool> {
        let there = self.has_namespace(namespace);
        match self.pods {
            Pods::Disabled => Some(false),
            Pods::Insecure => Some(there),
            Pods::Verified => {
                let verified = self.verified.read();
                let of = verified.by_address.get(&addr);
                verified.synced.then(|| there && of.is_some_and(|all| all.iter().any(|n| n.as_bytes() == namespace)))
            }
        }
    }

    pub fn set_synced(&mut self) {
        self.synced = true;
    }

    pub fn is_synced(&self) -> bool {
        self.synced
    }

    pub fn zone(&self) -> &Name {
        &self.zone
    }

    pub fn zone_labels(&self) -> usize {
        self.zone_labels
    }

    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// By the name as it is on the wire, in small letters.
    pub fn get(&self, name: &[u8]) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The names that an address stands for.
    pub fn names_of(&self, addr: IpAddr) -> impl Iterator<Item = &Name> {
        self.pointers.get(&addr).into_iter().flatten().map(|(_, name)| name)
    }

    pub fn has_namespace(&self, namespace: &[u8]) -> bool {
        std::str::from_utf8(namespace).is_ok_and(|n| self.namespaces.contains(n))
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }
}

impl std::borrow::Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}
