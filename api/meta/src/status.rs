//! The Status object: the one error type of the API, with upstream's reasons, codes and messages.
//!
//! The API server answers with it, clients match on `reason`, people read `message`. Small on purpose (details are
//! boxed) because it travels in every `Result` of the server.

use crate::field::FieldError;
use crate::gvk::{Gvk, Gvr, qualified};
use crate::text::quote;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt;

/// Why a call failed, in the words clients match on. `Unknown` is the empty reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No reason is given: answers of proxies, and success.
    #[default]
    Unknown,
    /// 401: no credentials, or none that anybody vouches for.
    Unauthorized,
    /// 403: who asks may not do this.
    Forbidden,
    /// 404: no such object, resource or path.
    NotFound,
    /// 409: a create of a name that is taken.
    AlreadyExists,
    /// 409: a write against an older version than the stored one, or one that the object's state forbids.
    Conflict,
    /// 410: what was there is gone for good.
    Gone,
    /// 422: the object was read and breaks rules; the causes say which.
    Invalid,
    /// 500: the server could not do it now; a client may try again after `retryAfterSeconds`.
    ServerTimeout,
    /// 500: stored, and no object that can be read (`StorageReadError` on the wire).
    StoreReadError,
    /// 504: not done in time; the outcome of a write is unknown.
    Timeout,
    /// 429: over a limit; a client may try again after `retryAfterSeconds`.
    TooManyRequests,
    /// 400: the request itself can't be read.
    BadRequest,
    /// 405: the resource has no such verb.
    MethodNotAllowed,
    /// 406: no form of the answer that the client accepts.
    NotAcceptable,
    /// 413: the body is longer than the server reads.
    RequestEntityTooLarge,
    /// 415: the body's content type is none that this verb reads.
    UnsupportedMediaType,
    /// 500: something that must not happen did.
    InternalError,
    /// 410: a resource version or continue token that is older than what is kept; lists and watches begin anew.
    Expired,
    /// 503: who would answer is not there: an aggregated API, a store without a leader.
    ServiceUnavailable,
}

impl Reason {
    const NAMES: [(Reason, &'static str); 20] = [
        (Reason::Unknown, ""),
        (Reason::Unauthorized, "Unauthorized"),
        (Reason::Forbidden, "Forbidden"),
        (Reason::NotFound, "NotFound"),
        (Reason::AlreadyExists, "AlreadyExists"),
        (Reason::Conflict, "Conflict"),
        (Reason::Gone, "Gone"),
        (Reason::Invalid, "Invalid"),
        (Reason::ServerTimeout, "ServerTimeout"),
        (Reason::StoreReadError, "StorageReadError"),
        (Reason::Timeout, "Timeout"),
        (Reason::TooManyRequests, "TooManyRequests"),
        (Reason::BadRequest, "BadRequest"),
        (Reason::MethodNotAllowed, "MethodNotAllowed"),
        (Reason::NotAcceptable, "NotAcceptable"),
        (Reason::RequestEntityTooLarge, "RequestEntityTooLarge"),
        (Reason::UnsupportedMediaType, "UnsupportedMediaType"),
        (Reason::InternalError, "InternalError"),
        (Reason::Expired, "Expired"),
        (Reason::ServiceUnavailable, "ServiceUnavailable"),
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        Reason::NAMES.iter().find(|(reason, _)| *reason == self).map_or("", |(_, name)| name)
    }

    /// The reason of a word on the wire; an unknown word is `Unknown`.
    pub fn parse(name: &str) -> Reason {
        Reason::NAMES.iter().find(|(_, known)| *known == name).map_or(Reason::Unknown, |(reason, _)| *reason)
    }
}

/// One cause in `details.causes`: a machine reason, a message and the field it is about (may be empty).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// A word for programs, of [`crate::FieldErrorKind::cause`] where a field is at fault.
    pub reason: String,
    /// A sentence for people, without the field's path.
    pub message: String,
    /// The field's path from the root of the object.
    pub field: String,
}

/// `details` of a Status. Empty strings, empty causes and zero seconds are left out on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// The group of `kind`; empty for the core group.
    pub group: String,
    /// The resource or the kind, whichever the message speaks of.
    pub kind: String,
    /// The UID of the object, where the call was about one that exists.
    pub uid: String,
    /// One entry a fault; at most [`MAX_INVALID`] from validation.
    pub causes: Vec<Cause>,
    /// Seconds after which to ask again, as in the header `Retry-After`.
    pub retry_after_seconds: u32,
}

