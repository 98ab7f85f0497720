//! TaintNodesByCondition: a new node takes no pods until the node lifecycle controller has seen it ready.

use async_trait::async_trait;
use meta::Status;
use serde_json::{Value, json};

use crate::admission::{Mutating, Operation, Plugin, Request, World};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && request.is("", "nodes")
    }
}

#[async_trait]
impl Mutating for TaintNodesByCondition {
    async fn admit(&self, request: &mut Request<'_>, _world: &dyn World) -> Result<(), Status> {
        taint(request.object);
        Ok(())
    }
}

fn taint(node: &mut Value) {
    let taint = json!({"key": NOT_READY, "effect": EFFECT});
    match node["spec"]["taints"].as_array_mut() {
        Some(list) if list.iter().any(|t| t["key"] == NOT_READY && t["effect"] == EFFECT) => {}
        Some(list) => list.push(taint),
        None => node["spec"]["taints"] = json!([taint]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_tainted_once() {
        let mut node = json!({"spec": {"taints": [{"key": "a", "effect": EFFECT}]}});
        taint(&mut node);
        taint(&mut node);
        assert_eq!(node["spec"]["taints"].as_array().map(Vec::len), Some(2));
    }
}
