//! Kinds of the `core` group.

use base64::Engine as _;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::check::{Errors, not_negative};
use crate::value::{at, int, text};

pub(crate) mod binding;
pub(crate) mod component_status;
pub(crate) mod config_map;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod limit_range;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod persistent_volume;
pub(crate) mod persistent_volume_claim;
pub(crate) mod pod;
mod pod_print;
pub(crate) mod pod_spec;
pub(crate) mod pod_strategy;
pub(crate) mod pod_template;
mod pod_validate;
pub(crate) mod replication_controller;
pub(crate) mod resource_quota;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod service_account;

/// Bytes behind a base64 text.
fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or("");
    base64::engine::general_purpose::STANDARD.decode(text).map_or(text.len(), |bytes| bytes.len())
}

/// Templates of pods that are kept running restart always and have no deadline.
pub(crate) fn always_running(errors: &mut Errors, path: Path, template: &Value, owner: &str) {
    let spec = path.child("spec");
    let policy = text(template, "spec.restartPolicy");
    if policy != "Always" {
        errors.push(FieldError::not_supported(spec.child("restartPolicy"), policy, ["Always"]));
    }
    if at(template, "spec.activeDeadlineSeconds").is_some() {
        let message = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.push(FieldError::forbidden(spec.child("activeDeadlineSeconds"), message));
    }
}

/// Counts in the status of a controller of replicas agree with each other.
pub(crate) fn replica_status(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("status");
    let status = at(object, "status").unwrap_or(&Value::Null);
    let count = |key: &str| int(status, key).unwrap_or(0);
    for key in ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"] {
        not_negative(&mut errors, &path, status, key);
    }
    let mut at_most = |key: &str, most: &str, message: &str| {
        if count(key) > count(most) {
            errors.push(FieldError::invalid(path.child(key), count(key), message));
        }
    };
    for key in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        at_most(key, "replicas", "cannot be greater than status.replicas");
    }
    at_most("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas");
    errors
}
