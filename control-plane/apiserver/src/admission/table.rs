//! The table of admission plugins. The binary reads the names, for its flags.

use std::sync::Arc;

use super::plugins::always_pull_images::AlwaysPullImages;
use super::plugins::certificates::{
    CertificateApproval, CertificateSigning, CertificateSubjectRestriction, ClusterTrustBundleAttest,
};
use super::plugins::custom_resources::CustomResourceDefinitions;
use super::plugins::default_ingress_class::DefaultIngressClass;
use super::plugins::default_storage_class::DefaultStorageClass;
use super::plugins::default_tolerations::DefaultTolerationSeconds;
use super::plugins::deny_external_ips::DenyServiceExternalIPs;
use super::plugins::event_rate_limit::{self, EventRateLimit};
use super::plugins::limit_ranger::LimitRanger;
use super::plugins::namespace_lifecycle::NamespaceLifecycle;
use super::plugins::node_restriction::NodeRestriction;
use super::plugins::owner_references::OwnerReferences;
use super::plugins::pod_security::{self, PodSecurity};
use super::plugins::priority::Priority;
use super::plugins::rbac_escalation::RbacEscalation;
use super::plugins::refuse_unenforced::RefuseUnenforced;
use super::plugins::resource_quota::ResourceQuota;
use super::plugins::runtime_class::RuntimeClass;
use super::plugins::service_account::ServiceAccount;
use super::plugins::service_allocation::ServiceAllocation;
use super::plugins::storage_protection::StorageObjectInUseProtection;
use super::plugins::taint_nodes::TaintNodesByCondition;
use super::{Mutating, Parts, Validating};
use crate::error::Error;

/// A row of the table.
pub struct Row {
    /// Upstream's name, as in `--enable-admission-plugins`.
    pub name: &'static str,
    /// Part of the chain without being asked for.
    pub default_on: bool,
    /// Makes the plugin and says by which of the four functions below in which stages it stands.
    pub make: fn(&Parts<'_>) -> Made,
}

pub type Made = Result<Halves, Error>;

/// One plugin as the stages of the chain hold it.
#[derive(Default)]
pub struct Halves {
    pub mutating: Option<Arc<dyn Mutating>>,
    pub allocating: Option<Arc<dyn Mutating>>,
    pub validating: Option<Arc<dyn Validating>>,
}

fn mutating(plugin: impl Mutating + 'static) -> Made {
    Ok(Halves { mutating: Some(Arc::new(plugin)), ..Halves::default() })
}

/// Changes the object after all others have, once: what it gives out is not given back in a second round.
fn allocating(plugin: impl Mutating + 'static) -> Made {
    Ok(Halves { allocating: Some(Arc::new(plugin)), ..Halves::default() })
}

fn validating(plugin: impl Validating + 'static) -> Made {
    Ok(Halves { validating: Some(Arc::new(plugin)), ..Halves::default() })
}

fn both(plugin: impl Mutating + Validating + 'static) -> Made {
    let plugin = Arc::new(plugin);
    Ok(Halves { mutating: Some(plugin.clone()), validating: Some(plugin), ..Halves::default() })
}

const fn on(name: &'static str, make: fn(&Parts<'_>) -> Made) -> Row {
    Row { name, default_on: true, make }
}

const fn asked_for(name: &'static str, make: fn(&Parts<'_>) -> Made) -> Row {
    Row { name, default_on: false, make }
}

/// Plugins that take a configuration of their own.
pub const CONFIGURED: &[&str] = &[event_rate_limit::NAME, pod_security::NAME];

/// Every admission plugin, in the order in which they run: upstream's, then what upstream does in the registries of kinds.
pub static ADMISSION: &[Row] = &[
    on("NamespaceLifecycle", |_| mutating(NamespaceLifecycle)),
    on("LimitRanger", |_| both(LimitRanger)),
    on("ServiceAccount", |_| mutating(ServiceAccount)),
    asked_for("NodeRestriction", |_| mutating(NodeRestriction)),
    on("TaintNodesByCondition", |_| mutating(TaintNodesByCondition)),
    asked_for("AlwaysPullImages", |_| both(AlwaysPullImages)),
    on(pod_security::NAME, |parts| validating(PodSecurity::new(parts)?)),
    on("Priority", |_| mutating(Priority)),
    on("DefaultTolerationSeconds", |_| mutating(DefaultTolerationSeconds)),
    asked_for(event_rate_limit::NAME, |parts| validating(EventRateLimit::new(parts)?)),
    on("DefaultStorageClass", |_| mutating(DefaultStorageClass)),
    on("StorageObjectInUseProtection", |_| mutating(StorageObjectInUseProtection)),
    asked_for("OwnerReferencesPermissionEnforcement", |_| validating(OwnerReferences)),
    on("RuntimeClass", |_| both(RuntimeClass)),
    on("CertificateApproval", |_| validating(CertificateApproval)),
    on("CertificateSigning", |_| validating(CertificateSigning)),
    on("ClusterTrustBundleAttest", |_| validating(ClusterTrustBundleAttest)),
    on("CertificateSubjectRestriction", |_| validating(CertificateSubjectRestriction)),
    on("DefaultIngressClass", |_| mutating(DefaultIngressClass)),
    asked_for("DenyServiceExternalIPs", |_| validating(DenyServiceExternalIPs)),
    on("RefuseUnenforced", |_| mutating(RefuseUnenforced)),
    on("RbacEscalation", |_| mutating(RbacEscalation)),
    on("CustomResourceDefinitions", |_| validating(CustomResourceDefinitions)),
    on("ServiceAllocation", |parts| allocating(ServiceAllocation::new(parts)?)),
    on("ResourceQuota", |_| validating(ResourceQuota::default())),
];
