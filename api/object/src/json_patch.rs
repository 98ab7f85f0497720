//! JSON Patch (RFC 6902) with the leniencies that clients of the API know.
//!
//! Where upstream is laxer than the RFC, so is this: `replace` may add a key, `copy` of nothing copies null, negative
//! indexes count from the end, and the text before the first `/` of a path is ignored.

use meta::{Reason, Status};
use serde_json::Value;

/// Most operations in one patch; more is refused before anything is done.
pub const MAX_OPERATIONS: usize = 10_000;

/// The operation failed. Clients learn no more than this.
const REJECTED: &str = "the server rejected our request due to an error in our request";

#[derive(Clone, Copy)]
enum Op {
    Add,
    Remove,
    Replace,
    Move,
    Copy,
    Test,
}

/// An operation that cannot be done; what it was does not reach the client.
struct Failed;

/// Applies the operations in order. On an error the object may be half changed: pass a copy.
pub fn apply(object: &mut Value, patch: &Value) -> Result<(), Status> {
    let operations = patch.as_array().ok_or_else(|| undecodable(patch, "Go value of type []handlers.jsonPatchOp"))?;
    if operations.len() > MAX_OPERATIONS {
        let count = operations.len();
        return Err(Status::too_large(format_args!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    for operation in operations {
        check(operation)?;
    }
    for operation in operations {
        run(object, operation).map_err(|Failed| rejected())?;
    }
    Ok(())
}

fn rejected() -> Status {
    let mut status = Status::failure(422, Reason::Invalid, REJECTED);
    status.details = Some(Box::default());
    status
}

fn undecodable(value: &Value, into: &str) -> Status {
    Status::bad_request(format!("error decoding patch: json: cannot unmarshal {} into {into}", crate::json_kind(value)))
}

fn check(operation: &Value) -> Result<(), Status> {
    let Some(fields) = operation.as_object() else {
        return Err(undecodable(operation, "Go value of type handlers.jsonPatchOp"));
    };
    for name in ["op", "path", "from"] {
        if let Some(value) = fields.get(name)
            && !value.is_string()
            && !value.is_null()
        {
            return Err(undecodable(value, &format!("Go struct field jsonPatchOp.{name} of type string")));
        }
    }
    Ok(())
}

fn run(object: &mut Value, operation: &Value) -> Result<(), Failed> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str).ok_or(Failed);
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    let op = match text("op")? {
        "add" => Op::Add,
        "remove" => Op::Remove,
        "replace" => Op::Replace,
        "move" => Op::Move,
        "copy" => Op::Copy,
        "test" => Op::Test,
        _ => return Err(Failed),
    };
    let path = text("path")?;
    match op {
        Op::Add => add(object, path, value()),
        Op::Remove => remove(object, path).map(drop),
        Op::Replace => replace(object, path, value()),
        Op::Move => {
            let moved = remove(object, text("from")?)?;
            add(object, path, moved)
        }
        Op::Copy => {
            let copied = find(object, text("from")?)?.cloned().unwrap_or(Value::Null);
            add(object, path, copied)
        }
        Op::Test => {
            let want = operation.get("value").unwrap_or(&Value::Null);
            let found = find(object, path)?.unwrap_or(&Value::Null);
            if same(found, want) { Ok(()) } else { Err(Failed) }
        }
    }
}

/// Equality of JSON values: numbers by value, whatever their notation.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

/// Splits a pointer into the steps to the container and the last key; nothing for the whole document.
fn split(pointer: &str) -> Option<(Vec<String>, String)> {
    let mut steps: Vec<String> =
        pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let last = steps.pop()?;
    Some((steps, last))
}

fn container<'a>(object: &'a mut Value, steps: &[String]) -> Result<&'a mut Value, Failed> {
    let mut at = object;
    for step in steps {
        at = match at {
            Value::Object(map) => map.get_mut(step).ok_or(Failed)?,
            Value::Array(list) => {
                let index = index(step, list.len())?;
                list.get_mut(index).ok_or(Failed)?
            }
            _ => return Err(Failed),
        };
    }
    Ok(at)
}

