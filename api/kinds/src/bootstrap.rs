//! What a new cluster holds before anyone writes to it, as upstream 1.37 creates it: cluster roles and bindings, roles
//! in kube-system and kube-public, flow schemas, priority levels and classes, the four system namespaces.
//! Service CIDRs and addresses depend on flags and are not among them.

use serde_json::Value;

const OBJECTS: &str = include_str!("../data/bootstrap.json");

/// Every bootstrap object with apiVersion and kind, without server-set metadata and status. Parsed at each call.
pub fn bootstrap() -> impl Iterator<Item = Value> {
    OBJECTS.lines().filter_map(|line| serde_json::from_str(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::text;

    #[test]
    fn every_object_is_of_a_known_kind() {
        assert_eq!(bootstrap().count(), OBJECTS.lines().count());
        for object in bootstrap() {
            let (group, version) = meta::gvk::split_api_version(text(&object, "apiVersion"));
            assert!(crate::by_kind(group, version, text(&object, "kind")).is_some(), "{object}");
        }
        assert!(bootstrap().any(|o| text(&o, "metadata.name") == "cluster-admin"));
    }
}
