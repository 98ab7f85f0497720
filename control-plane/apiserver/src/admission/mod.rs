//! The admission chain: what happens between decoding an object and storing it, beyond its own kind's rules.
//!
//! [`ADMISSION`] is the table, in upstream's order. Every plugin first gets to change the object ([`Plugin::admit`]),
//! then, when the object is final, to refuse it ([`Plugin::validate`]).

mod always_pull_images;
mod certificates;
pub mod configuration;
mod csr;
mod custom_resources;
mod default_ingress_class;
mod default_storage_class;
mod default_tolerations;
mod deny_external_ips;
pub mod event_rate_limit;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod owner_references;
pub mod pod_security;
mod priority;
mod rbac_escalation;
mod refuse_unenforced;
mod resource_quota;
mod runtime_class;
mod service_account;
mod service_allocation;
mod storage_protection;
mod taint_nodes;

use async_trait::async_trait;
use kinds::{Kind, KindRef};
use meta::{Gvr, Status};
use parking_lot::Mutex;
use serde_json::Value;

use crate::authn::UserInfo;
use crate::reservations::Turn;
use crate::server::Core;
use crate::storage::{Guard, Write};

/// What is being done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// The word in AdmissionReview and in messages.
    pub fn word(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// One request on its way through the chain.
pub struct Request<'a> {
    pub operation: Operation,
    pub kind: &'a KindRef,
    /// Empty for the main resource.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty on create with generateName only.
    pub name: &'a str,
    /// The new object in the request's version; null for deletes, the options for connects.
    pub object: &'a mut Value,
    /// The object before; `None` on create.
    pub old: Option<&'a Value>,
    pub user: &'a UserInfo,
    pub dry_run: bool,
    /// Writes that must happen in the same transaction as the object's own (allocations), with their guards.
    pub extra: &'a mut Extra,
    pub warnings: &'a Mutex<Vec<String>>,
}

/// See [`Request::extra`]. Both halves of the chain add to it.
#[derive(Debug, Default)]
pub struct Extra(Mutex<Parts>);

/// What of a transaction goes beside the object.
#[derive(Debug, Default)]
pub struct Parts {
    pub guards: Vec<Guard>,
    pub writes: Vec<Write>,
    /// Let go of when the transaction is done: those who compete for one thing wait here and not by losing races.
    pub held: Option<Turn>,
}

impl Extra {
    /// The transaction fails unless this holds.
    pub fn guard(&self, guard: Guard) {
        self.0.lock().guards.push(guard);
    }

    pub fn write(&self, write: Write) {
        self.0.lock().writes.push(write);
    }

    /// Keeps a turn until the transaction is done.
    pub fn hold(&self, turn: Turn) {
        self.0.lock().held = Some(turn);
    }

    pub fn is_empty(&self) -> bool {
        let parts = self.0.lock();
        parts.guards.is_empty() && parts.writes.is_empty()
    }

    pub fn into_parts(self) -> Parts {
        self.0.into_inner()
    }
}

impl Request<'_> {
    /// Whether this is about `plural` of `group`, main resource only.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.kind.group == group && self.kind.plural == plural
    }

    pub fn gvr(&self) -> Gvr {
        self.kind.gvr()
    }

    /// The 403 of a plugin, in upstream's form.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        let generated = self.object["metadata"]["name"].as_str().unwrap_or_default();
        Status::forbidden(&self.gvr(), if self.name.is_empty() { generated } else { self.name }, why)
    }

    /// Adds a `Warning` header to the answer.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().push(text.into());
    }

    pub fn kind(&self) -> &Kind {
        self.kind
    }
}

/// One admission plugin. Plugins are stateless values; what they know comes from `core`'s caches.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Upstream's name, as in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    /// Whether the plugin cares at all; called first, so it must be cheap.
    fn handles(&self, request: &Request<'_>) -> bool;

    /// May change the object, or refuse.
    async fn admit(&self, _request: &mut Request<'_>, _core: &Core) -> Result<(), Status> {
        Ok(())
    }

    /// May refuse the final object.
    async fn validate(&self, _request: &Request<'_>, _core: &Core) -> Result<(), Status> {
        Ok(())
    }
}

