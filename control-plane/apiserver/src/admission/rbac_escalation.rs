//! Roles and bindings: nobody grants what they do not hold, unless they may `escalate` the role or `bind` to it.
//! Upstream does this in the registries of these kinds.

use async_trait::async_trait;
use meta::{Gvr, Status};

use super::{Operation, Plugin, Request, only_garbage_collection};
use crate::authn::MASTERS;
use crate::authz::rbac::GROUP;
use crate::authz::rules::Rule;
use crate::authz::{Attributes, Decision, escalation};
use crate::server::Core;

pub struct RbacEscalation;

#[async_trait]
impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RbacEscalation"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && request.kind.group == GROUP
            // Members may do everything: the server's own writes come so, too.
            && !request.user.groups.iter().any(|group| group == MASTERS)
    }

    async fn admit(&self, request: &mut Request<'_>, core: &Core) -> Result<(), Status> {
        if request.old.is_some_and(|old| only_garbage_collection(request.object, old)) {
            return Ok(());
        }
        match request.kind.plural.as_ref() {
            "roles" | "clusterroles" => role(request, core),
            "rolebindings" | "clusterrolebindings" => binding(request, core).await,
            _ => Ok(()),
        }
    }
}

fn role(request: &Request<'_>, core: &Core) -> Result<(), Status> {
    // The name of a new object is no part of its request's path: a right by name does not reach it.
    let name = if request.operation == Operation::Create { "" } else { request.name };
    if may(request, core, "escalate", &request.kind.plural, name) {
        return Ok(());
    }
    confirm(request, core, &Rule::all(request.object))?;
    if request.object["aggregationRule"].is_object() && confirm(request, core, &escalation::full_authority()).is_err() {
        return Err(request.forbidden("must have cluster-admin privileges to use the aggregationRule"));
    }
    Ok(())
}

async fn binding(request: &Request<'_>, core: &Core) -> Result<(), Status> {
    let reference = &request.object["roleRef"];
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (plural, namespace) = match text("kind") {
        "ClusterRole" => ("clusterroles", ""),
        "Role" => ("roles", request.namespace),
        // Validation refuses it.
        _ => return Ok(()),
    };
    let name = text("name");
    if may(request, core, "bind", plural, name) {
        return Ok(());
    }
    let Some(role) = core.find(GROUP, plural, namespace, name).await? else {
        return Err(Status::not_found(&Gvr { resource: plural.into(), ..request.gvr() }, name));
    };
    confirm(request, core, &Rule::all(&role.object()))
}

fn may(request: &Request<'_>, core: &Core, verb: &str, resource: &str, name: &str) -> bool {
    let attributes = Attributes {
        user: request.user,
        verb,
        resource_request: true,
        group: GROUP,
        version: "*",
        resource,
        subresource: "",
        namespace: request.namespace,
        name,
        path: "",
        field_selector: "",
        label_selector: "",
    };
    matches!(core.decide(&attributes), Decision::Allow(_))
}

fn confirm(request: &Request<'_>, core: &Core, wanted: &[Rule]) -> Result<(), Status> {
    let have = core.rbac.rules_of(request.user, request.namespace);
    match escalation::refusal(request.user, &have, wanted) {
        None => Ok(()),
        Some(why) => Err(request.forbidden(why)),
    }
}
