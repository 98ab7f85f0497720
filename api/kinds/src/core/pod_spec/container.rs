//! Containers of a pod: the three lists, what they share and how they differ.

use std::collections::{BTreeMap, BTreeSet};

use meta::{FieldError, Path, names};
use serde_json::Value;

use super::resources::{Of, claims, requirements};
use super::volume::Volumes;
use super::{env, probe, security};
use crate::check::{Errors, Rule, named, no_backsteps, one_of, present, relative_path};
use crate::value::{at, flag, int, items, text};

/// What containers need to know of their pod.
struct Pod<'a> {
    volumes: &'a Volumes<'a>,
    claims: BTreeSet<&'a str>,
    grace: Option<i64>,
    host_users: bool,
    restart_policy: &'a str,
}

const ALWAYS_ONLY: &str = "may not be set for init containers without restartPolicy=Always";
const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
const POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];

/// Everything wrong with the containers of a spec. `path` is the spec's.
pub(super) fn validate_all(errors: &mut Errors, path: Path, spec: &Value, volumes: &Volumes) {
    let pod = Pod {
        volumes,
        claims: items(spec, "resourceClaims").iter().map(|c| text(c, "name")).collect(),
        grace: int(spec, "terminationGracePeriodSeconds"),
        host_users: at(spec, "hostUsers") != Some(&Value::Bool(false)),
        restart_policy: text(spec, "restartPolicy"),
    };
    let regular = items(spec, "containers");
    let mut names: BTreeSet<&str> = BTreeSet::new();
    if regular.is_empty() {
        errors.push(FieldError::required(path.child("containers"), ""));
    }
    let list = path.child("containers");
    for (i, container) in regular.iter().enumerate() {
        let path = list.index(i);
        common(errors, path, container, &pod);
        unique_name(errors, path, container, &mut names);
        probe::lifecycle(errors, path, container, pod.grace);
        probe::probes(errors, path, container);
        restart_rules(errors, path, container);
    }
    host_ports(errors, list, regular);
    init_containers(errors, path, spec, &pod, &mut names);
    ephemeral_containers(errors, path, spec, &pod, &mut names);
}

fn unique_name<'a>(errors: &mut Errors, path: Path, container: &'a Value, names: &mut BTreeSet<&'a str>) {
    let name = text(container, "name");
    if !names.insert(name) {
        errors.push(FieldError::duplicate(path.child("name"), name));
    }
}

fn init_containers<'a>(errors: &mut Errors, path: Path, spec: &'a Value, pod: &Pod, names: &mut BTreeSet<&'a str>) {
    let list = path.child("initContainers");
    for (i, container) in items(spec, "initContainers").iter().enumerate() {
        let path = list.index(i);
        common(errors, path, container, pod);
        let always = text(container, "restartPolicy") == "Always";
        restart_rules(errors, path, container);
        if !text(container, "name").is_empty() {
            unique_name(errors, path, container, names);
        }
        host_ports(errors, list, std::slice::from_ref(container));
        if always {
            probe::lifecycle(errors, path, container, pod.grace);
            probe::probes(errors, path, container);
        } else {
            for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if at(container, key).is_some() {
                    errors.push(FieldError::forbidden(path.child(key), ALWAYS_ONLY));
                }
            }
            let policies = path.child("resizePolicy");
            for (j, policy) in items(container, "resizePolicy").iter().enumerate() {
                if text(policy, "restartPolicy") == "RestartContainer" {
                    let message = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                    let place = policies.index(j);
                    errors.push(FieldError::invalid(place.child("restartPolicy"), "RestartContainer", message));
                }
            }
        }
    }
}

fn ephemeral_containers<'a>(
    errors: &mut Errors,
    path: Path,
    spec: &'a Value,
    pod: &Pod,
    names: &mut BTreeSet<&'a str>,
) {
    let others = names.clone();
    let list = path.child("ephemeralContainers");
    for (i, container) in items(spec, "ephemeralContainers").iter().enumerate() {
        let path = list.index(i);
        common(errors, path, container, pod);
        image_space(errors, path, container);
        unique_name(errors, path, container, names);
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errors.push(FieldError::not_found(path.child("targetContainerName"), target));
        }
        for key in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy"] {
            if at(container, key).is_some_and(|v| v.as_array().is_none_or(|l| !l.is_empty())) {
                errors.push(FieldError::forbidden(path.child(key), NOT_EPHEMERAL));
            }
        }
        if at(container, "resources").is_some_and(|r| r.as_object().is_some_and(|r| !r.is_empty())) {
            errors.push(FieldError::forbidden(path.child("resources"), NOT_EPHEMERAL));
        }
        let mounts = path.child("volumeMounts");
        for (j, mount) in items(container, "volumeMounts").iter().enumerate() {
            for key in ["subPath", "subPathExpr"] {
                if !text(mount, key).is_empty() {
                    let place = mounts.index(j);
                    errors.push(FieldError::forbidden(place.child(key), NOT_EPHEMERAL));
                }
            }
        }
    }
}

