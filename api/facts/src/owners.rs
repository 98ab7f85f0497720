//! Who manages an object: of all owners in its metadata at most one is the controller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The reference of the managing controller, if there is one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|r| r.controller == Some(true))
}

/// Whether the object is managed by the owner with this UID. Names don't count: a successor of the same name is another.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|r| r.uid == uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn meta(references: Value) -> ObjectMeta {
        serde_json::from_value(json!({"name": "p", "ownerReferences": references})).unwrap()
    }

    #[test]
    fn only_the_owner_that_says_so_is_the_controller() {
        let owner = |uid: &str, controller: Value| json!({"apiVersion": "v1", "kind": "A", "name": "a", "uid": uid, "controller": controller});
        for (references, controller) in [
            (json!(null), None),
            (json!([]), None),
            (json!([owner("1", json!(null))]), None),
            (json!([owner("1", json!(false))]), None),
            (json!([owner("1", json!(null)), owner("2", json!(true))]), Some("2")),
        ] {
            let meta = meta(references);
            assert_eq!(controller_of(&meta).map(|r| r.uid.as_str()), controller);
            assert_eq!(is_controlled_by(&meta, "2"), controller == Some("2"));
            assert!(!is_controlled_by(&meta, "1"));
        }
    }
}
