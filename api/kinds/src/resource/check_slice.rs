//! What makes a slice of a pool of devices valid.

use meta::{FieldError, Path, Quantity, names};
use serde_json::Value;

use super::{driver_name, each, pool_name, qualified, taint};
use crate::check::{Errors, IMMUTABLE, follows};
use crate::core::pod_spec::affinity::node_selector;
use crate::value::{at, flag, int, items, map, text};

const MOST_DEVICES: usize = 128;
/// Attributes and capacities of one device together.
const MOST_ATTRIBUTES: usize = 32;
const MOST_TAINTS: usize = 16;
const MOST_COUNTERS: usize = 32;
const VALUE_LIMIT: usize = 64;
/// Where the devices are: one of these says it.
const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];

/// Everything wrong with a slice.
pub(super) fn create(slice: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(slice, "spec").unwrap_or(&Value::Null);
    driver_name(&mut errors, path.child("driver"), text(spec, "driver"));
    pool(&mut errors, path.child("pool"), at(spec, "pool").unwrap_or(&Value::Null));
    place(&mut errors, path, spec, &PLACES);
    if !items(spec, "devices").is_empty() && !items(spec, "sharedCounters").is_empty() {
        let message = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(FieldError::invalid(path, Value::Null, message));
    }
    let per_device = flag(spec, "perDeviceNodeSelection");
    each(&mut errors, path.child("devices"), items(spec, "devices"), MOST_DEVICES, "name", |errors, path, device| {
        check_device(errors, path, device, per_device);
    });
    let list = path.child("sharedCounters");
    each(&mut errors, list, items(spec, "sharedCounters"), MOST_COUNTERS, "name", |errors, path, set| {
        crate::check::named(errors, &path, set, "name", names::dns1123_label);
        counters(errors, path.child("counters"), set);
    });
    errors
}

/// Driver, pool and node of a slice stay.
pub(super) fn update(slice: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = create(slice);
    for path in ["spec.driver", "spec.nodeName", "spec.pool.name"] {
        let (new, was) = (at(slice, path), at(old, path));
        if new != was {
            errors.push(FieldError::invalid(path, new.cloned().unwrap_or_default(), IMMUTABLE));
        }
    }
    errors
}

fn pool(errors: &mut Errors, path: Path, pool: &Value) {
    pool_name(errors, path.child("name"), text(pool, "name"));
    let (count, generation) = (int(pool, "resourceSliceCount").unwrap_or(0), int(pool, "generation").unwrap_or(0));
    if count <= 0 {
        errors.push(FieldError::invalid(path.child("resourceSliceCount"), count, "must be greater than zero"));
    }
    if generation < 0 {
        let message = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(path.child("generation"), generation, message));
    }
}

/// Exactly one of `places` says which nodes reach the devices.
fn place(errors: &mut Errors, path: Path, of: &Value, places: &[&str]) {
    let mut found = Vec::new();
    for key in places {
        match at(of, key) {
            None => {}
            Some(Value::Bool(true)) => found.push(*key),
            Some(Value::Bool(false)) => {
                let message = "must be either unset or set to true";
                errors.push(FieldError::invalid(path.child(key), false, message));
            }
            Some(Value::String(name)) if name.is_empty() => {
                found.push(*key);
                let message = "must be either unset or set to a non-empty string";
                errors.push(FieldError::invalid(path.child(key), "", message));
            }
            Some(Value::String(name)) => {
                found.push(*key);
                follows(errors, path.child(key), name, names::dns1123_subdomain);
            }
            Some(selector) => {
                found.push(*key);
                node_selector(errors, path.child(key), selector);
                if items(selector, "nodeSelectorTerms").len() > 1 {
                    let message = "must have exactly one node selector term";
                    let terms = items(selector, "nodeSelectorTerms").to_vec();
                    errors.push(FieldError::invalid(path.child(key).child("nodeSelectorTerms"), terms, message));
                }
            }
        }
    }
    let list = places.iter().map(|place| format!("`{place}`")).collect::<Vec<_>>().join(", ");
    match found.len() {
        0 => errors.push(FieldError::required(path, format!("exactly one of {list} is required"))),
        1 => {}
        _ => {
            let set = found.iter().map(|place| format!("`{place}`")).collect::<Vec<_>>().join(", ");
            let message = format!("exactly one of {list} is required, but multiple fields are set");
            errors.push(FieldError::invalid(path, format!("{{{set}}}"), message));
        }
    }
}

