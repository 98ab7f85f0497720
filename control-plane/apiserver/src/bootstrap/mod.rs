//! What the server sets up for the cluster at start: system namespaces, roles, priority classes, flow schemas, the
//! service range, and the `kubernetes` Service that leads to the server itself. I/O: reads the clock.

mod authentication_info;
mod endpoints;

use std::sync::Arc;

use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Method, Uri};
use jiff::Timestamp;
use meta::{Reason, Status};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::authn::{AUTHENTICATED, MASTERS, UserInfo};
use crate::cache::corrupt;
use crate::error::Error;
use crate::http::call::Call;
use crate::http::request::{Query, RequestInfo};
use crate::notes::Warnings;
use crate::registry::Served;
use crate::registry::options::{FieldValidation, WriteOptions};
use crate::registry::update::{Change, Origin, Part};
use crate::server::Core;

/// Name of the server's own identity, as upstream has it.
const SELF: &str = "system:apiserver";
/// Objects written at once while a new cluster is set up.
const AT_ONCE: usize = 32;
/// Roles with this annotation set to "false" are left as people made them.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// A call that the server makes to itself.
pub fn own_call(namespace: &str, name: &str) -> Call {
    let groups = vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()];
    let user = Arc::new(UserInfo { name: SELF.to_owned(), groups, ..UserInfo::default() });
    let agent = (http::header::USER_AGENT, HeaderValue::from_static("kube-apiserver"));
    Call {
        method: Method::POST,
        uri: Uri::default(),
        info: RequestInfo {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            in_namespace: !namespace.is_empty(),
            resource_request: true,
            ..RequestInfo::default()
        },
        query: Query::default(),
        headers: HeaderMap::from_iter([agent]),
        peer: None,
        caller: Some(user.clone()),
        user,
        audit_id: String::new(),
        now: Timestamp::now(),
        upgrade: Mutex::new(None),
        tables: true,
        trail: None,
        warnings: Warnings::default(),
    }
}

/// Options of the server's own writes.
pub fn own_options() -> WriteOptions {
    WriteOptions {
        dry_run: false,
        field_manager: "kube-apiserver".to_owned(),
        field_validation: FieldValidation::Ignore,
        force: None,
    }
}

impl Core {
    /// The resource that an object belongs to.
    pub fn served_of(&self, object: &Value) -> Option<Arc<Served>> {
        let (group, version) = meta::gvk::split_api_version(object["apiVersion"].as_str().unwrap_or_default());
        self.registry.load().by_kind(group, version, object["kind"].as_str().unwrap_or_default()).cloned()
    }

    /// Creates an object of the server's own unless it exists; whether it did.
    pub async fn ensure(&self, object: &Value) -> Result<bool, Status> {
        let served = self.served_of(object).ok_or_else(|| Status::internal(format!("no resource for {object}")))?;
        let (namespace, name) = (text(object, "namespace"), text(object, "name"));
        if self.stored(&served)?.cache.lookup(namespace, name).is_some() {
            return Ok(false);
        }
        let call = own_call(namespace, "");
        match self.create_object(&call, &served, "", object.clone(), &own_options(), false).await {
            Ok(_) => Ok(true),
            Err(status) if status.reason == Reason::AlreadyExists => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Changes an object of the server's own, when the change makes a difference.
    pub async fn amend(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
        make: impl FnMut(&Value) -> Result<Value, Status> + Send,
    ) -> Result<(), Status> {
        let registry = self.registry.load_full();
        let Some(served) = registry.any(group, plural) else { return Ok(()) };
        let options = own_options();
        let change =
            Change { part: Part::Main, subresource: "", name, options: &options, retry: true, origin: Origin::Whole };
        self.change(&own_call(namespace, name), served, &change, make).await.map(drop)
    }

    /// Everything that must exist before the first client comes.
    pub async fn bootstrap(self: &Arc<Self>) -> Result<(), Error> {
        let (namespaces, others): (Vec<Value>, Vec<Value>) =
            kinds::bootstrap().partition(|object| object["kind"] == "Namespace");
        // Namespaces come first: the others live in them. Many at once share the store's disk writes.
        for objects in [namespaces, others] {
            let outcomes = futures::stream::iter(objects).map(|object| self.settle_object(object));
            let outcomes: Vec<_> = outcomes.buffer_unordered(AT_ONCE).collect().await;
            outcomes.into_iter().collect::<Result<(), Error>>()?;
        }
        settled("the service range", self.service_range().await)?;
        settled("the front proxies' trust", self.authentication_info().await)?;
        settled("the kubernetes Service", self.kubernetes_service().await)
    }

    async fn settle_object(self: &Arc<Self>, object: Value) -> Result<(), Error> {
        let outcome = async {
            if !self.ensure(&object).await? {
                self.reconcile_role(&object).await?;
            }
            Ok(())
        };
        settled(&format!("{} {}", object["kind"], object["metadata"]["name"]), outcome.await)
    }

    /// Brings back rules and subjects that the system needs, without taking away what people added.
    async fn reconcile_role(&self, wanted: &Value) -> Result<(), Status> {
        if wanted["apiVersion"] != "rbac.authorization.k8s.io/v1" {
            return Ok(());
        }
        let Some(served) = self.served_of(wanted) else { return Ok(()) };
        let (name, namespace) = (text(wanted, "name"), text(wanted, "namespace"));
        let Some(store) = &served.store else { return Ok(()) };
        let Some(entry) = store.cache.lookup(namespace, name) else { return Ok(()) };
        let have = entry.object();
        if have["metadata"]["annotations"][AUTOUPDATE] == "false" || covers(&have, wanted) {
            return Ok(());
        }
        let plural = served.kind.plural.clone();
        self.amend("rbac.authorization.k8s.io", &plural, namespace, name, |old| Ok(merged(old, wanted))).await
    }

    async fn service_range(&self) -> Result<(), Status> {
        let range = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": [self.config.service_cluster_ip_range]},
        });
        self.ensure(&range).await.map(drop)
    }
}

/// What a step of the start came to. A stored object that can't be read is no reason not to start: the server must run
/// for somebody to remove it.
fn settled(what: &str, outcome: Result<(), Status>) -> Result<(), Error> {
    match outcome {
        Err(status) if corrupt::is_told_by(&status) => {
            tracing::error!(what, %status, "the server starts without this");
            Ok(())
        }
        outcome => outcome.map_err(|status| Error::Bootstrap(format!("{what}: {status}"))),
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Whether every rule and subject that is wanted is there.
fn covers(have: &Value, wanted: &Value) -> bool {
    ["rules", "subjects"].iter().all(|field| {
        let have = have[field].as_array();
        wanted[field].as_array().into_iter().flatten().all(|item| have.is_some_and(|have| have.contains(item)))
    }) && (wanted["aggregationRule"].is_null() || have["aggregationRule"] == wanted["aggregationRule"])
}

fn merged(old: &Value, wanted: &Value) -> Value {
    let mut new = old.clone();
    for field in ["rules", "subjects"] {
        let Some(items) = wanted[field].as_array() else { continue };
        if !new[field].is_array() {
            new[field] = json!([]);
        }
        if let Some(list) = new[field].as_array_mut() {
            for item in items {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        }
    }
    if !wanted["aggregationRule"].is_null() {
        new["aggregationRule"] = wanted["aggregationRule"].clone();
    }
    for field in ["labels", "annotations"] {
        let extra = wanted["metadata"][field].as_object().cloned().unwrap_or_default();
        for (key, value) in extra {
            new["metadata"][field][key] = value;
        }
    }
    new
}
