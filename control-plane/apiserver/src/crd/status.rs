//! What the conditions and accepted names of a definition should be. Pure.

use serde_json::{Value, json};

/// Whether a condition is true.
pub fn is_true(crd: &Value, condition: &str) -> bool {
    let all = crd["status"]["conditions"].as_array().into_iter().flatten();
    all.into_iter().any(|c| c["type"] == condition && c["status"] == "True")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The definition with the status it should have; `others` are all definitions of the cluster. `now` stamps conditions
/// that change.
pub fn settled(crd: &Value, others: &[Value], now: &str) -> Value {
    let mut new = crd.clone();
    let conflict = conflict(crd, others);
    let names = match &conflict {
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => ("False", *reason, message.clone()),
    };
    if conflict.is_none() {
        new["status"]["acceptedNames"] = crd["spec"]["names"].clone();
    } else if !new["status"]["acceptedNames"].is_object() {
        new["status"]["acceptedNames"] = json!({"kind": "", "plural": ""});
    }
    set(&mut new, "NamesAccepted", names, now);
    if is_true(crd, "Established") {
        // Once established, always served.
    } else if conflict.is_none() {
        let message = "the initial names have been accepted".to_owned();
        set(&mut new, "Established", ("True", "InitialNamesAccepted", message), now);
    } else {
        let message = "not all names are accepted".to_owned();
        set(&mut new, "Established", ("False", "NotAccepted", message), now);
    }
    new
}

fn set(crd: &mut Value, condition: &str, value: (&str, &str, String), now: &str) {
    let (status, reason, message) = value;
    let generation = crd["metadata"]["generation"].clone();
    let list = &mut crd["status"]["conditions"];
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return };
    let mut fresh = json!({
        "type": condition, "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    match list.iter_mut().find(|c| c["type"] == condition) {
        Some(known) => {
            if known["status"] == status {
                fresh["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            if known["observedGeneration"].is_number() {
                fresh["observedGeneration"] = generation;
            }
            *known = fresh;
        }
        None => list.push(fresh),
    }
}

/// The first name that another definition of the group holds.
fn conflict(crd: &Value, others: &[Value]) -> Option<(&'static str, String)> {
    let (group, own) = (&crd["spec"]["group"], &crd["metadata"]["name"]);
    let taken: Vec<&Value> = others
        .iter()
        .filter(|other| other["spec"]["group"] == *group && other["metadata"]["name"] != *own)
        .map(|other| &other["status"]["acceptedNames"])
        .collect();
    let holds = |name: &str| {
        taken.iter().any(|names| {
            let short = names["shortNames"].as_array().into_iter().flatten();
            text(names, "plural") == name || text(names, "singular") == name || short.into_iter().any(|s| s == name)
        })
    };
    let kinds = |name: &str| taken.iter().any(|names| text(names, "kind") == name || text(names, "listKind") == name);
    let names = &crd["spec"]["names"];
    for (field, reason) in [("plural", "PluralConflict"), ("singular", "SingularConflict")] {
        let name = text(names, field);
        if !name.is_empty() && holds(name) {
            return Some((reason, format!("\"{name}\" is already in use")));
        }
    }
    for name in names["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if holds(name) {
            return Some(("ShortNamesConflict", format!("\"{name}\" is already in use")));
        }
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        let name = text(names, field);
        if !name.is_empty() && kinds(name) {
            return Some((reason, format!("\"{name}\" is already in use")));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(name: &str, kind: &str) -> Value {
        json!({"metadata": {"name": format!("{name}.example.com")}, "spec": {"group": "example.com", "names": {"plural": name, "kind": kind}}})
    }

    #[test]
    fn a_free_name_is_accepted_and_settling_again_changes_nothing() {
        let settled_once = settled(&crd("widgets", "Widget"), &[], "t1");
        assert!(is_true(&settled_once, "Established") && is_true(&settled_once, "NamesAccepted"));
        assert_eq!(settled(&settled_once, std::slice::from_ref(&settled_once), "t2"), settled_once);
    }

    #[test]
    fn a_taken_kind_is_not_established() {
        let first = settled(&crd("widgets", "Widget"), &[], "t1");
        let second = settled(&crd("gadgets", "Widget"), &[first], "t1");
        assert!(!is_true(&second, "Established"));
        assert_eq!(second["status"]["conditions"][0]["reason"], "KindConflict");
    }
}
