//! Binding: assigns an object to a node, once. The answer is a Status.

use std::sync::Arc;

use bytes::Bytes;
use meta::{FieldError, Gvk, Gvr, Reason, Status};
use object::meta_text;
use serde_json::{Value, json};

use crate::admission::Operation;
use crate::http::answer::Answer;
use crate::http::call::Call;
use crate::registry::Served;
use crate::registry::decode;
use crate::registry::object_meta::settle_namespace;
use crate::registry::options::WriteOptions;
use crate::registry::update::{Change, Origin, Part};
use crate::registry::verbs::Verbs;

const BINDING: Gvk = Gvk::new("", "v1", "Binding");

impl Verbs {
    /// Binds the object that the path names, or else the body.
    pub(super) async fn bind(
        &self,
        call: &Call,
        served: &Arc<Served>,
        name: Option<&str>,
        body: &Bytes,
    ) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&call.query, "CreateOptions")?;
        let mut binding = decode::decode_as(call, &BINDING, body, options.field_validation)?;
        settle_namespace(served, &call.info.namespace, &mut binding)?;
        let given = meta_text(&binding, "name").to_owned();
        let name = match name {
            Some(name) if given != name => {
                return Err(Status::bad_request("name in URL does not match name in Binding object"));
            }
            Some(name) => name,
            None if given.is_empty() => return Err(Status::bad_request("Name parameter required.")),
            None => &given,
        };
        check(&binding)?;
        let what = (Operation::Create, "binding");
        self.admit_posted(call, served, what, name, &mut binding, Some(&options)).await?;
        let node = binding["target"]["name"].as_str().unwrap_or_default();
        let what = Gvr { resource: format!("{}/binding", served.kind.plural).into(), ..served.gvr() };
        let change = Change {
            part: Part::Own,
            subresource: "binding",
            name,
            options: &options,
            retry: true,
            origin: Origin::Whole,
        };
        let now = meta::time::format(call.now);
        self.change(call, served, &change, |old| bound(old, &binding, node, &what, &now)).await?;
        Ok(Answer::status(Status { success: true, code: 201, ..Status::default() }))
    }
}

fn check(binding: &Value) -> Result<(), Status> {
    let target = &binding["target"];
    let mut errors = Vec::new();
    let kind = target["kind"].as_str().unwrap_or_default();
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported("target.kind", kind, ["Node", "<empty>"]));
    }
    let node = target["name"].as_str().unwrap_or_default();
    if node.is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    match errors.as_slice() {
        [] => Ok(()),
        // Upstream answers with the bare errors.
        [error] => Err(Status::failure(500, Reason::Unknown, error.to_string())),
        all => {
            let all: Vec<String> = all.iter().map(FieldError::to_string).collect();
            Err(Status::failure(500, Reason::Unknown, format!("[{}]", all.join(", "))))
        }
    }
}

fn bound(old: &Value, binding: &Value, node: &str, what: &Gvr, now: &str) -> Result<Value, Status> {
    let name = meta_text(old, "name");
    let refuse = |why: String| Err(Status::conflict(what, name, why));
    let uid = meta_text(binding, "uid");
    if !uid.is_empty() && uid != meta_text(old, "uid") {
        return refuse(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta_text(old, "uid")
        ));
    }
    if old["metadata"]["deletionTimestamp"].is_string() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(current) = old["spec"]["nodeName"].as_str().filter(|current| !current.is_empty()) {
        return refuse(format!("pod {name} is already assigned to node {}", meta::text::quote(current)));
    }
    if old["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut new = old.clone();
    new["spec"]["nodeName"] = node.into();
    for field in ["annotations", "labels"] {
        if let Some(extra) = binding["metadata"][field].as_object().filter(|map| !map.is_empty()) {
            if !new["metadata"][field].is_object() {
                new["metadata"][field] = json!({});
            }
            for (key, value) in extra {
                new["metadata"][field][key] = value.clone();
            }
        }
    }
    set_condition(
        &mut new,
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}),
    );
    Ok(new)
}

/// Replaces the condition of the same type, keeping the time of its last transition when the status stays.
pub fn set_condition(object: &mut Value, mut condition: Value) {
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    let list = &mut object["status"]["conditions"];
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return };
    match list.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(known) => {
            if known["status"] == condition["status"] {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = condition;
        }
        None => list.push(condition),
    }
}
