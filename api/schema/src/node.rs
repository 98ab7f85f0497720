//! The schema tree: what a value may look like and how it merges.
//!
//! `kinds` builds it for built-in types, [`crate::parse`] for custom resources; everything else only reads it. Node
//! facts (type, list type, rules) sit on [`Schema`], facts of one use (required, patch strategy) on [`Field`].

use crate::pattern::Pattern;
use meta::{Gvk, Str};
use serde_json::{Number, Value};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// The JSON type of a value. `Any` accepts every type; raw JSON is `Any` that also preserves unknown fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Type {
    /// No `type` is given, or there is none that would be true of all values.
    #[default]
    Any,
    /// A JSON object, with named fields, arbitrary keys, or both.
    Object,
    /// A JSON array.
    Array,
    /// A JSON string.
    String,
    /// A JSON number without a fraction.
    Integer,
    /// Any JSON number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// `x-kubernetes-int-or-string`: an integer, or a string such as `25%` or `http`.
    IntOrString,
}

impl Type {
    /// The type as OpenAPI writes it; both, where a value may be of either; nothing where it may be of any.
    pub fn name(self) -> &'static str {
        match self {
            Type::Any => "",
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
            Type::IntOrString => "integer,string",
        }
    }
}

/// `x-kubernetes-list-type`. Lists without the extension are atomic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ListType {
    /// One value: whoever writes it owns all of it.
    #[default]
    Atomic,
    /// Scalars, each there once and owned by itself.
    Set,
    /// Objects, told apart by `list_map_keys` and merged by them.
    Map,
}

/// `x-kubernetes-map-type`. Objects without the extension are granular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MapType {
    /// Each key is owned by itself.
    #[default]
    Granular,
    /// One value: whoever writes it owns all of it.
    Atomic,
}

/// One node of a schema.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// The JSON type.
    pub ty: Type,
    /// `int32`, `int64`, `double`, `byte`, `date-time`, `int-or-string`, ... ; empty when there is none.
    pub format: Str,
    /// Whether `null` is a value of its own; where it isn't, a null counts as absent.
    pub nullable: bool,
    /// What stands in for an absent value.
    pub default: Option<Value>,
    /// Fields by name, of an object.
    pub properties: Properties,
    /// Schema of the values of a map (`additionalProperties`); `true` is a bare node of type `Any`.
    pub additional: Option<SchemaRef>,
    /// Schema of the elements of an array.
    pub items: Option<SchemaRef>,
    /// Names of fields that must be there.
    pub required: Vec<Str>,
    /// How an array merges, and who owns what of it.
    pub list_type: ListType,
    /// The fields that tell items apart, for [`ListType::Map`].
    pub list_map_keys: Vec<Str>,
    /// How an object merges, and who owns what of it.
    pub map_type: MapType,
    /// `x-kubernetes-preserve-unknown-fields: true`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource: true`: the value is a whole object with apiVersion, kind and metadata.
    pub embedded_resource: bool,
    /// What was written in the source, so that OpenAPI shows no list or map type that nobody declared.
    pub declared: Declared,
    /// Rules beyond the type; none costs nothing.
    pub validation: Option<Box<Validation>>,
    /// Name of the definition (`io.k8s.api.core.v1.PodSpec`); such a node is published once and referred to.
    pub name: Option<Str>,
    /// Group, version and kinds that this definition is the root of.
    pub kinds: Vec<Gvk>,
    /// What is shown to people; none costs nothing.
    pub docs: Option<Box<Docs>>,
}

/// Which extensions the source of a schema spelled out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// `x-kubernetes-list-type` was written.
    pub list_type: bool,
    /// `x-kubernetes-map-type` was written.
    pub map_type: bool,
}

/// Prose of a node, published and otherwise unused.
#[derive(Clone, Debug, Default)]
pub struct Docs {
    /// The words of `kubectl explain`.
    pub description: Str,
    /// OpenAPI's `title`.
    pub title: String,
    /// OpenAPI's `example`.
    pub example: Option<Value>,
    /// OpenAPI's `externalDocs`, an object with a URL.
    pub external_docs: Option<Value>,
}

