//! Pods: a kubelet shows its static pods as mirror pods, reports status, deletes and evicts what is bound to it.

use meta::{Gvr, Status};
use serde_json::Value;

use super::super::service_account::MIRROR;
use super::unexpected;
use crate::admission::{Operation, Request, World};
use crate::authz::references::names;

pub(super) async fn main(request: &Request<'_>, node: &str, world: &dyn World) -> Result<(), Status> {
    let verdict = match (request.operation, request.old) {
        (Operation::Create, _) => match mirror(request.object, node) {
            Ok(owner) => return same_node(request, node, owner, world).await,
            Err(why) => Err(why),
        },
        (Operation::Delete, Some(pod)) if pod["spec"]["nodeName"] == node => Ok(()),
        (Operation::Delete, _) => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
        _ => Err(format!("{}, node {node:?} can only create and delete mirror pods", unexpected(request))),
    };
    verdict.map_err(|why| request.forbidden(why))
}

/// The owner of a new pod that a kubelet may make, or what is wrong with the pod.
fn mirror<'a>(pod: &'a Value, node: &str) -> Result<&'a Value, String> {
    if pod["metadata"]["annotations"].get(MIRROR).is_none() {
        return Err(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if pod["spec"]["nodeName"] != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owner = owner(pod, node)?;
    refers_to_nothing(pod, node)?;
    Ok(owner)
}

fn owner<'a>(pod: &'a Value, node: &str) -> Result<&'a Value, String> {
    let owners = pod["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    let owner = match owners {
        [] => return Err(format!("node {node:?} can only create pods with an owner reference set to itself")),
        [owner] => owner,
        _ => return Err(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    Ok(owner)
}

/// The node authoriser lets a kubelet read what its pods refer to: with a pod of its own making it could read anything.
fn refers_to_nothing(pod: &Value, node: &str) -> Result<(), String> {
    let spec = &pod["spec"];
    let some = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    let volumes = spec["volumes"].as_array();
    let sources = || volumes.into_iter().flatten().filter_map(|v| v["projected"]["sources"].as_array()).flatten();
    let projects = |what: &str| sources().any(|source| source[what].is_object());
    let claims = |v: &Value| v["persistentVolumeClaim"].is_object() || v["ephemeral"].is_object();
    let found = [
        ("a service account", spec["serviceAccountName"].as_str().is_some_and(|account| !account.is_empty())),
        ("secrets", !names(pod, "secret").is_empty()),
        ("configmaps", !names(pod, "configmap").is_empty()),
        ("service account tokens", projects("serviceAccountToken")),
        ("clustertrustbundles", projects("clusterTrustBundle")),
        ("podcertificates", projects("podCertificate")),
        ("persistentvolumeclaims", volumes.into_iter().flatten().any(claims)),
        ("resourceclaims", some(&spec["resourceClaims"])),
    ];
    match found.iter().find(|(_, found)| *found) {
        Some((what, _)) => Err(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

async fn same_node(request: &Request<'_>, node: &str, owner: &Value, world: &dyn World) -> Result<(), Status> {
    let Some(found) = world.find("", "nodes", "", node).await? else {
        return Err(Status::not_found(&Gvr::new("", "v1", "nodes"), node));
    };
    let uid = |object: &Value| object["uid"].as_str().unwrap_or_default().to_owned();
    let (expected, got) = (uid(owner), uid(&found.object()["metadata"]));
    if expected != got {
        return Err(request.forbidden(format!("node {node} UID mismatch: expected {expected} got {got}")));
    }
    Ok(())
}

pub(super) fn status(request: &Request<'_>, node: &str) -> Result<(), String> {
    let (Operation::Update, Some(old)) = (request.operation, request.old) else { return Err(unexpected(request)) };
    if old["spec"]["nodeName"] != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if old["metadata"]["labels"] != request.object["metadata"]["labels"] {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    if old["status"]["resourceClaimStatuses"] != request.object["status"]["resourceClaimStatuses"] {
        return Err(format!("node {node:?} cannot update resource claim statuses"));
    }
    Ok(())
}

pub(super) async fn eviction(request: &Request<'_>, node: &str, world: &dyn World) -> Result<(), Status> {
    if request.operation != Operation::Create {
        return Err(request.forbidden(unexpected(request)));
    }
    let Some(pod) = world.find("", "pods", request.namespace, request.name).await? else {
        return Err(Status::not_found(&request.gvr(), request.name));
    };
    if pod.object()["spec"]["nodeName"] != node {
        return Err(request.forbidden(format!("node {node} can only evict pods with spec.nodeName set to itself")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn static_pod() -> Value {
        json!({
            "metadata": {"annotations": {MIRROR: "x"}, "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true},
            ]},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        })
    }

    #[test]
    fn only_a_mirror_that_refers_to_nothing_is_made_by_a_node() {
        assert!(mirror(&static_pod(), "n1").is_ok());
        let volume = |source: Value| json!([source]);
        let projected = |what: &str| json!([{"projected": {"sources": [{what: {"path": "x"}}]}}]);
        let cases = [
            ("/metadata/annotations", json!({}), "pod does not have \"kubernetes.io/config.mirror\" annotation"),
            ("/spec/nodeName", json!("n2"), "spec.nodeName set to itself"),
            ("/metadata/ownerReferences", json!([]), "an owner reference set to itself"),
            ("/metadata/ownerReferences/0/name", json!("n2"), "an owner reference set to itself"),
            ("/metadata/ownerReferences/0/controller", json!(false), "a controller owner reference"),
            ("/spec/serviceAccountName", json!("default"), "reference a service account"),
            ("/spec/volumes", volume(json!({"secret": {"secretName": "s"}})), "reference secrets"),
            ("/spec/volumes", volume(json!({"configMap": {"name": "s"}})), "reference configmaps"),
            ("/spec/volumes", volume(json!({"persistentVolumeClaim": {"claimName": "s"}})), "persistentvolumeclaims"),
            ("/spec/volumes", projected("clusterTrustBundle"), "reference clustertrustbundles"),
            ("/spec/volumes", projected("podCertificate"), "reference podcertificates"),
            ("/spec/volumes", projected("serviceAccountToken"), "reference service account tokens"),
            ("/spec/resourceClaims", json!([{"name": "gpu"}]), "reference resourceclaims"),
        ];
        for (path, value, wanted) in cases {
            let mut pod = static_pod();
            match pod.pointer_mut(path) {
                Some(place) => *place = value,
                None => pod["spec"][path.trim_start_matches("/spec/")] = value,
            }
            let why = mirror(&pod, "n1").expect_err(path);
            assert!(why.contains(wanted), "{path}: {why}");
        }
    }
}