/// A row of the table.
pub struct Row {
    pub plugin: &'static dyn Plugin,
    /// Part of the chain without being asked for.
    pub default_on: bool,
}

const fn on(plugin: &'static dyn Plugin) -> Row {
    Row { plugin, default_on: true }
}

const fn asked_for(plugin: &'static dyn Plugin) -> Row {
    Row { plugin, default_on: false }
}

/// Every admission plugin, in the order in which they run.
pub static ADMISSION: &[Row] = &[
    on(&namespace_lifecycle::NamespaceLifecycle),
    on(&limit_ranger::LimitRanger),
    on(&service_account::ServiceAccount),
    asked_for(&node_restriction::NodeRestriction),
    on(&taint_nodes::TaintNodesByCondition),
    asked_for(&always_pull_images::AlwaysPullImages),
    on(&pod_security::PodSecurity),
    on(&priority::Priority),
    on(&default_tolerations::DefaultTolerationSeconds),
    asked_for(&event_rate_limit::EventRateLimit),
    on(&default_storage_class::DefaultStorageClass),
    on(&storage_protection::StorageObjectInUseProtection),
    asked_for(&owner_references::OwnerReferences),
    on(&runtime_class::RuntimeClass),
    on(&certificates::CertificateApproval),
    on(&certificates::CertificateSigning),
    on(&certificates::ClusterTrustBundleAttest),
    on(&certificates::CertificateSubjectRestriction),
    on(&default_ingress_class::DefaultIngressClass),
    asked_for(&deny_external_ips::DenyServiceExternalIPs),
    on(&refuse_unenforced::RefuseUnenforced),
    on(&rbac_escalation::RbacEscalation),
    on(&custom_resources::CustomResourceDefinitions),
    on(&service_allocation::ServiceAllocation),
    on(&resource_quota::ResourceQuota),
];

/// Whether an update changes only what the garbage collector needs to change before an object can go.
fn only_garbage_collection(new: &Value, old: &Value) -> bool {
    let mut new = new.clone();
    for field in ["ownerReferences", "finalizers", "managedFields"] {
        match old["metadata"].get(field) {
            Some(value) => new["metadata"][field] = value.clone(),
            None => drop(new["metadata"].as_object_mut().and_then(|metadata| metadata.remove(field))),
        }
    }
    new == *old
}

/// Runs the mutating half.
pub async fn admit(request: &mut Request<'_>, core: &Core) -> Result<(), Status> {
    for row in core.admission() {
        if row.plugin.handles(request) {
            let measured = core.metrics.plugin(row.plugin.name(), request.operation.word(), "admit");
            let outcome = row.plugin.admit(request, core).await;
            measured.end(outcome.is_err());
            outcome?;
        }
    }
    Ok(())
}

/// Runs the validating half.
pub async fn validate(request: &Request<'_>, core: &Core) -> Result<(), Status> {
    for row in core.admission() {
        if row.plugin.handles(request) {
            let measured = core.metrics.plugin(row.plugin.name(), request.operation.word(), "validate");
            let outcome = row.plugin.validate(request, core).await;
            measured.end(outcome.is_err());
            outcome?;
        }
    }
    Ok(())
}

/// The name of the class that an annotation makes the default; of several the newest, then the first by name.
fn newest_default(classes: Vec<Value>, annotations: &[&str]) -> Option<String> {
    let marked = |class: &Value| annotations.iter().any(|key| class["metadata"]["annotations"][key] == "true");
    let of = |class: &Value, field: &str| class["metadata"][field].as_str().unwrap_or_default().to_owned();
    let mut defaults: Vec<(String, String)> = classes
        .iter()
        .filter(|class| marked(class))
        .map(|class| (of(class, "creationTimestamp"), of(class, "name")))
        .collect();
    defaults.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    defaults.into_iter().next().map(|(_, name)| name)
}

#[cfg(test)]
mod tests;
