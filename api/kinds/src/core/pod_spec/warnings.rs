//! Warnings about pods and templates of pods: what is accepted and deprecated, or likely not meant.

use std::collections::HashMap;

use meta::{Path, Quantity, names};
use serde_json::Value;

use crate::value::{at, int, items, map, text};

/// Labels of nodes under their old names.
const OLD_LABELS: [(&str, &str, &str); 5] = [
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// Annotations, or beginnings of them (with a slash at the end), whose field has come.
const OLD_ANNOTATIONS: [(&str, &str); 6] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("seccomp.security.alpha.kubernetes.io/pod", "non-functional in v1.27+; use the \"seccompProfile\" field instead"),
    (
        "container.seccomp.security.alpha.kubernetes.io/",
        "non-functional in v1.27+; use the \"seccompProfile\" field instead",
    ),
    (
        "container.apparmor.security.beta.kubernetes.io/",
        "deprecated since v1.30; use the \"appArmorProfile\" field instead",
    ),
];

/// Why an old label should not be used any more.
pub(crate) fn old_label(key: &str) -> Option<String> {
    let (_, since, new) = OLD_LABELS.iter().find(|(old, ..)| *old == key)?;
    Some(format!("deprecated since {since}; use \"{new}\" instead"))
}

/// Warnings about a controller whose template at `path` is new or changed.
pub(crate) fn of_changed(object: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
    let generation = |object: &Value| int(object, "metadata.generation");
    if old.is_some_and(|old| generation(old) == generation(object)) {
        return Vec::new();
    }
    at(object, path).map(|template| of_template(template, Path::root(path))).unwrap_or_default()
}

/// Warnings about a pod or a template at `root`.
pub(crate) fn of_template(template: &Value, root: Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let metadata = root.child("metadata");
    let annotations = metadata.child("annotations");
    for (key, _) in map(template, "metadata.annotations").into_iter().flatten() {
        let old = OLD_ANNOTATIONS.iter().find(|(name, _)| key == name || name.ends_with('/') && key.starts_with(name));
        warnings.extend(old.map(|(_, why)| format!("{}: {why}", annotations.key(key))));
    }
    let spec = at(template, "spec").unwrap_or(&Value::Null);
    let path = root.child("spec");
    placement(&mut warnings, path, spec);
    repeated(&mut warnings, path, spec);
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let why = "must be >= 0; negative values are invalid and will be treated as 1";
        warnings.push(format!("{}: {why}", path.child("terminationGracePeriodSeconds")));
    }
    for list in ["initContainers", "containers"] {
        let place = path.child(list);
        for (i, container) in items(spec, list).iter().enumerate() {
            of_container(&mut warnings, place.index(i), container);
        }
    }
    ports(&mut warnings, path, spec);
    warnings
}

fn placement(warnings: &mut Vec<String>, path: Path, spec: &Value) {
    let selector = path.child("nodeSelector");
    for (key, _) in map(spec, "nodeSelector").into_iter().flatten() {
        warnings.extend(old_label(key).map(|why| format!("{}: {why}", selector.key(key))));
    }
    let affinity = path.child("affinity");
    let nodes = affinity.child("nodeAffinity");
    let required = nodes.child("requiredDuringSchedulingIgnoredDuringExecution");
    let list = required.child("nodeSelectorTerms");
    const REQUIRED: &str = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    for (i, term) in items(spec, REQUIRED).iter().enumerate() {
        of_node_term(warnings, list.index(i), term);
    }
    let list = nodes.child("preferredDuringSchedulingIgnoredDuringExecution");
    const PREFERRED: &str = "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution";
    for (i, weighted) in items(spec, PREFERRED).iter().enumerate() {
        let preference = at(weighted, "preference").unwrap_or(&Value::Null);
        of_node_term(warnings, list.index(i).child("preference"), preference);
    }
    let list = path.child("topologySpreadConstraints");
    for (i, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        let (path, key) = (list.index(i), text(constraint, "topologyKey"));
        warnings.extend(old_label(key).map(|why| format!("{}: {key} is {why}", path.child("topologyKey"))));
        if at(constraint, "labelSelector").is_none() {
            let why = "a null labelSelector results in matching no pod";
            warnings.push(format!("{}: {why}", path.child("labelSelector")));
        }
    }
}

