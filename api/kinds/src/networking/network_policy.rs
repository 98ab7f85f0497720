//! `networkpolicies` of networking.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path, Prefix, names};
use serde_json::Value;

use crate::check::{Errors, follows, in_range, label_selector, one_of_if_set};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, name, selector};
use crate::value::{at, int, items, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
        .short(&["netpol"])
        .columns(vec![Column::name(), Column::text("Pod-Selector"), Column::text("Age")])
        .generations()
        .hooks(Hooks { row, default, validate: check, validate_update: |o, _| check(o), ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), selector(object, "spec.podSelector"), age(object, now)]
}

/// A policy is about ingress, and about egress if it has rules for it.
fn default(policy: &mut Value) {
    if at(policy, "spec").is_none() || !items(policy, "spec.policyTypes").is_empty() {
        return;
    }
    let egress = !items(policy, "spec.egress").is_empty();
    let types: &[&str] = if egress { &["Ingress", "Egress"] } else { &["Ingress"] };
    set(policy, "spec.policyTypes", types);
}

fn check(policy: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(policy, "spec").unwrap_or(&Value::Null);
    label_selector(&mut errors, path.child("podSelector"), at(spec, "podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let list = path.child(direction);
        for (i, rule) in items(spec, direction).iter().enumerate() {
            let rule_path = list.index(i);
            let ports = rule_path.child("ports");
            for (j, port) in items(rule, "ports").iter().enumerate() {
                check_port(&mut errors, ports.index(j), port);
            }
            let list = rule_path.child(peers);
            for (j, peer) in items(rule, peers).iter().enumerate() {
                check_peer(&mut errors, list.index(j), peer);
            }
        }
    }
    let types = items(spec, "policyTypes");
    let list = path.child("policyTypes");
    if types.len() > 2 {
        let message = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid(list, Value::from(types), message));
        return errors;
    }
    for (i, kind) in types.iter().filter_map(Value::as_str).enumerate() {
        crate::check::among(&mut errors, list.index(i), kind, &["Ingress", "Egress"]);
    }
    errors
}

fn check_port(errors: &mut Errors, path: Path, port: &Value) {
    one_of_if_set(errors, &path, port, "protocol", &["TCP", "UDP", "SCTP"]);
    let end = int(port, "endPort");
    let end_path = path.child("endPort");
    let misplaced = match at(port, "port") {
        None => end.map(|end| (end, "may not be specified when `port` is not specified")),
        Some(Value::String(name)) => {
            follows(errors, path.child("port"), name, names::port_name);
            end.map(|end| (end, "may not be specified when `port` is non-numeric"))
        }
        Some(number) => {
            crate::check::port(errors, path.child("port"), Some(number));
            if end.is_some() {
                in_range(errors, &path, port, "endPort", 1, 65_535);
            }
            let first = number.as_i64().unwrap_or(0);
            end.filter(|end| *end < first).map(|end| (end, "must be greater than or equal to `port`"))
        }
    };
    errors.extend(misplaced.map(|(end, message)| FieldError::invalid(end_path, end, message)));
}

fn check_peer(errors: &mut Errors, path: Path, peer: &Value) {
    let [pods, namespaces, block] = ["podSelector", "namespaceSelector", "ipBlock"].map(|key| at(peer, key));
    label_selector(errors, path.child("podSelector"), pods);
    label_selector(errors, path.child("namespaceSelector"), namespaces);
    if let Some(block) = block {
        ip_block(errors, path.child("ipBlock"), block);
    }
    match (pods.is_some() || namespaces.is_some(), block.is_some()) {
        (false, false) => errors.push(FieldError::required(path, "must specify a peer")),
        (true, true) => errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer")),
        _ => {}
    }
}

fn ip_block(errors: &mut Errors, path: Path, block: &Value) {
    crate::check::named(errors, &path, block, "cidr", names::cidr);
    let Ok(net) = text(block, "cidr").parse::<Prefix>() else { return };
    let list = path.child("except");
    for (i, except) in items(block, "except").iter().filter_map(Value::as_str).enumerate() {
        follows(errors, list.index(i), except, names::cidr);
        let Ok(inner) = except.parse::<Prefix>() else { continue };
        if net.len == inner.len || !net.covers(&inner) {
            errors.push(FieldError::invalid(list.index(i), except, "must be a strict subset of `cidr`"));
        }
    }
}
