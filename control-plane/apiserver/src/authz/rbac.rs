//! RBAC: roles and bindings from the caches, in an index by subject. When some of them have changed the index takes up
//! these and nothing else: a cluster has thousands, and each decision may follow a change. Aggregated cluster roles hold the rules that their controller has written into them, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::{HashMap, OrdMap};
use parking_lot::Mutex;
use serde_json::Value;

use super::rules::Rule;
use super::{Attributes, Authorizer, Decision, Rules};
use crate::authn::UserInfo;
use crate::cache::{Cache, Entry, Snapshot};
use crate::error::Error;
use crate::registry::Registry;

/// The caches that RBAC reads, in this order: cluster roles, cluster role bindings, roles, role bindings.
type Sources = [Arc<Cache>; 4];

type Subject = String;

/// The role that a binding gives, and where: an empty namespace is everywhere.
#[derive(Debug)]
struct Grant {
    namespace: String,
    /// As [`Index::roles`] has it.
    role: String,
    /// For the reason of a decision.
    binding: String,
    /// Of the first subject with the key, as reasons name it.
    subjects: Vec<(Subject, String)>,
}

/// Cluster role bindings before others, each by key.
type Place = (usize, Bytes);

/// Clones share what they have in common.
#[derive(Debug, Default, Clone)]
struct Index {
    versions: [i64; 4],
    /// What it was made of.
    seen: [Snapshot; 4],
    /// Rules by `[namespace/]name`.
    roles: HashMap<String, Arc<Vec<Rule>>>,
    by_subject: HashMap<Subject, OrdMap<Place, Arc<Grant>>>,
}

/// See the module's head.
pub struct Rbac {
    sources: Sources,
    index: ArcSwap<Index>,
    /// Held while the index is brought up to date: others that need it wait and do not do the same.
    making: Mutex<()>,
    /// Roles and bindings read since the start.
    read: AtomicU64,
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
        Ok(Rbac { sources, index: ArcSwap::default(), making: Mutex::default(), read: AtomicU64::new(0) })
    }

    fn index(&self) -> Arc<Index> {
        let versions = || [0, 1, 2, 3].map(|i: usize| self.sources[i].last_change());
        let known = self.index.load_full();
        if known.versions == versions() {
            return known;
        }
        let _turn = self.making.lock();
        let (known, versions) = (self.index.load_full(), versions());
        if known.versions == versions {
            return known;
        }
        let mut fresh = Index { versions, ..Index::clone(&known) };
        for (source, cache) in self.sources.iter().enumerate() {
            let now = cache.snapshot();
            for (before, now) in now.changes(&known.seen[source]) {
                self.read.fetch_add(1, Ordering::Relaxed);
                fresh.change(source, before, now);
            }
            fresh.seen[source] = now;
        }
        let fresh = Arc::new(fresh);
        self.index.store(fresh.clone());
        fresh
    }

    /// Every rule that the caller is given in a namespace (empty: everywhere), whatever else authorises them.
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.index().of(user, namespace).flat_map(|(rules, ..)| rules.iter().cloned()).collect()
    }
}

