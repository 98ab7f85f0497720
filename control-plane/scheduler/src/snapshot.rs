//! The nodes and what runs on them, as one decision sees them: kept up to date by single changes, never rebuilt.
//! Pods that were decided on and are not bound yet are in it (upstream's "assumed"). Called by the daemon; read by every
//! plugin.
//!
//! A node has a slot, and slots are what everything else names nodes by:
//!
//! ```text
//!   slot      0            1             2             3
//!   nodes     a  exists    b  gone       (free)        d  exists
//!             web-0,web-1  db-0
//!   by_name   a→0  b→1  d→3        placed        web-0→0  web-1→0  db-0→1      vacant   [2]
//!                                  by_namespace  shop→{0: 2, 1: 1}
//! ```
//!
//! - Informers of nodes and pods don't wait for each other: pods of a node that is not known yet, or is gone already
//!   (`b`), are counted in a slot that does not exist; decisions walk past it.
//! - A slot is free when its node is gone, its last pod has left and nobody is nominated to it: `c` was in 2. The next
//!   node takes it, so a cluster that grows and shrinks for ever needs no more slots than it had nodes at once.
//! - A clone shares every node and every index with the original and costs 8 bytes a node; whoever changes something
//!   copies that one node. So a decision "as if" is a decision on a clone:
//!
//! ```text
//!   let mut what_if = snapshot.clone();
//!   what_if.set_node(&one_more);            // would another node of this shape help?
//!   what_if.displace(&idle_pod.uid);        // could these pods run elsewhere if theirs went?
//!   schedule(&waiting, &what_if, 0, seed)   // the snapshot that the daemon keeps has seen nothing of it
//! ```

use std::sync::Arc;

use facts::labels::Labels;
use facts::ports::HostPort;
use facts::resources::Resources;
use k8s_openapi::api::core::v1::{Node, Taint};
use rustc_hash::FxHashMap;

use crate::groups::Groups;
use crate::pod::PodInfo;
use crate::shared::Shared;

/// A node and the pods on it.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    pub name: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    /// Exact requests of the pods here.
    pub requested: Resources,
    /// Requests with stand-ins, for scoring.
    pub scored: Resources,
    pub ports: Vec<HostPort>,
    /// Image name to size in bytes. Names are shared with the nodes that have the same.
    pub images: FxHashMap<Arc<str>, i64>,
    pub pods: Vec<Arc<PodInfo>>,
    /// False while pods are known on a node that isn't.
    pub exists: bool,
}

impl NodeInfo {
    fn set(&mut self, node: &Node, images: FxHashMap<Arc<str>, i64>) {
        let spec = node.spec.as_ref();
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.taints = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
        self.unschedulable = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        self.allocatable = Resources::of(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        self.images = images;
        self.exists = true;
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored.add(&pod.scored);
        self.ports.extend(pod.host_ports.iter().cloned());
        self.pods.push(pod);
    }

    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|p| p.uid == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.scored.subtract(&pod.scored);
        for port in &pod.host_ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
        Some(pod)
    }
}

/// All nodes, in a fixed order that decisions walk round. See the module's head.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    nodes: Vec<Arc<NodeInfo>>,
    /// How many of them exist.
    existing: usize,
    /// Slots for the next nodes.
    vacant: Vec<usize>,
    by_name: Shared<String, usize>,
    /// Where each pod is.
    placed: Shared<String, usize>,
    /// How many pods each namespace has on each node: a pod's group is looked for only there.
    by_namespace: Shared<String, Shared<usize, usize>>,
    /// Pods that have required anti-affinity or any affinity: only they make other pods look at pods.
    with_anti_affinity: Shared<String, ()>,
    with_affinity: Shared<String, ()>,
    /// Labels of namespaces, for affinity terms that select by them.
    pub namespaces: Shared<String, Labels>,
    /// Selectors of Services and controllers.
    pub groups: Groups,
    /// Pods that wait for room made for them, and the node where it is made.
    nominated: Shared<String, (Arc<PodInfo>, usize)>,
    /// How many nodes hold each image: an image everywhere says little about one node.
    image_nodes: Shared<Arc<str>, i64>,
}

