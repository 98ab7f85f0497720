//! A definition as kinds: one per served version, and one for the version that is stored. Pure.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use codec::Form;
use kinds::kind::StatusMetadata;
use kinds::{
    Action, Column, Context, Hooks, Kind, KindRef, NameRule, ScalePaths, Selectable, Storage, Subresource, Verbs,
};
use meta::{Gvk, Scope, Str};
use schema::SchemaRef;
use serde_json::Value;

use super::outline::Outline;
use super::source::{Source, Work};
use crate::cache::Reader;
use crate::registry::reading;

/// One version of a definition.
pub struct Version {
    pub kind: KindRef,
    pub source: Arc<Source>,
    pub served: bool,
    pub storage: bool,
    pub deprecation: Option<String>,
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn owned(text: &str) -> Str {
    Str::Owned(text.to_owned())
}

fn texts(value: &Value) -> Vec<Str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(owned).collect()
}

/// Every version of a definition. Names are those that were accepted.
pub fn versions(outline: &Outline, prefix: &str, work: &Arc<Work>) -> Vec<Version> {
    work.served.fetch_add(1, Ordering::Relaxed);
    let crd = &outline.crd;
    let spec = &crd["spec"];
    let all = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = all.iter().find(|version| version["storage"] == true).map_or("", |version| text(version, "name"));
    all.iter()
        .enumerate()
        .map(|(index, version)| {
            let source = Source::new(outline.schema(index), work);
            Version {
                kind: Arc::new(kind(crd, version, storage, prefix, source.schema())),
                source,
                served: version["served"] == true,
                storage: version["storage"] == true,
                deprecation: super::warnings::deprecation(spec, version),
            }
        })
        .collect()
}

fn kind(crd: &Value, version: &Value, storage: &str, prefix: &str, schema: SchemaRef) -> Kind {
    let spec = &crd["spec"];
    let names = match &crd["status"]["acceptedNames"] {
        accepted if !text(accepted, "plural").is_empty() && !text(accepted, "kind").is_empty() => accepted,
        _ => &spec["names"],
    };
    let group = text(spec, "group");
    let name = text(version, "name");
    let stored = Gvk { group: owned(group), version: owned(storage), kind: owned(text(names, "kind")) };
    let has_status = version["subresources"].get("status").is_some_and(|s| !s.is_null());
    Kind {
        group: owned(group),
        version: owned(name),
        kind: owned(text(names, "kind")),
        list_kind: owned(text(names, "listKind")),
        plural: owned(text(names, "plural")),
        singular: owned(text(names, "singular")),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        scope: if text(spec, "scope") == "Namespaced" { Scope::Namespaced } else { Scope::Cluster },
        verbs: Verbs::ALL,
        subresources: subresources(version, &Gvk { version: owned(name), ..stored.clone() }),
        storage: Some(Storage {
            prefix: Str::Owned(format!("{prefix}/{group}/{}", text(names, "plural"))),
            version_hash: kinds::storage_version_hash(&stored),
            kind: stored,
            ttl_seconds: None,
        }),
        schema,
        message: None,
        columns: columns(version),
        selectable: selectable(version),
        names: NameRule::Subdomain,
        unconditional_update: false,
        create_on_update: false,
        generation: true,
        status_on_create: !has_status,
        status_metadata: StatusMetadata::Fixed,
        deprecated: None,
        action: None,
        graceful_deletion: false,
        hooks: Hooks { prepare_status: keep_metadata, warnings: super::warnings::finalizers, ..Hooks::NONE },
    }
}

/// A custom resource's status update leaves metadata alone; the kind's own strategy does that.
fn keep_metadata(_new: &mut Value, _old: &Value, _context: &Context) {}

fn subresources(version: &Value, own: &Gvk) -> Vec<Subresource> {
    let mut all = Vec::new();
    let sub = |name: &'static str, kind: Gvk, action| Subresource {
        name: name.into(),
        accepts: if kind == *own { Vec::new() } else { vec![kind.clone()] },
        kind,
        verbs: Verbs::GET_PATCH_UPDATE,
        action,
        writes: None,
    };
    if let Some(scale) = version["subresources"].get("scale").filter(|scale| !scale.is_null()) {
        let path = |field: &str| owned(text(scale, field).trim_start_matches('.'));
        let selector = Some(path("labelSelectorPath")).filter(|path| !path.is_empty());
        let paths = ScalePaths {
            spec_replicas: path("specReplicasPath"),
            status_replicas: path("statusReplicasPath"),
            selector,
        };
        all.push(sub("scale", Gvk::new("autoscaling", "v1", "Scale"), Action::Scale(paths)));
    }
    if version["subresources"].get("status").is_some_and(|status| !status.is_null()) {
        all.push(sub("status", own.clone(), Action::Status));
    }
    all
}

