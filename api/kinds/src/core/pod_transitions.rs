//! Which containers a status may show as not terminated once they were: those that their rules, their own policy or the
//! pod's let run again. `pod_validate::status` asks. Pure.

use std::collections::{HashMap, HashSet};

use meta::{FieldError, Path};
use serde_json::Value;

use crate::check::Errors;
use crate::value::{at, int, items, text};

/// Lists of statuses, each with the containers that it tells of.
const LISTS: [(&str, &str); 3] = [
    ("containerStatuses", "spec.containers"),
    ("initContainerStatuses", "spec.initContainers"),
    ("ephemeralContainerStatuses", ""),
];

pub(super) fn check(errors: &mut Errors, status: Path, pod: &Value, old: &Value) {
    let all = restarts_all(old);
    for (list, containers) in LISTS {
        // Ephemeral containers run once, whatever the rules.
        if all && !containers.is_empty() {
            continue;
        }
        let path = status.child(list);
        let full = format!("status.{list}");
        // Whoever may write a status may write very many.
        let told = items(pod, &full).iter().filter(|now| exit_code(now).is_none());
        let told: HashSet<&str> = told.map(|now| text(now, "name")).collect();
        let own: HashMap<&str, &Value> = items(old, containers).iter().map(|c| (text(c, "name"), c)).collect();
        for (i, was) in items(old, &full).iter().enumerate() {
            let Some(code) = exit_code(was) else { continue };
            let name = text(was, "name");
            if !told.contains(name) {
                continue;
            }
            let own = own.get(name).copied();
            if !own.is_some_and(|c| restarts(c, text(old, "spec.restartPolicy"), code)) {
                let place = path.index(i);
                let message = "may not be transitioned to non-terminated state";
                errors.push(FieldError::forbidden(place.child("state"), message));
            }
        }
    }
}

fn exit_code(status: &Value) -> Option<i64> {
    at(status, "state.terminated").map(|t| int(t, "exitCode").unwrap_or(0))
}

/// A rule of one container may start all of them again, whatever they ended with.
fn restarts_all(pod: &Value) -> bool {
    let containers = items(pod, "spec.initContainers").iter().chain(items(pod, "spec.containers"));
    containers.flat_map(|c| items(c, "restartPolicyRules")).any(|rule| text(rule, "action") == "RestartAllContainers")
}

fn restarts(container: &Value, of_pod: &str, code: i64) -> bool {
    let own = text(container, "restartPolicy");
    // Rules belong to a policy of the container's own.
    let ruled = !own.is_empty()
        && items(container, "restartPolicyRules")
            .iter()
            .find(|rule| matches(rule, code))
            .is_some_and(|rule| text(rule, "action") == "Restart");
    ruled
        || match if own.is_empty() { of_pod } else { own } {
            "Never" => false,
            "OnFailure" => code != 0,
            _ => true,
        }
}

