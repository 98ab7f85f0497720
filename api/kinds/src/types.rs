//! The built-in types as facts: every field with its protobuf number, its shape and how Go writes it.
//! Parsed once from `data/schema.txt`; `definitions` makes schemas of it, `codec` transcodes and normalises by it.
//!
//! The table is lines. `=core.v1.PodSpec` opens a type; `K` after it says that it carries apiVersion and kind, `M:atomic`
//! sets its map type, `U:` holds its unions. A field is `name type number facts…`:
//! types are `s` string, `i` int32, `l` int64, `b` bool, `d` double, `y` bytes, `?` anything, `@Special`, or a type name
//! (bare within one package), behind `[]` list, `{}` map, `<>` a list that is a message of its own. Numbers are paths into
//! embedded messages (`2.19`), `-` where protobuf has none. Facts: `*` pointer, `!` required, `+` written even when zero,
//! `0` omitted when zero although a struct; `L:` list type and keys, `M:` map type, `P:` patch strategy and merge key,
//! `E:` enum, `D:` the default that upstream fills in.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

const TABLE: &str = include_str!("../data/schema.txt");

/// Index of a message in [`messages`].
pub type MessageId = u16;

/// What one value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// UTF-8.
    String,
    /// Protobuf's int32.
    Int32,
    /// Protobuf's int64.
    Int64,
    /// Protobuf's bool.
    Bool,
    /// Protobuf's double.
    Double,
    /// Base64 text in JSON.
    Bytes,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// `100m`: a message of one string in protobuf.
    Quantity,
    /// `80` or `25%`: a message of a tag and both in protobuf.
    IntOrString,
    /// Any JSON object; protobuf keeps its JSON bytes.
    RawExtension,
    /// A set of field paths; protobuf keeps its JSON bytes.
    FieldsV1,
    /// A JSON value of the JSON schema of custom resources; protobuf keeps its JSON bytes.
    Json,
    /// JSON schema: one schema or a list of them.
    SchemaOrArray,
    /// JSON schema: a schema or a boolean.
    SchemaOrBool,
    /// JSON schema: a schema or a list of property names.
    SchemaOrStrings,
    /// Anything; table cells only, which protobuf cannot carry.
    Any,
    /// An object of this type.
    Message(MessageId),
}

/// How many values a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// At most one value.
    One,
    /// Any number, in order.
    List,
    /// A map from strings to values.
    Map,
    /// A list that protobuf wraps into a message with the elements as field 1.
    WrappedList,
    /// A map from strings to wrapped lists.
    MapOfWrappedLists,
}

/// One field of a message.
#[derive(Clone, Debug)]
pub struct Field {
    /// As JSON has it: `hostIP`.
    pub name: &'static str,
    /// What one value is.
    pub scalar: Scalar,
    /// How many there are.
    pub shape: Shape,
    /// Protobuf field numbers from the outside in; empty when protobuf cannot carry the field.
    pub path: Box<[u32]>,
    /// Absent and zero differ.
    pub pointer: bool,
    /// OpenAPI requires it.
    pub required: bool,
    /// Go writes it even when zero.
    pub always: bool,
    /// A struct that Go leaves out when zero.
    pub omit_zero: bool,
    /// What upstream fills in when the field is absent.
    pub default: Option<Value>,
    /// The facts that only schemas need, as written in the table.
    pub(crate) facts: &'static str,
}

impl Field {
    /// A struct in Go, which encoders write although nobody set it.
    pub(crate) fn is_struct(&self) -> bool {
        use Scalar::{IntOrString, MicroTime, Quantity, RawExtension, Time};
        let scalar =
            matches!(self.scalar, Scalar::Message(_) | Time | MicroTime | Quantity | IntOrString | RawExtension);
        scalar && self.shape == Shape::One && !self.pointer
    }

    pub(crate) fn written_when_absent(&self) -> bool {
        !self.omit_zero && (self.always || self.is_struct())
    }
}

/// One type.
#[derive(Clone, Debug)]
pub struct Message {
    /// As published: `io.k8s.api.core.v1.Pod`.
    pub name: String,
    /// Carries apiVersion and kind, which protobuf leaves to the envelope.
    pub is_kind: bool,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Indexes into `fields`, sorted by path.
    pub by_number: Vec<u16>,
    /// Indexes into `fields` of what Go writes even when nobody set it: structs, times, and fields marked so.
    pub filled: Vec<u16>,
    /// A field of it, or of what it holds, has a default.
    pub has_defaults: bool,
    pub(crate) facts: &'static str,
}

