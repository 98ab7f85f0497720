//! Probes and lifecycle hooks of containers.

use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, among, follows, not_negative, port, present};
use crate::value::{at, int, items, text};

/// Probes of a container that runs.
pub(super) fn probes(errors: &mut Errors, path: Path, container: &Value) {
    for (key, once) in [("livenessProbe", true), ("readinessProbe", false), ("startupProbe", true)] {
        let Some(probe) = at(container, key) else { continue };
        let path = path.child(key);
        validate(errors, path, probe);
        let threshold = int(probe, "successThreshold").unwrap_or(0);
        if once && threshold != 1 {
            errors.push(FieldError::invalid(path.child("successThreshold"), threshold, "must be 1"));
        }
        let grace = int(probe, "terminationGracePeriodSeconds");
        if let (false, Some(grace)) = (once, grace) {
            let message = "must not be set for readinessProbes";
            errors.push(FieldError::invalid(path.child("terminationGracePeriodSeconds"), grace, message));
        }
    }
}

fn validate(errors: &mut Errors, path: Path, probe: &Value) {
    handler(errors, path, probe, &["exec", "httpGet", "tcpSocket", "grpc"], None);
    for key in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        not_negative(errors, &path, probe, key);
    }
    if let Some(grace) = int(probe, "terminationGracePeriodSeconds").filter(|g| *g <= 0) {
        let message = "must be greater than 0";
        errors.push(FieldError::invalid(path.child("terminationGracePeriodSeconds"), grace, message));
    }
}

/// What runs after start and before stop. `grace` is the pod's.
pub(super) fn lifecycle(errors: &mut Errors, path: Path, container: &Value, grace: Option<i64>) {
    let path = path.child("lifecycle");
    for key in ["postStart", "preStop"] {
        if let Some(hook) = at(container, "lifecycle").and_then(|l| at(l, key)) {
            handler(errors, path.child(key), hook, &["exec", "httpGet", "tcpSocket", "sleep"], grace);
        }
    }
    if let Some(signal) = at(container, "lifecycle.stopSignal").and_then(Value::as_str) {
        let known = stop_signals();
        if !known.iter().any(|s| s == signal) {
            errors.push(FieldError::not_supported(path.child("stopSignal"), signal, &known));
        }
    }
}

/// Signals of Linux, as upstream lists them. Its API server keeps the field behind a gate that is off by default, and
/// then wants `spec.os.name` with it; every node of ours is Linux, so ours doesn't.
fn stop_signals() -> Vec<String> {
    const NAMED: &str = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT \
                         STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX";
    let named = NAMED.split(' ').map(|name| format!("SIG{name}"));
    let from_least = (1..=15).map(|n| format!("SIGRTMIN+{n}"));
    let from_most = (1..=14).map(|n| format!("SIGRTMAX-{n}"));
    let mut all: Vec<String> = named.chain(from_least).chain(from_most).collect();
    all.sort();
    all
}

fn handler(errors: &mut Errors, path: Path, handler: &Value, kinds: &[&str], grace: Option<i64>) {
    let mut found = 0;
    for kind in kinds {
        let Some(action) = at(handler, kind) else { continue };
        found += 1;
        let path = path.child(kind);
        if found > 1 {
            errors.push(FieldError::forbidden(path, "may not specify more than 1 handler type"));
            continue;
        }
        match *kind {
            "exec" if items(action, "command").is_empty() => {
                errors.push(FieldError::required(path.child("command"), ""));
            }
            "httpGet" => http_get(errors, path, action),
            "tcpSocket" => port(errors, path.child("port"), at(action, "port")),
            "grpc" => {
                let number = int(action, "port").unwrap_or(0);
                let wrong = names::port_number(number).into_iter();
                errors.extend(wrong.map(|m| FieldError::invalid(path.child("port"), number, m)));
            }
            "sleep" => {
                let seconds = int(action, "seconds").unwrap_or(0);
                if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                    let message = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    errors.push(FieldError::invalid(path, seconds, message));
                }
            }
            _ => {}
        }
    }
    if found == 0 {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}

fn http_get(errors: &mut Errors, path: Path, action: &Value) {
    present(errors, &path, action, "path");
    port(errors, path.child("port"), at(action, "port"));
    among(errors, path.child("scheme"), text(action, "scheme"), &["HTTP", "HTTPS"]);
    for header in items(action, "httpHeaders") {
        follows(errors, path.child("httpHeaders"), text(header, "name"), names::http_header_name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stop_signal_is_one_that_linux_has() {
        let errors = |signal: &str| {
            let mut errors = Vec::new();
            let container = json!({"lifecycle": {"stopSignal": signal}});
            lifecycle(&mut errors, Path::root("c"), &container, None);
            errors
        };
        for signal in ["SIGTERM", "SIGUSR1", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX"] {
            assert!(errors(signal).is_empty(), "{signal}");
        }
        for signal in ["TERM", "sigterm", "SIGRTMIN+16", "15", "SIGWHAT"] {
            let refused = errors(signal);
            let words =
                format!("c.lifecycle.stopSignal: Unsupported value: \"{signal}\": supported values: \"SIGABRT\",");
            assert!(refused.len() == 1 && refused[0].to_string().starts_with(&words), "{refused:?}");
        }
    }
}
