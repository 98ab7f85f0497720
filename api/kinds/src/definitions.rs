//! Schemas of the built-in types, made of the table of types at start-up and shared for the program's life.
//! Types refer to each other (and, in JSON schema, to themselves), so every type is one cell that references point at.
//! Who calls: rows of the table, OpenAPI, patches and apply.

use std::sync::{Arc, LazyLock, OnceLock};

use meta::{Gvk, Str};
use schema::{Declared, Field, ListType, MapType, Patch, PatchStrategy, Schema, SchemaRef, Type, Validation};
use serde_json::Value;

use crate::types::{self, MessageId, Scalar, Shape, fact};

/// Types that have a name of their own in published documents and are no messages.
const SPECIAL: [(&str, &str, Type, &str); 10] = [
    ("Time", "io.k8s.apimachinery.pkg.apis.meta.v1.Time", Type::String, "date-time"),
    ("MicroTime", "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", Type::String, "date-time"),
    ("Quantity", "io.k8s.apimachinery.pkg.api.resource.Quantity", Type::String, ""),
    ("IntOrString", "io.k8s.apimachinery.pkg.util.intstr.IntOrString", Type::IntOrString, "int-or-string"),
    ("RawExtension", "io.k8s.apimachinery.pkg.runtime.RawExtension", Type::Object, ""),
    ("FieldsV1", "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", Type::Object, ""),
    ("JSON", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", Type::Any, ""),
    ("OrArray", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", Type::Any, ""),
    ("OrBool", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", Type::Any, ""),
    (
        "OrStrings",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
        Type::Any,
        "",
    ),
];

/// Packages of the API with their group and version.
const GROUPS: [(&str, &str, &str); 23] = [
    ("core.v1", "", "v1"),
    ("admissionregistration.v1", "admissionregistration.k8s.io", "v1"),
    ("apidiscovery.v2", "apidiscovery.k8s.io", "v2"),
    ("apiextensions.v1", "apiextensions.k8s.io", "v1"),
    ("apiregistration.v1", "apiregistration.k8s.io", "v1"),
    ("apps.v1", "apps", "v1"),
    ("authentication.v1", "authentication.k8s.io", "v1"),
    ("authorization.v1", "authorization.k8s.io", "v1"),
    ("autoscaling.v1", "autoscaling", "v1"),
    ("autoscaling.v2", "autoscaling", "v2"),
    ("batch.v1", "batch", "v1"),
    ("certificates.v1", "certificates.k8s.io", "v1"),
    ("coordination.v1", "coordination.k8s.io", "v1"),
    ("discovery.v1", "discovery.k8s.io", "v1"),
    ("events.v1", "events.k8s.io", "v1"),
    ("flowcontrol.v1", "flowcontrol.apiserver.k8s.io", "v1"),
    ("networking.v1", "networking.k8s.io", "v1"),
    ("node.v1", "node.k8s.io", "v1"),
    ("policy.v1", "policy", "v1"),
    ("rbac.v1", "rbac.authorization.k8s.io", "v1"),
    ("resource.v1", "resource.k8s.io", "v1"),
    ("scheduling.v1", "scheduling.k8s.io", "v1"),
    ("storage.v1", "storage.k8s.io", "v1"),
];
/// Two more, kept apart only because their group differs from the package by more than a suffix.
const MORE_GROUPS: [(&str, &str, &str); 2] =
    [("storagemigration.v1", "storagemigration.k8s.io", "v1"), ("meta.v1", "meta.k8s.io", "v1")];

static CELLS: LazyLock<Vec<OnceLock<Schema>>> = LazyLock::new(|| {
    let cells = types::messages().iter().map(|_| OnceLock::new());
    cells.chain(SPECIAL.iter().map(|_| OnceLock::new())).collect()
});

static FILLED: LazyLock<()> = LazyLock::new(|| {
    let builder = Builder::new();
    for (id, cell) in (0..).zip(CELLS.iter().take(types::messages().len())) {
        let _ = cell.set(builder.message(id));
    }
    for ((_, name, ty, format), cell) in SPECIAL.iter().zip(&CELLS[types::messages().len()..]) {
        let preserve_unknown = matches!(ty, Type::Any | Type::Object);
        let schema =
            Schema { format: Str::from(*format), name: Some(Str::from(*name)), preserve_unknown, ..Schema::of(*ty) };
        let _ = cell.set(schema);
    }
});

/// The schema of a type by its index in `types`.
pub fn schema(id: MessageId) -> SchemaRef {
    LazyLock::force(&FILLED);
    SchemaRef::Static(&CELLS[usize::from(id)])
}

/// The schema of a type by its published or short name.
pub fn by_name(name: &str) -> Option<SchemaRef> {
    types::find(name).map(schema)
}

/// Every definition with its published name.
pub fn all() -> impl Iterator<Item = (&'static str, &'static Schema)> {
    LazyLock::force(&FILLED);
    CELLS.iter().filter_map(OnceLock::get).filter_map(|s| s.name.as_deref().map(|name| (name, s)))
}

/// The index of the type of a kind, stored kinds and lists and options alike.
pub fn message_of(gvk: &Gvk) -> Option<MessageId> {
    message_of_kind(&gvk.group, &gvk.version, &gvk.kind)
}

/// As [`message_of`], from the parts. Types of meta.k8s.io answer in every group.
pub fn message_of_kind(group: &str, version: &str, kind: &str) -> Option<MessageId> {
    let package = groups().find(|(_, g, v)| *g == group && *v == version).map(|(package, _, _)| package);
    let own = package.and_then(|package| types::find(&format!("{package}.{kind}")));
    own.or_else(|| META_KINDS.contains(&kind).then(|| types::find(&format!("meta.v1.{kind}")))?)
}

/// Kinds of meta.k8s.io that every group and version knows.
const META_KINDS: [&str; 11] = [
    "APIGroup",
    "APIGroupList",
    "APIResourceList",
    "APIVersions",
    "DeleteOptions",
    "List",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
    "Status",
    "Table",
    "WatchEvent",
];

fn groups() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    GROUPS.into_iter().chain(MORE_GROUPS)
}

/// The schema of a row; a row without a type accepts anything, which a test excludes.
pub(crate) fn of_kind(gvk: &Gvk) -> SchemaRef {
    message_of(gvk).map_or_else(|| Schema::ANYTHING.into(), schema)
}

/// Shares the nodes of plain scalars.
struct Builder {
    string: SchemaRef,
    int32: SchemaRef,
    int64: SchemaRef,
    boolean: SchemaRef,
    double: SchemaRef,
    bytes: SchemaRef,
    any: SchemaRef,
}

impl Builder {
    fn new() -> Builder {
        let plain = |ty, format: &'static str| {
            SchemaRef::Owned(Arc::new(Schema { format: Str::Borrowed(format), ..Schema::of(ty) }))
        };
        Builder {
            string: plain(Type::String, ""),
            int32: plain(Type::Integer, "int32"),
            int64: plain(Type::Integer, "int64"),
            boolean: plain(Type::Boolean, ""),
            double: plain(Type::Number, "double"),
            bytes: plain(Type::String, "byte"),
            any: SchemaRef::Owned(Arc::new(Schema::ANYTHING)),
        }
    }

    fn message(&self, id: MessageId) -> Schema {
        let message = types::message(id);
        let mut fields: Vec<(Str, Field)> =
            message.fields.iter().map(|f| (Str::Borrowed(f.name), self.field(f))).collect();
        if message.is_kind {
            fields.push(("apiVersion".into(), Field::new(self.string.clone())));
            fields.push(("kind".into(), Field::new(self.string.clone())));
        }
        let mut schema = Schema { name: Some(Str::Owned(message.name.clone())), ..Schema::object(fields) };
        if let Some(map_type) = map_type(message.facts) {
            schema.map_type = map_type;
            schema.declared.map_type = true;
        }
        if message.is_kind {
            schema.kinds = kinds_of(&message.name);
        }
        schema
    }

    fn field(&self, field: &'static types::Field) -> Field {
        let node = self.shaped(field);
        Field {
            required: field.required,
            always: field.written_when_absent(),
            default: field.default.clone(),
            patch: patch(field.facts),
            map_type: map_type(field.facts).filter(|_| field.shape == Shape::One),
            ..Field::new(node)
        }
    }

    fn shaped(&self, field: &'static types::Field) -> SchemaRef {
        let scalar = self.scalar(field);
        match field.shape {
            // Bytes are a list of them to upstream's generator, which repeats what the field says of it.
            Shape::One if field.scalar == Scalar::Bytes && fact(field.facts, "L:").is_some() => {
                let declared = Declared { list_type: true, map_type: false };
                Schema { declared, ..(*scalar).clone() }.into()
            }
            Shape::One => scalar,
            Shape::List | Shape::WrappedList => self.list(scalar, field.facts),
            Shape::Map => self.map(scalar, field.facts),
            Shape::MapOfWrappedLists => self.map(Schema::list_of(scalar).into(), field.facts),
        }
    }

    fn list(&self, items: SchemaRef, facts: &'static str) -> SchemaRef {
        let mut schema = Schema::list_of(items);
        if let Some(text) = fact(facts, "L:") {
            let (name, keys) = text.split_once(':').unwrap_or((text, ""));
            schema.list_type = match name {
                "map" => ListType::Map,
                "set" => ListType::Set,
                _ => ListType::Atomic,
            };
            schema.list_map_keys = keys.split(',').filter(|k| !k.is_empty()).map(Str::Borrowed).collect();
            schema.declared = Declared { list_type: true, map_type: false };
        }
        schema.into()
    }

    fn map(&self, values: SchemaRef, facts: &'static str) -> SchemaRef {
        let mut schema = Schema::map_of(values);
        if let Some(map_type) = map_type(facts) {
            schema.map_type = map_type;
            schema.declared.map_type = true;
        }
        schema.into()
    }

    fn scalar(&self, field: &'static types::Field) -> SchemaRef {
        match field.scalar {
            Scalar::String => match fact(field.facts, "E:") {
                Some(values) => enumeration(values),
                None => self.string.clone(),
            },
            Scalar::Int32 => self.int32.clone(),
            Scalar::Int64 => self.int64.clone(),
            Scalar::Bool => self.boolean.clone(),
            Scalar::Double => self.double.clone(),
            Scalar::Bytes => self.bytes.clone(),
            Scalar::Any => self.any.clone(),
            Scalar::Message(id) => SchemaRef::Static(&CELLS[usize::from(id)]),
            Scalar::Time => special(0),
            Scalar::MicroTime => special(1),
            Scalar::Quantity => special(2),
            Scalar::IntOrString => special(3),
            Scalar::RawExtension => special(4),
            Scalar::FieldsV1 => special(5),
            Scalar::Json => special(6),
            Scalar::SchemaOrArray => special(7),
            Scalar::SchemaOrBool => special(8),
            Scalar::SchemaOrStrings => special(9),
        }
    }
}

fn special(index: usize) -> SchemaRef {
    SchemaRef::Static(&CELLS[types::messages().len() + index])
}

fn enumeration(values: &'static str) -> SchemaRef {
    let enumeration = values.split('|').map(Value::from).collect();
    let validation = Some(Box::new(Validation { enumeration, ..Validation::default() }));
    Schema { validation, ..Schema::string() }.into()
}

fn map_type(facts: &'static str) -> Option<MapType> {
    fact(facts, "M:").map(|text| if text == "atomic" { MapType::Atomic } else { MapType::Granular })
}

fn patch(facts: &'static str) -> Patch {
    let Some(text) = fact(facts, "P:") else { return Patch::default() };
    let (strategies, key) = text.split_once(':').unwrap_or((text, ""));
    let mut patch = Patch { merge_key: (!key.is_empty()).then_some(Str::Borrowed(key)), ..Patch::default() };
    for strategy in strategies.split(',') {
        match strategy {
            "merge" => patch.strategy = PatchStrategy::Merge,
            "replace" => patch.strategy = PatchStrategy::Replace,
            "retainKeys" => patch.retain_keys = true,
            _ => {}
        }
    }
    patch
}

/// The group, version and kind that a published name stands for.
fn kinds_of(name: &str) -> Vec<Gvk> {
    let mut parts = name.rsplit('.');
    let (kind, version, package) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let found = groups().find(|(known, _, _)| known.split_once('.') == Some((package, version)));
    let gvk = |group: &str, version: &str| Gvk {
        group: Str::Owned(group.to_owned()),
        version: Str::Owned(version.to_owned()),
        kind: Str::Owned(kind.to_owned()),
    };
    match found {
        Some(("meta.v1", _, _)) => vec![gvk("", "v1")],
        Some((_, group, version)) => vec![gvk(group, version)],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_type() {
        for kind in crate::ALL.iter() {
            assert!(kind.schema.name.is_some(), "{kind:?}");
            if kind.storage.is_some() {
                assert!(message_of_kind(&kind.group, &kind.version, &kind.list_kind).is_some(), "{kind:?}");
            }
            for sub in kind.subresources.iter().flat_map(|s| s.accepts.iter().chain([&s.kind])) {
                assert!(sub.version == "v1beta1" || message_of(sub).is_some(), "{sub:?}");
            }
        }
    }

    #[test]
    fn schemas_know_how_lists_merge() {
        let pod = by_name("core.v1.PodSpec").unwrap();
        let containers = pod.properties.get("containers").unwrap();
        assert_eq!(containers.schema.list_type, ListType::Map);
        assert_eq!(containers.patch.merge_key.as_deref(), Some("name"));
        let selector = by_name("core.v1.NodeSelector").unwrap();
        assert_eq!(selector.map_type, MapType::Atomic);
    }
}
