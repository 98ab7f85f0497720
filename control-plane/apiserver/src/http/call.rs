//! One request on its way through the server: what was asked, by whom, and what is to be said beside the answer.

use std::sync::Arc;

use http::{HeaderMap, Method};
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::negotiate::{self, Accepted, Offer};
use super::request::{Query, RequestInfo};
use crate::audit::Trail;
use crate::authn::UserInfo;
use crate::notes::Warnings;
use meta::Status;

/// Longest field manager taken from a User-Agent.
const MAX_MANAGER: usize = 128;

pub struct Call {
    pub method: Method,
    pub info: RequestInfo,
    pub query: Query,
    /// The query as sent, for what is passed on to kubelets and pods.
    pub raw_query: String,
    pub headers: HeaderMap,
    pub user: Arc<UserInfo>,
    pub audit_id: String,
    pub now: Timestamp,
    /// The client's side of an upgrade, when the connection can do one.
    pub upgrade: Mutex<Option<OnUpgrade>>,
    /// What is asked for can be shown as a table.
    pub tables: bool,
    /// What the audit log is told, if it is told of this request.
    pub trail: Option<Arc<Trail>>,
    /// Texts of `Warning` headers.
    pub warnings: Warnings,
}

impl Call {
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