/// An image reference has no space around it.
pub(crate) fn image_space(errors: &mut Errors, path: Path, container: &Value) {
    let image = text(container, "image");
    if image.trim() != image {
        let message = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(path.child("image"), image, message));
    }
}

fn common(errors: &mut Errors, path: Path, container: &Value, pod: &Pod) {
    named(errors, &path, container, "name", names::dns1123_label as Rule);
    present(errors, &path, container, "image");
    one_of(errors, &path, container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"]);
    ports(errors, path.child("ports"), items(container, "ports"));
    env::variables(errors, path.child("env"), items(container, "env"));
    env::sources(errors, path.child("envFrom"), items(container, "envFrom"));
    mounts(errors, path, container, pod.volumes);
    devices(errors, path, container, pod.volumes);
    one_of(errors, &path, container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"]);
    let resources = at(container, "resources").unwrap_or(&Value::Null);
    requirements(errors, path.child("resources"), resources, Of::Container);
    let resources_path = path.child("resources");
    claims(errors, resources_path.child("claims"), resources, &pod.claims);
    resize_policies(errors, path.child("resizePolicy"), container, pod);
    security::of_container(errors, path.child("securityContext"), container, pod.host_users);
}

fn ports(errors: &mut Errors, path: Path, ports: &[Value]) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && seen.contains(&name) {
                errors.push(FieldError::duplicate(path.child("name"), name));
            } else if wrong.is_empty() {
                seen.push(name);
            }
            errors.extend(wrong.into_iter().map(|m| FieldError::invalid(path.child("name"), name, m)));
        }
        let mut number = |key: &str, needed: bool| {
            let value = int(port, key).unwrap_or(0);
            if value == 0 && needed {
                errors.push(FieldError::required(path.child(key), ""));
            } else if value != 0 {
                let wrong = names::port_number(value).into_iter();
                errors.extend(wrong.map(|m| FieldError::invalid(path.child(key), value, m)));
            }
        };
        number("containerPort", true);
        number("hostPort", false);
        one_of(errors, &path, port, "protocol", &["SCTP", "TCP", "UDP"]);
    }
}

/// Two ports of the same containers cannot be the same port of the host.
fn host_ports(errors: &mut Errors, path: Path, containers: &[Value]) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let container_path = path.index(i);
        let list = container_path.child("ports");
        for (j, port) in items(container, "ports").iter().enumerate() {
            let number = int(port, "hostPort").unwrap_or(0);
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if !seen.insert(key.clone()) {
                errors.push(FieldError::duplicate(list.index(j).child("hostPort"), key));
            }
        }
    }
}

fn mounts(errors: &mut Errors, path: Path, container: &Value, volumes: &Volumes) {
    let devices: BTreeMap<&str, &str> =
        items(container, "volumeDevices").iter().map(|d| (text(d, "name"), text(d, "devicePath"))).collect();
    let mut points = BTreeSet::new();
    let list = path.child("volumeMounts");
    for (i, mount) in items(container, "volumeMounts").iter().enumerate() {
        let path = list.index(i);
        let (name, point) = (text(mount, "name"), text(mount, "mountPath"));
        present(errors, &path, mount, "name");
        if !volumes.contains_key(name) {
            errors.push(FieldError::not_found(path.child("name"), name));
        }
        present(errors, &path, mount, "mountPath");
        if !points.insert(point) {
            errors.push(FieldError::invalid(path.child("mountPath"), point, "must be unique"));
        }
        if devices.contains_key(name) {
            errors.push(FieldError::invalid(path.child("name"), name, "must not already exist in volumeDevices"));
        }
        if devices.values().any(|device| *device == point) {
            let message = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(path.child("mountPath"), point, message));
        }
        let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        if !sub.is_empty() {
            relative_path(errors, list.child("subPath"), sub);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                let message = "subPathExpr and subPath are mutually exclusive";
                errors.push(FieldError::invalid(path.child("subPathExpr"), expression, message));
            }
            relative_path(errors, list.child("subPathExpr"), expression);
        }
        propagation(errors, list, mount, container);
    }
}

