//! The node authoriser: a kubelet reads its own Node, the pods bound to it and what these refer to, and writes what is
//! its own. What it writes into objects is for the NodeRestriction admission plugin to check.

use std::sync::Arc;

use meta::FieldSelector;
use meta::fields::FieldTerm;
use serde_json::Value;

use super::references::{claims_of, names};
use super::rules::Rule;
use super::{Attributes, Authorizer, Decision};
use crate::authn::UserInfo;
use crate::cache::{Cache, Entry};
use crate::registry::Registry;

/// What a kubelet's user name begins with; its node's name follows.
pub const PREFIX: &str = "system:node:";
/// Group of all kubelets.
pub const GROUP: &str = "system:nodes";
/// Namespace of the nodes' heartbeats.
pub const LEASES: &str = "kube-node-lease";

/// The name of the node whose kubelet this is; empty for a kubelet that does not say.
pub fn identity(user: &UserInfo) -> Option<&str> {
    let node = user.name.strip_prefix(PREFIX)?;
    user.groups.iter().any(|group| group == GROUP).then_some(node)
}

/// See the module's head.
pub struct Node {
    pods: Arc<Cache>,
    claims: Arc<Cache>,
    volumes: Arc<Cache>,
    attachments: Arc<Cache>,
    /// What every node may do whatever runs there: upstream's `system:node` role.
    rules: Vec<Rule>,
}

impl Node {
    /// `None` when a kind that it looks at is not served.
    pub fn new(registry: &Registry, rules: Vec<Rule>) -> Option<Node> {
        Some(Node {
            pods: registry.cache("", "pods")?,
            claims: registry.cache("", "persistentvolumeclaims")?,
            volumes: registry.cache("", "persistentvolumes")?,
            attachments: registry.cache("storage.k8s.io", "volumeattachments")?,
            rules,
        })
    }

    fn pods_on(&self, node: &str) -> impl Iterator<Item = Arc<Entry>> + use<> {
        self.pods.with_field("spec.nodeName", node).into_iter()
    }

    /// Whether a pod of the node in the request's namespace satisfies `refers`. Only pods whose text holds the name
    /// are looked into.
    fn some_pod(&self, node: &str, a: &Attributes<'_>, refers: impl Fn(&Value) -> bool) -> bool {
        let mentions = |entry: &Entry| memmem(&entry.value, a.name.as_bytes());
        let mut here = self.pods_on(node).filter(|entry| entry.namespace() == a.namespace && mentions(entry));
        here.any(|entry| refers(&entry.object()))
    }

    /// Volumes bound to claims of the node's pods, with their claim's namespace.
    fn volumes_on(&self, node: &str) -> impl Iterator<Item = (String, Value)> {
        self.pods_on(node).flat_map(|pod| {
            let claims = claims_of(&pod.object());
            let claim = |name: String| Some(self.claims.lookup(pod.namespace(), &name)?.object());
            let volume = |claim: Value| self.volumes.lookup("", claim["spec"]["volumeName"].as_str()?);
            let found = claims.into_iter().filter_map(claim).filter_map(volume);
            let namespace = pod.namespace();
            found.map(|volume| (namespace.to_owned(), volume.object())).collect::<Vec<_>>()
        })
    }

    fn reads(&self, node: &str, a: &Attributes<'_>) -> Decision {
        let listed = matches!(a.resource, "secrets" | "configmaps") && matches!(a.verb, "list" | "watch");
        if a.verb != "get" && !listed {
            return no(match a.resource {
                "secrets" | "configmaps" => "can only read resources of this type",
                _ => "can only get individual resources of this type",
            });
        }
        if !a.subresource.is_empty() {
            return no("cannot get subresource");
        }
        if a.name.is_empty() {
            return no("No Object name found");
        }
        related(self.refers(node, a), node)
    }

    fn refers(&self, node: &str, a: &Attributes<'_>) -> bool {
        let named = |list: Vec<String>| list.iter().any(|name| name == a.name);
        match a.resource {
            "secrets" => {
                let of_volume =
                    |(namespace, volume): (String, Value)| namespace == a.namespace && named(names(&volume, "secret"));
                self.some_pod(node, a, |pod| named(names(pod, "secret"))) || self.volumes_on(node).any(of_volume)
            }
            "configmaps" => self.some_pod(node, a, |pod| named(names(pod, "configmap"))),
            "serviceaccounts" => self.some_pod(node, a, |pod| pod["spec"]["serviceAccountName"] == a.name),
            "resourceclaims" => self.some_pod(node, a, |pod| named(super::references::resource_claims_of(pod))),
            // The claim of an ephemeral volume has a name that is made of two.
            "persistentvolumeclaims" => {
                let mut here = self.pods_on(node).filter(|pod| pod.namespace() == a.namespace);
                here.any(|pod| named(claims_of(&pod.object())))
            }
            "persistentvolumes" => self.volumes_on(node).any(|(_, volume)| volume["metadata"]["name"] == a.name),
            "volumeattachments" => {
                let found = self.attachments.lookup("", a.name);
                found.is_some_and(|attachment| attachment.object()["spec"]["nodeName"] == node)
            }
            _ => false,
        }
    }

