//! Plain discovery: APIVersions, APIGroupList, APIGroup, APIResourceList. Pure.

use serde_json::{Value, json};

use super::catalogue::{Catalogue, Group};
use crate::registry::Served;

/// `/api`.
pub fn versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    })
}

fn group_value(group: &Group<'_>) -> Value {
    let one = |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(|version| one(version.name)).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

/// `/apis`.
pub fn groups(catalogue: &Catalogue) -> Value {
    let groups = catalogue.groups().filter(|group| !group.name.is_empty());
    let groups: Vec<Value> = groups.map(|group| group_value(&group)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub fn group(group: &Group<'_>) -> Value {
    let mut value = group_value(group);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    value
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub fn resources(group: &str, version: &str, served: &[&Served]) -> Value {
    let mut resources = Vec::new();
    for served in served {
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
