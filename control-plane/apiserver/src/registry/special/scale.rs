//! /scale: the replica count of any kind that has one, as an autoscaling/v1 Scale.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use kinds::ScalePaths;
use meta::{FieldError, Gvk, Selector, Status};
use object::{meta_text, metadata};
use serde_json::{Value, json};

use crate::http::answer::Answer;
use crate::http::body::{self, RequestBody};
use crate::http::call::Call;
use crate::registry::Served;
use crate::registry::decode;
use crate::registry::managed;
use crate::registry::object_meta;
use crate::registry::options::WriteOptions;
use crate::registry::patch::{Patch, PatchBody, SchemaOf, require_manager};
use crate::registry::update::{Change, Origin, Part};
use crate::registry::verbs::Verbs;

const SCALE: Gvk = Gvk::new("autoscaling", "v1", "Scale");

fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|step| !step.is_empty())
}

fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    steps(path).fold(object, |value, step| &value[step])
}

fn put(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for step in steps(path) {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[step];
    }
    *place = value;
}

/// The Scale of an object.
pub fn scale_of(paths: &ScalePaths, object: &Value) -> Value {
    let mut meta = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            meta[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": at(object, &paths.status_replicas).as_i64().unwrap_or(0)});
    let selector = paths.selector.as_ref().map(|path| selector_text(at(object, path))).unwrap_or_default();
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let mut scale =
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": {}, "status": status});
    if let Some(replicas) = at(object, &paths.spec_replicas).as_i64().filter(|replicas| *replicas != 0) {
        scale["spec"]["replicas"] = replicas.into();
    }
    scale
}

/// A selector as text: it is one already, or a LabelSelector, or a plain map.
fn selector_text(selector: &Value) -> String {
    match selector {
        Value::String(text) => text.clone(),
        Value::Object(map) if map.contains_key("matchLabels") || map.contains_key("matchExpressions") => {
            Selector::from_object(Some(selector)).map(|selector| selector.to_string()).unwrap_or_default()
        }
        Value::Object(map) => Selector::from_map(map).to_string(),
        _ => String::new(),
    }
}

impl Verbs {
    pub(super) async fn scale(
        &self,
        call: &Call,
        served: &Arc<Served>,
        paths: &ScalePaths,
        body: RequestBody,
    ) -> Result<Answer, Status> {
        if matches!(call.method, Method::GET | Method::HEAD) {
            let key = self.objects.key_of(call, served, &call.info.name)?;
            return match self.objects.live(served, &key).await? {
                Some(entry) => Ok(Answer::object(200, served, scale_of(paths, &served.object(&entry).await?))),
                None => Err(Status::not_found(&served.gvr(), &call.info.name)),
            };
        }
        let body = body::read(body).await?;
        let patching = call.method == Method::PATCH;
        let options = WriteOptions::parse(&call.query, if patching { "PatchOptions" } else { "UpdateOptions" })?;
        let (patch, whole) = if patching {
            let patch = Patch::parse(call, &body)?;
            if let PatchBody::Apply(intent) = &patch.body {
                return self.apply_scale(call, served, paths, intent, &options).await;
            }
            (Some(patch), Value::Null)
        } else {
            let scale = decode::decode_as(call, &SCALE, &body, options.field_validation)?;
            object_meta::check_name(&scale, &call.info.name, false)?;
            (None, scale)
        };
        let unconditional = meta_text(&whole, "resourceVersion").is_empty();
        let change = Change {
            part: Part::Main,
            subresource: "scale",
            name: &call.info.name,
            options: &options,
            retry: unconditional,
            origin: if patching { Origin::Patched } else { Origin::Whole },
        };
        let schema = SchemaOf::Type(SCALE);
        let answer = self
            .change(call, served, &change, |old| {
                let scale = match &patch {
                    Some(patch) => {
                        let new = patch.apply(&scale_of(paths, old), &schema)?;
                        let checked = decode::recheck(call, &SCALE, &new, options.field_validation);
                        checked.map_err(|trouble| patch.misfit(trouble))?
                    }
                    None => whole.clone(),
                };
                scaled(paths, old, &scale, &call.info.name)
            })
            .await?;
        Ok(shown(paths, answer))
    }

    /// Server-side apply of a Scale: its manager owns the replica count of the object itself.
    async fn apply_scale(
        &self,
        call: &Call,
        served: &Arc<Served>,
        paths: &ScalePaths,
        intent: &Bytes,
        options: &WriteOptions,
    ) -> Result<Answer, Status> {
        require_manager(options)?;
        let scale = decode::decode_intent_as(call, &SCALE, served, intent, options.field_validation)?;
        let mut config = json!({
            "apiVersion": served.kind.api_version(), "kind": served.kind.kind, "metadata": {"name": call.info.name},
        });
        if let Some(replicas) = scale["spec"].get("replicas") {
            put(&mut config, &paths.spec_replicas, replicas.clone());
        }
        let pinned = meta_text(&scale, "resourceVersion").to_owned();
        if !pinned.is_empty() {
            config["metadata"]["resourceVersion"] = pinned.as_str().into();
        }
        let change = Change {
            part: Part::Main,
            subresource: "scale",
            name: &call.info.name,
            options,
            retry: pinned.is_empty(),
            origin: Origin::Applied,
        };
        let force = options.force.unwrap_or(false);
        let make = |old: &Value| {
            let new = managed::apply(call, served, Some(old), &config, &options.field_manager, force)?;
            let replicas = at(&new, &paths.spec_replicas).as_i64().unwrap_or(0);
            check_replicas(replicas, &call.info.name)?;
            Ok(new)
        };
        Ok(shown(paths, self.change(call, served, &change, make).await?))
    }
}

/// The answer to a change of an object, as its Scale.
fn shown(paths: &ScalePaths, answer: Answer) -> Answer {
    match answer {
        Answer::Entry(code, served, entry) => Answer::object(code, &served, scale_of(paths, &entry.object())),
        Answer::Object(code, served, object) => Answer::object(code, &served, scale_of(paths, &object)),
        other => other,
    }
}

fn check_replicas(replicas: i64, name: &str) -> Result<(), Status> {
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(Status::invalid(&SCALE, name, &[error]));
    }
    Ok(())
}

/// The object with the replicas of a Scale.
fn scaled(paths: &ScalePaths, old: &Value, scale: &Value, name: &str) -> Result<Value, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    check_replicas(replicas, name)?;
    let mut new = old.clone();
    put(&mut new, &paths.spec_replicas, replicas.into());
    // A Scale without a version is for any, also of kinds whose objects have to name theirs.
    if let Some(version) = scale["metadata"].get("resourceVersion").filter(|version| version.as_str() != Some("")) {
        metadata(&mut new).insert("resourceVersion".to_owned(), version.clone());
    }
    if let Some(uid) = scale["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
        metadata(&mut new).insert("uid".to_owned(), uid.into());
    }
    Ok(new)
}
