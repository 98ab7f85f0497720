//! `ingresses` of networking.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, follows, named, named_if_set};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, and_more, load_balancer, name, text_or};
use crate::value::{at, int, items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::namespaced_row("networking.k8s.io", "v1", "Ingress", "ingresses")
        .short(&["ing"])
        .stored_at("/registry/ingress")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Class"),
            Column::text("Hosts"),
            Column::text("Address"),
            Column::text("Ports"),
            Column::text("Age"),
        ])
        .generations()
        .hooks(Hooks {
            row,
            validate: check_create,
            validate_update: |o, _| check(o),
            validate_status: |o, _| check_status(o),
            warnings,
            ..Hooks::NONE
        })
}

/// Hosts shown before the rest is counted.
const SHOWN: usize = 3;

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let tls = !items(object, "spec.tls").is_empty();
    vec![
        name(object),
        text_or(object, "spec.ingressClassName", "<none>"),
        hosts(items(object, "spec.rules")),
        load_balancer(object, "status.loadBalancer.ingress").into(),
        if tls { "80, 443" } else { "80" }.into(),
        age(object, now),
    ]
}

/// Rules without a host are not listed; what comes after three listed hosts is counted by rules.
fn hosts(rules: &[Value]) -> Value {
    let mut listed = Vec::new();
    for rule in rules {
        if listed.len() == SHOWN {
            return and_more(&listed, rules.len(), "*");
        }
        if !text(rule, "host").is_empty() {
            listed.push(text(rule, "host").to_owned());
        }
    }
    and_more(&listed, listed.len(), "*")
}

fn check_create(ingress: &Value) -> Vec<FieldError> {
    let mut errors = check(ingress);
    let annotations = crate::value::map(ingress, "metadata.annotations");
    let annotation = annotations.and_then(|a| a.get("kubernetes.io/ingress.class")).and_then(Value::as_str);
    let class = at(ingress, "spec.ingressClassName").and_then(Value::as_str);
    if let (Some(annotation), Some(class)) = (annotation, class)
        && annotation != class
    {
        let message = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid("annotations.kubernetes.io/ingress.class", annotation, message));
    }
    errors
}

fn check(ingress: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(ingress, "spec").unwrap_or(&Value::Null);
    let rules = items(spec, "rules");
    let default = at(spec, "defaultBackend");
    if rules.is_empty() && default.is_none() {
        let message = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(path, Value::Null, message));
    }
    if let Some(default) = default {
        backend(&mut errors, path.child("defaultBackend"), default);
    }
    let list = path.child("rules");
    for (i, rule) in rules.iter().enumerate() {
        check_rule(&mut errors, list.index(i), rule);
    }
    let list = path.child("tls");
    for (i, tls) in items(spec, "tls").iter().enumerate() {
        let path = list.index(i);
        let hosts = path.child("hosts");
        for (j, host) in items(tls, "hosts").iter().filter_map(Value::as_str).enumerate() {
            check_host(&mut errors, hosts.index(j), host);
        }
        named_if_set(&mut errors, &path, tls, "secretName", names::dns1123_subdomain);
    }
    if let Some(Value::String(class)) = at(spec, "ingressClassName") {
        follows(&mut errors, path.child("ingressClassName"), class, names::dns1123_subdomain);
    }
    errors
}

fn check_host(errors: &mut Errors, path: Path, host: &str) {
    let wild = host.contains('*');
    follows(errors, path, host, if wild { names::wildcard_dns1123_subdomain } else { names::dns1123_subdomain });
}

fn check_rule(errors: &mut Errors, path: Path, rule: &Value) {
    let host = text(rule, "host");
    if !host.is_empty() {
        if host.parse::<std::net::IpAddr>().is_ok() {
            errors.push(FieldError::invalid(path.child("host"), host, "must be a DNS name, not an IP address"));
        }
        check_host(errors, path.child("host"), host);
    }
    let Some(http) = at(rule, "http") else { return };
    let path = path.child("http");
    let list = path.child("paths");
    let paths = items(http, "paths");
    if paths.is_empty() {
        errors.push(FieldError::required(list, ""));
    }
    for (i, one) in paths.iter().enumerate() {
        check_path(errors, list.index(i), one);
    }
}