fn propagation(errors: &mut Errors, list: Path, mount: &Value, container: &Value) {
    if let Some(Value::String(mode)) = at(mount, "mountPropagation") {
        let path = list.child("mountPropagation");
        crate::check::among(errors, path, mode, &["Bidirectional", "HostToContainer", "None"]);
        if mode == "Bidirectional" && !flag(container, "securityContext.privileged") {
            let message = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(path, message));
        }
    }
    let path = list.child("recursiveReadOnly");
    match at(mount, "recursiveReadOnly").and_then(Value::as_str) {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, "readOnly") {
                errors.push(FieldError::forbidden(path, "may only be specified when readOnly is true"));
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                let message = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path, message));
            }
        }
        Some(other) => errors.push(FieldError::not_supported(path, other, ["Disabled", "Enabled", "IfPossible"])),
    }
}

fn devices(errors: &mut Errors, path: Path, container: &Value, volumes: &Volumes) {
    let mounts: BTreeMap<&str, &str> =
        items(container, "volumeMounts").iter().map(|m| (text(m, "name"), text(m, "mountPath"))).collect();
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    let list = path.child("volumeDevices");
    for (i, device) in items(container, "volumeDevices").iter().enumerate() {
        let path = list.index(i);
        let (name, device_path) = (text(device, "name"), text(device, "devicePath"));
        present(errors, &path, device, "name");
        if !name.is_empty() && !names.insert(name) {
            errors.push(FieldError::invalid(path.child("name"), name, "must be unique"));
        }
        match volumes.get(name) {
            None => errors.push(FieldError::not_found(path.child("name"), name)),
            Some(volume) if at(volume, "persistentVolumeClaim").is_none() && at(volume, "ephemeral").is_none() => {
                let message = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(path.child("name"), name, message));
            }
            Some(_) => {}
        }
        present(errors, &path, device, "devicePath");
        if paths.contains(device_path) {
            errors.push(FieldError::invalid(path.child("devicePath"), device_path, "must be unique"));
        }
        let mut back = Vec::new();
        no_backsteps(&mut back, path, device_path);
        if back.is_empty() {
            paths.insert(device_path);
        } else {
            let message = "can not contain backsteps ('..')";
            errors.push(FieldError::invalid(path.child("devicePath"), device_path, message));
        }
        if mounts.contains_key(name) {
            errors.push(FieldError::invalid(path.child("name"), name, "must not already exist in volumeMounts"));
        }
        if mounts.values().any(|mount| *mount == device_path) {
            let message = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(path.child("devicePath"), device_path, message));
        }
    }
}

fn resize_policies(errors: &mut Errors, path: Path, container: &Value, pod: &Pod) {
    let mut seen = BTreeSet::new();
    for (i, policy) in items(container, "resizePolicy").iter().enumerate() {
        let (name, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path.index(i), name));
        }
        for (value, allowed) in [(name, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])] {
            match value {
                "" => errors.push(FieldError::required(path, "")),
                value => crate::check::among(errors, path, value, &allowed),
            }
        }
        if pod.restart_policy == "Never" && restart != "NotRequired" {
            let message = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, restart, message));
        }
    }
}

/// Restart policy and rules of one container.
fn restart_rules(errors: &mut Errors, path: Path, container: &Value) {
    let rules = items(container, "restartPolicyRules");
    match at(container, "restartPolicy").and_then(Value::as_str) {
        None if !rules.is_empty() => {
            let message = "must specify restartPolicy when restart rules are used";
            errors.push(FieldError::required(path.child("restartPolicy"), message));
        }
        None => return,
        Some(policy) => crate::check::among(errors, path.child("restartPolicy"), policy, &POLICIES),
    }
    let list = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.push(FieldError::too_many(list, rules.len() as i64, 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = list.index(i);
        let actions = ["Restart", "RestartAllContainers"];
        crate::check::among(errors, path.child("action"), text(rule, "action"), &actions);
        let codes = path.child("exitCodes");
        match at(rule, "exitCodes") {
            None => errors.push(FieldError::required(codes, "must be specified")),
            Some(on) => {
                crate::check::among(errors, codes.child("operator"), text(on, "operator"), &["In", "NotIn"]);
                let count = items(on, "values").len();
                if count > 255 {
                    errors.push(FieldError::too_many(codes.child("values"), count as i64, 255));
                }
            }
        }
    }
}