fn columns(version: &Value) -> Vec<Column> {
    let mut all = vec![Column::name()];
    let given = version["additionalPrinterColumns"].as_array().map(Vec::as_slice).unwrap_or_default();
    for column in given {
        all.push(Column {
            name: owned(text(column, "name")),
            kind: owned(text(column, "type")),
            format: owned(text(column, "format")),
            description: owned(text(column, "description")),
            priority: column["priority"].as_i64().unwrap_or(0) as i32,
            path: Some(owned(text(column, "jsonPath"))),
        });
    }
    if given.is_empty() {
        all.push(Column { path: Some(".metadata.creationTimestamp".into()), ..Column::date("Age") });
    }
    all
}

fn selectable(version: &Value) -> Vec<Selectable> {
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    fields
        .map(|field| owned(text(field, "jsonPath").trim_start_matches('.')))
        .map(|path| Selectable { name: path.clone(), paths: vec![path], missing: "".into(), indexed: false })
        .collect()
}

/// Reads stored objects as the version that they were stored in: without what it does not know today, with its defaults
/// of today. Those of another version than the one that is stored today stay what they are until somebody asks for them.
pub fn reader(storage: &KindRef, all: &[Version]) -> Reader {
    let storage = storage.clone();
    let others: Vec<KindRef> = all.iter().filter(|version| !version.storage).map(|v| v.kind.clone()).collect();
    Arc::new(move |stored: &Bytes| {
        let mut object = reading::decode(stored, Form::Custom, &storage)?;
        let (_, version) = meta::gvk::split_api_version(text(&object, "apiVersion"));
        let kind = others.iter().find(|kind| kind.version == version).unwrap_or(&storage);
        if kind.version == storage.version {
            object["apiVersion"] = storage.api_version().into();
        }
        schema::drop_nulls(&mut object, &kind.schema);
        schema::prune(&mut object, &kind.schema);
        schema::apply_defaults(&mut object, &kind.schema).map_err(|_| "its defaults are too much".to_owned())?;
        reading::fits(&object)?;
        let bytes = Bytes::from(serde_json::to_vec(&object).map_err(|error| error.to_string())?);
        Ok((kind.version != storage.version || bytes != *stored).then_some(bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_definition_becomes_a_kind_like_any_other() {
        let crd = json!({"spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["w"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}}}}},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            }],
        }});
        let outline = Outline::read(Bytes::from(crd.to_string())).expect("a definition");
        let work = Arc::default();
        let all = versions(&outline, "/registry", &work);
        let kind = &all[0].kind;
        assert_eq!(kind.resource(), "widgets.example.com");
        assert_eq!(kind.storage.as_ref().map(|s| s.prefix.as_ref()), Some("/registry/example.com/widgets"));
        assert!(kind.has_status() && kind.subresource("scale").is_some());
        assert_eq!(kind.columns.len(), 2);
        let read = reader(kind, &all);
        assert_eq!(work.compiled.load(Ordering::Relaxed), 0, "nobody has an object of it yet");
        let old = Bytes::from_static(br#"{"apiVersion":"example.com/v0","kind":"Widget","spec":{}}"#);
        let new: Value = serde_json::from_slice(&read(&old).expect("readable").expect("changed")).expect("json");
        assert_eq!((new["apiVersion"].as_str(), new["spec"]["size"].as_i64()), (Some("example.com/v1"), Some(3)));
        assert_eq!(read(&Bytes::from(new.to_string())), Ok(None));
        for wrong in [
            "{",
            "[]",
            "{}",
            r#"{"kind":"Gadget","apiVersion":"example.com/v1"}"#,
            r#"{"kind":"Widget","metadata":[]}"#,
        ] {
            assert!(read(&Bytes::from_static(wrong.as_bytes())).is_err(), "{wrong}");
        }
    }
}
