//! Tokens: a kubelet gets tokens of service accounts for the pods bound to it, for the audiences that these name.

use meta::{Gvr, Status};
use serde_json::Value;

use crate::admission::{Operation, Request, World};
use crate::authz::Attributes;
use crate::authz::references::claims_of;

/// Verb by which an administrator lets nodes ask for further audiences.
const AUDIENCE_VERB: &str = "request-serviceaccounts-token-audience";

pub(super) async fn check(request: &Request<'_>, node: &str, world: &dyn World) -> Result<(), Status> {
    if request.operation != Operation::Create {
        return Ok(());
    }
    let refuse = |why: String| Err(request.forbidden(why));
    let spec = &request.object["spec"];
    let bound = &spec["boundObjectRef"];
    let text = |field: &str| bound[field].as_str().unwrap_or_default();
    if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
        return refuse("node requested token not bound to a pod".to_owned());
    }
    if text("uid").is_empty() {
        return refuse("node requested token with a pod binding without a uid".to_owned());
    }
    let Some(pod) = world.find("", "pods", request.namespace, text("name")).await? else {
        return Err(Status::not_found(&Gvr::new("", "v1", "pods"), text("name")));
    };
    let pod = pod.object();
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    if text("uid") != uid {
        let asked = text("uid");
        return refuse(format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return refuse("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    let audiences = spec["audiences"].as_array().map_or(&[][..], Vec::as_slice);
    let audience = match audiences {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return refuse("node may only request 0 or 1 audiences".to_owned()),
    };
    if projected(&pod, audience) || csi(request, &pod, audience, world).await? || granted(request, audience, world) {
        return Ok(());
    }
    let (audience, user) = (meta::text::quote(audience), &request.user.name);
    refuse(format!(
        "audience {audience} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
    ))
}

/// Whether a projected volume of the pod asks for a token with this audience (empty: the server's own).
fn projected(pod: &Value, audience: &str) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let sources = volumes.filter_map(|volume| volume["projected"]["sources"].as_array()).flatten();
    let mut tokens = sources.filter_map(|source| source.get("serviceAccountToken").filter(|token| token.is_object()));
    tokens.any(|token| token["audience"].as_str().unwrap_or_default() == audience)
}

/// Whether a CSI driver of one of the pod's volumes asks for tokens with this audience.
async fn csi(request: &Request<'_>, pod: &Value, audience: &str, world: &dyn World) -> Result<bool, Status> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut drivers: Vec<String> =
        volumes.filter_map(|volume| volume["csi"]["driver"].as_str()).map(str::to_owned).collect();
    for name in claims_of(pod) {
        let Some(claim) = world.find("", "persistentvolumeclaims", request.namespace, &name).await? else { continue };
        let claim = claim.object();
        let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
        let Some(volume) = world.find("", "persistentvolumes", "", volume).await? else { continue };
        drivers.extend(volume.object()["spec"]["csi"]["driver"].as_str().map(str::to_owned));
    }
    for name in drivers {
        let Some(driver) = world.find("storage.k8s.io", "csidrivers", "", &name).await? else { continue };
        let driver = driver.object();
        let mut tokens = driver["spec"]["tokenRequests"].as_array().into_iter().flatten();
        if tokens.any(|token| token["audience"].as_str().unwrap_or_default() == audience) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn granted(request: &Request<'_>, audience: &str, world: &dyn World) -> bool {
    let (group, version, resource) = ("", "", audience);
    world.allows(&Attributes { group, version, resource, subresource: "", ..request.may(AUDIENCE_VERB) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_audience_must_be_named_by_a_volume() {
        let token = |token: Value| json!({"projected": {"sources": [{"configMap": {"name": "c"}}, {"serviceAccountToken": token}]}});
        let pod = json!({"spec": {"volumes": [{"emptyDir": {}}, token(json!({"path": "t", "audience": "vault"}))]}});
        assert!(projected(&pod, "vault") && !projected(&pod, "") && !projected(&pod, "other"));
        assert!(projected(&json!({"spec": {"volumes": [token(json!({"path": "t"}))]}}), ""));
    }
}
