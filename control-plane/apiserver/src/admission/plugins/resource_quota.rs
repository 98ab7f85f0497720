//! ResourceQuota: refuses what a namespace's quotas have no room for. What is let through is reserved in the same
//! transaction that stores the object, guarded by the quota's revision: two requests never get the same room. I/O: reads the
//! clock.

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use kinds::quota::{self, Change};
use meta::Status;
use serde_json::Value;

use super::reservations::Reservations;
use crate::admission::{Operation, Plugin, Request, Validating, World};
use crate::storage::{Guard, Write};

#[derive(Default)]
pub struct ResourceQuota {
    reservations: Reservations,
}

/// Events come and go by themselves and are counted nowhere.
const UNCOUNTED: &str = "events";

impl Plugin for ResourceQuota {
    fn handles(&self, request: &Request<'_>) -> bool {
        if request.namespace.is_empty() || request.kind.storage.is_none() || request.kind.plural == UNCOUNTED {
            return false;
        }
        match request.operation {
            Operation::Create => request.subresource.is_empty(),
            // Only these can come to need more; pods by a resize.
            Operation::Update => match request.kind.resource().as_str() {
                "pods" => request.subresource == "resize",
                resource => request.subresource.is_empty() && quota::MEASURED.contains(&resource),
            },
            _ => false,
        }
    }
}

#[async_trait]
impl Validating for ResourceQuota {
    async fn validate(&self, request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
        const QUOTAS: (&str, &str) = ("", "resourcequotas");
        if world.entries(QUOTAS.0, QUOTAS.1, request.namespace).is_empty() {
            return Ok(());
        }
        request.extra.hold(self.reservations.lock(request.namespace).await);
        // Whoever held the lock before has written: what is read now must show it.
        world.read_own_writes(&request.gvr()).await?;
        let resource = request.kind.resource();
        let change = Change { resource: &resource, object: request.object, old: request.old, now: Timestamp::now() };
        for entry in world.entries(QUOTAS.0, QUOTAS.1, request.namespace) {
            let mut quota = entry.object();
            let Some(used) = quota::reserve(&quota, &change).map_err(|why| request.forbidden(why))? else { continue };
            quota["status"]["used"] = Value::Object(quota::written(&used));
            object::metadata(&mut quota).remove("resourceVersion");
            let value = Bytes::from(serde_json::to_vec(&quota).map_err(Status::internal)?);
            request.extra.guard(Guard { key: entry.key.clone(), mod_revision: entry.revision });
            request.extra.write(Write::Put { key: entry.key.clone(), value, lease: 0 });
        }
        Ok(())
    }
}
