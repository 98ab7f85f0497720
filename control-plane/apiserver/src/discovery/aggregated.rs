//! Aggregated discovery: everything a client wants to know about groups and resources in one document. Pure.

use bytes::Bytes;
use serde_json::{Value, json};

use super::catalogue::{Catalogue, Group, Version};
use super::tagged;
use crate::http::answer::Answer;
use crate::http::call::Call;
use crate::http::negotiate::{self, clauses};
use crate::registry::Served;

const CONTENT_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether the client takes the aggregated document before the plain one.
pub fn is_wanted(call: &Call) -> bool {
    for clause in clauses(call.header(http::header::ACCEPT)) {
        if !matches!(clause.media_type, negotiate::JSON | "*/*" | "application/*") {
            continue;
        }
        match clause.parameter("as") {
            None => return false,
            Some("APIGroupDiscoveryList")
                if clause.parameter("g") == Some("apidiscovery.k8s.io") && clause.parameter("v") == Some("v2") =>
            {
                return true;
            }
            // Another version of the same: the client may know ours, too.
            Some(_) => {}
        }
    }
    false
}

fn resource(served: &Served) -> Value {
    let kind = &served.kind;
    let mut row = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": kind.scope.as_str(),
        "singularResource": kind.singular,
        "verbs": kind.verbs.names().collect::<Vec<_>>(),
    });
    if !kind.short_names.is_empty() {
        row["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        row["categories"] = json!(kind.categories);
    }
    let mut subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|sub| {
            let kind = &sub.kind;
            let mut row = json!({
                "subresource": sub.name,
                "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
                "verbs": sub.verbs.names().collect::<Vec<_>>(),
            });
            if !sub.accepts.is_empty() {
                let accepts = sub.accepts.iter();
                row["acceptedTypes"] =
                    accepts.map(|k| json!({"group": k.group, "version": k.version, "kind": k.kind})).collect();
            }
            row
        })
        .collect();
    if !subresources.is_empty() {
        subresources.sort_by(|a, b| a["subresource"].as_str().cmp(&b["subresource"].as_str()));
        row["subresources"] = subresources.into();
    }
    row
}

fn version(version: &Version<'_>) -> Value {
    let mut resources: Vec<Value> = version.resources.iter().map(|served| resource(served)).collect();
    resources.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
    json!({"version": version.name, "resources": resources, "freshness": "Current"})
}

fn group(group: &Group<'_>) -> Value {
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let metadata = match group.name {
        "" => json!({"creationTimestamp": null}),
        name => json!({"name": name, "creationTimestamp": null}),
    };
    json!({"metadata": metadata, "versions": versions})
}

/// `/api` (core) or `/apis` (every other group).
pub fn serve(catalogue: &Catalogue, core: bool, call: &Call) -> Answer {
    let groups = catalogue.groups().filter(|group| group.name.is_empty() == core);
    let items: Vec<Value> = groups.map(|one| group(&one)).collect();
    let document = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    let body = serde_json::to_vec(&document).unwrap_or_default();
    Answer::Raw(tagged(call, CONTENT_TYPE, Bytes::from(body)))
}
