//! What the server makes of pods: defaults of pods alone, initial status, quality of service, and what /status,
//! /resize and /ephemeralcontainers leave alone.

use std::collections::BTreeMap;

use meta::Quantity;
use serde_json::{Map, Value, json};

use super::pod_spec::defaults::spec_at;
use crate::hooks::Context;
use crate::strategy::fix_metadata;
use crate::value::{at, default_at, ensure_map, flag, int, items, items_mut, keep, map, remove, set, text};

/// Defaults of a pod.
pub(crate) fn default(pod: &mut Value) {
    if int(pod, "spec.terminationGracePeriodSeconds").is_some_and(|s| s < 0) {
        set(pod, "spec.terminationGracePeriodSeconds", 1);
    }
    spec_at(pod, "spec");
    for list in ["spec.containers", "spec.initContainers"] {
        items_mut(pod, list).for_each(requests_from_limits);
    }
    if at(pod, "spec").is_some() {
        default_at(pod, "spec.enableServiceLinks", true);
    }
    if flag(pod, "spec.hostNetwork") {
        for list in ["spec.containers", "spec.initContainers"] {
            items_mut(pod, list).for_each(host_ports);
        }
    }
    pod_ips(pod);
}

/// What is limited and not requested is requested as limited.
fn requests_from_limits(container: &mut Value) {
    let Some(limits) = map(container, "resources.limits").cloned() else { return };
    let requests = ensure_map(container, "resources.requests");
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

/// On the host's network a container's port is the host's port.
fn host_ports(container: &mut Value) {
    for port in items_mut(container, "ports") {
        let number = int(port, "containerPort").unwrap_or(0);
        if int(port, "hostPort").unwrap_or(0) == 0 && number != 0 {
            set(port, "hostPort", number);
        }
    }
}

/// The single address and the first of the list are the same; the single one wins.
fn pod_ips(pod: &mut Value) {
    let single = text(pod, "status.podIP").to_owned();
    let first = items(pod, "status.podIPs").first().map(|ip| text(ip, "ip").to_owned());
    match (single.is_empty(), first) {
        (true, Some(first)) => set(pod, "status.podIP", first),
        (false, first) if first.as_deref() != Some(&single) => set(pod, "status.podIPs", json!([{"ip": single}])),
        _ => {}
    }
}

/// The status a new pod starts with, and label keys of affinity and spreading turned into selectors.
pub(crate) fn prepare_create(pod: &mut Value, context: &Context) {
    drop_disabled(pod);
    let mut status = json!({"phase": "Pending"});
    if !items(pod, "spec.schedulingGates").is_empty() {
        status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastTransitionTime": meta::time::format(context.now)}]);
    }
    label_keys(pod);
    pod_level_resources(pod);
    status["qosClass"] = quality_of_service(pod).into();
    set(pod, "status", status);
}

/// Resources of the whole pod that a client does not know of stay.
pub(crate) fn prepare_update(pod: &mut Value, old: &Value, _context: &Context) {
    keep_pod_resources(pod, old);
}

fn keep_pod_resources(pod: &mut Value, old: &Value) {
    if let (None, Some(resources)) = (at(pod, "spec.resources"), at(old, "spec.resources")) {
        set(pod, "spec.resources", resources.clone());
    }
}

/// /status: owners stay, nobody deletes or revives, and what old kubelets drop stays too.
pub(crate) fn prepare_status(pod: &mut Value, old: &Value, _context: &Context) {
    for key in ["ownerReferences", "deletionTimestamp"] {
        let metadata = ensure_map(pod, "metadata");
        match old.get("metadata").and_then(|m| m.get(key)) {
            Some(value) => metadata.insert(key.to_owned(), value.clone()),
            None => metadata.remove(key),
        };
    }
    for path in [
        "status.qosClass",
        "status.resourceClaimStatuses",
        "status.extendedResourceClaimStatus",
        "status.nodeAllocatableResourceClaimStatuses",
        "status.observedGeneration",
    ] {
        let absent = at(pod, path).is_none_or(|v| v == "" || v == 0);
        if let (true, Some(value)) = (absent, at(old, path)) {
            set(pod, path, value.clone());
        }
    }
    keep_condition_generations(pod, old);
}

/// Conditions written without an observed generation keep the one they had, by type and order.
fn keep_condition_generations(pod: &mut Value, old: &Value) {
    let mut before: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for condition in items(old, "status.conditions").iter().rev() {
        before.entry(text(condition, "type")).or_default().push(int(condition, "observedGeneration").unwrap_or(0));
    }
    for condition in items_mut(pod, "status.conditions") {
        let known = before.get_mut(text(condition, "type")).and_then(Vec::pop).unwrap_or(0);
        if int(condition, "observedGeneration").unwrap_or(0) == 0 && known != 0 {
            set(condition, "observedGeneration", known);
        }
    }
}

/// /ephemeralcontainers changes that list only.
pub(crate) fn prepare_ephemeral(pod: &mut Value, old: &Value, _context: &Context) {
    let list = remove(pod, "spec.ephemeralContainers");
    fix_metadata(pod, old);
    keep(pod, old, "spec");
    keep(pod, old, "status");
    match list {
        Some(list) => set(pod, "spec.ephemeralContainers", list),
        None => drop(remove(pod, "spec.ephemeralContainers")),
    }
}

/// /resize changes resources and resize policies of the same containers only; other sets of containers are left for
/// validation to refuse.
pub(crate) fn prepare_resize(pod: &mut Value, old: &Value, _context: &Context) {
    const LISTS: [&str; 2] = ["spec.containers", "spec.initContainers"];
    let names = |pod: &Value, list: &str| -> Vec<String> {
        items(pod, list).iter().map(|c| text(c, "name").to_owned()).collect()
    };
    if LISTS.iter().all(|list| names(pod, list) == names(old, list)) {
        let wanted = pod.clone();
        fix_metadata(pod, old);
        keep(pod, old, "spec");
        keep(pod, old, "status");
        for list in LISTS {
            for (container, want) in items_mut(pod, list).zip(items(&wanted, list)) {
                for key in ["resources", "resizePolicy"] {
                    keep(container, want, key);
                }
            }
        }
        match at(&wanted, "spec.resources") {
            Some(resources) => set(pod, "spec.resources", resources.clone()),
            None => drop(remove(pod, "spec.resources")),
        }
    }
    keep_pod_resources(pod, old);
    if at(pod, "spec.resources").is_some() {
        pod_level_resources(pod);
    }
}

/// Fields of features that are off by default are not kept.
fn drop_disabled(pod: &mut Value) {
    remove(pod, "spec.schedulingGroup");
}

/// Label keys of pod affinity terms and spread constraints become expressions of their selectors.
fn label_keys(pod: &mut Value) {
    let labels = map(pod, "metadata.labels").cloned().unwrap_or_default();
    for side in ["podAffinity", "podAntiAffinity"] {
        let side = format!("spec.affinity.{side}");
        for term in items_mut(pod, &format!("{side}.requiredDuringSchedulingIgnoredDuringExecution")) {
            add_expressions(term, "matchLabelKeys", "In", &labels);
            add_expressions(term, "mismatchLabelKeys", "NotIn", &labels);
        }
        for term in items_mut(pod, &format!("{side}.preferredDuringSchedulingIgnoredDuringExecution")) {
            if let Some(term) = term.get_mut("podAffinityTerm") {
                add_expressions(term, "matchLabelKeys", "In", &labels);
                add_expressions(term, "mismatchLabelKeys", "NotIn", &labels);
            }
        }
    }
    for constraint in items_mut(pod, "spec.topologySpreadConstraints") {
        add_expressions(constraint, "matchLabelKeys", "In", &labels);
    }
}

fn add_expressions(term: &mut Value, keys: &str, operator: &str, labels: &Map<String, Value>) {
    if at(term, "labelSelector").is_none() {
        return;
    }
    let known = items(term, keys).iter().filter_map(Value::as_str).filter_map(|key| Some((key, labels.get(key)?)));
    let added: Vec<Value> =
        known.map(|(key, value)| json!({"key": key, "operator": operator, "values": [value]})).collect();
    if !added.is_empty() {
        let list = ensure_map(term, "labelSelector").entry("matchExpressions").or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.extend(added);
        }
    }
}

