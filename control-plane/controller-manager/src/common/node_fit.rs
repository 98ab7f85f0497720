//! Whether a node is one that a pod may be on, by selector, affinity and taints: what the daemon set controller asks
//! before it makes a pod for a node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

use crate::controllers::taint_eviction::tolerates;

/// The node has the labels that selector and required affinity ask for.
pub fn selected(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let by_labels = spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let name = node.metadata.name.as_deref().unwrap_or("");
    by_labels && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term(t, name, &labels)))
}

fn term(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term without any requirement matches nothing.
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|r| requirement(r, labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| requirement(r, (r.key == "metadata.name").then_some(name)))
}

fn requirement(r: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = r.values.as_deref().unwrap_or_default();
    let number = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match r.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|w| w == v)),
        "NotIn" => value.is_none_or(|v| values.iter().all(|w| w != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().is_some_and(|(have, than)| have > than),
        "Lt" => number().is_some_and(|(have, than)| have < than),
        _ => false,
    }
}

/// All taints with one of these effects are tolerated.
pub fn tolerated(taints: &[Taint], tolerations: &[Toleration], effects: &[&str]) -> bool {
    let binding = taints.iter().filter(|t| effects.contains(&t.effect.as_str()));
    binding.into_iter().all(|taint| tolerations.iter().any(|t| tolerates(t, taint)))
}
