//! An API server in memory: create, get, list, watch, patch and delete of whatever is sent, with resource versions,
//! field selectors on the name and the node, tokens, and reviews that allow everything.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Default)]
struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    /// Version, path, event.
    log: Vec<(u64, String, Value)>,
    tokens: u64,
}

/// Clones are the same server.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    version: watch::Sender<u64>,
}

/// `/api/v1/namespaces/n/pods/p` is object `p` of collection `/api/v1/pods` in namespace `n`.
fn split(path: &str) -> (String, String, Vec<String>) {
    let mut parts: Vec<String> = path.trim_matches('/').split('/').map(str::to_owned).collect();
    let head = if parts[0] == "api" { 2 } else { 3 };
    let mut rest = parts.split_off(head);
    let mut namespace = String::new();
    if rest.len() > 2 && rest[0] == "namespaces" {
        namespace = rest[1].clone();
        rest.drain(..2);
    }
    let collection = format!("/{}/{}", parts.join("/"), rest[0]);
    (collection, namespace, rest.split_off(1))
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return };
    for (key, value) in patch {
        let slot = &mut target[key.as_str()];
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(key)),
            Value::Object(_) => {
                if !slot.is_object() {
                    *slot = json!({});
                }
                merge(slot, value);
            }
            Value::Array(items) if key == "conditions" && slot.is_array() => {
                for item in items {
                    let list = slot.as_array_mut().unwrap();
                    match list.iter_mut().find(|c| c["type"] == item["type"]) {
                        Some(old) => merge(old, item),
                        None => list.push(item.clone()),
                    }
                }
            }
            Value::Array(items) => *slot = items.iter().filter(|i| i.get("$patch").is_none()).cloned().collect(),
            other => *slot = other.clone(),
        }
    }
}

impl Api {
    pub fn new() -> Api {
        Api { state: Arc::default(), version: watch::Sender::new(0) }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    /// Texts of all Events: `reason: message`.
    pub fn events(&self) -> Vec<String> {
        let state = self.state.lock();
        let events = state.objects.values().filter(|o| o.get("involvedObject").is_some());
        events.map(|e| format!("{}: {}", e["reason"].as_str().unwrap(), e["message"].as_str().unwrap())).collect()
    }

    /// Creates or replaces.
    pub fn put(&self, path: &str, object: Value) -> Value {
        let mut state = self.state.lock();
        Self::store(&mut state, path, object, &self.version)
    }

    pub fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        let mut object = state.objects[path].clone();
        change(&mut object);
        Self::store(&mut state, path, object, &self.version);
    }

    pub fn remove(&self, path: &str) -> bool {
        let mut state = self.state.lock();
        let Some(object) = state.objects.remove(path) else { return false };
        state.version += 1;
        let version = state.version;
        state.log.push((version, path.to_owned(), json!({"type": "DELETED", "object": object})));
        self.version.send_replace(version);
        true
    }

    /// Waits until the object is as wanted.
    pub async fn until(&self, path: &str, mut good: impl FnMut(Option<&Value>) -> bool) -> Option<Value> {
        let mut news = self.version.subscribe();
        let wait = async {
            loop {
                let object = self.get(path);
                if good(object.as_ref()) {
                    return object;
                }
                news.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), wait).await {
            Ok(object) => object,
            Err(_) => panic!("{path} never got there: {:#?}\nevents: {:#?}", self.get(path), self.events()),
        }
    }

    fn store(state: &mut State, path: &str, mut object: Value, told: &watch::Sender<u64>) -> Value {
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{version}").into();
        }
        let old = state.objects.insert(path.to_owned(), object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        state.log.push((version, path.to_owned(), json!({"type": kind, "object": object})));
        told.send_replace(version);
        object
    }

