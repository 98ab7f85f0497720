//! OpenAPI documents of everything served: v2 as one document, v3 as one per group and version, and
//! per page of discovery, with an index.
//!
//! Documents are made when asked for and not kept: clients cache them by hash, and the hash of what a document is made
//! from is known without making it. I/O: the longest is made on a thread of tokio's.

mod members;
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

use super::catalogue::Catalogue;
use crate::http::answer::Answer;
use crate::http::body::Body;
use crate::http::call::Call;
use crate::http::negotiate::{self, clauses};
use crate::http::respond::response;
use crate::registry::Served;

/// Media types of the protobuf form of v2; clients write it with a dot or an at sign.
const V2_PROTO: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// Every document by its path below `/openapi/v3/`: one a group and version, and one for each page of discovery. Of
/// custom resources upstream publishes no page.
fn documents(catalogue: &Catalogue) -> BTreeSet<String> {
    let pages = paths::of_discovery(catalogue).into_iter().map(|item| item.path.trim_matches('/').to_owned());
    let custom = catalogue.resources().filter(|served| served.custom);
    let custom = custom.map(|served| format!("apis/{}/{}", served.kind.group, served.kind.version));
    pages.chain(custom).collect()
}

/// Identifies what a document is made from.
fn fingerprint<'a>(resources: impl IntoIterator<Item = &'a Served>) -> String {
    let mut hash = Sha512::new();
    hash.update(meta::version::GIT_VERSION);
    for served in resources {
        hash.update(format!("{:?}/{}", served.kind, served.generation));
    }
    hash.finalize().iter().take(32).map(|byte| format!("{byte:02X}")).collect()
}

/// `/openapi/v3`: where each document is, under a name that changes with its content.
pub fn index(catalogue: &Catalogue) -> Value {
    let mut paths = json!({});
    for path in documents(catalogue) {
        let hash = fingerprint(v3::resources(catalogue, &path));
        let url = format!("/openapi/v3/{path}?hash={hash}");
        paths[&path] = json!({"serverRelativeURL": url});
    }
    json!({"paths": paths})
}

/// `/openapi/v3/<path>`.
pub fn v3_document(catalogue: &Catalogue, call: &Call, path: &str) -> Result<Answer, Status> {
    let found = v3::resources(catalogue, path);
    if found.is_empty() && !documents(catalogue).contains(path) {
        return Err(Status::no_such_path());
    }
    let hash = fingerprint(found);
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
        Bytes::from(serde_json::to_vec(&v3::document(catalogue, path)).unwrap_or_default())
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
pub async fn v2_document(catalogue: Catalogue, call: &Call) -> Result<Answer, Status> {
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
    let hash = fingerprint(catalogue.resources());
    let tag = if content_type == negotiate::JSON { hash } else { format!("{hash}P") };
    if is_known(call, &tag) {
        return Ok(Answer::Raw(tagged(call, content_type, &tag, Bytes::new)));
    }
    // Of many definitions it is a long text: other requests are answered meanwhile.
    let made = tokio::task::spawn_blocking(move || {
        let document = v2::document(&catalogue);
        match content_type == negotiate::JSON {
            true => serde_json::to_vec(&document).map_err(|error| error.to_string()),
            false => Ok(proto::encode(&document)),
        }
    });
    let body = made.await.map_err(Status::internal)?.map_err(Status::internal)?;
    Ok(Answer::Raw(tagged(call, content_type, &tag, || Bytes::from(body))))
}

/// Whether the client has what this hash identifies.
fn is_known(call: &Call, hash: &str) -> bool {
    let tag = format!("\"{hash}\"");
    call.header(header::IF_NONE_MATCH).split(',').any(|known| known.trim() == tag)
}

fn tagged(call: &Call, content_type: &'static str, hash: &str, make: impl FnOnce() -> Bytes) -> Response<Body> {
    let tag = format!("\"{hash}\"");
    let mut answer = match is_known(call, hash) {
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