fn of_node_term(warnings: &mut Vec<String>, path: Path, term: &Value) {
    let list = path.child("matchExpressions");
    for (i, expression) in items(term, "matchExpressions").iter().enumerate() {
        let (path, key) = (list.index(i), text(expression, "key"));
        warnings.extend(old_label(key).map(|why| format!("{}: {key} is {why}", path.child("key"))));
    }
}

/// What stands twice in a list where the second hides the first, or is hidden.
fn repeated(warnings: &mut Vec<String>, path: Path, spec: &Value) {
    for (key, field, word) in [("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")] {
        let (list, all) = (path.child(key), items(spec, key));
        for (i, item) in all.iter().enumerate() {
            let value = text(item, field);
            if all[..i].iter().any(|other| text(other, field) == value) {
                warnings.push(format!("{}: duplicate {word} {value:?}", list.index(i).child(field)));
            }
            if key == "imagePullSecrets" && value.is_empty() {
                warnings.push(format!("{}: invalid empty name \"\"", list.index(i).child(field)));
            }
        }
    }
}

fn of_container(warnings: &mut Vec<String>, path: Path, container: &Value) {
    let resources = path.child("resources");
    for list in ["limits", "requests"] {
        for (name, amount) in map(container, &format!("resources.{list}")).into_iter().flatten() {
            let amount = amount.as_str().unwrap_or("");
            if matches!(name.as_str(), "memory" | "ephemeral-storage") && fractional(amount) {
                let why = format!("fractional byte value {amount:?} is invalid, must be an integer");
                warnings.push(format!("{}: {why}", resources.child(list).key(name)));
            }
        }
    }
    let (list, env) = (path.child("env"), items(container, "env"));
    for (i, var) in env.iter().enumerate() {
        let name = text(var, "name");
        let uses_itself = text(var, "value").contains(&format!("$({name})"));
        if !uses_itself && env[..i].iter().any(|other| text(other, "name") == name) {
            let why = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            warnings.push(format!("{}: {why}", list.index(i)));
        }
    }
    let list = path.child("ports");
    for (i, port) in items(container, "ports").iter().enumerate() {
        let (number, address) = (int(port, "containerPort").unwrap_or(0), text(port, "hostIP"));
        if !address.is_empty() && int(port, "hostPort").unwrap_or(0) == 0 {
            let (name, protocol) = (text(port, "name"), text(port, "protocol"));
            let shown =
                format!("{{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{address}}}");
            warnings.push(format!("{}: hostIP set without hostPort: {shown}", list.index(i)));
        }
    }
}

/// Bytes come whole.
pub(crate) fn fractional(amount: &str) -> bool {
    amount.parse::<Quantity>().is_ok_and(|amount| !amount.is_whole())
}

/// Pairs of ports that are looked at: a body has room for a hundred thousand ports, and each pair may be a warning.
const MOST_PAIRS: usize = 10_000;

/// Ports of all containers, which share an address: those that are there twice, and names that stand for several.
fn ports(warnings: &mut Vec<String>, path: Path, spec: &Value) {
    let mut all: Vec<(String, &Value)> = Vec::new();
    for list in ["initContainers", "containers"] {
        for (i, container) in items(spec, list).iter().enumerate() {
            let (place, of_container) = (path.child(list), items(container, "ports"));
            let at = |j: usize| place.index(i).child("ports").index(j).to_string();
            all.extend(of_container.iter().enumerate().map(|(j, port)| (at(j), port)));
        }
    }
    let mut alike: HashMap<(Option<i64>, &str), Vec<usize>> = HashMap::new();
    let mut pairs = MOST_PAIRS;
    for (i, (path, port)) in all.iter().enumerate() {
        let earlier = alike.entry((int(port, "containerPort"), text(port, "protocol"))).or_default();
        for first in earlier.iter().take(pairs) {
            let (first, other) = &all[*first];
            warnings.extend(collision(port, other).map(|what| format!("{path}: {what} port definition with {first}")));
        }
        pairs = pairs.saturating_sub(earlier.len());
        earlier.push(i);
    }
    let mut named: HashMap<&str, &str> = HashMap::new();
    for (path, port) in &all {
        let name = text(port, "name");
        if name.is_empty() {
            continue;
        }
        match named.get(name) {
            Some(first) => warnings.push(format!(
                "{path}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
            )),
            None => drop(named.insert(name, path)),
        }
    }
}

