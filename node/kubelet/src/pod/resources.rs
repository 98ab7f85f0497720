//! What a pod and its containers ask for and may use: QoS class, cgroup values, OOM score. Formulas are upstream's.
//! Pure.

use facts::resources::{List as Amounts, Resources, list as amounts, of_containers, pod_requests};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::pods::{self, ContainerType};
use crate::pod::quantity;

/// Shares below this are refused by the kernel.
pub const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// Quota below this (µs) is refused by the kernel.
const MIN_QUOTA: i64 = 1_000;

/// Request or limit of one container; a missing request is the limit.
pub fn of_container<'a>(container: &'a Container, name: &str, limit: bool) -> Option<&'a Quantity> {
    let r = container.resources.as_ref();
    let own = amounts(r, limit).and_then(|a| a.get(name));
    if limit { own } else { own.or_else(|| amounts(r, true).and_then(|a| a.get(name))) }
}

/// The limit that holds for a container: its own, or else that of the pod as a whole.
pub fn limit_of<'a>(pod: &'a Pod, container: &'a Container, name: &str) -> Option<&'a Quantity> {
    let some = |q: &&Quantity| quantity::milli(q) > 0;
    let whole = || amounts(pods::spec(pod).resources.as_ref(), true).and_then(|a| a.get(name)).filter(some);
    of_container(container, name, true).filter(some).or_else(whole)
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos(pod: &Pod) -> &'static str {
    if let Some(class) = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        return match class {
            "Guaranteed" => "Guaranteed",
            "Burstable" => "Burstable",
            _ => "BestEffort",
        };
    }
    let spec = pods::spec(pod);
    let all: Vec<Option<&ResourceRequirements>> = match &spec.resources {
        Some(resources) => vec![Some(resources)],
        None => pods::init_containers(pod).iter().chain(&spec.containers).map(|c| c.resources.as_ref()).collect(),
    };
    let named = |a: Option<&Amounts>, name: &str| a.and_then(|a| a.get(name)).map(quantity::milli).filter(|v| *v > 0);
    let asks = |r: &Option<&ResourceRequirements>| {
        ["cpu", "memory"].iter().any(|n| named(amounts(*r, false), n).or(named(amounts(*r, true), n)).is_some())
    };
    let guaranteed = |r: &Option<&ResourceRequirements>| {
        ["cpu", "memory"].iter().all(|n| {
            let limit = named(amounts(*r, true), n);
            limit.is_some() && named(amounts(*r, false), n).is_none_or(|request| Some(request) == limit)
        })
    };
    if !all.iter().any(asks) {
        "BestEffort"
    } else if all.iter().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// What a container asks for. A missing request is the limit: a static pod comes from a file as it is, without what the
/// API server would have filled in.
fn container_requests(container: &Container) -> Resources {
    let lists = [true, false].map(|limits| amounts(container.resources.as_ref(), limits));
    let all: Amounts = lists.into_iter().flatten().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    Resources::of(Some(&all))
}

/// What a pod asks for as a whole, with the overhead.
pub fn requests(pod: &Pod) -> Resources {
    pod_requests(pods::spec(pod), container_requests)
}

/// What a pod as a whole is limited to; 0 is no limit.
pub fn limits(pod: &Pod) -> Resources {
    facts::resources::pod_limits(pods::spec(pod))
}

/// cgroup v1 shares of thousandths of a CPU.
pub fn shares(milli_cpu: i64) -> i64 {
    if milli_cpu <= 0 { MIN_SHARES } else { (milli_cpu * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES) }
}

/// CFS quota in µs for a period in µs; 0 is no limit.
pub fn quota(milli_cpu: i64, period: i64) -> i64 {
    if milli_cpu <= 0 { 0 } else { (milli_cpu * period / 1000).max(MIN_QUOTA) }
}

/// cgroup values of a pod or a container. `None` leaves the kernel's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    pub cpu_shares: i64,
    pub cpu_quota: Option<i64>,
    pub cpu_period: i64,
    pub memory: Option<i64>,
}

pub fn pod_limits(pod: &Pod, period: i64) -> Limits {
    let (requests, limits) = (requests(pod), limits(pod));
    Limits {
        cpu_shares: shares(requests.milli_cpu),
        cpu_quota: Some(quota(limits.milli_cpu, period)).filter(|q| *q > 0),
        cpu_period: period,
        memory: Some(limits.memory).filter(|m| *m > 0),
    }
}

/// A missing request is the limit that holds, be it the pod's.
pub fn container_limits(pod: &Pod, container: &Container, period: i64) -> Limits {
    let limit = limit_of(pod, container, "cpu").map(quantity::milli);
    let own = amounts(container.resources.as_ref(), false).and_then(|a| a.get("cpu")).map(quantity::milli);
    Limits {
        cpu_shares: shares(own.or(limit).unwrap_or(0)),
        cpu_quota: limit.map(|l| quota(l, period)).filter(|q| *q > 0),
        cpu_period: period,
        memory: limit_of(pod, container, "memory").map(quantity::value).filter(|m| *m > 0),
    }
}

