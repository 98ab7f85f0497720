//! Requests for certificates of pods: a kubelet makes them for pods bound to it, in the names that these really have,
//! for signers that their volumes name.

use meta::Status;
use meta::text::quote;
use serde_json::Value;

use super::super::service_account::MIRROR;
use super::super::{Operation, Request};
use super::unexpected;
use crate::server::Core;

pub(super) async fn check(request: &Request<'_>, node: &str, core: &Core) -> Result<(), Status> {
    if request.operation != Operation::Create {
        return Err(request.forbidden(unexpected(request)));
    }
    if !request.subresource.is_empty() {
        return Err(request.forbidden(format!("unexpected subresource {}", quote(request.subresource))));
    }
    let spec = &request.object["spec"];
    let named = |field: &str| spec[field].as_str().unwrap_or_default();
    let namespace = request.namespace;
    let world = World {
        node: object(core, "nodes", "", node).await?,
        pod: object(core, "pods", namespace, named("podName")).await?,
        account: object(core, "serviceaccounts", namespace, named("serviceAccountName")).await?,
    };
    verdict(spec, node, &world).map_err(|why| request.forbidden(why))
}

/// What isn't there is Null, whose names and UIDs are nobody's.
async fn object(core: &Core, plural: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let found = core.find("", plural, namespace, name).await?;
    Ok(found.map(|entry| entry.object()).unwrap_or_default())
}

/// What the request names, as it is.
struct World {
    node: Value,
    pod: Value,
    account: Value,
}

fn verdict(spec: &Value, node: &str, world: &World) -> Result<(), String> {
    let named = |field: &str| spec[field].as_str().unwrap_or_default();
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let same = |field: &str, object: &Value, what: &str| {
        let (asked, real) = (named(field), uid(object));
        if asked == real && !real.is_empty() {
            return Ok(());
        }
        let (asked, real) = (quote(asked), quote(&real));
        Err(format!("PodCertificateRequest.Spec.{field}={asked} differs from the UID of the {what} ({real})"))
    };
    if named("nodeName") != node {
        let (named, node) = (quote(named("nodeName")), quote(node));
        return Err(format!("PodCertificateRequest.Spec.NodeName={named}, which is not the requesting node {node}"));
    }
    same("nodeUID", &world.node, "node")?;
    same("podUID", &world.pod, "pod")?;
    let pod = quote(named("podName"));
    if world.pod["spec"]["nodeName"] != node {
        let node = quote(node);
        return Err(format!("pod {pod} is not running on node {node} named in the PodCertificateRequest"));
    }
    if world.pod["metadata"]["annotations"].get(MIRROR).is_some() {
        return Err(format!("pod {pod} is a mirror pod"));
    }
    let account = named("serviceAccountName");
    if world.pod["spec"]["serviceAccountName"] != account {
        let account = quote(account);
        return Err(format!(
            "PodCertificateRequest for pod {pod} contains serviceAccountName {account} that differs from running pod"
        ));
    }
    same("serviceAccountUID", &world.account, "service account")?;
    if !mounts(&world.pod, named("signerName")) {
        let signer = quote(named("signerName"));
        return Err(format!("pod {pod} has no podCertificate volume source with signerName {signer}"));
    }
    Ok(())
}

/// Whether a projected volume of the pod asks for a certificate of this signer.
fn mounts(pod: &Value, signer: &str) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.filter_map(|volume| volume["projected"]["sources"].as_array()).flatten();
    sources.any(|source| source["podCertificate"]["signerName"] == signer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_name_must_be_true() {
        let source = json!({"podCertificate": {"signerName": "x.y/s"}});
        let world = World {
            node: json!({"metadata": {"uid": "nu"}}),
            pod: json!({"metadata": {"uid": "pu"}, "spec": {"nodeName": "n", "serviceAccountName": "sa",
                "volumes": [{"name": "v", "projected": {"sources": [source]}}]}}),
            account: json!({"metadata": {"uid": "su"}}),
        };
        let spec = json!({"nodeName": "n", "nodeUID": "nu", "podName": "p", "podUID": "pu", "serviceAccountName": "sa",
            "serviceAccountUID": "su", "signerName": "x.y/s"});
        assert_eq!(verdict(&spec, "n", &world), Ok(()));
        for field in ["nodeName", "nodeUID", "podUID", "serviceAccountName", "serviceAccountUID", "signerName"] {
            let mut other = spec.clone();
            other[field] = json!("other");
            let why = verdict(&other, "n", &world).unwrap_err();
            assert!(why.contains("\"other\""), "{field}: {why}");
        }
        assert!(verdict(&spec, "m", &world).is_err());
        let elsewhere = World { pod: json!({"metadata": {"uid": "pu"}, "spec": {"nodeName": "m"}}), ..world };
        assert_eq!(
            verdict(&spec, "n", &elsewhere).unwrap_err(),
            "pod \"p\" is not running on node \"n\" named in the PodCertificateRequest"
        );
        let nothing = World { node: json!({"metadata": {"uid": "nu"}}), pod: Value::Null, account: Value::Null };
        let mut empty = spec.clone();
        empty["podUID"] = json!("");
        assert!(verdict(&empty, "n", &nothing).is_err(), "a pod that is not there has no UID to guess");
    }
}
