//! `nodes`.

use jiff::Timestamp;
use meta::{FieldError, Path, Quantity, names};
use serde_json::Value;
use std::collections::BTreeSet;

use crate::check::{Errors, follows};
use crate::core::pod_spec::defaults::round_up_to_milli;
use crate::core::pod_spec::{EFFECTS, resources::amount_of};
use crate::hooks::Hooks;
use crate::kind::{Action, Column, Kind, Selectable, Verbs};
use crate::print::{age, condition, name, text_or};
use crate::value::{at, at_mut, flag, items, map, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "Node", "nodes")
        .short(&["no"])
        .stored_at("/registry/minions")
        .connect("proxy", "NodeProxyOptions", Action::Proxy, Verbs::PROXY)
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Status"),
            Column::text("Roles"),
            Column::text("Age"),
            Column::text("Version"),
            Column::text("Internal-IP").wide(),
            Column::text("External-IP").wide(),
            Column::text("OS-Image").wide(),
            Column::text("Kernel-Version").wide(),
            Column::text("Container-Runtime").wide(),
        ])
        .selectable(vec![Selectable::path("spec.unschedulable").or("false")])
        .created_with_status()
        .hooks(Hooks { row, default, validate, validate_update, validate_status: validate_update, ..Hooks::NONE })
}

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut status = match condition(object, "Ready").map(|c| text(c, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(object, "spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let kernel = text_or(object, "status.nodeInfo.kernelVersion", "<unknown>");
    let kernel = match (kernel.as_str().unwrap_or(""), text(object, "status.nodeInfo.architecture")) {
        (kernel, "") => kernel.to_owned(),
        (kernel, arch) => format!("{kernel} ({arch})"),
    };
    vec![
        name(object),
        status.into(),
        roles(object).into(),
        age(object, now),
        text(object, "status.nodeInfo.kubeletVersion").into(),
        address(object, "InternalIP"),
        address(object, "ExternalIP"),
        text_or(object, "status.nodeInfo.osImage", "<unknown>"),
        kernel.into(),
        text_or(object, "status.nodeInfo.containerRuntimeVersion", "<unknown>"),
    ]
}

fn roles(object: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in map(object, "metadata.labels").into_iter().flatten() {
        match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.insert(role),
            None if key == ROLE_LABEL => roles.insert(value.as_str().unwrap_or("")),
            _ => false,
        };
    }
    roles.remove("");
    let list = roles.into_iter().collect::<Vec<_>>().join(",");
    if list.is_empty() { "<none>".to_owned() } else { list }
}

fn address(object: &Value, kind: &str) -> Value {
    let found = items(object, "status.addresses").iter().find(|a| text(a, "type") == kind);
    found.map_or("<none>", |a| text(a, "address")).into()
}

/// What a node has is allocatable unless it says otherwise.
fn default(node: &mut Value) {
    for list in ["status.capacity", "status.allocatable"] {
        if let Some(Value::Object(list)) = at_mut(node, list) {
            round_up_to_milli(list);
        }
    }
    if let (Some(capacity), None) = (at(node, "status.capacity").cloned(), at(node, "status.allocatable")) {
        set(node, "status.allocatable", capacity);
    }
}

fn validate(node: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    taints(&mut errors, node);
    resources(&mut errors, node);
    pod_cidrs(&mut errors, node);
    errors
}

fn pod_cidrs(errors: &mut Errors, node: &Value) {
    let spec = Path::root("spec");
    let path = spec.child("podCIDRs");
    let cidrs: Vec<&str> = ranges(node).1.into_iter().filter_map(Value::as_str).collect();
    for (i, cidr) in cidrs.iter().enumerate() {
        follows(errors, path.index(i), cidr, names::cidr);
    }
    let both = cidrs.iter().any(|c| c.contains(':')) && cidrs.iter().any(|c| !c.contains(':'));
    if cidrs.len() > 2 || (cidrs.len() == 2 && !both) {
        let message = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(path, cidrs.clone(), message));
    }
    let one = text(node, "spec.podCIDR");
    if cidrs.first().is_some_and(|first| !one.is_empty() && *first != one) {
        errors.push(FieldError::invalid(spec.child("podCIDR"), one, "must be the first of spec.podCIDRs"));
    }
}

/// What a node's pods have addresses of: the first range and all of them. They stand in two fields, either of which may be
/// left out; who reads a node may look at either, so that neither changes without the other.
fn ranges(node: &Value) -> (&str, Vec<&Value>) {
    let mut all: Vec<&Value> = items(node, "spec.podCIDRs").iter().collect();
    let first = text(node, "spec.podCIDR");
    if all.is_empty() {
        all.extend(at(node, "spec.podCIDR").filter(|_| !first.is_empty()));
    }
    let listed = all.first().and_then(|one| one.as_str()).unwrap_or_default();
    (if first.is_empty() { listed } else { first }, all)
}

/// Whether a node that had one range has another behind it now: the cluster has a second family. Upstream lets no range be
/// changed once there is one, so that a node would have to be made anew for it; nothing that its clients rely on changes
/// by this, for what they know of the node stays as it is. Which ranges two can be, [`pod_cidrs`] says.
fn gains_family(node: &Value, old: &Value) -> bool {
    let ((first, new), (was_first, was)) = (ranges(node), ranges(old));
    first == was_first && matches!((&was[..], &new[..]), ([one], [same, _]) if one == same)
}

