//! RuntimeClass: a pod that names a runtime class gets its overhead and its scheduling constraints.

use async_trait::async_trait;
use meta::Status;
use serde_json::{Map, Value, json};

use crate::admission::{Mutating, Operation, Plugin, Request, Validating, World};

pub struct RuntimeClass;

async fn class_of(request: &Request<'_>, world: &dyn World) -> Result<Option<Value>, Status> {
    let name = match request.object["spec"]["runtimeClassName"].as_str() {
        None | Some("") => return Ok(None),
        Some(name) => name,
    };
    match world.find("node.k8s.io", "runtimeclasses", "", name).await? {
        Some(entry) => Ok(Some(entry.object())),
        None => Err(request.forbidden(format!("pod rejected: RuntimeClass {} not found", meta::text::quote(name)))),
    }
}

impl Plugin for RuntimeClass {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && request.is("", "pods")
    }
}

#[async_trait]
impl Mutating for RuntimeClass {
    async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status> {
        let Some(class) = class_of(request, world).await? else { return Ok(()) };
        let spec = &mut request.object["spec"];
        let done = set_overhead(spec, &class["overhead"]["podFixed"])
            .and_then(|()| set_scheduling(spec, &class["scheduling"]));
        done.map_err(|why| request.forbidden(why))
    }
}

#[async_trait]
impl Validating for RuntimeClass {
    async fn validate(&self, request: &Request<'_>, world: &dyn World) -> Result<(), Status> {
        let class = class_of(request, world).await?.unwrap_or_default();
        overhead_fits(&request.object["spec"]["overhead"], &class["overhead"]["podFixed"])
            .map_err(|why| request.forbidden(why))
    }
}

fn given(overhead: &Value) -> bool {
    overhead.as_object().is_some_and(|map| !map.is_empty())
}

/// Amounts are compared as what they are and not as they are written.
fn same_amounts(a: &Value, b: &Value) -> bool {
    let (a, b) = (json!({"amounts": a}), json!({"amounts": b}));
    kinds::quota::amounts(&a, "amounts") == kinds::quota::amounts(&b, "amounts")
}

fn set_overhead(spec: &mut Value, overhead: &Value) -> Result<(), String> {
    if !given(overhead) {
        return Ok(());
    }
    if given(&spec["overhead"]) && !same_amounts(&spec["overhead"], overhead) {
        return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
    }
    spec["overhead"] = overhead.clone();
    Ok(())
}

fn overhead_fits(overhead: &Value, of_class: &Value) -> Result<(), String> {
    match (given(overhead), given(of_class)) {
        (true, false) => {
            Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned())
        }
        (_, true) if !same_amounts(overhead, of_class) => {
            Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned())
        }
        _ => Ok(()),
    }
}

fn set_scheduling(spec: &mut Value, scheduling: &Value) -> Result<(), String> {
    if let Some(wanted) = scheduling["nodeSelector"].as_object() {
        let mut selector: Map<String, Value> = spec["nodeSelector"].as_object().cloned().unwrap_or_default();
        for (key, value) in wanted {
            let have = selector.entry(key.as_str()).or_insert_with(|| value.clone());
            if have != value {
                let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(have)
                ));
            }
        }
        spec["nodeSelector"] = Value::Object(selector);
    }
    let more = scheduling["tolerations"].as_array().map_or(&[][..], Vec::as_slice);
    if !more.is_empty() {
        let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
        for toleration in more {
            if !tolerations.contains(toleration) {
                tolerations.push(toleration.clone());
            }
        }
        spec["tolerations"] = tolerations.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_gives_overhead_and_place() {
        let mut spec = json!({"nodeSelector": {"a": "b"}, "tolerations": [{"key": "x"}]});
        let scheduling = json!({"nodeSelector": {"c": "d"}, "tolerations": [{"key": "x"}, {"key": "y"}]});
        set_scheduling(&mut spec, &scheduling).unwrap();
        set_overhead(&mut spec, &json!({"cpu": "10m"})).unwrap();
        let wanted = json!({"nodeSelector": {"a": "b", "c": "d"}, "tolerations": [{"key": "x"}, {"key": "y"}],
            "overhead": {"cpu": "10m"}});
        assert_eq!(spec, wanted);
    }

    #[test]
    fn what_contradicts_the_class_is_refused() {
        let said = set_scheduling(&mut json!({"nodeSelector": {"a": "b"}}), &json!({"nodeSelector": {"a": "c"}}));
        let text = "conflict: runtimeClass.scheduling.nodeSelector[a] = c; pod.spec.nodeSelector[a] = b";
        assert_eq!(said.unwrap_err(), text);
        assert!(set_overhead(&mut json!({"overhead": {"cpu": "1"}}), &json!({"cpu": "2"})).is_err());
        assert_eq!(set_overhead(&mut json!({"overhead": {"cpu": "1"}}), &json!({"cpu": "1000m"})), Ok(()));
        assert!(overhead_fits(&json!({"cpu": "1"}), &Value::Null).is_err());
        assert_eq!(overhead_fits(&Value::Null, &Value::Null), Ok(()));
    }
}
