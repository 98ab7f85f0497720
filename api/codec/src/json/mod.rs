//! Decoding along a type, in one pass: the value comes out in normal form, and unknown and duplicate fields are
//! collected with the paths and words that upstream's strict decoder uses. The same walk serves JSON and YAML, since it
//! is driven by a serde deserializer. Objects without a type (custom resources) keep everything but metadata as written.

mod number;
pub mod syntax;

use std::cell::RefCell;
use std::fmt;

use kinds::normal;
use kinds::types::{self, Field, MessageId, Scalar, Shape};
use meta::{Quantity, depth};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::DecodeError;

/// What the body should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An object of a built-in type.
    Typed(MessageId),
    /// A custom resource: metadata is typed, the rest is anything.
    Custom,
    /// Anything.
    Any,
}

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// What was read, as the type has it; of a field that stands twice the last.
    pub object: Value,
    /// Unknown and duplicate fields: `unknown field "spec.foo"`, at most [`STRICT_LIMIT`], each once.
    pub strict: Vec<String>,
}

impl Decoded {
    /// The object, or all strict errors at once.
    pub fn into_strict(self) -> Result<Value, DecodeError> {
        if self.strict.is_empty() { Ok(self.object) } else { Err(DecodeError::Strict(self.strict)) }
    }
}

/// Strict errors collected from one body; upstream stops there too.
pub const STRICT_LIMIT: usize = 100;

/// Decodes a JSON body, which may nest as deep as an object may ([`depth::MAX_DEPTH`]).
pub fn decode(body: &[u8], form: Form) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut stopped = String::new();
    let outcome = decode_with(&mut deserializer, form, |walk, de| {
        let value = walk.run(&mut *de).inspect_err(|why| stopped.clone_from(why))?;
        de.end().map_err(|e| e.to_string())?;
        Ok(value)
    });
    outcome.map_err(|error| number::as_written(error, body, &stopped))
}

/// Decodes from any deserializer; `run` calls the walk and checks what must follow it.
pub(crate) fn decode_with<D>(
    deserializer: D,
    form: Form,
    run: impl FnOnce(&Walk, D) -> Result<Value, String>,
) -> Result<Decoded, DecodeError> {
    let walk = Walk { form, state: RefCell::default() };
    let result = run(&walk, deserializer);
    let state = walk.state.into_inner();
    match (state.failure, result) {
        (Some(failure), _) => Err(DecodeError::Type(failure)),
        (None, Ok(object)) => Ok(Decoded { object, strict: state.strict }),
        (None, Err(message)) => Err(DecodeError::Syntax(message)),
    }
}

/// One decoding: what it is after and what it found.
pub(crate) struct Walk {
    form: Form,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    strict: Vec<String>,
    failure: Option<String>,
    path: Vec<Segment>,
    /// Names of the struct fields from the root, as Go's type errors list them.
    fields: Vec<&'static str>,
    /// The innermost struct, for the same.
    owner: Option<MessageId>,
}

enum Segment {
    Key(String),
    Index(usize),
}

impl Walk {
    /// Reads one value from the deserializer. The error is the deserializer's own text.
    pub(crate) fn run<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<Value, String> {
        let node = match self.form {
            Form::Typed(id) => Node::Message(id),
            Form::Custom => Node::Custom,
            Form::Any => Node::Any,
        };
        Seed { walk: self, node }.deserialize(deserializer).map_err(|e| e.to_string())
    }

