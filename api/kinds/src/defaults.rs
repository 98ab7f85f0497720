//! Constant defaults: a walk over the object along its type that fills every absent field for which the table of types
//! holds a value. What depends on other values is a hook of the kind.

use serde_json::{Map, Value};

use crate::types::{self, MessageId, Scalar, Shape};

/// Fills the constant defaults of `object`, which is of type `id`, and of everything it holds.
pub(crate) fn constants(object: &mut Value, id: MessageId) {
    if let Value::Object(map) = object {
        fill(map, id);
    }
}

fn fill(map: &mut Map<String, Value>, id: MessageId) {
    let message = types::message(id);
    if !message.has_defaults {
        return;
    }
    for field in &message.fields {
        let inner = match field.scalar {
            Scalar::Message(inner) if types::message(inner).has_defaults => Some(inner),
            _ => None,
        };
        if inner.is_none() && field.default.is_none() {
            continue;
        }
        if let Some(default) = &field.default
            && map.get(field.name).is_none_or(|v| v.is_null() || (!field.pointer && (*v == "" || *v == 0)))
        {
            map.insert(field.name.to_owned(), default.clone());
        }
        if let (Some(inner), Some(value)) = (inner, map.get_mut(field.name)) {
            fill_values(value, field.shape, inner);
        } else if let (Some(inner), true) = (inner, field.is_struct()) {
            let mut value = Map::new();
            fill(&mut value, inner);
            if !value.is_empty() {
                map.insert(field.name.to_owned(), Value::Object(value));
            }
        }
    }
}

fn fill_values(value: &mut Value, shape: Shape, inner: MessageId) {
    match (shape, value) {
        (Shape::One, value) => constants(value, inner),
        (Shape::List | Shape::WrappedList, Value::Array(list)) => list.iter_mut().for_each(|v| constants(v, inner)),
        (Shape::Map, Value::Object(map)) => map.values_mut().for_each(|v| constants(v, inner)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn constants_reach_into_templates() {
        let kind = crate::by_kind("apps", "v1", "Deployment").unwrap();
        let mut d =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]}}}});
        kind.apply_defaults(&mut d);
        assert_eq!(d["spec"]["replicas"], 1);
        assert_eq!(d["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
        let container = &d["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["terminationMessagePolicy"], "File");
        assert_eq!(container["ports"][0]["protocol"], "TCP");
    }

    #[test]
    fn constants_fill_structs_that_nobody_wrote() {
        let kind = crate::by_kind("", "v1", "Service").unwrap();
        let mut service = json!({"spec": {}});
        kind.apply_defaults(&mut service);
        assert_eq!(service["spec"]["type"], "ClusterIP");
        let kind = crate::by_kind("", "v1", "Namespace").unwrap();
        let mut ns = json!({});
        kind.apply_defaults(&mut ns);
        assert_eq!(ns["status"]["phase"], "Active");
    }
}