/// Resources that may be given for a whole pod.
fn pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// A pod that says something of its resources as a whole gets the rest from its containers, then from its limits.
fn pod_level_resources(pod: &mut Value) {
    let has = |pod: &Value, key: &str| map(pod, key).is_some_and(|m| !m.is_empty());
    if !has(pod, "spec.resources.limits") && !has(pod, "spec.resources.requests") {
        return;
    }
    let huge = |name: &str| name.starts_with("hugepages-");
    for (name, amount) in aggregate(at(pod, "spec").unwrap_or(&Value::Null), "limits") {
        let requested = map(pod, "spec.resources.requests").is_some_and(|r| r.contains_key(&name));
        if huge(&name) && !requested {
            ensure_map(pod, "spec.resources.limits").entry(name).or_insert(amount.to_string().into());
        }
    }
    if !has(pod, "spec.resources.limits") {
        return;
    }
    let from_containers = aggregate(at(pod, "spec").unwrap_or(&Value::Null), "requests");
    let limits = map(pod, "spec.resources.limits").cloned().unwrap_or_default();
    let requests = ensure_map(pod, "spec.resources.requests");
    for (name, amount) in from_containers {
        if pod_level(&name) && !huge(&name) {
            requests.entry(name).or_insert(amount.to_string().into());
        }
    }
    for (name, amount) in limits {
        if pod_level(&name) {
            requests.entry(name).or_insert(amount);
        }
    }
    if requests.is_empty() {
        remove(pod, "spec.resources.requests");
    }
}

