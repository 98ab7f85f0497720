//! Server-side apply of what a cluster of ours has besides upstream's objects. I/O: asks the API server. Callers: whoever
//! brings such objects: `cluster::addons`, `hardening`, `joining`, the demo.

use anyhow::{Context, Result};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::Value;

/// Who manages the fields of these objects (server-side apply).
pub const MANAGER: &str = "ferrokube";

/// Applies an object as ours; fields of others stay.
pub async fn put(client: &kube::Client, plural: &str, object: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api_version = text(&object["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: api_version.clone(),
        kind: text(&object["kind"]),
        plural: plural.into(),
    };
    let name = text(&object["metadata"]["name"]);
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    match api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await {
        Err(kube::Error::Api(status)) if apiserver::cache::corrupt::says(status.code, &status.message) => {
            // The cluster must run for somebody to remove it.
            tracing::error!(plural, name, "an object of the cluster's own can't be read, and is left as it is");
            Ok(())
        }
        applied => applied.with_context(|| format!("{plural} {name}")).map(drop),
    }
}
