//! What is noted of one request on its way, from its arrival to the end of its answer: the handler chain tells it what
//! each stage found. [`super::Audit`] begins it. I/O: the clock.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::Body as _;
use jiff::Timestamp;
use meta::Status;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::log::Log;
use super::policy::{Level, RequestAuditConfig, Stage};
use crate::authn::UserInfo;
use crate::authz::Decision;
use crate::http::answer::Answer;
use crate::http::body::{Body, BoxError, Frames};
use crate::notes::Annotations;
use crate::registry::Served;

/// A user as events show it.
pub(super) fn user(user: &UserInfo) -> Value {
    let mut told = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        told["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        let extra = user.extra.iter().map(|(key, values)| (key.clone(), json!(values)));
        told["extra"] = extra.collect::<Map<_, _>>().into();
    }
    told
}

/// What is noted of one request on its way. Dropped before its end, it logs that.
pub struct Trail {
    log: Arc<Log>,
    config: RequestAuditConfig,
    /// What the stages and admission have to say of the request.
    pub annotations: Annotations,
    state: Mutex<State>,
}

struct State {
    event: Map<String, Value>,
    ended: bool,
}

impl Trail {
    pub(super) fn new(log: Arc<Log>, config: RequestAuditConfig, event: Map<String, Value>) -> Trail {
        Trail { log, config, annotations: Annotations::default(), state: Mutex::new(State { event, ended: false }) }
    }

    /// Ends here and now, with a refusal that no stage after this one is told of.
    pub(super) fn refuse(&self, status: Value) {
        {
            let mut state = self.state.lock();
            state.event.insert("responseStatus".to_owned(), status);
            state.ended = true;
        }
        // Told already where it could not be written.
        let _ = self.emit(Stage::ResponseStarted);
    }

    pub(super) fn emit(&self, stage: Stage) -> std::io::Result<()> {
        if self.config.omit_stages.contains(&stage) {
            return Ok(());
        }
        let mut event = self.state.lock().event.clone();
        let annotations = self.annotations.all();
        if !annotations.is_empty() {
            event.insert("annotations".to_owned(), json!(annotations));
        }
        event.insert("stage".to_owned(), stage.word().into());
        event.insert("stageTimestamp".to_owned(), meta::time::format_micro(Timestamp::now()).into());
        self.log.write(&Value::Object(event))
    }

    fn put(&self, key: &str, value: Value) {
        self.state.lock().event.insert(key.to_owned(), value);
    }

    /// Notes what the authorisers said.
    pub fn decided(&self, decision: &Decision) {
        let (word, why) = match decision {
            Decision::Allow(why) => ("allow", why),
            Decision::Deny(why) | Decision::NoOpinion(why) => ("forbid", why),
        };
        self.annotations.add("authorization.k8s.io/decision", word);
        self.annotations.add("authorization.k8s.io/reason", why.as_str());
    }

    /// Notes whom the caller acts as.
    pub fn impersonates(&self, became: &UserInfo) {
        self.put("impersonatedUser", user(became));
    }

    /// Whether the body of the request is logged.
    pub fn wants_request(&self) -> bool {
        self.config.level >= Level::Request
    }

    /// Notes the object that was sent.
    pub fn asked(&self, mut object: Value) {
        let mut state = self.state.lock();
        if let Some(reference) = state.event.get_mut("objectRef") {
            for (key, field) in
                [("namespace", "namespace"), ("name", "name"), ("uid", "uid"), ("resourceVersion", "resourceVersion")]
            {
                if let Some(text) = object["metadata"][field].as_str().filter(|text| !text.is_empty())
                    && reference.get(key).is_none()
                {
                    reference[key] = text.into();
                }
            }
        }
        self.prune(&mut object);
        state.event.insert("requestObject".to_owned(), object);
    }

