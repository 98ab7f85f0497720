//! What to tell of custom resources and their definitions beside what is refused. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::versions::compare_versions;

/// Formats that are told of one definition: headers hold fewer warnings, and each is looked for among the others.
const MAX_FORMATS: usize = 1_000;

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// What is sent with every answer of a deprecated version: the author's words, or what to use instead.
pub fn deprecation(spec: &Value, version: &Value) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    let given = text(version, "deprecationWarning");
    if !given.is_empty() {
        return Some(given.to_owned());
    }
    let (group, name, kind) = (text(spec, "group"), text(version, "name"), text(&spec["names"], "kind"));
    let others = spec["versions"].as_array().into_iter().flatten();
    let fine = others.filter(|other| other["served"] == true && other["deprecated"] != true);
    let better = fine.map(|other| text(other, "name")).filter(|other| compare_versions(other, name).is_gt());
    let instead = better.max_by(|a, b| compare_versions(a, b));
    let instead = instead.map(|better| format!("; use {group}/{better} {kind}")).unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{instead}"))
}

/// Formats in the schemas of a definition that nobody knows, and that `old` did not have.
pub fn formats(crd: &Value, old: Option<&Value>) -> Vec<String> {
    let all = |crd: &Value| {
        let mut found = Vec::new();
        for version in crd["spec"]["versions"].as_array().into_iter().flatten() {
            unknown_formats(&version["schema"]["openAPIV3Schema"], &mut found);
        }
        found
    };
    let known = old.map(all).unwrap_or_default();
    let new = all(crd).into_iter().filter(|format| !known.contains(format));
    new.map(|format| format!("unrecognized format {format:?}")).collect()
}

fn unknown_formats(schema: &Value, found: &mut Vec<String>) {
    let format = text(schema, "format");
    let unknown = !format.is_empty() && !schema::formats::known(format, text(schema, "type"));
    if unknown && found.len() < MAX_FORMATS && !found.iter().any(|f| f == format) {
        found.push(format.to_owned());
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        schema[key].as_array().into_iter().flatten().for_each(|branch| unknown_formats_below(branch, found));
    }
    for key in ["not", "items", "additionalProperties"] {
        unknown_formats_below(&schema[key], found);
    }
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties.for_each(|(_, property)| unknown_formats_below(property, found));
}

fn unknown_formats_below(schema: &Value, found: &mut Vec<String>) {
    if schema.is_object() {
        unknown_formats(schema, found);
    }
}

/// Finalizers that an object did not have before and that another writer may hit upon as well.
pub fn finalizers(object: &Value, old: Option<&Value>) -> Vec<String> {
    let all = |object: &Value| -> BTreeSet<String> {
        let list = object["metadata"]["finalizers"].as_array();
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let known = old.map(all).unwrap_or_default();
    let mut warnings = Vec::new();
    for name in all(object).difference(&known) {
        if name.contains('/') || ["kubernetes", "orphan", "foregroundDeletion"].contains(&name.as_str()) {
            continue;
        }
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        warnings.push(format!(
            "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Each was looked for among all others: half a minute of a request's thread for one body.
    #[test]
    fn formats_without_end_are_told_up_to_a_bound() {
        let schema = |n: usize| (format!("f{n}"), json!({"type": "string", "format": format!("odd-{n}")}));
        let properties: serde_json::Map<_, _> = (0..20_000).map(schema).collect();
        let versions = json!([{"schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}}]);
        let crd = json!({"spec": {"versions": versions}});
        assert_eq!(formats(&crd, None).len(), MAX_FORMATS);
        assert!(formats(&crd, Some(&crd)).is_empty(), "nothing of it is new");
    }
}
