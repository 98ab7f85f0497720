//! `endpointslices` of discovery.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, among, follows, frozen};
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{age, and_more, name};
use crate::value::{at, int, items, same, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
        .columns(vec![
            Column::name(),
            Column::text("AddressType"),
            Column::text("Ports"),
            Column::text("Endpoints"),
            Column::text("Age"),
        ])
        .generations()
        .hooks(Hooks { row, prepare_update, validate: check, validate_update: check_update, ..Hooks::NONE })
}

/// Ports and addresses shown before the rest is counted.
const SHOWN: usize = 3;

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let port = |p: &Value| match (int(p, "port"), p.get("name").and_then(Value::as_str)) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".to_owned(),
    };
    let ports: Vec<String> = items(object, "ports").iter().map(port).collect();
    let addresses: Vec<String> = items(object, "endpoints")
        .iter()
        .flat_map(|e| items(e, "addresses"))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let list = |all: Vec<String>| and_more(&all[..all.len().min(SHOWN)], all.len(), "<unset>");
    vec![name(object), text(object, "addressType").into(), list(ports), list(addresses), age(object, now)]
}

/// Labels count as desired state too.
fn prepare_update(slice: &mut Value, old: &Value, _context: &Context) {
    if !same(at(slice, "metadata.labels"), at(old, "metadata.labels")) {
        let next = int(old, "metadata.generation").unwrap_or(0) + 1;
        set(slice, "metadata.generation", next);
    }
}

const MAX_ENDPOINTS: usize = 1_000;
const MAX_PORTS: usize = 20_000;
const MAX_ADDRESSES: usize = 100;
const MAX_HINTS: usize = 8;

fn check(slice: &Value) -> Vec<FieldError> {
    let mut errors = check_ports(slice);
    check_endpoints(&mut errors, slice);
    errors
}

fn check_ports(slice: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let family = Path::root("addressType");
    match text(slice, "addressType") {
        "" => errors.push(FieldError::required(family, "")),
        other => among(&mut errors, family, other, &["FQDN", "IPv4", "IPv6"]),
    }
    let list = Path::root("ports");
    let ports = items(slice, "ports");
    if ports.len() > MAX_PORTS {
        errors.push(FieldError::too_many(list, ports.len() as i64, MAX_PORTS as i64));
        return errors;
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let (path, name) = (list.index(i), text(port, "name"));
        if !name.is_empty() {
            follows(&mut errors, path.child("name"), name, names::dns1123_label);
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        seen.push(name);
        crate::check::one_of(&mut errors, &path, port, "protocol", &["SCTP", "TCP", "UDP"]);
        if let Some(Value::String(protocol)) = at(port, "appProtocol") {
            follows(&mut errors, path.child("appProtocol"), protocol, names::qualified_name);
        }
    }
    errors
}

fn check_endpoints(errors: &mut Errors, slice: &Value) {
    let list = Path::root("endpoints");
    let endpoints = items(slice, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(FieldError::too_many(list, endpoints.len() as i64, MAX_ENDPOINTS as i64));
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let path = list.index(i);
        let addresses = path.child("addresses");
        let count = items(endpoint, "addresses").len();
        if count == 0 {
            errors.push(FieldError::required(addresses, ""));
        } else if count > MAX_ADDRESSES {
            errors.push(FieldError::too_many(addresses, count as i64, MAX_ADDRESSES as i64));
        }
        for (j, address) in items(endpoint, "addresses").iter().filter_map(Value::as_str).enumerate() {
            check_address(errors, addresses, j, address, text(slice, "addressType"));
        }
        for (key, rule) in
            [("nodeName", names::dns1123_subdomain as crate::check::Rule), ("hostname", names::dns1123_label)]
        {
            if let Some(Value::String(name)) = at(endpoint, key) {
                follows(errors, path.child(key), name, rule);
            }
        }
        let hinted = path.child("hints");
        hints(errors, hinted.child("forZones"), items(endpoint, "hints.forZones"), names::label_value);
        hints(errors, hinted.child("forNodes"), items(endpoint, "hints.forNodes"), names::dns1123_subdomain);
    }
}

/// Zones or nodes that an endpoint is for.
fn hints(errors: &mut Errors, list: Path, hints: &[Value], rule: crate::check::Rule) {
    if hints.len() > MAX_HINTS {
        errors.push(FieldError::too_many(list, hints.len() as i64, MAX_HINTS as i64));
        return;
    }
    for (i, hint) in hints.iter().enumerate() {
        let (path, name) = (list.index(i), text(hint, "name"));
        if hints[..i].iter().any(|other| text(other, "name") == name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
        follows(errors, path.child("name"), name, rule);
    }
}

fn check_address(errors: &mut Errors, list: Path, index: usize, address: &str, family: &str) {
    let path = list.index(index);
    if family == "FQDN" {
        follows(errors, path, address, names::dns1123_subdomain);
        return;
    }
    match meta::ip::parse(address) {
        None => follows(errors, path, address, names::ip),
        Some(ip) => {
            if ip.is_ipv4() != (family == "IPv4") {
                errors.push(FieldError::invalid(list, address, format!("must be an {family} address")));
            }
            crate::core::endpoints::endpoint_ip(errors, path, address);
        }
    }
}

/// Endpoints that were stored stay valid.
fn check_update(slice: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check_ports(slice);
    if at(slice, "endpoints") != at(old, "endpoints") {
        check_endpoints(&mut errors, slice);
    }
    frozen(&mut errors, Path::root("addressType"), at(slice, "addressType"), at(old, "addressType"));
    errors
}
