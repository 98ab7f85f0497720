//! What the server sets up for the cluster at start: system namespaces, roles, priority classes, flow schemas, the
//! service range, and the `kubernetes` Service that leads to the server itself. I/O: reads the clock.

pub mod authentication_info;
pub mod endpoints;
pub mod masterleases;

use futures::StreamExt;
use meta::Status;
use serde_json::{Value, json};

use self::endpoints::Advertised;
use crate::cache::corrupt;
use crate::config::Config;
use crate::error::Error;
use crate::registry::verbs::Verbs;

/// Objects written at once while a new cluster is set up.
const AT_ONCE: usize = 32;
/// Roles with this annotation set to "false" are left as people made them.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Sets up what a new cluster needs, and brings it back where it was lost.
pub struct Bootstrap<'a> {
    pub verbs: &'a Verbs,
    pub config: &'a Config,
    pub advertised: &'a Advertised,
}

impl Bootstrap<'_> {
    /// Everything that must exist before the first client comes.
    pub async fn run(&self) -> Result<(), Error> {
        let (namespaces, others): (Vec<Value>, Vec<Value>) =
            kinds::bootstrap().partition(|object| object["kind"] == "Namespace");
        // Namespaces come first: the others live in them. Many at once share the store's disk writes.
        for objects in [namespaces, others] {
            let outcomes = futures::stream::iter(objects).map(|object| self.settle_object(object));
            let outcomes: Vec<_> = outcomes.buffer_unordered(AT_ONCE).collect().await;
            outcomes.into_iter().collect::<Result<(), Error>>()?;
        }
        settled("the service range", self.service_range().await)?;
        settled("the front proxies' trust", authentication_info::tell(self.verbs, self.config).await)?;
        settled("the kubernetes Service", self.advertised.kubernetes_service(self.verbs).await)
    }

    async fn settle_object(&self, object: Value) -> Result<(), Error> {
        let outcome = async {
            if !self.verbs.ensure(&object).await? {
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
        let Some(served) = self.verbs.served_of(wanted) else { return Ok(()) };
        let (name, namespace) = (text(wanted, "name"), text(wanted, "namespace"));
        let Some(store) = &served.store else { return Ok(()) };
        let Some(entry) = store.cache.lookup(namespace, name) else { return Ok(()) };
        let have = entry.object();
        if have["metadata"]["annotations"][AUTOUPDATE] == "false" || covers(&have, wanted) {
            return Ok(());
        }
        let plural = served.kind.plural.clone();
        self.verbs.amend("rbac.authorization.k8s.io", &plural, namespace, name, |old| Ok(merged(old, wanted))).await
    }

    /// The default ServiceCIDR: made, or given the second family when the flag has one now. That it is ready says its
    /// controller; the ranges of the flag are in use in any case.
    async fn service_range(&self) -> Result<(), Status> {
        let cidrs: Vec<&str> = self.config.service_cluster_ip_range.split(',').map(str::trim).collect();
        let range = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": cidrs},
        });
        if self.verbs.ensure(&range).await? || cidrs.len() < 2 {
            return Ok(());
        }
        let both = |old: &Value| {
            let mut new = old.clone();
            if old["spec"]["cidrs"] == json!([cidrs[0]]) {
                new["spec"]["cidrs"] = json!(cidrs);
            }
            Ok(new)
        };
        self.verbs.amend("networking.k8s.io", "servicecidrs", "", "kubernetes", both).await
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
