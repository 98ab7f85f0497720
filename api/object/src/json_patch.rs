//! JSON Patch (RFC 6902) with the leniencies that clients of the API know.
//!
//! Where upstream is laxer than the RFC, so is this: `replace` may add a key, `copy` of nothing copies null, negative
//! indexes count from the end, and the text before the first `/` of a path is ignored.
//!
//! A few bytes of patch can ask for a huge or bottomless object. What an operation would make is measured before it is
//! made: the bytes that all copies together add, and how deep a value would come to lie. So no value is ever deeper
//! than an object may be, and whoever walks, clones or drops one needs no more stack than for any object.

use crate::compare::same;
use meta::{Reason, Status, depth};
use serde_json::Value;
use std::io;

/// Most operations in one patch; more is refused before anything is done. Upstream's number.
pub const MAX_OPERATIONS: usize = 10_000;

/// Most bytes of JSON that all copies of one patch add: upstream's limit of a request body, which it takes for this too.
pub const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Most list elements that all operations of one patch push aside by inserting or removing before them: a tenth of a
/// second of moving memory, and a patch of [`MAX_OPERATIONS`] may still work on a list of a thousand.
pub const MAX_SHIFTED: usize = 16 * 1024 * 1024;

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

enum Failed {
    /// An operation that cannot be done, or costs too much; which it was does not reach the client.
    Impossible,
    /// The object would nest deeper than one may.
    TooDeep,
}

use Failed::Impossible;

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
    let mut work = Work { object, copied: 0, shifted: 0 };
    for operation in operations {
        work.run(operation).map_err(|failed| match failed {
            Failed::Impossible => rejected(),
            Failed::TooDeep => Status::bad_request(format!("error applying patch: json: {}", depth::TOO_DEEP)),
        })?;
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

/// A patch under way, and what it has cost so far.
struct Work<'a> {
    object: &'a mut Value,
    /// Bytes of JSON, see [`MAX_COPIED`].
    copied: usize,
    /// Elements, see [`MAX_SHIFTED`].
    shifted: usize,
}

impl Work<'_> {
    fn run(&mut self, operation: &Value) -> Result<(), Failed> {
        let text = |name: &str| operation.get(name).and_then(Value::as_str).ok_or(Impossible);
        let value = || operation.get("value").unwrap_or(&Value::Null);
        let op = match text("op")? {
            "add" => Op::Add,
            "remove" => Op::Remove,
            "replace" => Op::Replace,
            "move" => Op::Move,
            "copy" => Op::Copy,
            "test" => Op::Test,
            _ => return Err(Impossible),
        };
        let path = text("path")?;
        match op {
            Op::Add => {
                check_depth(path, value())?;
                self.add(path, value().clone())
            }
            Op::Remove => self.remove(path).map(drop),
            Op::Replace => {
                check_depth(path, value())?;
                replace(self.object, path, value().clone())
            }
            Op::Move => {
                let moved = self.remove(text("from")?)?;
                check_depth(path, &moved)?;
                self.add(path, moved)
            }
            Op::Copy => {
                let copied = find(self.object, text("from")?)?.unwrap_or(&Value::Null);
                check_depth(path, copied)?;
                self.copied += length(copied);
                if self.copied > MAX_COPIED {
                    return Err(Impossible);
                }
                let copied = copied.clone();
                self.add(path, copied)
            }
            Op::Test => {
                let found = find(self.object, path)?.unwrap_or(&Value::Null);
                if same(found, value()) { Ok(()) } else { Err(Impossible) }
            }
        }
    }

    fn add(&mut self, pointer: &str, value: Value) -> Result<(), Failed> {
        let (steps, last) = split(pointer).ok_or(Impossible)?;
        match container(self.object, &steps)? {
            Value::Object(map) => {
                map.insert(last, value);
            }
            Value::Array(list) if last == "-" => list.push(value),
            Value::Array(list) => {
                // The new element counts: -1 appends.
                let at = index(&last, list.len() + 1)?;
                let behind = list.len().checked_sub(at).ok_or(Impossible)?;
                shift(&mut self.shifted, behind)?;
                list.insert(at, value);
            }
            _ => return Err(Impossible),
        }
        Ok(())
    }

    fn remove(&mut self, pointer: &str) -> Result<Value, Failed> {
        let (steps, last) = split(pointer).ok_or(Impossible)?;
        match container(self.object, &steps)? {
            Value::Object(map) => map.remove(&last).ok_or(Impossible),
            Value::Array(list) => {
                let at = index(&last, list.len())?;
                let behind = list.len().checked_sub(at + 1).ok_or(Impossible)?;
                shift(&mut self.shifted, behind)?;
                Ok(list.remove(at))
            }
            _ => Err(Impossible),
        }
    }
}

/// Counts elements that an operation pushes aside.
fn shift(shifted: &mut usize, elements: usize) -> Result<(), Failed> {
    *shifted += elements;
    if *shifted > MAX_SHIFTED { Err(Impossible) } else { Ok(()) }
}