fn check_device(errors: &mut Errors, path: Path, device: &Value, per_device: bool) {
    crate::check::named(errors, &path, device, "name", names::dns1123_label);
    let count = |key| map(device, key).map_or(0, serde_json::Map::len);
    let all = count("attributes") + count("capacity");
    if all > MOST_ATTRIBUTES {
        let message = format!("the total number of attributes and capacities must not exceed {MOST_ATTRIBUTES}");
        errors.push(FieldError::invalid(path, all, message));
    }
    let list = path.child("attributes");
    for (name, attribute) in map(device, "attributes").into_iter().flatten() {
        qualified(errors, list.key(name), name, false);
        check_attribute(errors, list.key(name), attribute);
    }
    let list = path.child("capacity");
    for (name, _) in map(device, "capacity").into_iter().flatten() {
        qualified(errors, list.key(name), name, false);
    }
    each(errors, path.child("taints"), items(device, "taints"), MOST_TAINTS, "", taint);
    let list = path.child("consumesCounters");
    each(errors, list, items(device, "consumesCounters"), MOST_COUNTERS, "counterSet", |errors, path, set| {
        crate::check::named(errors, &path, set, "counterSet", names::dns1123_label);
        counters(errors, path.child("counters"), set);
    });
    if per_device {
        place(errors, path, device, &PLACES[..3]);
        return;
    }
    for key in &PLACES[..3] {
        if at(device, key).is_some() {
            let message =
                format!("{key} can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec");
            errors.push(FieldError::invalid(path.child(key), at(device, key).cloned().unwrap_or_default(), message));
        }
    }
}

/// An attribute has one value of one type.
fn check_attribute(errors: &mut Errors, path: Path, attribute: &Value) {
    let set = attribute.as_object().map_or(0, |map| map.values().filter(|v| !v.is_null()).count());
    match set {
        0 => errors.push(FieldError::required(path, "exactly one value must be specified")),
        1 => {}
        _ => errors.push(FieldError::invalid(path, attribute.clone(), "exactly one value must be specified")),
    }
    for key in ["string", "version"] {
        if text(attribute, key).len() > VALUE_LIMIT {
            errors.push(FieldError::too_long(path.child(key), VALUE_LIMIT as i64));
        }
    }
    if let Some(version) = at(attribute, "version").and_then(Value::as_str).filter(|v| !semantic(v)) {
        let message = "must be a string compatible with semver.org spec 2.0.0";
        errors.push(FieldError::invalid(path.child("version"), version, message));
    }
}

/// Three numbers with dots between, then perhaps a pre-release and build metadata.
fn semantic(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or("");
    let numbers: Vec<&str> = core.split('.').collect();
    let number =
        |n: &&str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && (*n == "0" || !n.starts_with('0'));
    let rest = &version[core.len()..];
    numbers.len() == 3
        && numbers.iter().all(number)
        && rest.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'))
}

fn counters(errors: &mut Errors, path: Path, set: &Value) {
    let counters = map(set, "counters").filter(|map| !map.is_empty());
    if counters.is_none() {
        errors.push(FieldError::required(path, ""));
    }
    for (name, counter) in counters.into_iter().flatten() {
        follows(errors, path.key(name), name, names::dns1123_label);
        if text(counter, "value").parse::<Quantity>().is_ok_and(|amount| amount.sign() < 0) {
            let message = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(path.key(name).child("value"), text(counter, "value"), message));
        }
    }
}
