//! What makes a pod valid, and what of it may change: almost nothing through the main resource, resources through
//! /resize, ephemeral containers through theirs.

use std::collections::BTreeSet;

use meta::{FieldError, Path, names};
use serde_json::Value;

use super::pod_spec::{Subject, container_image_space, tolerations, validate as validate_spec};
use super::pod_strategy::quality_of_service;
use crate::check::{Errors, follows, immutable};
use crate::value::{at, int, items, map, same, set, text};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const LISTS: [&str; 2] = ["containers", "initContainers"];

/// A new pod.
pub(crate) fn create(pod: &Value) -> Vec<FieldError> {
    let mut errors = metadata_and_spec(pod);
    let spec = Path::root("spec");
    if !items(pod, "spec.ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(spec.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !text(pod, "spec.nodeName").is_empty() && !items(pod, "spec.schedulingGates").is_empty() {
        let message = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(spec.child("nodeName"), message));
    }
    errors
}

/// What holds for a pod at any time, beside object metadata.
fn metadata_and_spec(pod: &Value) -> Errors {
    let mut errors = Vec::new();
    let spec = at(pod, "spec").unwrap_or(&Value::Null);
    let path = Path::root("spec");
    annotations(&mut errors, pod, spec);
    validate_spec(&mut errors, path, spec, Subject { name: text(pod, "metadata.name"), is_pod: true });
    if text(spec, "serviceAccountName").is_empty() {
        let volumes = path.child("volumes");
        for (i, volume) in items(spec, "volumes").iter().enumerate() {
            let volume_path = volumes.index(i);
            let projected = volume_path.child("projected");
            let sources = projected.child("sources");
            for (j, source) in items(volume, "projected.sources").iter().enumerate() {
                if at(source, "serviceAccountToken").is_some() {
                    let message = "must not be specified when serviceAccountName is not set";
                    let place = sources.index(j);
                    errors.push(FieldError::forbidden(place.child("serviceAccountToken"), message));
                }
            }
        }
    }
    crate::check::not_negative(&mut errors, &path, spec, "terminationGracePeriodSeconds");
    for list in LISTS {
        let list_path = path.child(list);
        for (i, container) in items(spec, list).iter().enumerate() {
            container_image_space(&mut errors, list_path.index(i), container);
        }
    }
    errors
}

fn annotations(errors: &mut Errors, pod: &Value, spec: &Value) {
    let metadata = Path::root("metadata");
    let path = metadata.child("annotations");
    let annotation = |key: &str| map(pod, "metadata.annotations").and_then(|a| a.get(key)).and_then(Value::as_str);
    if let Some(value) = annotation(MIRROR).filter(|_| text(spec, "nodeName").is_empty()) {
        let message = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(path.key(MIRROR), value, message));
    }
    if let Some(cost) = annotation(DELETION_COST) {
        let plain = !cost.starts_with('+') && (cost == "0" || !cost.trim_start_matches('-').starts_with('0'));
        if !plain || cost.parse::<i32>().is_err() {
            errors.push(FieldError::invalid(path.key(DELETION_COST), cost, "must be a 32bit integer"));
        }
    }
}

/// An update through the main resource.
pub(crate) fn update(pod: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = metadata_and_spec(pod);
    annotation_updates(&mut errors, pod, old);
    let path = Path::root("spec");
    for list in LISTS {
        let full = format!("spec.{list}");
        if items(pod, &full).len() != items(old, &full).len() {
            errors.push(FieldError::forbidden(path.child(list), "pod updates may not add or remove containers"));
            return errors;
        }
        let list_path = path.child(list);
        for (i, container) in items(pod, &full).iter().enumerate() {
            let place = list_path.index(i);
            if text(container, "image").is_empty() {
                errors.push(FieldError::required(place.child("image"), ""));
            }
            container_image_space(&mut errors, place, container);
        }
    }
    if !deadline(&mut errors, pod, old) {
        return errors;
    }
    toleration_updates(&mut errors, pod, old);
    gate_updates(&mut errors, pod, old);
    let allowed = with_mutable_fields_of(pod, old);
    if !same(at(&allowed, "spec"), at(old, "spec")) {
        let message = "pod updates may not change fields other than `spec.containers[*].image`,\
            `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
            tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        let changed = differences(at(old, "spec"), at(&allowed, "spec"));
        errors.push(FieldError::forbidden(path, format!("{message}\n{changed}")));
    }
    errors
}

