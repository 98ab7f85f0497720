//! PartialObjectMetadata: only the metadata of objects, for clients that need no more (garbage collection, quota).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Partial<'a> {
    kind: &'a str,
    #[serde(rename = "apiVersion")]
    api_version: &'a str,
    metadata: Option<&'a RawValue>,
}

/// The stored JSON of an object, cut to its metadata. None when the bytes are no object.
pub fn from_bytes(json: &[u8]) -> Option<Vec<u8>> {
    let parts: Parts = serde_json::from_slice(json).ok()?;
    let partial = Partial { kind: "PartialObjectMetadata", api_version: "meta.k8s.io/v1", metadata: parts.metadata };
    serde_json::to_vec(&partial).ok()
}

/// An object cut to its metadata.
pub fn from_value(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

/// A list of partial objects. `metadata` is the list's own.
pub fn list(metadata: Value, items: impl Iterator<Item = Value>) -> Value {
    let items: Vec<Value> = items.collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metadata_is_left() {
        let bytes = from_bytes(br#"{"kind":"Pod","metadata":{"name":"a","uid":"u"},"spec":{"x":1}}"#).unwrap();
        let want = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a", "uid": "u"}});
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), want);
        assert!(from_bytes(b"[").is_none());
    }
}
