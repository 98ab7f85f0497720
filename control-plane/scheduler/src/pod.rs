//! What a pod asks of the scheduler, worked out once from its spec and kept beside it: requests, ports, tolerations,
//! affinity and spreading terms in compiled form. Built by the daemon's handlers, read by every plugin.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodAffinityTerm, Toleration, WeightedPodAffinityTerm};

use crate::labels::{Labels, NodeTerm, Selector, node_terms};
use crate::resources::Resources;

/// A host port that a container wants: address (`0.0.0.0` is every address), protocol, port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |p: &HostPort| p.ip == "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && (any(self) || any(other) || self.ip == other.ip)
    }
}

/// One pod (anti-)affinity term.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
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
    pub pod: Arc<Pod>,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: Labels,
    pub priority: i32,
    /// Requests as the node must hold them, `pods` being 1.
    pub requests: Resources,
    /// Requests with stand-ins for containers that ask for nothing: what scoring counts.
    pub scored: Resources,
    pub host_ports: Vec<HostPort>,
    pub tolerations: Vec<Toleration>,
    pub node_selector: Labels,
    pub required_nodes: Option<Vec<NodeTerm>>,
    pub preferred_nodes: Vec<(i64, NodeTerm)>,
    pub affinity: Vec<AffinityTerm>,
    pub anti_affinity: Vec<AffinityTerm>,
    pub preferred_affinity: Vec<AffinityTerm>,
    pub preferred_anti_affinity: Vec<AffinityTerm>,
    pub spread: Vec<SpreadTerm>,
    pub images: Vec<String>,
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> PodInfo {
        let meta = &pod.metadata;
        let spec = pod.spec.clone().unwrap_or_default();
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        let affinity = spec.affinity.clone().unwrap_or_default();
        let nodes = affinity.node_affinity.unwrap_or_default();
        let with = affinity.pod_affinity.unwrap_or_default();
        let against = affinity.pod_anti_affinity.unwrap_or_default();
        let labels: Labels = meta.labels.clone().unwrap_or_default();
        let namespace = text(&meta.namespace);
        let required = |terms: &Option<Vec<PodAffinityTerm>>| -> Vec<AffinityTerm> {
            terms.iter().flatten().map(|t| affinity_term(t, &namespace, &labels, 0)).collect()
        };
        let preferred = |terms: &Option<Vec<WeightedPodAffinityTerm>>| -> Vec<AffinityTerm> {
            let terms = terms.iter().flatten();
            terms.map(|t| affinity_term(&t.pod_affinity_term, &namespace, &labels, t.weight.into())).collect()
        };
        let (requests, scored) = requests(&pod);
        PodInfo {
            name: text(&meta.name),
            uid: text(&meta.uid),
            priority: spec.priority.unwrap_or(0),
            requests,
            scored,
            host_ports: host_ports(&spec.containers, spec.init_containers.as_deref().unwrap_or_default()),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required_nodes: nodes.required_during_scheduling_ignored_during_execution.as_ref().map(node_terms),
            preferred_nodes: nodes
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .map(|t| (i64::from(t.weight), NodeTerm::of(&t.preference)))
                .collect(),
            affinity: required(&with.required_during_scheduling_ignored_during_execution),
            anti_affinity: required(&against.required_during_scheduling_ignored_during_execution),
            preferred_affinity: preferred(&with.preferred_during_scheduling_ignored_during_execution),
            preferred_anti_affinity: preferred(&against.preferred_during_scheduling_ignored_during_execution),
            spread: spread(&pod, &labels),
            images: spec.containers.iter().filter_map(|c| c.image.clone()).collect(),
            namespace,
            labels,
            pod,
        }
    }

    pub fn has_pod_affinity(&self) -> bool {
        !self.affinity.is_empty() || !self.preferred_affinity.is_empty() || !self.preferred_anti_affinity.is_empty()
    }

    /// The node that the pod is bound to.
    pub fn node(&self) -> Option<&str> {
        self.pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
    }

    /// Whether room kept for this pod is not to be taken by `other`.
    pub fn outranks(&self, other: &PodInfo) -> bool {
        self.uid != other.uid && self.priority >= other.priority
    }

    /// The node that its status says room is made on.
    pub fn nominated_node(&self) -> Option<&str> {
        self.pod.status.as_ref()?.nominated_node_name.as_deref().filter(|n| !n.is_empty())
    }

    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
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

fn affinity_term(term: &PodAffinityTerm, namespace: &str, labels: &Labels, weight: i64) -> AffinityTerm {
    let mut selector = Selector::of(term.label_selector.as_ref());
    for (keys, equal) in [(&term.match_label_keys, true), (&term.mismatch_label_keys, false)] {
        for key in keys.iter().flatten() {
            if let Some(value) = labels.get(key) {
                selector = selector.and(key, value, equal);
            }
        }
    }
    let named = term.namespaces.clone().unwrap_or_default();
    let own = named.is_empty() && term.namespace_selector.is_none();
    let empty = |s: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector| {
        s.match_labels.as_ref().is_none_or(|l| l.is_empty())
            && s.match_expressions.as_ref().is_none_or(|e| e.is_empty())
    };
    AffinityTerm {
        namespaces: if own { vec![namespace.to_owned()] } else { named },
        all_namespaces: term.namespace_selector.as_ref().is_some_and(empty),
        namespace_selector: Selector::of(term.namespace_selector.as_ref()),
        selector,
        topology_key: term.topology_key.clone(),
        weight,
    }
}

fn spread(pod: &Pod, labels: &Labels) -> Vec<SpreadTerm> {
    let constraints = pod.spec.as_ref().and_then(|s| s.topology_spread_constraints.as_ref());
    let compile = |c: &k8s_openapi::api::core::v1::TopologySpreadConstraint| {
        let mut selector = Selector::of(c.label_selector.as_ref());
        for key in c.match_label_keys.iter().flatten() {
            if let Some(value) = labels.get(key) {
                selector = selector.and(key, value, true);
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

/// Requests of a pod: the containers together with the sidecars, or the largest moment of its start, whichever is
/// more; pod-level requests replace both; overhead comes on top. Once exact, once with stand-ins for scoring.
fn requests(pod: &Pod) -> (Resources, Resources) {
    let Some(spec) = &pod.spec else { return Default::default() };
    let of = |c: &Container| Resources::of(c.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let total = |of: &dyn Fn(&Container) -> Resources| {
        let mut sum = Resources::default();
        spec.containers.iter().for_each(|c| sum.add(&of(c)));
        let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
        for c in spec.init_containers.iter().flatten() {
            let mut moment = of(c);
            if c.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&moment);
                moment = sidecars.clone();
            } else {
                moment.add(&sidecars);
            }
            peak.raise(&moment);
        }
        sum.add(&sidecars);
        sum.raise(&peak);
        if let Some(own) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
            let own = Resources::of(Some(own));
            sum.milli_cpu = if own.milli_cpu > 0 { own.milli_cpu } else { sum.milli_cpu };
            sum.memory = if own.memory > 0 { own.memory } else { sum.memory };
        }
        sum.add(&Resources::of(spec.overhead.as_ref()));
        sum
    };
    let mut exact = total(&of);
    exact.pods = 1;
    (exact, total(&|c| of(c).or_default()))
}

fn host_ports(containers: &[Container], init: &[Container]) -> Vec<HostPort> {
    let sidecars = init.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|p| *p > 0)?;
            let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
            Some(HostPort { ip, protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()), port })
        })
        .collect()
}
