//! The table of built-in kinds, in the order of discovery, and how to find a row.
//! Routes, discovery, OpenAPI, storage, printing, quota and garbage collection are loops over it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::kind::{Kind, KindRef};

/// The 72 built-in kinds.
pub static ALL: LazyLock<Vec<KindRef>> = LazyLock::new(|| ROWS.iter().map(|row| Arc::new(row())).collect());

const ROWS: [fn() -> Kind; 72] = [
    crate::core::binding::kind,
    crate::core::component_status::kind,
    crate::core::config_map::kind,
    crate::core::endpoints::kind,
    crate::core::event::kind,
    crate::core::limit_range::kind,
    crate::core::namespace::kind,
    crate::core::node::kind,
    crate::core::persistent_volume_claim::kind,
    crate::core::persistent_volume::kind,
    crate::core::pod::kind,
    crate::core::pod_template::kind,
    crate::core::replication_controller::kind,
    crate::core::resource_quota::kind,
    crate::core::secret::kind,
    crate::core::service_account::kind,
    crate::core::service::kind,
    crate::apiregistration::api_service::kind,
    crate::apps::controller_revision::kind,
    crate::apps::daemon_set::kind,
    crate::apps::deployment::kind,
    crate::apps::replica_set::kind,
    crate::apps::stateful_set::kind,
    crate::events::event::kind,
    crate::authentication::self_subject_review::kind,
    crate::authentication::token_review::kind,
    crate::authorization::local_subject_access_review::kind,
    crate::authorization::self_subject_access_review::kind,
    crate::authorization::self_subject_rules_review::kind,
    crate::authorization::subject_access_review::kind,
    crate::autoscaling::horizontal_pod_autoscaler::kind,
    crate::autoscaling::horizontal_pod_autoscaler_v1::kind,
    crate::batch::cron_job::kind,
    crate::batch::job::kind,
    crate::certificates::certificate_signing_request::kind,
    crate::certificates::cluster_trust_bundle::kind,
    crate::certificates::pod_certificate_request::kind,
    crate::networking::ingress_class::kind,
    crate::networking::ingress::kind,
    crate::networking::ip_address::kind,
    crate::networking::network_policy::kind,
    crate::networking::service_cidr::kind,
    crate::policy::pod_disruption_budget::kind,
    crate::rbac::cluster_role_binding::kind,
    crate::rbac::cluster_role::kind,
    crate::rbac::role_binding::kind,
    crate::rbac::role::kind,
    crate::storage::csi_driver::kind,
    crate::storage::csi_node::kind,
    crate::storage::csi_storage_capacity::kind,
    crate::storage::storage_class::kind,
    crate::storage::volume_attachment::kind,
    crate::storage::volume_attributes_class::kind,
    crate::admissionregistration::mutating_admission_policy::kind,
    crate::admissionregistration::mutating_admission_policy_binding::kind,
    crate::admissionregistration::mutating_webhook_configuration::kind,
    crate::admissionregistration::validating_admission_policy::kind,
    crate::admissionregistration::validating_admission_policy_binding::kind,
    crate::admissionregistration::validating_webhook_configuration::kind,
    crate::apiextensions::custom_resource_definition::kind,
    crate::scheduling::priority_class::kind,
    crate::coordination::lease::kind,
    crate::node::runtime_class::kind,
    crate::discovery::endpoint_slice::kind,
    crate::resource::device_class::kind,
    crate::resource::device_taint_rule::kind,
    crate::resource::resource_claim::kind,
    crate::resource::resource_claim_template::kind,
    crate::resource::resource_slice::kind,
    crate::flowcontrol::flow_schema::kind,
    crate::flowcontrol::priority_level_configuration::kind,
    crate::storagemigration::storage_version_migration::kind,
];

static BY_KIND: LazyLock<HashMap<(&'static str, &'static str, &'static str), usize>> =
    LazyLock::new(|| ALL.iter().enumerate().map(|(i, k)| ((&*k.group, &*k.version, &*k.kind), i)).collect());

static BY_RESOURCE: LazyLock<HashMap<(&'static str, &'static str, &'static str), usize>> =
    LazyLock::new(|| ALL.iter().enumerate().map(|(i, k)| ((&*k.group, &*k.version, &*k.plural), i)).collect());

/// The built-in kind of that name.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static KindRef> {
    BY_KIND.get(&(group, version, kind)).map(|i| &ALL[*i])
}

/// The built-in kind of that plural resource name.
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static KindRef> {
    BY_RESOURCE.get(&(group, version, plural)).map(|i| &ALL[*i])
}
