//! What makes a flow schema valid: whose requests it is about, and which priority level they get.

use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, follows};
use crate::value::{at, flag, int, items, text};

const VERBS: [&str; 8] = ["get", "list", "create", "update", "delete", "deletecollection", "patch", "watch"];
const URL_VERBS: [&str; 8] = ["get", "head", "post", "put", "delete", "connect", "options", "trace"];
/// Lowest precedence.
const LAST: i64 = 10_000;
/// The one schema that may come first.
const EXEMPT: &str = "exempt";

/// Everything wrong with a schema.
pub(super) fn schema(schema: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(schema, "spec").unwrap_or(&Value::Null);
    precedence(&mut errors, path.child("matchingPrecedence"), spec, text(schema, "metadata.name"));
    let method = path.child("distinguisherMethod");
    crate::check::one_of_if_set(
        &mut errors,
        &method,
        at(spec, "distinguisherMethod").unwrap_or(&Value::Null),
        "type",
        &["ByNamespace", "ByUser"],
    );
    let level = path.child("priorityLevelConfiguration");
    match text(spec, "priorityLevelConfiguration.name") {
        "" => errors.push(FieldError::required(level.child("name"), "must reference a priority level")),
        name => follows(&mut errors, level.child("name"), name, names::dns1123_subdomain),
    }
    let list = path.child("rules");
    for (i, rule) in items(spec, "rules").iter().enumerate() {
        policy(&mut errors, list.index(i), rule);
    }
    errors
}

fn precedence(errors: &mut Errors, path: Path, spec: &Value, name: &str) {
    let precedence = int(spec, "matchingPrecedence").unwrap_or(0);
    if precedence <= 0 {
        errors.push(FieldError::invalid(path, precedence, "must be a positive value"));
    }
    if precedence > LAST {
        errors.push(FieldError::invalid(path, precedence, format!("must not be greater than {LAST}")));
    }
    if precedence == 1 && name != EXEMPT {
        let message = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(FieldError::invalid(path, precedence, message));
    }
}

fn policy(errors: &mut Errors, path: Path, rule: &Value) {
    let (subjects, resources, urls) =
        (items(rule, "subjects"), items(rule, "resourceRules"), items(rule, "nonResourceRules"));
    let list = path.child("subjects");
    if subjects.is_empty() {
        errors.push(FieldError::required(list, "subjects must contain at least one value"));
    }
    for (i, subject) in subjects.iter().enumerate() {
        check_subject(errors, list.index(i), subject);
    }
    if resources.is_empty() && urls.is_empty() {
        errors
            .push(FieldError::required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    let list = path.child("resourceRules");
    for (i, rule) in resources.iter().enumerate() {
        resource(errors, list.index(i), rule);
    }
    let list = path.child("nonResourceRules");
    for (i, rule) in urls.iter().enumerate() {
        non_resource(errors, list.index(i), rule);
    }
}

/// The word for a kind of subject, and where it says more.
const SUBJECTS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn check_subject(errors: &mut Errors, path: Path, subject: &Value) {
    let kind = text(subject, "kind");
    if !SUBJECTS.iter().any(|(known, _)| *known == kind) {
        errors.push(FieldError::not_supported(path.child("kind"), kind, ["Group", "ServiceAccount", "User"]));
        return;
    }
    for (known, key) in SUBJECTS {
        let path = path.child(key);
        match (known == kind, at(subject, key)) {
            (true, None) => {
                let message = format!("{key} is required when subject kind is '{known}'");
                errors.push(FieldError::required(path, message));
            }
            (true, Some(_)) if known == "ServiceAccount" => account(errors, path, subject),
            (true, Some(named)) if text(named, "name").is_empty() => {
                errors.push(FieldError::required(path.child("name"), ""));
            }
            (false, Some(_)) => {
                let message = format!("{key} is forbidden when subject kind is not '{known}'");
                errors.push(FieldError::forbidden(path, message));
            }
            _ => {}
        }
    }
}

fn account(errors: &mut Errors, path: Path, subject: &Value) {
    let namespace = text(subject, "serviceAccount.namespace");
    let name = text(subject, "serviceAccount.name");
    match name {
        "" => errors.push(FieldError::required(path.child("name"), "")),
        "*" => {}
        name => follows(errors, path.child("name"), name, names::dns1123_subdomain),
    }
    match namespace {
        "" => errors.push(FieldError::required(path.child("namespace"), "must specify namespace for service account")),
        namespace => follows(errors, path.child("namespace"), namespace, names::dns1123_label),
    }
}

/// A list of words, in which a star stands for all and therefore alone.
fn words<'a>(errors: &mut Errors, path: Path, rule: &'a Value, key: &str, what: &str) -> Vec<&'a str> {
    let list: Vec<&str> = items(rule, key).iter().filter_map(Value::as_str).collect();
    if list.len() > 1 && list.contains(&"*") {
        let message = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, list.clone(), message));
    }
    list
}

fn verbs(errors: &mut Errors, path: Path, rule: &Value, known: &[&str]) {
    let path = path.child("verbs");
    let list = words(errors, path, rule, "verbs", "verbs");
    if list.is_empty() {
        errors.push(FieldError::required(path, "verbs must contain at least one value"));
    } else if !list.contains(&"*") && !list.iter().all(|verb| known.contains(verb)) {
        errors.push(FieldError::not_supported(path, list, known.iter().copied()));
    }
}

fn resource(errors: &mut Errors, path: Path, rule: &Value) {
    verbs(errors, path, rule, &VERBS);
    for (key, what, missing) in [
        ("apiGroups", "api groups", "resource rules must supply at least one api group"),
        ("resources", "resources", "resource rules must supply at least one resource"),
    ] {
        if words(errors, path.child(key), rule, key, what).is_empty() {
            errors.push(FieldError::required(path.child(key), missing));
        }
    }
    let list = path.child("namespaces");
    let namespaces = items(rule, "namespaces");
    if namespaces.is_empty() && !flag(rule, "clusterScope") {
        let message = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(FieldError::required(list, message));
    }
    let namespaces = words(errors, list, rule, "namespaces", "namespaces");
    for (i, namespace) in namespaces.iter().enumerate().filter(|(_, n)| **n != "*") {
        follows(errors, list.index(i), namespace, names::dns1123_label);
    }
}

fn non_resource(errors: &mut Errors, path: Path, rule: &Value) {
    verbs(errors, path, rule, &URL_VERBS);
    let list = path.child("nonResourceURLs");
    let urls = words(errors, list, rule, "nonResourceURLs", "non-resource URLs");
    if urls.is_empty() {
        errors.push(FieldError::required(list, "nonResourceURLs must contain at least one value"));
        return;
    }
    for (i, url) in urls.iter().enumerate().filter(|(_, u)| **u != "*") {
        if let Some(why) = bad_url(url) {
            errors.push(FieldError::invalid(list.index(i), *url, why));
        }
    }
}

/// Why a path is none that a rule may be about.
fn bad_url(url: &str) -> Option<&'static str> {
    if url.is_empty() {
        Some("nonResourceURL must not be empty")
    } else if url == "/" {
        None
    } else if url.contains(' ') {
        Some("nonResourceURL must not contain white-space")
    } else if !url.starts_with('/') {
        Some("nonResourceURL must start with slash")
    } else if url.contains("//") {
        Some("nonResourceURL must not contain double slash")
    } else if url.strip_suffix("/*").unwrap_or(url).contains('*') {
        Some("wildcard can only do suffix matching")
    } else {
        None
    }
}
