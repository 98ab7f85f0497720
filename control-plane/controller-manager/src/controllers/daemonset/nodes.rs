//! Which nodes a daemon set's pod belongs on, and the pod for one node: pinned by node affinity, with the tolerations
//! that daemons have. Pure.

use facts::node_selector::Required;
use facts::taints::{NO_EXECUTE, NO_SCHEDULE, untolerated};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use crate::common::revisions::HASH;
use crate::common::{owners, template};

const NAME_FIELD: &str = "metadata.name";
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// Taints that a daemon lives with: key and effect.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// And when it uses the host's network.
const NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a node means to a set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Should have a pod.
    pub runs: bool,
    /// May keep one that it has.
    pub keeps: bool,
}

pub fn fit(set: &DaemonSet, node: &Node) -> Fit {
    let spec = set.spec.template.spec.clone().unwrap_or_default();
    let name = node.metadata.name.as_deref().unwrap_or("");
    let named = spec.node_name.as_deref().filter(|n| !n.is_empty()).is_none_or(|n| n == name);
    if !named || !Required::of(&spec).allows(node) {
        return Fit { runs: false, keeps: false };
    }
    let tolerations = tolerations(&spec);
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    Fit {
        runs: untolerated(taints, &[NO_SCHEDULE, NO_EXECUTE], &tolerations).is_none(),
        keeps: untolerated(taints, &[NO_EXECUTE], &tolerations).is_none(),
    }
}

fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let network = spec.host_network == Some(true);
    for (key, effect) in TOLERATED.iter().chain(network.then_some(&NETWORK)) {
        let wanted = Toleration {
            key: Some((*key).into()),
            operator: Some("Exists".into()),
            effect: Some((*effect).into()),
            ..Toleration::default()
        };
        let same =
            |t: &&mut Toleration| t.key == wanted.key && t.effect == wanted.effect && t.operator == wanted.operator;
        match all.iter_mut().find(same) {
            Some(known) => *known = wanted,
            None => all.push(wanted),
        }
    }
    all
}

/// The pod for one node.
pub fn pod(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or("");
    let mut pod = template::pod(&set.spec.template, namespace, owners::owner_reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.into());
    if let Some(generation) = set.metadata.annotations.as_ref().and_then(|a| a.get(GENERATION)) {
        labels.insert("pod-template-generation".into(), generation.clone());
    }
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let pinned =
        NodeSelectorRequirement { key: NAME_FIELD.into(), operator: "In".into(), values: Some(vec![node.to_owned()]) };
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm { match_fields: Some(vec![pinned]), match_expressions: None }],
    });
    pod
}

/// The node that a pod is on or pinned to.
pub fn target(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.clone().filter(|n| !n.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    fields.filter(|f| f.key == NAME_FIELD && f.operator == "In").find_map(|f| f.values.as_ref()?.first().cloned())
}