    fn report(&self, what: &str, name: &str) {
        let mut state = self.state.borrow_mut();
        if state.strict.len() >= STRICT_LIMIT {
            return;
        }
        let mut path = String::new();
        for segment in &state.path {
            match segment {
                Segment::Key(key) if path.is_empty() => path.push_str(key),
                Segment::Key(key) => {
                    path.push('.');
                    path.push_str(key);
                }
                Segment::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let error = format!("{what} field {}", meta::text::quote(&path));
        if !state.strict.contains(&error) {
            state.strict.push(error);
        }
    }

    fn inside<T>(&self, segment: Segment, run: impl FnOnce() -> T) -> T {
        self.state.borrow_mut().path.push(segment);
        let result = run();
        self.state.borrow_mut().path.pop();
        result
    }

    /// Enters a struct field for the time of `run`; the path stays where it is when `run` fails.
    fn inside_field<T>(&self, owner: MessageId, field: &Field, run: impl FnOnce() -> T) -> T {
        let before = {
            let mut state = self.state.borrow_mut();
            state.fields.push(field.name);
            state.owner.replace(owner)
        };
        let result = self.inside(Segment::Key(field.name.to_owned()), run);
        let mut state = self.state.borrow_mut();
        state.fields.pop();
        state.owner = before;
        result
    }

    /// A list or a map begins: the steps to it are those around it.
    fn enter<E: serde::de::Error>(&self) -> Result<(), E> {
        let deep = self.state.borrow().path.len() >= depth::MAX_DEPTH;
        if deep { Err(self.fail(depth::TOO_DEEP.to_owned())) } else { Ok(()) }
    }

    /// Remembers the first thing that does not fit its type and stops the parser.
    fn fail<E: serde::de::Error>(&self, message: String) -> E {
        self.state.borrow_mut().failure.get_or_insert(message);
        E::custom("type")
    }

    fn mismatch<E: serde::de::Error>(&self, found: &str, wanted: &str) -> E {
        let message = {
            let state = self.state.borrow();
            let owner = state.owner.map(|id| types::message(id).name.rsplit('.').next().unwrap_or("").to_owned());
            match owner {
                Some(owner) => {
                    let field = state.fields.join(".");
                    format!("json: cannot unmarshal {found} into Go struct field {owner}.{field} of type {wanted}")
                }
                None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
            }
        };
        self.fail(message)
    }
}

/// What is expected at one place.
#[derive(Clone, Copy)]
enum Node {
    Any,
    Custom,
    Message(MessageId),
    List(Scalar),
    Map(Scalar),
    MapOfLists(Scalar),
    Scalar(Scalar),
}

impl Node {
    fn of(field: &Field) -> Node {
        match field.shape {
            Shape::One => Node::scalar(field.scalar),
            Shape::List | Shape::WrappedList => Node::List(field.scalar),
            Shape::Map => Node::Map(field.scalar),
            Shape::MapOfWrappedLists => Node::MapOfLists(field.scalar),
        }
    }

    fn scalar(scalar: Scalar) -> Node {
        match scalar {
            Scalar::Message(id) => Node::Message(id),
            Scalar::RawExtension | Scalar::FieldsV1 | Scalar::Json | Scalar::Any => Node::Any,
            other => Node::Scalar(other),
        }
    }

    /// Go's name of the type, for messages.
    fn go_type(self) -> String {
        match self {
            Node::Any | Node::Custom => "interface {}".to_owned(),
            Node::Message(id) => go_name(Scalar::Message(id)),
            Node::List(scalar) => format!("[]{}", go_name(scalar)),
            Node::Map(scalar) => format!("map[string]{}", go_name(scalar)),
            Node::MapOfLists(scalar) => format!("map[string][]{}", go_name(scalar)),
            Node::Scalar(scalar) => go_name(scalar),
        }
    }
}

fn go_name(scalar: Scalar) -> String {
    match scalar {
        Scalar::String => "string",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Bool => "bool",
        Scalar::Double => "float64",
        Scalar::Bytes => "[]uint8",
        Scalar::Time => "v1.Time",
        Scalar::MicroTime => "v1.MicroTime",
        Scalar::Quantity => "resource.Quantity",
        // The type has a decoder of its own, which takes what is no string for a number.
        Scalar::IntOrString => "int32",
        Scalar::Message(id) => {
            let mut parts = types::message(id).name.rsplit('.');
            let (kind, version) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            return format!("{version}.{kind}");
        }
        _ => "interface {}",
    }
    .to_owned()
}

#[derive(Clone, Copy)]
struct Seed<'w> {
    walk: &'w Walk,
    node: Node,
}

impl Seed<'_> {
    fn at(self, node: Node) -> Self {
        Seed { node, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        match self.node {
            Node::Any | Node::Custom | Node::Scalar(Scalar::Bool | Scalar::SchemaOrBool) => Ok(value.into()),
            node => Err(self.walk.mismatch("bool", &node.go_type())),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        let fits32 = i32::try_from(value).is_ok();
        match self.node {
            Node::Any | Node::Custom | Node::Scalar(Scalar::Int64 | Scalar::Double) => Ok(value.into()),
            Node::Scalar(Scalar::Int32 | Scalar::IntOrString) if fits32 => Ok(value.into()),
            Node::Scalar(Scalar::Quantity) => self.quantity(&value.to_string()),
            Node::Scalar(Scalar::Int32 | Scalar::IntOrString) => {
                Err(self.walk.mismatch(&format!("number {value}"), "int32"))
            }
            node => Err(self.walk.mismatch("number", &node.go_type())),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        match i64::try_from(value) {
            Ok(small) => self.visit_i64(small),
            // As Go has it, what is no int64 is a float.
            Err(_) if matches!(self.node, Node::Any | Node::Custom) => Ok((value as f64).into()),
            Err(_) => Err(self.walk.mismatch(&format!("number {value}"), &self.node.go_type())),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match self.node {
            Node::Any | Node::Custom | Node::Scalar(Scalar::Double) => Ok(value.into()),
            Node::Scalar(Scalar::Quantity) => self.quantity(&value.to_string()),
            Node::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString) => {
                Err(self.walk.mismatch(&format!("number {value:?}"), &self.node.go_type()))
            }
            node => Err(self.walk.mismatch("number", &node.go_type())),
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        match self.node {
            Node::Any | Node::Custom | Node::Scalar(Scalar::String | Scalar::IntOrString) => Ok(value.into()),
            Node::Scalar(Scalar::Quantity) => self.quantity(value.trim()),
            Node::Scalar(Scalar::Time) => self.time(&value, meta::time::canonical),
            Node::Scalar(Scalar::MicroTime) => self.time(&value, meta::time::canonical_micro),
            Node::Scalar(Scalar::Bytes) => self.bytes(value),
            node => Err(self.walk.mismatch("string", &node.go_type())),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.walk.enter()?;
        let element = match self.node {
            Node::Any | Node::Custom => Node::Any,
            Node::List(scalar) => Node::scalar(scalar),
            Node::Scalar(Scalar::SchemaOrArray) => Node::scalar(json_schema()),
            Node::Scalar(Scalar::SchemaOrStrings) => Node::Scalar(Scalar::String),
            node => return Err(self.walk.mismatch("array", &node.go_type())),
        };
        let mut list = Vec::new();
        loop {
            let next = || seq.next_element_seed(self.at(element));
            match self.walk.inside(Segment::Index(list.len()), next)? {
                Some(Value::Null) => list.push(null_element(element)),
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        self.walk.enter()?;
        match self.node {
            Node::Any => self.free_map(map, Node::Any),
            Node::Custom => self.custom(map),
            Node::Message(id) => self.message(map, id),
            Node::Map(scalar) => self.free_map(map, Node::scalar(scalar)),
            Node::MapOfLists(scalar) => self.free_map(map, Node::List(scalar)),
            Node::Scalar(Scalar::SchemaOrArray | Scalar::SchemaOrBool | Scalar::SchemaOrStrings) => {
                self.at(Node::scalar(json_schema())).visit_map(map)
            }
            node => Err(self.walk.mismatch("object", &node.go_type())),
        }
    }
}

fn json_schema() -> Scalar {
    types::find("apiextensions.v1.JSONSchemaProps").map_or(Scalar::Any, Scalar::Message)
}

/// Null in a list or map is the zero value of the element's type.
fn null_element(node: Node) -> Value {
    match node {
        Node::Message(id) => normal::zero(Scalar::Message(id)),
        Node::Scalar(scalar) => normal::zero(scalar),
        _ => Value::Null,
    }
}

impl Seed<'_> {
    fn quantity<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        Quantity::canonical(text).map(Value::from).map_err(|e| self.walk.fail(e.to_string()))
    }

    fn time<E: serde::de::Error>(self, text: &str, canonical: fn(&str) -> Option<String>) -> Result<Value, E> {
        canonical(text).map(Value::from).ok_or_else(|| {
            let quoted = meta::text::quote(text);
            let layout = "2006-01-02T15:04:05Z07:00";
            self.walk.fail(format!("parsing time {quoted} as \"{layout}\": cannot parse {quoted} as \"2006\""))
        })
    }

    fn bytes<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        use base64::Engine as _;
        // Go's decoder skips line breaks.
        let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        match base64::engine::general_purpose::STANDARD.decode(&clean) {
            Ok(_) => Ok(clean.into()),
            Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
                Err(self.walk.fail(format!("illegal base64 data at input byte {at}")))
            }
            Err(_) => Err(self.walk.fail(format!("illegal base64 data at input byte {}", clean.len() / 4 * 4))),
        }
    }

    /// A map with any keys and values of one type.
    fn free_map<'de, A: MapAccess<'de>>(self, mut access: A, values: Node) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                self.walk.report("duplicate", &key);
            }
            let next = || access.next_value_seed(self.at(values));
            let value = self.walk.inside(Segment::Key(key.clone()), next)?;
            map.insert(key, if value.is_null() { null_element(values) } else { value });
        }
        Ok(Value::Object(map))
    }

