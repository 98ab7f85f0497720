//! Plain discovery: APIVersions, APIGroupList, APIGroup, APIResourceList. Pure.

use serde_json::{Value, json};

use crate::crd::versions::compare_versions;
use crate::registry::Registry;

/// `/api`.
pub fn versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    })
}

/// Versions of a group, preferred first.
pub fn versions_of(registry: &Registry, group: &str) -> Vec<String> {
    let mut versions: Vec<String> = Vec::new();
    for served in registry.of_group(group) {
        if !versions.iter().any(|known| served.kind.version == known.as_str()) {
            versions.push(served.kind.version.to_string());
        }
    }
    let priority = |version: &String| {
        kinds::groups::GROUPS
            .iter()
            .find(|g| g.group == group && g.version == version)
            .map_or(0, |g| g.version_priority)
    };
    versions.sort_by(|a, b| priority(b).cmp(&priority(a)).then_with(|| compare_versions(b, a)));
    versions
}

/// Groups in the order of discovery: built-in by priority, then custom ones by name.
pub fn group_names(registry: &Registry) -> Vec<String> {
    let mut names: Vec<String> = registry.groups().map(str::to_owned).collect();
    let builtin = |name: &String| -> i32 {
        if name == "apiregistration.k8s.io" {
            return i32::MAX;
        }
        kinds::groups::GROUPS.iter().find(|g| g.group == name).map_or(0, |g| g.group_priority)
    };
    names.sort_by(|a, b| builtin(b).cmp(&builtin(a)).then_with(|| a.cmp(b)));
    names
}

fn group_value(registry: &Registry, group: &str) -> Value {
    let versions: Vec<Value> = versions_of(registry, group)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

/// `/apis`.
pub fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = group_names(registry)
        .iter()
        .filter(|group| !group.is_empty())
        .map(|group| group_value(registry, group))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub fn group(registry: &Registry, group: &str) -> Value {
    let mut value = group_value(registry, group);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    value
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub fn resources(registry: &Registry, group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for served in registry.of_group(group).filter(|s| s.kind.version == version) {
        let kind = &served.kind;
        let mut row = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced(), "kind": kind.kind,
            "verbs": kind.verbs.names().collect::<Vec<_>>(),
        });
        if !kind.short_names.is_empty() {
            row["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            row["categories"] = json!(kind.categories);
        }
        if let Some(storage) = &kind.storage {
            row["storageVersionHash"] = storage.version_hash.as_str().into();
        }
        resources.push(row);
        for sub in &kind.subresources {
            let mut row = json!({
                "name": format!("{}/{}", kind.plural, sub.name), "singularName": "", "namespaced": kind.namespaced(),
                "kind": sub.kind.kind, "verbs": sub.verbs.names().collect::<Vec<_>>(),
            });
            if sub.kind.group != kind.group || sub.kind.version != kind.version {
                row["group"] = sub.kind.group.as_ref().into();
                row["version"] = sub.kind.version.as_ref().into();
            }
            resources.push(row);
        }
    }
    resources.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = meta::gvk::join_api_version(group, version);
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}
