//! OwnerReferencesPermissionEnforcement: whoever changes the owners of an object may delete it, because that is what an
//! owner that goes does; whoever lets an object hold up its owner's deletion may write the owner's finalizers. Off by
//! default, as upstream has it.

use async_trait::async_trait;
use meta::Status;
use serde_json::Value;

use crate::admission::{Operation, Plugin, Request, Validating, World};
use crate::authz::{Attributes, Decision};

pub struct OwnerReferences;

impl Plugin for OwnerReferences {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.writes()
            // Status writes of pods keep the owners.
            && !(request.kind.plural == "pods" && request.subresource == "status")
            && owners(request.object) != request.old.map_or(&[][..], owners)
    }
}

#[async_trait]
impl Validating for OwnerReferences {
    async fn validate(&self, request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
        if request.operation == Operation::Update
            && let Some(why) = refused(world, &request.may("delete"))
        {
            let why = format!("cannot set an ownerRef on a resource you can't delete: {why}, <nil>");
            return Err(request.forbidden(why));
        }
        for owner in newly_blocking(request.object, request.old) {
            may_hold_up(request, world, owner)?;
        }
        Ok(())
    }
}

/// Asks for `update` of the owner's finalizers.
fn may_hold_up(request: &Request<'_>, world: &dyn World, owner: &Value) -> Result<(), Status> {
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    let (group, version) = meta::gvk::split_api_version(text("apiVersion"));
    let Some(kind) = world.kind(group, version, text("kind")) else {
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
        resource: &kind.plural,
        subresource: "finalizers",
        namespace: if kind.namespaced() { request.namespace } else { "" },
        name: text("name"),
        ..request.may("update")
    };
    match refused(world, &asked) {
        None => Ok(()),
        Some(why) => Err(request.forbidden(format!(
            "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {why}, <nil>"
        ))),
    }
}

fn refused(world: &dyn World, attributes: &Attributes<'_>) -> Option<String> {
    match world.decide(attributes) {
        Decision::Allow(_) => None,
        Decision::Deny(why) | Decision::NoOpinion(why) => Some(why),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::fake::{Fake, asked};
    use serde_json::json;

    async fn judged(allowed: &[&str], owner: Value, old: Option<&Value>) -> Result<(), String> {
        let world = Fake { allowed: allowed.iter().map(|right| (*right).to_owned()).collect(), ..Fake::default() };
        let mut pod = json!({"metadata": {"name": "p", "ownerReferences": [owner]}});
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        let request = world.request(asked(operation, "/v1/pods", "p"), &mut pod, old);
        assert!(OwnerReferences.handles(&request));
        OwnerReferences.validate(&request, &world).await.map_err(|refusal| refusal.message.to_string())
    }

    #[tokio::test]
    async fn owners_are_changed_by_those_who_may_delete_and_held_up_by_those_who_may_finalize() {
        let owner = |kind: &str, blocks: bool| json!({"apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "u", "blockOwnerDeletion": blocks});
        let old = json!({"metadata": {"name": "p"}});
        let plain = owner("ReplicaSet", false);
        let refused = judged(&[], plain.clone(), Some(&old)).await.unwrap_err();
        assert!(refused.contains("cannot set an ownerRef on a resource you can't delete: nobody said so, <nil>"));
        assert_eq!(judged(&[], plain.clone(), None).await, Ok(()), "who creates chooses");
        assert_eq!(judged(&["delete pods p"], plain, Some(&old)).await, Ok(()));
        let refused = judged(&[], owner("ReplicaSet", true), None).await.unwrap_err();
        assert!(refused.contains("a resource you can't set finalizers on"), "{refused}");
        assert_eq!(judged(&["update replicasets o"], owner("ReplicaSet", true), None).await, Ok(()));
        let refused = judged(&[], owner("Nothing", true), None).await.unwrap_err();
        assert!(refused.contains("cannot find RESTMapping for APIVersion apps/v1 Kind Nothing"), "{refused}");
    }
}
