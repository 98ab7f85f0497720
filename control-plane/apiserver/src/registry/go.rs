//! Values and conversion errors as Go prints them, for the messages of strategic patches. Pure; [`super::patch`] calls it.

use serde_json::Value;

/// A value as `%v` prints it: `map[data:map[a:1]]`.
pub fn print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            // Go sorts the keys that it prints.
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields: Vec<String> =
                fields.into_iter().map(|(key, value)| format!("{key}:{}", print(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

/// What the converter of patched objects says where the decoder of bodies says that a value does not fit.
pub fn restored(why: &str) -> String {
    let misfit = why.strip_prefix("json: cannot unmarshal ").and_then(|rest| {
        let (found, rest) = rest.split_once(" into Go ")?;
        Some((found, rest.rsplit_once(" of type ")?.1))
    });
    let Some((found, wanted)) = misfit else { return why.to_owned() };
    let found = match found.split(' ').next().unwrap_or_default() {
        "object" => "map",
        "array" => "slice",
        "number" if found.contains('.') => "float64",
        "number" => "int64",
        other => other,
    };
    if wanted.starts_with("[]") {
        format!("cannot restore slice from {found}")
    } else if wanted.starts_with("map[") {
        format!("cannot restore map from {found}")
    } else if wanted.contains('.') {
        format!("cannot restore struct from: {found}")
    } else if wanted == "string" && found == "int64" {
        "cannot convert int64 to string".to_owned()
    } else {
        format!("unrecognized type: {wanted}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_printed_and_misfits_told_as_go_does() {
        let value = json!({"spec": {"b": [1, "x"], "a": null}});
        assert_eq!(print(&value), "map[spec:map[a:<nil> b:[1 x]]]");
        for (why, want) in [
            (
                "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
                "cannot convert int64 to string",
            ),
            (
                "json: cannot unmarshal string into Go struct field ConfigMap.data of type map[string]string",
                "cannot restore map from string",
            ),
            (
                "json: cannot unmarshal string into Go struct field ConfigMap.metadata of type v1.ObjectMeta",
                "cannot restore struct from: string",
            ),
            (
                "json: cannot unmarshal object into Go struct field PodSpec.containers of type []v1.Container",
                "cannot restore slice from map",
            ),
            (
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
                "unrecognized type: int32",
            ),
            ("strict decoding error: unknown field \"foo\"", "strict decoding error: unknown field \"foo\""),
        ] {
            assert_eq!(restored(why), want);
        }
    }
}
