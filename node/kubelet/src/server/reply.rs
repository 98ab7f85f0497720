//! What every handler of the kubelet's API is given and gives: [`Server`] and [`Reply`]. Does no I/O itself.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tokio::sync::watch;

use crate::act::Executor;

pub type ReplyBody = UnsyncBoxBody<Bytes, std::io::Error>;
pub type Reply = Response<ReplyBody>;

/// What handlers need.
pub struct Server {
    pub executor: Arc<Executor>,
    /// Counts runtime events: whoever waits for the end of a container looks again when it changes.
    pub runtime_changes: watch::Receiver<u64>,
}

/// A whole body.
pub fn full(text: impl Into<Bytes>) -> ReplyBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer of plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(full(text));
    *reply.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    reply
}

pub fn json<T: serde::Serialize>(value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut reply = Response::new(full(bytes));
            let kind = http::HeaderValue::from_static("application/json");
            reply.headers_mut().insert(http::header::CONTENT_TYPE, kind);
            reply
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
