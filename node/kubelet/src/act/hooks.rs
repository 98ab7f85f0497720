//! Lifecycle hooks: exec, HTTP GET or sleep. Does I/O. The error text is what the container's state shows.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use wire::cri;

use crate::act::http_get::{self, Target};
use crate::io::cri::{Cri, shown};
use crate::pod::downward_api::quoted;
use crate::pod::pods;

/// An HTTP hook that never answers must not hold a pod for ever; its grace period ends a preStop earlier.
const HTTP_LIMIT: Duration = Duration::from_secs(120);

/// Runs the hook in (or against) the container.
pub async fn run(
    cri: &Cri,
    pod: &Pod,
    container: &Container,
    hook: &LifecycleHandler,
    id: &str,
    ips: &[String],
) -> Result<(), String> {
    let whom = format!("for Container {} in Pod {}", quoted(&container.name), quoted(&pods::shown(pod)));
    if let Some(exec) = &hook.exec {
        let cmd = exec.command.clone().unwrap_or_default();
        let shown_command = format!("[{}]", cmd.join(" "));
        let request = cri::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: 0 };
        let failed = |error: String, output: &str| {
            format!("Exec lifecycle hook ({shown_command}) {whom} failed - error: {error}, message: {}", quoted(output))
        };
        return match cri.runtime().exec_sync(request).await {
            Err(status) => Err(failed(shown(&status), "")),
            Ok(answer) => {
                let answer = answer.into_inner();
                let output = String::from_utf8_lossy(&answer.stdout) + String::from_utf8_lossy(&answer.stderr);
                match answer.exit_code {
                    0 => Ok(()),
                    code => Err(failed(
                        format!("command '{shown_command}' exited with {code}: {}", shown_output(&output)),
                        &output,
                    )),
                }
            }
        };
    }
    if let Some(get) = &hook.http_get {
        let ip = ips.first().map_or("127.0.0.1", String::as_str);
        let failed = |error: String| {
            format!("HTTP lifecycle hook ({}) {whom} failed - error: {error}", get.path.as_deref().unwrap_or("/"))
        };
        let target = Target::of(container, get, ip, "kube-lifecycle/1.37").map_err(failed)?;
        let answer = http_get::get(&target, HTTP_LIMIT).await.map_err(failed)?;
        return match answer.status {
            200..400 => Ok(()),
            status => Err(failed(format!("HTTP lifecycle hook got status {status}"))),
        };
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
        return Ok(());
    }
    Err("Cannot run handler: invalid handler: it has no exec, httpGet or sleep".into())
}

fn shown_output(output: &str) -> &str {
    output.trim_end()
}