    /// Notes how it went, before the answer is encoded for the client.
    pub fn answered(&self, outcome: &Result<Answer, Status>) {
        match outcome {
            Err(status) => self.status(status),
            Ok(Answer::Status(status)) => self.status(status),
            Ok(answer) if self.config.level == Level::RequestResponse => {
                if let Some(mut object) = shown(answer) {
                    self.prune(&mut object);
                    self.put("responseObject", object);
                }
            }
            Ok(_) => {}
        }
    }

    fn status(&self, status: &Status) {
        let whole = status.to_value();
        let mut told = json!({"metadata": {}});
        for field in ["status", "message", "reason", "details"] {
            if let Some(value) = whole.get(field) {
                told[field] = value.clone();
            }
        }
        self.put("responseStatus", told);
        if self.config.level == Level::RequestResponse {
            self.put("responseObject", whole);
        }
    }

    fn prune(&self, object: &mut Value) {
        if !self.config.omit_managed_fields {
            return;
        }
        let drop_fields = |object: &mut Value| {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        };
        drop_fields(object);
        for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            drop_fields(item);
        }
    }

    fn code(&self, code: u16) {
        let mut state = self.state.lock();
        let status = state.event.entry("responseStatus").or_insert_with(|| json!({"metadata": {}}));
        status["code"] = code.into();
    }

    /// Follows an answer to its end: a short one ends here, a long one with its body.
    pub fn follow(self: &Arc<Trail>, answer: Response<Body>, long: bool) -> Response<Body> {
        self.code(answer.status().as_u16());
        if !long {
            self.end(Stage::ResponseComplete);
            return answer;
        }
        // Told already where it could not be written.
        let _ = self.emit(Stage::ResponseStarted);
        if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            // It ends with the connection that it became: see [`End::of`].
            return answer;
        }
        let trail = self.clone();
        answer.map(|body| {
            let length = body.size_hint().exact();
            Body::Stream(Box::pin(Followed { body: Box::pin(body), _end: End(trail) }), length)
        })
    }

    fn end(&self, stage: Stage) {
        if !std::mem::replace(&mut self.state.lock().ended, true) {
            let _ = self.emit(stage);
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if self.state.lock().ended {
            return;
        }
        // The request was given up in the middle: by a fault of this server, or by its client.
        if std::thread::panicking() {
            self.put(
                "responseStatus",
                json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500}),
            );
            return self.end(Stage::Panic);
        }
        let message = "the client went away before it was answered";
        self.put("responseStatus", json!({"metadata": {}, "status": "Failure", "message": message, "code": 499}));
        self.end(Stage::ResponseComplete);
    }
}

/// Ends a trail when the answer's body, or the connection that it became, is done.
pub struct End(Arc<Trail>);

impl End {
    pub fn of(trail: &Arc<Trail>) -> End {
        End(trail.clone())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.end(Stage::ResponseComplete);
    }
}

struct Followed {
    body: Pin<Box<Body>>,
    _end: End,
}

impl Frames for Followed {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        loop {
            return match std::task::ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Poll::Ready(Some(Ok(data))),
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
                None => Poll::Ready(None),
            };
        }
    }
}

/// The object of an answer as JSON; `None` for streams and pages.
fn shown(answer: &Answer) -> Option<Value> {
    match answer {
        Answer::Entry(_, _, entry) => Some(entry.object()),
        Answer::Object(_, _, object) => Some((**object).clone()),
        Answer::List(served, list) => {
            let items = list.entries.iter().map(|entry| entry.object()).collect();
            let mut whole = list_of(served, items);
            whole["metadata"]["resourceVersion"] = list.revision.to_string().into();
            if !list.continue_token.is_empty() {
                whole["metadata"]["continue"] = list.continue_token.as_str().into();
            }
            Some(whole)
        }
        Answer::Objects(served, objects) => Some(list_of(served, objects.clone())),
        Answer::Watch(_) | Answer::Status(_) | Answer::Raw(_) => None,
    }
}

fn list_of(served: &Served, items: Vec<Value>) -> Value {
    let kind = format!("{}List", served.kind.kind);
    json!({"kind": kind, "apiVersion": served.kind.api_version(), "metadata": {}, "items": items})
}
