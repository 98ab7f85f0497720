//! ResourceQuotas: what an object counts for, which quotas are about it, and whether one has room for it.
//!
//! Two callers share this: admission, which reserves what a new object counts for ([`reserve`]), and the resourcequota
//! controller, which adds up what there is ([`Tally`]). Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use meta::Quantity;
use serde_json::{Map, Value};

use crate::core::{pod_strategy, resource_quota};
use crate::value::{at, int, items, map, text};

/// Amounts by resource name, as in `spec.hard`.
pub type Amounts = BTreeMap<String, Quantity>;

/// Kinds that are counted under their plain name as well as under `count/<resource>`.
const PLAIN: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];

/// Kinds whose quota depends on what is in them and not only on how many there are.
pub const MEASURED: [&str; 3] = ["pods", "services", "persistentvolumeclaims"];

/// The amounts in a map of quantities at a dotted path.
pub fn amounts(object: &Value, path: &str) -> Amounts {
    let entries = map(object, path).into_iter().flatten();
    entries.filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?))).collect()
}

/// What a pod with this spec takes as a whole, of `requests` or `limits`.
pub fn pod_amounts(spec: &Value, list: &str) -> Amounts {
    pod_strategy::whole(spec, list)
}

/// What `object` of `resource` (`pods`, `deployments.apps`) counts for.
pub fn usage(resource: &str, object: &Value, now: Timestamp) -> Amounts {
    let mut usage = Amounts::from([(format!("count/{resource}"), Quantity::new(1))]);
    match resource {
        "pods" => pod(&mut usage, object, now),
        "services" => service(&mut usage, object),
        "persistentvolumeclaims" => claim(&mut usage, object),
        _ if PLAIN.contains(&resource) => one(&mut usage, resource),
        _ => {}
    }
    usage
}

fn one(usage: &mut Amounts, name: impl Into<String>) {
    usage.insert(name.into(), Quantity::new(1));
}

/// A pod that ended, or should have by now, occupies nothing but its place in the store.
fn pod(usage: &mut Amounts, pod: &Value, now: Timestamp) {
    if matches!(text(pod, "status.phase"), "Failed" | "Succeeded") || ends_at(pod).is_some_and(|end| end < now) {
        return;
    }
    one(usage, "pods");
    let spec = at(pod, "spec").unwrap_or(&Value::Null);
    for (name, amount) in pod_strategy::whole(spec, "requests") {
        let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        usage.insert(format!("requests.{name}"), amount);
        if standard || name.starts_with("hugepages-") {
            usage.insert(name, amount);
        }
    }
    for (name, amount) in pod_strategy::whole(spec, "limits") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), amount);
        }
    }
}

/// When a pod that is being deleted counts as gone although its kubelet has not said so.
pub fn ends_at(pod: &Value) -> Option<Timestamp> {
    let deleted: Timestamp = text(pod, "metadata.deletionTimestamp").parse().ok()?;
    let grace = int(pod, "metadata.deletionGracePeriodSeconds")?;
    deleted.checked_add(SignedDuration::from_secs(grace)).ok()
}

