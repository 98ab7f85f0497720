//! What makes roles and their bindings valid.

use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, among, follows, immutable, label_selector, present};
use crate::value::{at, items, text};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules of a role. Roles of a namespace have no say over paths that are not resources.
pub(crate) fn rules(role: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let list = Path::root("rules");
    for (i, rule) in items(role, "rules").iter().enumerate() {
        let path = list.index(i);
        let given = |key: &str| !items(rule, key).is_empty();
        if !given("verbs") {
            errors.push(FieldError::required(path.child("verbs"), ""));
        }
        if given("nonResourceURLs") {
            let urls = || at(rule, "nonResourceURLs").cloned().unwrap_or(Value::Null);
            let path = path.child("nonResourceURLs");
            if namespaced {
                let message = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(path, urls(), message));
            }
            if given("apiGroups") || given("resources") || given("resourceNames") {
                let message = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(path, urls(), message));
            }
            continue;
        }
        if !given("apiGroups") {
            let message = "resource rules must supply at least one api group";
            errors.push(FieldError::required(path.child("apiGroups"), message));
        }
        if !given("resources") {
            let message = "resource rules must supply at least one resource";
            errors.push(FieldError::required(path.child("resources"), message));
        }
    }
    errors
}

/// The rules of a cluster role, and whose rules it collects.
pub(crate) fn cluster_role(role: &Value) -> Vec<FieldError> {
    let mut errors = rules(role, false);
    let Some(rule) = at(role, "aggregationRule") else { return errors };
    let root = Path::root("aggregationRule");
    let list = root.child("clusterRoleSelectors");
    let selectors = items(rule, "clusterRoleSelectors");
    if selectors.is_empty() {
        let message = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required(list, message));
    }
    for (i, selector) in selectors.iter().enumerate() {
        label_selector(&mut errors, list.index(i), Some(selector));
        if meta::Selector::from_object(Some(selector)).is_err() {
            errors.push(FieldError::invalid(list.index(i), Value::Null, "invalid label selector."));
        }
    }
    errors
}

/// A binding refers to a role and gives it to subjects.
pub(crate) fn binding(binding: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let role = Path::root("roleRef");
    among(&mut errors, role.child("apiGroup"), text(binding, "roleRef.apiGroup"), &[GROUP]);
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    among(&mut errors, role.child("kind"), text(binding, "roleRef.kind"), kinds);
    let reference = at(binding, "roleRef").unwrap_or(&Value::Null);
    crate::check::named(&mut errors, &role, reference, "name", names::path_segment);
    let list = Path::root("subjects");
    for (i, one) in items(binding, "subjects").iter().enumerate() {
        subject(&mut errors, list.index(i), one, namespaced);
    }
    errors
}

fn subject(errors: &mut Errors, path: Path, subject: &Value, namespaced: bool) {
    let named = present(errors, &path, subject, "name");
    let group = text(subject, "apiGroup");
    match text(subject, "kind") {
        "ServiceAccount" => {
            if named {
                follows(errors, path.child("name"), text(subject, "name"), names::dns1123_subdomain);
            }
            if !group.is_empty() {
                errors.push(FieldError::not_supported(path.child("apiGroup"), group, [""]));
            }
            if !namespaced {
                present(errors, &path, subject, "namespace");
            }
        }
        "User" | "Group" => among(errors, path.child("apiGroup"), group, &[GROUP]),
        other => among(errors, path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// A binding keeps its role, so that one may be trusted to change who has it.
pub(crate) fn binding_update(new: &Value, old: &Value, namespaced: bool) -> Vec<FieldError> {
    let mut errors = binding(new, namespaced);
    immutable(&mut errors, Path::root("roleRef"), at(new, "roleRef"), at(old, "roleRef"));
    errors
}
