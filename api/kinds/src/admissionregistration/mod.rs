//! Kinds of the `admissionregistration` group.

use jiff::Timestamp;
use serde_json::Value;

use crate::print::{age, name, selector_text};
use crate::value::{at, items, text};

pub(crate) mod mutating_admission_policy;
pub(crate) mod mutating_admission_policy_binding;
pub(crate) mod mutating_webhook_configuration;
pub(crate) mod validating_admission_policy;
pub(crate) mod validating_admission_policy_binding;
pub(crate) mod validating_webhook_configuration;

/// Name, number of rules (at `rules`), parameter kind and age of a policy.
fn policy_row(object: &Value, rules: &str, now: Timestamp) -> Vec<Value> {
    let kind = at(object, "spec.paramKind").map(|p| format!("{}/{}", text(p, "apiVersion"), text(p, "kind")));
    let kind = kind.unwrap_or_else(|| "<unset>".to_owned());
    vec![name(object), items(object, rules).len().into(), kind.into(), age(object, now)]
}

/// Name, policy, parameter and age of a policy binding. A parameter without a namespace may be in any.
fn binding_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameter = at(object, "spec.paramRef").map(|p| match (text(p, "namespace"), text(p, "name")) {
        (_, "") => p.get("selector").and_then(selector_text).unwrap_or_else(|| "<unset>".to_owned()),
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    });
    let parameter = parameter.unwrap_or_else(|| "<unset>".to_owned());
    vec![name(object), text(object, "spec.policyName").into(), parameter.into(), age(object, now)]
}

/// Name, number of webhooks and age.
fn webhooks_row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), items(object, "webhooks").len().into(), age(object, now)]
}