/// Rules beyond the type. Custom resources have them all; built-in kinds are validated by code.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    /// `enum`: the value is one of these; empty means any.
    pub enumeration: Vec<Value>,
    /// The least number.
    pub minimum: Option<Number>,
    /// The greatest number.
    pub maximum: Option<Number>,
    /// Whether `minimum` itself is too small.
    pub exclusive_minimum: bool,
    /// Whether `maximum` itself is too great.
    pub exclusive_maximum: bool,
    /// The number divided by this is whole.
    pub multiple_of: Option<Number>,
    /// Least length of a string, in characters (Unicode code points), as JSON Schema counts.
    pub min_length: Option<u64>,
    /// Greatest length of a string, in characters.
    pub max_length: Option<u64>,
    /// What a string must contain, as Go's `regexp` reads it.
    pub pattern: Option<Pattern>,
    /// Fewest elements of an array.
    pub min_items: Option<u64>,
    /// Most elements of an array.
    pub max_items: Option<u64>,
    /// Whether no two elements may be equal.
    pub unique_items: bool,
    /// Fewest keys of an object.
    pub min_properties: Option<u64>,
    /// Most keys of an object.
    pub max_properties: Option<u64>,
    /// Every one of these must hold too.
    pub all_of: Vec<Schema>,
    /// One of these must hold, or more.
    pub any_of: Vec<Schema>,
    /// Exactly one of these must hold.
    pub one_of: Vec<Schema>,
    /// This must not hold.
    pub not: Option<Box<Schema>>,
    /// `x-kubernetes-validations`, kept and published; there is no engine for them here.
    pub rules: Vec<Rule>,
}

impl Validation {
    /// Whether no rule is set.
    pub fn is_empty(&self) -> bool {
        let numbers = [&self.minimum, &self.maximum, &self.multiple_of];
        let counts = [
            self.min_length,
            self.max_length,
            self.min_items,
            self.max_items,
            self.min_properties,
            self.max_properties,
        ];
        let flags = [self.exclusive_minimum, self.exclusive_maximum, self.unique_items];
        self.enumeration.is_empty()
            && self.pattern.is_none()
            && self.not.is_none()
            && self.rules.is_empty()
            && [&self.all_of, &self.any_of, &self.one_of].iter().all(|list| list.is_empty())
            && numbers.iter().all(|n| n.is_none())
            && counts.iter().all(Option::is_none)
            && flags.iter().all(|flag| !flag)
    }
}

/// One entry of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// The CEL expression.
    pub rule: String,
    /// What is said when it is false.
    pub message: String,
    /// A CEL expression that gives the message.
    pub message_expression: String,
    /// The cause's reason: `FieldValueInvalid` where it is empty.
    pub reason: String,
    /// Where the fault is, below the node that carries the rule: `.spec.replicas`.
    pub field_path: String,
    /// Whether a rule over `oldSelf` is also asked when there is no old value.
    pub optional_old_self: Option<bool>,
}

/// A field of an object: its schema and what holds for this use of it only.
#[derive(Clone, Debug)]
pub struct Field {
    /// What values of the field look like.
    pub schema: SchemaRef,
    /// Whether `Schema::required` names it.
    pub required: bool,
    /// An object, list or map that is there although nobody set it, as Go writes fields that are no pointers.
    pub always: bool,
    /// How a strategic merge patch treats it.
    pub patch: Patch,
    /// Overrides the map type of a shared definition for this field (`claimRef` of a PersistentVolume is granular).
    pub map_type: Option<MapType>,
    /// Overrides the default of a shared definition for this field.
    pub default: Option<Value>,
    /// What `kubectl explain` says of this use; the type has words of its own.
    pub description: Str,
}

/// Strategic-merge behaviour of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// What is done with the list or object in the patch.
    pub strategy: PatchStrategy,
    /// `retainKeys`: keys that the patch doesn't name are dropped (strategies of rollouts, volume sources).
    pub retain_keys: bool,
    /// Set for lists of objects that merge by key.
    pub merge_key: Option<Str>,
}

/// `x-kubernetes-patch-strategy`, without `retainKeys`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PatchStrategy {
    /// None given: objects merge, lists are replaced.
    #[default]
    None,
    /// Lists merge: by `merge_key` where they hold objects, as sets where they hold scalars.
    Merge,
    /// The patch's value takes the place of the old one.
    Replace,
}

/// A schema that is owned or one of the (possibly recursive) shared definitions. Read through `Deref`.
#[derive(Clone, Debug)]
pub enum SchemaRef {
    /// Of a custom resource, or made for one field.
    Owned(Arc<Schema>),
    /// Filled before the first request; reading an empty cell yields a node that accepts anything.
    Static(&'static OnceLock<Schema>),
    /// Read from its source when it is first looked into: most kinds of a large cluster have no objects.
    Lazy(Arc<Lazy>),
}

/// See [`SchemaRef::Lazy`].
pub struct Lazy {
    read: Box<dyn Fn() -> Schema + Send + Sync>,
    schema: OnceLock<Schema>,
}

impl std::fmt::Debug for Lazy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lazy").field(&self.schema.get()).finish()
    }
}

/// A node that accepts and keeps everything, to borrow where there is no schema.
pub static ANYTHING: Schema = Schema::ANYTHING;

impl Deref for SchemaRef {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        match self {
            SchemaRef::Owned(schema) => schema,
            SchemaRef::Static(cell) => cell.get().unwrap_or(&ANYTHING),
            SchemaRef::Lazy(lazy) => lazy.schema.get_or_init(&lazy.read),
        }
    }
}

