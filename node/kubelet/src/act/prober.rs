//! Running one probe: exec, HTTP, TCP or gRPC. Does I/O. Messages are upstream's, they end up in Events.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use wire::cri;

use crate::act::dial;
use crate::act::grpc_health;
use crate::act::http_get::{self, Target};
use crate::io::cri::{Cri, shown};
use crate::pod::probe::{self, Outcome};

/// What of a probe's output is kept.
const OUTPUT_MAX: usize = 10 << 10;

/// Runs the probe; answers within its timeout.
pub async fn run(cri: &Cri, container: &Container, probe: &Probe, id: &str, ip: &str) -> Outcome {
    let timeout = Duration::from_secs(probe::timeout(probe).as_secs().unsigned_abs());
    if let Some(exec) = &probe.exec {
        return run_exec(cri, id, exec.command.clone().unwrap_or_default(), timeout).await;
    }
    if let Some(get) = &probe.http_get {
        let target = match Target::of(container, get, ip, "kube-probe/1.37") {
            Ok(target) => target,
            Err(message) => return Outcome::Error(message),
        };
        return run_http(&target, timeout).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
        return match dial::port(container, &tcp.port) {
            Ok(port) => run_tcp(host, port, timeout).await,
            Err(message) => Outcome::Error(message),
        };
    }
    if let Some(grpc) = &probe.grpc {
        let service = grpc.service.clone().unwrap_or_default();
        return grpc_health::run(ip, grpc.port, &service, timeout).await;
    }
    Outcome::Error("missing probe handler".into())
}

async fn run_exec(cri: &Cri, id: &str, cmd: Vec<String>, timeout: Duration) -> Outcome {
    let shown_command = format!("{cmd:?}").replace(',', "");
    let seconds = timeout.as_secs() as i64;
    let request = cri::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: seconds };
    let timed_out = || Outcome::Failure(format!("command timed out: {shown_command} timed out after {seconds}s"));
    // The runtime enforces the timeout; a second more lets its answer arrive.
    match tokio::time::timeout(timeout + Duration::from_secs(1), cri.runtime().exec_sync(request)).await {
        Err(_) => timed_out(),
        Ok(Err(status)) if status.code() == tonic::Code::DeadlineExceeded => timed_out(),
        Ok(Err(status)) => Outcome::Error(shown(&status)),
        Ok(Ok(answer)) => {
            let answer = answer.into_inner();
            if answer.exit_code == 0 {
                return Outcome::Success;
            }
            let mut output = answer.stdout.to_vec();
            output.extend_from_slice(&answer.stderr);
            output.truncate(OUTPUT_MAX);
            Outcome::Failure(String::from_utf8_lossy(&output).into_owned())
        }
    }
}

async fn run_http(target: &Target, timeout: Duration) -> Outcome {
    match http_get::get(target, timeout).await {
        Err(message) => Outcome::Failure(message),
        Ok(answer) if (200..300).contains(&answer.status) => Outcome::Success,
        Ok(answer) if (300..400).contains(&answer.status) => {
            Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body))
        }
        Ok(answer) => Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.status)),
    }
}

async fn run_tcp(host: &str, port: u16, timeout: Duration) -> Outcome {
    let at = dial::authority(host, port);
    match tokio::time::timeout(timeout, tokio::net::TcpStream::connect((host, port))).await {
        Err(_) => Outcome::Failure(format!("dial tcp {at}: i/o timeout")),
        Ok(Err(error)) => Outcome::Failure(format!("dial tcp {at}: {}", dial::connect_error(&error))),
        Ok(Ok(_)) => Outcome::Success,
    }
}
