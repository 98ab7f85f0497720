//! Which handler answers a path. Does I/O through the handlers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use serving::Body;

use super::{Reply, Server, configz, host_logs, logs, pods, stats, stream, text};
use crate::messages::Query;

/// A loop that does not answer for this long is not well.
const LOOP_LIMIT: Duration = Duration::from_secs(5);

/// Where the host keeps its logs.
const HOST_LOGS: &str = "/var/log";

/// Query parameters; a name may come more than once.
#[derive(Debug, Default)]
pub struct Params(pub HashMap<String, Vec<String>>);

impl Params {
    pub fn of(query: Option<&str>) -> Params {
        let mut out: HashMap<String, Vec<String>> = HashMap::new();
        for pair in query.unwrap_or("").split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            out.entry(decode(name)).or_default().push(decode(value));
        }
        Params(out)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str)
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// `true`, `1`.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1" | "True" | "t"))
    }
}

/// Undoes URL encoding; `+` is a blank.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let hex = |b: u8| (b as char).to_digit(16);
        match bytes[i] {
            b'+' => out.push(b' '),
            b'%' if i + 2 < bytes.len() => match (hex(bytes[i + 1]), hex(bytes[i + 2])) {
                (Some(a), Some(b)) => {
                    out.push((a * 16 + b) as u8);
                    i += 2;
                }
                _ => out.push(b'%'),
            },
            other => out.push(other),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What a path is made of, as it is served and as it is authorised.
pub fn parts(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty()).map(decode).collect()
}

pub async fn route(server: Arc<Server>, request: Request<Body>) -> Reply {
    let path = request.uri().path().to_owned();
    let parts = parts(&path);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let debugging = server.hands.config.server.enable_debugging_handlers;
    let get = request.method() == Method::GET;
    let streams = get || request.method() == Method::POST;
    match parts.as_slice() {
        ["healthz"] | ["healthz", "syncloop"] => health(&server).await,
        ["healthz", "ping" | "log"] => text(StatusCode::OK, "ok"),
        ["pods"] if get => pods::pods(&server).await,
        ["runningpods"] if get && debugging => pods::running(&server).await,
        ["configz"] if get => super::json(&configz::configuration(&server.hands.config)),
        ["stats", "summary"] if get => stats::summary(&server).await,
        ["metrics"] if get => stats::metrics(&server).await,
        ["metrics", "resource"] if get => stats::resource(&server).await,
        ["metrics", "cadvisor"] if get => stats::cadvisor(&server).await,
        ["metrics", "probes"] if get => stats::probes(&server).await,
        ["containerLogs", namespace, pod, container] if get && debugging => {
            let params = Params::of(request.uri().query());
            logs::container(server, namespace, pod, container, &params).await
        }
        ["logs", rest @ ..] if get && server.hands.config.server.enable_system_log_handler => {
            host_logs::serve(HOST_LOGS.as_ref(), rest, &path).await
        }
        ["exec", rest @ ..] if streams && debugging => stream::exec(server, rest, request).await,
        ["attach", rest @ ..] if streams && debugging => stream::attach(server, rest, request).await,
        ["portForward", rest @ ..] if streams && debugging => stream::port_forward(server, rest, request).await,
        ["run", rest @ ..] if request.method() == Method::POST && debugging => {
            stream::run(server, rest, &request).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// The loop answers.
pub async fn health(server: &Server) -> Reply {
    match tokio::time::timeout(LOOP_LIMIT, server.hands.mailbox.ask(Query::Ping)).await {
        Ok(Some(())) => text(StatusCode::OK, "ok"),
        _ => text(StatusCode::INTERNAL_SERVER_ERROR, "syncloop does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let params = Params::of(Some("command=sh&command=-c&command=echo+a%20%26b&tty=1&bad=%zz"));
        assert_eq!(params.all("command"), ["sh", "-c", "echo a &b"]);
        assert!(params.is("tty") && !params.is("stdin"));
        assert_eq!(params.get("bad"), Some("%zz"));
    }
}
