//! What is wrong with a definition. Pure.

use meta::{FieldError, names};
use serde_json::Value;

/// Types that printer columns may have.
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
/// Selectable fields per version.
const MAX_SELECTABLE: usize = 8;
const APPROVED: &str = "api-approved.kubernetes.io";

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn check(errors: &mut Vec<FieldError>, path: &str, value: &str, problems: Vec<String>) {
    errors.extend(problems.into_iter().map(|problem| FieldError::invalid(path, value, problem)));
}

/// Everything wrong with a definition; `old` is what it replaces.
pub fn definition(crd: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = &crd["spec"];
    let mut errors = Vec::new();
    let expected = format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group"));
    let name = text(&crd["metadata"], "name");
    if name != expected {
        errors.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    group(crd, &mut errors);
    match text(spec, "scope") {
        "Namespaced" | "Cluster" => {}
        "" => errors.push(FieldError::required("spec.scope", "")),
        other => errors.push(FieldError::not_supported("spec.scope", other, ["Cluster", "Namespaced"])),
    }
    resource_names(&spec["names"], &mut errors);
    if spec["preserveUnknownFields"] == true {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid("spec.preserveUnknownFields", true, detail));
    }
    versions(spec, &mut errors);
    conversion(spec, &mut errors);
    stored_versions(crd, &mut errors);
    if let Some(old) = old {
        immutable(crd, old, &mut errors);
    }
    errors
}

fn group(crd: &Value, errors: &mut Vec<FieldError>) {
    let group = text(&crd["spec"], "group");
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if !names::dns1123_subdomain(group).is_empty() {
        check(errors, "spec.group", group, names::dns1123_subdomain(group));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
    let protected = group.ends_with(".k8s.io") || group.ends_with(".kubernetes.io");
    if protected && text(&crd["metadata"]["annotations"], APPROVED).is_empty() {
        let detail = format!(
            "protected groups must have approval annotation \"{APPROVED}\", see https://github.com/kubernetes/enhancements/pull/1111"
        );
        errors.push(FieldError::required(format!("metadata.annotations[{APPROVED}]"), detail));
    }
}

fn resource_names(given: &Value, errors: &mut Vec<FieldError>) {
    for (field, lower) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        let path = format!("spec.names.{field}");
        match text(given, field) {
            "" => errors.push(FieldError::required(path, "")),
            value if lower => {
                let problems = names::dns1035_label(&value.to_lowercase());
                let told = "may have mixed case, but should otherwise match: ";
                let problems = problems.into_iter().map(|problem| format!("{told}{problem}")).collect();
                check(errors, &path, value, problems);
            }
            value => check(errors, &path, value, names::dns1035_label(value)),
        }
    }
    for list in ["shortNames", "categories"] {
        for (index, name) in given[list].as_array().into_iter().flatten().filter_map(Value::as_str).enumerate() {
            check(errors, &format!("spec.names.{list}[{index}]"), name, names::dns1035_label(name));
        }
    }
    let kind = text(given, "kind");
    if !kind.is_empty() && kind == text(given, "listKind") {
        errors.push(FieldError::invalid("spec.names.listKind", kind, "kind and listKind may not be the same"));
    }
}

fn versions(spec: &Value, errors: &mut Vec<FieldError>) {
    let all = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.iter().filter(|v| v["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", spec["versions"].clone(), detail));
        errors.push(FieldError::invalid("status.storedVersions", Value::Null, "must have at least one stored version"));
    }
    for (index, version) in all.iter().enumerate() {
        let name = text(version, "name");
        check(errors, &format!("spec.versions[{index}].name"), name, names::dns1035_label(name));
        if index == 0 {
            check(errors, "spec.version", name, names::dns1035_label(name));
        }
    }
    // Told once, as it shows them all.
    let mut seen = std::collections::HashSet::new();
    if !all.iter().all(|version| seen.insert(text(version, "name"))) {
        let detail = "must contain unique version names";
        errors.push(FieldError::invalid("spec.versions", spec["versions"].clone(), detail));
    }
    for field in ["schema", "subresources", "additionalPrinterColumns", "selectableFields"] {
        // What all versions have in common is spoken of as the whole definition's, as upstream keeps it.
        let same = all.iter().all(|version| version[field] == all[0][field]);
        let told = if same { &all[..all.len().min(1)] } else { all };
        for (index, version) in told.iter().enumerate() {
            let path = if same { "spec".to_owned() } else { format!("spec.versions[{index}]") };
            match field {
                "schema" => schema(version, &path, same, errors),
                "subresources" => subresources(version, &path, errors),
                "additionalPrinterColumns" => columns(version, &path, errors),
                _ => selectable(version, &path, errors),
            }
        }
    }
    for (index, version) in all.iter().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            errors.push(FieldError::required(format!("spec.versions[{index}].schema.openAPIV3Schema"), ""));
        }
    }
}

