//! NamespaceLifecycle: nothing is created in a namespace that is missing or going away, and the system namespaces stay.

use async_trait::async_trait;
use meta::{Gvr, Status};

use crate::admission::{Mutating, Operation, Plugin, Request, World};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

const NAMESPACES: Gvr = Gvr::new("", "v1", "namespaces");

pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn handles(&self, request: &Request<'_>) -> bool {
        match request.operation {
            // Reviews of access ask about namespaces that may not exist.
            Operation::Create => !request.namespace.is_empty() && request.kind.group != "authorization.k8s.io",
            Operation::Delete => request.is("", "namespaces"),
            _ => false,
        }
    }
}

#[async_trait]
impl Mutating for NamespaceLifecycle {
    async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status> {
        if request.operation == Operation::Delete {
            if IMMORTAL.contains(&request.name) {
                return Err(request.forbidden("this namespace may not be deleted"));
            }
            return Ok(());
        }
        let Some(namespace) = world.find("", "namespaces", "", request.namespace).await? else {
            return Err(Status::not_found(&NAMESPACES, request.namespace));
        };
        if namespace.deleting {
            let name = request.namespace;
            let why = format!("unable to create new content in namespace {name} because it is being terminated");
            let cause = format!("namespace {name} is being terminated");
            return Err(request.forbidden(why).with_cause("NamespaceTerminating", cause, "metadata.namespace"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::fake::{Fake, asked};
    use serde_json::{Value, json};

    #[tokio::test]
    async fn nothing_is_made_where_there_is_no_namespace_or_one_that_ends() {
        let named = |more: Value| {
            let mut namespace = json!({"metadata": {"name": "ns"}});
            namespace["metadata"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Fake::default().with("", "namespaces", &namespace)
        };
        let ending = named(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
        for (world, code) in [(named(json!({})), 0), (ending, 403), (Fake::default(), 404)] {
            let mut object = json!({"metadata": {"name": "p"}});
            let mut request = world.request(asked(Operation::Create, "/v1/pods", "p"), &mut object, None);
            assert!(NamespaceLifecycle.handles(&request));
            let got = NamespaceLifecycle.admit(&mut request, &world).await;
            assert_eq!(got.err().map_or(0, |refusal| refusal.code), code);
        }
    }

    #[tokio::test]
    async fn some_namespaces_stay() {
        for (name, stays) in [("kube-system", true), ("mine", false)] {
            let world = Fake::default();
            let old = json!({"metadata": {"name": name}});
            let mut nothing = Value::Null;
            let mut request = world.request(asked(Operation::Delete, "/v1/namespaces", name), &mut nothing, Some(&old));
            assert!(NamespaceLifecycle.handles(&request));
            assert_eq!(NamespaceLifecycle.admit(&mut request, &world).await.is_err(), stays, "{name}");
        }
    }
}