/// The new pod with every field that may change put back: what still differs may not.
fn with_mutable_fields_of(pod: &Value, old: &Value) -> Value {
    let mut munged = pod.clone();
    for list in LISTS {
        let full = format!("spec.{list}");
        for (container, was) in crate::value::items_mut(&mut munged, &full).zip(items(old, &full)) {
            crate::value::keep(container, was, "image");
        }
    }
    let mut keep = |key: &str| {
        if let Some(spec) = munged.get_mut("spec") {
            crate::value::keep(spec, at(old, "spec").unwrap_or(&Value::Null), key);
        }
    };
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        keep(key);
    }
    let grace = "spec.terminationGracePeriodSeconds";
    if int(old, grace).is_some_and(|g| g < 0) && int(pod, grace) == Some(1) {
        keep("terminationGracePeriodSeconds");
    }
    if !items(old, "spec.schedulingGates").is_empty() && selector_only_narrows(pod, old) {
        keep("nodeSelector");
        keep("affinity");
    }
    munged
}

/// A gated pod may be tied to fewer nodes, not to others.
fn selector_only_narrows(pod: &Value, old: &Value) -> bool {
    let narrower = map(old, "spec.nodeSelector")
        .into_iter()
        .flatten()
        .all(|(key, value)| map(pod, "spec.nodeSelector").is_some_and(|new| new.get(key) == Some(value)));
    let pods = |p: &Value, side: &str| at(p, &format!("spec.affinity.{side}")).cloned();
    narrower && ["podAffinity", "podAntiAffinity"].iter().all(|side| pods(pod, side) == pods(old, side))
}

/// Paths whose values differ, one a line.
fn differences(old: Option<&Value>, new: Option<&Value>) -> String {
    let empty = serde_json::Map::new();
    let fields = |v: Option<&Value>| v.and_then(Value::as_object).cloned().unwrap_or_else(|| empty.clone());
    let (old, new) = (fields(old), fields(new));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = keys.into_iter().filter(|key| !same(old.get(*key), new.get(*key)));
    let line = |key: &String| {
        let show = |v: Option<&Value>| v.map_or_else(|| "nothing".to_owned(), ToString::to_string);
        format!("  {key}: {} -> {}\n", show(old.get(key)), show(new.get(key)))
    };
    changed.map(line).collect()
}

/// False when the deadline makes looking further pointless.
fn deadline(errors: &mut Errors, pod: &Value, old: &Value) -> bool {
    let spec = Path::root("spec");
    let path = spec.child("activeDeadlineSeconds");
    match (int(pod, "spec.activeDeadlineSeconds"), int(old, "spec.activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.push(FieldError::invalid(path, new, names::range(0, i64::from(i32::MAX))));
            false
        }
        (Some(new), Some(was)) if was < new => {
            errors.push(FieldError::invalid(path, new, "must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            let message = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(path, Value::Null, message));
            true
        }
        _ => true,
    }
}

fn toleration_updates(errors: &mut Errors, pod: &Value, old: &Value) {
    let spec = Path::root("spec");
    let path = spec.child("tolerations");
    let new = items(pod, "spec.tolerations");
    let same_but_seconds =
        |a: &Value, b: &Value| ["key", "operator", "value", "effect"].iter().all(|key| text(a, key) == text(b, key));
    if items(old, "spec.tolerations").iter().any(|was| !new.iter().any(|n| same_but_seconds(n, was))) {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(path, message));
        return;
    }
    tolerations(errors, path, new);
}

fn gate_updates(errors: &mut Errors, pod: &Value, old: &Value) {
    let known: Vec<&str> = items(old, "spec.schedulingGates").iter().map(|g| text(g, "name")).collect();
    let spec = Path::root("spec");
    let path = spec.child("schedulingGates");
    for (i, gate) in items(pod, "spec.schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        if !known.contains(&name) {
            let message = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            let place = path.index(i);
            errors.push(FieldError::forbidden(place.child("name"), message));
        }
    }
}

