//! Roles and bindings: nobody grants what they do not hold, unless they may `escalate` the role or `bind` to it.
//! Upstream does this in the registries of these kinds.

use async_trait::async_trait;
use meta::{Gvr, Status};

use crate::admission::{Mutating, Operation, Plugin, Request, World};
use crate::authn::MASTERS;
use crate::authz::rbac::GROUP;
use crate::authz::rules::Rule;
use crate::authz::{Attributes, escalation};

pub struct RbacEscalation;

impl Plugin for RbacEscalation {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.writes()
            && request.kind.group == GROUP
            // Members may do everything: the server's own writes come so, too.
            && !request.user.groups.iter().any(|group| group == MASTERS)
    }
}

#[async_trait]
impl Mutating for RbacEscalation {
    async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status> {
        if request.is_garbage_collection() {
            return Ok(());
        }
        match request.kind.plural.as_ref() {
            "roles" | "clusterroles" => role(request, world),
            "rolebindings" | "clusterrolebindings" => binding(request, world).await,
            _ => Ok(()),
        }
    }
}

fn role(request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
    // The name of a new object is no part of its request's path: a right by name does not reach it.
    let name = if request.operation == Operation::Create { "" } else { request.name };
    if may(request, world, "escalate", &request.kind.plural, name) {
        return Ok(());
    }
    confirm(request, world, &Rule::all(request.object))?;
    if request.object["aggregationRule"].is_object() && confirm(request, world, &escalation::full_authority()).is_err()
    {
        return Err(request.forbidden("must have cluster-admin privileges to use the aggregationRule"));
    }
    Ok(())
}

async fn binding(request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
    let reference = &request.object["roleRef"];
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (plural, namespace) = match text("kind") {
        "ClusterRole" => ("clusterroles", ""),
        "Role" => ("roles", request.namespace),
        // Validation refuses it.
        _ => return Ok(()),
    };
    let name = text("name");
    if may(request, world, "bind", plural, name) {
        return Ok(());
    }
    let Some(role) = world.find(GROUP, plural, namespace, name).await? else {
        return Err(Status::not_found(&Gvr { resource: plural.into(), ..request.gvr() }, name));
    };
    confirm(request, world, &Rule::all(&role.object()))
}

fn may(request: &Request<'_>, world: &dyn World, verb: &str, resource: &str, name: &str) -> bool {
    let (group, version) = (GROUP, "*");
    world.allows(&Attributes { group, version, resource, subresource: "", name, ..request.may(verb) })
}

fn confirm(request: &Request<'_>, world: &dyn World, wanted: &[Rule]) -> Result<(), Status> {
    let have = world.rules_of(request.user, request.namespace);
    match escalation::refusal(request.user, &have, wanted) {
        None => Ok(()),
        Some(why) => Err(request.forbidden(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::fake::{Fake, asked};
    use serde_json::{Value, json};

    async fn judged(world: &Fake, operation: Operation, plural: &str, mut object: Value) -> bool {
        let resource = format!("{GROUP}/v1/{plural}");
        let old = (operation == Operation::Update).then(|| json!({"metadata": {"name": "r"}}));
        let mut request = world.request(asked(operation, &resource, "r"), &mut object, old.as_ref());
        assert!(RbacEscalation.handles(&request));
        RbacEscalation.admit(&mut request, world).await.is_ok()
    }

    #[tokio::test]
    async fn nobody_grants_what_they_do_not_hold() {
        use Operation::{Create, Update};
        let role =
            json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
        let binding =
            json!({"metadata": {"name": "r"}, "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "r"}});
        let world = |right: &str, rules: Vec<Rule>| {
            let world = Fake { allowed: vec![right.to_owned()], rules, ..Fake::default() };
            world.with(GROUP, "clusterroles", &role)
        };
        let (nobody, holder) = (world("", Vec::new()), world("", Rule::all(&role)));
        assert!(!judged(&nobody, Create, "roles", role.clone()).await);
        assert!(judged(&holder, Create, "roles", role.clone()).await);
        let named = world("escalate roles r", Vec::new());
        assert!(judged(&named, Update, "roles", role.clone()).await);
        assert!(!judged(&named, Create, "roles", role.clone()).await, "a right by name is about what is there");
        assert!(!judged(&nobody, Create, "rolebindings", binding.clone()).await);
        assert!(judged(&holder, Create, "rolebindings", binding.clone()).await);
        assert!(judged(&world("bind clusterroles r", Vec::new()), Create, "rolebindings", binding).await);
    }
}
