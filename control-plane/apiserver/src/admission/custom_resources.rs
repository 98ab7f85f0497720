//! Judges CustomResourceDefinitions before they are stored. Upstream does this in the definition's own registry.

use async_trait::async_trait;
use meta::Status;

use super::{Operation, Plugin, Request};
use crate::crd;
use crate::server::Core;

pub struct CustomResourceDefinitions;

#[async_trait]
impl Plugin for CustomResourceDefinitions {
    fn name(&self) -> &'static str {
        "CustomResourceDefinitions"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update) && request.is(crd::GROUP, crd::PLURAL)
    }

    async fn validate(&self, request: &Request<'_>, _core: &Core) -> Result<(), Status> {
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
