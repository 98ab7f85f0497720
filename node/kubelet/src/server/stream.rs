//! exec, attach and port-forward: the runtime gives a URL, the connection is passed through to it byte by byte. Does I/O.
//!
//! Both protocols (SPDY and WebSocket) are spoken by the runtime's streaming server; the kubelet only checks who asks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serving::Body;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;
use tonic::Status;
use wire::cri;

use super::params::Params;
use super::pods;
use super::reply::{Reply, Server, full, text};
use crate::error::best_effort;
use crate::io::cri::shown;
use crate::worker::PodWorker;

/// What is on its way of a stream in each direction, beside the sockets' buffers.
const PIPE_BLOCK: usize = 16 << 10;

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
    match server.executor.cri.runtime().exec(wanted).await {
        Ok(answer) => pass(&server, &answer.into_inner().url, request).await,
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
    match server.executor.cri.runtime().attach(wanted).await {
        Ok(answer) => pass(&server, &answer.into_inner().url, request).await,
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
    let ports = match ports(&params.all("port")) {
        Ok(ports) => ports,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let wanted = cri::PortForwardRequest { pod_sandbox_id: id, port: ports };
    match server.executor.cri.runtime().port_forward(wanted).await {
        Ok(answer) => pass(&server, &answer.into_inner().url, request).await,
        Err(status) => refused(&status),
    }
}

/// The ports of all parameters, each of them may be a list.
fn ports(given: &[String]) -> Result<Vec<i32>, String> {
    let all = given.iter().flat_map(|p| p.split(',')).filter(|p| !p.is_empty());
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(i32::from(port)),
        _ => Err(format!("unable to parse {text:?} as a port")),
    };
    all.map(port).collect()
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
    match server.executor.cri.runtime().exec_sync(wanted).await {
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
async fn pass(server: &Server, url: &str, request: Request<Body>) -> Reply {
    match forward(url, request, server.executor.config.server.streaming_idle_timeout).await {
        Ok(reply) => reply,
        Err(message) => text(StatusCode::BAD_GATEWAY, format!("the runtime's streaming server: {message}")),
    }
}

async fn forward(url: &str, mut request: Request<Body>, idle: Duration) -> Result<Reply, String> {
    let uri: Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
    let authority = uri.authority().ok_or(format!("{url} has no host"))?.clone();
    let port = authority.port_u16().unwrap_or(80);
    let stream = tokio::net::TcpStream::connect((authority.host(), port)).await.map_err(|e| e.to_string())?;
    best_effort("send small pieces of a stream at once", stream.set_nodelay(true));
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
        between(TokioIo::new(ours), TokioIo::new(theirs), idle).await;
    });
    Ok(reply)
}

/// Copies bytes both ways until both sides ended, or neither said anything for `idle` (zero: for ever).
async fn between<A, B>(ours: A, theirs: B, idle: Duration)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let heard = Notify::new();
    let (ours_read, ours_write) = tokio::io::split(ours);
    let (theirs_read, theirs_write) = tokio::io::split(theirs);
    let silence = async { while tokio::time::timeout(idle, heard.notified()).await.is_ok() {} };
    tokio::select! {
        _ = async { futures::join!(pipe(ours_read, theirs_write, &heard), pipe(theirs_read, ours_write, &heard)) } => {}
        () = silence, if !idle.is_zero() => tracing::debug!("a stream was silent for too long"),
    }
}

async fn pipe(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    heard: &Notify,
) -> std::io::Result<()> {
    let mut block = vec![0; PIPE_BLOCK];
    loop {
        let size = from.read(&mut block).await?;
        if size == 0 {
            return to.shutdown().await;
        }
        to.write_all(&block[..size]).await?;
        heard.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_silent_for_too_long_is_closed_and_a_busy_one_is_not() {
        let idle = Duration::from_secs(10);
        let (ours, mut client) = tokio::io::duplex(64);
        let (theirs, mut runtime) = tokio::io::duplex(64);
        let both = tokio::spawn(between(ours, theirs, idle));
        let mut word = [0; 2];
        for _ in 0..5 {
            tokio::time::sleep(idle * 9 / 10).await;
            client.write_all(b"hi").await.unwrap();
            runtime.read_exact(&mut word).await.unwrap();
        }
        let last = tokio::time::Instant::now();
        assert_eq!(runtime.read(&mut word).await.unwrap(), 0, "closed");
        assert!(last.elapsed() >= idle && last.elapsed() < 2 * idle, "{:?}", last.elapsed());
        both.await.unwrap();

        let (ours, _client) = tokio::io::duplex(64);
        let (theirs, _runtime) = tokio::io::duplex(64);
        let forever = between(ours, theirs, Duration::ZERO);
        assert!(tokio::time::timeout(Duration::from_secs(100_000), forever).await.is_err(), "0 is for ever");
    }

    #[test]
    fn a_port_that_is_none_is_refused_and_not_left_out() {
        let given = |list: &[&str]| ports(&list.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert_eq!(given(&["80,443", "8080"]).unwrap(), [80, 443, 8080]);
        for wrong in ["0", "65536", "-1", "http", "80,x"] {
            assert!(given(&[wrong]).unwrap_err().starts_with("unable to parse"), "{wrong}");
        }
    }
}
