//! exec, attach and port-forward: the runtime gives a URL, the connection is passed through to it byte by byte. Does I/O.
//!
//! Both protocols (SPDY and WebSocket) are spoken by the runtime's streaming server; the kubelet only checks who asks.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serving::Body;
use tonic::Status;
use wire::cri;

use super::route::Params;
use super::{Reply, Server, full, pods, text};
use crate::cri::shown;
use crate::worker::PodWorker;

/// `/exec/{ns}/{pod}/{container}` or `/exec/{ns}/{pod}/{uid}/{container}`.
async fn target(server: &Server, parts: &[&str]) -> Result<(Box<PodWorker>, String), Reply> {
    let (namespace, name, uid, container) = match parts {
        [namespace, name, container] => (*namespace, *name, None, *container),
        [namespace, name, uid, container] => (*namespace, *name, Some(*uid), *container),
        _ => return Err(text(StatusCode::NOT_FOUND, "404 page not found\n")),
    };
    let worker = pods::find(server, namespace, name, uid).await.ok_or_else(|| pods::not_found(namespace, name))?;
    let id = worker.slot(container).and_then(|s| s.running()).map(|i| i.id.clone());
    match id {
        Some(id) => Ok((worker, id)),
        None => Err(text(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")"))),
    }
}

fn refused(status: &Status) -> Reply {
    let code = match status.code() {
        tonic::Code::NotFound => StatusCode::NOT_FOUND,
        tonic::Code::InvalidArgument => StatusCode::BAD_REQUEST,
        tonic::Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(code, shown(status))
}

struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// Both spellings are in use: `input`/`output`/`error` from the API server, the long ones by hand.
fn streams(params: &Params) -> Result<Streams, Box<Reply>> {
    let either = |a: &str, b: &str| params.is(a) || params.is(b);
    let tty = params.is("tty");
    let out = Streams {
        stdin: either("input", "stdin"),
        stdout: either("output", "stdout"),
        // A terminal has one output.
        stderr: either("error", "stderr") && !tty,
        tty,
    };
    if out.stdin || out.stdout || out.stderr {
        return Ok(out);
    }
    Err(Box::new(text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr")))
}

pub async fn exec(server: Arc<Server>, parts: &[&str], request: Request<Body>) -> Reply {
    let params = Params::of(request.uri().query());
    let (found, streams) = match (target(&server, parts).await, streams(&params)) {
        (Err(refusal), _) => return refusal,
        (_, Err(refusal)) => return *refusal,
        (Ok(found), Ok(streams)) => (found, streams),
    };
    let wanted = cri::ExecRequest {
        container_id: found.1,
        cmd: params.all("command"),
        tty: streams.tty,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
    };
    match server.hands.cri.runtime().exec(wanted).await {
        Ok(answer) => pass(&answer.into_inner().url, request).await,
        Err(status) => refused(&status),
    }
}

pub async fn attach(server: Arc<Server>, parts: &[&str], request: Request<Body>) -> Reply {
    let params = Params::of(request.uri().query());
    let (found, streams) = match (target(&server, parts).await, streams(&params)) {
        (Err(refusal), _) => return refusal,
        (_, Err(refusal)) => return *refusal,
        (Ok(found), Ok(streams)) => (found, streams),
    };
    let wanted = cri::AttachRequest {
        container_id: found.1,
        stdin: streams.stdin,
        tty: streams.tty,
        stdout: streams.stdout,
        stderr: streams.stderr,
    };
    match server.hands.cri.runtime().attach(wanted).await {
        Ok(answer) => pass(&answer.into_inner().url, request).await,
        Err(status) => refused(&status),
    }
}

/// `/portForward/{ns}/{pod}[/{uid}]`.
pub async fn port_forward(server: Arc<Server>, parts: &[&str], request: Request<Body>) -> Reply {
    let params = Params::of(request.uri().query());
    let (namespace, name, uid) = match parts {
        [namespace, name] => (*namespace, *name, None),
        [namespace, name, uid] => (*namespace, *name, Some(*uid)),
        _ => return text(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    let Some(worker) = pods::find(&server, namespace, name, uid).await else {
        return pods::not_found(namespace, name);
    };
    let Some(id) = worker.sandbox.id().map(str::to_owned) else {
        return text(StatusCode::NOT_FOUND, format!("cannot find running pod {name}_{namespace}"));
    };
    let ports = params.all("port").iter().flat_map(|p| p.split(',')).filter_map(|p| p.parse().ok()).collect();
    let wanted = cri::PortForwardRequest { pod_sandbox_id: id, port: ports };
    match server.hands.cri.runtime().port_forward(wanted).await {
        Ok(answer) => pass(&answer.into_inner().url, request).await,
        Err(status) => refused(&status),
    }
}

/// `/run/{ns}/{pod}[/{uid}]/{container}?cmd=…`: runs a command and answers with its output.
pub async fn run(server: Arc<Server>, parts: &[&str], request: &Request<Body>) -> Reply {
    let params = Params::of(request.uri().query());
    let (_, id) = match target(&server, parts).await {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    let cmd = params.get("cmd").unwrap_or("").split_whitespace().map(str::to_owned).collect();
    let wanted = cri::ExecSyncRequest { container_id: id, cmd, timeout: 0 };
    match server.hands.cri.runtime().exec_sync(wanted).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            let mut output = answer.stdout.to_vec();
            output.extend_from_slice(&answer.stderr);
            match answer.exit_code {
                0 => text(StatusCode::OK, output),
                code => {
                    let shown = String::from_utf8_lossy(&output);
                    let message = format!("command exited with {code}: {shown}, stdout/stderr: {shown}");
                    text(StatusCode::INTERNAL_SERVER_ERROR, message)
                }
            }
        }
        Err(status) => refused(&status),
    }
}

/// Sends the request on to `url` and, once both sides agreed to leave HTTP, copies bytes both ways.
async fn pass(url: &str, request: Request<Body>) -> Reply {
    match forward(url, request).await {
        Ok(reply) => reply,
        Err(message) => text(StatusCode::BAD_GATEWAY, format!("the runtime's streaming server: {message}")),
    }
}

async fn forward(url: &str, mut request: Request<Body>) -> Result<Reply, String> {
    let uri: Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
    let authority = uri.authority().ok_or(format!("{url} has no host"))?.clone();
    let port = authority.port_u16().unwrap_or(80);
    let stream = tokio::net::TcpStream::connect((authority.host(), port)).await.map_err(|e| e.to_string())?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection.with_upgrades());
    let upgrade = request.headers().get(UPGRADE).cloned();
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut onward = Request::builder().method(request.method()).uri(path);
    if let Some(headers) = onward.headers_mut() {
        *headers = request.headers().clone();
        headers.remove(http::header::AUTHORIZATION);
        headers.insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(|e| e.to_string())?);
        if let Some(upgrade) = &upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, upgrade.clone());
        }
    }
    let onward = onward.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let mut answer = sender.send_request(onward).await.map_err(|e| e.to_string())?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = answer.into_parts();
        let body = body.map_err(std::io::Error::other).boxed_unsync();
        return Ok(Response::from_parts(parts, body));
    }
    let mut reply = Response::new(full(Bytes::new()));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *reply.headers_mut() = answer.headers().clone();
    let theirs = hyper::upgrade::on(&mut answer);
    let ours = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (Ok(ours), Ok(theirs)) = futures::join!(ours, theirs) else { return };
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
    });
    Ok(reply)
}