/// What two ports of a pod with the same number and protocol are to each other.
fn collision(port: &Value, other: &Value) -> Option<&'static str> {
    let host = |port: &Value| int(port, "hostPort").unwrap_or(0);
    let address = |port: &Value| text(port, "hostIP").to_owned();
    match (host(port), host(other)) {
        (a, b) if a == b && address(port) == address(other) => Some("duplicate"),
        (0, _) | (_, 0) => Some("overlapping"),
        // On every address, and on one.
        (a, b) if a == b && (address(port).is_empty() || address(other).is_empty()) => Some("dangerously ambiguous"),
        _ => None,
    }
}

/// Warnings about a controller whose pods are named after it, with the template at `path`.
pub(crate) fn of_controller(object: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
    let mut warnings = hostname(object, old, "Pod names and hostnames");
    warnings.extend(of_changed(object, old, path));
    warnings
}

/// Warnings about a pod: updates of pods are made by programs, which nobody reads them to.
pub(crate) fn of_pod(pod: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let mut warnings = hostname(pod, old, "the Pod's hostname");
    warnings.extend(of_template(pod, Path::root("")));
    warnings
}

/// What to say of names that end up in hostnames and are no labels.
fn hostname(object: &Value, old: Option<&Value>, used: &str) -> Vec<String> {
    let problems = names::dns1123_label(text(object, "metadata.name"));
    if old.is_some() || problems.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in {used}, which can result in surprising behavior; a DNS label is recommended: [{}]",
        problems.join(" ")
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(spec: Value) -> Vec<String> {
        of_template(&json!({"spec": spec}), Path::root(""))
    }

    #[test]
    fn what_hides_something_is_said() {
        let env = json!([{"name": "A"}, {"name": "A", "value": "x$(A)"}, {"name": "A", "value": "b"}]);
        let ports = json!([{"containerPort": 1, "name": "p"}, {"containerPort": 1}, {"containerPort": 2, "name": "p"}]);
        let wanted = [
            "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            "spec.containers[0].ports[2]: duplicate port name \"p\" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]",
        ];
        assert_eq!(said(json!({"containers": [{"env": env, "ports": ports}]})), wanted);
    }

    #[test]
    fn old_names_are_said_with_their_new_ones() {
        let wanted =
            ["spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead"];
        assert_eq!(said(json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}})), wanted);
        let amount = json!({"requests": {"memory": "100m", "cpu": "100m"}});
        let wanted = [
            "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
        ];
        assert_eq!(said(json!({"containers": [{"resources": amount}]})), wanted);
    }

    #[test]
    fn an_unchanged_template_is_not_warned_about_again() {
        let object = json!({"metadata": {"generation": 2}, "spec": {"template": {"spec": {"terminationGracePeriodSeconds": -1}}}});
        assert_eq!(of_changed(&object, None, "spec.template").len(), 1);
        assert_eq!(of_changed(&object, Some(&object), "spec.template"), [""; 0]);
    }

    /// Each pair of a body full of ports was compared, and told: gigabytes of warnings.
    #[test]
    fn a_body_full_of_ports_is_warned_of_some() {
        let many: Vec<Value> = vec![json!({"containerPort": 1, "protocol": "TCP"}); 20_000];
        let mut warnings = Vec::new();
        ports(&mut warnings, Path::root("spec"), &json!({"containers": [{"ports": many}]}));
        assert_eq!(warnings.len(), MOST_PAIRS);
    }
}
