//! DenyServiceExternalIPs: no new external addresses for Services. Whoever may write a Service can take over any address
//! with them; off by default, as upstream has it.

use async_trait::async_trait;
use meta::Status;
use serde_json::Value;

use super::{Operation, Plugin, Request};
use crate::server::Core;

pub struct DenyServiceExternalIPs;

#[async_trait]
impl Plugin for DenyServiceExternalIPs {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update) && request.is("", "services")
    }

    async fn validate(&self, request: &Request<'_>, _core: &Core) -> Result<(), Status> {
        let known = request.old.map_or(&[][..], addresses);
        match addresses(request.object).iter().all(|address| known.contains(address)) {
            true => Ok(()),
            false => Err(request.forbidden("Use of external IPs is denied by admission control")),
        }
    }
}

fn addresses(service: &Value) -> &[Value] {
    service["spec"]["externalIPs"].as_array().map_or(&[][..], Vec::as_slice)
}
