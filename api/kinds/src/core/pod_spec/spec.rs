//! What makes a pod spec valid as a whole. The parts are in the files beside this one.

use meta::{FieldError, Path, names};
use serde_json::Value;

use super::{affinity, container, resources, security, volume};
use crate::check::{Errors, follows, in_range, label_selector, labels, named_if_set, one_of, one_of_if_set};
use crate::value::{at, flag, int, items, map, text};

/// Whose spec it is.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Name of the pod; empty for templates, whose pods have none yet.
    pub name: &'a str,
    /// A pod itself, for which some rules are stricter than for templates.
    pub is_pod: bool,
}

/// Nameservers and search paths that a resolver takes.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;

/// Labels, annotations and spec of a pod template at `path`.
pub(crate) fn template(errors: &mut Errors, path: Path, template: Option<&Value>) {
    let template = template.unwrap_or(&Value::Null);
    let metadata = at(template, "metadata").unwrap_or(&Value::Null);
    crate::metadata::labels(map(metadata, "labels"), &path.child("labels"), errors);
    crate::metadata::annotations(map(metadata, "annotations"), &path.child("annotations"), errors);
    let spec = at(template, "spec").unwrap_or(&Value::Null);
    validate(errors, path.child("spec"), spec, Subject { name: "", is_pod: false });
    if !items(spec, "ephemeralContainers").is_empty() {
        let message = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(path.child("spec").child("ephemeralContainers"), message));
    }
}

/// Everything wrong with a pod spec.
pub(crate) fn validate(errors: &mut Errors, path: Path, spec: &Value, subject: Subject) {
    if int(spec, "terminationGracePeriodSeconds").is_none() {
        errors.push(FieldError::required(path.child("terminationGracePeriodSeconds"), ""));
    }
    let volumes = volume::validate_all(errors, path.child("volumes"), spec, subject.name);
    claims(errors, path.child("resourceClaims"), items(spec, "resourceClaims"));
    container::validate_all(errors, path, spec, &volumes);
    resources::of_pod(errors, path, spec);
    host_network_ports(errors, path, spec, subject);
    one_of(errors, &path, spec, "restartPolicy", &["Always", "OnFailure", "Never"]);
    one_of(errors, &path, spec, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    labels(errors, path.child("nodeSelector"), spec, "nodeSelector");
    security::of_pod(errors, path, spec);
    if flag(spec, "hostPID") && flag(spec, "shareProcessNamespace") {
        let message = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(path.child("shareProcessNamespace"), true, message));
    }
    affinity::validate(errors, path.child("affinity"), at(spec, "affinity"));
    dns_config(errors, path.child("dnsConfig"), spec);
    let gates = path.child("readinessGates");
    for (i, gate) in items(spec, "readinessGates").iter().enumerate() {
        let gate_path = gates.index(i);
        follows(errors, gate_path.child("conditionType"), text(gate, "conditionType"), names::qualified_name);
    }
    scheduling_gates(errors, path.child("schedulingGates"), spec);
    spread(errors, path.child("topologySpreadConstraints"), items(spec, "topologySpreadConstraints"));
    host_users(errors, path, spec);
    hostname_override(errors, path, spec);
    names_and_limits(errors, path, spec);
    os(errors, path, spec);
}

fn names_and_limits(errors: &mut Errors, path: Path, spec: &Value) {
    named_if_set(errors, &path, spec, "serviceAccountName", names::dns1123_subdomain);
    named_if_set(errors, &path, spec, "nodeName", names::dns1123_subdomain);
    in_range(errors, &path, spec, "activeDeadlineSeconds", 1, i64::from(i32::MAX));
    named_if_set(errors, &path, spec, "hostname", names::dns1123_label);
    named_if_set(errors, &path, spec, "subdomain", names::dns1123_label);
    tolerations(errors, path.child("tolerations"), items(spec, "tolerations"));
    host_aliases(errors, path.child("hostAliases"), items(spec, "hostAliases"));
    named_if_set(errors, &path, spec, "priorityClassName", names::dns1123_subdomain);
    if let Some(Value::String(class)) = at(spec, "runtimeClassName") {
        follows(errors, path.child("runtimeClassName"), class, names::dns1123_subdomain);
    }
    one_of_if_set(errors, &path, spec, "preemptionPolicy", &["PreemptLowerPriority", "Never"]);
    if let Some(overhead) = at(spec, "overhead") {
        let wrapped = serde_json::json!({"limits": overhead});
        let mut found = Vec::new();
        resources::requirements(&mut found, path.child("overhead"), &wrapped, resources::Of::Container);
        let (from, to) = (path.child("overhead").child("limits").to_string(), path.child("overhead").to_string());
        errors.extend(found.into_iter().map(|e| FieldError { path: e.path.replacen(&from, &to, 1), ..e }));
    }
}