fn schema(version: &Value, path: &str, common: bool, errors: &mut Vec<FieldError>) {
    let schema = &version["schema"]["openAPIV3Schema"];
    if schema.is_object() {
        let part = if common { "validation" } else { "schema" };
        errors.extend(schema::structural::check(schema, &format!("{path}.{part}.openAPIV3Schema")));
    }
}

fn subresources(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(scale) = version["subresources"].get("scale").filter(|scale| scale.is_object()) else { return };
    let path = format!("{path}.subresources.scale");
    for (field, root, required) in [
        ("specReplicasPath", ".spec.", true),
        ("statusReplicasPath", ".status.", true),
        ("labelSelectorPath", "", false),
    ] {
        let value = text(scale, field);
        let path = format!("{path}.{field}");
        if value.is_empty() {
            if required {
                errors.push(FieldError::required(path, ""));
            }
        } else if value.contains('[') {
            errors.push(FieldError::invalid(
                path,
                value,
                "should be a json path under dot notation without array access",
            ));
        } else if !value.starts_with(root) || !value.starts_with('.') {
            let detail = format!("should be a json path under {root}");
            errors.push(FieldError::invalid(path, value, detail.trim_end_matches('.')));
        }
    }
}

fn columns(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (index, column) in version["additionalPrinterColumns"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.additionalPrinterColumns[{index}]");
        if text(column, "name").is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        match text(column, "type") {
            "" => {
                let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
                errors.push(FieldError::required(format!("{path}.type"), detail));
            }
            known if COLUMN_TYPES.contains(&known) => {}
            other => {
                let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
                errors.push(FieldError::invalid(format!("{path}.type"), other, detail));
            }
        }
        match text(column, "jsonPath") {
            "" => errors.push(FieldError::required(format!("{path}.JSONPath"), "")),
            other if !other.starts_with('.') => {
                let detail = "must be a simple json path starting with .";
                errors.push(FieldError::invalid(format!("{path}.JSONPath"), other, detail));
            }
            _ => {}
        }
    }
}

fn selectable(version: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let fields = version["selectableFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    if fields.len() > MAX_SELECTABLE {
        let path = format!("{path}.selectableFields");
        errors.push(FieldError::too_many(path, fields.len() as i64, MAX_SELECTABLE as i64));
    }
    for (index, field) in fields.iter().enumerate() {
        let path = format!("{path}.selectableFields[{index}].jsonPath");
        let json_path = text(field, "jsonPath");
        if json_path.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        let mut node = &version["schema"]["openAPIV3Schema"];
        for step in json_path.trim_start_matches('.').split('.') {
            node = &node["properties"][step];
        }
        let scalar = matches!(node["type"].as_str(), Some("string" | "boolean" | "integer"));
        if !json_path.starts_with(['.', '[']) {
            let detail = format!("is an invalid path: expected [ or . but got: {json_path}");
            errors.push(FieldError::invalid(path, json_path, detail));
        } else if json_path.starts_with(".metadata") {
            let detail = "must not point to fields in metadata";
            errors.push(FieldError::invalid(path, json_path, detail));
        } else if !scalar {
            let detail = "is an invalid path: does not refer to a valid field";
            errors.push(FieldError::invalid(path, json_path, detail));
        }
    }
}

