//! RBAC: roles and bindings from the caches, compiled into an index by subject when one of them has changed.
//! Aggregated cluster roles hold the rules that their controller has written into them, and nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use super::rules::Rule;
use super::{Attributes, Authorizer, Decision, Rules};
use crate::authn::UserInfo;
use crate::cache::Cache;
use crate::error::Error;
use crate::registry::Registry;

/// The caches that RBAC reads, in this order: cluster roles, cluster role bindings, roles, role bindings.
type Sources = [Arc<Cache>; 4];

type Subject = String;

/// Rules that a binding gives, and where: an empty namespace is everywhere.
#[derive(Debug)]
struct Grant {
    namespace: String,
    rules: Arc<Vec<Rule>>,
    /// For the reason of a decision.
    binding: String,
}

#[derive(Debug, Default)]
struct Index {
    versions: [i64; 4],
    grants: Vec<Grant>,
    /// Places of grants, and the subject as reasons name it.
    by_subject: HashMap<Subject, Vec<(usize, String)>>,
}

/// See the module's head.
pub struct Rbac {
    sources: Sources,
    index: ArcSwap<Index>,
}

fn user_key(name: &str) -> Subject {
    format!("user:{name}")
}

fn group_key(name: &str) -> Subject {
    format!("group:{name}")
}

/// API group of the objects.
pub const GROUP: &str = "rbac.authorization.k8s.io";

impl Rbac {
    pub fn new(registry: &Registry) -> Result<Rbac, Error> {
        let cache = |plural: &str| {
            let missing = || Error::Bootstrap(format!("{plural} are not served"));
            registry.cache(GROUP, plural).ok_or_else(missing)
        };
        let cluster = (cache("clusterroles")?, cache("clusterrolebindings")?);
        let sources = [cluster.0, cluster.1, cache("roles")?, cache("rolebindings")?];
        Ok(Rbac { sources, index: ArcSwap::default() })
    }

    fn index(&self) -> Arc<Index> {
        let versions = [0, 1, 2, 3].map(|i| self.sources[i].last_change());
        let known = self.index.load_full();
        if known.versions == versions && !known.by_subject.is_empty() {
            return known;
        }
        let objects = [0, 1, 2, 3].map(|i| -> Vec<Value> {
            let snapshot = self.sources[i].snapshot();
            let all = self.sources[i].namespace_prefix("");
            snapshot.range(&all, &bytes::Bytes::new()).map(|entry| entry.object()).collect()
        });
        let fresh = Arc::new(compile(versions, &objects));
        self.index.store(fresh.clone());
        fresh
    }

    /// Every rule that the caller is given in a namespace (empty: everywhere), whatever else authorises them.
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.index().of(user, namespace).flat_map(|(grant, _)| grant.rules.iter().cloned()).collect()
    }
}

impl Index {
    /// What a caller is given, and as whom.
    fn of<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = (&'a Grant, &'a str)> {
        let keys = std::iter::once(user_key(&user.name)).chain(user.groups.iter().map(|g| group_key(g)));
        let grants = keys.flat_map(|key| self.by_subject.get(&key).into_iter().flatten());
        let here = move |(grant, _): &(&Grant, _)| grant.namespace.is_empty() || grant.namespace == namespace;
        grants.map(|(at, subject)| (&self.grants[*at], subject.as_str())).filter(here)
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn compile(versions: [i64; 4], objects: &[Vec<Value>; 4]) -> Index {
    let [cluster_roles, cluster_bindings, roles, bindings] = objects;
    let cluster: HashMap<&str, Arc<Vec<Rule>>> =
        cluster_roles.iter().map(|role| (text(&role["metadata"], "name"), Arc::new(Rule::all(role)))).collect();
    let local: HashMap<(&str, &str), Arc<Vec<Rule>>> = roles
        .iter()
        .map(|role| {
            ((text(&role["metadata"], "namespace"), text(&role["metadata"], "name")), Arc::new(Rule::all(role)))
        })
        .collect();
    let mut index = Index { versions, ..Index::default() };
    for binding in cluster_bindings.iter().chain(bindings) {
        let namespace = text(&binding["metadata"], "namespace");
        let name = text(&binding["roleRef"], "name");
        let rules = match text(&binding["roleRef"], "kind") {
            "ClusterRole" => cluster.get(name),
            _ => local.get(&(namespace, name)),
        };
        let Some(rules) = rules else { continue };
        let at = index.grants.len();
        let shown = format!("{} of {} {}", quote(binding), text(&binding["roleRef"], "kind"), meta::text::quote(name));
        index.grants.push(Grant { namespace: namespace.to_owned(), rules: rules.clone(), binding: shown });
        for subject in binding["subjects"].as_array().into_iter().flatten() {
            index
                .by_subject
                .entry(key_of(subject, namespace))
                .or_default()
                .push((at, shown_subject(subject, namespace)));
        }
    }
    index
}

fn quote(binding: &Value) -> String {
    let (namespace, name) = (text(&binding["metadata"], "namespace"), text(&binding["metadata"], "name"));
    if namespace.is_empty() {
        format!("ClusterRoleBinding {}", meta::text::quote(name))
    } else {
        format!("RoleBinding {}", meta::text::quote(&format!("{name}/{namespace}")))
    }
}

fn key_of(subject: &Value, namespace: &str) -> Subject {
    let name = text(subject, "name");
    match text(subject, "kind") {
        "Group" => group_key(name),
        "ServiceAccount" => {
            let own = text(subject, "namespace");
            let namespace = if own.is_empty() { namespace } else { own };
            user_key(&format!("system:serviceaccount:{namespace}:{name}"))
        }
        _ => user_key(name),
    }
}

/// `User "bob"`, `ServiceAccount "name/namespace"`.
fn shown_subject(subject: &Value, namespace: &str) -> String {
    let (kind, name) = (text(subject, "kind"), text(subject, "name"));
    if kind != "ServiceAccount" {
        return format!("{kind} {}", meta::text::quote(name));
    }
    let own = text(subject, "namespace");
    let namespace = if own.is_empty() { namespace } else { own };
    format!("{kind} {}", meta::text::quote(&format!("{name}/{namespace}")))
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let index = self.index();
        let found = index
            .of(attributes.user, attributes.namespace)
            .find(|(grant, _)| grant.rules.iter().any(|rule| rule.allows(attributes)));
        match found {
            Some((grant, subject)) => Decision::Allow(format!("RBAC: allowed by {} to {subject}", grant.binding)),
            None => Decision::NoOpinion(String::new()),
        }
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let index = self.index();
        let mut rules = Rules::default();
        for rule in index.of(user, namespace).flat_map(|(grant, _)| grant.rules.iter()) {
            let list = if rule.paths.is_empty() { &mut rules.resource } else { &mut rules.non_resource };
            let value = rule.to_value();
            if !list.contains(&value) {
                list.push(value);
            }
        }
        rules
    }
}