fn claims(errors: &mut Errors, path: Path, claims: &[Value]) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, claim) in claims.iter().enumerate() {
        let path = path.index(i);
        let name = text(claim, "name");
        if name.is_empty() {
            errors.push(FieldError::required(path.child("name"), ""));
        } else if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        } else {
            follows(errors, path.child("name"), name, names::dns1123_label);
            seen.push(name);
        }
        let (own, template) = (at(claim, "resourceClaimName"), at(claim, "resourceClaimTemplateName"));
        match (own, template) {
            (Some(_), Some(_)) => {
                let message = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(FieldError::invalid(path, claim.clone(), message));
            }
            (None, None) => {
                let message = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(FieldError::invalid(path, claim.clone(), message));
            }
            _ => {}
        }
        for key in ["resourceClaimName", "resourceClaimTemplateName"] {
            named_if_set(errors, &path, claim, key, names::dns1123_subdomain);
        }
    }
}

fn host_network_ports(errors: &mut Errors, path: Path, spec: &Value, subject: Subject) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    let list = path.child("containers");
    for (i, container) in items(spec, "containers").iter().enumerate() {
        let container_path = list.index(i);
        let ports = container_path.child("ports");
        for (j, port) in items(container, "ports").iter().enumerate() {
            let (host, own) = (int(port, "hostPort").unwrap_or(0), int(port, "containerPort").unwrap_or(0));
            if (subject.is_pod || host != 0) && host != own {
                let message = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(ports.index(j).child("hostPort"), host, message));
            }
        }
    }
}

fn dns_config(errors: &mut Errors, path: Path, spec: &Value) {
    let config = at(spec, "dnsConfig");
    let servers = config.map_or(&[][..], |c| items(c, "nameservers"));
    if text(spec, "dnsPolicy") == "None" {
        if config.is_none() {
            errors.push(FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(path.child("nameservers"), message));
            return;
        }
    }
    let Some(config) = config else { return };
    let at_most = |n: usize, what: &str| format!("must not have more than {n} {what}");
    if servers.len() > MAX_NAMESERVERS {
        let message = at_most(MAX_NAMESERVERS, "nameservers");
        errors.push(FieldError::invalid(path.child("nameservers"), servers.to_vec(), message));
    }
    let list = path.child("nameservers");
    for (i, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        follows(errors, list.index(i), server, names::ip);
    }
    let searches: Vec<&str> = items(config, "searches").iter().filter_map(Value::as_str).collect();
    if searches.len() > MAX_SEARCHES {
        let message = at_most(MAX_SEARCHES, "search paths");
        errors.push(FieldError::invalid(path.child("searches"), searches.clone(), message));
    }
    if searches.join(" ").len() > MAX_SEARCH_LENGTH {
        let message = at_most(MAX_SEARCH_LENGTH, "characters (including spaces) in the search list");
        errors.push(FieldError::invalid(path.child("searches"), searches.clone(), message));
    }
    let list = path.child("searches");
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| **s != ".") {
        follows(errors, list.index(i), search.strip_suffix('.').unwrap_or(search), names::dns1123_subdomain_underscore);
    }
    let list = path.child("options");
    for (i, option) in items(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.push(FieldError::required(list.index(i), "must not be empty"));
        }
    }
}

fn scheduling_gates(errors: &mut Errors, path: Path, spec: &Value) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, gate) in items(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        follows(errors, path.index(i), name, names::qualified_name);
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(path.index(i), name));
        }
        seen.push(name);
    }
}

fn spread(errors: &mut Errors, path: Path, constraints: &[Value]) {
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        let skew = int(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(path.child("maxSkew"), skew, "must be greater than zero"));
        }
        if text(constraint, "topologyKey").is_empty() {
            errors.push(FieldError::required(path.child("topologyKey"), "can not be empty"));
        }
        let action = text(constraint, "whenUnsatisfiable");
        crate::check::among(errors, path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        let same = |other: &Value| {
            ["topologyKey", "whenUnsatisfiable"].iter().all(|key| text(other, key) == text(constraint, key))
        };
        if constraints[i + 1..].iter().any(same) {
            let value = format!("{{{}, {action}}}", text(constraint, "topologyKey"));
            errors.push(FieldError::duplicate(path.child("{topologyKey, whenUnsatisfiable}"), value));
        }
        if let Some(domains) = int(constraint, "minDomains") {
            if domains <= 0 {
                errors.push(FieldError::invalid(path.child("minDomains"), domains, "must be greater than zero"));
            }
            if action != "DoNotSchedule" {
                let message = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(FieldError::invalid(path.child("minDomains"), domains, message));
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            one_of_if_set(errors, &path, constraint, key, &["Honor", "Ignore"]);
        }
        affinity::label_keys(errors, path, constraint);
        label_selector(errors, path.child("labelSelector"), at(constraint, "labelSelector"));
    }
}