fn check_path(errors: &mut Errors, path: Path, rule: &Value) {
    let value = text(rule, "path");
    let mut wrong = |message: String| errors.push(FieldError::invalid(path.child("path"), value, message));
    let Some(Value::String(kind)) = at(rule, "pathType") else {
        errors.push(FieldError::required(path.child("pathType"), "pathType must be specified"));
        return;
    };
    match kind.as_str() {
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                wrong("must be an absolute path".to_owned());
            }
            let inside = ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| value.contains(part));
            inside.for_each(|part| wrong(format!("must not contain '{part}'")));
            let ends = ["/..", "/."].into_iter().filter(|end| value.ends_with(end));
            ends.for_each(|end| wrong(format!("cannot end with '{end}'")));
        }
        "ImplementationSpecific" if !value.is_empty() && !value.starts_with('/') => {
            wrong("must be an absolute path".to_owned());
        }
        "ImplementationSpecific" => {}
        other => {
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(path.child("pathType"), other, kinds));
        }
    }
    backend(errors, path.child("backend"), at(rule, "backend").unwrap_or(&Value::Null));
}

fn backend(errors: &mut Errors, path: Path, backend: &Value) {
    match (at(backend, "resource"), at(backend, "service")) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, "", "cannot set both resource and service backends"));
        }
        (None, None) => errors.push(FieldError::invalid(path, "", "resource or service backend is required")),
        (Some(resource), None) => reference(errors, path.child("resource"), resource),
        (None, Some(service)) => backend_service(errors, path, service),
    }
}

fn backend_service(errors: &mut Errors, path: Path, service: &Value) {
    let own = path.child("service");
    named(errors, &own, service, "name", names::dns1123_label);
    let port = own.child("port");
    match (text(service, "port.name"), int(service, "port.number").unwrap_or(0)) {
        ("", 0) => errors.push(FieldError::required(path, "port name or number is required")),
        ("", number) => crate::check::port(errors, port.child("number"), Some(&number.into())),
        (name, 0) => follows(errors, port.child("name"), name, names::port_name),
        _ => errors.push(FieldError::invalid(path, "", "cannot set both port name & port number")),
    }
}

/// A reference to an object of any kind by name.
pub(crate) fn reference(errors: &mut Errors, path: Path, reference: &Value) {
    if let Some(Value::String(group)) = at(reference, "apiGroup") {
        follows(errors, path.child("apiGroup"), group, names::dns1123_subdomain);
    }
    named(errors, &path, reference, "kind", names::path_segment);
    named(errors, &path, reference, "name", names::path_segment);
}

fn check_status(ingress: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let root = Path::root("status");
    let balancer = root.child("loadBalancer");
    let list = balancer.child("ingress");
    for (i, entry) in items(ingress, "status.loadBalancer.ingress").iter().enumerate() {
        let path = list.index(i);
        named_if_set(&mut errors, &path, entry, "ip", names::ip);
        named_if_set(&mut errors, &path, entry, "hostname", names::dns1123_subdomain);
    }
    errors
}

/// The annotation that named a class before there was a field.
fn warnings(ingress: &Value, old: Option<&Value>) -> Vec<String> {
    const OLD_CLASS: &str = "kubernetes.io/ingress.class";
    let has = |ingress: &Value| at(ingress, "metadata.annotations").is_some_and(|a| a.get(OLD_CLASS).is_some());
    match old.is_none() && has(ingress) {
        true => vec![format!("annotation {OLD_CLASS:?} is deprecated, please use 'spec.ingressClassName' instead")],
        false => Vec::new(),
    }
}
