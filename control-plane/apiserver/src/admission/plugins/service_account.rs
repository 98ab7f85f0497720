//! ServiceAccount: every pod runs as an account of its namespace and gets its token mounted.

use async_trait::async_trait;
use meta::Status;
use serde_json::{Value, json};

use crate::admission::{Mutating, Operation, Plugin, Request, World};
use crate::authz::references::names;

/// Where programs look for their credentials.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Annotation of pods that a kubelet mirrors from files.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
/// Lifetime of the mounted token: an hour, and a grace for clock skew and rotation.
const TOKEN_SECONDS: u64 = 3607;

pub struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && request.is("", "pods")
    }
}

#[async_trait]
impl Mutating for ServiceAccount {
    async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status> {
        if request.object["metadata"]["annotations"].get(MIRROR).is_some() {
            return mirror(request.object).map_err(|why| request.forbidden(why));
        }
        if request.object["spec"]["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
            request.object["spec"]["serviceAccountName"] = "default".into();
            request.object["spec"]["serviceAccount"] = "default".into();
        }
        let account = request.object["spec"]["serviceAccountName"].as_str().unwrap_or_default().to_owned();
        let Some(found) = world.find("", "serviceaccounts", request.namespace, &account).await? else {
            let namespace = request.namespace;
            let why = format!(
                "error looking up service account {namespace}/{account}: serviceaccount {} not found",
                meta::text::quote(&account)
            );
            return Err(request.forbidden(why));
        };
        let found = found.object();
        let automount = request.object["spec"]["automountServiceAccountToken"]
            .as_bool()
            .or(found["automountServiceAccountToken"].as_bool())
            .unwrap_or(true);
        if automount {
            mount(&mut request.object["spec"]);
        }
        let own = request.object["spec"]["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty());
        if !own && let Some(secrets) = found["imagePullSecrets"].as_array().filter(|list| !list.is_empty()) {
            request.object["spec"]["imagePullSecrets"] = secrets.clone().into();
        }
        Ok(())
    }
}

/// What a kubelet runs from its own files may not lead it to anybody's credentials.
fn mirror(pod: &Value) -> Result<(), &'static str> {
    let spec = &pod["spec"];
    if spec["serviceAccountName"].as_str().is_some_and(|account| !account.is_empty()) {
        return Err("a mirror pod may not reference service accounts");
    }
    if !names(pod, "secret").is_empty() {
        return Err("a mirror pod may not reference secrets");
    }
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.filter_map(|volume| volume["projected"]["sources"].as_array()).flatten();
    if sources.any(|source| source["serviceAccountToken"].is_object()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

fn mount(spec: &mut Value) {
    let existing = spec["volumes"].as_array().into_iter().flatten();
    let known = existing
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with("kube-api-access-"))
        .map(str::to_owned);
    let fresh = known.is_none();
    let name = known.unwrap_or_else(|| meta::uid::random_name("kube-api-access-"));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array().into_iter().flatten();
            if mounts.into_iter().any(|m| m["mountPath"] == MOUNT_PATH) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            match container["volumeMounts"].as_array_mut() {
                Some(mounts) => mounts.push(mount),
                None => container["volumeMounts"] = json!([mount]),
            }
            used = true;
        }
    }
    if !(used && fresh) {
        return;
    }
    let volume = json!({
        "name": name,
        "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ]},
    });
    match spec["volumes"].as_array_mut() {
        Some(volumes) => volumes.push(volume),
        None => spec["volumes"] = json!([volume]),
    }
}
