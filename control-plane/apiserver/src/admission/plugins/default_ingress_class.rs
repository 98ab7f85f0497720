//! DefaultIngressClass: an ingress that names no class gets the default one.

use async_trait::async_trait;
use meta::Status;
use serde_json::Value;

use super::default_class::newest_default;
use crate::admission::{Mutating, Operation, Plugin, Request, World};

const DEFAULT: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
/// Where ingresses named their class before there was a field.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

pub struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && request.is("networking.k8s.io", "ingresses")
    }
}

#[async_trait]
impl Mutating for DefaultIngressClass {
    async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status> {
        if names_class(request.object) {
            return Ok(());
        }
        if let Some(class) = newest_default(world.objects("networking.k8s.io", "ingressclasses", ""), &DEFAULT) {
            request.object["spec"]["ingressClassName"] = class.into();
        }
        Ok(())
    }
}

fn names_class(ingress: &Value) -> bool {
    !ingress["spec"]["ingressClassName"].is_null() || !ingress["metadata"]["annotations"][OLD_CLASS].is_null()
}
