//! The nodes and what runs on them, as one decision sees them: kept up to date by single changes, never rebuilt.
//! Assumed pods (decided, not yet bound) are in it. Called by the daemon; read by every plugin.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::groups::Groups;
use crate::labels::Labels;
use crate::pod::{HostPort, PodInfo};
use crate::resources::Resources;

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
    /// Image name to size in bytes.
    pub images: FxHashMap<String, i64>,
    pub pods: Vec<Arc<PodInfo>>,
    /// False while pods are known on a node that isn't.
    pub exists: bool,
}

impl NodeInfo {
    fn set(&mut self, node: &Node) {
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.taints = spec.taints.unwrap_or_default();
        self.unschedulable = spec.unschedulable.unwrap_or(false);
        self.allocatable = Resources::of(status.allocatable.as_ref());
        self.images = FxHashMap::default();
        for image in status.images.into_iter().flatten() {
            for name in image.names.into_iter().flatten() {
                self.images.insert(name, image.size_bytes.unwrap_or(0));
            }
        }
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

/// All nodes, in a fixed order that decisions walk round.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    by_name: FxHashMap<String, usize>,
    /// Where each pod is.
    placed: FxHashMap<String, usize>,
    /// How many pods each namespace has on each node: a pod's group is looked for only there.
    by_namespace: FxHashMap<String, FxHashMap<usize, usize>>,
    /// Pods that have required anti-affinity or any affinity: only they make other pods look at pods.
    with_anti_affinity: FxHashSet<String>,
    with_affinity: FxHashSet<String>,
    /// Labels of namespaces, for affinity terms that select by them.
    pub namespaces: FxHashMap<String, Labels>,
    /// Selectors of Services and controllers.
    pub groups: Groups,
    /// Pods that wait for room made for them, and the node where it is made.
    nominated: FxHashMap<String, (Arc<PodInfo>, usize)>,
    /// How many nodes hold each image: an image everywhere says little about one node.
    image_nodes: FxHashMap<String, i64>,
}

impl Snapshot {
    /// Nodes that exist.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().filter(|n| n.exists)
    }

    /// Every slot, also of nodes that are gone; decisions skip those.
    pub fn slots(&self) -> &[NodeInfo] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|i| &self.nodes[*i]).filter(|n| n.exists)
    }

    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied().filter(|i| self.nodes[*i].exists)
    }

    pub fn len(&self) -> usize {
        self.nodes().count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn slot(&mut self, name: &str) -> usize {
        if let Some(i) = self.by_name.get(name) {
            return *i;
        }
        self.nodes.push(NodeInfo { name: name.to_owned(), ..NodeInfo::default() });
        self.by_name.insert(name.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    pub fn set_node(&mut self, node: &Node) {
        let slot = self.slot(node.metadata.name.as_deref().unwrap_or_default());
        let old = std::mem::take(&mut self.nodes[slot].images);
        self.count_images(&old, -1);
        self.nodes[slot].set(node);
        let new = self.nodes[slot].images.clone();
        self.count_images(&new, 1);
    }

    fn count_images(&mut self, images: &FxHashMap<String, i64>, by: i64) {
        for name in images.keys() {
            *self.image_nodes.entry(name.clone()).or_default() += by;
        }
        self.image_nodes.retain(|_, n| *n > 0);
    }

    pub fn image_nodes(&self, image: &str) -> i64 {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    /// The node is gone; its pods stay counted there until they go too.
    pub fn remove_node(&mut self, name: &str) {
        let Some(&slot) = self.by_name.get(name) else { return };
        let images = std::mem::take(&mut self.nodes[slot].images);
        self.count_images(&images, -1);
        self.nodes[slot].exists = false;
    }

    /// Puts a pod on a node, or moves or renews it.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.displace(&pod.uid);
        self.nominated.remove(&pod.uid);
        let slot = self.slot(node);
        self.placed.insert(pod.uid.clone(), slot);
        *self.by_namespace.entry(pod.namespace.clone()).or_default().entry(slot).or_default() += 1;
        if !pod.anti_affinity.is_empty() {
            self.with_anti_affinity.insert(pod.uid.clone());
        }
        if pod.has_pod_affinity() {
            self.with_affinity.insert(pod.uid.clone());
        }
        self.nodes[slot].add(pod);
    }

    pub fn displace(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let slot = self.placed.remove(uid)?;
        self.with_anti_affinity.remove(uid);
        self.with_affinity.remove(uid);
        let pod = self.nodes[slot].remove(uid)?;
        self.leave(&pod.namespace, slot);
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
        slots.map(|slot| &self.nodes[*slot]).filter(|node| node.exists)
    }

    /// Keeps the room on a node for a pod, against pods of lower priority, until it is placed or gone.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        let slot = self.slot(node);
        self.nominated.insert(pod.uid.clone(), (pod, slot));
    }

    pub fn withdraw(&mut self, uid: &str) {
        self.nominated.remove(uid);
    }

    /// The node that a pod is nominated to.
    pub fn nomination(&self, uid: &str) -> Option<&NodeInfo> {
        self.nominated.get(uid).map(|(_, slot)| &self.nodes[*slot]).filter(|node| node.exists)
    }

    /// The node as it will be for `pod` when those with a better claim have come: `None` where nobody has.
    pub fn with_nominated(&self, slot: usize, pod: &PodInfo) -> Option<NodeInfo> {
        let claims = self.nominated.values().filter(|(other, at)| *at == slot && other.outranks(pod));
        claims.fold(None, |node, (other, _)| {
            let mut node = node.unwrap_or_else(|| self.nodes[slot].clone());
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

    pub fn node_mut(&mut self, slot: usize) -> &mut NodeInfo {
        &mut self.nodes[slot]
    }

    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }
}

/// Size of an image by any of the names it has; tags are matched as upstream normalises them.
pub fn image_size(node: &NodeInfo, image: &str) -> Option<i64> {
    node.images.get(image).or_else(|| node.images.get(&format!("{image}:latest"))).copied()
}
