//! What a pod asks of the scheduler, worked out once from it and kept in its place: requests, ports, tolerations,
//! affinity and spreading terms in compiled form, and the little that is said of it later. The pod itself is the
//! informer's: there are many, and each takes more than ten times this. Built by the daemon's handlers, read by every
//! plugin.

use std::ops::Deref;
use std::sync::Arc;

use facts::labels::{self, Labels, Selector};
use facts::node_selector::{Required, Term};
use facts::owners::controller_of;
use facts::ports::{HostPort, host_ports};
use facts::resources::{CPU, MEMORY, Resources, container_requests, pod_requests};
use k8s_openapi::api::core::v1::{
    Container, Pod, PodAffinityTerm, PodSpec, PodStatus, Toleration, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// One pod (anti-)affinity term.
#[derive(Debug, Clone, PartialEq)]
pub struct AffinityTerm {
    pub namespaces: Vec<String>,
    /// Selects namespaces by their labels, besides those named.
    pub namespace_selector: Selector,
    pub all_namespaces: bool,
    pub selector: Selector,
    pub topology_key: String,
    /// 0 for a required term.
    pub weight: i64,
}

/// One topology spread constraint.
#[derive(Debug, Clone, PartialEq)]
pub struct SpreadTerm {
    pub max_skew: i64,
    pub topology_key: String,
    pub hard: bool,
    pub selector: Selector,
    pub min_domains: i64,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

/// A pod and what it asks for.
#[derive(Debug, Clone)]
pub struct PodInfo {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The state that all of this is from.
    pub resource_version: Option<String>,
    node: Option<String>,
    nominated: Option<String>,
    pub is_terminating: bool,
    /// Why it found no node, as its status says.
    pub refused: Option<String>,
    /// Shared with those that ask for the same: see [`crate::templates`].
    pub asks: Arc<Asks>,
}

/// What pods of one template have in common: all that decides where they may go.
#[derive(Debug, Clone, PartialEq)]
pub struct Asks {
    /// `spec.schedulerName`.
    pub scheduler: Option<String>,
    /// It has scheduling gates.
    pub gated: bool,
    /// `preemptionPolicy: Never`.
    pub never_preempts: bool,
    /// Kind and name of the controller that made it.
    pub controller: Option<(String, String)>,
    pub labels: Labels,
    pub priority: i32,
    /// Requests as the node must hold them, `pods` being 1.
    pub requests: Resources,
    /// Requests with stand-ins for containers that ask for nothing: what scoring counts.
    pub scored: Resources,
    pub host_ports: Vec<HostPort>,
    pub tolerations: Vec<Toleration>,
    /// The nodes that it may be on.
    pub required_nodes: Required,
    pub preferred_nodes: Vec<(i64, Term)>,
    pub affinity: Vec<AffinityTerm>,
    pub anti_affinity: Vec<AffinityTerm>,
    pub preferred_affinity: Vec<AffinityTerm>,
    pub preferred_anti_affinity: Vec<AffinityTerm>,
    pub spread: Vec<SpreadTerm>,
    pub images: Vec<String>,
}

impl Deref for PodInfo {
    type Target = Asks;

    fn deref(&self) -> &Asks {
        &self.asks
    }
}

impl PodInfo {
    pub fn new(pod: &Pod) -> PodInfo {
        let meta = &pod.metadata;
        let (none, status) = (PodSpec::default(), pod.status.as_ref());
        let spec = pod.spec.as_ref().unwrap_or(&none);
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        let said = |s: Option<&String>| s.filter(|said| !said.is_empty()).cloned();
        PodInfo {
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
            resource_version: meta.resource_version.clone(),
            node: said(spec.node_name.as_ref()),
            nominated: said(status.and_then(|status| status.nominated_node_name.as_ref())),
            is_terminating: meta.deletion_timestamp.is_some(),
            refused: status.and_then(refused),
            asks: Arc::new(Asks::of(meta, spec)),
        }
    }

    /// The node that the pod is bound to.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// Whether room kept for this pod is not to be taken by `other`.
    pub fn outranks(&self, other: &PodInfo) -> bool {
        self.uid != other.uid && self.priority >= other.priority
    }

    /// The node that its status says room is made on.
    pub fn nominated_node(&self) -> Option<&str> {
        self.nominated.as_deref()
    }
}

impl Asks {
    fn of(meta: &ObjectMeta, spec: &PodSpec) -> Asks {
        let affinity = spec.affinity.clone().unwrap_or_default();
        let nodes = affinity.node_affinity.unwrap_or_default();
        let with = affinity.pod_affinity.unwrap_or_default();
        let against = affinity.pod_anti_affinity.unwrap_or_default();
        let labels: Labels = meta.labels.clone().unwrap_or_default();
        let namespace = meta.namespace.clone().unwrap_or_default();
        let required = |terms: &Option<Vec<PodAffinityTerm>>| -> Vec<AffinityTerm> {
            terms.iter().flatten().map(|t| affinity_term(t, &namespace, &labels, 0)).collect()
        };
        let preferred = |terms: &Option<Vec<WeightedPodAffinityTerm>>| -> Vec<AffinityTerm> {
            let terms = terms.iter().flatten();
            terms.map(|t| affinity_term(&t.pod_affinity_term, &namespace, &labels, t.weight.into())).collect()
        };
        Asks {
            scheduler: spec.scheduler_name.clone(),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            controller: controller_of(meta).map(|owner| (owner.kind.clone(), owner.name.clone())),
            priority: spec.priority.unwrap_or(0),
            requests: Resources { pods: 1, ..pod_requests(spec, container_requests) },
            scored: pod_requests(spec, scored),
            host_ports: host_ports(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            required_nodes: Required::of(spec),
            preferred_nodes: nodes
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .filter_map(|t| Some((i64::from(t.weight), Term::of(&t.preference)?)))
                .collect(),
            affinity: required(&with.required_during_scheduling_ignored_during_execution),
            anti_affinity: required(&against.required_during_scheduling_ignored_during_execution),
            preferred_affinity: preferred(&with.preferred_during_scheduling_ignored_during_execution),
            preferred_anti_affinity: preferred(&against.preferred_during_scheduling_ignored_during_execution),
            spread: spread(spec, &labels),
            images: spec.containers.iter().filter_map(|c| c.image.clone()).collect(),
            labels,
        }
    }

    pub fn has_pod_affinity(&self) -> bool {
        !self.affinity.is_empty() || !self.preferred_affinity.is_empty() || !self.preferred_anti_affinity.is_empty()
    }
}

impl AffinityTerm {
    /// Whether a pod is one that the term speaks of. `namespace_labels` tells a namespace's labels.
    pub fn matches<'a>(&self, other: &PodInfo, namespace_labels: &dyn Fn(&str) -> Option<&'a Labels>) -> bool {
        let here = self.all_namespaces
            || self.namespaces.contains(&other.namespace)
            || namespace_labels(&other.namespace).is_some_and(|l| self.namespace_selector.matches(l));
        here && self.selector.matches(&other.labels)
    }
}

fn affinity_term(term: &PodAffinityTerm, namespace: &str, own: &Labels, weight: i64) -> AffinityTerm {
    let mut selector = labels::selector(term.label_selector.as_ref());
    for (keys, equal) in [(&term.match_label_keys, true), (&term.mismatch_label_keys, false)] {
        for key in keys.iter().flatten() {
            if let Some(value) = own.get(key) {
                selector = selector.and(labels::compared(key, value, equal));
            }
        }
    }
    let named = term.namespaces.clone().unwrap_or_default();
    let none_said = named.is_empty() && term.namespace_selector.is_none();
    let namespace_selector = labels::selector(term.namespace_selector.as_ref());
    AffinityTerm {
        namespaces: if none_said { vec![namespace.to_owned()] } else { named },
        all_namespaces: namespace_selector.is_everything(),
        namespace_selector,
        selector,
        topology_key: term.topology_key.clone(),
        weight,
    }
}

/// The message of a condition that says the pod found no node.
fn refused(status: &PodStatus) -> Option<String> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?.message.clone()
}

fn spread(spec: &PodSpec, own: &Labels) -> Vec<SpreadTerm> {
    let constraints = spec.topology_spread_constraints.as_ref();
    let compile = |c: &k8s_openapi::api::core::v1::TopologySpreadConstraint| {
        let mut selector = labels::selector(c.label_selector.as_ref());
        for key in c.match_label_keys.iter().flatten() {
            if let Some(value) = own.get(key) {
                selector = selector.and(labels::compared(key, value, true));
            }
        }
        SpreadTerm {
            max_skew: c.max_skew.into(),
            topology_key: c.topology_key.clone(),
            hard: c.when_unsatisfiable == "DoNotSchedule",
            selector,
            min_domains: c.min_domains.unwrap_or(1).into(),
            honor_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        }
    };
    constraints.into_iter().flatten().map(compile).collect()
}

/// What a container that doesn't say so counts as in scoring: upstream's stand-ins, so that pods without requests spread
/// too. One that asks for 0 means it.
fn scored(container: &Container) -> Resources {
    const MILLI_CPU: i64 = 100;
    const BYTES: i64 = 200 * 1024 * 1024;
    let mut requests = container_requests(container);
    let said = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let says = |name: &str| said.is_some_and(|said| said.contains_key(name));
    requests.milli_cpu = if says(CPU) { requests.milli_cpu } else { MILLI_CPU };
    requests.memory = if says(MEMORY) { requests.memory } else { BYTES };
    requests
}
