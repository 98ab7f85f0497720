//! `servicecidrs` of networking.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{IMMUTABLE, follows};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, joined, name};
use crate::value::items;

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs")
        .status()
        .columns(vec![Column::name(), Column::text("CIDRs"), Column::text("Age")])
        .fixed_status_metadata()
        .hooks(Hooks { row, validate, validate_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), joined(object, "spec.cidrs", ",").into(), age(object, now)]
}

fn validate(range: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::root("spec");
    let list = spec.child("cidrs");
    let cidrs = items(range, "spec.cidrs");
    if cidrs.is_empty() {
        errors.push(FieldError::required(list, "at least one CIDR required"));
    }
    if cidrs.len() > 2 {
        errors.push(FieldError::invalid(list, cidrs.to_vec(), "may only hold up to 2 values"));
    }
    let family = |i: usize| cidrs.get(i).and_then(Value::as_str).map(|c| c.contains(':'));
    if cidrs.len() == 2 && family(0) == family(1) {
        let message = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(list, cidrs.to_vec(), message));
    }
    for (i, cidr) in cidrs.iter().filter_map(Value::as_str).enumerate() {
        follows(&mut errors, list.index(i), cidr, names::cidr);
    }
    errors
}

fn validate_update(range: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::root("spec");
    let (new, was) = (items(range, "spec.cidrs"), items(old, "spec.cidrs"));
    let list = spec.child("cidrs");
    match (was.len(), new.len()) {
        (a, b) if a == b => {
            for (i, cidr) in new.iter().enumerate().filter(|(i, cidr)| **cidr != was[*i]) {
                errors.push(FieldError::invalid(list.index(i), cidr.clone(), IMMUTABLE));
            }
        }
        // One family becomes two: the first stays.
        (1, 2) => {
            if new[0] != was[0] {
                errors.push(FieldError::invalid(list.index(0), new[0].clone(), IMMUTABLE));
            }
            errors.extend(validate(range));
        }
        _ => errors.push(FieldError::invalid(list, new.to_vec(), IMMUTABLE)),
    }
    errors
}
