//! `Table` of meta.k8s.io/v1: what `kubectl get` prints. Built-in kinds have a row function; kinds made from a
//! CustomResourceDefinition have a JSONPath a column, after the name.

use jiff::Timestamp;
use kinds::{Column, Kind};
use serde_json::{Value, json};

use crate::partial;

/// What each row carries beside its cells (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing: cells alone.
    None,
    /// `metadata`, as a PartialObjectMetadata: enough for labels and for watching.
    #[default]
    Metadata,
    /// The whole object, in the version that was asked for.
    Object,
}

impl Include {
    /// The value of the query parameter; empty is the default.
    pub fn parse(text: &str) -> Option<Include> {
        match text {
            "" | "Metadata" => Some(Include::Metadata),
            "None" => Some(Include::None),
            "Object" => Some(Include::Object),
            _ => None,
        }
    }
}

/// The column definitions of a kind. Watches send them with the first row only.
pub fn columns(kind: &Kind) -> Value {
    let standard;
    let columns = if kind.columns.is_empty() {
        standard = [Column::name(), Column::date("Created At")];
        &standard[..]
    } else {
        &kind.columns[..]
    };
    let one = |c: &Column| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority});
    columns.iter().map(one).collect()
}

/// One row.
pub fn row(kind: &Kind, object: &Value, include: Include, now: Timestamp) -> Value {
    let cells = if kind.columns.is_empty() {
        kinds::print::name_and_creation(object, now)
    } else if kind.columns.iter().any(|c| c.path.is_some()) {
        kind.columns.iter().map(|c| cell(c, object, now)).collect()
    } else {
        (kind.hooks.row)(object, now)
    };
    let object = match include {
        Include::None => Value::Null,
        Include::Metadata => partial::from_value(object),
        Include::Object => object.clone(),
    };
    json!({"cells": cells, "object": object})
}

/// A table. `metadata` is the list's own; `with_columns` is false for later events of a watch.
pub fn table(columns: Option<Value>, metadata: Value, rows: Vec<Value>) -> Value {
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns.unwrap_or_else(|| json!([])), "rows": rows})
}

/// The cell of a column of a custom resource. Dates are printed as ages, as upstream's converter does.
fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let Some(path) = column.path.as_deref() else {
        return kinds::print::name(object);
    };
    let found = jsonpath(object, path);
    match (column.kind.as_ref(), found.first()) {
        (_, None) => Value::Null,
        ("integer" | "number", Some(Value::Number(n))) => Value::Number((*n).clone()),
        ("boolean", Some(Value::Bool(b))) => (*b).into(),
        ("date", Some(Value::String(time))) => match meta::time::parse(time) {
            Some(then) => meta::duration::human(now.as_second() - then.as_second()).into(),
            None => "<invalid>".into(),
        },
        ("string", Some(_)) => found.iter().map(|v| plain(v)).collect::<Vec<_>>().join(",").into(),
        _ => Value::Null,
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The values that a simple JSONPath selects: `.a.b`, `['a']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`.
pub fn jsonpath<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![object];
    let mut rest = path.trim().trim_start_matches('$');
    while !rest.is_empty() && !found.is_empty() {
        let (step, tail) = next_step(rest);
        rest = tail;
        found = found.into_iter().flat_map(|v| select(v, step)).collect();
    }
    found
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Key(&'p str),
    Index(i64),
    All,
    /// Elements whose field at the path equals the text.
    Where(&'p str, &'p str),
    Nothing,
}

fn next_step(rest: &str) -> (Step<'_>, &str) {
    if let Some(inner) = rest.strip_prefix('[') {
        let end = if inner.starts_with("?(") { inner.find(")]").map(|at| at + 1) } else { inner.find(']') };
        let Some(end) = end else { return (Step::Nothing, "") };
        let (inside, tail) = (inner[..end].trim(), &inner[end + 1..]);
        let step = if inside == "*" {
            Step::All
        } else if let Ok(index) = inside.parse() {
            Step::Index(index)
        } else if let Some(condition) = inside.strip_prefix("?(").and_then(|c| c.strip_suffix(')')) {
            match condition.split_once("==") {
                Some((left, right)) => {
                    Step::Where(left.trim().trim_start_matches("@."), right.trim().trim_matches(['"', '\'']))
                }
                None => Step::Nothing,
            }
        } else {
            Step::Key(inside.trim_matches(['"', '\'']))
        };
        return (step, tail);
    }
    let rest = rest.trim_start_matches('.');
    let mut end = rest.len();
    let bytes = rest.as_bytes();
    for (i, byte) in bytes.iter().enumerate() {
        // A dot behind a backslash belongs to the key.
        if *byte == b'[' || (*byte == b'.' && (i == 0 || bytes[i - 1] != b'\\')) {
            end = i;
            break;
        }
    }
    if &rest[..end] == "*" { (Step::All, &rest[end..]) } else { (Step::Key(&rest[..end]), &rest[end..]) }
}

fn select<'a>(value: &'a Value, step: Step) -> Vec<&'a Value> {
    match (step, value) {
        (Step::Key(key), Value::Object(map)) => map.get(&key.replace("\\.", ".")).into_iter().collect(),
        (Step::Index(i), Value::Array(list)) => {
            let at = if i < 0 { list.len() as i64 + i } else { i };
            usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
        }
        (Step::All, Value::Array(list)) => list.iter().collect(),
        (Step::All, Value::Object(map)) => map.values().collect(),
        (Step::Where(path, wanted), Value::Array(list)) => {
            list.iter().filter(|v| jsonpath(v, path).first().is_some_and(|f| plain(f) == wanted)).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:05:03Z".parse().unwrap()
    }

    #[test]
    fn built_in_kinds_have_their_columns() {
        let kind = kinds::by_kind("", "v1", "ConfigMap").unwrap();
        let object =
            json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "data": {"x": "1"}});
        let row = row(kind, &object, Include::Metadata, now());
        assert_eq!(row["cells"], json!(["a", 1, "5m3s"]));
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(
            columns(kind)[0],
            json!({"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0})
        );
    }

    #[test]
    fn every_row_fits_its_columns() {
        for kind in kinds::ALL.iter().filter(|k| !k.columns.is_empty()) {
            assert_eq!((kind.hooks.row)(&json!({}), now()).len(), kind.columns.len(), "{kind:?}");
        }
    }

    #[test]
    fn custom_columns_follow_their_paths() {
        let object = json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a.b": "x"}},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        let text = |path: &'static str| {
            let column = Column { path: Some(path.into()), ..Column::text("X") };
            cell(&column, &object, now())
        };
        assert_eq!(text(r#".status.conditions[?(@.type=="Ready")].status"#), "True");
        assert_eq!(text(".status.conditions[*].type"), "A,Ready");
        assert_eq!(text(".status.conditions[0].status"), "False");
        assert_eq!(text(r".metadata.labels.a\.b"), "x");
        assert_eq!(text(".nope"), Value::Null);
        let date = Column { path: Some(".metadata.creationTimestamp".into()), ..Column::date("Age") };
        assert_eq!(cell(&date, &object, now()), "5m3s");
    }
}