impl Index {
    /// What a caller is given, by which binding, and as whom.
    fn of<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a [Rule], &'a Grant, &'a str)> {
        let keys = std::iter::once(user_key(&user.name)).chain(user.groups.iter().map(|g| group_key(g)));
        keys.flat_map(move |key| {
            let grants = self.by_subject.get(&key).into_iter().flat_map(OrdMap::values);
            let here = grants.filter(move |grant| grant.namespace.is_empty() || grant.namespace == namespace);
            here.filter_map(move |grant| {
                let (_, shown) = grant.subjects.iter().find(|(subject, _)| *subject == key)?;
                Some((self.roles.get(&grant.role)?.as_slice(), &**grant, shown.as_str()))
            })
        })
    }

    /// A role or binding was made, changed or deleted.
    fn change(&mut self, source: usize, before: Option<&Arc<Entry>>, now: Option<&Arc<Entry>>) {
        let bindings = source % 2 == 1;
        if let Some(before) = before {
            match bindings {
                true => self.forget(source, before),
                false => drop(self.roles.remove(before.path())),
            }
        }
        let Some(now) = now else { return };
        let object = now.object();
        if !bindings {
            self.roles.insert(now.path().to_owned(), Arc::new(Rule::all(&object)));
            return;
        }
        let grant = Arc::new(grant(&object));
        for (subject, _) in &grant.subjects {
            let grants = self.by_subject.entry(subject.clone()).or_default();
            grants.insert((source, now.key.clone()), grant.clone());
        }
    }

    fn forget(&mut self, source: usize, binding: &Entry) {
        let place = (source, binding.key.clone());
        for (subject, _) in grant(&binding.object()).subjects {
            let Some(grants) = self.by_subject.get_mut(&subject) else { continue };
            grants.remove(&place);
            if grants.is_empty() {
                self.by_subject.remove(&subject);
            }
        }
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn grant(binding: &Value) -> Grant {
    let namespace = text(&binding["metadata"], "namespace");
    let (kind, name) = (text(&binding["roleRef"], "kind"), text(&binding["roleRef"], "name"));
    let subjects = binding["subjects"].as_array().into_iter().flatten();
    Grant {
        namespace: namespace.to_owned(),
        role: match kind {
            "ClusterRole" => name.to_owned(),
            _ => format!("{namespace}/{name}"),
        },
        binding: format!("{} of {kind} {}", quote(binding), meta::text::quote(name)),
        subjects: subjects.map(|one| (key_of(one, namespace), shown_subject(one, namespace))).collect(),
    }
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
            .find(|(rules, ..)| rules.iter().any(|rule| rule.allows(attributes)));
        match found {
            Some((_, grant, subject)) => Decision::Allow(format!("RBAC: allowed by {} to {subject}", grant.binding)),
            None => Decision::NoOpinion(String::new()),
        }
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let index = self.index();
        let mut rules = Rules::default();
        for rule in index.of(user, namespace).flat_map(|(rules, ..)| rules) {
            let list = if rule.paths.is_empty() { &mut rules.resource } else { &mut rules.non_resource };
            let value = rule.to_value();
            if !list.contains(&value) {
                list.push(value);
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::hub::Hub;
    use crate::storage::memory::MemoryStore;
    use crate::storage::{KeyValue, StoreEvent};
    use serde_json::json;

    fn put(cache: &Cache, namespace: &str, object: Value, revision: i64) {
        let key = cache.key(namespace, text(&object["metadata"], "name"));
        let value = Bytes::from(object.to_string());
        let kv = KeyValue { key, value, create_revision: revision, mod_revision: revision, lease: 0 };
        cache.apply(vec![StoreEvent::Put(kv)], std::time::Instant::now());
    }

    fn allowed(rbac: &Rbac, user: &str, namespace: &str) -> bool {
        let user = UserInfo { name: user.to_owned(), ..UserInfo::default() };
        rbac.rules_of(&user, namespace).iter().any(|rule| !rule.verbs.is_empty())
    }

    #[test]
    fn a_change_of_one_binding_reads_one_binding() {
        let hub = Hub::new(Arc::new(MemoryStore::default()), Bytes::from_static(b"/registry/"));
        let rbac = Rbac::new(&Registry::builtin(&hub, "/registry")).expect("served");
        rbac.sources.iter().for_each(|cache| cache.load(Vec::new(), 1));
        let binding = |i: i64, kind: &str, role: &str| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": format!("b{i}"), "namespace": "ns"},
                "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
                "subjects": [{"kind": "User", "apiGroup": GROUP, "name": format!("u{i}")}]})
        };
        for i in 0..100 {
            put(&rbac.sources[3], "ns", binding(i, "Role", "r"), i + 2);
        }
        assert!(!allowed(&rbac, "u7", "ns"), "there is no such role yet");
        let read = || rbac.read.load(Ordering::Relaxed);
        assert_eq!(read(), 100);
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "r", "namespace": "ns"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        put(&rbac.sources[2], "ns", role, 200);
        assert!(allowed(&rbac, "u7", "ns") && !allowed(&rbac, "u7", "elsewhere"));
        put(&rbac.sources[3], "ns", binding(7, "ClusterRole", "none"), 201);
        assert!(!allowed(&rbac, "u7", "ns") && allowed(&rbac, "u8", "ns"));
        let key = rbac.sources[3].key("ns", "b8");
        rbac.sources[3].apply(vec![StoreEvent::Delete { key, revision: 202 }], std::time::Instant::now());
        assert!(!allowed(&rbac, "u8", "ns"));
        assert_eq!(read(), 103, "each change costs what changed");
    }
}
