//! The plain HTTP pages of the client port: health, version, metrics. Texts are upstream's.

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
    let status = server.etcd().status();
    let (no_space, no_leader) = (status.no_space, status.leadership.leader.is_none());
    match request.uri().path() {
        "/health" if no_space => {
            json(StatusCode::SERVICE_UNAVAILABLE, r#"{"health":"false","reason":"ALARM NOSPACE"}"#.to_owned())
        }
        "/health" if no_leader => {
            json(StatusCode::SERVICE_UNAVAILABLE, r#"{"health":"false","reason":"RAFT NO LEADER"}"#.to_owned())
        }
        "/health" => json(StatusCode::OK, r#"{"health":"true","reason":""}"#.to_owned()),
        "/livez" => checks(request, &["serializable_read"]),
        "/readyz" => checks(request, &["data_corruption", "serializable_read", "linearizable_read", "non_learner"]),
        "/version" => {
            let versions = [("etcdserver", VERSION), ("etcdcluster", CLUSTER_VERSION), ("storage", CLUSTER_VERSION)];
            let fields: Vec<_> = versions.iter().map(|(name, version)| format!("\"{name}\":\"{version}\"")).collect();
            json(StatusCode::OK, format!("{{{}}}", fields.join(",")))
        }
        "/metrics" => text(StatusCode::OK, server.etcd().metrics()),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

/// A page of checks: what was looked at when asked to be verbose, and in any case the result, as upstream writes them.
fn checks(request: &Request<impl Sized>, names: &[&str]) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let mut page = String::new();
    if query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")) {
        for name in names {
            page += &format!("[+]{name} ok\n");
        }
    }
    text(StatusCode::OK, page + "ok\n")
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
