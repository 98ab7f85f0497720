//! Merge patches, plain and strategic, as far as our controllers write them. Pure.

use serde_json::{Map, Value, json};

pub fn merge(into: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (name, value) in fields {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let doomed = value.as_array().expect("a list").clone();
            if let Some(all) = into[list].as_array_mut() {
                all.retain(|v| !doomed.contains(v));
            }
            continue;
        }
        match (value, strategic) {
            (Value::Null, _) => {
                into.as_object_mut().expect("an object").remove(name);
            }
            (Value::Array(items), true) => merge_list(&mut into[name.as_str()], name, items),
            (Value::Object(_), _) => merge(&mut into[name.as_str()], value, strategic),
            _ => into[name.as_str()] = value.clone(),
        }
    }
}

fn merge_list(into: &mut Value, name: &str, items: &[Value]) {
    let key = match name {
        "ownerReferences" => "uid",
        "conditions" => "type",
        "finalizers" => "",
        _ => {
            *into = Value::Array(items.to_vec());
            return;
        }
    };
    if !into.is_array() {
        *into = json!([]);
    }
    let all = into.as_array_mut().expect("a list");
    for item in items {
        if key.is_empty() {
            if !all.contains(item) {
                all.push(item.clone());
            }
            continue;
        }
        let at = all.iter().position(|v| v[key] == item[key]);
        match (at, item["$patch"] == "delete") {
            (Some(n), true) => {
                all.remove(n);
            }
            (Some(n), false) => merge(&mut all[n], item, true),
            (None, true) => {}
            (None, false) => all.push(item.clone()),
        }
    }
}
