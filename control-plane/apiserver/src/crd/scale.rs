//! What `subresources.scale` of a definition asks of every object: replica counts that a Scale can hold, a selector that is
//! text. Pure; the registry calls it beside the schema, with upstream's texts.

use kinds::{Action, Kind, ScalePaths};
use meta::FieldError;
use serde_json::Value;

/// The type that Go gives a JSON value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn wrong_type(path: &str, value: &Value, wanted: &str) -> String {
    let shown = match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!(".{path} accessor error: {shown} is of the type {}, expected {wanted}", go_type(value))
}

/// The value at a path, if it is there; why not, when what is on the way is no object.
fn find<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    let mut place = object;
    let mut walked = 0;
    for step in path.split('.') {
        walked += step.len();
        match place {
            Value::Null => return Ok(None),
            Value::Object(map) => match map.get(step) {
                Some(value) => place = value,
                None => return Ok(None),
            },
            other => return Err(wrong_type(&path[..walked], other, "map[string]interface{}")),
        }
        walked += 1;
    }
    Ok(Some(place))
}

fn replicas(object: &Value, path: &str) -> Option<FieldError> {
    let wrong = |value: i64, why: &str| Some(FieldError::invalid(format!(".{path}"), value, why));
    let value = match find(object, path) {
        Ok(None) => return None,
        Ok(Some(value)) => match value.as_i64() {
            Some(value) => value,
            None => return wrong(0, &wrong_type(path, value, "int64")),
        },
        Err(why) => return wrong(0, &why),
    };
    match value {
        ..0 => wrong(value, "should be a non-negative integer"),
        0..=MOST => None,
        _ => wrong(value, &format!("should be less than or equal to {MOST}")),
    }
}

/// Most replicas that a Scale can say: they are 32 bits there.
const MOST: i64 = i32::MAX as i64;

fn selector(object: &Value, path: &str) -> Option<FieldError> {
    let why = match find(object, path) {
        Ok(None | Some(Value::String(_))) => return None,
        Ok(Some(value)) => wrong_type(path, value, "string"),
        Err(why) => why,
    };
    Some(FieldError::invalid(format!(".{path}"), "", why))
}

/// Everything about an object that its Scale could not say; of its status only, when nothing else may have changed.
pub fn check(kind: &Kind, object: &Value, status_only: bool) -> Vec<FieldError> {
    let paths = kind.subresource("scale").and_then(|sub| match &sub.action {
        Action::Scale(paths) => Some(paths),
        _ => None,
    });
    let Some(ScalePaths { spec_replicas, status_replicas, selector: labels }) = paths else { return Vec::new() };
    let spec = (!status_only).then(|| replicas(object, spec_replicas)).flatten();
    let status = replicas(object, status_replicas);
    let labels = labels.as_ref().and_then(|path| selector(object, path));
    [spec, status, labels].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn replicas_are_counted_in_32_bits_from_zero() {
        let errors = |object: Value| {
            let found = [replicas(&object, "spec.replicas"), selector(&object, "status.labels")];
            found.into_iter().flatten().map(|error| error.to_string()).collect::<Vec<_>>()
        };
        for fine in [json!({}), json!({"spec": {"replicas": 0}}), json!({"spec": null, "status": {"labels": "a=b"}})] {
            assert!(errors(fine).is_empty());
        }
        for (object, wrong) in [
            (json!({"spec": {"replicas": -1}}), ".spec.replicas: Invalid value: -1: should be a non-negative integer"),
            (
                json!({"spec": {"replicas": 2_147_483_648_i64}}),
                ".spec.replicas: Invalid value: 2147483648: should be less than or equal to 2147483647",
            ),
            (
                json!({"spec": {"replicas": "x"}}),
                ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: x is of the type string, expected int64",
            ),
            (
                json!({"spec": "x"}),
                ".spec.replicas: Invalid value: 0: .spec.replicas accessor error: x is of the type string, expected map[string]interface{}",
            ),
            (
                json!({"status": {"labels": 5}}),
                ".status.labels: Invalid value: \"\": .status.labels accessor error: 5 is of the type int64, expected string",
            ),
        ] {
            assert_eq!(errors(object), [wrong]);
        }
    }
}
