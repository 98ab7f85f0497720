//! Kinds of the `rbac` group.

use jiff::Timestamp;
use serde_json::Value;

use crate::print::{age, name};
use crate::value::{default_at, items, items_mut, text};

pub(crate) mod cluster_role;
pub(crate) mod cluster_role_binding;
pub(crate) mod role;
pub(crate) mod role_binding;
mod validate;

/// Role, users, groups and service accounts of a binding.
fn binding_row(object: &Value, now: Timestamp) -> Vec<Value> {
    let subjects = |kind: &str| {
        let of_kind = items(object, "subjects").iter().filter(|s| text(s, "kind") == kind);
        let names = of_kind.map(|s| match text(s, "namespace") {
            namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
                format!("{namespace}/{}", text(s, "name"))
            }
            _ => text(s, "name").to_owned(),
        });
        Value::from(names.collect::<Vec<_>>().join(", "))
    };
    let role = format!("{}/{}", text(object, "roleRef.kind"), text(object, "roleRef.name"));
    vec![name(object), role.into(), age(object, now), subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}

/// Users and groups are of the API group; service accounts of none.
fn default_subjects(binding: &mut Value) {
    for subject in items_mut(binding, "subjects").filter(|s| ["User", "Group"].contains(&text(s, "kind"))) {
        if text(subject, "apiGroup").is_empty() {
            subject["apiGroup"] = "rbac.authorization.k8s.io".into();
        }
    }
    if text(binding, "roleRef.apiGroup").is_empty() {
        default_at(binding, "roleRef.apiGroup", "rbac.authorization.k8s.io");
    }
}