fn annotation_updates(errors: &mut Errors, pod: &Value, old: &Value) {
    let metadata = Path::root("metadata");
    let path = metadata.child("annotations");
    let mirror = |p: &Value| map(p, "metadata.annotations").and_then(|a| a.get(MIRROR)).cloned();
    match (mirror(pod), mirror(old)) {
        (new, Some(was)) if new.as_ref() != Some(&was) => {
            errors.push(FieldError::forbidden(path.key(MIRROR), "may not remove or update mirror pod annotation"));
        }
        (Some(_), None) => errors.push(FieldError::forbidden(path.key(MIRROR), "may not add mirror pod annotation")),
        _ => {}
    }
}

/// An update of status.
pub(crate) fn status(pod: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    annotation_updates(&mut errors, pod, old);
    let path = Path::root("status");
    let conditions = path.child("conditions");
    for (i, condition) in items(pod, "status.conditions").iter().enumerate() {
        if int(condition, "observedGeneration").unwrap_or(0) < 0 {
            let place = conditions.index(i);
            let value = int(condition, "observedGeneration").unwrap_or(0);
            errors.push(FieldError::invalid(place.child("observedGeneration"), value, crate::check::NEGATIVE));
        }
    }
    let nominated = text(pod, "status.nominatedNodeName");
    if nominated != text(old, "status.nominatedNodeName") && !nominated.is_empty() {
        follows(&mut errors, path.child("nominatedNodeName"), nominated, names::dns1123_subdomain);
        if !text(old, "spec.nodeName").is_empty() {
            let message = "may not be set on pods that are already bound to a node";
            errors.push(FieldError::forbidden(path.child("nominatedNodeName"), message));
        }
    }
    let generation = int(pod, "status.observedGeneration").unwrap_or(0);
    if generation < 0 {
        let message = "must be a non-negative integer";
        errors.push(FieldError::invalid(path.child("observedGeneration"), generation, message));
    }
    let qos = |p| at(p, "status.qosClass");
    immutable(&mut errors, path.child("qosClass"), qos(pod), qos(old));
    super::pod_transitions::check(&mut errors, path, pod, old);
    addresses(&mut errors, path, pod, old);
    errors
}

fn addresses(errors: &mut Errors, path: Path, pod: &Value, old: &Value) {
    for list in ["podIPs", "hostIPs"] {
        let full = format!("status.{list}");
        let known: Vec<&str> = items(old, &full).iter().map(|ip| text(ip, "ip")).collect();
        let list_path = path.child(list);
        let ips: Vec<&str> = items(pod, &full).iter().map(|ip| text(ip, "ip")).collect();
        for (i, ip) in ips.iter().enumerate().filter(|(_, ip)| !known.contains(ip)) {
            follows(errors, list_path.index(i), ip, names::ip);
        }
        let families = (ips.iter().any(|ip| ip.contains(':')), ips.iter().any(|ip| !ip.contains(':')));
        if ips.len() > 2 || (ips.len() == 2 && families != (true, true)) {
            let value = at(pod, &full).cloned().unwrap_or_default();
            let message = "may specify no more than one IP for each IP family";
            errors.push(FieldError::invalid(list_path, value, message));
        }
    }
}

