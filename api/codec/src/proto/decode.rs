//! Protobuf to JSON value in normal form. Unknown fields are skipped, as every protobuf reader does; depth is bounded,
//! and nothing is allocated that the input does not hold.

use base64::Engine as _;
use kinds::normal;
use kinds::types::{self, Field, Message, MessageId, Scalar, Shape};
use meta::Quantity;
use serde_json::{Map, Value};

use super::wire::{Reader, Record};
use crate::error::DecodeError;

/// Messages inside messages; API objects stay below 30, JSON schemas of custom resources go deepest.
pub const MAX_DEPTH: usize = 100;

/// Decodes a message of type `id`.
pub fn decode_message(bytes: &[u8], id: MessageId) -> Result<Value, DecodeError> {
    message_at(bytes, id, 0)
}

/// As [`decode_message`], for an object inside others.
pub(super) fn message_at(bytes: &[u8], id: MessageId, depth: usize) -> Result<Value, DecodeError> {
    message(bytes, id, depth).map(Value::Object)
}

fn message(bytes: &[u8], id: MessageId, depth: usize) -> Result<Map<String, Value>, DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError::Syntax(meta::depth::TOO_DEEP.to_owned()));
    }
    let mut map = Map::new();
    level(bytes, types::message(id), &mut Vec::new(), &mut map, depth)?;
    for field in types::message(id).fields.iter() {
        if map.get(field.name).is_some_and(|value| normal::left_out(value, field)) {
            map.remove(field.name);
        }
    }
    normal::fill(&mut map, id);
    Ok(map)
}

/// Reads one level of embedding: `prefix` is the path of the embedded message that `bytes` is.
fn level(
    bytes: &[u8],
    message: &'static Message,
    prefix: &mut Vec<u32>,
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    while let Some((number, record)) = reader.next()? {
        prefix.push(number);
        match find(message, prefix) {
            Some(field) if *field.path == **prefix => add(map, field, record, depth)?,
            // Something lies deeper; paths are at most a few numbers long, so this recursion is bounded.
            Some(_) => {
                if let Record::Bytes(inner) = record {
                    level(inner, message, prefix, map, depth)?;
                }
            }
            None => {}
        }
        prefix.pop();
    }
    Ok(())
}

/// The first field whose path starts with `prefix`.
fn find(message: &'static Message, prefix: &[u32]) -> Option<&'static Field> {
    let order = &message.by_number;
    let path = |i: &u16| &*message.fields[usize::from(*i)].path;
    let at = order.partition_point(|i| path(i) < prefix);
    order.get(at).map(|i| &message.fields[usize::from(*i)]).filter(|f| f.path.starts_with(prefix))
}

fn add(map: &mut Map<String, Value>, field: &Field, record: Record, depth: usize) -> Result<(), DecodeError> {
    match field.shape {
        Shape::One => {
            let value = scalar(field.scalar, record, depth)?;
            map.insert(field.name.to_owned(), value);
        }
        Shape::List => push_all(list(map, field.name), field.scalar, record, depth)?,
        Shape::WrappedList => {
            let inner = wrapped(field.scalar, record, depth)?;
            map.insert(field.name.to_owned(), Value::Array(inner));
        }
        Shape::Map | Shape::MapOfWrappedLists => {
            let (key, value) = entry(field, record, depth)?;
            let slot = map.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(entries) = slot {
                entries.insert(key, value);
            }
        }
    }
    Ok(())
}

fn list<'a>(map: &'a mut Map<String, Value>, name: &str) -> &'a mut Vec<Value> {
    let slot = map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    match slot {
        Value::Array(list) => list,
        _ => unreachable!("a list field holds a list"),
    }
}

/// One element, or many when numbers are packed.
fn push_all(list: &mut Vec<Value>, kind: Scalar, record: Record, depth: usize) -> Result<(), DecodeError> {
    let packable = matches!(kind, Scalar::Int32 | Scalar::Int64 | Scalar::Bool);
    if let (true, Record::Bytes(packed)) = (packable, record) {
        let mut reader = Reader::new(packed);
        while !reader.is_empty() {
            list.push(scalar(kind, Record::Varint(reader.varint()?), depth)?);
        }
        return Ok(());
    }
    list.push(scalar(kind, record, depth)?);
    Ok(())
}

fn wrapped(kind: Scalar, record: Record, depth: usize) -> Result<Vec<Value>, DecodeError> {
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes(record)?);
    while let Some((number, record)) = reader.next()? {
        if number == 1 {
            push_all(&mut list, kind, record, depth)?;
        }
    }
    Ok(list)
}

fn entry(field: &Field, record: Record, depth: usize) -> Result<(String, Value), DecodeError> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader::new(bytes(record)?);
    while let Some((number, record)) = reader.next()? {
        match (number, field.shape) {
            (1, _) => key = text(record)?,
            (2, Shape::MapOfWrappedLists) => value = Some(Value::Array(wrapped(field.scalar, record, depth)?)),
            (2, _) => value = Some(scalar(field.scalar, record, depth)?),
            _ => {}
        }
    }
    let empty = || match (field.shape, field.scalar) {
        (Shape::MapOfWrappedLists, _) => Value::Array(Vec::new()),
        (_, Scalar::Bytes) => "".into(),
        (_, kind) => normal::zero(kind),
    };
    Ok((key, value.unwrap_or_else(empty)))
}

