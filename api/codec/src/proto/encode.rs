//! JSON to protobuf, driven by a serde deserializer, so that stored JSON bytes become a message without a tree between.
//! Fields come out in the order they go in, which protobuf allows; fields of embedded messages are gathered.

use std::cell::RefCell;
use std::fmt;

use base64::Engine as _;
use kinds::types::{self, Field, MessageId, Scalar, Shape};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::wire::{Wire, put_bytes, put_nested, put_tag, put_varint};
use crate::error::EncodeError;

/// Encodes the JSON text of an object of type `id`; apiVersion and kind are left to the envelope.
pub fn encode_bytes(json: &[u8], id: MessageId) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(json.len());
    let place = RefCell::default();
    let mut de = serde_json::Deserializer::from_slice(json);
    let seed = Encode { out: &mut out, place: &place, what: What::Message(id) };
    seed.deserialize(&mut de).map_err(|e| failure(&place, &e))?;
    Ok(out)
}

/// Encodes an object of type `id`.
pub fn encode_value(object: &Value, id: MessageId) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(1024);
    let place = RefCell::default();
    let seed = Encode { out: &mut out, place: &place, what: What::Message(id) };
    seed.deserialize(object).map_err(|e| failure(&place, &e))?;
    Ok(out)
}

fn failure(place: &Place, error: &dyn fmt::Display) -> EncodeError {
    let path = place.borrow().join(".");
    let why = if error.to_string().contains(MISFIT) { MISFIT } else { "is no JSON" };
    EncodeError::Value { path, why }
}

/// Where the walk is, for errors only: names of the fields entered and not left.
type Place = RefCell<Vec<&'static str>>;

const MISFIT: &str = "does not fit its type";

/// What is expected next and how it is written.
#[derive(Clone, Copy)]
enum What {
    /// The fields of a message, without a frame.
    Message(MessageId),
    /// A field with all its values.
    Field(u32, Scalar, Shape),
    /// One value under a field number.
    One(u32, Scalar),
}

struct Encode<'a> {
    out: &'a mut Vec<u8>,
    place: &'a Place,
    what: What,
}

impl<'a> Encode<'a> {
    fn misfit<E: serde::de::Error>(self) -> E {
        E::custom(MISFIT)
    }

