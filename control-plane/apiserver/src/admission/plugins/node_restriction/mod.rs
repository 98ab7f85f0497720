//! NodeRestriction: a kubelet changes its own Node and the pods bound to it, and makes nobody else's objects its own.
//! Which objects it may touch is the node authoriser's business; here is what it may write into them.

mod nodes;
mod pods;
mod tokens;

use async_trait::async_trait;
use meta::Status;

use super::csr;
use crate::admission::{Mutating, Operation, Plugin, Request, World};
use crate::authz::node::{LEASES, identity};

pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation != Operation::Connect && identity(request.user).is_some()
    }
}

#[async_trait]
impl Mutating for NodeRestriction {
    async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status> {
        let Some(node) = identity(request.user) else { return Ok(()) };
        if node.is_empty() {
            let user = meta::text::quote(&request.user.name);
            return Err(request.forbidden(format!("could not determine node from user {user}")));
        }
        let verdict = match (request.kind.group.as_ref(), request.kind.plural.as_ref(), request.subresource) {
            ("", "pods", "") => return pods::main(request, node, world).await,
            ("", "pods", "status") => pods::status(request, node),
            ("", "pods", "eviction") => return pods::eviction(request, node, world).await,
            ("", "pods", sub) => {
                let sub = meta::text::quote(sub);
                Err(format!("unexpected pod subresource {sub}, only 'status' and 'eviction' are allowed"))
            }
            ("", "nodes", _) => nodes::check(request, node),
            ("", "persistentvolumeclaims", "status") => claim_status(request, node),
            ("", "persistentvolumeclaims", _) => Err("may only update PVC status".to_owned()),
            ("", "serviceaccounts", "token") => return tokens::check(request, node, world).await,
            ("coordination.k8s.io", "leases", "") => lease(request, node),
            ("storage.k8s.io", "csinodes", "") => csi_node(request, node),
            ("resource.k8s.io", "resourceslices", "") => resource_slice(request, node),
            ("certificates.k8s.io", "certificatesigningrequests", "") => signing_request(request),
            _ => Ok(()),
        };
        verdict.map_err(|why| request.forbidden(why))
    }
}

fn unexpected(request: &Request<'_>) -> String {
    format!("unexpected operation {}", meta::text::quote(request.operation.word()))
}

/// The name of the object, which on creation only the body tells.
fn name_of<'a>(request: &'a Request<'_>) -> &'a str {
    match request.operation {
        Operation::Create => request.object["metadata"]["name"].as_str().unwrap_or_default(),
        _ => request.name,
    }
}

fn lease(request: &Request<'_>, node: &str) -> Result<(), String> {
    if request.namespace != LEASES {
        return Err(format!("can only access leases in the {} system namespace", meta::text::quote(LEASES)));
    }
    if name_of(request) != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn csi_node(request: &Request<'_>, node: &str) -> Result<(), String> {
    if name_of(request) != node {
        return Err("can only access CSINode with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn resource_slice(request: &Request<'_>, node: &str) -> Result<(), String> {
    let (slice, what) = match (request.operation, request.old) {
        (Operation::Create, _) => (&*request.object, "create"),
        (Operation::Delete, Some(old)) => (old, "delete"),
        _ => return Ok(()),
    };
    if slice["spec"]["nodeName"] != node {
        return Err(format!("can only {what} ResourceSlice with the same NodeName as the requesting node"));
    }
    Ok(())
}

/// The capacity of a claim and its progress are what a kubelet finds out when it expands a volume.
fn claim_status(request: &Request<'_>, node: &str) -> Result<(), String> {
    const OPEN: [&str; 6] = [
        "capacity",
        "conditions",
        "allocatedResources",
        "allocatedResourceStatuses",
        "modifyVolumeStatus",
        "currentVolumeAttributesClassName",
    ];
    let (Operation::Update, Some(old)) = (request.operation, request.old) else { return Err(unexpected(request)) };
    let rest = |claim: &serde_json::Value| {
        let mut claim = claim.clone();
        if let Some(status) = claim["status"].as_object_mut() {
            status.retain(|field, _| !OPEN.contains(&field.as_str()));
        }
        if let Some(metadata) = claim["metadata"].as_object_mut() {
            metadata.retain(|field, _| field != "resourceVersion" && field != "managedFields");
        }
        claim
    };
    if rest(request.object) != rest(old) {
        let node = meta::text::quote(node);
        return Err(format!(
            "node {node} is not allowed to update fields other than status.capacity and status.conditions"
        ));
    }
    Ok(())
}

/// A kubelet asks for certificates in its own name only.
fn signing_request(request: &Request<'_>) -> Result<(), String> {
    const OF_KUBELETS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    let signer = request.object["spec"]["signerName"].as_str().unwrap_or_default();
    if request.operation != Operation::Create || !OF_KUBELETS.contains(&signer) {
        return Ok(());
    }
    let subject = csr::subject(request.object).map_err(|error| format!("unable to parse csr: {error}"))?;
    if subject.common_name != request.user.name {
        return Err(format!("can only create a node CSR with CN={}", request.user.name));
    }
    Ok(())
}
