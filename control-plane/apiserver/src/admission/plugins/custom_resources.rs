//! Judges CustomResourceDefinitions before they are stored. Upstream does this in the definition's own registry.

use async_trait::async_trait;
use meta::Status;

use crate::admission::{Plugin, Request, Validating, World};
use crate::crd;

pub struct CustomResourceDefinitions;

impl Plugin for CustomResourceDefinitions {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.writes() && request.is(crd::GROUP, crd::PLURAL)
    }
}

#[async_trait]
impl Validating for CustomResourceDefinitions {
    async fn validate(&self, request: &Request<'_>, _world: &dyn World) -> Result<(), Status> {
        let deleting = request.object["metadata"]["deletionTimestamp"].is_string();
        let errors = crd::validate::definition(request.object, request.old);
        if !errors.is_empty() && !deleting {
            return Err(Status::invalid(&request.kind.gvk(), request.name, &errors));
        }
        for warning in crd::warnings::formats(request.object, request.old) {
            request.warn(&warning);
        }
        if crd::validate::has_rules(&request.object["spec"]["versions"]) {
            request.warn("x-kubernetes-validations: the rules are stored and published, but this server does not evaluate them yet");
        }
        Ok(())
    }
}