    fn number_out<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        let (What::One(number, scalar) | What::Field(number, scalar, Shape::One)) = self.what else {
            return Err(self.misfit());
        };
        match scalar {
            Scalar::Int32 | Scalar::Int64 => {
                put_tag(self.out, number, Wire::Varint);
                put_varint(self.out, value as u64);
            }
            Scalar::Double => double_out(self.out, number, value as f64),
            Scalar::IntOrString => put_nested(self.out, number, |out| {
                put_tag(out, 1, Wire::Varint);
                put_varint(out, 0);
                put_tag(out, 2, Wire::Varint);
                put_varint(out, value as u64);
                put_bytes(out, 3, b"");
                Ok(())
            })?,
            Scalar::Quantity => quantity_out(self.out, number, &value.to_string()),
            scalar if is_raw(scalar) => raw_out(self.out, number, scalar, &Value::from(value)),
            _ => return Err(self.misfit()),
        }
        Ok(())
    }

    fn text_out<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let (What::One(number, scalar) | What::Field(number, scalar, Shape::One)) = self.what else {
            return Err(self.misfit());
        };
        match scalar {
            Scalar::String => put_bytes(self.out, number, text.as_bytes()),
            Scalar::Quantity => quantity_out(self.out, number, text),
            Scalar::Time | Scalar::MicroTime => match meta::time::parse(text) {
                Some(time) => time_out(self.out, number, time, scalar == Scalar::MicroTime),
                None => return Err(self.misfit()),
            },
            Scalar::Bytes => match base64::engine::general_purpose::STANDARD.decode(text) {
                Ok(bytes) => put_bytes(self.out, number, &bytes),
                Err(_) => return Err(self.misfit()),
            },
            Scalar::IntOrString => put_nested(self.out, number, |out| {
                put_tag(out, 1, Wire::Varint);
                put_varint(out, 1);
                put_tag(out, 2, Wire::Varint);
                put_varint(out, 0);
                put_bytes(out, 3, text.as_bytes());
                Ok(())
            })?,
            scalar if is_raw(scalar) => raw_out(self.out, number, scalar, &Value::from(text)),
            _ => return Err(self.misfit()),
        }
        Ok(())
    }

    /// The fields of a message. Fields of embedded messages wait until the end, gathered by their outer number.
    fn fields<'de, A: MapAccess<'de>>(self, mut map: A, id: MessageId) -> Result<(), A::Error> {
        let message = types::message(id);
        let mut embedded: Vec<(u32, Vec<u8>)> = Vec::new();
        while let Some(key) = map.next_key_seed(FieldName(id))? {
            let Some(field) = key.map(|i| &message.fields[i]).filter(|f| !f.path.is_empty()) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            self.place.borrow_mut().push(field.name);
            match *field.path {
                [number] => {
                    let what = What::Field(number, field.scalar, field.shape);
                    map.next_value_seed(Encode { out: &mut *self.out, place: self.place, what })?;
                }
                _ => {
                    let outer = field.path[0];
                    let at = embedded.iter().position(|(n, _)| *n == outer).unwrap_or_else(|| {
                        embedded.push((outer, Vec::new()));
                        embedded.len() - 1
                    });
                    map.next_value_seed(Embedded { out: &mut embedded[at].1, place: self.place, field, depth: 1 })?;
                }
            }
            self.place.borrow_mut().pop();
        }
        for (number, bytes) in embedded.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            put_bytes(self.out, *number, bytes);
        }
        Ok(())
    }

    fn entries<'de, A: MapAccess<'de>>(self, mut map: A, number: u32, value: What) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            let place = self.place;
            put_nested(self.out, number, |out| {
                put_bytes(out, 1, key.as_bytes());
                map.next_value_seed(Encode { out, place, what: value })
            })?;
        }
        Ok(())
    }
}

/// A field inside embedded messages: opens one frame a level.
struct Embedded<'a> {
    out: &'a mut Vec<u8>,
    place: &'a Place,
    field: &'static Field,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Embedded<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Embedded { out, place, field, depth } = self;
        let number = field.path[depth];
        if depth + 1 == field.path.len() {
            let what = What::Field(number, field.scalar, field.shape);
            return Encode { out, place, what }.deserialize(deserializer);
        }
        let start = out.len();
        put_nested(out, number, |out| Embedded { out, place, field, depth: depth + 1 }.deserialize(deserializer))?;
        // A null wrote nothing: no empty frame then.
        if out.ends_with(&[0]) && out.len() - start <= 3 {
            out.truncate(start);
        }
        Ok(())
    }
}

/// Reads a key as the index of the field it names, without keeping the text.
struct FieldName(MessageId);

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(types::message(self.0).fields.binary_search_by(|f| f.name.cmp(key)).ok())
    }
}

