//! One request on its way through the server: what was asked, by whom, and what is to be said beside the answer.
//!
//! [`crate::handler`] makes a call of what came in before it knows who is calling: a request with a wrong credential is
//! refused, logged and answered as the call that it is. I/O: the clock.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method, Uri};
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use meta::Status;
use parking_lot::Mutex;

use super::negotiate::{self, Accepted, Offer};
use super::request::{Query, RequestInfo};
use crate::audit::trail::Trail;
use crate::authn::UserInfo;
use crate::authz::Attributes;
use crate::notes::Warnings;

/// Longest field manager taken from a User-Agent.
const MAX_MANAGER: usize = 128;
/// Longest audit ID that a client may choose.
const MAX_AUDIT_ID: usize = 64;

/// The header by which a request says, and an answer tells, its audit ID.
pub const AUDIT_ID: http::header::HeaderName = http::header::HeaderName::from_static("audit-id");

/// A request, as far as the server has come with it. The stages of the handler chain fill it in: nobody is its caller
/// before authentication, and what it may do goes by `user` only after impersonation.
pub struct Call {
    pub method: Method,
    pub uri: Uri,
    pub info: RequestInfo,
    pub query: Query,
    pub headers: HeaderMap,
    /// The other end of the connection; `None` for a component in the same process.
    pub peer: Option<IpAddr>,
    /// Who sent the request. `None` until that is known, and so in every 401.
    pub caller: Option<Arc<UserInfo>>,
    /// As whom it is authorised and done: the caller, or whom the caller impersonates.
    pub user: Arc<UserInfo>,
    pub audit_id: String,
    pub now: Timestamp,
    /// The client's side of an upgrade, when the connection can do one.
    pub upgrade: Mutex<Option<OnUpgrade>>,
    /// What is asked for can be shown as a table.
    pub tables: bool,
    /// What the audit log is told, if it is told of this request.
    pub trail: Option<Arc<Trail>>,
    pub warnings: Warnings,
}

impl Call {
    /// A call of nobody yet, made of the head of a request.
    pub fn new(mut parts: http::request::Parts, peer: Option<IpAddr>) -> Call {
        let query = Query::parse(parts.uri.query());
        let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
        let audit_id = match parts.headers.get(AUDIT_ID).and_then(|id| id.to_str().ok()) {
            Some(id) if !id.is_empty() && id.len() <= MAX_AUDIT_ID => id.to_owned(),
            _ => meta::uid::new_uid(),
        };
        Call {
            method: parts.method,
            uri: parts.uri,
            info,
            query,
            headers: parts.headers,
            peer,
            caller: None,
            user: Arc::default(),
            audit_id,
            now: Timestamp::now(),
            upgrade: Mutex::new(parts.extensions.remove::<OnUpgrade>()),
            tables: true,
            trail: None,
            warnings: Warnings::default(),
        }
    }

    /// Whose call it is; whom the caller acts as is settled later.
    pub fn identify(&mut self, caller: Arc<UserInfo>) {
        self.user = caller.clone();
        self.caller = Some(caller);
    }

    /// What is to be authorised: what the request names, for whom it is done.
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes {
            field_selector: self.query.text("fieldSelector"),
            label_selector: self.query.text("labelSelector"),
            ..Attributes::of(&self.info, &self.user)
        }
    }

    /// The query as sent, for what is passed on to kubelets and pods.
    pub fn raw_query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    pub fn header(&self, name: http::header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.add(text);
    }

    /// The manager of fields written by this request: the parameter, or the first word of the User-Agent.
    pub fn manager(&self, parameter: &str) -> String {
        if !parameter.is_empty() {
            return parameter.to_owned();
        }
        let agent = self.header(http::header::USER_AGENT);
        let word: String = agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        let word: String = word.chars().take(MAX_MANAGER).collect();
        if word.is_empty() { "unknown".to_owned() } else { word }
    }

    /// What the client accepts for objects.
    pub fn accepted(&self, custom: bool, table: bool) -> Result<Accepted, Status> {
        let table = table && self.tables;
        let verb = self.info.verb;
        let collection = matches!(verb, "list" | "watch" | "create" | "deletecollection") && self.info.resource_request;
        let offer =
            Offer { custom, table, collection: collection && self.info.subresource.is_empty(), watch: verb == "watch" };
        negotiate::accept(self.header(http::header::ACCEPT), offer)
    }

    /// Indented JSON: asked for, or the client is a person's tool.
    pub fn pretty(&self) -> bool {
        self.query.tristate("pretty").unwrap_or_else(|| {
            let agent = self.header(http::header::USER_AGENT);
            ["curl", "Wget", "Mozilla/5.0"].iter().any(|tool| agent.starts_with(tool))
        })
    }

    /// What kinds' hooks want to know of the caller.
    pub fn context(&self) -> kinds::Context {
        kinds::Context { now: self.now, user: (*self.user).clone() }
    }
}
