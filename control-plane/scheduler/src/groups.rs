//! Which pods belong together when a pod doesn't say so itself: the Services that select it and the controller that
//! made it. PodTopologySpread spreads such groups by default. Kept by the daemon inside the snapshot.

use facts::labels::{self, Labels, Selector};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{ReplicationController, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::pod::PodInfo;
use crate::shared::Shared;

/// An object that selects pods, as far as grouping needs it.
pub trait Grouping {
    const KIND: &'static str;

    fn selector(&self) -> Selector;
}

impl Grouping for Service {
    const KIND: &'static str = "Service";

    /// Without a selector a Service has no pods of its own, whatever an empty selector means elsewhere.
    fn selector(&self) -> Selector {
        by_labels(self.spec.as_ref().and_then(|s| s.selector.as_ref()))
    }
}

impl Grouping for ReplicationController {
    const KIND: &'static str = "ReplicationController";

    fn selector(&self) -> Selector {
        by_labels(self.spec.as_ref().and_then(|s| s.selector.as_ref()))
    }
}

impl Grouping for ReplicaSet {
    const KIND: &'static str = "ReplicaSet";

    fn selector(&self) -> Selector {
        labels::selector(&self.spec.selector)
    }
}

impl Grouping for StatefulSet {
    const KIND: &'static str = "StatefulSet";

    fn selector(&self) -> Selector {
        labels::selector(&self.spec.selector)
    }
}

fn by_labels(labels: Option<&Labels>) -> Selector {
    labels.filter(|l| !l.is_empty()).map_or_else(Selector::nothing, labels::equal_to)
}

/// Selectors by namespace, then by kind and name.
#[derive(Debug, Clone, Default)]
pub struct Groups(Shared<String, Shared<(&'static str, String), Selector>>);

impl Groups {
    pub fn set<G: Grouping>(&mut self, meta: &ObjectMeta, object: &G) {
        let (namespace, name) = key(meta);
        self.0.entry(namespace).or_default().insert((G::KIND, name), object.selector());
    }

    pub fn remove<G: Grouping>(&mut self, meta: &ObjectMeta) {
        let (namespace, name) = key(meta);
        let Some(of_namespace) = self.0.get_mut(&namespace) else { return };
        of_namespace.remove(&(G::KIND, name));
        if of_namespace.is_empty() {
            self.0.remove(&namespace);
        }
    }

    /// What all of the pod's group have in common, or `None` where it is in no group.
    pub fn of(&self, pod: &PodInfo) -> Option<Selector> {
        let groups = self.0.get(&pod.namespace)?;
        let services = groups.iter().filter(|((kind, _), _)| *kind == Service::KIND).map(|(_, selector)| selector);
        let services = services.filter(|selector| selector.matches(&pod.labels));
        let owner = pod.controller.as_ref().and_then(|(of, called)| {
            let mut made = groups.iter().filter(|((kind, name), _)| *kind == *of && name == called);
            made.next().map(|(_, selector)| selector)
        });
        // Everything and nothing are no group.
        let group = services.chain(owner).cloned().reduce(Selector::and);
        group.filter(|selector| !selector.is_everything() && !selector.is_nothing())
    }
}

fn key(meta: &ObjectMeta) -> (String, String) {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}
