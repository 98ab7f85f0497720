//! Who owns whom. Nodes are objects by uid, as metadata watches tell of them; an owner that is referred to but not
//! seen yet is a node without identity until it is seen, or known to be gone. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::ApiResource;

use super::gone::{Coordinates, Gone};

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// What should be looked at because of a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wake {
    /// May have to be deleted, or lose owners that are gone.
    Item(String),
    /// Its dependents are to be set free.
    Orphans(String),
}

impl Wake {
    /// As an item of the work queue.
    pub fn key(&self) -> Key {
        match self {
            Wake::Item(uid) => Key::new("item", uid),
            Wake::Orphans(uid) => Key::new("orphans", uid),
        }
    }

    pub fn of(key: &Key) -> Option<Wake> {
        match key.namespace.as_str() {
            "item" => Some(Wake::Item(key.name.clone())),
            "orphans" => Some(Wake::Orphans(key.name.clone())),
            _ => None,
        }
    }
}

/// An object as its metadata says.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub resource: Arc<ApiResource>,
    pub namespace: String,
    pub name: String,
    pub version: String,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

impl Item {
    pub fn of(resource: &Arc<ApiResource>, meta: &ObjectMeta) -> Item {
        Item {
            resource: resource.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    /// As a reference to it would say.
    fn coordinates(&self, uid: &str) -> Coordinates {
        Coordinates {
            api_version: self.resource.api_version.clone(),
            kind: self.resource.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: uid.to_owned(),
        }
    }

    /// Going, once its dependents are gone.
    pub fn waits_for_dependents(&self) -> bool {
        self.deleting && has(Some(&self.finalizers), FOREGROUND)
    }

    pub fn orphans_dependents(&self) -> bool {
        self.deleting && has(Some(&self.finalizers), ORPHAN)
    }
}

pub fn has(finalizers: Option<&[String]>, name: &str) -> bool {
    finalizers.is_some_and(|f| f.iter().any(|f| f == name))
}

#[derive(Debug, Default)]
pub struct Node {
    /// `None`: referred to, not seen.
    pub item: Option<Item>,
    pub dependents: HashSet<String>,
}

/// All objects that own or are owned, and all others too: any may become an owner.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    gone: Gone,
}

impl Graph {
    pub fn item(&self, uid: &str) -> Option<&Item> {
        self.nodes.get(uid)?.item.as_ref()
    }

    pub fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = (&'a String, &'a Item)> {
        let uids = self.nodes.get(uid).map(|n| &n.dependents).into_iter().flatten();
        uids.filter_map(|uid| Some((uid, self.item(uid)?)))
    }

    pub fn is_gone(&self, owner: &OwnerReference, namespace: &str) -> bool {
        self.gone.has(owner, namespace)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// An object was seen, for the first time or changed.
    pub fn seen(&mut self, uid: &str, item: Item) -> Vec<Wake> {
        let mut wake = Vec::new();
        let before = self.nodes.entry(uid.to_owned()).or_default().item.take();
        self.gone.forget(&item.coordinates(uid));
        self.link(uid, before.as_ref().map_or(&[][..], |i| &i.owners), &item, &mut wake);
        let was = |test: fn(&Item) -> bool| before.as_ref().is_some_and(test);
        if item.orphans_dependents() && !was(Item::orphans_dependents) {
            wake.push(Wake::Orphans(uid.to_owned()));
        }
        if item.waits_for_dependents() && !was(Item::waits_for_dependents) {
            wake.extend(self.nodes[uid].dependents.iter().cloned().map(Wake::Item));
            wake.push(Wake::Item(uid.to_owned()));
        }
        if item.owners.iter().any(|o| self.is_gone(o, &item.namespace)) {
            wake.push(Wake::Item(uid.to_owned()));
        }
        // A dependent that came to wait or to go may be what its owners, or a cycle of them, wait for.
        if item.deleting && !was(|i| i.deleting) {
            wake.extend(self.waiting_owners(&item));
        }
        self.nodes.get_mut(uid).expect("entered above").item = Some(item);
        wake
    }

    /// An object is gone.
    pub fn deleted(&mut self, uid: &str) -> Vec<Wake> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut wake: Vec<Wake> = node.dependents.iter().cloned().map(Wake::Item).collect();
        if let Some(item) = node.item {
            wake.extend(self.waiting_owners(&item));
            for owner in &item.owners {
                self.unlink(uid, &owner.uid);
            }
            // Dependents still refer to it: their next change must find it gone without asking.
            if !node.dependents.is_empty() {
                self.gone.remember(item.coordinates(uid));
            }
        }
        wake
    }