/// What a container has of the memory that the pod as a whole asks for beyond its containers: an equal share.
fn share_of_rest(pod: &Pod) -> i64 {
    let whole = amounts(pods::spec(pod).resources.as_ref(), false).and_then(|a| a.get("memory"));
    let Some(whole) = whole.map(quantity::value).filter(|m| *m > 0) else { return 0 };
    let named = of_containers(pods::spec(pod), container_requests).memory;
    let count = pods::spec(pod).containers.len() + pods::init_containers(pod).len();
    (whole - named) / (count.max(1) as i64)
}

/// Guaranteed and critical pods are killed last, best-effort ones first, burstable ones by their share of the memory; no
/// sidecar before the regular container that asks for least.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory: u64) -> i64 {
    if pods::is_critical(pod) {
        return -997;
    }
    match qos(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let asks = |c: &Container| of_container(c, "memory", false).map_or(0, quantity::value);
            let sidecar = pods::container(pod, &container.name)
                .is_some_and(|(container_type, _)| container_type == ContainerType::Sidecar);
            let least = pods::spec(pod).containers.iter().map(asks).min().filter(|_| sidecar).unwrap_or(0);
            let request = asks(container).max(least) + share_of_rest(pod);
            let share = 1000 - (1000 * i128::from(request) / i128::from(node_memory.max(1))) as i64;
            share.clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": containers})).unwrap()
    }

    #[test]
    fn qos_follows_requests_and_limits() {
        let cases = [
            (json!([{"name": "a"}]), "BestEffort"),
            (json!([{"name": "a", "resources": {"requests": {"cpu": "1m"}}}]), "Burstable"),
            (json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]), "Guaranteed"),
            (
                json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}, {"name": "b"}]),
                "Burstable",
            ),
            (
                json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]),
                "Burstable",
            ),
        ];
        for (containers, class) in cases {
            assert_eq!(qos(&pod(json!({"containers": containers.clone()}))), class, "{containers}");
        }
    }

    #[test]
    fn the_limits_of_a_pod_hold_for_containers_without_their_own() {
        let p = pod(json!({
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"memory": "48Mi"}},
            "containers": [
                {"name": "none"},
                {"name": "asks", "resources": {"requests": {"cpu": "100m", "memory": "16Mi"}}},
                {"name": "own", "resources": {"limits": {"cpu": "200m", "memory": "32Mi"}}},
                {"name": "zero", "resources": {"limits": {"cpu": "0", "memory": "0"}}}]}));
        let of = |name: &str| container_limits(&p, &pods::container(&p, name).unwrap().1, 100_000);
        let limits = |shares, quota, memory: i64| Limits {
            cpu_shares: shares,
            cpu_quota: Some(quota),
            cpu_period: 100_000,
            memory: Some(memory << 20),
        };
        assert_eq!(of("none"), limits(512, 50_000, 64));
        assert_eq!(of("asks"), limits(102, 50_000, 64));
        assert_eq!(of("own"), limits(204, 20_000, 32));
        assert_eq!(of("zero"), limits(512, 50_000, 64));
        // What 48Mi leaves over the 16Mi and 32Mi of two containers is nothing.
        let score = |p: &Pod, name: &str| oom_score_adj(p, &pods::container(p, name).unwrap().1, 1 << 30);
        assert_eq!((score(&p, "none"), score(&p, "asks"), score(&p, "own")), (999, 985, 969));
        let p = pod(json!({"resources": {"requests": {"memory": "512Mi"}},
            "initContainers": [{"name": "side", "restartPolicy": "Always"}],
            "containers": [{"name": "a", "resources": {"requests": {"memory": "256Mi"}}}]}));
        assert_eq!((score(&p, "a"), score(&p, "side")), (625, 625), "no sidecar goes before who needs it");
    }

    #[test]
    fn a_pod_asks_for_the_larger_of_init_peak_and_sum() {
        let p = pod(json!({
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "i", "resources": {"requests": {"cpu": "500m"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "200m"}, "limits": {"memory": "64Mi"}}},
                           {"name": "b", "resources": {"requests": {"cpu": "100m"}}}],
            "overhead": {"cpu": "10m"}}));
        assert_eq!((requests(&p).milli_cpu, requests(&p).memory), (610, 64 << 20), "the limit of a is its request");
        assert_eq!(limits(&p).memory, 0, "b may use as much memory as it likes");
        assert_eq!((shares(0), shares(500), quota(250, 100_000), quota(1, 100_000)), (2, 512, 25_000, 1_000));
    }
}
