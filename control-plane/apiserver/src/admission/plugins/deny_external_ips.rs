//! DenyServiceExternalIPs: no new external addresses for Services. Whoever may write a Service can take over any address
//! with them; off by default, as upstream has it.

use async_trait::async_trait;
use meta::Status;
use serde_json::Value;

use crate::admission::{Plugin, Request, Validating, World};

pub struct DenyServiceExternalIPs;

impl Plugin for DenyServiceExternalIPs {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.writes() && request.is("", "services")
    }
}

#[async_trait]
impl Validating for DenyServiceExternalIPs {
    async fn validate(&self, request: &Request<'_>, _world: &dyn World) -> Result<(), Status> {
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
