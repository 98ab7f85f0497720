//! What subresources that write a part of an object let through: the new state becomes the old one plus that part.
//! Pure.

use serde_json::Value;

/// The old object with the client's resourceVersion and uid, which were checked before.
fn old_with_identity(new: &Value, old: &Value) -> Value {
    let mut kept = old.clone();
    if let Some(version) = new["metadata"].get("resourceVersion") {
        kept["metadata"]["resourceVersion"] = version.clone();
    }
    kept
}

fn copy(from: &Value, to: &mut Value, parent: &str, field: &str) {
    match from[parent].get(field) {
        Some(value) if !value.is_null() => to[parent][field] = value.clone(),
        _ => {
            if let Some(map) = to.get_mut(parent).and_then(Value::as_object_mut) {
                map.remove(field);
            }
        }
    }
}

/// /finalize: `spec.finalizers`, and status, which the namespace controller writes along.
pub fn spec_finalizers(new: &mut Value, old: &Value) {
    let mut kept = old_with_identity(new, old);
    copy(new, &mut kept, "spec", "finalizers");
    *new = kept;
}

/// /approval: conditions of the status, and labels and annotations as upstream lets through.
pub fn approval(new: &mut Value, old: &Value) {
    let mut kept = old_with_identity(new, old);
    copy(new, &mut kept, "status", "conditions");
    *new = kept;
}

/// /ephemeralcontainers: the list of that name.
pub fn ephemeral_containers(new: &mut Value, old: &Value) {
    let mut kept = old_with_identity(new, old);
    copy(new, &mut kept, "spec", "ephemeralContainers");
    *new = kept;
}

/// /resize: resources and resize policy of containers, matched by name, and of the pod as a whole.
pub fn container_resources(new: &mut Value, old: &Value) {
    let mut kept = old_with_identity(new, old);
    for list in ["containers", "initContainers"] {
        let Some(containers) = kept["spec"][list].as_array_mut() else { continue };
        for container in containers {
            let wanted = new["spec"][list].as_array().into_iter().flatten().find(|c| c["name"] == container["name"]);
            let Some(wanted) = wanted else { continue };
            for field in ["resources", "resizePolicy"] {
                match wanted.get(field) {
                    Some(value) => container[field] = value.clone(),
                    None => {
                        if let Some(map) = container.as_object_mut() {
                            map.remove(field);
                        }
                    }
                }
            }
        }
    }
    copy(new, &mut kept, "spec", "resources");
    *new = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_part_passes() {
        let old = json!({"metadata": {"name": "a", "uid": "1"}, "spec": {"x": 1, "finalizers": ["kubernetes"]}});
        let mut new = json!({"metadata": {"name": "b", "resourceVersion": "7"}, "spec": {"x": 2}});
        spec_finalizers(&mut new, &old);
        assert_eq!(new, json!({"metadata": {"name": "a", "uid": "1", "resourceVersion": "7"}, "spec": {"x": 1}}));
    }

    #[test]
    fn resize_changes_resources_by_container_name() {
        let old =
            json!({"metadata": {}, "spec": {"containers": [{"name": "a", "image": "i", "resources": {"limits": 1}}]}});
        let mut new =
            json!({"metadata": {}, "spec": {"containers": [{"name": "a", "image": "j", "resources": {"limits": 2}}]}});
        container_resources(&mut new, &old);
        assert_eq!(new["spec"]["containers"], json!([{"name": "a", "image": "i", "resources": {"limits": 2}}]));
    }
}
