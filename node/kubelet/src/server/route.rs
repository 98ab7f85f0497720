//! Which handler answers a path. Does I/O through the handlers.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use serving::Body;

use super::params::{Params, parts};
use super::reply::{self, Reply, Server, text};
use super::{configz, host_logs, logs, pods, stats, stream};
use crate::messages::Query;

/// A loop that does not answer for this long is not well.
const LOOP_LIMIT: Duration = Duration::from_secs(5);

/// Where the host keeps its logs.
const HOST_LOGS: &str = "/var/log";

pub async fn route(server: Arc<Server>, request: Request<Body>) -> Reply {
    let path = request.uri().path().to_owned();
    let parts = parts(&path);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let debugging = server.executor.config.server.enable_debugging_handlers;
    let get = request.method() == Method::GET;
    let streams = get || request.method() == Method::POST;
    match parts.as_slice() {
        ["healthz"] | ["healthz", "syncloop"] => health(&server).await,
        ["healthz", "ping" | "log"] => text(StatusCode::OK, "ok"),
        ["pods"] if get => pods::pods(&server).await,
        ["runningpods"] if get && debugging => pods::running(&server).await,
        ["configz"] if get => reply::json(&configz::configuration(&server.executor.config)),
        ["stats", "summary"] if get => stats::summary(&server).await,
        ["metrics"] if get => stats::metrics(&server).await,
        ["metrics", "resource"] if get => stats::resource(&server).await,
        ["metrics", "cadvisor"] if get => stats::cadvisor(&server).await,
        ["metrics", "probes"] if get => stats::probes(&server).await,
        ["containerLogs", namespace, pod, container] if get && debugging => {
            let params = Params::of(request.uri().query());
            logs::container(server, namespace, pod, container, &params).await
        }
        ["logs", rest @ ..] if get && server.executor.config.server.enable_system_log_handler => {
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
    match tokio::time::timeout(LOOP_LIMIT, server.executor.mailbox.ask(Query::Ping)).await {
        Ok(Some(())) => text(StatusCode::OK, "ok"),
        _ => text(StatusCode::INTERNAL_SERVER_ERROR, "syncloop does not answer"),
    }
}
