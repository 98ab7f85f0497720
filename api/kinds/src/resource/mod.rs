//! Kinds of the `resource` group, and what their checks share: lists, names of drivers and pools, configurations,
//! selectors, taints and tolerations. Expressions are not compiled: this server evaluates none.

use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, follows, label_name};
use crate::value::{at, int, items, items_mut, set, text};

mod check_claim;
mod check_slice;
pub(crate) mod device_class;
pub(crate) mod device_taint_rule;
pub(crate) mod resource_claim;
pub(crate) mod resource_claim_template;
pub(crate) mod resource_slice;

/// A request for an exact count that names none wants one device, in each of its alternatives too.
fn default_requests(object: &mut Value, path: &str) {
    let one = |request: &mut Value| {
        let exact = text(request, "allocationMode") == "ExactCount";
        if exact && int(request, "count").unwrap_or(0) == 0 {
            set(request, "count", 1);
        }
    };
    for request in items_mut(object, path) {
        request.get_mut("exactly").into_iter().for_each(one);
        items_mut(request, "firstAvailable").for_each(one);
    }
}

/// Longest expression and longest parameters of a driver, in bytes.
const TEXT_LIMIT: usize = 10 * 1024;
const MOST_SELECTORS: usize = 32;
const MOST_CONFIGS: usize = 32;
const MOST_TOLERATIONS: usize = 16;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// Checks a list of at most so many, whose elements differ in the text at `key` (empty: need not differ).
fn each(
    errors: &mut Errors,
    list: Path,
    all: &[Value],
    most: usize,
    key: &str,
    check: impl Fn(&mut Errors, Path, &Value),
) {
    if all.len() > most {
        errors.push(FieldError::too_many(list, all.len() as i64, most as i64));
    }
    for (i, element) in all.iter().enumerate().take(most) {
        let path = list.index(i);
        check(errors, path, element);
        if !key.is_empty() && all[..i].iter().any(|other| text(other, key) == text(element, key)) {
            errors.push(FieldError::duplicate(path.child(key), text(element, key)));
        }
    }
}

/// The name of a driver: a domain.
fn driver_name(errors: &mut Errors, path: Path, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if name.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    follows(errors, path, name, names::dns1123_subdomain);
}

/// The name of a pool: domains with slashes between.
fn pool_name(errors: &mut Errors, path: Path, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if name.len() > 253 {
        errors.push(FieldError::too_long(path, 253));
    }
    for part in name.split('/') {
        follows(errors, path, part, names::dns1123_subdomain);
    }
}

/// The name of an attribute or a capacity: `domain/identifier`, or one alone where the domain may be left out.
fn qualified(errors: &mut Errors, path: Path, name: &str, with_domain: bool) {
    let identifier = |errors: &mut Errors, text: &str| {
        if text.len() > 32 {
            errors.push(FieldError::too_long(path, 32));
        }
        follows(errors, path, text, names::c_identifier);
    };
    match name.split_once('/') {
        _ if name.is_empty() => errors.push(FieldError::required(path, "name required")),
        None if with_domain => {
            errors.push(FieldError::invalid(path, name, "must include a domain"));
            identifier(errors, name);
        }
        None => identifier(errors, name),
        Some((domain, rest)) => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "the domain must not be empty"));
            } else {
                driver_name(errors, path, domain);
            }
            if rest.is_empty() {
                errors.push(FieldError::invalid(path, "", "the name must not be empty"));
            } else {
                identifier(errors, rest);
            }
        }
    }
}

/// The selectors of a class or a request.
fn selectors(errors: &mut Errors, path: Path, of: &Value) {
    let list = path.child("selectors");
    each(errors, list, items(of, "selectors"), MOST_SELECTORS, "", |errors, path, selector| {
        let Some(cel) = at(selector, "cel") else {
            errors.push(FieldError::required(path.child("cel"), ""));
            return;
        };
        let path = path.child("cel");
        match text(cel, "expression") {
            "" => errors.push(FieldError::required(path.child("expression"), "")),
            long if long.len() > TEXT_LIMIT => {
                errors.push(FieldError::too_long(path.child("expression"), TEXT_LIMIT as i64));
            }
            _ => {}
        }
    });
}

/// One configuration: parameters that only the driver understands.
fn config(errors: &mut Errors, path: Path, entry: &Value) {
    let path = path.child("opaque");
    let Some(opaque) = at(entry, "opaque") else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    driver_name(errors, path.child("driver"), text(opaque, "driver"));
    let path = path.child("parameters");
    match at(opaque, "parameters") {
        None => errors.push(FieldError::required(path, "")),
        Some(Value::Object(map)) if Value::Object(map.clone()).to_string().len() > TEXT_LIMIT => {
            errors.push(FieldError::too_long(path, TEXT_LIMIT as i64));
        }
        Some(Value::Object(_)) => {}
        Some(_) => errors.push(FieldError::invalid(path, "<value omitted>", "must be a valid JSON object")),
    }
}

/// Taints of devices that a request stands.
fn tolerations(errors: &mut Errors, list: Path, tolerations: &[Value]) {
    each(errors, list, tolerations, MOST_TOLERATIONS, "", |errors, path, toleration| {
        let (key, value) = (text(toleration, "key"), text(toleration, "value"));
        let operator = text(toleration, "operator");
        if !key.is_empty() {
            label_name(errors, path.child("key"), key);
        }
        match operator {
            "Exists" if !value.is_empty() => {
                errors.push(FieldError::invalid(path.child("value"), value, "must be empty for operator `Exists`"));
            }
            "Exists" => {}
            "Equal" => {
                follows(errors, path.child("value"), value, names::label_value);
                if key.is_empty() {
                    errors.push(FieldError::required(path.child("key"), "must be set for operator `Equal`"));
                }
            }
            "" => errors.push(FieldError::required(path.child("operator"), "")),
            other => {
                errors.push(FieldError::not_supported(path.child("operator"), other, ["Equal", "Exists"]));
            }
        }
        let effect = text(toleration, "effect");
        if !effect.is_empty() {
            crate::check::among(errors, path.child("effect"), effect, &EFFECTS);
        }
    });
}

/// A taint of a device.
fn taint(errors: &mut Errors, path: Path, taint: &Value) {
    label_name(errors, path.child("key"), text(taint, "key"));
    let value = text(taint, "value");
    follows(errors, path.child("value"), value, names::label_value);
    crate::check::one_of(errors, &path, taint, "effect", &EFFECTS);
}