    /// A list leaves an object out that was seen before: it may be gone, or be one that the server can't read. Whoever
    /// depends on it asks, as for an owner that was never seen.
    pub fn missing(&mut self, uid: &str) -> Vec<Wake> {
        let Some(node) = self.nodes.get_mut(uid) else { return Vec::new() };
        let mut wake: Vec<Wake> = node.dependents.iter().cloned().map(Wake::Item).collect();
        let (item, alone) = (node.item.take(), node.dependents.is_empty());
        if let Some(item) = item {
            wake.extend(self.waiting_owners(&item));
            for owner in &item.owners {
                self.unlink(uid, &owner.uid);
            }
        }
        if alone {
            self.nodes.remove(uid);
        }
        wake
    }

    /// The server says that there is no such owner. Whoever else refers to it so was woken when it was linked.
    pub fn owner_is_gone(&mut self, owner: Coordinates) {
        self.gone.remember(owner);
    }

    fn waiting_owners(&self, item: &Item) -> Vec<Wake> {
        let waits = |o: &&OwnerReference| self.item(&o.uid).is_some_and(Item::waits_for_dependents);
        item.owners.iter().filter(waits).map(|o| Wake::Item(o.uid.clone())).collect()
    }

    fn link(&mut self, uid: &str, before: &[OwnerReference], item: &Item, wake: &mut Vec<Wake>) {
        let (now, mut asks) = (&item.owners[..], false);
        for owner in now.iter().filter(|o| before.iter().all(|b| !same(o, b))) {
            let node = self.nodes.entry(owner.uid.clone()).or_default();
            node.dependents.insert(uid.to_owned());
            // An owner that was not seen, or not so: each dependent asks whether what it refers to is there, for
            // another one may never come to ask, or ask for something else.
            asks |= node.item.as_ref().is_none_or(|o| !owns(owner, o, &item.namespace) || o.waits_for_dependents());
        }
        wake.extend(asks.then(|| Wake::Item(uid.to_owned())));
        for owner in before.iter().filter(|b| now.iter().all(|o| b.uid != o.uid)) {
            self.unlink(uid, &owner.uid);
            if self.item(&owner.uid).is_some_and(Item::waits_for_dependents) {
                wake.push(Wake::Item(owner.uid.clone()));
            }
        }
        // An owner that waited for this dependent need not any more when it stops blocking.
        for (owner, old) in now.iter().filter_map(|o| Some((o, before.iter().find(|b| b.uid == o.uid)?))) {
            if old.block_owner_deletion == Some(true) && owner.block_owner_deletion != Some(true) {
                wake.push(Wake::Item(owner.uid.clone()));
            }
        }
    }

    fn unlink(&mut self, uid: &str, owner: &str) {
        let Some(node) = self.nodes.get_mut(owner) else { return };
        node.dependents.remove(uid);
        if node.item.is_none() && node.dependents.is_empty() {
            self.nodes.remove(owner);
        }
    }
}

/// The reference, by an object in `namespace`, says of the owner what is so. One by uid alone is none.
pub fn owns(owner: &OwnerReference, item: &Item, namespace: &str) -> bool {
    owner.kind == item.resource.kind
        && owner.name == item.name
        && owner.api_version == item.resource.api_version
        && (item.namespace.is_empty() || item.namespace == namespace)
}

fn same(a: &OwnerReference, b: &OwnerReference) -> bool {
    a.uid == b.uid && a.kind == b.kind && a.name == b.name && a.api_version == b.api_version
}
