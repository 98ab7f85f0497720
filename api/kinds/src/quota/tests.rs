//! Quotas as a user of a namespace meets them.

use super::*;
use serde_json::json;

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn quota(spec: Value, used: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": spec["hard"], "used": used}})
}

fn pod(resources: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
}

fn ask(quota: &Value, resource: &str, object: &Value, old: Option<&Value>) -> Result<Option<Value>, String> {
    let used = reserve(quota, &Change { resource, object, old, now: now() })?;
    Ok(used.map(|used| Value::Object(written(&used))))
}

#[test]
fn a_pod_is_counted_until_there_is_no_room() {
    let hard = json!({"hard": {"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi"}});
    let none = quota(hard.clone(), json!({"pods": "0", "requests.cpu": "0", "limits.memory": "0"}));
    let one = pod(json!({"requests": {"cpu": "600m"}, "limits": {"memory": "512Mi"}}));
    let used = ask(&none, "pods", &one, None).unwrap().unwrap();
    assert_eq!(used, json!({"pods": "1", "requests.cpu": "600m", "limits.memory": "512Mi"}));
    let said = ask(&quota(hard, used), "pods", &one, None).unwrap_err();
    assert_eq!(
        said,
        "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1"
    );
}

#[test]
fn what_is_counted_must_be_said_by_every_container() {
    let q = quota(json!({"hard": {"limits.cpu": "1", "memory": "1"}}), json!({"limits.cpu": "0", "memory": "0"}));
    let mut two = pod(json!({}));
    two["spec"]["initContainers"] = json!([{"name": "b"}]);
    let said = ask(&q, "pods", &two, None).unwrap_err();
    assert_eq!(said, "failed quota: q: must specify limits.cpu for: b,c; memory for: b,c");
}

#[test]
fn a_quota_that_was_never_counted_lets_nothing_pass() {
    let mut q = quota(json!({"hard": {"pods": "2"}}), json!({}));
    let said = ask(&q, "pods", &pod(json!({})), None).unwrap_err();
    assert_eq!(said, "status unknown for quota: q, resources: pods");
    q["status"] = json!({});
    assert_eq!(ask(&q, "pods", &pod(json!({})), None), Ok(None));
}

#[test]
fn scopes_choose_the_pods() {
    let ends =
        json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high", "containers": [{"name": "c"}]}});
    let stays = pod(json!({"requests": {"cpu": "1"}}));
    let of = |scopes: Value| json!({"spec": {"scopes": scopes}});
    let by = |operator: &str, values: Value| {
        json!({"spec": {"scopeSelector": {"matchExpressions":
            [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}}})
    };
    for (quota, wanted) in [
        (of(json!(["Terminating"])), (true, false)),
        (of(json!(["NotTerminating"])), (false, true)),
        (of(json!(["BestEffort"])), (true, false)),
        (of(json!(["NotBestEffort", "NotTerminating"])), (false, true)),
        (by("In", json!(["high"])), (true, false)),
        (by("NotIn", json!(["high"])), (false, true)),
        (by("Exists", json!([])), (true, false)),
        (by("DoesNotExist", json!([])), (false, true)),
    ] {
        assert_eq!((covers(&quota, "pods", &ends), covers(&quota, "pods", &stays)), wanted, "{quota}");
        assert!(!covers(&quota, "secrets", &json!({})), "{quota}");
    }
}

#[test]
fn a_service_that_needs_less_gives_back() {
    let q = quota(
        json!({"hard": {"services.nodeports": "2", "services.loadbalancers": "0"}}),
        json!({"services.nodeports": "3", "services.loadbalancers": "0"}),
    );
    let wide = json!({"spec": {"type": "NodePort", "ports": [{}, {}]}});
    let narrow = json!({"spec": {"type": "NodePort", "ports": [{}]}});
    let used = ask(&q, "services", &narrow, Some(&wide)).unwrap().unwrap();
    assert_eq!(used["services.nodeports"], "2");
    let balanced = json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{}]}});
    let said = ask(&q, "services", &balanced, None).unwrap_err();
    assert!(said.contains("requested: services.loadbalancers=1, used: services.loadbalancers=0"), "{said}");
}

#[test]
fn claims_count_for_their_class_too() {
    let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "5Gi"}}}});
    let usage = written(&usage("persistentvolumeclaims", &claim, now()));
    assert_eq!(usage["requests.storage"], "5Gi");
    assert_eq!(usage["fast.storageclass.storage.k8s.io/requests.storage"], "5Gi");
    assert_eq!(usage["fast.storageclass.storage.k8s.io/persistentvolumeclaims"], "1");
}

#[test]
fn the_tally_counts_what_the_reservation_counted() {
    let hard =
        json!({"pods": "9", "requests.memory": "9Gi", "count/deployments.apps": "3", "secrets": "2", "junk": "1"});
    let q = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    let mut tally = Tally::new(&q, now());
    assert_eq!(tally.resources(), ["deployments.apps", "pods", "secrets"]);
    tally.add("pods", &pod(json!({"requests": {"memory": "1Gi"}})));
    let mut ended = pod(json!({"requests": {"memory": "1Gi"}}));
    ended["status"]["phase"] = "Succeeded".into();
    tally.add("pods", &ended);
    let mut stuck = pod(json!({"requests": {"memory": "1Gi"}}));
    stuck["metadata"] = json!({"deletionTimestamp": "2026-01-02T03:00:00Z", "deletionGracePeriodSeconds": 30});
    tally.add("pods", &stuck);
    tally.add_number("deployments.apps", 2);
    tally.add_number("secrets", 1);
    let status = tally.status();
    assert_eq!(status["hard"], hard);
    let used = json!({"pods": "1", "requests.memory": "1Gi", "count/deployments.apps": "2", "secrets": "1"});
    assert_eq!(status["used"], used);
}
