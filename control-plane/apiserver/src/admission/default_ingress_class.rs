//! DefaultIngressClass: an ingress that names no class gets the default one.

use async_trait::async_trait;
use meta::Status;
use serde_json::Value;

use super::{Operation, Plugin, Request, newest_default};
use crate::server::Core;

const DEFAULT: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
/// Where ingresses named their class before there was a field.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

pub struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && request.is("networking.k8s.io", "ingresses")
    }

    async fn admit(&self, request: &mut Request<'_>, core: &Core) -> Result<(), Status> {
        if names_class(request.object) {
            return Ok(());
        }
        if let Some(class) = newest_default(core.objects("networking.k8s.io", "ingressclasses", ""), &DEFAULT) {
            request.object["spec"]["ingressClassName"] = class.into();
        }
        Ok(())
    }
}

fn names_class(ingress: &Value) -> bool {
    !ingress["spec"]["ingressClassName"].is_null() || !ingress["metadata"]["annotations"][OLD_CLASS].is_null()
}
