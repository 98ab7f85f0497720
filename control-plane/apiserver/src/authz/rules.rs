//! Policy rules of RBAC, compiled: which verbs on which resources, by name or not, and which paths. Pure; used by the
//! RBAC and the node authoriser and by the escalation check.

use serde_json::{Value, json};

use super::Attributes;

/// One rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub paths: Vec<String>,
}

fn list(rule: &Value, field: &str) -> Vec<String> {
    rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Rule {
    pub fn of(rule: &Value) -> Rule {
        Rule {
            verbs: list(rule, "verbs"),
            groups: list(rule, "apiGroups"),
            resources: list(rule, "resources"),
            names: list(rule, "resourceNames"),
            paths: list(rule, "nonResourceURLs"),
        }
    }

    /// Every rule of a role object.
    pub fn all(role: &Value) -> Vec<Rule> {
        role["rules"].as_array().into_iter().flatten().map(Rule::of).collect()
    }

    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|v| v == "*" || v == wanted);
        if !has(&self.verbs, a.verb) {
            return false;
        }
        if !a.resource_request {
            return self.paths.iter().any(|p| path_matches(p, a.path));
        }
        has(&self.groups, a.group)
            && self.resources.iter().any(|r| resource_matches(r, a.resource, a.subresource))
            && (self.names.is_empty() || self.names.iter().any(|n| n == a.name))
    }

    /// As a SelfSubjectRulesReview shows it.
    pub fn to_value(&self) -> Value {
        if !self.paths.is_empty() {
            return json!({"verbs": self.verbs, "nonResourceURLs": self.paths});
        }
        let mut rule = json!({"verbs": self.verbs, "apiGroups": self.groups, "resources": self.resources});
        if !self.names.is_empty() {
            rule["resourceNames"] = json!(self.names);
        }
        rule
    }
}

/// `*` matches all, `pods/log` and `*/scale` a subresource.
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    match rule.split_once('/') {
        Some((left, right)) => (left == "*" || left == resource) && right == subresource,
        None => false,
    }
}

/// A path, or a prefix that ends in `*`.
fn path_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_and_paths_match_as_upstream() {
        assert!(resource_matches("*", "pods", "log") && resource_matches("pods/log", "pods", "log"));
        assert!(resource_matches("*/scale", "deployments", "scale") && !resource_matches("pods", "pods", "log"));
        assert!(
            path_matches("/healthz/*", "/healthz/etcd") && path_matches("*", "/x") && !path_matches("/api", "/apis")
        );
    }
}
