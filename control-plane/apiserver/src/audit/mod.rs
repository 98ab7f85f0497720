//! The audit log: who asked for what, and how it ended, as much of it as the policy says. Off unless
//! `--audit-policy-file` and `--audit-log-path` are given. [`Trail`] goes with a request from its arrival to the end of
//! its answer; the server calls it as upstream's filters call theirs. Events are `audit.k8s.io/v1`. I/O: reads the policy.

pub mod log;
pub mod policy;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response, header};
use http_body::Body as _;
use jiff::Timestamp;
use meta::Status;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use self::log::{Log, Mode};
use self::policy::{Level, Policy, Stage, Verdict};
use crate::authn::UserInfo;
use crate::authz::Decision;
use crate::config::Config;
use crate::error::Error;
use crate::http::answer::Answer;
use crate::http::body::{Body, BoxError, Frames};
use crate::http::request::RequestInfo;
use crate::notes::Annotations;
use crate::registry::Served;

/// Longest user agent that is noted: upstream's limit.
const MAX_AGENT: usize = 1024;

/// Who is at the other end of a connection; the server notes it with each request that comes over one.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// A policy, and a log to write to.
pub struct Audit {
    policy: Policy,
    log: Log,
}

impl Audit {
    /// `None` unless both a policy and a log are named.
    pub fn new(config: &Config) -> Result<Option<Arc<Audit>>, Error> {
        const FLAG: &str = "--audit-policy-file";
        let policy = match &config.audit_policy_file {
            None => None,
            Some(path) => {
                let wrong = |reason: String| Error::File { flag: FLAG, path: path.clone(), reason };
                let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
                let decoded = codec::yaml::decode(&text, codec::Form::Any);
                let object = decoded.map_err(|error| wrong(error.to_string()))?.object;
                Some(Policy::read(&object).map_err(wrong)?)
            }
        };
        let Some(options) = &config.audit_log else { return Ok(None) };
        let wrong = |reason: std::io::Error| Error::File {
            flag: "--audit-log-path",
            path: options.path.clone(),
            reason: reason.to_string(),
        };
        let log = Log::open(options).map_err(wrong)?;
        let Some(policy) = policy else {
            tracing::warn!("no audit policy file provided, no events will be recorded for log backend");
            return Ok(None);
        };
        Ok(Some(Arc::new(Audit { policy, log })))
    }

    /// Begins the trail of a request and logs that it came; `None` when nothing of it is logged. Refuses the request
    /// where the log must not have holes.
    pub fn begin(self: &Arc<Audit>, asked: &Asked<'_>) -> Result<Option<Arc<Trail>>, Status> {
        let Some(trail) = self.trail(asked) else { return Ok(None) };
        match trail.emit(Stage::RequestReceived) {
            Err(error) if self.log.mode == Mode::BlockingStrict => {
                tracing::error!(%error, "a request is refused that could not be logged");
                Err(Status::internal("audit backend shed request due to an error"))
            }
            _ => Ok(Some(Arc::new(trail))),
        }
    }

    /// Notes a caller whose credentials were refused.
    pub fn unauthenticated(self: &Arc<Audit>, asked: &Asked<'_>, refusal: &Status) {
        let Some(trail) = self.trail(asked) else { return };
        {
            let mut state = trail.state.lock();
            let tried = if asked.headers.contains_key(header::AUTHORIZATION) { "bearer" } else { "x509" };
            let message = format!("Authentication failed, attempted: {tried}");
            state.event.insert(
                "responseStatus".to_owned(),
                json!({"metadata": {}, "status": "Failure", "message": message, "reason": "Unauthorized", "code": refusal.code}),
            );
            state.ended = true;
        }
        // Told already where it could not be written.
        let _ = trail.emit(Stage::ResponseStarted);
    }