fn taints(errors: &mut Errors, node: &Value) {
    let metadata = Path::root("metadata");
    let path = metadata.child("taints");
    let taints = items(node, "spec.taints");
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        follows(errors, path.child("key"), text(taint, "key"), names::qualified_name);
        let wrong = names::label_value(text(taint, "value"));
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(path.child("value"), text(taint, "value"), wrong.join(";")));
        }
        crate::check::one_of(errors, &path, taint, "effect", &EFFECTS);
        let twin = |t: &Value| ["key", "effect"].iter().all(|key| text(t, key) == text(taint, key));
        if taints[..i].iter().any(twin) {
            let mut error = FieldError::duplicate(path, taint.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

fn resources(errors: &mut Errors, node: &Value) {
    for list in ["capacity", "allocatable"] {
        for (name, amount) in map(node, &format!("status.{list}")).into_iter().flatten() {
            let status = Path::root("status");
            let path = status.child(list);
            if let Some(amount) = amount.as_str().and_then(|a| a.parse::<Quantity>().ok()) {
                amount_of(errors, path.child(name), name, amount);
            }
        }
    }
}

fn validate_update(node: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    resources(&mut errors, node);
    let status = Path::root("status");
    let path = status.child("addresses");
    let addresses = items(node, "status.addresses");
    for (i, address) in addresses.iter().enumerate().filter(|(i, a)| addresses[..*i].contains(a)) {
        errors.push(FieldError::duplicate(path.index(i), address.clone()));
    }
    let stays = ranges(node) == ranges(old);
    if !stays && (ranges(old).1.is_empty() || gains_family(node, old)) {
        pod_cidrs(&mut errors, node);
    } else if !stays {
        let message = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.podCIDRs", message));
    }
    match (text(old, "spec.providerID"), text(node, "spec.providerID")) {
        ("", _) => {}
        (_, "") => errors.push(FieldError::invalid("spec.providerID", Value::Null, "field cannot be cleared once set")),
        (was, new) if was != new => {
            errors.push(FieldError::invalid("spec.providerID", Value::Null, "field cannot be modified once set"));
        }
        _ => {}
    }
    taints(&mut errors, node);
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_gains_a_range_of_the_other_family_and_nothing_else_of_its_ranges_changes() {
        let node = |cidrs: &[&str]| json!({"spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs}});
        let said = |was: &[&str], new: &[&str]| {
            validate_update(&node(new), &node(was)).into_iter().map(|e| e.to_string()).collect::<Vec<_>>().join("; ")
        };
        let (v4, v6) = ("10.42.1.0/24", "fd42:0:0:1::/64");
        assert_eq!((said(&[v4], &[v4, v6]), said(&[v6], &[v6, v4])), Default::default());
        assert_eq!((said(&[], &[v4]), said(&[v4, v6], &[v4, v6])), Default::default());
        for (was, new) in [
            (vec![v4], vec![v6, v4]),
            (vec![v4], vec!["10.42.2.0/24", v6]),
            (vec![v4], vec!["10.42.2.0/24"]),
            (vec![v4], vec![]),
            (vec![v4, v6], vec![v4]),
            (vec![v4, v6], vec![v4, "fd42:0:0:2::/64"]),
            (vec![v4], vec![v4, v6, "fd42:0:0:2::/64"]),
        ] {
            assert!(said(&was, &new).contains("may not change podCIDR except"), "{was:?} {new:?}");
        }
        assert!(said(&[v4], &[v4, "10.42.2.0/24"]).contains("no more than one CIDR for each IP family"));
        assert!(said(&[v4], &[v4, "fd42:x"]).contains("spec.podCIDRs[1]"));
        let mut moved = node(&[v4, v6]);
        moved["spec"]["podCIDR"] = v6.into();
        assert!(!validate_update(&moved, &node(&[v4])).is_empty(), "the first is the first in both fields");
        let mut turned = node(&[v6, v4]);
        turned["spec"]["podCIDR"] = v4.into();
        assert!(!validate_update(&turned, &node(&[v4])).is_empty(), "and stays the first of the list");
    }

    #[test]
    fn the_field_of_one_range_says_what_the_list_says() {
        let (v4, v6) = ("10.42.1.0/24", "fd42:0:0:1::/64");
        let node = |one: Option<&str>, all: &[&str]| {
            let mut node = json!({"spec": {"podCIDR": one, "podCIDRs": all}});
            node["spec"].as_object_mut().unwrap().retain(|_, value| !value.is_null() && *value != json!([]));
            node
        };
        let refused = |new: &Value, was: &Value| {
            validate_update(new, was).iter().any(|e| e.to_string().contains("may not change podCIDR except"))
        };
        let both = node(Some(v4), &[v4]);
        for other in [node(Some(v6), &[v4]), node(Some("10.9.9.0/24"), &[v4])] {
            assert!(refused(&other, &both), "{other}");
            let said = validate(&other).iter().map(ToString::to_string).collect::<String>();
            assert!(said.contains("spec.podCIDR: Invalid value") && said.contains("must be the first"), "{said}");
            assert!(
                !validate_update(&other, &node(None, &[])).is_empty(),
                "nor is a node given two that differ: {other}"
            );
        }
        // Either field alone says the same as both.
        for alone in [node(Some(v4), &[]), node(None, &[v4])] {
            assert!(validate(&alone).is_empty() && validate(&both).is_empty());
            assert!(validate_update(&both, &alone).is_empty() && validate_update(&alone, &both).is_empty(), "{alone}");
            assert!(validate_update(&node(Some(v4), &[v4, v6]), &alone).is_empty(), "{alone}");
            assert!(refused(&node(Some(v6), &[v6]), &alone) && refused(&node(None, &[]), &alone), "{alone}");
        }
    }
}
