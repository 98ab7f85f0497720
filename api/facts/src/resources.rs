//! What pods ask for and nodes have, and the one formula for a pod as a whole.
//!
//! Init containers run one after the other before the regular ones; a sidecar (an init container that restarts always)
//! starts in its turn and stays. A node must hold the largest moment:
//!
//! ```text
//!   initContainers: setup 500m, proxy 100m (Always), migrate 300m      containers: web 200m, log 50m
//!
//!   moment      setup    proxy    migrate      then all run
//!   setup       500                                              500
//!   proxy                100                                     100
//!   migrate              100      300                            400
//!   running              100                   200 + 50          350
//!                                                     the largest: 500m
//! ```
//!
//! What `spec.resources` says of the pod as a whole (CPU, memory, huge pages) takes the place of that; the overhead of
//! its runtime class comes on top. Callers: scheduler (requests, also with stand-ins for what wasn't said), kubelet
//! (requests to admit by, limits for the pod's control group).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Quantities by the name of the resource, as the API has them.
pub type List = BTreeMap<String, Quantity>;

/// In cores, or thousandths of one (`100m`).
pub const CPU: &str = "cpu";
/// In bytes.
pub const MEMORY: &str = "memory";
/// In bytes: what containers write, their logs, and `emptyDir` volumes on disk.
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
/// How many pods a node takes.
pub const PODS: &str = "pods";

/// Amounts by kind: CPU in thousandths, everything else in whole units (bytes, pieces), each rounded up. Extended
/// resources are few: a vector beats a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Pods.
    pub pods: i64,
    /// Huge pages (bytes), attachable volumes and devices (pieces), by name, in the order of their first mention.
    pub extended: Vec<(String, i64)>,
}

impl Resources {
    /// The amounts of a list of the API; nothing for no list.
    pub fn of(list: Option<&List>) -> Resources {
        let mut resources = Resources::default();
        for (name, quantity) in list.into_iter().flatten() {
            resources.set(name, quantity);
        }
        resources
    }

    fn set(&mut self, name: &str, quantity: &Quantity) {
        let amount = if name == CPU { milli(quantity) } else { whole(quantity) };
        *self.amount(name) = amount;
    }

    fn amount(&mut self, name: &str) -> &mut i64 {
        match name {
            CPU => &mut self.milli_cpu,
            MEMORY => &mut self.memory,
            EPHEMERAL_STORAGE => &mut self.ephemeral_storage,
            PODS => &mut self.pods,
            _ => {
                let at = self.extended.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                    self.extended.push((name.to_owned(), 0));
                    self.extended.len() - 1
                });
                &mut self.extended[at].1
            }
        }
    }

    /// The amount of a resource that has no field of its own; 0 where it isn't named.
    pub fn extended(&self, name: &str) -> i64 {
        self.extended.iter().find(|(n, _)| n == name).map_or(0, |(_, v)| *v)
    }

    /// The amount of any resource by its name.
    pub fn get(&self, name: &str) -> i64 {
        self.iter().find(|(known, _)| *known == name).map_or(0, |(_, amount)| amount)
    }

    /// Every amount with its name, in the order in which people are told of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let plain = [
            (CPU, self.milli_cpu),
            (MEMORY, self.memory),
            (EPHEMERAL_STORAGE, self.ephemeral_storage),
            (PODS, self.pods),
        ];
        plain.into_iter().chain(self.extended.iter().map(|(name, amount)| (name.as_str(), *amount)))
    }

    /// Adds each amount.
    pub fn add(&mut self, other: &Resources) {
        self.combine(other, |a, b| a + b);
    }

    /// Takes each amount away; it may go below zero. Extended resources of which nothing is left are forgotten.
    pub fn subtract(&mut self, other: &Resources) {
        self.combine(other, |a, b| a - b);
        self.extended.retain(|(_, v)| *v != 0);
    }

    /// The larger of each amount.
    pub fn raise(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, f: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = f(self.milli_cpu, other.milli_cpu);
        self.memory = f(self.memory, other.memory);
        self.ephemeral_storage = f(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = f(self.pods, other.pods);
        for (name, value) in &other.extended {
            match self.extended.iter_mut().find(|(n, _)| n == name) {
                Some((_, mine)) => *mine = f(*mine, *value),
                None => self.extended.push((name.clone(), f(0, *value))),
            }
        }
    }
}

