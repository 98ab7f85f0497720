//! An API server of a few lines for components that only list and watch: collections of JSON objects, by path.
//!
//! Selectors are not looked at: whoever tests them tests the real server. Watches end when the fake is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// A fake API server; clones are the same server.
#[derive(Clone, Debug)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    collections: BTreeMap<String, Collection>,
    /// Paths that answer with one document.
    documents: BTreeMap<String, Value>,
    /// Collections that are not served.
    unserved: BTreeSet<String>,
    /// How often something was sent to a path.
    posts: BTreeMap<String, usize>,
}

#[derive(Debug, Default)]
struct Collection {
    objects: BTreeMap<(String, String), Value>,
    /// (version, event) in order.
    events: Vec<(u64, Value)>,
}

impl Default for FakeApi {
    fn default() -> Self {
        FakeApi { state: Arc::default(), version: watch::Sender::new(0) }
    }
}

impl FakeApi {
    pub fn new() -> Self {
        FakeApi::default()
    }

    /// A client that speaks to this server.
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = api.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces an object in a collection such as `/api/v1/services`.
    pub fn put(&self, collection: &str, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let of = state.collections.entry(collection.to_owned()).or_default();
        let kind = match of.objects.insert(key(&object), object.clone()) {
            None => "ADDED",
            Some(_) => "MODIFIED",
        };
        of.events.push((version, json!({"type": kind, "object": object})));
        drop(state);
        self.version.send_replace(version);
    }

    /// Removes an object; nothing happens when there is none.
    pub fn delete(&self, collection: &str, namespace: &str, name: &str) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let of = state.collections.entry(collection.to_owned()).or_default();
        if let Some(mut object) = of.objects.remove(&(namespace.to_owned(), name.to_owned())) {
            object["metadata"]["resourceVersion"] = version.to_string().into();
            of.events.push((version, json!({"type": "DELETED", "object": object})));
        }
        drop(state);
        self.version.send_replace(version);
    }

    /// Answers this path with a document, discovery's for example.
    pub fn document(&self, path: &str, document: Value) {
        self.state().documents.insert(path.to_owned(), document);
    }

    /// How often something was sent to a path.
    pub fn posted(&self, path: &str) -> usize {
        self.state().posts.get(path).copied().unwrap_or(0)
    }

    /// Forgets a collection and answers 404 in its place until it is served again; its watches end.
    pub fn unserve(&self, collection: &str) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        state.collections.remove(collection);
        state.unserved.insert(collection.to_owned());
        drop(state);
        self.version.send_replace(version);
    }

    pub fn serve(&self, collection: &str) {
        self.state().unserved.remove(collection);
    }

    fn answer(&self, request: &Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let query = request.uri().query().unwrap_or_default();
        let path = request.uri().path().to_owned();
        let parameter = |name: &str| {
            query.split('&').filter_map(|p| p.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v.to_owned())
        };
        let (document, unserved) = {
            let mut state = self.state();
            if request.method() != "GET" {
                *state.posts.entry(path.clone()).or_default() += 1;
            }
            (state.documents.get(&path).cloned(), state.unserved.contains(&path))
        };
        if unserved {
            let body = Full::new(Bytes::from_static(b"404 page not found\n")).boxed_unsync();
            return Response::builder().status(404).body(body).expect("a constant status");
        }
        let body = if let Some(document) = document {
            Full::new(Bytes::from(document.to_string())).boxed_unsync()
        } else if parameter("watch").as_deref() == Some("true") {
            let since = parameter("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
            self.watch(path, since)
        } else {
            self.list(&path)
        };
        Response::builder().header("content-type", "application/json").body(body).expect("a constant header")
    }

    fn list(&self, path: &str) -> UnsyncBoxBody<Bytes, Infallible> {
        let state = self.state();
        let items: Vec<_> = state.collections.get(path).into_iter().flat_map(|c| c.objects.values().cloned()).collect();
        let list = json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": state.version.to_string()}, "items": items,
        });
        Full::new(Bytes::from(list.to_string())).boxed_unsync()
    }

    fn watch(&self, path: String, since: u64) -> UnsyncBoxBody<Bytes, Infallible> {
        let state = Arc::downgrade(&self.state);
        let news = self.version.subscribe();
        let events = stream::unfold((state, news, since), move |(state, mut news, since)| {
            let path = path.clone();
            async move {
                loop {
                    let latest = *news.borrow_and_update();
                    let text = {
                        let state = state.upgrade()?;
                        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
                        if state.unserved.contains(&path) {
                            return None;
                        }
                        let events = state.collections.get(&path).map(|c| c.events.as_slice()).unwrap_or_default();
                        let new = events.iter().filter(|(version, _)| *version > since && *version <= latest);
                        // The type comes first, as every server has it: readers know what follows.
                        let line = |e: &Value| format!("{{\"type\":{},\"object\":{}}}\n", e["type"], e["object"]);
                        new.map(|(_, event)| line(event)).collect::<String>()
                    };
                    if !text.is_empty() {
                        return Some((Ok(Frame::data(Bytes::from(text))), (state, news, latest)));
                    }
                    news.changed().await.ok()?;
                }
            }
        });
        StreamBody::new(events).boxed_unsync()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(object: &Value) -> (String, String) {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}