/// The index a step means in a list of `length`; negative ones count from the end.
fn index(step: &str, length: usize) -> Result<usize, Failed> {
    let number: i64 = step.parse().map_err(|_| Failed)?;
    let length = i64::try_from(length).map_err(|_| Failed)?;
    let number = if number < 0 { number + length } else { number };
    usize::try_from(number).map_err(|_| Failed)
}

/// The value at a pointer; `None` for an absent key of an existing object.
fn find<'a>(object: &'a Value, pointer: &str) -> Result<Option<&'a Value>, Failed> {
    let Some((steps, last)) = split(pointer) else { return Ok(Some(object)) };
    let mut at = object;
    for step in &steps {
        at = match at {
            Value::Object(map) => map.get(step).ok_or(Failed)?,
            Value::Array(list) => list.get(index(step, list.len())?).ok_or(Failed)?,
            _ => return Err(Failed),
        };
    }
    match at {
        Value::Object(map) => Ok(map.get(&last)),
        Value::Array(list) => list.get(index(&last, list.len())?).map(Some).ok_or(Failed),
        _ => Err(Failed),
    }
}

fn add(object: &mut Value, pointer: &str, value: Value) -> Result<(), Failed> {
    let (steps, last) = split(pointer).ok_or(Failed)?;
    match container(object, &steps)? {
        Value::Object(map) => {
            map.insert(last, value);
        }
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => {
            // The new element counts: -1 appends.
            let at = index(&last, list.len() + 1)?;
            if at > list.len() {
                return Err(Failed);
            }
            list.insert(at, value);
        }
        _ => return Err(Failed),
    }
    Ok(())
}

fn remove(object: &mut Value, pointer: &str) -> Result<Value, Failed> {
    let (steps, last) = split(pointer).ok_or(Failed)?;
    match container(object, &steps)? {
        Value::Object(map) => map.remove(&last).ok_or(Failed),
        Value::Array(list) => {
            let at = index(&last, list.len())?;
            if at < list.len() { Ok(list.remove(at)) } else { Err(Failed) }
        }
        _ => Err(Failed),
    }
}