/// What a container asks for, and nothing more.
pub fn container_requests(container: &Container) -> Resources {
    Resources::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

/// The largest moment of a pod's containers (see the head), each counting as `of` says.
pub fn of_containers(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    spec.containers.iter().for_each(|c| running.add(&of(c)));
    let (mut sidecars, mut largest) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut moment = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&moment);
            largest.raise(&sidecars);
        } else {
            moment.add(&sidecars);
            largest.raise(&moment);
        }
    }
    running.add(&sidecars);
    running.raise(&largest);
    running
}

/// What the node must hold for the pod. `of` is what a container counts as: [`container_requests`], or with stand-ins.
pub fn pod_requests(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut sum = of_containers(spec, of);
    whole_pod(&mut sum, spec.resources.as_ref().and_then(|r| r.requests.as_ref()));
    sum.add(&Resources::of(spec.overhead.as_ref()));
    sum
}

/// What the pod may use; 0 is no limit. Where one container has no limit, the containers together have none; overhead
/// is added only to a limit that there is.
pub fn pod_limits(spec: &PodSpec) -> Resources {
    let limits = |c: &Container| Resources::of(c.resources.as_ref().and_then(|r| r.limits.as_ref()));
    let mut sum = of_containers(spec, limits);
    let all = || spec.init_containers.iter().flatten().chain(&spec.containers).map(limits);
    if all().any(|c| c.milli_cpu == 0) {
        sum.milli_cpu = 0;
    }
    if all().any(|c| c.memory == 0) {
        sum.memory = 0;
    }
    whole_pod(&mut sum, spec.resources.as_ref().and_then(|r| r.limits.as_ref()));
    for (name, overhead) in Resources::of(spec.overhead.as_ref()).iter().filter(|(_, overhead)| *overhead > 0) {
        let limit = sum.amount(name);
        *limit += if *limit > 0 { overhead } else { 0 };
    }
    sum
}

/// Pod-level resources: what they say counts, also where it is 0, and only of what a pod can share.
fn whole_pod(sum: &mut Resources, list: Option<&List>) {
    let shared = |name: &str| name == CPU || name == MEMORY || name.starts_with("hugepages-");
    for (name, quantity) in list.into_iter().flatten().filter(|(name, _)| shared(name)) {
        sum.set(name, quantity);
    }
}

/// Requests or limits of a container or pod.
pub fn list(resources: Option<&ResourceRequirements>, limits: bool) -> Option<&List> {
    let resources = resources?;
    if limits { resources.limits.as_ref() } else { resources.requests.as_ref() }
}

/// What is no quantity counts as nothing: the API has checked it.
fn parse(quantity: &Quantity) -> meta::Quantity {
    quantity.0.parse().unwrap_or_default()
}

/// Thousandths, rounded up.
pub fn milli(quantity: &Quantity) -> i64 {
    parse(quantity).milli()
}