impl Snapshot {
    /// Nodes that exist.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().map(|node| &**node).filter(|node| node.exists)
    }

    /// Every slot, also of nodes that are gone and free ones; decisions skip those.
    pub fn slots(&self) -> &[Arc<NodeInfo>] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.index(name).map(|slot| &*self.nodes[slot])
    }

    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied().filter(|slot| self.nodes[*slot].exists)
    }

    /// How many nodes exist.
    pub fn len(&self) -> usize {
        self.existing
    }

    pub fn is_empty(&self) -> bool {
        self.existing == 0
    }

    fn change(&mut self, slot: usize) -> &mut NodeInfo {
        Arc::make_mut(&mut self.nodes[slot])
    }

    /// The slot of the name: its own, a free one, or one more.
    fn slot(&mut self, name: &str) -> usize {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let node = Arc::new(NodeInfo { name: name.to_owned(), ..NodeInfo::default() });
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.nodes[slot] = node;
                slot
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.by_name.insert(name.to_owned(), slot);
        slot
    }

    /// Frees the slot when nothing needs it any more.
    fn vacate(&mut self, slot: usize) {
        let node = &self.nodes[slot];
        let needed = node.exists || !node.pods.is_empty() || self.nominated.values().any(|(_, at)| *at == slot);
        if !needed && self.by_name.get(&node.name) == Some(&slot) {
            self.by_name.remove(&node.name);
            self.vacant.push(slot);
        }
    }

    pub fn set_node(&mut self, node: &Node) {
        let slot = self.slot(node.metadata.name.as_deref().unwrap_or_default());
        self.forget_images(slot);
        self.existing += usize::from(!self.nodes[slot].exists);
        let images = self.images_of(node);
        self.change(slot).set(node, images);
        for name in self.nodes[slot].images.keys() {
            match self.image_nodes.get_mut(name) {
                Some(nodes) => *nodes += 1,
                None => drop(self.image_nodes.insert(name.clone(), 1)),
            }
        }
    }

    fn images_of(&self, node: &Node) -> FxHashMap<Arc<str>, i64> {
        let mut sizes = FxHashMap::default();
        for image in node.status.iter().flat_map(|status| status.images.iter().flatten()) {
            for name in image.names.iter().flatten() {
                let known = self.image_nodes.get_key_value(name.as_str()).map(|(name, _)| name.clone());
                sizes.insert(known.unwrap_or_else(|| name.as_str().into()), image.size_bytes.unwrap_or(0));
            }
        }
        sizes
    }

    fn forget_images(&mut self, slot: usize) {
        for name in self.nodes[slot].images.keys() {
            match self.image_nodes.get_mut(name) {
                Some(nodes) if *nodes > 1 => *nodes -= 1,
                _ => drop(self.image_nodes.remove(name)),
            }
        }
    }

    pub fn image_nodes(&self, image: &str) -> i64 {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// The node is gone; its pods stay counted there until they go too.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.index(name) else { return };
        self.forget_images(slot);
        self.existing -= 1;
        let node = self.change(slot);
        node.images.clear();
        node.exists = false;
        self.vacate(slot);
    }

    /// Puts a pod on a node, or moves or renews it.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.displace(&pod.uid);
        self.withdraw(&pod.uid);
        let slot = self.slot(node);
        self.placed.insert(pod.uid.clone(), slot);
        *self.by_namespace.entry(pod.namespace.clone()).or_default().entry(slot).or_default() += 1;
        if !pod.anti_affinity.is_empty() {
            self.with_anti_affinity.insert(pod.uid.clone(), ());
        }
        if pod.has_pod_affinity() {
            self.with_affinity.insert(pod.uid.clone(), ());
        }
        self.change(slot).add(pod);
    }

    pub fn displace(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let slot = self.placed.remove(uid)?;
        self.with_anti_affinity.remove(uid);
        self.with_affinity.remove(uid);
        let pod = self.change(slot).remove(uid)?;
        self.leave(&pod.namespace, slot);
        self.vacate(slot);
        Some(pod)
    }

    fn leave(&mut self, namespace: &str, slot: usize) {
        let Some(nodes) = self.by_namespace.get_mut(namespace) else { return };
        if let Some(pods) = nodes.get_mut(&slot) {
            *pods -= 1;
            if *pods == 0 {
                nodes.remove(&slot);
            }
        }
        if nodes.is_empty() {
            self.by_namespace.remove(namespace);
        }
    }

    /// Nodes that have pods of this namespace.
    pub fn nodes_with(&self, namespace: &str) -> impl Iterator<Item = &NodeInfo> {
        let slots = self.by_namespace.get(namespace).into_iter().flat_map(|nodes| nodes.keys());
        slots.map(|slot| &*self.nodes[*slot]).filter(|node| node.exists)
    }

    /// Keeps the room on a node for a pod, against pods of lower priority, until it is placed or gone.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        let slot = self.slot(node);
        let before = self.nominated.insert(pod.uid.clone(), (pod, slot));
        if let Some((_, left)) = before.filter(|(_, left)| *left != slot) {
            self.vacate(left);
        }
    }

    pub fn withdraw(&mut self, uid: &str) {
        if let Some((_, left)) = self.nominated.remove(uid) {
            self.vacate(left);
        }
    }

    /// The node that a pod is nominated to.
    pub fn nomination(&self, uid: &str) -> Option<&NodeInfo> {
        self.nominated.get(uid).map(|(_, slot)| &*self.nodes[*slot]).filter(|node| node.exists)
    }

    /// The node as it will be for `pod` when those with a better claim have come: `None` where nobody has.
    pub fn with_nominated(&self, slot: usize, pod: &PodInfo) -> Option<NodeInfo> {
        let claims = self.nominated.values().filter(|(other, at)| *at == slot && other.outranks(pod));
        claims.fold(None, |node, (other, _)| {
            let mut node = node.unwrap_or_else(|| NodeInfo::clone(&self.nodes[slot]));
            node.add(other.clone());
            Some(node)
        })
    }

    /// Where a pod is.
    pub fn place_of(&self, uid: &str) -> Option<&str> {
        self.placed.get(uid).map(|i| self.nodes[*i].name.as_str())
    }

    pub fn any_anti_affinity(&self) -> bool {
        !self.with_anti_affinity.is_empty()
    }

    pub fn any_affinity(&self) -> bool {
        !self.with_affinity.is_empty() || self.any_anti_affinity()
    }

    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }
}

/// Size of an image by any of the names it has; tags are matched as upstream normalises them.
pub fn image_size(node: &NodeInfo, image: &str) -> Option<i64> {
    node.images.get(image).or_else(|| node.images.get(format!("{image}:latest").as_str())).copied()
}
