//! DefaultStorageClass: a claim that names no storage class gets the default one.

use async_trait::async_trait;
use meta::Status;
use serde_json::Value;

use super::default_class::newest_default;
use crate::admission::{Mutating, Operation, Plugin, Request, World};

/// Annotations that make a class the default; the second is the older spelling.
const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// Where claims named their class before there was a field.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && request.is("", "persistentvolumeclaims")
    }
}

#[async_trait]
impl Mutating for DefaultStorageClass {
    async fn admit(&self, request: &mut Request<'_>, world: &dyn World) -> Result<(), Status> {
        if names_class(request.object) {
            return Ok(());
        }
        if let Some(class) = newest_default(world.objects("storage.k8s.io", "storageclasses", ""), &DEFAULT) {
            request.object["spec"]["storageClassName"] = class.into();
        }
        Ok(())
    }
}

/// An empty name is a choice too: of no class.
fn names_class(claim: &Value) -> bool {
    !claim["spec"]["storageClassName"].is_null() || !claim["metadata"]["annotations"][OLD_CLASS].is_null()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_class_is_a_choice() {
        assert!(!names_class(&json!({"spec": {}})));
        assert!(names_class(&json!({"spec": {"storageClassName": ""}})));
        assert!(names_class(&json!({"metadata": {"annotations": {OLD_CLASS: "x"}}, "spec": {}})));
    }
}