    async fn answer(&self, request: Request<Body>) -> Reply {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let path = head.uri.path().to_owned();
        let query = head.uri.query().unwrap_or("").replace("%3D", "=");
        let (collection, namespace, rest) = split(&path);
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        match (head.method, rest.as_slice()) {
            (Method::GET, []) if query.contains("watch=true") => self.watch(collection, namespace, &query),
            (Method::GET, []) => self.list(&collection, &namespace, &query),
            (Method::GET, [_]) => self.get(&path).map_or_else(not_found, |o| ok(&o)),
            (Method::POST, []) => self.create(&collection, &path, body),
            (Method::POST, [_, "token"]) => ok(&self.token(body)),
            (Method::PUT, [_]) => ok(&self.put(&path, body)),
            (Method::PATCH, [_, ..]) => self.patch(path.strip_suffix("/status").unwrap_or(&path), &body),
            (Method::DELETE, [_]) => {
                if self.remove(&path) {
                    ok(&json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
                } else {
                    not_found()
                }
            }
            other => panic!("the fake API does not know {other:?} {path}"),
        }
    }

    fn create(&self, collection: &str, path: &str, mut body: Value) -> Reply {
        match collection.rsplit('/').next().unwrap() {
            "tokenreviews" => {
                let good = body["spec"]["token"] == "good";
                body["status"] = json!({"authenticated": good, "user": {"username": "someone", "groups": ["g"]}});
                return ok(&body);
            }
            "subjectaccessreviews" => {
                body["status"] = json!({"allowed": body["spec"]["user"] == "someone"});
                return ok(&body);
            }
            _ => {}
        }
        let name = body["metadata"]["name"].as_str().unwrap().to_owned();
        let path = format!("{path}/{name}");
        if self.get(&path).is_some() {
            let status = json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "AlreadyExists", "message": "already exists"});
            return reply(409, &status);
        }
        let (_, namespace, _) = split(&path);
        if !namespace.is_empty() {
            body["metadata"]["namespace"] = namespace.into();
        }
        ok(&self.put(&path, body))
    }

    fn token(&self, mut body: Value) -> Value {
        let mut state = self.state.lock();
        state.tokens += 1;
        let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
        body["status"] = json!({"token": format!("token-{}", state.tokens), "expirationTimestamp": until.to_string()});
        body
    }

    fn patch(&self, path: &str, patch: &Value) -> Reply {
        let mut state = self.state.lock();
        let Some(mut object) = state.objects.get(path).cloned() else { return not_found() };
        let uid = &patch["metadata"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            let status = json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": "Precondition failed: UID in precondition"});
            return reply(409, &status);
        }
        let before = object.clone();
        merge(&mut object, patch);
        if before == object {
            return ok(&object);
        }
        ok(&Self::store(&mut state, path, object, &self.version))
    }

    fn matches(path: &str, object: &Value, collection: &str, namespace: &str, query: &str) -> bool {
        let (of, space, rest) = split(path);
        let field = |name: &str| {
            query.split('&').find_map(|p| {
                p.strip_prefix("fieldSelector=")?.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)
            })
        };
        of == collection
            && rest.len() == 1
            && (namespace.is_empty() || space == namespace)
            && field("metadata.name").is_none_or(|n| object["metadata"]["name"] == n)
            && field("spec.nodeName").is_none_or(|n| object["spec"]["nodeName"] == n)
    }

    fn list(&self, collection: &str, namespace: &str, query: &str) -> Reply {
        let state = self.state.lock();
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|(path, o)| Self::matches(path, o, collection, namespace, query))
            .map(|(_, o)| o)
            .collect();
        ok(
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": state.version.to_string()}, "items": items}),
        )
    }

    fn watch(&self, collection: String, namespace: String, query: &str) -> Reply {
        let query = query.to_owned();
        let since = query.split('&').find_map(|p| p.strip_prefix("resourceVersion=")?.parse::<u64>().ok()).unwrap_or(0);
        let api = self.clone();
        let news = self.version.subscribe();
        let events = stream::unfold((news, since), move |(mut news, since)| {
            let (api, collection, namespace, query) =
                (api.clone(), collection.clone(), namespace.clone(), query.clone());
            async move {
                loop {
                    let latest = *news.borrow_and_update();
                    let text: String = {
                        let state = api.state.lock();
                        let fresh = state.log.iter().filter(|(v, path, event)| {
                            *v > since
                                && *v <= latest
                                && Api::matches(path, &event["object"], &collection, &namespace, &query)
                        });
                        fresh.map(|(_, _, event)| line(event)).collect()
                    };
                    if !text.is_empty() {
                        return Some((Ok(Frame::data(Bytes::from(text))), (news, latest)));
                    }
                    news.changed().await.ok()?;
                }
            }
        });
        Response::new(StreamBody::new(events).boxed_unsync())
    }
}

/// An event as API servers write it: what it is comes before the object, so that a reader need not keep it.
fn line(event: &Value) -> String {
    format!("{{\"type\":{},\"object\":{}}}\n", event["type"], event["object"])
}

fn reply(code: u16, value: &Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *reply.status_mut() = http::StatusCode::from_u16(code).unwrap();
    reply.headers_mut().insert("content-type", "application/json".parse().unwrap());
    reply
}

fn ok(value: &Value) -> Reply {
    reply(200, value)
}

fn not_found() -> Reply {
    reply(
        404,
        &json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "not found"}),
    )
}