/// Whether a value may lie at a pointer: each step to it is a list or a map around it.
fn check_depth(pointer: &str, value: &Value) -> Result<(), Failed> {
    let around = pointer.bytes().filter(|byte| *byte == b'/').count();
    if around + depth::of(value) > depth::MAX_DEPTH { Err(Failed::TooDeep) } else { Ok(()) }
}

/// Bytes of a value as JSON.
fn length(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither a value nor counting can fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
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
            Value::Object(map) => map.get_mut(step).ok_or(Impossible)?,
            Value::Array(list) => {
                let index = index(step, list.len())?;
                list.get_mut(index).ok_or(Impossible)?
            }
            _ => return Err(Impossible),
        };
    }
    Ok(at)
}

/// The index a step means in a list of `length`; negative ones count from the end.
fn index(step: &str, length: usize) -> Result<usize, Failed> {
    let number: i64 = step.parse().map_err(|_| Impossible)?;
    let length = i64::try_from(length).map_err(|_| Impossible)?;
    let number = if number < 0 { number + length } else { number };
    usize::try_from(number).map_err(|_| Impossible)
}

/// The value at a pointer; `None` for an absent key of an existing object.
fn find<'a>(object: &'a Value, pointer: &str) -> Result<Option<&'a Value>, Failed> {
    let Some((steps, last)) = split(pointer) else { return Ok(Some(object)) };
    let mut at = object;
    for step in &steps {
        at = match at {
            Value::Object(map) => map.get(step).ok_or(Impossible)?,
            Value::Array(list) => list.get(index(step, list.len())?).ok_or(Impossible)?,
            _ => return Err(Impossible),
        };
    }
    match at {
        Value::Object(map) => Ok(map.get(&last)),
        Value::Array(list) => list.get(index(&last, list.len())?).map(Some).ok_or(Impossible),
        _ => Err(Impossible),
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
            *list.get_mut(at).ok_or(Impossible)? = value;
        }
        _ => return Err(Impossible),
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

    /// The object after a patch of these operations, or the code of the refusal.
    fn outcome(operations: Vec<Value>) -> Result<Value, u16> {
        let mut object = json!({"data": {"k": "v"}});
        apply(&mut object, &operations.into()).map(|()| object).map_err(|status| {
            assert!(status.message.len() < 200, "an error shows nothing of the object");
            status.code
        })
    }

    #[test]
    fn copying_a_value_into_itself_ends_at_the_depth_of_an_object() {
        // Each operation doubles the depth: fourteen of them overflowed the stack of the server.
        let doubling = |n: u32| json!({"op": "copy", "from": "/data", "path": format!("/data{}", "/x".repeat(1 << n))});
        assert!(outcome((0..6).map(doubling).collect()).is_ok_and(|object| depth::of(&object) == 65));
        assert_eq!(outcome((0..14).map(doubling).collect()), Err(400));
        // One level a time does it, too: what is copied holds the copy before.
        let wrap = |n: usize| vec![json!({"op": "copy", "from": "/data", "path": "/data/x"}); n];
        assert!(outcome(wrap(100)).is_ok_and(|object| depth::of(&object) == 102));
        assert_eq!(outcome(wrap(9_999)), Err(400));
        let deeper = |n: usize| json!({"op": "add", "path": format!("/data{}", "/x".repeat(n)), "value": {}});
        assert!(outcome((1..depth::MAX_DEPTH - 1).map(deeper).collect()).is_ok());
        assert_eq!(outcome((1..depth::MAX_DEPTH).map(deeper).collect()), Err(400));
        let move_under = |_| {
            [
                json!({"op": "move", "from": "/data", "path": "/x"}),
                json!({"op": "add", "path": "/data", "value": {}}),
                json!({"op": "move", "from": "/x", "path": "/data/x"}),
            ]
        };
        assert!(outcome((0..100).flat_map(move_under).collect()).is_ok_and(|object| depth::of(&object) == 102));
        let moved: Vec<Value> = (0..depth::MAX_DEPTH).flat_map(move_under).collect();
        assert_eq!(outcome(moved), Err(400));
    }

    #[test]
    fn copies_add_no_more_than_a_request_may_carry() {
        let doubling = |n: usize| json!({"op": "copy", "from": "/data", "path": format!("/data/k{n}")});
        assert!(outcome((0..10).map(doubling).collect()).is_ok());
        // 962 bytes of patch made an object of two gigabytes.
        assert_eq!(outcome((0..18).map(doubling).collect()), Err(422));
        let big = json!({"op": "add", "path": "/data/b", "value": "x".repeat(MAX_COPIED / 2)});
        let copy = |n: usize| json!({"op": "copy", "from": "/data/b", "path": format!("/data/c{n}")});
        assert!(outcome(vec![big.clone(), copy(1)]).is_ok());
        assert_eq!(outcome(vec![big, copy(1), copy(2)]), Err(422));
    }

    #[test]
    fn a_list_is_not_pushed_about_for_minutes() {
        let list = json!({"op": "add", "path": "/l", "value": vec![0; 100_000]});
        let mut operations = vec![list];
        operations.resize(MAX_OPERATIONS, json!({"op": "move", "from": "/l/0", "path": "/l/0"}));
        assert_eq!(outcome(operations.clone()), Err(422));
        operations.truncate(80);
        assert!(outcome(operations).is_ok());
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
