//! StorageObjectInUseProtection: claims and volumes start with the finalizer that the protection controllers take off
//! when nothing uses them any more.

use async_trait::async_trait;
use meta::Status;
use serde_json::{Value, json};

use crate::admission::{Mutating, Operation, Plugin, Request, World};

pub struct StorageObjectInUseProtection;

fn finalizer(request: &Request<'_>) -> Option<&'static str> {
    if request.is("", "persistentvolumeclaims") {
        Some("kubernetes.io/pvc-protection")
    } else if request.is("", "persistentvolumes") {
        Some("kubernetes.io/pv-protection")
    } else {
        None
    }
}

impl Plugin for StorageObjectInUseProtection {
    fn handles(&self, request: &Request<'_>) -> bool {
        request.operation == Operation::Create && finalizer(request).is_some()
    }
}

#[async_trait]
impl Mutating for StorageObjectInUseProtection {
    async fn admit(&self, request: &mut Request<'_>, _world: &dyn World) -> Result<(), Status> {
        if let Some(finalizer) = finalizer(request) {
            protect(request.object, finalizer);
        }
        Ok(())
    }
}

fn protect(object: &mut Value, finalizer: &str) {
    match object["metadata"]["finalizers"].as_array_mut() {
        Some(list) if list.iter().any(|f| f == finalizer) => {}
        Some(list) => list.push(finalizer.into()),
        None => object["metadata"]["finalizers"] = json!([finalizer]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_finalizer_is_enough() {
        let mut object = json!({"metadata": {"finalizers": ["a/b"]}});
        protect(&mut object, "c/d");
        protect(&mut object, "c/d");
        assert_eq!(object["metadata"]["finalizers"], json!(["a/b", "c/d"]));
    }
}
