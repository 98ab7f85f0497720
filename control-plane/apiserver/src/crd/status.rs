//! What the conditions and accepted names of a definition should be. Pure.

use serde_json::{Value, json};

use super::names::Conflict;

/// Whether a condition is true.
pub fn is_true(crd: &Value, condition: &str) -> bool {
    let all = crd["status"]["conditions"].as_array().into_iter().flatten();
    all.into_iter().any(|c| c["type"] == condition && c["status"] == "True")
}

/// The status that a definition should have; `conflict` is why it can't have its names. `now` stamps conditions that
/// change.
pub fn settled(crd: &Value, conflict: Option<&Conflict>, now: &str) -> Value {
    // Only what the conditions depend on: the definition itself is long.
    let generation = &crd["metadata"]["generation"];
    let mut new = json!({"metadata": {"generation": generation}, "status": crd["status"]});
    let names = match conflict {
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
    new["status"].take()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(name: &str) -> Value {
        json!({"metadata": {"name": format!("{name}.example.com")}, "spec": {"group": "example.com", "names": {"plural": name}}})
    }

    #[test]
    fn a_free_name_is_accepted_and_settling_again_changes_nothing() {
        let mut crd = crd("widgets");
        crd["status"] = settled(&crd, None, "t1");
        assert!(is_true(&crd, "Established") && is_true(&crd, "NamesAccepted"));
        assert_eq!(settled(&crd, None, "t2"), crd["status"]);
    }

    #[test]
    fn a_taken_kind_is_not_established() {
        let mut crd = crd("gadgets");
        crd["status"] = settled(&crd, Some(&("KindConflict", "taken".to_owned())), "t1");
        assert!(!is_true(&crd, "Established"));
        assert_eq!(crd["status"]["conditions"][0]["reason"], "KindConflict");
    }
}
