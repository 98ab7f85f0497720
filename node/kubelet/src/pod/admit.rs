//! Whether this node takes a pod that was bound to it: upstream's checks, reasons and messages. Pure.

use facts::node_selector::Required;
use facts::ports::{conflict, host_ports};
use facts::resources::Resources;
use facts::taints::{NO_EXECUTE, NO_SCHEDULE, tolerated, untolerated};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use crate::pod::pods;
use crate::pod::quantity;
use crate::pod::resources;
use crate::pod::security;
use crate::pod::verdict::Pressure;
use crate::pod::verdict::Verdict;

const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

/// What the decision is based on.
pub struct Scene<'a> {
    pub node: &'a Node,
    /// Pods that hold resources of the node, without the one in question.
    pub others: &'a [&'a Pod],
    pub unsafe_sysctls: &'a [String],
    pub pressure: Pressure,
    /// The machine is about to stop.
    pub leaving: bool,
}

fn refuse(reason: &str, message: String) -> Verdict {
    Verdict { reason: reason.to_owned(), message, disruption: None }
}

/// `Err` is why the pod fails. The message is the Event's; the status says `Pod was rejected: ` before it.
pub fn admit(pod: &Pod, scene: &Scene<'_>) -> Result<(), Verdict> {
    if scene.leaving {
        return Err(refuse("NodeShutdown", "Pod was rejected as the node is shutting down.".into()));
    }
    pressure(pod, scene)?;
    if let Some(message) = security::forbidden_sysctl(pod, scene.unsafe_sysctls) {
        return Err(refuse("SysctlForbidden", message));
    }
    os(pod, scene.node)?;
    fits(pod, scene)?;
    if !Required::of(pods::spec(pod)).allows(scene.node) {
        let text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(refuse("NodeAffinity", text.into()));
    }
    ports(pod, scene.others)?;
    let taints = scene.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or(&[]);
    let tolerations = pods::spec(pod).tolerations.as_deref().unwrap_or(&[]);
    if !pods::is_static(pod) && untolerated(taints, &[NO_EXECUTE], tolerations).is_some() {
        let text = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        return Err(refuse("TaintToleration", text.into()));
    }
    Ok(())
}

/// A node that defends itself takes critical pods only; short of memory alone, it takes those with requests.
fn pressure(pod: &Pod, scene: &Scene<'_>) -> Result<(), Verdict> {
    let p = scene.pressure;
    if p == Pressure::default() || pods::is_critical(pod) {
        return Ok(());
    }
    if p.memory && !p.disk && !p.pid {
        let taint = Taint { key: MEMORY_PRESSURE.into(), effect: NO_SCHEDULE.into(), ..Taint::default() };
        let tolerations = pods::spec(pod).tolerations.as_deref().unwrap_or_default();
        if resources::qos(pod) != "BestEffort" || tolerated(&taint, tolerations) {
            return Ok(());
        }
    }
    let named = [(p.memory, "MemoryPressure"), (p.disk, "DiskPressure"), (p.pid, "PIDPressure")];
    let names: Vec<&str> = named.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
    Err(refuse("Evicted", format!("The node had condition: [{}]. ", names.join(" "))))
}

fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn os(pod: &Pod, node: &Node) -> Result<(), Verdict> {
    let spec = pods::spec(pod);
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let text = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(refuse("PodOSNotSupported", text.into()));
    }
    let wanted = spec.node_selector.as_ref().and_then(|s| s.get("kubernetes.io/os"));
    if wanted.is_some_and(|w| label(node, "kubernetes.io/os").is_some_and(|have| have != w)) {
        let text = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(refuse("PodOSSelectorNodeLabelDoesNotMatch", text.into()));
    }
    Ok(())
}

fn fits(pod: &Pod, scene: &Scene<'_>) -> Result<(), Verdict> {
    let Some(have) = scene.node.status.as_ref().and_then(|s| s.allocatable.as_ref()) else { return Ok(()) };
    let short = |name: &str, asked: i64, used: i64, capacity: i64| {
        refuse(
            &format!("OutOf{name}"),
            format!("Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"),
        )
    };
    let limit = have.get("pods").map_or(i64::MAX, quantity::value);
    let count = scene.others.len() as i64;
    if count + 1 > limit {
        return Err(short("pods", 1, count, limit));
    }
    let (wanted, capacity) = (resources::requests(pod), Resources::of(Some(have)));
    let mut used = Resources::default();
    scene.others.iter().for_each(|other| used.add(&resources::requests(other)));
    // Extended resources that the node does not know are the scheduler's business.
    for (name, asked) in wanted.iter().filter(|(name, asked)| *asked > 0 && have.contains_key(*name)) {
        let (used, capacity) = (used.get(name), capacity.get(name));
        if asked + used > capacity {
            return Err(short(name, asked, used, capacity));
        }
    }
    Ok(())
}

fn ports(pod: &Pod, others: &[&Pod]) -> Result<(), Verdict> {
    let wanted = host_ports(pods::spec(pod));
    if others.iter().any(|other| conflict(&wanted, &host_ports(pods::spec(other)))) {
        let text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(refuse("NodePorts", text.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn reason(p: &Pod, others: &[&Pod]) -> Option<String> {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux", "zone": "a", "size": "5"}},
            "spec": {"taints": [{"key": "t", "effect": "NoExecute"}]},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}}}))
        .unwrap();
        let scene = Scene { node: &node, others, unsafe_sysctls: &[], pressure: Pressure::default(), leaving: false };
        admit(p, &scene).err().map(|v| v.reason)
    }

    #[test]
    fn each_check_has_its_reason() {
        let ok = json!([{"key": "t", "operator": "Exists"}]);
        let with = |mut spec: Value| {
            spec["tolerations"] = ok.clone();
            spec.as_object_mut().unwrap().entry("containers").or_insert(json!([{"name": "c"}]));
            pod(spec)
        };
        let busy = with(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "600m"}},
            "ports": [{"containerPort": 1, "hostPort": 80}]}]}));
        let cases = [
            (with(json!({})), None),
            (pod(json!({"containers": []})), Some("TaintToleration")),
            (with(json!({"nodeSelector": {"zone": "b"}})), Some("NodeAffinity")),
            (with(json!({"os": {"name": "windows"}})), Some("PodOSNotSupported")),
            (
                with(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]})),
                Some("OutOfcpu"),
            ),
            (
                with(
                    json!({"containers": [{"name": "c", "ports": [{"containerPort": 9, "hostPort": 80, "hostIP": "1.2.3.4"}]}]}),
                ),
                Some("NodePorts"),
            ),
            (
                with(
                    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["4"]}]}]}}}}),
                ),
                None,
            ),
            (
                with(json!({"securityContext": {"sysctls": [{"name": "kernel.x", "value": "1"}]}})),
                Some("SysctlForbidden"),
            ),
        ];
        for (p, want) in cases {
            assert_eq!(reason(&p, &[&busy]).as_deref(), want, "{:?}", p.spec);
        }
        assert_eq!(reason(&busy, &[&busy, &busy]).as_deref(), Some("OutOfpods"));
    }
}