/// What all containers need at once: the sum of containers and sidecars, or an init container with the sidecars
/// started before it, whichever is more.
pub(crate) fn aggregate(spec: &Value, list: &str) -> BTreeMap<String, Quantity> {
    let path = format!("resources.{list}");
    let amounts = |container: &Value| -> BTreeMap<String, Quantity> {
        let entries = map(container, &path).into_iter().flatten();
        entries.filter_map(|(name, v)| Some((name.clone(), v.as_str()?.parse().ok()?))).collect()
    };
    let add = |sum: &mut BTreeMap<String, Quantity>, more: &BTreeMap<String, Quantity>| {
        for (name, amount) in more {
            sum.entry(name.clone()).and_modify(|s| *s = s.plus(*amount)).or_insert(*amount);
        }
    };
    let mut total = BTreeMap::new();
    for container in items(spec, "containers") {
        add(&mut total, &amounts(container));
    }
    let (mut sidecars, mut peak) = (BTreeMap::new(), BTreeMap::<String, Quantity>::new());
    for container in items(spec, "initContainers") {
        let own = amounts(container);
        let mut at_once = sidecars.clone();
        add(&mut at_once, &own);
        if text(container, "restartPolicy") == "Always" {
            add(&mut total, &own);
            sidecars = at_once.clone();
        }
        for (name, amount) in at_once {
            let slot = peak.entry(name).or_insert(amount);
            *slot = (*slot).max(amount);
        }
    }
    for (name, amount) in peak {
        let slot = total.entry(name).or_insert(amount);
        *slot = (*slot).max(amount);
    }
    total
}

/// What a pod takes of a node: its containers, what is said for the pod as a whole instead, and its overhead.
pub(crate) fn whole(spec: &Value, list: &str) -> BTreeMap<String, Quantity> {
    let amounts = |path: &str| -> Vec<(String, Quantity)> {
        let entries = map(spec, path).into_iter().flatten();
        entries.filter_map(|(name, v)| Some((name.clone(), v.as_str()?.parse().ok()?))).collect()
    };
    let mut total = aggregate(spec, list);
    total.extend(amounts(&format!("resources.{list}")).into_iter().filter(|(name, _)| pod_level(name)));
    for (name, more) in amounts("overhead") {
        match total.get_mut(&name) {
            Some(amount) => *amount = amount.plus(more),
            // No limit stays none.
            None if list == "requests" => drop(total.insert(name, more)),
            None => {}
        }
    }
    total
}

/// Guaranteed when CPU and memory of everything are limited and requested alike, best effort when nothing is said.
pub(crate) fn quality_of_service(pod: &Value) -> &'static str {
    let of_pod = at(pod, "spec.resources").filter(|r| {
        ["limits", "requests"].iter().any(|l| map(r, l).is_some_and(|m| m.keys().any(|name| pod_level(name))))
    });
    if let Some(resources) = of_pod {
        return class_of(resources);
    }
    let containers = items(pod, "spec.initContainers").iter().chain(items(pod, "spec.containers"));
    let mut classes = containers.map(|c| at(c, "resources").map_or("BestEffort", class_of));
    let first = classes.next().unwrap_or("BestEffort");
    if classes.all(|class| class == first) { first } else { "Burstable" }
}

fn class_of(resources: &Value) -> &'static str {
    let amounts = |list: &str| -> BTreeMap<&str, Quantity> {
        let entries = map(resources, list).into_iter().flatten();
        let known = entries.filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"));
        let parsed = known.filter_map(|(name, v)| Some((name.as_str(), v.as_str()?.parse::<Quantity>().ok()?)));
        parsed.filter(|(_, amount)| amount.sign() > 0).collect()
    };
    let (limits, requests) = (amounts("limits"), amounts("requests"));
    if limits.is_empty() && requests.is_empty() {
        "BestEffort"
    } else if limits.len() == 2 && requests.iter().all(|(name, amount)| limits.get(name) == Some(amount)) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_from_resources() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(quality_of_service(&pod(json!({}))), "BestEffort");
        assert_eq!(quality_of_service(&pod(json!({"limits": both, "requests": both}))), "Guaranteed");
        assert_eq!(quality_of_service(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let mut two = pod(json!({"limits": both, "requests": both}));
        two["spec"]["containers"].as_array_mut().unwrap().push(json!({}));
        assert_eq!(quality_of_service(&two), "Burstable");
    }

    #[test]
    fn a_status_update_cannot_lose_what_old_kubelets_do_not_know() {
        let kind = crate::by_kind("", "v1", "Pod").unwrap();
        let old = json!({"metadata": {"name": "a", "ownerReferences": [{"uid": "u"}]}, "spec": {},
            "status": {"qosClass": "Burstable", "observedGeneration": 3,
                "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 3}]}});
        let mut new =
            json!({"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        let context = Context::at("2026-01-01T00:00:00Z".parse().unwrap());
        kind.prepare_subresource(kind.subresource("status").unwrap(), &mut new, &old, &context);
        assert_eq!(new["status"]["qosClass"], "Burstable");
        assert_eq!(new["status"]["conditions"][0]["observedGeneration"], 3);
        assert_eq!(new["metadata"]["ownerReferences"][0]["uid"], "u");
    }
}
