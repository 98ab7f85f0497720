//! The row of a pod: readiness, restarts and the one word that sums up its state.

use jiff::Timestamp;
use serde_json::Value;

use crate::print::{age, name, text_or, time};
use crate::value::{at, flag, int, items, text};

/// The cells of `kubectl get pods -o wide`.
pub(crate) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let mut sum = Summary::of(pod);
    sum.add_init_containers(pod);
    if !sum.initializing || condition_is_true(pod, "Initialized") {
        sum.add_containers(pod);
    }
    let deleting = at(pod, "metadata.deletionTimestamp").is_some();
    let terminal = ["Succeeded", "Failed"].contains(&text(pod, "status.phase"));
    if deleting && text(pod, "status.reason") == "NodeLost" {
        sum.reason = "Unknown".to_owned();
    } else if deleting && !terminal {
        sum.reason = "Terminating".to_owned();
    }
    vec![
        name(pod),
        format!("{}/{}", sum.ready, sum.total).into(),
        sum.reason.clone().into(),
        sum.restarts_text(now).into(),
        age(pod, now),
        items(pod, "status.podIPs").first().map_or("<none>".into(), |ip| text_or(ip, "ip", "<none>")),
        text_or(pod, "spec.nodeName", "<none>"),
        text_or(pod, "status.nominatedNodeName", "<none>"),
        readiness_gates(pod).into(),
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
    reason: String,
    initializing: bool,
}

impl Summary {
    fn of(pod: &Value) -> Summary {
        let mut reason = text(pod, "status.phase");
        if !text(pod, "status.reason").is_empty() {
            reason = text(pod, "status.reason");
        }
        let gated = |c: &&Value| text(c, "type") == "PodScheduled" && text(c, "reason") == "SchedulingGated";
        if items(pod, "status.conditions").iter().any(|c| gated(&c)) {
            reason = "SchedulingGated";
        }
        let sidecars = items(pod, "spec.initContainers").iter().filter(|c| restarts_always(c)).count();
        Summary {
            ready: 0,
            total: items(pod, "spec.containers").len() + sidecars,
            restarts: 0,
            last_restart: None,
            reason: reason.to_owned(),
            initializing: false,
        }
    }

    /// Counts init containers until the first that has not done its work; that one names the state. Restarts of
    /// plain init containers count only while they hold the pod up.
    fn add_init_containers(&mut self, pod: &Value) {
        let specs = items(pod, "spec.initContainers");
        let (mut sidecar_restarts, mut sidecar_last) = (0, None);
        for (i, status) in items(pod, "status.initContainerStatuses").iter().enumerate() {
            let spec = specs.iter().find(|c| text(c, "name") == text(status, "name"));
            let sidecar = spec.is_some_and(restarts_always);
            self.count_restarts(status);
            if sidecar {
                sidecar_restarts += int(status, "restartCount").unwrap_or(0);
                sidecar_last = sidecar_last.max(time(status, "lastState.terminated.finishedAt"));
            }
            let terminated = at(status, "state.terminated");
            if terminated.is_some_and(|t| int(t, "exitCode").unwrap_or(0) == 0) {
                continue;
            }
            if sidecar && flag(status, "started") {
                self.ready += usize::from(flag(status, "ready"));
                continue;
            }
            let waiting = text(status, "state.waiting.reason");
            self.reason = match terminated {
                Some(t) => format!("Init:{}", exit_reason(t)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{i}/{}", specs.len()),
            };
            self.initializing = true;
            break;
        }
        if !self.initializing || condition_is_true(pod, "Initialized") {
            (self.restarts, self.last_restart) = (sidecar_restarts, sidecar_last);
        }
    }

    fn add_containers(&mut self, pod: &Value) {
        let (mut running, mut failure) = (false, None);
        for status in items(pod, "status.containerStatuses").iter().rev() {
            self.count_restarts(status);
            let waiting = text(status, "state.waiting.reason");
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(t) = at(status, "state.terminated") {
                self.reason = exit_reason(t);
                if int(t, "exitCode").unwrap_or(0) != 0 {
                    failure = Some(self.reason.clone());
                }
            } else if flag(status, "ready") && at(status, "state.running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            self.reason = match failure {
                _ if running && condition_is_true(pod, "Ready") => "Running".to_owned(),
                Some(failure) => failure,
                None if running => "NotReady".to_owned(),
                None => "Completed".to_owned(),
            };
        }
    }

    fn count_restarts(&mut self, status: &Value) {
        self.restarts += int(status, "restartCount").unwrap_or(0);
        self.last_restart = self.last_restart.max(time(status, "lastState.terminated.finishedAt"));
    }

    fn restarts_text(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(last) if self.restarts != 0 => {
                format!("{} ({} ago)", self.restarts, meta::duration::human(now.as_second() - last.as_second()))
            }
            _ => self.restarts.to_string(),
        }
    }
}

fn restarts_always(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

/// Why a container ended: its reason, else the signal, else the exit code.
fn exit_reason(terminated: &Value) -> String {
    match (text(terminated, "reason"), int(terminated, "signal").unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", int(terminated, "exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn condition_is_true(pod: &Value, kind: &str) -> bool {
    crate::print::condition_true(pod, kind)
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|g| condition_is_true(pod, text(g, "conditionType"))).count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cells(pod: Value) -> Vec<String> {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        row(&pod, now).iter().map(|v| v.as_str().unwrap_or("").to_owned()).collect()
    }

    #[test]
    fn a_running_pod_with_a_restart() {
        let pod = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "c"}], "nodeName": "n1"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [
                {"name": "c", "ready": true, "restartCount": 1, "state": {"running": {}},
                 "lastState": {"terminated": {"finishedAt": "2026-01-01T00:59:55Z", "exitCode": 1}}}]}});
        assert_eq!(cells(pod), ["a", "1/1", "Running", "1 (5s ago)", "60m", "10.0.0.1", "n1", "<none>", "<none>"]);
    }

    #[test]
    fn states_of_pods_that_do_not_run() {
        let state = |status: Value| {
            cells(json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}],
                "initContainers": [{"name": "i"}, {"name": "j"}]}, "status": status}))[2]
                .clone()
        };
        assert_eq!(state(json!({"phase": "Pending"})), "Pending");
        assert_eq!(
            state(json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]})),
            "Init:0/2"
        );
        let failed = json!({"name": "i", "state": {"terminated": {"exitCode": 3}}});
        assert_eq!(state(json!({"phase": "Pending", "initContainerStatuses": [failed]})), "Init:ExitCode:3");
        let waiting = json!({"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
        assert_eq!(state(json!({"phase": "Running", "containerStatuses": [waiting]})), "CrashLoopBackOff");
        let done = json!({"name": "c", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        assert_eq!(state(json!({"phase": "Succeeded", "containerStatuses": [done]})), "Completed");
    }
}