    fn message<'de, A: MapAccess<'de>>(self, mut access: A, id: MessageId) -> Result<Value, A::Error> {
        let message = types::message(id);
        let mut map = Map::new();
        let mut seen = Vec::with_capacity(8);
        while let Some(key) = access.next_key::<String>()? {
            if let Some(field) = message.field(&key) {
                self.note_duplicate(&mut seen, field.name);
                let next = || access.next_value_seed(self.at(Node::of(field)));
                let value = self.walk.inside_field(id, field, next)?;
                if normal::left_out(&value, field) {
                    map.remove(&key);
                } else {
                    map.insert(key, value);
                }
            } else if message.is_kind && matches!(key.as_str(), "apiVersion" | "kind") {
                self.note_duplicate(&mut seen, if key == "kind" { "kind" } else { "apiVersion" });
                let value = access.next_value_seed(self.at(Node::Scalar(Scalar::String)))?;
                map.insert(key, value);
            } else {
                self.walk.report("unknown", &key);
                access.next_value::<serde::de::IgnoredAny>()?;
            }
        }
        normal::fill(&mut map, id);
        Ok(Value::Object(map))
    }

    fn note_duplicate(self, seen: &mut Vec<&'static str>, name: &'static str) {
        if seen.contains(&name) {
            self.walk.report("duplicate", name);
        } else {
            seen.push(name);
        }
    }

    /// The top of a custom resource: typed metadata, anything else as it is.
    fn custom<'de, A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                self.walk.report("duplicate", &key);
            }
            let node = match (key.as_str(), normal::object_meta()) {
                ("metadata", Some(id)) => Node::Message(id),
                ("apiVersion" | "kind", _) => Node::Scalar(Scalar::String),
                _ => Node::Any,
            };
            let next = || access.next_value_seed(self.at(node));
            let value = self.walk.inside(Segment::Key(key.clone()), next)?;
            map.insert(key, value);
        }
        if map.is_empty() {
            return Err(A::Error::custom("Object 'Kind' is missing in '{}'"));
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests;