/// An update through /ephemeralcontainers: they are only ever added.
pub(crate) fn ephemeral(pod: &Value, old: &Value) -> Vec<FieldError> {
    if map(old, "metadata.annotations").is_some_and(|a| a.contains_key(MIRROR)) {
        return vec![FieldError::forbidden("", "static pods do not support ephemeral containers")];
    }
    let mut errors = metadata_and_spec(pod);
    let spec = Path::root("spec");
    let path = spec.child("ephemeralContainers");
    let new = items(pod, "spec.ephemeralContainers");
    for was in items(old, "spec.ephemeralContainers") {
        let name = meta::text::quote(text(was, "name"));
        match new.iter().find(|c| text(c, "name") == text(was, "name")) {
            None => {
                let message = format!("existing ephemeral containers {name} may not be removed\n");
                errors.push(FieldError::forbidden(path, message));
            }
            Some(now) if !same(Some(now), Some(was)) => {
                let changed = differences(Some(was), Some(now));
                let message = format!("existing ephemeral containers {name} may not be changed\n{changed}");
                errors.push(FieldError::forbidden(path, message));
            }
            Some(_) => {}
        }
    }
    errors
}

/// An update through /resize: CPU and memory of the same containers, within the same class of service.
pub(crate) fn resize(pod: &Value, old: &Value) -> Vec<FieldError> {
    if map(old, "metadata.annotations").is_some_and(|a| a.contains_key(MIRROR)) {
        return vec![FieldError::forbidden("", "static pods cannot be resized")];
    }
    let mut errors = metadata_and_spec(pod);
    let path = Path::root("spec");
    if text(old, "status.qosClass") != quality_of_service(pod) {
        let message = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(path, text(pod, "status.qosClass"), message));
    }
    if !same_containers(&mut errors, pod, old) {
        return errors;
    }
    let mut munged = pod.clone();
    for list in LISTS {
        let full = format!("spec.{list}");
        let list_path = path.child(list);
        for (i, (new, was)) in items(pod, &full).iter().zip(items(old, &full)).enumerate() {
            let place = list_path.index(i);
            removed_amounts(&mut errors, place.child("resources"), new, was);
        }
        for (container, was) in crate::value::items_mut(&mut munged, &full).zip(items(old, &full)) {
            keep_compute(container, was);
        }
    }
    if let Some(spec) = munged.get_mut("spec") {
        keep_compute(spec, at(old, "spec").unwrap_or(&Value::Null));
    }
    if errors.is_empty() && !same(at(&munged, "spec"), at(old, "spec")) {
        errors.push(FieldError::forbidden(path, "only cpu and memory resources are mutable"));
    }
    errors
}

fn same_containers(errors: &mut Errors, pod: &Value, old: &Value) -> bool {
    let before = errors.len();
    let path = Path::root("spec");
    for list in LISTS {
        let full = format!("spec.{list}");
        let (new, was) = (items(pod, &full), items(old, &full));
        if new.len() != was.len() {
            let message = format!("{list} may not be added or removed on resize");
            errors.push(FieldError::forbidden(path.child(list), message));
            continue;
        }
        let list_path = path.child(list);
        for (i, _) in new.iter().zip(was).enumerate().filter(|(_, (n, w))| text(n, "name") != text(w, "name")) {
            let message = format!("{list} may not be renamed or reordered on resize");
            let place = list_path.index(i);
            errors.push(FieldError::forbidden(place.child("name"), message));
        }
    }
    errors.len() == before
}

fn removed_amounts(errors: &mut Errors, path: Path, new: &Value, old: &Value) {
    for (list, what) in [("limits", "limits"), ("requests", "requests")] {
        let full = format!("resources.{list}");
        let gone = |name: &String| !map(new, &full).is_some_and(|m| m.contains_key(name));
        if map(old, &full).into_iter().flatten().any(|(name, _)| gone(name)) {
            errors.push(FieldError::forbidden(path.child(list), format!("resource {what} cannot be removed")));
        }
    }
}

/// Puts back CPU and memory and the policies of resizing.
fn keep_compute(holder: &mut Value, old: &Value) {
    for list in ["limits", "requests"] {
        for name in ["cpu", "memory"] {
            let path = format!("resources.{list}.{name}");
            match at(old, &path).cloned() {
                Some(amount) => set(holder, &path, amount),
                None => drop(crate::value::remove(holder, &path)),
            }
            let full = format!("resources.{list}");
            if map(holder, &full).is_some_and(|m| m.is_empty()) && at(old, &full).is_none() {
                crate::value::remove(holder, &full);
            }
        }
    }
}