fn bytes<'a>(record: Record<'a>) -> Result<&'a [u8], DecodeError> {
    match record {
        Record::Bytes(bytes) => Ok(bytes),
        _ => Err(DecodeError::Type("proto: wrong wireType".to_owned())),
    }
}

fn text(record: Record) -> Result<String, DecodeError> {
    bytes(record).map(|b| String::from_utf8_lossy(b).into_owned())
}

fn scalar(kind: Scalar, record: Record, depth: usize) -> Result<Value, DecodeError> {
    Ok(match (kind, record) {
        (Scalar::String, record) => text(record)?.into(),
        (Scalar::Bool, Record::Varint(n)) => (n != 0).into(),
        (Scalar::Int32, Record::Varint(n)) => (n as i32).into(),
        (Scalar::Int64, Record::Varint(n)) => (n as i64).into(),
        (Scalar::Double, Record::Fixed64(bits)) => {
            let number = serde_json::Number::from_f64(f64::from_bits(bits));
            number.map(Value::Number).ok_or_else(|| DecodeError::Type("json: unsupported value".to_owned()))?
        }
        (Scalar::Bytes, record) => base64::engine::general_purpose::STANDARD.encode(bytes(record)?).into(),
        (Scalar::Message(id), record) => Value::Object(message(bytes(record)?, id, depth + 1)?),
        (Scalar::Time | Scalar::MicroTime, record) => time(bytes(record)?, kind == Scalar::MicroTime)?,
        (Scalar::Quantity, record) => quantity(bytes(record)?)?,
        (Scalar::IntOrString, record) => int_or_string(bytes(record)?)?,
        (Scalar::RawExtension | Scalar::FieldsV1 | Scalar::Json, record) => raw(bytes(record)?, depth)?,
        (Scalar::SchemaOrArray | Scalar::SchemaOrBool | Scalar::SchemaOrStrings, record) => {
            schema_or(kind, bytes(record)?, depth)?
        }
        _ => return Err(DecodeError::Type("proto: wrong wireType".to_owned())),
    })
}

/// Seconds and nanoseconds since 1970; an empty message is Go's zero time, which is null in JSON.
fn time(bytes: &[u8], micros: bool) -> Result<Value, DecodeError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut reader = Reader::new(bytes);
    while let Some((number, record)) = reader.next()? {
        match (number, record) {
            (1, Record::Varint(n)) => seconds = n as i64,
            (2, Record::Varint(n)) => nanos = n as i32,
            _ => {}
        }
    }
    let nanos = if micros { nanos } else { 0 };
    let time = jiff::Timestamp::new(seconds, nanos)
        .map_err(|_| DecodeError::Type("Time.MarshalJSON: year outside of range [0,9999]".to_owned()))?;
    Ok(if micros { meta::time::format_micro(time) } else { meta::time::format(time) }.into())
}

fn quantity(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut found = String::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, record)) = reader.next()? {
        if number == 1 {
            found = text(record)?;
        }
    }
    if found.is_empty() {
        return Ok("0".into());
    }
    Quantity::canonical(&found).map(Value::from).map_err(|e| DecodeError::Type(e.to_string()))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, DecodeError> {
    let (mut is_text, mut number_value, mut text_value) = (false, 0i32, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, record)) = reader.next()? {
        match (number, record) {
            (1, Record::Varint(n)) => is_text = n == 1,
            (2, Record::Varint(n)) => number_value = n as i32,
            (3, record) => text_value = text(record)?,
            _ => {}
        }
    }
    Ok(if is_text { text_value.into() } else { number_value.into() })
}

/// JSON bytes inside a message; whole objects inside others may themselves be protobuf with an envelope.
fn raw(bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
    let mut found: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((number, record)) = reader.next()? {
        if let (1, Record::Bytes(inner)) = (number, record) {
            found = inner;
        }
    }
    if found.is_empty() {
        return Ok(Value::Null);
    }
    if found.starts_with(super::MAGIC) {
        return super::envelope::decode_object_at(found, depth + 1).map(|(_, object)| object);
    }
    Ok(crate::json::decode(found, crate::Form::Any)?.object)
}

fn schema_or(kind: Scalar, bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
    let schema = types::find("apiextensions.v1.JSONSchemaProps").map_or(Scalar::Any, Scalar::Message);
    let (mut one, mut many, mut allows) = (None, Vec::new(), false);
    let mut reader = Reader::new(bytes);
    while let Some((number, record)) = reader.next()? {
        match (kind, number, record) {
            (Scalar::SchemaOrBool, 1, Record::Varint(n)) => allows = n != 0,
            (Scalar::SchemaOrBool, 2, record) => one = Some(scalar(schema, record, depth)?),
            (Scalar::SchemaOrArray, 2, record) => many.push(scalar(schema, record, depth)?),
            (Scalar::SchemaOrStrings, 2, record) => many.push(text(record)?.into()),
            (_, 1, record) => one = Some(scalar(schema, record, depth)?),
            _ => {}
        }
    }
    Ok(match (kind, one) {
        (Scalar::SchemaOrArray | Scalar::SchemaOrStrings, _) if !many.is_empty() => Value::Array(many),
        (_, Some(schema)) => schema,
        (Scalar::SchemaOrBool, None) => allows.into(),
        _ => Value::Null,
    })
}