impl Message {
    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.cmp(name)).ok().map(|i| &self.fields[i])
    }
}

struct Types {
    messages: Vec<Message>,
    by_name: HashMap<&'static str, MessageId>,
}

static TYPES: LazyLock<Types> = LazyLock::new(parse);

/// Every type.
pub fn messages() -> &'static [Message] {
    &TYPES.messages
}

/// The type with that index.
pub fn message(id: MessageId) -> &'static Message {
    &TYPES.messages[usize::from(id)]
}

/// The index of the type with that published name (`io.k8s.api.core.v1.Pod`) or short name (`core.v1.Pod`).
pub fn find(name: &str) -> Option<MessageId> {
    TYPES.by_name.get(shorten(name)).copied()
}

/// Prefixes of published names by package; the table leaves them out.
const PACKAGES: [(&str, &str); 7] = [
    ("meta.v1", "io.k8s.apimachinery.pkg.apis."),
    ("apiextensions.v1", "io.k8s.apiextensions-apiserver.pkg.apis."),
    ("apiregistration.v1", "io.k8s.kube-aggregator.pkg.apis."),
    ("runtime", "io.k8s.apimachinery.pkg."),
    ("version", "io.k8s.apimachinery.pkg."),
    ("api.resource", "io.k8s.apimachinery.pkg."),
    ("util.intstr", "io.k8s.apimachinery.pkg."),
];
const API: &str = "io.k8s.api.";

fn shorten(name: &str) -> &str {
    PACKAGES.iter().map(|(_, prefix)| *prefix).chain([API]).find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

fn publish(short: &str) -> String {
    let package = short.rsplit_once('.').map_or("", |(package, _)| package);
    let prefix = PACKAGES.iter().find(|(known, _)| *known == package).map_or(API, |(_, prefix)| prefix);
    format!("{prefix}{short}")
}

fn parse() -> Types {
    let by_name: HashMap<&'static str, MessageId> = TABLE
        .lines()
        .filter_map(|line| line.strip_prefix('='))
        .zip(0..)
        .map(|(line, id)| (line.split(' ').next().unwrap_or(line), id))
        .collect();
    let mut messages: Vec<Message> = Vec::with_capacity(by_name.len());
    let mut package = "";
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(head) = line.strip_prefix('=') {
            let (name, facts) = head.split_once(' ').unwrap_or((head, ""));
            package = name.rsplit_once('.').map_or("", |(package, _)| package);
            let is_kind = facts.split(' ').any(|f| f == "K");
            let (fields, by_number, filled) = (Vec::new(), Vec::new(), Vec::new());
            messages.push(Message {
                name: publish(name),
                is_kind,
                fields,
                by_number,
                filled,
                has_defaults: false,
                facts,
            });
        } else if let Some(message) = messages.last_mut() {
            message.fields.push(parse_field(line, package, &by_name));
        }
    }
    for message in &mut messages {
        message.fields.sort_by_key(|f| f.name);
        let mut order: Vec<u16> = (0..message.fields.len() as u16).collect();
        order.sort_by(|a, b| message.fields[usize::from(*a)].path.cmp(&message.fields[usize::from(*b)].path));
        message.by_number = order;
        message.filled = (0..).zip(&message.fields).filter(|(_, f)| f.written_when_absent()).map(|(i, _)| i).collect();
    }
    mark_defaults(&mut messages);
    Types { messages, by_name }
}

fn parse_field(line: &'static str, package: &str, by_name: &HashMap<&'static str, MessageId>) -> Field {
    let mut words = line.splitn(4, ' ');
    let (name, kind, number, facts) = (words.next(), words.next(), words.next(), words.next().unwrap_or(""));
    let (scalar, shape) = parse_type(kind.unwrap_or("?"), package, by_name);
    let marks = facts.split(' ').next().filter(|w| !w.contains(':')).unwrap_or("");
    let number = number.filter(|n| *n != "-").unwrap_or("");
    Field {
        name: name.unwrap_or(""),
        scalar,
        shape,
        path: number.split('.').filter_map(|n| n.parse().ok()).collect(),
        pointer: marks.contains('*'),
        required: marks.contains('!'),
        always: marks.contains('+'),
        omit_zero: marks.contains('0'),
        default: fact(facts, "D:").and_then(|json| serde_json::from_str(json).ok()),
        facts,
    }
}