fn service(usage: &mut Amounts, service: &Value) {
    one(usage, "services");
    let ports = items(service, "spec.ports");
    let node_ports = match text(service, "spec.type") {
        "NodePort" => ports.len(),
        "LoadBalancer" if at(service, "spec.allocateLoadBalancerNodePorts").is_some_and(|v| *v == false) => {
            ports.iter().filter(|p| int(p, "nodePort").unwrap_or(0) != 0).count()
        }
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    if text(service, "spec.type") == "LoadBalancer" {
        one(usage, "services.loadbalancers");
    }
    usage.insert("services.nodeports".to_owned(), Quantity::new(node_ports as i64));
}

fn claim(usage: &mut Amounts, claim: &Value) {
    let class = match text(claim, "spec.storageClassName") {
        "" => map(claim, "metadata.annotations")
            .and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"))
            .and_then(Value::as_str)
            .unwrap_or(""),
        class => class,
    };
    let of_class = |name: &str| format!("{class}.storageclass.storage.k8s.io/{name}");
    one(usage, "persistentvolumeclaims");
    let size = |path: &str| text(claim, path).parse::<Quantity>().ok();
    // An expansion that failed half-way holds what it reached.
    let held = size("spec.resources.requests.storage").max(size("status.allocatedResources.storage"));
    if let Some(size) = held {
        usage.insert("requests.storage".to_owned(), size);
    }
    if !class.is_empty() {
        one(usage, of_class("persistentvolumeclaims"));
        if let Some(size) = held {
            usage.insert(of_class("requests.storage"), size);
        }
    }
}

/// Whether the scopes of `quota` take in `object`.
pub fn covers(quota: &Value, resource: &str, object: &Value) -> bool {
    let plain = items(quota, "spec.scopes").iter().filter_map(Value::as_str).map(|scope| (scope, "Exists", &[][..]));
    let selected = items(quota, "spec.scopeSelector.matchExpressions").iter();
    let selected = selected.map(|e| (text(e, "scopeName"), text(e, "operator"), items(e, "values")));
    plain.chain(selected).all(|(scope, operator, values)| match (resource, scope) {
        ("pods", "PriorityClass") => named(text(object, "spec.priorityClassName"), operator, values),
        ("pods", scope) => pod_is(scope, object),
        ("persistentvolumeclaims", "VolumeAttributesClass") => {
            named(text(object, "spec.volumeAttributesClassName"), operator, values)
        }
        _ => false,
    })
}

fn pod_is(scope: &str, pod: &Value) -> bool {
    let terminating = int(pod, "spec.activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0);
    let best_effort = || pod_strategy::quality_of_service(pod) == "BestEffort";
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// Whether the name of a class, empty for none, is what a scope selector asks for.
fn named(name: &str, operator: &str, values: &[Value]) -> bool {
    let listed = values.iter().any(|v| v.as_str() == Some(name));
    match operator {
        "Exists" => !name.is_empty(),
        "DoesNotExist" => name.is_empty(),
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| !items(term, "namespaces").is_empty() || at(term, "namespaceSelector").is_some();
    ["podAffinity", "podAntiAffinity"].iter().filter_map(|side| at(pod, &format!("spec.affinity.{side}"))).any(|side| {
        items(side, "requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || items(side, "preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .filter_map(|weighted| at(weighted, "podAffinityTerm"))
                .any(crosses)
    })
}

/// An object about to be written.
pub struct Change<'a> {
    /// `pods`, `deployments.apps`.
    pub resource: &'a str,
    /// As it would be stored.
    pub object: &'a Value,
    /// The object before, on updates.
    pub old: Option<&'a Value>,
    /// What terminating pods are judged by.
    pub now: Timestamp,
}

/// `status.used` of `quota` with the change counted in, if it counts there; or why there is no room for it.
pub fn reserve(quota: &Value, change: &Change<'_>) -> Result<Option<Amounts>, String> {
    let hard = amounts(quota, "status.hard");
    let mut requested = usage(change.resource, change.object, change.now);
    let concerned: Vec<&String> = hard.keys().filter(|name| counts_in(name, change.resource)).collect();
    if concerned.is_empty() || !covers(quota, change.resource, change.object) {
        return Ok(None);
    }
    let name = text(quota, "metadata.name");
    if change.resource == "pods"
        && let Some(missing) = unspecified(&concerned, change.object)
    {
        return Err(format!("failed quota: {name}: must specify {missing}"));
    }
    let mut used = amounts(quota, "status.used");
    if concerned.iter().any(|resource| !used.contains_key(*resource)) {
        let resources = concerned.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(",");
        return Err(format!("status unknown for quota: {name}, resources: {resources}"));
    }
    for (name, before) in change.old.map(|old| usage(change.resource, old, change.now)).into_iter().flatten() {
        let now = requested.entry(name).or_insert_with(|| Quantity::new(0));
        *now = now.minus(before);
    }
    requested.retain(|name, amount| hard.contains_key(name) && !amount.is_zero());
    if requested.is_empty() {
        return Ok(None);
    }
    let after = |name: &str, amount: Quantity| used[name].plus(amount);
    let exceeded: Vec<&str> = requested
        .iter()
        .filter(|(name, amount)| amount.sign() > 0 && after(name, **amount) > hard[*name])
        .map(|(name, _)| name.as_str())
        .collect();
    if !exceeded.is_empty() {
        let list = |of: &Amounts| exceeded.iter().map(|n| format!("{n}={}", of[*n])).collect::<Vec<_>>().join(",");
        let (requested, used, limited) = (list(&requested), list(&used), list(&hard));
        return Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"));
    }
    for (name, amount) in requested {
        used.entry(name).and_modify(|u| *u = u.plus(amount));
    }
    Ok(Some(used))
}

/// Whether a resource name in a quota is about objects of `resource`.
pub(crate) fn counts_in(name: &str, resource: &str) -> bool {
    if name.strip_prefix("count/") == Some(resource) {
        return true;
    }
    match resource {
        "pods" => {
            name == "pods"
                || resource_quota::COMPUTE.contains(&name)
                || name.starts_with("hugepages-")
                || (name.starts_with("requests.") && name != "requests.storage")
        }
        "services" => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        "persistentvolumeclaims" => {
            matches!(name, "persistentvolumeclaims" | "requests.storage")
                || name.contains(".storageclass.storage.k8s.io/")
        }
        _ => name == resource && PLAIN.contains(&resource),
    }
}

/// The resource that a name in a quota is about: `deployments.apps` for `count/deployments.apps`.
pub(crate) fn counted_resource(name: &str) -> &str {
    match name.strip_prefix("count/") {
        Some(resource) => resource,
        None if PLAIN.contains(&name) => name,
        None => MEASURED.into_iter().find(|resource| counts_in(name, resource)).unwrap_or(""),
    }
}

/// Requests and limits that a quota counts and that some container leaves open: `limits.cpu for: a,b; memory for: a`.
fn unspecified(counted: &[&String], pod: &Value) -> Option<String> {
    const NEEDED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    let containers = || items(pod, "spec.containers").iter().chain(items(pod, "spec.initContainers"));
    let mut missing = Vec::new();
    for name in counted.iter().map(|name| name.as_str()).filter(|name| NEEDED.contains(name)) {
        let (list, resource) = match name.split_once('.') {
            Some((list, resource)) => (list, resource),
            None => ("requests", name),
        };
        let gives = |of: &Value| map(of, &format!("resources.{list}")).is_some_and(|m| m.contains_key(resource));
        if at(pod, "spec").is_some_and(gives) {
            continue;
        }
        let mut without: Vec<&str> = containers().filter(|c| !gives(c)).map(|c| text(c, "name")).collect();
        without.sort_unstable();
        if !without.is_empty() {
            missing.push(format!("{name} for: {}", without.join(",")));
        }
    }
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// What a quota should say is used: objects are counted in one by one.
pub struct Tally<'a> {
    quota: &'a Value,
    now: Timestamp,
    used: Amounts,
}

impl<'a> Tally<'a> {
    /// Nothing counted yet; `now` is what terminating pods are judged by.
    pub fn new(quota: &'a Value, now: Timestamp) -> Tally<'a> {
        let names = map(quota, "spec.hard").into_iter().flatten().map(|(name, _)| name.clone());
        let used = names.filter(|name| !counted_resource(name).is_empty()).map(|name| (name, Quantity::new(0)));
        Tally { quota, now, used: used.collect() }
    }

    /// The resources whose objects are to be counted in.
    pub fn resources(&self) -> Vec<String> {
        let mut resources: Vec<String> = self.used.keys().map(|name| counted_resource(name).to_owned()).collect();
        resources.sort_unstable();
        resources.dedup();
        resources
    }

    /// Counts one object in.
    pub fn add(&mut self, resource: &str, object: &Value) {
        if covers(self.quota, resource, object) {
            for (name, amount) in usage(resource, object, self.now) {
                self.used.entry(name).and_modify(|sum| *sum = sum.plus(amount));
            }
        }
    }

    /// Counts in objects of which only the number matters.
    pub fn add_number(&mut self, resource: &str, number: usize) {
        if covers(self.quota, resource, &Value::Null) {
            for name in [format!("count/{resource}"), resource.to_owned()] {
                if counts_in(&name, resource) {
                    self.used.entry(name).and_modify(|sum| *sum = sum.plus(Quantity::new(number as i64)));
                }
            }
        }
    }

    /// A name that cannot be counted is left out of `status.used`.
    pub fn forget(&mut self, resource: &str) {
        self.used.retain(|name, _| counted_resource(name) != resource);
    }

    /// The status as it should be.
    pub fn status(self) -> Value {
        let hard = map(self.quota, "spec.hard").cloned().unwrap_or_default();
        serde_json::json!({"hard": hard, "used": written(&self.used)})
    }
}

/// Amounts as an object holds them.
pub fn written(amounts: &Amounts) -> Map<String, Value> {
    amounts.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect()
}

#[cfg(test)]
mod tests;
