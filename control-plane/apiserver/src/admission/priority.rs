//! Priority: turns a pod's priority class into a number, and keeps at most one class the default.

use async_trait::async_trait;
use meta::Status;
use serde_json::Value;

use super::{Operation, Plugin, Request};
use crate::server::Core;

pub struct Priority;

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && request.is("", "pods")
    }

    async fn admit(&self, request: &mut Request<'_>, core: &Core) -> Result<(), Status> {
        let name = request.object["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let class = if name.is_empty() {
            default_class(core)
        } else {
            match core.find("scheduling.k8s.io", "priorityclasses", "", &name).await? {
                Some(entry) => Some(entry.object()),
                None => {
                    let why = format!("no PriorityClass with name {name} was found");
                    return Err(request.forbidden(why));
                }
            }
        };
        let value = class.as_ref().and_then(|class| class["value"].as_i64()).unwrap_or(0);
        let given = request.object["spec"]["priority"].as_i64();
        if let Some(given) = given.filter(|given| *given != value) {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            );
            return Err(request.forbidden(why));
        }
        let spec = &mut request.object["spec"];
        spec["priority"] = value.into();
        let policy = class.as_ref().and_then(|class| class["preemptionPolicy"].as_str());
        if spec["preemptionPolicy"].is_null() {
            spec["preemptionPolicy"] = policy.unwrap_or("PreemptLowerPriority").into();
        }
        if let Some(class) = class.filter(|_| name.is_empty()) {
            spec["priorityClassName"] = class["metadata"]["name"].clone();
        }
        Ok(())
    }
}

/// The class marked as default; of several, the one with the lowest value.
fn default_class(core: &Core) -> Option<Value> {
    let classes = core.objects("scheduling.k8s.io", "priorityclasses", "");
    let defaults = classes.into_iter().filter(|class| class["globalDefault"] == true);
    defaults.min_by_key(|class| class["value"].as_i64().unwrap_or(0))
}
