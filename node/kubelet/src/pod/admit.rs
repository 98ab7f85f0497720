//! Whether this node takes a pod that was bound to it: upstream's checks, reasons and messages. Pure.

use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Pod, Taint, Toleration};

use crate::pod::pods;
use crate::pod::quantity;
use crate::pod::resources;
use crate::pod::security;
use crate::pod::verdict::Pressure;
use crate::pod::verdict::Verdict;

/// What the decision is based on.
pub struct Scene<'a> {
    pub node: &'a Node,
    /// Pods that hold resources of the node, without the one in question.
    pub others: &'a [&'a Pod],
    pub unsafe_sysctls: &'a [String],
    pub pressure: Pressure,
}

fn refuse(reason: &str, message: String) -> Verdict {
    Verdict { reason: reason.to_owned(), message, disruption: None }
}

/// `Err` is why the pod fails. The message is the Event's; the status says `Pod was rejected: ` before it.
pub fn admit(pod: &Pod, scene: &Scene<'_>) -> Result<(), Verdict> {
    pressure(pod, scene)?;
    if let Some(message) = security::forbidden_sysctl(pod, scene.unsafe_sysctls) {
        return Err(refuse("SysctlForbidden", message));
    }
    os(pod, scene.node)?;
    fits(pod, scene)?;
    if !matches_node(pod, scene.node) {
        let text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(refuse("NodeAffinity", text.into()));
    }
    ports(pod, scene.others)?;
    let taints = scene.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or(&[]);
    let tolerations = pods::spec(pod).tolerations.as_deref().unwrap_or(&[]);
    let bad = |t: &&Taint| t.effect == "NoExecute" && !tolerations.iter().any(|x| tolerates(x, t));
    if !pods::is_static(pod) && taints.iter().any(|t| bad(&t)) {
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
        let tolerated = pods::spec(pod).tolerations.iter().flatten().any(|t| {
            tolerates(
                t,
                &Taint {
                    key: "node.kubernetes.io/memory-pressure".into(),
                    effect: "NoSchedule".into(),
                    ..Taint::default()
                },
            )
        });
        if resources::qos(pod) != "BestEffort" || tolerated {
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
    for (name, asked) in resources::of_pod(pod, false).into_iter().filter(|(_, asked)| *asked > 0) {
        // Extended resources that the node does not know are the scheduler's business.
        let Some(capacity) = have.get(&name) else { continue };
        let used: i64 = scene.others.iter().map(|p| resources::of_pod(p, false).get(&name).copied().unwrap_or(0)).sum();
        if asked + used > quantity::milli(capacity) {
            let unit = if name == "cpu" { 1 } else { 1000 };
            return Err(short(&name, asked / unit, used / unit, quantity::milli(capacity) / unit));
        }
    }
    Ok(())
}

fn ports(pod: &Pod, others: &[&Pod]) -> Result<(), Verdict> {
    let wanted = host_ports(pod);
    let taken: Vec<_> = others.iter().flat_map(|p| host_ports(p)).collect();
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    let clash = |a: &(String, String, i32), b: &(String, String, i32)| {
        a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || any(&a.0) || any(&b.0))
    };
    if wanted.iter().any(|w| taken.iter().any(|t| clash(w, t))) {
        let text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(refuse("NodePorts", text.into()));
    }
    Ok(())
}

fn host_ports(pod: &Pod) -> Vec<(String, String, i32)> {
    let ports = pods::containers(pod).into_iter().flat_map(|(_, c)| c.ports.unwrap_or_default());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|h| *h > 0)?;
            Some((p.host_ip.unwrap_or_default(), p.protocol.unwrap_or_else(|| "TCP".into()), port))
        })
        .collect()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let exists = toleration.operator.as_deref() == Some("Exists");
    if key.is_empty() {
        return exists;
    }
    key == taint.key && (exists || text(&toleration.value) == text(&taint.value))
}

/// The node selector and the required node affinity of the pod.
fn matches_node(pod: &Pod, node: &Node) -> bool {
    let spec = pods::spec(pod);
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| label(node, k) == Some(v));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let terms = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && terms.is_none_or(|t| t.node_selector_terms.iter().any(|term| matches_term(term, node)))
}

fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or(&[]);
    let fields = term.match_fields.as_deref().unwrap_or(&[]);
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = node.metadata.name.as_deref();
    let field = |key: &str| if key == "metadata.name" { name } else { None };
    let check = |have: Option<&str>, operator: &str, values: &[String]| {
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = || values.first().and_then(|v| number(v));
        match operator {
            "In" => have.is_some_and(|h| values.iter().any(|v| v == h)),
            "NotIn" => have.is_none_or(|h| values.iter().all(|v| v != h)),
            "Exists" => have.is_some(),
            "DoesNotExist" => have.is_none(),
            "Gt" => have.and_then(number).zip(bound()).is_some_and(|(h, b)| h > b),
            "Lt" => have.and_then(number).zip(bound()).is_some_and(|(h, b)| h < b),
            _ => false,
        }
    };
    expressions.iter().all(|e| check(label(node, &e.key), &e.operator, e.values.as_deref().unwrap_or(&[])))
        && fields.iter().all(|e| check(field(&e.key), &e.operator, e.values.as_deref().unwrap_or(&[])))
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
        let scene = Scene { node: &node, others, unsafe_sysctls: &[], pressure: Pressure::default() };
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
