//! The plain HTTP pages of the client port: health, version, metrics. Texts are upstream's.

use std::fmt::Write;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use tonic::body::Body;

use super::{CLUSTER_VERSION, Response, Server, VERSION};

/// Whether a request is a gRPC call.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The answer to a call of a service that is not there.
pub fn unimplemented() -> Response {
    tonic::Status::unimplemented("unknown service or method").into_http()
}

/// Answers a page.
pub fn page<B>(server: &Server, request: &Request<B>) -> Response {
    let no_space = server.etcd().status().no_space;
    match request.uri().path() {
        "/health" if no_space => {
            json(StatusCode::SERVICE_UNAVAILABLE, r#"{"health":"false","reason":"ALARM NOSPACE"}"#.to_owned())
        }
        "/health" => json(StatusCode::OK, r#"{"health":"true","reason":""}"#.to_owned()),
        "/livez" | "/readyz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/version" => {
            let versions = [("etcdserver", VERSION), ("etcdcluster", CLUSTER_VERSION), ("storage", CLUSTER_VERSION)];
            let fields: Vec<_> = versions.iter().map(|(name, version)| format!("\"{name}\":\"{version}\"")).collect();
            json(StatusCode::OK, format!("{{{}}}", fields.join(",")))
        }
        "/metrics" => text(StatusCode::OK, metrics(server)),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

fn metrics(server: &Server) -> String {
    let status = server.etcd().status();
    let rows = [
        ("etcd_mvcc_db_total_size_in_bytes", "gauge", "Bytes of the data files.", status.disk_bytes),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", "Bytes of keys and values kept.", status.used_bytes),
        ("etcd_server_quota_backend_bytes", "gauge", "Bytes of keys and values allowed.", status.quota_bytes),
        ("etcd_debugging_mvcc_current_revision", "gauge", "Newest revision.", status.revision.cast_unsigned()),
        (
            "etcd_debugging_mvcc_compact_revision",
            "gauge",
            "Revision of the last compaction.",
            status.compact_revision.cast_unsigned(),
        ),
        ("etcd_server_proposals_applied_total", "gauge", "Commands applied.", status.applied_index),
        ("etcd_server_proposals_committed_total", "gauge", "Commands on disk.", status.applied_index),
        ("etcd_server_has_leader", "gauge", "Whether there is a leader.", 1),
        ("etcd_server_is_leader", "gauge", "Whether this member leads.", 1),
    ];
    let mut page = String::new();
    for (name, kind, help, value) in rows {
        // Writing to a string does not fail.
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    }
    page
}

fn json(status: StatusCode, body: String) -> Response {
    reply(status, "application/json", body)
}

fn text(status: StatusCode, body: String) -> Response {
    reply(status, "text/plain; version=0.0.4; charset=utf-8", body)
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
