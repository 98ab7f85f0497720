//! What a node says of itself: its conditions. A kubelet writes them; the node lifecycle controller sets them to
//! `Unknown` when it hears nothing any more.

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus};

/// The condition that decides whether pods come to the node and whether they stay.
pub const READY: &str = "Ready";
/// Where nodes have their Leases, by their own names.
pub const LEASES: &str = "kube-node-lease";

/// The condition of a type, as it was last reported.
pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    find(node.status.as_ref()?, type_)
}

fn find<'a>(status: &'a NodeStatus, type_: &str) -> Option<&'a NodeCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_)
}

/// `True`, `False` or `Unknown`: a condition that is not there is unknown.
pub fn status<'a>(node: &'a Node, type_: &str) -> &'a str {
    condition(node, type_).map_or("Unknown", |c| c.status.as_str())
}

/// Whether `Ready` is `True`; a node that says nothing isn't.
pub fn is_ready(status: &NodeStatus) -> bool {
    find(status, READY).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_true_is_ready() {
        for (value, ready) in [(Some("True"), true), (Some("False"), false), (Some("Unknown"), false), (None, false)] {
            let conditions: Vec<_> = value.iter().map(|v| json!({"type": "Ready", "status": v})).collect();
            let node: Node =
                serde_json::from_value(json!({"metadata": {}, "status": {"conditions": conditions}})).unwrap();
            assert_eq!(is_ready(node.status.as_ref().unwrap()), ready, "{value:?}");
            assert_eq!(status(&node, READY), value.unwrap_or("Unknown"));
        }
    }
}