fn conversion(spec: &Value, errors: &mut Vec<FieldError>) {
    let path = "spec.conversion.strategy";
    match text(&spec["conversion"], "strategy") {
        "" | "None" => {}
        other if spec["preserveUnknownFields"] == true => {
            errors.push(FieldError::invalid(path, other, "must be None if spec.preserveUnknownFields is true"));
        }
        "Webhook" => {
            let detail = "this server cannot call conversion webhooks yet; use None";
            errors.push(FieldError::invalid(path, "Webhook", detail));
        }
        other => errors.push(FieldError::not_supported(path, other, ["None", "Webhook"])),
    }
}

fn stored_versions(crd: &Value, errors: &mut Vec<FieldError>) {
    let versions = crd["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let stored = crd["status"]["storedVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for (index, stored) in stored.enumerate().filter(|(_, s)| !versions.iter().any(|v| text(v, "name") == *s)) {
        let detail = format!(
            "missing from spec.versions; {stored} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {stored} and removes {stored} from status.storedVersions"
        );
        errors.push(FieldError::invalid(format!("status.storedVersions[{index}]"), stored, detail));
    }
}

fn immutable(crd: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let mut fixed = |path: &str, new: &Value, old: &Value| {
        if new != old {
            errors.push(FieldError::invalid(path, new.clone(), "field is immutable"));
        }
    };
    fixed("spec.group", &crd["spec"]["group"], &old["spec"]["group"]);
    fixed("spec.names.plural", &crd["spec"]["names"]["plural"], &old["spec"]["names"]["plural"]);
    if super::status::is_true(old, "Established") {
        fixed("spec.scope", &crd["spec"]["scope"], &old["spec"]["scope"]);
        fixed("spec.names.kind", &crd["spec"]["names"]["kind"], &old["spec"]["names"]["kind"]);
    }
}

/// Whether a schema has rules in CEL anywhere.
pub fn has_rules(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| key == "x-kubernetes-validations" || has_rules(value)),
        Value::Array(list) => list.iter().any(has_rules),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn crd() -> Value {
        json!({"metadata": {"name": "widgets.example.com"}, "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        }})
    }

    #[test]
    fn a_plain_definition_is_fine() {
        assert_eq!(definition(&crd(), None), []);
    }

    #[test]
    fn each_mistake_is_told_with_its_path() {
        let cases: [(&str, Value, &str); 6] = [
            ("/metadata/name", json!("x"), "metadata.name"),
            ("/spec/group", json!("nodots"), "metadata.name"),
            ("/spec/scope", json!("Everywhere"), "spec.scope"),
            ("/spec/versions/0/storage", json!(false), "spec.versions"),
            ("/spec/versions/0/schema", json!({}), "spec.versions[0].schema.openAPIV3Schema"),
            ("/spec/conversion", json!({"strategy": "Webhook"}), "spec.conversion.strategy"),
        ];
        for (pointer, value, path) in cases {
            let mut crd = crd();
            match crd.pointer_mut(pointer) {
                Some(place) => *place = value,
                None => crd["spec"]["conversion"] = value,
            }
            let errors = definition(&crd, None);
            assert_eq!(errors.first().map(|e| e.path.as_str()), Some(path), "{errors:?}");
        }
    }

    /// Each version that had the name of another was told with all versions beside it: gigabytes for a small body.
    #[test]
    fn versions_of_one_name_are_told_once() {
        let mut crd = crd();
        let first = crd["spec"]["versions"][0].clone();
        let other = json!({"name": "v1", "served": true, "storage": false, "schema": first["schema"]});
        crd["spec"]["versions"] = std::iter::once(first).chain(std::iter::repeat_n(other, 20)).collect();
        let errors = definition(&crd, None);
        let of_names = errors.iter().filter(|error| error.to_string().contains("must contain unique version names"));
        assert_eq!(of_names.count(), 1, "{errors:?}");
    }

    #[test]
    fn the_plural_never_changes() {
        let mut new = crd();
        new["spec"]["names"]["plural"] = json!("gadgets");
        new["metadata"]["name"] = json!("gadgets.example.com");
        assert_eq!(definition(&new, Some(&crd())).len(), 1);
    }
}