fn matches(rule: &Value, code: i64) -> bool {
    let listed = || items(rule, "exitCodes.values").iter().any(|v| v.as_i64() == Some(code));
    match text(rule, "exitCodes.operator") {
        "In" => listed(),
        "NotIn" => !listed(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whether a status of `list` may go from terminated with `code` to running, by upstream.
    fn may_run(policy: &str, kind: &str, list: &str, container: Value, code: i64) -> bool {
        let mut container = container;
        container["name"] = "c".into();
        let state = |state: Value| json!([{"name": "other", "state": {"running": {}}}, {"name": "c", "state": state}]);
        let old = json!({"spec": {"restartPolicy": policy, (kind): [container]},
            "status": {(list): state(json!({"terminated": {"exitCode": code}}))}});
        for to in [json!({"running": {}}), json!({"waiting": {"reason": "PodInitializing"}})] {
            let mut new = old.clone();
            new["status"][list] = state(to);
            let mut errors = Vec::new();
            check(&mut errors, Path::root("status"), &new, &old);
            let mut kept = Vec::new();
            check(&mut kept, Path::root("status"), &old, &old);
            assert!(kept.is_empty(), "what stays is no transition");
            if let Some(error) = errors.first() {
                let told = error.to_string();
                let place =
                    format!("status.{list}[1].state: Forbidden: may not be transitioned to non-terminated state");
                assert_eq!(told, place);
                return false;
            }
        }
        true
    }

    #[test]
    fn a_pod_that_restarts_always_was_refused_the_status_of_its_init_containers() {
        let (plain, sidecar) = (json!({}), json!({"restartPolicy": "Always"}));
        let rules = |policy: &str, action: &str, operator: &str| {
            json!({"restartPolicy": policy, "restartPolicyRules": [
                {"action": action, "exitCodes": {"operator": operator, "values": [42, 43]}}]})
        };
        let (own_never, own_failure) = (json!({"restartPolicy": "Never"}), json!({"restartPolicy": "OnFailure"}));
        // Policy of the pod, container, and whether exit codes 0, 1 and 42 may be left.
        let rows = [
            ("Always", &plain, [true, true, true]),
            ("OnFailure", &plain, [false, true, true]),
            ("Never", &plain, [false, false, false]),
            ("Never", &sidecar, [true, true, true]),
            ("OnFailure", &sidecar, [true, true, true]),
            ("Always", &own_never, [false, false, false]),
            ("Always", &own_failure, [false, true, true]),
            ("Never", &own_failure, [false, true, true]),
            ("Never", &rules("Never", "Restart", "In"), [false, false, true]),
            ("Never", &rules("Never", "Restart", "NotIn"), [true, true, false]),
            ("Always", &rules("Never", "Restart", "In"), [false, false, true]),
            ("Never", &rules("OnFailure", "Restart", "In"), [false, true, true]),
            ("Never", &rules("Never", "RestartAllContainers", "In"), [true, true, true]),
        ];
        for (policy, container, expected) in rows {
            for (kind, list) in [("containers", "containerStatuses"), ("initContainers", "initContainerStatuses")] {
                let got = [0, 1, 42].map(|code| may_run(policy, kind, list, container.clone(), code));
                assert_eq!(got, expected, "{policy} {list} {container}");
            }
            let ephemeral = ("ephemeralContainers", "ephemeralContainerStatuses");
            let got = [0, 1, 42].map(|code| may_run(policy, ephemeral.0, ephemeral.1, plain.clone(), code));
            assert_eq!(got, [false; 3], "an ephemeral container runs once");
        }
    }

    #[test]
    fn a_rule_of_one_container_lets_all_of_them_run_again() {
        let rule = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
        let old = json!({"spec": {"restartPolicy": "Never", "initContainers": [{"name": "i"}],
                "containers": [{"name": "a", "restartPolicy": "Never", "restartPolicyRules": rule}, {"name": "b"}]},
            "status": {"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}}],
                "containerStatuses": [{"name": "b", "state": {"terminated": {"exitCode": 0}}}]}});
        let mut new = old.clone();
        new["status"]["initContainerStatuses"][0]["state"] = json!({"running": {}});
        new["status"]["containerStatuses"][0]["state"] = json!({"waiting": {}});
        let mut errors = Vec::new();
        check(&mut errors, Path::root("status"), &new, &old);
        assert!(errors.is_empty(), "{errors:?}");
    }

    /// Each was looked for among all: a status as large as a body may be took minutes of a core.
    #[test]
    fn a_status_of_fifty_thousand_containers_is_judged_at_once() {
        let containers: Vec<_> = (0..50_000).map(|n| json!({"name": format!("c{n}")})).collect();
        let told = |state: Value| {
            let one = |c: &Value| json!({"name": c["name"], "state": state});
            Value::from(containers.iter().map(one).collect::<Vec<_>>())
        };
        let pod = |state: Value| {
            json!({"spec": {"restartPolicy": "OnFailure", "containers": containers},
            "status": {"containerStatuses": told(state)}})
        };
        let (old, new) = (pod(json!({"terminated": {"exitCode": 1}})), pod(json!({"running": {}})));
        let began = std::time::Instant::now();
        let mut errors = Vec::new();
        check(&mut errors, Path::root("status"), &new, &old);
        assert!(errors.is_empty() && began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    }

    #[test]
    fn a_status_of_no_container_does_not_come_back() {
        let old = json!({"spec": {"restartPolicy": "Always", "containers": [{"name": "a"}]},
            "status": {"containerStatuses": [{"name": "gone", "state": {"terminated": {"exitCode": 1}}}]}});
        let mut new = old.clone();
        new["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
        let mut errors = Vec::new();
        check(&mut errors, Path::root("status"), &new, &old);
        assert_eq!(errors.len(), 1);
    }
}
