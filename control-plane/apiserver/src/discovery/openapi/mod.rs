//! OpenAPI documents of everything served: v2 as one document, v3 as one per group and version, and
//! per page of discovery, with an index.
//!
//! Documents are made when asked for and not kept: clients cache them by hash, and the hash of what a document is made
//! from is known without making it.

mod paths;
mod proto;
mod schemas;
mod v2;
mod v3;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderValue};
use meta::Status;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use crate::http::answer::Answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::negotiate::{self, clauses};
use crate::http::respond::response;
use crate::registry::Registry;

/// Media types of the protobuf form of v2; clients write it with a dot or an at sign.
const V2_PROTO: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// Every document by its path below `/openapi/v3/`: one a group and version, and one for each page of discovery. Of
/// custom resources upstream publishes no page.
fn documents(registry: &Registry) -> BTreeSet<String> {
    let pages = paths::of_discovery(registry).into_iter().map(|item| item.path.trim_matches('/').to_owned());
    let custom = registry.iter().filter(|served| served.custom);
    let custom = custom.map(|served| format!("apis/{}/{}", served.kind.group, served.kind.version));
    pages.chain(custom).collect()
}

/// Whether resources of this group and version are in the document.
fn holds(document: &str, group: &str, version: &str) -> bool {
    match document.split('/').collect::<Vec<_>>().as_slice() {
        ["api", v] => group.is_empty() && version == *v,
        ["apis", g, v] => group == *g && version == *v,
        _ => false,
    }
}

/// Identifies what a document is made from.
fn fingerprint(registry: &Registry, wanted: impl Fn(&str, &str) -> bool) -> String {
    let mut hash = Sha512::new();
    hash.update(super::GIT_VERSION);
    for served in registry.iter().filter(|s| wanted(&s.kind.group, &s.kind.version)) {
        hash.update(format!("{:?}/{}", served.kind, served.generation));
    }
    hash.finalize().iter().take(32).map(|byte| format!("{byte:02X}")).collect()
}

/// `/openapi/v3`: where each document is, under a name that changes with its content.
pub fn index(registry: &Registry) -> Value {
    let mut paths = json!({});
    for path in documents(registry) {
        let hash = fingerprint(registry, |g, v| holds(&path, g, v));
        let url = format!("/openapi/v3/{path}?hash={hash}");
        paths[&path] = json!({"serverRelativeURL": url});
    }
    json!({"paths": paths})
}

/// `/openapi/v3/<path>`.
pub fn v3_document(registry: &Registry, call: &Call, path: &str) -> Result<Answer, Status> {
    if !documents(registry).contains(path) {
        return Err(Status::no_such_path());
    }
    let hash = fingerprint(registry, |g, v| holds(path, g, v));
    let asked = call.query.text("hash");
    if !asked.is_empty() && asked != hash {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
        if let Ok(to) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")) {
            answer.headers_mut().insert(header::LOCATION, to);
        }
        return Ok(Answer::Raw(answer));
    }
    let mut answer = tagged(call, negotiate::JSON, &hash, || {
        Bytes::from(serde_json::to_vec(&v3::document(registry, path)).unwrap_or_default())
    });
    if !asked.is_empty() {
        // The name holds the hash: this answer never changes.
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        headers.insert(header::EXPIRES, HeaderValue::from_static("Thu, 31 Dec 2037 23:55:55 GMT"));
    }
    Ok(Answer::Raw(answer))
}

/// `/openapi/v2`, in JSON or protobuf.
pub fn v2_document(registry: &Registry, call: &Call) -> Result<Answer, Status> {
    let header = call.header(header::ACCEPT);
    let mut wanted = if header.is_empty() { Some(negotiate::JSON) } else { None };
    for clause in clauses(header) {
        if matches!(clause.media_type, negotiate::JSON | "*/*" | "application/*") {
            wanted = wanted.or(Some(negotiate::JSON));
        }
        if V2_PROTO.contains(&clause.media_type) {
            wanted = wanted.or(Some(V2_PROTO[1]));
        }
    }
    let Some(content_type) = wanted else {
        return Err(Status::not_acceptable(&[negotiate::JSON, V2_PROTO[0]]));
    };
    let hash = fingerprint(registry, |_, _| true);
    let tag = if content_type == negotiate::JSON { hash } else { format!("{hash}P") };
    Ok(Answer::Raw(tagged(call, content_type, &tag, || {
        let document = v2::document(registry);
        if content_type == negotiate::JSON {
            return Bytes::from(serde_json::to_vec(&document).unwrap_or_default());
        }
        Bytes::from(proto::encode(&document))
    })))
}

fn tagged(call: &Call, content_type: &'static str, hash: &str, make: impl FnOnce() -> Bytes) -> Response<Body> {
    let tag = format!("\"{hash}\"");
    let known = call.header(header::IF_NONE_MATCH).split(',').any(|known| known.trim() == tag);
    let mut answer = match known {
        true => {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = http::StatusCode::NOT_MODIFIED;
            answer
        }
        false => response(200, content_type, make()),
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    answer
}
