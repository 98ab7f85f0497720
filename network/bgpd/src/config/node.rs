//! Typed values out of a document, whose errors say where in it: `neighbors[1].hold-time`. The reader of YAML tells lines
//! and not fields; a wrapper around its values tells fields. Pure. Called by [`super::parse`].

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From the document's root; empty is the root itself.
    pub path: String,
    /// What would be right.
    pub problem: String,
}

impl Fault {
    /// Something wrong with a field.
    pub fn at(path: impl Into<String>, problem: impl Into<String>) -> Fault {
        Fault { path: path.into(), problem: problem.into() }
    }

    /// Of a field that there is not: which is perhaps meant.
    pub fn meant(&self) -> Option<&str> {
        self.problem.strip_prefix(NO_FIELD)?.strip_prefix("; is ")?.strip_suffix(" meant?")
    }

    /// The same, seen from one step further out.
    #[must_use]
    pub fn within(self, step: &str) -> Fault {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        Fault { path: format!("{step}{dot}{}", self.path), problem: self.problem }
    }
}

/// What is said of a field that nobody knows.
const NO_FIELD: &str = "there is no such field";
/// Marks a fault that goes through an error of another kind on its way.
const CARRIED: char = '\u{1f}';

/// A fault as an error of whoever reads, who makes a [`Fault`] of it again, with its path.
pub fn carried<E: serde::de::Error>(fault: &Fault) -> E {
    E::custom(format_args!("{CARRIED}{}{CARRIED}{}", fault.path, fault.problem))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.problem) } else { write!(f, "{}: {}", self.path, self.problem) }
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(problem: T) -> Fault {
        let problem = problem.to_string();
        let carried = problem.strip_prefix(CARRIED).and_then(|rest| rest.split_once(CARRIED));
        match carried {
            Some((path, problem)) => Fault::at(path, problem),
            None => Fault::at("", problem),
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Fault {
        let near = expected.iter().find(|known| is_near(known, field));
        let known = expected.join(", ");
        let problem = match (near, expected) {
            (Some(near), _) => format!("{NO_FIELD}; is {near} meant?"),
            (None, []) => NO_FIELD.to_owned(),
            (None, _) => format!("{NO_FIELD}; there are {known}"),
        };
        Fault::at(field, problem)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Fault {
        Fault::at("", format!("{variant:?} is not one of {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Fault {
        Fault::at(field, "is missing")
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        let expected = expected.to_string();
        let expected = super::words::expected(&expected);
        let quoted = matches!(found, Unexpected::Str(text) if expected.starts_with("a number") && is_number(text));
        let more = if quoted { ": without the quotes" } else { "" };
        Fault::at("", format!("{} is not {expected}{more}", words(&found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Fault {
        Fault::invalid_type(found, expected)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn words(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Unit => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a map of fields".to_owned(),
        other => other.to_string(),
    }
}

/// Whether a name differs by its case and dashes, or by a letter or two: what fingers do.
fn is_near(known: &str, typed: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let (known, typed) = (plain(known), plain(typed));
    known == typed || typed.len() > 3 && distance(known.as_bytes(), typed.as_bytes()) <= 2
}

/// Levenshtein's, of names: they are short.
fn distance(one: &[u8], two: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in two.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// A value of the document.
#[derive(Clone, Copy)]
pub struct Node<'a>(pub &'a Value);

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (_, _, value) => visitor.visit_f64(value.unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_str(text).map_err(|fault: Fault| {
                let problem = super::words::of_text(text, &fault.problem);
                Fault { problem, ..fault }
            }),
            Value::Array(list) => visitor.visit_seq(List { list, next: 0 }),
            Value::Object(fields) => visitor.visit_map(Fields { fields: fields.iter(), value: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            // `kernel:` with nothing behind it says nothing of the kernel.
            Value::Null => visitor.visit_map(Fields { fields: Map::new().iter(), value: None }),
            Value::Object(_) => self.deserialize_any(visitor),
            other => Err(serde::de::Error::invalid_type(unexpected(other), &"a map of fields")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(Word(text)),
            other => Err(serde::de::Error::invalid_type(
                unexpected(other),
                &format!("one of {}", variants.join(", ")).as_str(),
            )),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => Unexpected::Unsigned(value),
            (_, Some(value)) => Unexpected::Signed(value),
            _ => Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

struct List<'a> {
    list: &'a [Value],
    next: usize,
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(value) = self.list.get(self.next) else { return Ok(None) };
        let step = format!("[{}]", self.next);
        self.next += 1;
        seed.deserialize(Node(value)).map(Some).map_err(|fault| fault.within(&step))
    }
}

struct Fields<'a> {
    fields: serde_json::map::Iter<'a>,
    value: Option<(&'a String, &'a Value)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.fields.next() else { return Ok(None) };
        self.value = Some((key, value));
        let name: StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.value.take() {
            Some((key, value)) => seed.deserialize(Node(value)).map_err(|fault| unsaid(fault, key).within(key)),
            None => Err(Fault::at("", "has a value without a name")),
        }
    }
}

/// What is written where a secret is wanted is not told again: errors go into logs.
fn unsaid(fault: Fault, field: &str) -> Fault {
    let problem = match field {
        "password" | "key" => "is not text: put it in quotes",
        "tcp-ao" if fault.path.is_empty() => "is not a list of keys, each with send-id, receive-id, algorithm and key",
        "tcp-ao" if !fault.path.contains('.') => "is not a key with send-id, receive-id, algorithm and key",
        _ => return fault,
    };
    Fault { problem: problem.to_owned(), ..fault }
}

/// The word of an enum without fields.
struct Word<'a>(&'a str);

impl<'de> EnumAccess<'de> for Word<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.0.into_deserializer();
        seed.deserialize(name).map(|variant| (variant, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Fault> {
        Err(Fault::at("", format!("{:?} is a word and has no fields", self.0)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(Fault::at("", format!("{:?} is a word and has no fields", self.0)))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Fault> {
        Err(Fault::at("", format!("{:?} is a word and has no fields", self.0)))
    }
}
