//! OwnerReferencesPermissionEnforcement: whoever changes the owners of an object may delete it, because that is what an
//! owner that goes does; whoever lets an object hold up its owner's deletion may write the owner's finalizers. Off by
//! default, as upstream has it.

use async_trait::async_trait;
use meta::Status;
use serde_json::Value;

use super::{Operation, Plugin, Request};
use crate::authz::{Attributes, Decision};
use crate::server::Core;

pub struct OwnerReferences;

#[async_trait]
impl Plugin for OwnerReferences {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            // Status writes of pods keep the owners.
            && !(request.kind.plural == "pods" && request.subresource == "status")
            && owners(request.object) != request.old.map_or(&[][..], owners)
    }

    async fn validate(&self, request: &Request<'_>, core: &Core) -> Result<(), Status> {
        if request.operation == Operation::Update
            && let Some(why) = refused(core, &attributes(request, "delete"))
        {
            let why = format!("cannot set an ownerRef on a resource you can't delete: {why}, <nil>");
            return Err(request.forbidden(why));
        }
        for owner in newly_blocking(request.object, request.old) {
            may_hold_up(request, core, owner)?;
        }
        Ok(())
    }
}

/// Asks for `update` of the owner's finalizers.
fn may_hold_up(request: &Request<'_>, core: &Core, owner: &Value) -> Result<(), Status> {
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    let (group, version) = meta::gvk::split_api_version(text("apiVersion"));
    let registry = core.registry.load();
    let Some(served) = registry.by_kind(group, version, text("kind")) else {
        return Err(request.forbidden(format!(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {}: no matches for kind {} in version {}",
            text("apiVersion"),
            text("kind"),
            meta::text::quote(text("kind")),
            meta::text::quote(text("apiVersion")),
        )));
    };
    let asked = Attributes {
        group,
        version,
        resource: &served.kind.plural,
        subresource: "finalizers",
        namespace: if served.namespaced() { request.namespace } else { "" },
        name: text("name"),
        ..attributes(request, "update")
    };
    match refused(core, &asked) {
        None => Ok(()),
        Some(why) => Err(request.forbidden(format!(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {why}, <nil>"
        ))),
    }
}

fn refused(core: &Core, attributes: &Attributes<'_>) -> Option<String> {
    match core.decide(attributes) {
        Decision::Allow(_) => None,
        Decision::Deny(why) | Decision::NoOpinion(why) => Some(why),
    }
}

fn attributes<'a>(request: &'a Request<'_>, verb: &'a str) -> Attributes<'a> {
    Attributes {
        user: request.user,
        verb,
        resource_request: true,
        group: &request.kind.group,
        version: &request.kind.version,
        resource: &request.kind.plural,
        subresource: request.subresource,
        namespace: request.namespace,
        name: request.name,
        path: "",
        field_selector: "",
        label_selector: "",
    }
}

fn owners(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice)
}

/// Owners that the object holds up now and did not before.
fn newly_blocking<'a>(new: &'a Value, old: Option<&Value>) -> Vec<&'a Value> {
    let blocks = |owner: &&Value| owner["blockOwnerDeletion"] == true;
    let before: Vec<&Value> = old.map_or(&[][..], owners).iter().filter(blocks).map(|owner| &owner["uid"]).collect();
    owners(new).iter().filter(blocks).filter(|owner| !before.contains(&&owner["uid"])).collect()
}
