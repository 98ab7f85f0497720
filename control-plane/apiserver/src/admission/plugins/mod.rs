//! The admission plugins, one file each; [`ADMISSION`](super::ADMISSION) puts them in order. A plugin knows the request
//! and the [`World`](super::World), and nothing of the server.

pub mod always_pull_images;
pub mod certificates;
mod csr;
pub mod custom_resources;
mod default_class;
pub mod default_ingress_class;
pub mod default_storage_class;
pub mod default_tolerations;
pub mod deny_external_ips;
pub mod event_rate_limit;
pub mod limit_ranger;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod owner_references;
pub mod pod_security;
pub mod priority;
pub mod rbac_escalation;
pub mod refuse_unenforced;
mod reservations;
pub mod resource_quota;
pub mod runtime_class;
pub mod service_account;
pub mod service_allocation;
pub mod storage_protection;
pub mod taint_nodes;
