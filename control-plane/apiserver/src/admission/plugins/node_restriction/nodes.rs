//! Nodes: a kubelet writes its own, and neither its taints nor labels that others rely on to keep workloads apart.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::admission::{Operation, Request};

/// Labels in namespaces of Kubernetes that a kubelet sets.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
/// Namespaces (with everything below) of labels that a kubelet sets.
const OWN_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Labels here are for administrators only.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

pub(super) fn check(request: &Request<'_>, node: &str) -> Result<(), String> {
    let mut name = request.name;
    let labels = |object: &Value| object["metadata"]["labels"].clone();
    let (new, old) = (&*request.object, request.old.unwrap_or(&Value::Null));
    if request.operation == Operation::Create {
        let forbidden = forbidden_labels(&labels(new), &Value::Null);
        if !forbidden.is_empty() {
            return Err(format!("node {node:?} is not allowed to set the following labels: {forbidden}"));
        }
        name = super::name_of(request);
    }
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    if request.operation != Operation::Update {
        return Ok(());
    }
    if new["metadata"]["ownerReferences"] != old["metadata"]["ownerReferences"] {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    if new["spec"]["taints"] != old["spec"]["taints"] {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    // The kind lets a range be added to one that is there: whose addresses a node's pods have is not the node's to say.
    // Both fields that say it: who reads a node may look at either.
    let ranges = |object: &Value| ["podCIDR", "podCIDRs"].map(|field| object["spec"][field].clone());
    if ranges(old).iter().any(|range| !range.is_null()) && ranges(new) != ranges(old) {
        return Err(format!("node {node:?} is not allowed to modify podCIDRs"));
    }
    let forbidden = forbidden_labels(&labels(new), &labels(old));
    if !forbidden.is_empty() {
        return Err(format!("is not allowed to modify labels: {forbidden}"));
    }
    Ok(())
}

/// Labels that differ and are not a kubelet's to change, joined for a message; empty when there is none.
fn forbidden_labels(new: &Value, old: &Value) -> String {
    let keys = |labels: &Value| -> Vec<String> {
        labels.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
    };
    let all: BTreeSet<String> = keys(new).into_iter().chain(keys(old)).collect();
    let changed = all.into_iter().filter(|key| new.get(key) != old.get(key));
    changed.filter(|key| is_forbidden(key)).collect::<Vec<_>>().join(", ")
}

fn is_forbidden(label: &str) -> bool {
    let namespace = label.split_once('/').map_or("", |(namespace, _)| namespace);
    let within =
        |wanted: &str| namespace == wanted || namespace.strip_suffix(wanted).is_some_and(|sub| sub.ends_with('.'));
    if within(RESTRICTED) {
        return true;
    }
    let reserved = within("kubernetes.io") || within("k8s.io");
    reserved && !OWN_LABELS.contains(&label) && !OWN_NAMESPACES.iter().any(|own| within(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_that_others_rely_on_are_forbidden() {
        let own = [
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
            "node.kubernetes.io/x",
            "a.kubelet.kubernetes.io/x",
            "example.com/role",
            "plain",
            "notk8s.io/x",
        ];
        for label in own {
            assert!(!is_forbidden(label), "{label}");
        }
        let others = [
            "node-role.kubernetes.io/control-plane",
            "node-restriction.kubernetes.io/x",
            "team.node-restriction.kubernetes.io/x",
            "k8s.io/x",
            "kubernetes.io/x",
        ];
        for label in others {
            assert!(is_forbidden(label), "{label}");
        }
    }

    #[test]
    fn only_changed_labels_count() {
        let have = json!({"node-role.kubernetes.io/a": "", "k8s.io/b": "1"});
        assert_eq!(forbidden_labels(&have, &have), "");
        assert_eq!(forbidden_labels(&json!({"k8s.io/b": "2"}), &have), "k8s.io/b, node-role.kubernetes.io/a");
    }
}
