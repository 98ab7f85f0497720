//! Which definitions a document needs, built-in and custom; how each is written is `schema::openapi`'s, what is said of
//! it `descriptions`'. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use meta::Gvk;
use schema::Schema;
use schema::openapi::{self, Version};
use serde_json::{Map, Value, json};

use super::paths::{Body, PathItem, definition};
use crate::registry::Served;

/// What upstream publishes of definitions beside what their schemas hold, by name.
static EXTRAS: LazyLock<BTreeMap<String, Map<String, Value>>> =
    LazyLock::new(|| serde_json::from_str(include_str!("extras.json")).unwrap_or_default());

/// The definition that objects carry their metadata in.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// The definition that lists carry their metadata in.
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Definitions that paths refer to, directly or through others. Each is made when it is written: those of custom kinds
/// are long, and many.
pub struct Definitions<'a> {
    by_name: BTreeMap<String, What<'a>>,
    version: Version,
}

#[derive(Clone, Copy)]
enum What<'a> {
    Builtin(&'a Schema),
    Custom(&'a Served),
    /// The list of a custom kind.
    List(&'a Served),
    /// Published as it is written in [`EXTRAS`].
    Extra,
}

impl<'a> Definitions<'a> {
    /// Those that the paths of these resources, and of discovery, refer to.
    pub fn of(resources: &[&'a Served], items: &[PathItem], version: Version) -> Definitions<'a> {
        let builtin: BTreeMap<&str, &Schema> = kinds::definitions::all().collect();
        let mut by_name = BTreeMap::new();
        for served in resources.iter().filter(|served| served.custom) {
            let name = definition(&served.kind);
            by_name.insert(list_name(served, &name), What::List(served));
            by_name.insert(name, What::Custom(served));
        }
        let mut found: BTreeMap<&str, &Schema> = BTreeMap::new();
        let bodies = items.iter().flat_map(|item| &item.operations).flat_map(|one| [&one.body, &one.answer]);
        let wanted: BTreeSet<&str> = bodies.filter_map(Body::definition).collect();
        // A schema of a custom kind refers to nothing but metadata.
        let metadata = [OBJECT_META, LIST_META].into_iter().filter(|_| !by_name.is_empty());
        for name in wanted.iter().copied().filter(|name| !by_name.contains_key(*name)).chain(metadata) {
            if let Some((name, schema)) = builtin.get_key_value(name)
                && found.insert(name, schema).is_none()
            {
                openapi::referenced(schema, &mut found);
            }
        }
        by_name.extend(found.into_iter().map(|(name, schema)| (name.to_owned(), What::Builtin(schema))));
        for name in EXTRAS.keys().filter(|name| wanted.contains(name.as_str())) {
            by_name.entry(name.clone()).or_insert(What::Extra);
        }
        Definitions { by_name, version }
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value)> {
        self.by_name.iter().map(|(name, what)| (name.as_str(), self.written(name, *what)))
    }

    fn written(&self, name: &str, what: What<'_>) -> Value {
        let mut written = match what {
            What::Builtin(schema) => openapi::definition(schema, self.version),
            What::Custom(served) => custom(served, self.version),
            What::List(served) => list(served, self.version),
            What::Extra => json!({}),
        };
        if let What::Builtin(_) = what {
            describe(name, &mut written);
        }
        if let (Some(extra), Some(written)) = (EXTRAS.get(name), written.as_object_mut()) {
            written.extend(extra.clone());
        }
        written
    }
}

/// Adds what the API's documentation says of a definition and its fields.
fn describe(name: &str, definition: &mut Value) {
    let Some(root) = definition.as_object_mut() else { return };
    if let Some(words) = descriptions::of_type(name) {
        root.insert("description".to_owned(), words.into());
    }
    let fields = root.get_mut("properties").and_then(Value::as_object_mut);
    for (field, value) in fields.into_iter().flatten() {
        if let (Some(words), Some(value)) = (descriptions::of_field(name, field), value.as_object_mut()) {
            value.insert("description".to_owned(), words.into());
        }
    }
}

/// The definition of a custom kind.
fn custom(served: &Served, version: Version) -> Value {
    let gvk = served.kind.gvk();
    let schema = served.source.as_ref().map_or(Schema::ANYTHING, |source| source.published());
    // Version 2 has no words for an object that holds anything: upstream says no more of it than that.
    let open = version == Version::V2 && schema.preserve_unknown;
    let words = |field| descriptions::of_field(ANY_KIND, field).unwrap_or_default();
    let mut root = match open {
        true => json!({"type": "object"}),
        false => with_meta(
            openapi::definition(&schema, version),
            openapi::reference(version, OBJECT_META, words("metadata")),
        ),
    };
    root["x-kubernetes-group-version-kind"] = json!([{"group": gvk.group, "kind": gvk.kind, "version": gvk.version}]);
    root
}

/// The name of the list of a custom kind.
fn list_name(served: &Served, name: &str) -> String {
    name.strip_suffix(&*served.kind.kind).unwrap_or(name).to_owned() + &served.kind.list_kind
}

/// The definition of the list of a custom kind.
fn list(served: &Served, version: Version) -> Value {
    let kind = &served.kind;
    let list = Gvk { kind: kind.list_kind.clone(), ..kind.gvk() };
    let list = openapi::list_definition(&kind.kind, &kind.plural, &list, &definition(kind), version);
    with_meta(list, openapi::reference(version, LIST_META, "Standard list metadata."))
}

/// A kind whose apiVersion, kind and metadata are described as every kind's.
const ANY_KIND: &str = "io.k8s.api.core.v1.ConfigMap";

/// Gives a definition the fields that every object has, with the documentation's words.
fn with_meta(mut definition: Value, metadata: Value) -> Value {
    for field in ["apiVersion", "kind"] {
        let words = descriptions::of_field(ANY_KIND, field).unwrap_or_default();
        definition["properties"][field] = json!({"type": "string", "description": words});
    }
    definition["properties"]["metadata"] = metadata;
    definition
}