fn replace(object: &mut Value, pointer: &str, value: Value) -> Result<(), Failed> {
    let Some((steps, last)) = split(pointer) else {
        *object = value;
        return Ok(());
    };
    match container(object, &steps)? {
        Value::Object(map) => {
            map.insert(last, value);
        }
        Value::Array(list) => {
            let at = index(&last, list.len())?;
            *list.get_mut(at).ok_or(Failed)? = value;
        }
        _ => return Err(Failed),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(patch: Value) -> Option<Value> {
        let mut object = json!({"d": {"k": "v"}, "l": ["a", "b"], "e/a": 1, "t~": 2});
        apply(&mut object, &patch).ok().map(|()| object)
    }

    #[test]
    fn operations() {
        for (patch, pointer, want) in [
            (json!([{"op": "add", "path": "/d/n", "value": "x"}]), "/d", json!({"k": "v", "n": "x"})),
            (json!([{"op": "replace", "path": "/d/n", "value": "x"}]), "/d", json!({"k": "v", "n": "x"})),
            (json!([{"op": "copy", "from": "/d/n", "path": "/d/q"}]), "/d", json!({"k": "v", "q": null})),
            (json!([{"op": "copy", "from": "/d/k", "path": "/d/q"}]), "/d", json!({"k": "v", "q": "v"})),
            (json!([{"op": "move", "from": "/d/k", "path": "/d/q"}]), "/d", json!({"q": "v"})),
            (json!([{"op": "add", "path": "/d/q"}]), "/d", json!({"k": "v", "q": null})),
            (json!([{"op": "add", "path": "/l/-", "value": "c"}]), "/l", json!(["a", "b", "c"])),
            (json!([{"op": "add", "path": "/l/1", "value": "c"}]), "/l", json!(["a", "c", "b"])),
            (json!([{"op": "add", "path": "/l/-1", "value": "c"}]), "/l", json!(["a", "b", "c"])),
            (json!([{"op": "add", "path": "/l/01", "value": "c"}]), "/l", json!(["a", "c", "b"])),
            (json!([{"op": "remove", "path": "/l/-1"}]), "/l", json!(["a"])),
            (json!([{"op": "replace", "path": "/l/-1", "value": "z"}]), "/l", json!(["a", "z"])),
            (json!([{"op": "replace", "path": "/l/0", "value": "z"}]), "/l", json!(["z", "b"])),
            (json!([{"op": "replace", "path": "/e~1a", "value": 5}]), "/e~1a", json!(5)),
            (json!([{"op": "replace", "path": "/t~0", "value": 5}]), "/t~0", json!(5)),
            (json!([{"op": "test", "path": "/d/nope", "value": null}]), "/d", json!({"k": "v"})),
            (json!([{"op": "test", "path": "/d/k", "value": "v"}]), "/d", json!({"k": "v"})),
            (json!([{"op": "test", "path": "/e~1a", "value": 1.0}]), "/d", json!({"k": "v"})),
            (json!([{"op": "replace", "path": "", "value": {"x": 1}}]), "", json!({"x": 1})),
            (json!([]), "/d", json!({"k": "v"})),
        ] {
            let got = patched(patch.clone()).unwrap_or_else(|| panic!("{patch}"));
            assert_eq!(got.pointer(pointer), Some(&want), "{patch}");
        }
    }

    #[test]
    fn failures_say_one_thing() {
        for patch in [
            json!([{"op": "add", "path": "/nope/x", "value": "x"}]),
            json!([{"op": "remove", "path": "/d/nope"}]),
            json!([{"op": "replace", "path": "/nope/a", "value": "1"}]),
            json!([{"op": "test", "path": "/d/k", "value": "z"}]),
            json!([{"op": "test", "path": "/nope/nope", "value": "z"}]),
            json!([{"op": "test", "path": "/d"}]),
            json!([{"op": "move", "from": "/d/nope", "path": "/d/q"}]),
            json!([{"op": "move", "path": "/d/q"}]),
            json!([{"op": "foo", "path": "/d/q"}]),
            json!([{"path": "/d/q"}]),
            json!([{"op": "add", "value": "1"}]),
            json!([{"op": "remove", "path": ""}]),
            json!([{"op": "add", "path": "", "value": {}}]),
            json!([{"op": "add", "path": "/l/3", "value": "c"}]),
            json!([{"op": "add", "path": "/l/x", "value": "c"}]),
            json!([{"op": "remove", "path": "/l/2"}]),
            json!([{"op": "remove", "path": "/l/-"}]),
            json!([{"op": "add", "path": "/d/k/x", "value": "1"}]),
        ] {
            assert_eq!(patched(patch.clone()), None, "{patch}");
        }
        let error = apply(&mut json!({}), &json!([{"op": "remove", "path": "/a"}])).expect_err("absent");
        assert_eq!((error.code, error.message.as_str()), (422, REJECTED));
    }

    #[test]
    fn what_is_no_patch_is_a_bad_request() {
        for (patch, want) in [
            (
                json!({"op": "add"}),
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
            (
                json!([5]),
                "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
            ),
            (
                json!([{"op": "add", "path": 5}]),
                "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.path of type string",
            ),
        ] {
            let error = apply(&mut json!({}), &patch).expect_err("no patch");
            assert_eq!((error.code, error.message.as_str()), (400, want));
        }
        let many = Value::Array(vec![json!({"op": "test", "path": "/a"}); MAX_OPERATIONS + 1]);
        let error = apply(&mut json!({}), &many).expect_err("too many");
        assert_eq!(error.code, 413);
        assert_eq!(
            error.message,
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
        );
    }
}
