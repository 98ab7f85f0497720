//! The node authoriser: a kubelet reads what pods bound to its node refer to, and writes what is its own.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::rules::Rule;
use super::{Attributes, Authorizer, Decision};
use crate::cache::Cache;

const PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";

/// See the module's head.
pub struct Node {
    pods: Arc<Cache>,
    claims: Arc<Cache>,
    /// What every node may do whatever runs there: upstream's `system:node` role.
    rules: Vec<Rule>,
}

impl Node {
    pub fn new(pods: Arc<Cache>, claims: Arc<Cache>, rules: Vec<Rule>) -> Node {
        Node { pods, claims, rules }
    }

    fn pods_on(&self, node: &str) -> Vec<Value> {
        let snapshot = self.pods.snapshot();
        let all = snapshot.range(&self.pods.namespace_prefix(""), &Bytes::new());
        all.map(|entry| entry.object()).filter(|pod| pod["spec"]["nodeName"] == node).collect()
    }

    fn refers(&self, node: &str, a: &Attributes<'_>, refers: impl Fn(&Value) -> bool) -> bool {
        let here = |pod: &Value| a.namespace.is_empty() || pod["metadata"]["namespace"] == a.namespace;
        self.pods_on(node).iter().any(|pod| here(pod) && refers(pod))
    }

    fn reads(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if a.verb != "get" && !(matches!(a.verb, "list" | "watch") && a.field_selector == by_name(a.name)) {
            return no("can only read resources of this type by name");
        }
        let found = match a.resource {
            "secrets" => self.refers(node, a, |pod| names(pod, "secret").contains(&a.name.to_owned())),
            "configmaps" => self.refers(node, a, |pod| names(pod, "configmap").contains(&a.name.to_owned())),
            "persistentvolumeclaims" => self.refers(node, a, |pod| claims_of(pod).contains(&a.name.to_owned())),
            _ => self.refers(node, a, |pod| {
                let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
                let claim = |name: &String| self.claims.lookup(namespace, name);
                claims_of(pod).iter().filter_map(claim).any(|c| c.object()["spec"]["volumeName"] == a.name)
            }),
        };
        if found { allow() } else { no("no relationship found between node and this object") }
    }

    fn token(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if a.verb != "create" {
            return no("can only create tokens for individual service accounts");
        }
        let runs_as = |pod: &Value| pod["spec"]["serviceAccountName"] == a.name;
        if self.refers(node, a, runs_as) { allow() } else { no("no relationship found between node and this object") }
    }
}

fn by_name(name: &str) -> String {
    format!("metadata.name={name}")
}

fn allow() -> Decision {
    Decision::Allow(String::new())
}

fn no(reason: &str) -> Decision {
    Decision::NoOpinion(reason.to_owned())
}

/// Objects that must carry the node's own name.
fn own(node: &str, a: &Attributes<'_>, verbs: &[&str]) -> Decision {
    if !verbs.contains(&a.verb) {
        return no("can only access node objects of this type in the allowed ways");
    }
    // The name of an object that is created stands in its body: admission looks at it.
    if a.verb == "create" || a.name == node || a.field_selector == by_name(node) {
        return allow();
    }
    no("can only access objects with the same name as the requesting node")
}

/// Names of secrets or config maps that a pod refers to, anywhere in its spec.
fn names(pod: &Value, what: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&pod["spec"], what, &mut found);
    found
}

fn collect(value: &Value, what: &str, found: &mut Vec<String>) {
    let mut take = |name: &Value| found.extend(name.as_str().map(str::to_owned));
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (what, key.as_str()) {
                    ("secret", "secretKeyRef" | "secretRef" | "imagePullSecrets" | "nodePublishSecretRef") => {
                        value.as_array().into_iter().flatten().for_each(|v| take(&v["name"]));
                        take(&value["name"]);
                    }
                    ("secret", "secret") => {
                        take(&value["secretName"]);
                        take(&value["name"]);
                    }
                    ("configmap", "configMapKeyRef" | "configMapRef" | "configMap") => take(&value["name"]),
                    _ => {}
                }
            }
            map.values().for_each(|value| collect(value, what, found));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, what, found)),
        _ => {}
    }
}

fn claims_of(pod: &Value) -> Vec<String> {
    let volumes = pod["spec"]["volumes"].as_array();
    let name = |v: &Value| match v["persistentVolumeClaim"]["claimName"].as_str() {
        Some(name) => Some(name.to_owned()),
        None if v["ephemeral"].is_object() => {
            Some(format!("{}-{}", pod["metadata"]["name"].as_str()?, v["name"].as_str()?))
        }
        None => None,
    };
    volumes.into_iter().flatten().filter_map(name).collect()
}

impl Authorizer for Node {
    fn authorize(&self, a: &Attributes<'_>) -> Decision {
        let Some(node) = a.user.name.strip_prefix(PREFIX) else { return Decision::NoOpinion(String::new()) };
        if !a.user.groups.iter().any(|g| g == GROUP) {
            return Decision::NoOpinion(String::new());
        }
        if a.resource_request {
            match (a.group, a.resource, a.subresource) {
                ("", "secrets" | "configmaps" | "persistentvolumeclaims" | "persistentvolumes", "") => {
                    return self.reads(node, a);
                }
                ("", "serviceaccounts", "token") => return self.token(node, a),
                ("coordination.k8s.io", "leases", "") if a.namespace == "kube-node-lease" => {
                    return own(node, a, &["get", "create", "update", "patch", "delete"]);
                }
                ("storage.k8s.io", "csinodes", "") => {
                    return own(node, a, &["get", "create", "update", "patch", "delete"]);
                }
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(a)) { allow() } else { Decision::NoOpinion(String::new()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_way_to_refer_to_a_secret_counts() {
        let pod = json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"name": "a", "secret": {"secretName": "vol"}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "proj"}}, {"configMap": {"name": "cm"}}]}}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}], "envFrom": [{"secretRef": {"name": "from"}}]}],
        }});
        let mut found = names(&pod, "secret");
        found.sort();
        assert_eq!(found, ["env", "from", "proj", "pull", "vol"]);
        assert_eq!(names(&pod, "configmap"), ["cm"]);
    }
}