    fn trail(self: &Arc<Audit>, asked: &Asked<'_>) -> Option<Trail> {
        let verdict = self.policy.verdict(asked.info, asked.user);
        if verdict.level == Level::None {
            return None;
        }
        let event = event(asked, verdict.level);
        let state = Mutex::new(State { event, ended: false });
        Some(Trail { audit: self.clone(), verdict, annotations: Annotations::default(), state })
    }
}

/// A request as it came.
pub struct Asked<'a> {
    pub info: &'a RequestInfo,
    /// Path and query.
    pub uri: &'a str,
    pub headers: &'a HeaderMap,
    pub audit_id: &'a str,
    pub peer: Option<Peer>,
    /// Who was authenticated; `None` when the credentials were refused.
    pub user: Option<&'a UserInfo>,
    pub now: Timestamp,
}

fn event(asked: &Asked<'_>, level: Level) -> Map<String, Value> {
    let mut event = Map::new();
    let mut put = |key: &str, value: Value| drop(event.insert(key.to_owned(), value));
    put("kind", "Event".into());
    put("apiVersion", "audit.k8s.io/v1".into());
    put("level", level.word().into());
    put("auditID", asked.audit_id.into());
    put("requestURI", asked.uri.into());
    put("verb", asked.info.verb.into());
    put("user", asked.user.map_or(json!({}), user));
    put("requestReceivedTimestamp", meta::time::format_micro(asked.now).into());
    let sources = sources(asked.headers, asked.peer);
    if !sources.is_empty() {
        put("sourceIPs", sources.into());
    }
    let agent = asked.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    if !agent.is_empty() {
        let cut = agent.len() > MAX_AGENT;
        let agent: String = agent.chars().take(MAX_AGENT).collect();
        put("userAgent", if cut { format!("{agent}...TRUNCATED") } else { agent }.into());
    }
    if asked.info.resource_request {
        let info = asked.info;
        let fields = [
            ("resource", &info.resource),
            ("namespace", &info.namespace),
            ("name", &info.name),
            ("apiGroup", &info.group),
            ("apiVersion", &info.version),
            ("subresource", &info.subresource),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        put("objectRef", given.map(|(key, value)| (key.to_owned(), json!(value))).collect::<Map<_, _>>().into());
    }
    event
}

/// What proxies say of the way, then who is at the other end: as upstream, which trusts them for this alone.
fn sources(headers: &HeaderMap, peer: Option<Peer>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut all: Vec<String> = Vec::new();
    for said in text("x-forwarded-for").split(',').chain([text("x-real-ip")]) {
        if let Some(ip) = meta::ip::parse(said.trim()) {
            let ip = ip.to_string();
            if !all.contains(&ip) {
                all.push(ip);
            }
        }
    }
    if let Some(Peer(ip)) = peer {
        let ip = ip.to_canonical().to_string();
        if !all.contains(&ip) {
            all.push(ip);
        }
    }
    all
}

fn user(user: &UserInfo) -> Value {
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
    audit: Arc<Audit>,
    verdict: Verdict,
    /// What parts of the server have to say of the request.
    pub annotations: Annotations,
    state: Mutex<State>,
}

struct State {
    event: Map<String, Value>,
    ended: bool,
}

impl Trail {
    fn emit(&self, stage: Stage) -> std::io::Result<()> {
        if self.verdict.omit_stages.contains(&stage) {
            return Ok(());
        }
        let mut event = self.state.lock().event.clone();
        let annotations = self.annotations.all();
        if !annotations.is_empty() {
            event.insert("annotations".to_owned(), json!(annotations));
        }
        event.insert("stage".to_owned(), stage.word().into());
        event.insert("stageTimestamp".to_owned(), meta::time::format_micro(Timestamp::now()).into());
        self.audit.log.write(&Value::Object(event))
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
        self.verdict.level >= Level::Request
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
            Ok(answer) if self.verdict.level == Level::RequestResponse => {
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
        if self.verdict.level == Level::RequestResponse {
            self.put("responseObject", whole);
        }
    }

    fn prune(&self, object: &mut Value) {
        if !self.verdict.omit_managed_fields {
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