fn parse_type(text: &str, package: &str, by_name: &HashMap<&'static str, MessageId>) -> (Scalar, Shape) {
    let (shape, rest) = if let Some(rest) = text.strip_prefix("{}<>") {
        (Shape::MapOfWrappedLists, rest)
    } else if let Some(rest) = text.strip_prefix("{}") {
        (Shape::Map, rest)
    } else if let Some(rest) = text.strip_prefix("[]") {
        (Shape::List, rest)
    } else if let Some(rest) = text.strip_prefix("<>") {
        (Shape::WrappedList, rest)
    } else {
        (Shape::One, text)
    };
    let scalar = match rest {
        "s" => Scalar::String,
        "i" => Scalar::Int32,
        "l" => Scalar::Int64,
        "b" => Scalar::Bool,
        "d" => Scalar::Double,
        "y" => Scalar::Bytes,
        "@Time" => Scalar::Time,
        "@MicroTime" => Scalar::MicroTime,
        "@Quantity" => Scalar::Quantity,
        "@IntOrString" => Scalar::IntOrString,
        "@RawExtension" => Scalar::RawExtension,
        "@FieldsV1" => Scalar::FieldsV1,
        "JSON" => Scalar::Json,
        "JSONSchemaPropsOrArray" => Scalar::SchemaOrArray,
        "JSONSchemaPropsOrBool" => Scalar::SchemaOrBool,
        "JSONSchemaPropsOrStringArray" => Scalar::SchemaOrStrings,
        name => {
            let known = by_name.get(name).or_else(|| by_name.get(format!("{package}.{name}").as_str()));
            known.map_or(Scalar::Any, |id| Scalar::Message(*id))
        }
    };
    (scalar, shape)
}

/// What follows `key` among the facts of a line, as far as the next fact: values of an enum may have blanks in them.
pub(crate) fn fact(facts: &'static str, key: &str) -> Option<&'static str> {
    let begins = |at: &usize| *at == 0 || facts.as_bytes()[at - 1] == b' ';
    let at = facts.match_indices(key).map(|(at, _)| at).find(begins)?;
    let value = &facts[at + key.len()..];
    let is_fact = |word: &str| matches!(word.as_bytes(), [letter, b':', ..] if letter.is_ascii_uppercase());
    let end = value.match_indices(' ').map(|(at, _)| at).find(|at| is_fact(&value[at + 1..]));
    Some(&value[..end.unwrap_or(value.len())])
}

/// A message has defaults if one of its fields does, directly or through what it holds; a fixed point over the graph.
fn mark_defaults(messages: &mut [Message]) {
    loop {
        let marked: Vec<bool> = messages.iter().map(|m| m.has_defaults).collect();
        let mut changed = false;
        for message in messages.iter_mut().filter(|m| !m.has_defaults) {
            message.has_defaults = message
                .fields
                .iter()
                .any(|f| f.default.is_some() || matches!(f.scalar, Scalar::Message(id) if marked[usize::from(id)]));
            changed |= message.has_defaults;
        }
        if !changed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_resolves() {
        for message in messages() {
            for field in &message.fields {
                let any = field.scalar == Scalar::Any;
                assert!(!any || message.name.ends_with("meta.v1.TableRow"), "{}.{}", message.name, field.name);
            }
        }
    }

    #[test]
    fn facts_end_where_the_next_begins() {
        let facts = "*! L:atomic E:cert sign|any D:{}";
        assert_eq!(fact(facts, "L:"), Some("atomic"));
        assert_eq!(fact(facts, "E:"), Some("cert sign|any"));
        assert_eq!((fact(facts, "D:"), fact(facts, "M:")), (Some("{}"), None));
    }

    #[test]
    fn fields_know_their_numbers_and_shapes() {
        let volume = message(find("core.v1.Volume").unwrap());
        assert_eq!(*volume.field("configMap").unwrap().path, [2, 19]);
        let pod = message(find("io.k8s.api.core.v1.PodSpec").unwrap());
        assert_eq!(pod.field("containers").unwrap().shape, Shape::List);
        assert_eq!(pod.field("dnsPolicy").unwrap().default, Some("ClusterFirst".into()));
        assert!(pod.field("hostUsers").unwrap().pointer);
        let user = message(find("authentication.v1.UserInfo").unwrap());
        assert_eq!(user.field("extra").unwrap().shape, Shape::MapOfWrappedLists);
    }
}
