//! The model as a server: a client whose requests change a [`World`], in the order in which they come.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use client::plan::{Deletion, Op};
use client::{PatchBody, Target, Verb};
use http::{Method, Request, Response};
use http_body_util::Full;
use kube::api::ApiResource;
use kube::client::Body;
use serde_json::{Value, json};

use super::{Refusal, World, refuse};

/// What the server was asked for, and what it refuses whatever the world says.
#[derive(Default)]
pub struct Served {
    pub world: World,
    /// `create pods ns/a`, as [`Op::describe`] has it, in the order in which requests came.
    pub asked: Vec<String>,
    /// Requests by their beginning that are refused so.
    pub refusals: Vec<(&'static str, Refusal)>,
}

/// A client of this server.
pub fn client(served: &Arc<Mutex<Served>>) -> kube::Client {
    let served = served.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let served = served.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap_or_default();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let kind = parts.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let op = op(&parts.method, parts.uri.path(), kind, body);
            let answer = op.and_then(|op| served.lock().unwrap_or_else(PoisonError::into_inner).answer(&op));
            let (code, body) = answer.map_or_else(|r| (r.code, status(&r)), |object| (200, object));
            let response = Response::builder().status(code).body(Full::new(Bytes::from(body.to_string())));
            Ok::<_, Infallible>(response.expect("a code of three digits"))
        }
    });
    kube::Client::new(service, "default")
}

impl Served {
    fn answer(&mut self, op: &Op) -> Result<Value, Refusal> {
        let asked = op.describe();
        self.asked.push(asked.clone());
        let refused = self.refusals.iter().find(|(start, _)| asked.starts_with(start));
        refused.map_or_else(|| self.world.request(op), |(_, refusal)| Err(refusal.clone()))
    }
}

fn status(refusal: &Refusal) -> Value {
    let Refusal { code, reason, message } = refusal;
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message})
}

/// What a request means: the executor's `act` the other way round.
fn op(method: &Method, path: &str, content_type: &str, body: Value) -> Result<Op, Refusal> {
    let (mut target, sub) = target(path).map_or_else(|| refuse(404, "NotFound", path), Ok)?;
    if target.name.is_empty() {
        target.name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    }
    let verb = match (method.as_str(), sub) {
        ("POST", Some(subresource)) => Verb::Post { subresource, object: body },
        ("POST", None) => Verb::Create(body),
        ("PUT", subresource) => Verb::Update { subresource, object: body },
        ("PATCH", subresource) => Verb::Patch { subresource, patch: patch(content_type, body)? },
        ("DELETE", None) => Verb::Delete(deletion(&body)),
        _ => return refuse(405, "MethodNotAllowed", method.as_str()),
    };
    Ok(Op { target, verb })
}

fn patch(content_type: &str, body: Value) -> Result<PatchBody, Refusal> {
    match content_type {
        "application/strategic-merge-patch+json" => Ok(PatchBody::Strategic(body)),
        "application/merge-patch+json" => Ok(PatchBody::Merge(body)),
        other => refuse(415, "UnsupportedMediaType", format!("the model knows no {other}")),
    }
}

fn deletion(options: &Value) -> Deletion {
    let text = |name: &str| options["preconditions"][name].as_str().map(str::to_owned);
    Deletion { uid: text("uid"), resource_version: text("resourceVersion"), ..Deletion::default() }
}

/// `/api/v1/namespaces/ns/pods/name/status`, `/apis/apps/v1/deployments`, ...
fn target(path: &str) -> Option<(Target, Option<&'static str>)> {
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    let group = if parts.next()? == "apis" { parts.next()? } else { "" };
    let version = parts.next()?;
    let namespace = parts.next_if_eq(&"namespaces").and_then(|_| parts.next()).unwrap_or_default();
    let plural = parts.next()?;
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: String::new(),
        plural: plural.to_owned(),
    };
    let name = parts.next().unwrap_or_default().to_owned();
    let sub = match parts.next() {
        None => None,
        Some(sub) => Some(*["status", "binding", "eviction", "finalize"].iter().find(|known| **known == sub)?),
    };
    Some((Target { resource, namespace: namespace.to_owned(), name }, sub))
}
