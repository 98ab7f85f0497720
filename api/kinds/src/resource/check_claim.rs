//! What makes a claim of devices valid, alone and in a template, and what its status may say.

use std::collections::BTreeSet;

use meta::{FieldError, Path, names};
use serde_json::Value;

use super::{config, driver_name, each, pool_name, qualified, selectors, tolerations};
use crate::check::{Errors, present};
use crate::core::pod_spec::affinity::node_selector;
use crate::value::{at, int, items, same, text};

const MOST_REQUESTS: usize = 32;
const MOST_ALTERNATIVES: usize = 8;
const MOST_CONSUMERS: usize = 256;

/// Everything wrong with the spec of a claim at `path`.
pub(super) fn spec(errors: &mut Errors, path: Path, spec: &Value) {
    let path = path.child("devices");
    let devices = at(spec, "devices").unwrap_or(&Value::Null);
    let requests = items(devices, "requests");
    each(errors, path.child("requests"), requests, MOST_REQUESTS, "name", request);
    let names = request_names(requests);
    let list = path.child("constraints");
    each(errors, list, items(devices, "constraints"), MOST_REQUESTS, "", |errors, path, constraint| {
        referenced(errors, path.child("requests"), items(constraint, "requests"), &names);
        check_constraint(errors, path, constraint);
    });
    let list = path.child("config");
    each(errors, list, items(devices, "config"), MOST_REQUESTS, "", |errors, path, entry| {
        referenced(errors, path.child("requests"), items(entry, "requests"), &names);
        config(errors, path, entry);
    });
}

/// Requests by name, and their alternatives as `request/alternative`.
fn request_names(requests: &[Value]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for request in requests {
        let name = text(request, "name");
        names.insert(name.to_owned());
        names.extend(items(request, "firstAvailable").iter().map(|sub| format!("{name}/{}", text(sub, "name"))));
    }
    names
}

fn referenced(errors: &mut Errors, path: Path, requests: &[Value], known: &BTreeSet<String>) {
    each(errors, path, requests, MOST_REQUESTS, "", |errors, path, name| {
        let name = name.as_str().unwrap_or("");
        if !known.contains(name) {
            errors.push(FieldError::invalid(path, name, "must be the name of a request in the claim"));
        }
    });
    for (i, name) in requests.iter().enumerate().filter(|(i, name)| requests[..*i].contains(name)) {
        errors.push(FieldError::duplicate(path.index(i), name.clone()));
    }
}

fn request(errors: &mut Errors, path: Path, request: &Value) {
    request_name(errors, path, request);
    let (exactly, alternatives) = (at(request, "exactly"), items(request, "firstAvailable"));
    match (exactly, alternatives.is_empty()) {
        (None, true) => {
            let message = "exactly one of `exactly` or `firstAvailable` is required";
            errors.push(FieldError::required(path, message));
        }
        (Some(_), false) => {
            let message = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(path, Value::Null, message));
        }
        _ => {}
    }
    each(errors, path.child("firstAvailable"), alternatives, MOST_ALTERNATIVES, "name", |errors, path, sub| {
        request_name(errors, path, sub);
        wanted(errors, path, sub);
    });
    if let Some(exactly) = exactly {
        wanted(errors, path.child("exactly"), exactly);
    }
}

fn request_name(errors: &mut Errors, path: Path, request: &Value) {
    crate::check::named(errors, &path, request, "name", names::dns1123_label);
}

/// Which devices, and how many.
fn wanted(errors: &mut Errors, path: Path, request: &Value) {
    crate::check::named(errors, &path, request, "deviceClassName", names::dns1123_subdomain);
    selectors(errors, path, request);
    let count = int(request, "count").unwrap_or(0);
    match text(request, "allocationMode") {
        "All" if count != 0 => {
            let message = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(path.child("count"), count, message));
        }
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(path.child("count"), count, "must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        other => {
            errors.push(FieldError::not_supported(path.child("allocationMode"), other, ["All", "ExactCount"]));
        }
    }
    tolerations(errors, path.child("tolerations"), items(request, "tolerations"));
}

fn check_constraint(errors: &mut Errors, path: Path, constraint: &Value) {
    match at(constraint, "matchAttribute").and_then(Value::as_str) {
        Some(attribute) => qualified(errors, path.child("matchAttribute"), attribute, true),
        None => errors.push(FieldError::required(path.child("matchAttribute"), "")),
    }
}

/// Everything wrong with the status of a claim.
pub(super) fn status(claim: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("status");
    let allocation = at(claim, "status.allocation");
    let consumers = items(claim, "status.reservedFor");
    let list = path.child("reservedFor");
    each(&mut errors, list, consumers, MOST_CONSUMERS, "uid", |errors, path, consumer| {
        for key in ["resource", "name", "uid"] {
            present(errors, &path, consumer, key);
        }
    });
    if allocation.is_none() && !consumers.is_empty() {
        errors.push(FieldError::forbidden(list, "may not be specified when `allocated` is not set"));
    }
    if let Some(allocation) = allocation {
        let names = request_names(items(claim, "spec.devices.requests"));
        allocated(&mut errors, path.child("allocation"), allocation, &names);
    }
    let before = at(old, "status.allocation");
    if before.is_some() && allocation.is_some() && !same(allocation, before) {
        let value = allocation.cloned().unwrap_or_default();
        errors.push(FieldError::invalid(path.child("allocation"), value, crate::check::IMMUTABLE));
    }
    errors
}

fn allocated(errors: &mut Errors, path: Path, allocation: &Value, names: &BTreeSet<String>) {
    let devices = path.child("devices");
    let list = devices.child("results");
    each(errors, list, items(allocation, "devices.results"), MOST_REQUESTS, "", |errors, path, result| {
        let request = text(result, "request");
        if !names.contains(request) {
            let message = "must be the name of a request in the claim";
            errors.push(FieldError::invalid(path.child("request"), request, message));
        }
        driver_name(errors, path.child("driver"), text(result, "driver"));
        pool_name(errors, path.child("pool"), text(result, "pool"));
        crate::check::named(errors, &path, result, "device", names::dns1123_label);
    });
    if let Some(selector) = at(allocation, "nodeSelector") {
        node_selector(errors, path.child("nodeSelector"), selector);
    }
    let list = devices.child("config");
    each(errors, list, items(allocation, "devices.config"), 2 * MOST_REQUESTS, "", |errors, path, entry| {
        crate::check::one_of(errors, &path, entry, "source", &["FromClaim", "FromClass"]);
        referenced(errors, path.child("requests"), items(entry, "requests"), names);
        config(errors, path, entry);
    });
}