impl<'de> DeserializeSeed<'de> for Encode<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.what {
            What::One(number, scalar) | What::Field(number, scalar, Shape::One) if is_raw(scalar) => {
                let value = <Value as serde::Deserialize>::deserialize(deserializer)?;
                if !value.is_null() {
                    raw_out(self.out, number, scalar, &value);
                }
                Ok(())
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Encode<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value of the field's type")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match self.what {
            What::One(number, Scalar::Bool) | What::Field(number, Scalar::Bool, Shape::One) => {
                put_tag(self.out, number, Wire::Varint);
                put_varint(self.out, u64::from(value));
                Ok(())
            }
            // A schema or a boolean: field 1 of its message.
            What::One(number, Scalar::SchemaOrBool) | What::Field(number, Scalar::SchemaOrBool, Shape::One) => {
                put_nested(self.out, number, |out| {
                    put_tag(out, 1, Wire::Varint);
                    put_varint(out, u64::from(value));
                    Ok(())
                })
            }
            _ => Err(self.misfit()),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.number_out(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.number_out(value),
            Err(_) => Err(self.misfit()),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        match self.what {
            What::One(number, Scalar::Double) | What::Field(number, Scalar::Double, Shape::One) => {
                double_out(self.out, number, value);
                Ok(())
            }
            _ => Err(self.misfit()),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.text_out(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let Encode { out, place, what } = self;
        match what {
            What::Field(number, scalar, Shape::List) => elements(seq, out, place, What::One(number, scalar)),
            What::Field(number, scalar, Shape::WrappedList | Shape::MapOfWrappedLists) => {
                put_nested(out, number, |out| elements(seq, out, place, What::One(1, scalar)))
            }
            What::One(number, scalar) | What::Field(number, scalar, Shape::One) => {
                let inner = match scalar {
                    Scalar::SchemaOrArray => What::One(2, json_schema()),
                    Scalar::SchemaOrStrings => What::One(2, Scalar::String),
                    _ => return Err(serde::de::Error::custom(MISFIT)),
                };
                put_nested(out, number, |out| elements(seq, out, place, inner))
            }
            _ => Err(serde::de::Error::custom(MISFIT)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Encode { out, place, what } = self;
        match what {
            What::Message(id) => Encode { out, place, what }.fields(map, id),
            What::Field(number, scalar, Shape::Map) => {
                Encode { out, place, what }.entries(map, number, What::One(2, scalar))
            }
            What::Field(number, scalar, Shape::MapOfWrappedLists) => {
                Encode { out, place, what }.entries(map, number, What::Field(2, scalar, Shape::WrappedList))
            }
            What::One(number, Scalar::Message(id)) | What::Field(number, Scalar::Message(id), Shape::One) => {
                put_nested(out, number, |out| Encode { out, place, what }.fields(map, id))
            }
            What::One(number, scalar) | What::Field(number, scalar, Shape::One) => {
                let inner = match (scalar, json_schema()) {
                    (Scalar::SchemaOrArray | Scalar::SchemaOrStrings, schema) => What::One(1, schema),
                    (Scalar::SchemaOrBool, schema) => What::One(2, schema),
                    _ => return Err(serde::de::Error::custom(MISFIT)),
                };
                put_nested(out, number, |out| {
                    if scalar == Scalar::SchemaOrBool {
                        put_tag(out, 1, Wire::Varint);
                        put_varint(out, 1);
                    }
                    Encode { out, place, what: inner }.visit_map(map)
                })
            }
            _ => Err(serde::de::Error::custom(MISFIT)),
        }
    }
}

fn elements<'de, A: SeqAccess<'de>>(mut seq: A, out: &mut Vec<u8>, place: &Place, what: What) -> Result<(), A::Error> {
    while seq.next_element_seed(Encode { out: &mut *out, place, what })?.is_some() {}
    Ok(())
}

fn json_schema() -> Scalar {
    types::find("apiextensions.v1.JSONSchemaProps").map_or(Scalar::Any, Scalar::Message)
}

/// Types whose protobuf form is a message with JSON bytes as field 1.
fn is_raw(scalar: Scalar) -> bool {
    matches!(scalar, Scalar::RawExtension | Scalar::FieldsV1 | Scalar::Json)
}

fn raw_out(out: &mut Vec<u8>, number: u32, _scalar: Scalar, value: &Value) {
    let json = value.to_string();
    let _ = put_nested(out, number, |out| {
        put_bytes(out, 1, json.as_bytes());
        Ok::<(), EncodeError>(())
    });
}

fn double_out(out: &mut Vec<u8>, number: u32, value: f64) {
    put_tag(out, number, Wire::Fixed64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn quantity_out(out: &mut Vec<u8>, number: u32, text: &str) {
    let _ = put_nested(out, number, |out| {
        put_bytes(out, 1, text.as_bytes());
        Ok::<(), EncodeError>(())
    });
}

fn time_out(out: &mut Vec<u8>, number: u32, time: jiff::Timestamp, micros: bool) {
    let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
    }
    let nanos = if micros { nanos / 1_000 * 1_000 } else { 0 };
    let _ = put_nested(out, number, |out| {
        put_tag(out, 1, Wire::Varint);
        put_varint(out, seconds as u64);
        put_tag(out, 2, Wire::Varint);
        put_varint(out, nanos as u64);
        Ok::<(), EncodeError>(())
    });
}