    /// Pods: those bound here, one by one or all at once. Writes are for admission to judge.
    fn pod(&self, node: &str, a: &Attributes<'_>) -> Decision {
        match (a.verb, a.subresource) {
            ("get", "") => {
                let found = self.pods.lookup(a.namespace, a.name);
                let here = found.is_some_and(|pod| pod.object()["spec"]["nodeName"] == node);
                related(here, node)
            }
            ("list" | "watch", "") => match selects(a.field_selector, "spec.nodeName", node) {
                true => allow(),
                false => no("can only list/watch pods with spec.nodeName field selector"),
            },
            _ => self.by_rules(a),
        }
    }

    fn own_node(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if matches!(a.verb, "get" | "list" | "watch") && a.subresource.is_empty() && a.name != node {
            let why = format!("node '{node}' cannot read '{}', only its own Node object", a.name);
            return Decision::NoOpinion(why);
        }
        self.by_rules(a)
    }

    fn token(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if a.verb != "create" || a.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        related(self.some_pod(node, a, |pod| pod["spec"]["serviceAccountName"] == a.name), node)
    }

    fn by_rules(&self, a: &Attributes<'_>) -> Decision {
        if self.rules.iter().any(|rule| rule.allows(a)) { allow() } else { Decision::NoOpinion(String::new()) }
    }
}

fn memmem(text: &[u8], wanted: &[u8]) -> bool {
    !wanted.is_empty() && text.windows(wanted.len()).any(|window| window == wanted)
}

/// Whether a field selector demands this value, whatever else it demands; read as the list itself reads it.
fn selects(selector: &str, field: &str, value: &str) -> bool {
    let demands = |term: &FieldTerm| term.equal && term.field == field && term.value == value;
    FieldSelector::parse(selector).is_ok_and(|selector| selector.terms.iter().any(demands))
}

fn allow() -> Decision {
    Decision::Allow(String::new())
}

fn no(reason: &str) -> Decision {
    Decision::NoOpinion(reason.to_owned())
}

fn related(found: bool, node: &str) -> Decision {
    match found {
        true => allow(),
        false => Decision::NoOpinion(format!("no relationship found between node '{node}' and this object")),
    }
}

/// Objects that must carry the node's own name; `kind` as messages call them.
fn own(node: &str, a: &Attributes<'_>, kind: &str) -> Decision {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no(&format!("can only get, create, update, patch, or delete a {kind}"));
    }
    // The name of an object that is created stands in its body: admission looks at it.
    if a.verb == "create" || a.name == node {
        return allow();
    }
    no(&format!("can only access {kind} with the same name as the requesting node"))
}

impl Authorizer for Node {
    fn authorize(&self, a: &Attributes<'_>) -> Decision {
        let Some(node) = identity(a.user) else { return Decision::NoOpinion(String::new()) };
        if node.is_empty() {
            return no("unknown node for user");
        }
        if !a.resource_request {
            return self.by_rules(a);
        }
        match (a.group, a.resource, a.subresource) {
            ("", "secrets" | "configmaps" | "persistentvolumes", _) => self.reads(node, a),
            ("", "persistentvolumeclaims", "status") => match a.verb {
                "get" | "update" | "patch" => related(self.refers(node, a), node),
                _ => no("can only get, update, or patch status of persistent volume claims"),
            },
            ("", "persistentvolumeclaims", _) | ("", "serviceaccounts", "") => self.reads(node, a),
            ("storage.k8s.io", "volumeattachments", _) | ("resource.k8s.io", "resourceclaims", _) => {
                self.reads(node, a)
            }
            ("", "serviceaccounts", "token") => self.token(node, a),
            ("", "nodes", _) => self.own_node(node, a),
            ("", "pods", _) => self.pod(node, a),
            ("coordination.k8s.io", "leases", "") if a.namespace != LEASES => {
                no(&format!("can only access leases in the {LEASES:?} system namespace"))
            }
            ("coordination.k8s.io", "leases", "") => own(node, a, "node lease"),
            ("storage.k8s.io", "csinodes", "") => own(node, a, "CSINode"),
            _ => self.by_rules(a),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_selector_that_demands_the_node_counts() {
        for yes in ["spec.nodeName=n1", "status.phase!=Failed,spec.nodeName==n1"] {
            assert!(selects(yes, "spec.nodeName", "n1"), "{yes}");
        }
        for no in
            ["", "spec.nodeName!=n1", "spec.nodeName=n12", "metadata.name=n1", "status.phase!=\\,spec.nodeName=n1"]
        {
            assert!(!selects(no, "spec.nodeName", "n1"), "{no}");
        }
    }
}
