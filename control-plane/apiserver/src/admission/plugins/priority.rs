//! Priority: turns a pod's priority class into a number, and keeps at most one class the default.

use async_trait::async_trait;
use meta::Status;
use serde_json::Value;

use crate::admission::{Mutating, Operation, Plugin, Request, World};

pub struct Priority;

impl Plugin for Priority {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && request.is("", "pods")
    }
}

#[async_trait]
impl Mutating for Priority {
    async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status> {
        let name = request.object["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let class = if name.is_empty() {
            default_class(world)
        } else {
            match world.find("scheduling.k8s.io", "priorityclasses", "", &name).await? {
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
fn default_class(world: &dyn World) -> Option<Value> {
    let classes = world.objects("scheduling.k8s.io", "priorityclasses", "");
    let defaults = classes.into_iter().filter(|class| class["globalDefault"] == true);
    defaults.min_by_key(|class| class["value"].as_i64().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::fake::{Fake, asked};
    use serde_json::json;

    async fn given(spec: Value) -> Result<Value, Status> {
        let class = |name: &str, value: i64, default: bool| json!({"metadata": {"name": name}, "value": value, "globalDefault": default, "preemptionPolicy": "Never"});
        let world = [class("high", 9, true), class("low", 3, true), class("none", 1, false)]
            .iter()
            .fold(Fake::default(), |world, class| world.with("scheduling.k8s.io", "priorityclasses", class));
        let mut pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let mut request = world.request(asked(Operation::Create, "/v1/pods", "p"), &mut pod, None);
        Priority.admit(&mut request, &world).await?;
        Ok(pod["spec"].take())
    }

    #[tokio::test]
    async fn a_class_gives_its_value_and_the_lowest_default_its_own() {
        let spec = given(json!({})).await.unwrap();
        assert_eq!(spec, json!({"priority": 3, "preemptionPolicy": "Never", "priorityClassName": "low"}));
        assert_eq!(given(json!({"priorityClassName": "none"})).await.unwrap()["priority"], 1);
        let refused = given(json!({"priorityClassName": "high", "priority": 8})).await.unwrap_err();
        assert!(refused.message.contains("computed 9 from the given PriorityClass name"), "{refused:?}");
        let unknown = given(json!({"priorityClassName": "x"})).await.unwrap_err();
        assert!(unknown.message.ends_with("no PriorityClass with name x was found"), "{unknown:?}");
    }
}
