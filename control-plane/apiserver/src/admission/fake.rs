//! A world of a few objects, and requests to it, for tests of plugins without a server.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kinds::KindRef;
use meta::{Gvr, Status};
use serde_json::Value;

use super::{Asked, By, Operation, Request, World};
use crate::authn::UserInfo;
use crate::authz::rules::Rule;
use crate::authz::{Attributes, Decision};
use crate::cache::{Entry, HeaderSpec};
use crate::notes::{Annotations, Warnings};
use crate::storage::KeyValue;

/// Holds what [`Fake::with`] put in; allows what is in `allowed`, as `verb resource name`.
#[derive(Default)]
pub struct Fake {
    pub objects: BTreeMap<Bytes, Arc<Entry>>,
    pub allowed: Vec<String>,
    pub rules: Vec<Rule>,
    pub user: UserInfo,
    pub warnings: Warnings,
    pub annotations: Annotations,
}

/// What is asked of a built-in resource, as `group/version/plural`, in the namespace `ns`.
pub fn asked(operation: Operation, resource: &str, name: &'static str) -> Asked<'static> {
    let mut words = resource.split('/');
    let mut next = || words.next().unwrap_or_default();
    let kind = kinds::by_resource(next(), next(), next()).expect("a built-in resource");
    Asked { operation, kind, subresource: "", namespace: "ns", name, options: None }
}

impl Fake {
    /// Adds an object, in the namespace and by the name that its metadata tell.
    pub fn with(mut self, group: &str, plural: &str, object: &Value) -> Fake {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = key(group, plural, text("namespace"), text("name"));
        let revision = self.objects.len() as i64 + 1;
        let value = Bytes::from(object.to_string());
        let kv = KeyValue { key: key.clone(), value, create_revision: revision, mod_revision: revision, lease: 0 };
        let prefix = prefix(group, plural, "").len();
        self.objects.insert(key, Arc::new(Entry::new(kv, prefix, &HeaderSpec::new([])).expect("an object")));
        self
    }

    pub fn request<'a>(&'a self, asked: Asked<'a>, object: &'a mut Value, old: Option<&'a Value>) -> Request<'a> {
        let by = By { user: &self.user, warnings: &self.warnings, annotations: Some(&self.annotations) };
        Request::new(by, asked, object, old)
    }
}

fn prefix(group: &str, plural: &str, namespace: &str) -> String {
    let slash = if namespace.is_empty() { "" } else { "/" };
    format!("/{group}/{plural}/{namespace}{slash}")
}

fn key(group: &str, plural: &str, namespace: &str, name: &str) -> Bytes {
    Bytes::from(prefix(group, plural, namespace) + name)
}

#[async_trait]
impl World for Fake {
    async fn find(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, Status> {
        Ok(self.cached(group, plural, namespace, name))
    }

    fn cached(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.objects.get(&key(group, plural, namespace, name)).cloned()
    }

    fn entries(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Entry>> {
        let prefix = prefix(group, plural, namespace);
        self.objects.iter().filter(|(key, _)| key.starts_with(prefix.as_bytes())).map(|(_, e)| e.clone()).collect()
    }

    fn key(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Bytes> {
        Some(key(group, plural, namespace, name))
    }

    fn kind(&self, group: &str, version: &str, kind: &str) -> Option<KindRef> {
        kinds::by_kind(group, version, kind).cloned()
    }

    fn decide(&self, asked: &Attributes<'_>) -> Decision {
        let asked = format!("{} {} {}", asked.verb, asked.resource, asked.name);
        match self.allowed.contains(&asked) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion("nobody said so".to_owned()),
        }
    }

    fn rules_of(&self, _user: &UserInfo, _namespace: &str) -> Vec<Rule> {
        self.rules.clone()
    }

    async fn read_own_writes(&self, _gvr: &Gvr) -> Result<(), Status> {
        Ok(())
    }
}