/// An answer that is not an object: an error, or the success of a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `true` writes `status: Success`.
    pub success: bool,
    /// The HTTP status of the answer: from 400 on the client is at fault, from 500 on the server.
    pub code: u16,
    /// What programs match on.
    pub reason: Reason,
    /// What people read; kubectl shows it behind `Error from server (Reason): `.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
    /// `metadata.continue`: a token to go on with, sent with an expired list.
    pub continue_token: Option<Box<str>>,
}

/// Most errors of fields in one answer. Each is told twice, and a request of a megabyte may hold tens of thousands.
pub const MAX_INVALID: usize = 1_000;

/// The reason of an optimistic-lock conflict.
pub(crate) const OBJECT_MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl Status {
    /// An error with a code, a reason and a message, without details.
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Status {
        Status { success: false, code, reason, message: message.into(), details: None, continue_token: None }
    }

    /// The success answer of a delete.
    pub fn success(details: Details) -> Status {
        Status { success: true, code: 200, details: Some(Box::new(details)), ..Status::default() }
    }

    fn about(mut self, gvr: &Gvr, name: &str) -> Status {
        let details = self.details.get_or_insert_default();
        details.group = gvr.group.to_string();
        details.kind = gvr.resource.to_string();
        details.name = name.to_owned();
        self
    }

    /// The same answer, asking the client to come back after some seconds.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Status {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The same answer with one more cause.
    pub fn with_cause(
        mut self,
        reason: impl Into<String>,
        message: impl Into<String>,
        field: impl Into<String>,
    ) -> Status {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// 404 `pods "x" not found`.
    pub fn not_found(gvr: &Gvr, name: &str) -> Status {
        let message = format!("{} {} not found", gvr.group_resource(), quote(name));
        Status::failure(404, Reason::NotFound, message).about(gvr, name)
    }

    /// 404 for a path that nothing serves.
    pub fn no_such_path() -> Status {
        let mut status = Status::failure(404, Reason::NotFound, "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409 `pods "x" already exists`.
    pub fn already_exists(gvr: &Gvr, name: &str) -> Status {
        let message = format!("{} {} already exists", gvr.group_resource(), quote(name));
        Status::failure(409, Reason::AlreadyExists, message).about(gvr, name)
    }

    /// 409 after every try to generate a free name failed.
    pub fn generate_name_conflict(gvr: &Gvr, name: &str, retry_after: u32) -> Status {
        let message = format!(
            "{} {} already exists, the server was not able to generate a unique name for the object",
            gvr.group_resource(),
            quote(name)
        );
        Status::failure(409, Reason::AlreadyExists, message).about(gvr, name).retry_after(retry_after)
    }

    /// 409 `Operation cannot be fulfilled on pods "x": why`.
    pub fn conflict(gvr: &Gvr, name: &str, why: impl fmt::Display) -> Status {
        let message = format!("Operation cannot be fulfilled on {} {}: {why}", gvr.group_resource(), quote(name));
        Status::failure(409, Reason::Conflict, message).about(gvr, name)
    }

    /// 409 for a stale resourceVersion.
    pub fn modified(gvr: &Gvr, name: &str) -> Status {
        Status::conflict(gvr, name, OBJECT_MODIFIED)
    }

    /// 409 of server-side apply: `causes` name managers and fields.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Status {
        let mut status = Status::failure(409, Reason::Conflict, message);
        status.details.get_or_insert_default().causes = causes;
        status
    }

    /// 422 `Pod "x" is invalid: ...`: one error bare, several in brackets, repeated texts once.
    pub fn invalid(gvk: &Gvk, name: &str, errors: &[FieldError]) -> Status {
        let mut message = format!("{} {} is invalid", gvk.group_kind(), quote(name));
        let errors = &errors[..errors.len().min(MAX_INVALID)];
        let mut seen = BTreeSet::new();
        let texts: Vec<String> = errors.iter().map(FieldError::to_string).filter(|t| seen.insert(t.clone())).collect();
        match texts.as_slice() {
            [] => {}
            [one] => message.push_str(&format!(": {one}")),
            many => message.push_str(&format!(": [{}]", many.join(", "))),
        }
        let mut status = Status::failure(422, Reason::Invalid, message);
        let details = status.details.get_or_insert_default();
        details.group = gvk.group.to_string();
        details.kind = gvk.kind.to_string();
        details.name = name.to_owned();
        details.causes = errors.iter().map(cause_of).collect();
        status
    }

    /// 400 with the message as it is.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::failure(400, Reason::BadRequest, message)
    }

    /// 403 `pods "x" is forbidden: why`; without a name or a resource the text shortens as upstream's does.
    pub fn forbidden(gvr: &Gvr, name: &str, why: impl fmt::Display) -> Status {
        let message = if gvr.resource.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{} is forbidden: {why}", gvr.group_resource())
        } else {
            format!("{} {} is forbidden: {why}", gvr.group_resource(), quote(name))
        };
        Status::failure(403, Reason::Forbidden, message).about(gvr, name)
    }

    /// 401. An empty reason reads `not authorized`.
    pub fn unauthorized(why: &str) -> Status {
        Status::failure(401, Reason::Unauthorized, if why.is_empty() { "not authorized" } else { why })
    }

    /// 410 for a list or watch position that was compacted away.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::failure(410, Reason::Expired, message)
    }

    /// 410 for something that is gone for good.
    pub fn gone(message: impl Into<String>) -> Status {
        Status::failure(410, Reason::Gone, message)
    }

    /// 429 with the message as it is; zero seconds leaves the hint out.
    pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> Status {
        Status::failure(429, Reason::TooManyRequests, message).retry_after(retry_after)
    }

    /// 406 naming the media types that this resource can be had in.
    pub fn not_acceptable<S: AsRef<str>>(accepted: &[S]) -> Status {
        let message = format!("406: Not Acceptable\n\nAvailable representations: {}", join(accepted));
        let mut status = Status::failure(406, Reason::NotAcceptable, message);
        status.details = Some(Box::default());
        status
    }

    /// 415 naming the media types that a body may have.
    pub fn unsupported_media_type<S: AsRef<str>>(accepted: &[S]) -> Status {
        let list = join(accepted);
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {list}");
        Status::failure(415, Reason::UnsupportedMediaType, message)
    }

    /// 405 `create is not supported on resources of kind "pods"`.
    pub fn method_not_supported(gvr: &Gvr, action: &str) -> Status {
        let kind = qualified(&gvr.resource, &gvr.group);
        let message = format!("{action} is not supported on resources of kind {}", quote(&kind));
        Status::failure(405, Reason::MethodNotAllowed, message).about(gvr, "")
    }

    /// 405 for a path that is served, but not for this method.
    pub fn method_not_allowed() -> Status {
        let message = "the server does not allow this method on the requested resource";
        let mut status = Status::failure(405, Reason::MethodNotAllowed, message);
        status.details = Some(Box::default());
        status
    }

    /// 504 `Timeout: why`.
    pub fn timeout(why: impl fmt::Display, retry_after: u32) -> Status {
        Status::failure(504, Reason::Timeout, format!("Timeout: {why}")).retry_after(retry_after)
    }

    /// 504 for a resourceVersion that the store has not reached.
    pub fn too_large_resource_version(wanted: u64, current: u64, retry_after: u32) -> Status {
        let why = format!("Too large resource version: {wanted}, current: {current}");
        Status::timeout(why, retry_after).with_cause("ResourceVersionTooLarge", "Too large resource version", "")
    }

    /// 500 `Internal error occurred: why`.
    pub fn internal(why: impl fmt::Display) -> Status {
        let why = why.to_string();
        Status::failure(500, Reason::InternalError, format!("Internal error occurred: {why}")).with_cause("", why, "")
    }

    /// 500 for work that may succeed when tried again.
    pub fn server_timeout(gvr: &Gvr, operation: &str, retry_after: u32) -> Status {
        let what = gvr.group_resource();
        let message =
            format!("The {operation} operation against {what} could not be completed at this time, please try again.");
        Status::failure(500, Reason::ServerTimeout, message).about(gvr, operation).retry_after(retry_after)
    }

    /// 503 with the message as it is.
    pub fn service_unavailable(message: impl Into<String>) -> Status {
        Status::failure(503, Reason::ServiceUnavailable, message)
    }

    /// 413 `Request entity too large: why`.
    pub fn too_large(why: impl fmt::Display) -> Status {
        Status::failure(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {why}"))
    }

    /// The JSON form, as it goes over the wire.
    pub fn to_value(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".to_owned(), Value::from(token.as_ref()));
        }
        let mut out = Map::new();
        out.insert("kind".to_owned(), json!("Status"));
        out.insert("apiVersion".to_owned(), json!("v1"));
        out.insert("metadata".to_owned(), Value::Object(metadata));
        out.insert("status".to_owned(), json!(if self.success { "Success" } else { "Failure" }));
        insert_text(&mut out, "message", &self.message);
        insert_text(&mut out, "reason", self.reason.as_str());
        if let Some(details) = &self.details {
            out.insert("details".to_owned(), details.to_value());
        }
        // Deletes leave the code of their success out, creations that answer with a Status don't.
        if !self.success || self.code != 200 {
            out.insert("code".to_owned(), json!(self.code));
        }
        Value::Object(out)
    }

    /// Reads the JSON form; missing parts stay empty.
    pub fn from_value(value: &Value) -> Status {
        let success = value["status"] == "Success";
        Status {
            success,
            code: value["code"].as_u64().and_then(|c| u16::try_from(c).ok()).unwrap_or(if success { 200 } else { 0 }),
            reason: Reason::parse(value["reason"].as_str().unwrap_or_default()),
            message: string_of(&value["message"]),
            details: value.get("details").map(|d| Box::new(Details::from_value(d))),
            continue_token: value["metadata"]["continue"].as_str().map(Box::from),
        }
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut out = Map::new();
        insert_text(&mut out, "name", &self.name);
        insert_text(&mut out, "group", &self.group);
        insert_text(&mut out, "kind", &self.kind);
        insert_text(&mut out, "uid", &self.uid);
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(Cause::to_value).collect();
            out.insert("causes".to_owned(), Value::Array(causes));
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".to_owned(), json!(self.retry_after_seconds));
        }
        Value::Object(out)
    }

    fn from_value(value: &Value) -> Details {
        let causes = value["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
        Details {
            name: string_of(&value["name"]),
            group: string_of(&value["group"]),
            kind: string_of(&value["kind"]),
            uid: string_of(&value["uid"]),
            causes: causes
                .iter()
                .map(|c| Cause {
                    reason: string_of(&c["reason"]),
                    message: string_of(&c["message"]),
                    field: string_of(&c["field"]),
                })
                .collect(),
            retry_after_seconds: value["retryAfterSeconds"].as_u64().and_then(|s| u32::try_from(s).ok()).unwrap_or(0),
        }
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut out = Map::new();
        insert_text(&mut out, "reason", &self.reason);
        insert_text(&mut out, "message", &self.message);
        insert_text(&mut out, "field", &self.field);
        Value::Object(out)
    }
}

