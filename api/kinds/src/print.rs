//! Pieces that rows of `kubectl get` are made of: ages, counts, container lists, selectors and label lists.
//! The server always computes the wide form; kubectl hides what it was not asked for.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::value::{at, flag, int, items, map, text};

/// The row of kinds without columns of their own: name and age.
pub(crate) fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

/// The row of kinds that upstream prints by its generic converter: name and creation time as a date.
pub fn name_and_creation(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "metadata.creationTimestamp").into()]
}

/// The object's name.
pub fn name(object: &Value) -> Value {
    text(object, "metadata.name").into()
}

/// Time since creation.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(object, "metadata.creationTimestamp", now).into()
}

/// Time since the timestamp at `path`, `<unknown>` when there is none.
pub fn since(object: &Value, path: &str, now: Timestamp) -> String {
    match time(object, path) {
        Some(then) => meta::duration::human(now.as_second() - then.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// The timestamp at `path`.
pub fn time(object: &Value, path: &str) -> Option<Timestamp> {
    meta::time::parse(text(object, path))
}

/// The string at `path`, or `missing` when it is empty.
pub(crate) fn text_or(object: &Value, path: &str, missing: &str) -> Value {
    match text(object, path) {
        "" => missing.into(),
        found => found.into(),
    }
}

/// The integer at `path`, 0 when absent.
pub fn count(object: &Value, path: &str) -> Value {
    int(object, path).unwrap_or(0).into()
}

/// The boolean at `path`, false when absent.
pub fn boolean(object: &Value, path: &str) -> Value {
    flag(object, path).into()
}

/// `a,b,c` of the strings at `path`.
pub fn joined(object: &Value, path: &str, separator: &str) -> String {
    items(object, path).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(separator)
}

/// Names and images of the containers of the pod spec at `path`.
pub fn containers(object: &Value, path: &str) -> [Value; 2] {
    let spec = at(object, path).unwrap_or(&Value::Null);
    let list = |key| items(spec, "containers").iter().map(|c| text(c, key)).collect::<Vec<_>>().join(",");
    [list("name").into(), list("image").into()]
}

/// `a=1,b=2` of the label map at `path`, `<none>` when it is empty.
pub fn labels(object: &Value, path: &str) -> Value {
    or_none(map(object, path).map(label_list).unwrap_or_default())
}

fn label_list(labels: &Map<String, Value>) -> String {
    let pairs = labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")));
    pairs.collect::<Vec<_>>().join(",")
}

/// The label selector at `path` in selector syntax, `<none>` when it selects by nothing.
pub fn selector(object: &Value, path: &str) -> Value {
    match at(object, path) {
        None => or_none(String::new()),
        Some(selector) => selector_text(selector).map_or_else(|| "<error>".into(), or_none),
    }
}

/// A label selector in selector syntax, sorted by key; None when an operator is unknown.
pub fn selector_text(selector: &Value) -> Option<String> {
    let equal = map(selector, "matchLabels").into_iter().flatten();
    let mut parts: Vec<(String, String)> =
        equal.map(|(k, v)| (k.clone(), format!("{k}={}", v.as_str().unwrap_or("")))).collect();
    for e in items(selector, "matchExpressions") {
        let key = text(e, "key");
        let mut values: Vec<&str> = items(e, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(e, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        };
        parts.push((key.to_owned(), part));
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    Some(parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(","))
}

fn or_none(list: String) -> Value {
    if list.is_empty() { "<none>".into() } else { list.into() }
}

/// Integers as they are, percentages as written, `missing` when there is nothing.
pub fn int_or_string(object: &Value, path: &str, missing: &str) -> Value {
    match at(object, path) {
        Some(Value::Number(n)) => n.to_string().into(),
        Some(Value::String(s)) => s.as_str().into(),
        _ => missing.into(),
    }
}

/// The condition of that type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    items(object, "status.conditions").iter().find(|c| text(c, "type") == kind)
}

/// Whether the condition of that type is `True`.
pub(crate) fn condition_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| text(c, "status") == "True")
}

/// `a,b,c + 2 more...` of what was listed out of `total`; `empty` when nothing was.
pub(crate) fn and_more(listed: &[String], total: usize, empty: &str) -> Value {
    let list = listed.join(",");
    if total > listed.len() {
        format!("{list} + {} more...", total - listed.len()).into()
    } else if list.is_empty() {
        empty.into()
    } else {
        list.into()
    }
}

/// Addresses and host names of the load balancer at `path`, sorted, each once.
pub fn load_balancer(object: &Value, path: &str) -> String {
    let mut list: Vec<&str> = items(object, path)
        .iter()
        .map(|i| match text(i, "ip") {
            "" => text(i, "hostname"),
            ip => ip,
        })
        .filter(|s| !s.is_empty())
        .collect();
    list.sort_unstable();
    list.dedup();
    list.join(",")
}

/// Access modes as `RWO,ROX,RWX,RWOP`, in that order.
pub(crate) fn access_modes(object: &Value, path: &str) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let modes = items(object, path);
    let has = |long: &str| modes.iter().any(|m| m.as_str() == Some(long));
    SHORT.iter().filter(|(long, _)| has(long)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// Storage class of a claim or volume: the old annotation wins over the field.
pub(crate) fn storage_class(object: &Value) -> String {
    let old = at(object, "metadata").and_then(|m| m.get("annotations"));
    let old = old.and_then(|a| a.get("volume.beta.kubernetes.io/storage-class")).and_then(Value::as_str);
    old.unwrap_or_else(|| text(object, "spec.storageClassName")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_are_written_sorted() {
        let s = json!({"matchLabels": {"b": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]});
        assert_eq!(selector_text(&s).as_deref(), Some("a in (x,y),b=1,!c"));
        assert_eq!(selector(&json!({}), "spec.selector"), json!("<none>"));
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(and_more(&["a".into(), "b".into()], 4, "<unset>"), json!("a,b + 2 more..."));
        assert_eq!(and_more(&[], 0, "<unset>"), json!("<unset>"));
    }
}
