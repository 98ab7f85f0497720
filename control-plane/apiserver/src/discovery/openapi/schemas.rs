//! Which definitions a document needs, built-in and custom; how each is written is `schema::openapi`'s, what is said of
//! it `descriptions`'. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use meta::Gvk;
use schema::Schema;
use schema::openapi::{self, Version};
use serde_json::{Map, Value, json};

use super::paths::{Body, PathItem, definition};
use crate::registry::{Registry, Served};

/// What upstream publishes of definitions beside what their schemas hold, by name.
static EXTRAS: LazyLock<BTreeMap<String, Map<String, Value>>> =
    LazyLock::new(|| serde_json::from_str(include_str!("extras.json")).unwrap_or_default());

/// The definition that objects carry their metadata in.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// The definition that lists carry their metadata in.
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Definitions that the paths refer to, directly or through others, by name.
pub fn used(registry: &Registry, items: &[PathItem], version: Version) -> BTreeMap<String, Value> {
    let builtin: BTreeMap<&str, &Schema> = kinds::definitions::all().collect();
    let custom: Vec<(String, &Served)> =
        registry.iter().filter(|served| served.custom).map(|served| (definition(&served.kind), &**served)).collect();
    let mut done: BTreeMap<String, Value> = BTreeMap::new();
    let mut found: BTreeMap<&str, &Schema> = BTreeMap::new();
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    let bodies = items.iter().flat_map(|item| &item.operations).flat_map(|one| [&one.body, &one.answer]);
    for body in bodies {
        let Body::Definition(name) = body else { continue };
        wanted.insert(name.as_str());
        if let Some((_, served)) = custom.iter().find(|(known, _)| known == name) {
            if done.contains_key(name) {
                continue;
            }
            write_custom(served, name, version, &mut done);
            openapi::referenced(&served.kind.schema, &mut found);
            for meta in [OBJECT_META, LIST_META] {
                found.extend(builtin.get_key_value(meta).map(|(name, schema)| (*name, *schema)));
            }
        } else if let Some((name, schema)) = builtin.get_key_value(name.as_str())
            && found.insert(name, schema).is_none()
        {
            openapi::referenced(schema, &mut found);
        }
    }
    for meta in [OBJECT_META, LIST_META] {
        if let Some(schema) = found.get(meta).copied() {
            openapi::referenced(schema, &mut found);
        }
    }
    for (name, schema) in found {
        let mut written = openapi::definition(schema, version);
        describe(name, &mut written);
        done.insert(name.to_owned(), written);
    }
    for (name, extra) in EXTRAS.iter() {
        if let Some(definition) = done.get_mut(name).and_then(Value::as_object_mut) {
            definition.extend(extra.clone());
        } else if wanted.contains(name.as_str()) {
            done.insert(name.clone(), extra.clone().into());
        }
    }
    done
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

/// The definitions of a custom kind and of its list.
fn write_custom(served: &Served, name: &str, version: Version, done: &mut BTreeMap<String, Value>) {
    let kind = &served.kind;
    let gvk = kind.gvk();
    // Version 2 has no words for an object that holds anything: upstream says no more of it than that.
    let open = version == Version::V2 && kind.schema.preserve_unknown;
    let words = |field| descriptions::of_field(ANY_KIND, field).unwrap_or_default();
    let mut root = match open {
        true => json!({"type": "object"}),
        false => with_meta(
            openapi::definition(&kind.schema, version),
            openapi::reference(version, OBJECT_META, words("metadata")),
        ),
    };
    root["x-kubernetes-group-version-kind"] = json!([{"group": gvk.group, "kind": gvk.kind, "version": gvk.version}]);
    done.insert(name.to_owned(), root);
    let list = Gvk { kind: kind.list_kind.clone(), ..gvk };
    let list_name = name.strip_suffix(&*kind.kind).unwrap_or(name).to_owned() + &kind.list_kind;
    let list = openapi::list_definition(&kind.kind, &kind.plural, &list, name, version);
    let metadata = openapi::reference(version, LIST_META, "Standard list metadata.");
    done.insert(list_name, with_meta(list, metadata));
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