/// A user namespace of its own needs the other namespaces too.
fn host_users(errors: &mut Errors, path: Path, spec: &Value) {
    if at(spec, "hostUsers") != Some(&Value::Bool(false)) {
        return;
    }
    for (key, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if flag(spec, key) {
            errors.push(FieldError::forbidden(path.child(shown), "when `hostUsers` is false"));
        }
    }
}

fn hostname_override(errors: &mut Errors, path: Path, spec: &Value) {
    let Some(Value::String(name)) = at(spec, "hostnameOverride") else { return };
    let path_to = path.child("hostnameOverride");
    if flag(spec, "setHostnameAsFQDN") {
        errors.push(FieldError::forbidden(path_to, "may not be specified when setHostnameAsFQDN is true"));
    }
    if flag(spec, "hostNetwork") {
        errors.push(FieldError::forbidden(path_to, "may not be specified when hostNetwork is true"));
    }
    if name.len() > 64 {
        errors.push(FieldError::too_long(path_to, 64));
    }
    follows(errors, path_to, name, names::dns1123_subdomain);
}

/// What taints a pod stands.
pub(crate) fn tolerations(errors: &mut Errors, path: Path, tolerations: &[Value]) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let (key, operator, value) = (text(toleration, "key"), text(toleration, "operator"), text(toleration, "value"));
        let effect = text(toleration, "effect");
        if !key.is_empty() {
            follows(errors, path.child("key"), key, names::qualified_name);
        }
        if key.is_empty() && operator != "Exists" {
            let message = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(path.child("operator"), operator, message));
        }
        if int(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
            let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(path.child("effect"), effect, message));
        }
        match operator {
            "Equal" | "" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    errors.push(FieldError::invalid(path.child("operator"), value, wrong.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let message = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(path.child("operator"), value, message));
            }
            "Exists" => {}
            "Lt" | "Gt" => {
                let allowed = ["Equal", "Exists", "Lt", "Gt"];
                errors.push(FieldError::not_supported(path.child("operator"), operator, allowed));
            }
            _ => errors.push(FieldError::not_supported(path.child("operator"), operator, ["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            crate::check::among(errors, path.child("effect"), effect, &EFFECTS);
        }
    }
}

/// Effects of taints, in the order upstream lists them.
pub(crate) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

fn host_aliases(errors: &mut Errors, path: Path, aliases: &[Value]) {
    for (i, alias) in aliases.iter().enumerate() {
        let path = path.index(i);
        follows(errors, path.child("ip"), text(alias, "ip"), names::ip);
        let list = path.child("hostnames");
        for (j, name) in items(alias, "hostnames").iter().filter_map(Value::as_str).enumerate() {
            follows(errors, list.index(j), name, names::dns1123_subdomain);
        }
    }
}

fn os(errors: &mut Errors, path: Path, spec: &Value) {
    let Some(os) = at(spec, "os") else { return };
    let os_path = path.child("os");
    match text(os, "name") {
        "" => errors.push(FieldError::required(os_path.child("name"), "cannot be empty")),
        "linux" => {
            let message = "windows options cannot be set for a linux pod";
            let windows = |object: &Value| at(object, "securityContext.windowsOptions").is_some();
            if windows(spec) {
                let context = path.child("securityContext");
                errors.push(FieldError::forbidden(context.child("windowsOptions"), message));
            }
            for list in super::defaults::CONTAINERS {
                let list_path = path.child(list);
                for (i, _) in items(spec, list).iter().enumerate().filter(|(_, c)| windows(c)) {
                    let container = list_path.index(i);
                    let context = container.child("securityContext");
                    errors.push(FieldError::forbidden(context.child("windowsOptions"), message));
                }
            }
        }
        "windows" => {}
        other => errors.push(FieldError::not_supported(os_path, other, ["linux", "windows"])),
    }
}