/// Whole units, rounded up.
pub fn whole(quantity: &Quantity) -> i64 {
    parse(quantity).value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn container(requests: &[(&str, &str)], always: bool) -> Value {
        let requests: Value =
            requests.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect::<serde_json::Map<_, _>>().into();
        let policy = if always { json!("Always") } else { json!(null) };
        json!({"name": "c", "restartPolicy": policy, "resources": {"requests": requests, "limits": requests}})
    }

    fn spec(init: &[Value], containers: &[Value], more: Value) -> PodSpec {
        let mut spec = more;
        spec["initContainers"] = json!(init);
        spec["containers"] = json!(containers);
        serde_json::from_value(spec).unwrap()
    }

    fn cpu(milli: &str) -> Value {
        container(&[("cpu", milli)], false)
    }

    fn sidecar(milli: &str) -> Value {
        container(&[("cpu", milli)], true)
    }

    /// Upstream's shapes of TestPodRequestsAndLimits, in CPU.
    #[test]
    fn the_largest_moment_counts() {
        for (init, containers, expected, why) in [
            (vec![], vec![cpu("1"), cpu("2")], 3000, "containers run together"),
            (vec![cpu("1")], vec![cpu("2")], 2000, "an init container that needs less"),
            (vec![cpu("4"), cpu("3")], vec![cpu("1")], 4000, "the largest of the init containers"),
            (vec![sidecar("1")], vec![cpu("2")], 3000, "a sidecar stays"),
            (vec![sidecar("1"), sidecar("2"), sidecar("3")], vec![cpu("1")], 7000, "all sidecars stay"),
            (vec![sidecar("1"), cpu("5")], vec![cpu("1")], 6000, "an init container beside an earlier sidecar"),
            (vec![cpu("5"), sidecar("1")], vec![cpu("1")], 5000, "and before a later one"),
            (vec![sidecar("3"), cpu("5"), sidecar("2"), cpu("4")], vec![cpu("1")], 9000, "each beside those before it"),
            (vec![cpu("500m"), sidecar("100m"), cpu("300m")], vec![cpu("200m"), cpu("50m")], 500, "the head's example"),
        ] {
            let spec = spec(&init, &containers, json!({}));
            assert_eq!(pod_requests(&spec, container_requests).milli_cpu, expected, "{why}");
            assert_eq!(pod_limits(&spec).milli_cpu, expected, "{why}");
        }
    }

    #[test]
    fn each_resource_has_its_own_largest_moment() {
        let init = [container(&[("cpu", "2"), ("memory", "1Gi")], false)];
        let all = [container(&[("cpu", "1"), ("memory", "2Gi"), ("example.com/gpu", "1")], false)];
        let sum = pod_requests(&spec(&init, &all, json!({})), container_requests);
        assert_eq!((sum.milli_cpu, sum.memory, sum.extended("example.com/gpu")), (2000, 2 << 30, 1));
    }

    #[test]
    fn the_pod_as_a_whole_and_its_overhead() {
        let more = json!({
            "resources": {"requests": {"cpu": "6", "hugepages-2Mi": "4Mi"}, "limits": {"memory": "1Gi"}},
            "overhead": {"cpu": "250m", "memory": "64Mi"}});
        let spec = spec(&[], &[container(&[("cpu", "1"), ("memory", "128Mi"), ("hugepages-2Mi", "2Mi")], false)], more);
        let sum = pod_requests(&spec, container_requests);
        assert_eq!((sum.milli_cpu, sum.memory, sum.extended("hugepages-2Mi")), (6250, 192 << 20, 4 << 20));
        let limits = pod_limits(&spec);
        assert_eq!((limits.milli_cpu, limits.memory), (1250, (1 << 30) + (64 << 20)));
    }

    /// The kubelet once took whatever stood there, the scheduler neither huge pages nor a zero.
    #[test]
    fn pod_level_counts_as_it_is_said_and_only_for_what_a_pod_shares() {
        let more = json!({"resources": {"requests": {"cpu": "0", "example.com/gpu": "3"}}});
        let sum = pod_requests(&spec(&[], &[cpu("1")], more), container_requests);
        assert_eq!((sum.milli_cpu, sum.extended("example.com/gpu")), (0, 0));
    }

    #[test]
    fn a_limit_that_one_container_lacks_is_no_limit() {
        let more = json!({"overhead": {"memory": "64Mi", "cpu": "1"}});
        let one = container(&[("memory", "64Mi"), ("cpu", "1")], false);
        let limits = pod_limits(&spec(&[], &[one.clone(), container(&[("cpu", "1")], false)], more.clone()));
        assert_eq!((limits.milli_cpu, limits.memory), (3000, 0), "no overhead of no limit either");
        let zero = container(&[("memory", "0"), ("cpu", "1")], false);
        assert_eq!(pod_limits(&spec(&[], &[one, zero], more)).memory, 0, "zero is no limit");
    }

    #[test]
    fn taking_away_leaves_no_trace() {
        let pod = Resources { milli_cpu: 5, extended: vec![("a/b".into(), 2)], ..Resources::default() };
        let mut node = Resources::default();
        node.add(&pod);
        node.subtract(&pod);
        assert_eq!(node, Resources::default());
    }
}
