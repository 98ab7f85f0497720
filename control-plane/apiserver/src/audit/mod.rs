//! The audit log: who asked for what, and how it ended, as much of it as the policy says. Off unless
//! `--audit-policy-file` and `--audit-log-path` are given. [`Trail`] goes with a request from its arrival to the end of
//! its answer; [`crate::handler`] begins it. Events are `audit.k8s.io/v1`. I/O: reads the policy.

pub mod log;
pub mod policy;
pub mod trail;

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, header};
use meta::Status;
use serde_json::{Map, Value, json};

use self::log::{Log, Mode};
use self::policy::{Level, Policy, Stage};
use self::trail::Trail;
use crate::config::Config;
use crate::error::Error;
use crate::http::call::Call;

/// Longest user agent that is noted: upstream's limit.
const MAX_AGENT: usize = 1024;

/// A policy, and a log to write to.
pub struct Audit {
    policy: Policy,
    log: Arc<Log>,
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
        let log = Arc::new(Log::open(options).map_err(wrong)?);
        let Some(policy) = policy else {
            tracing::warn!("no audit policy file provided, no events will be recorded for log backend");
            return Ok(None);
        };
        Ok(Some(Arc::new(Audit { policy, log })))
    }

    /// Begins the trail of a call whose caller is known, and logs that it came; `None` when nothing of it is logged.
    /// Refuses the request where the log must not have holes.
    pub fn begin(&self, call: &Call) -> Result<Option<Arc<Trail>>, Status> {
        let Some(trail) = self.trail(call) else { return Ok(None) };
        match trail.emit(Stage::RequestReceived) {
            Err(error) if self.log.mode == Mode::BlockingStrict => {
                tracing::error!(%error, "a request is refused that could not be logged");
                Err(Status::internal("audit backend shed request due to an error"))
            }
            _ => Ok(Some(Arc::new(trail))),
        }
    }

    /// Notes a call whose credentials were refused: nobody is its caller.
    pub fn unauthenticated(&self, call: &Call, refusal: &Status) {
        let Some(trail) = self.trail(call) else { return };
        let tried = if call.headers.contains_key(header::AUTHORIZATION) { "bearer" } else { "x509" };
        let message = format!("Authentication failed, attempted: {tried}");
        trail.refuse(
            json!({"metadata": {}, "status": "Failure", "message": message, "reason": "Unauthorized", "code": refusal.code}),
        );
    }

    fn trail(&self, call: &Call) -> Option<Trail> {
        let config = self.policy.evaluate(&call.info, call.caller.as_deref());
        (config.level != Level::None).then(|| {
            let event = event(call, config.level);
            Trail::new(self.log.clone(), config, event)
        })
    }
}

fn event(call: &Call, level: Level) -> Map<String, Value> {
    let mut event = Map::new();
    let mut put = |key: &str, value: Value| drop(event.insert(key.to_owned(), value));
    put("kind", "Event".into());
    put("apiVersion", "audit.k8s.io/v1".into());
    put("level", level.word().into());
    put("auditID", call.audit_id.as_str().into());
    put("requestURI", call.uri.path_and_query().map_or("/", |both| both.as_str()).into());
    put("verb", call.info.verb.into());
    put("user", call.caller.as_deref().map_or(json!({}), trail::user));
    put("requestReceivedTimestamp", meta::time::format_micro(call.now).into());
    let sources = sources(&call.headers, call.peer);
    if !sources.is_empty() {
        put("sourceIPs", sources.into());
    }
    let agent = call.header(header::USER_AGENT);
    if !agent.is_empty() {
        let cut = agent.len() > MAX_AGENT;
        let agent: String = agent.chars().take(MAX_AGENT).collect();
        put("userAgent", if cut { format!("{agent}...TRUNCATED") } else { agent }.into());
    }
    if call.info.resource_request {
        let info = &call.info;
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
fn sources(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<String> {
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
    if let Some(ip) = peer {
        let ip = ip.to_canonical().to_string();
        if !all.contains(&ip) {
            all.push(ip);
        }
    }
    all
}
