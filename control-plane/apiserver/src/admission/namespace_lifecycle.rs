//! NamespaceLifecycle: nothing is created in a namespace that is missing or going away, and the system namespaces stay.

use async_trait::async_trait;
use meta::{Gvr, Status};

use super::{Operation, Plugin, Request};
use crate::server::Core;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

const NAMESPACES: Gvr = Gvr::new("", "v1", "namespaces");

pub struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        match request.operation {
            // Reviews of access ask about namespaces that may not exist.
            Operation::Create => !request.namespace.is_empty() && request.kind.group != "authorization.k8s.io",
            Operation::Delete => request.is("", "namespaces"),
            _ => false,
        }
    }

    async fn admit(&self, request: &mut Request<'_>, core: &Core) -> Result<(), Status> {
        if request.operation == Operation::Delete {
            if IMMORTAL.contains(&request.name) {
                return Err(request.forbidden("this namespace may not be deleted"));
            }
            return Ok(());
        }
        let Some(namespace) = core.find("", "namespaces", "", request.namespace).await? else {
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