fn insert_text(out: &mut Map<String, Value>, key: &str, value: &str) {
    if !value.is_empty() {
        out.insert(key.to_owned(), Value::from(value));
    }
}

fn string_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn cause_of(error: &FieldError) -> Cause {
    Cause { reason: error.kind.cause().to_owned(), message: error.body(), field: error.path.clone() }
}

fn join<S: AsRef<str>>(parts: &[S]) -> String {
    parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Gvr = Gvr::new("", "v1", "pods");
    const DEPLOYMENTS: Gvr = Gvr::new("apps", "v1", "deployments");

    #[test]
    fn messages_are_upstreams() {
        let cases = [
            (Status::not_found(&PODS, "x"), 404, "pods \"x\" not found"),
            (Status::not_found(&DEPLOYMENTS, "x"), 404, "deployments.apps \"x\" not found"),
            (Status::already_exists(&PODS, "x"), 409, "pods \"x\" already exists"),
            (
                Status::modified(&PODS, "x"),
                409,
                "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (Status::forbidden(&PODS, "x", "no"), 403, "pods \"x\" is forbidden: no"),
            (Status::forbidden(&PODS, "", "no"), 403, "pods is forbidden: no"),
            (Status::unauthorized(""), 401, "not authorized"),
            (
                Status::method_not_supported(&DEPLOYMENTS, "watch"),
                405,
                "watch is not supported on resources of kind \"deployments.apps\"",
            ),
            (Status::internal("boom"), 500, "Internal error occurred: boom"),
            (Status::timeout("slow", 0), 504, "Timeout: slow"),
        ];
        for (status, code, want) in cases {
            assert_eq!(status.message, want);
            assert_eq!(status.code, code);
        }
    }

    #[test]
    fn several_field_errors_are_listed_once_each() {
        let pod = Gvk::new("", "v1", "Pod");
        let one = FieldError::required("spec.a", "");
        assert_eq!(
            Status::invalid(&pod, "x", std::slice::from_ref(&one)).message,
            "Pod \"x\" is invalid: spec.a: Required value"
        );
        let two = FieldError::forbidden("spec.b", "no");
        let status = Status::invalid(&pod, "x", &[one.clone(), two, one]);
        assert_eq!(status.message, "Pod \"x\" is invalid: [spec.a: Required value, spec.b: Forbidden: no]");
        assert_eq!(status.details.expect("details").causes.len(), 3);
    }

    #[test]
    fn json_form_round_trips() {
        let status = Status::too_many_requests("slow down", 3).with_cause("A", "b", "c");
        assert_eq!(Status::from_value(&status.to_value()), status);
        let wire = Status::not_found(&PODS, "x").to_value();
        assert_eq!(
            wire,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404,
                "message": "pods \"x\" not found", "details": {"name": "x", "kind": "pods"}})
        );
    }
}
