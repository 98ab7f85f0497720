//! A stored definition without its schemas, which are nearly all of its bytes: names, versions, columns, status. What
//! follows definitions reads this; a schema is read when an object of the kind or a document asks for it. Pure.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::cache::Entry;

/// See the module's head.
pub struct Outline {
    /// The definition as it is stored, but for `managedFields` and what is in `schema` of its versions.
    pub crd: Value,
    /// Where the text of each version's `openAPIV3Schema` lies, in the order of the versions; none for no object.
    schemas: Vec<Option<Range<usize>>>,
    stored: Bytes,
}

#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(default)]
    metadata: Metadata,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    uid: Value,
    generation: Value,
    deletion_timestamp: Value,
    finalizers: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec<'a> {
    group: Value,
    names: Value,
    scope: Value,
    #[serde(borrow)]
    versions: Vec<Version<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Version<'a> {
    name: Value,
    served: Value,
    storage: Value,
    deprecated: Value,
    deprecation_warning: Value,
    subresources: Value,
    additional_printer_columns: Value,
    selectable_fields: Value,
    #[serde(borrow)]
    schema: Option<Schema<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Schema<'a> {
    #[serde(borrow, rename = "openAPIV3Schema")]
    open_api: Option<&'a RawValue>,
}

impl Outline {
    /// `None` for what is no definition: the cache has such things in no list.
    pub fn of(entry: &Entry) -> Option<Outline> {
        Outline::read(entry.value.clone())
    }

    pub fn read(stored: Bytes) -> Option<Outline> {
        let whole: Whole<'_> = serde_json::from_slice(&stored).ok()?;
        let start = stored.as_ptr() as usize;
        let place = |version: &Version<'_>| {
            let text = version.schema.as_ref()?.open_api?.get();
            let from = (text.as_ptr() as usize).checked_sub(start)?;
            text.starts_with('{').then(|| from..from + text.len())
        };
        let schemas = whole.spec.versions.iter().map(place).collect();
        let crd = value(whole);
        Some(Outline { crd, schemas, stored })
    }

    pub fn name(&self) -> &str {
        self.crd["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub fn group(&self) -> &str {
        self.crd["spec"]["group"].as_str().unwrap_or_default()
    }

    /// The text of a version's schema; it shares the stored bytes.
    pub fn schema(&self, version: usize) -> Bytes {
        let place = self.schemas.get(version).cloned().flatten();
        place.map_or_else(Bytes::new, |place| self.stored.slice(place))
    }
}

fn value(whole: Whole<'_>) -> Value {
    let Whole { metadata, spec, status } = whole;
    let versions = spec.versions.into_iter().map(|version| {
        present([
            ("name", version.name),
            ("served", version.served),
            ("storage", version.storage),
            ("deprecated", version.deprecated),
            ("deprecationWarning", version.deprecation_warning),
            ("subresources", version.subresources),
            ("additionalPrinterColumns", version.additional_printer_columns),
            ("selectableFields", version.selectable_fields),
        ])
    });
    let versions = versions.collect();
    json!({
        "metadata": present([
            ("name", metadata.name.into()),
            ("uid", metadata.uid),
            ("generation", metadata.generation),
            ("deletionTimestamp", metadata.deletion_timestamp),
            ("finalizers", metadata.finalizers),
        ]),
        "spec": present([("group", spec.group), ("names", spec.names), ("scope", spec.scope), ("versions", versions)]),
        "status": status,
    })
}

/// An object of the fields that are there.
fn present<const N: usize>(fields: [(&str, Value); N]) -> Value {
    fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_passed_over_and_found_again() {
        let stored = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.com", "uid": "u", "generation": 2, "managedFields": [{"manager": "m"}]},
            "spec": {"group": "example.com", "names": {"plural": "widgets"}, "scope": "Cluster", "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
                {"name": "v2", "served": true, "storage": false, "subresources": {"status": {}}},
            ]},
            "status": {"conditions": []}});
        let outline = Outline::read(Bytes::from(stored.to_string())).expect("a definition");
        let mut wanted = stored.clone();
        wanted["metadata"].as_object_mut().expect("metadata").remove("managedFields");
        wanted["spec"]["versions"][0].as_object_mut().expect("version").remove("schema");
        for field in ["metadata", "spec", "status"] {
            assert_eq!(outline.crd[field], wanted[field]);
        }
        assert_eq!(outline.schema(0), r#"{"type":"object"}"#);
        assert_eq!(outline.schema(1), "");
        assert_eq!((outline.name(), outline.group()), ("widgets.example.com", "example.com"));
        assert!(Outline::read(Bytes::from_static(b"null")).is_none());
    }
}