impl SchemaRef {
    /// A schema that `read` gives, called once, if ever.
    pub fn lazy(read: impl Fn() -> Schema + Send + Sync + 'static) -> SchemaRef {
        SchemaRef::Lazy(Arc::new(Lazy { read: Box::new(read), schema: OnceLock::new() }))
    }
}

impl From<Schema> for SchemaRef {
    fn from(schema: Schema) -> SchemaRef {
        SchemaRef::Owned(Arc::new(schema))
    }
}

impl Schema {
    /// Accepts and keeps everything.
    pub const ANYTHING: Schema = Schema::blank(Type::Any, true);

    const fn blank(ty: Type, preserve_unknown: bool) -> Schema {
        Schema {
            ty,
            format: Str::Borrowed(""),
            nullable: false,
            default: None,
            properties: Properties { fields: Vec::new() },
            additional: None,
            items: None,
            required: Vec::new(),
            list_type: ListType::Atomic,
            list_map_keys: Vec::new(),
            map_type: MapType::Granular,
            preserve_unknown,
            embedded_resource: false,
            declared: Declared { list_type: false, map_type: false },
            validation: None,
            name: None,
            kinds: Vec::new(),
            docs: None,
        }
    }

    /// A node of a type with nothing else said.
    pub fn of(ty: Type) -> Schema {
        Schema::blank(ty, false)
    }

    /// A string.
    pub fn string() -> Schema {
        Schema::of(Type::String)
    }

    /// An object with these fields.
    pub fn object(fields: impl IntoIterator<Item = (Str, Field)>) -> Schema {
        let properties: Properties = fields.into_iter().collect();
        let required = properties.iter().filter(|(_, f)| f.required).map(|(name, _)| name.clone()).collect();
        Schema { properties, required, ..Schema::of(Type::Object) }
    }

    /// A map from strings to values of one schema.
    pub fn map_of(values: impl Into<SchemaRef>) -> Schema {
        Schema { additional: Some(values.into()), ..Schema::of(Type::Object) }
    }

    /// An atomic list.
    pub fn list_of(items: impl Into<SchemaRef>) -> Schema {
        Schema { items: Some(items.into()), ..Schema::of(Type::Array) }
    }

    /// The schema of field `name`: a declared property, or else the schema of map values.
    pub fn child(&self, name: &str) -> Option<&Schema> {
        match self.properties.get(name) {
            Some(field) => Some(&field.schema),
            None => self.additional.as_deref(),
        }
    }

    /// The description, empty when there is none.
    pub fn description(&self) -> &str {
        self.docs.as_ref().map_or("", |docs| &docs.description)
    }
}

impl Field {
    /// An optional field with nothing else said.
    pub fn new(schema: impl Into<SchemaRef>) -> Field {
        Field {
            schema: schema.into(),
            required: false,
            always: false,
            patch: Patch::default(),
            map_type: None,
            default: None,
            description: Str::Borrowed(""),
        }
    }

    /// The map type that holds for this field.
    pub fn map_type(&self) -> MapType {
        self.map_type.unwrap_or(self.schema.map_type)
    }
}

/// Fields of an object, kept sorted by name; iteration is in that order, as published documents are.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    fields: Vec<(Str, Field)>,
}

impl Properties {
    /// The field called `name`.
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.position(name).ok().map(|at| &self.fields[at].1)
    }

    /// Adds or replaces a field.
    pub fn insert(&mut self, name: Str, field: Field) {
        match self.position(&name) {
            Ok(at) => self.fields[at].1 = field,
            Err(at) => self.fields.insert(at, (name, field)),
        }
    }

    /// The field called `name`, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Field> {
        self.position(name).ok().map(|at| &mut self.fields[at].1)
    }

    /// Fields by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Str, &Field)> {
        self.fields.iter().map(|(name, field)| (name, field))
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether no field is named: then `additional` alone says what keys mean.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.fields.binary_search_by(|(known, _)| known.as_ref().cmp(name))
    }
}

impl FromIterator<(Str, Field)> for Properties {
    fn from_iter<I: IntoIterator<Item = (Str, Field)>>(fields: I) -> Properties {
        let mut fields: Vec<(Str, Field)> = fields.into_iter().collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        fields.dedup_by(|a, b| a.0 == b.0);
        Properties { fields }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_properties_or_map_values() {
        let schema = Schema {
            additional: Some(Schema::of(Type::Integer).into()),
            ..Schema::object([
                ("b".into(), Field::new(Schema::string())),
                ("a".into(), Field::new(Schema::of(Type::Boolean))),
            ])
        };
        assert_eq!(schema.child("a").map(|s| s.ty), Some(Type::Boolean));
        assert_eq!(schema.child("zzz").map(|s| s.ty), Some(Type::Integer));
        assert_eq!(schema.properties.iter().map(|(n, _)| n.as_ref()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
