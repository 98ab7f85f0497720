//! The wrapper around every protobuf object: the magic, then a message with apiVersion, kind and the object's bytes.
//! Lists are put together from items that are already encoded; watch frames carry a wrapped object each.

use kinds::definitions::message_of_kind;
use meta::gvk::split_api_version;
use serde_json::Value;

use super::decode::message_at;
use super::encode::encode_value;
use super::wire::{Reader, Record, put_bytes, put_nested};
use crate::error::{DecodeError, EncodeError};

/// What every protobuf body starts with.
pub const MAGIC: &[u8] = b"k8s\0";

/// An opened wrapper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `group/version` of the object.
    pub api_version: String,
    /// The object's kind.
    pub kind: String,
    /// The object's message, or JSON when the content type says so.
    pub raw: &'a [u8],
    /// Empty for protobuf.
    pub content_type: String,
}

/// Wraps the message of an object.
pub fn wrap(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    start(&mut out, api_version, kind);
    put_bytes(&mut out, 2, message);
    finish(&mut out);
    out
}

fn start(out: &mut Vec<u8>, api_version: &str, kind: &str) {
    out.extend_from_slice(MAGIC);
    infallible(put_nested(out, 1, |out| {
        put_bytes(out, 1, api_version.as_bytes());
        put_bytes(out, 2, kind.as_bytes());
        Ok(())
    }));
}

/// Content encoding and type, always empty here and always written by upstream.
fn finish(out: &mut Vec<u8>) {
    put_bytes(out, 3, b"");
    put_bytes(out, 4, b"");
}

fn infallible(result: Result<(), std::convert::Infallible>) {
    let Ok(()) = result;
}

/// Opens a wrapper. The object inside is not looked at.
pub fn open(body: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let Some(rest) = body.strip_prefix(MAGIC) else {
        return Err(DecodeError::Syntax(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".to_owned(),
        ));
    };
    let mut envelope =
        Envelope { api_version: String::new(), kind: String::new(), raw: &[], content_type: String::new() };
    let mut reader = Reader::new(rest);
    while let Some((number, record)) = reader.next()? {
        match (number, record) {
            (1, Record::Bytes(bytes)) => {
                let mut inner = Reader::new(bytes);
                while let Some((number, record)) = inner.next()? {
                    match (number, record) {
                        (1, Record::Bytes(text)) => envelope.api_version = String::from_utf8_lossy(text).into_owned(),
                        (2, Record::Bytes(text)) => envelope.kind = String::from_utf8_lossy(text).into_owned(),
                        _ => {}
                    }
                }
            }
            (2, Record::Bytes(bytes)) => envelope.raw = bytes,
            (4, Record::Bytes(text)) => envelope.content_type = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    Ok(envelope)
}

/// Decodes a wrapped object of any built-in type, with its apiVersion and kind. One message may be several levels of the
/// object, and JSON inside it many more: the object is measured when it is there.
pub fn decode_object(body: &[u8]) -> Result<(Envelope<'_>, Value), DecodeError> {
    let (envelope, object) = decode_object_at(body, 0)?;
    if !meta::depth::fits(&object) {
        return Err(DecodeError::Syntax(meta::depth::TOO_DEEP.to_owned()));
    }
    Ok((envelope, object))
}

/// As [`decode_object`], for an object inside others.
pub(super) fn decode_object_at(body: &[u8], depth: usize) -> Result<(Envelope<'_>, Value), DecodeError> {
    let envelope = open(body)?;
    let (group, version) = split_api_version(&envelope.api_version);
    let Some(id) = message_of_kind(group, version, &envelope.kind) else {
        return Err(DecodeError::UnknownKind { api_version: envelope.api_version, kind: envelope.kind });
    };
    let mut object = match envelope.content_type.as_str() {
        "" | "application/vnd.kubernetes.protobuf" => message_at(envelope.raw, id, depth)?,
        _ => crate::json::decode(envelope.raw, crate::Form::Typed(id))?.object,
    };
    if let Value::Object(map) = &mut object {
        map.insert("apiVersion".to_owned(), envelope.api_version.clone().into());
        map.insert("kind".to_owned(), envelope.kind.clone().into());
    }
    Ok((envelope, object))
}

/// Encodes an object by its own apiVersion and kind.
pub fn encode_object(object: &Value) -> Result<Vec<u8>, EncodeError> {
    let text = |key| object.get(key).and_then(Value::as_str).unwrap_or("");
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = split_api_version(api_version);
    // A table is a known type without a protobuf form.
    let id = message_of_kind(group, version, kind).filter(|_| kind != "Table");
    let id = id.ok_or_else(|| EncodeError::NotMarshalable { kind: kind.to_owned() })?;
    Ok(wrap(api_version, kind, &encode_value(object, id)?))
}

/// A list made of messages that are encoded already. `metadata` is the ListMeta message.
pub fn list<'a>(
    api_version: &str,
    kind: &str,
    metadata: &[u8],
    items: impl Iterator<Item = &'a [u8]> + Clone,
) -> Vec<u8> {
    let size: usize = items.clone().map(|i| i.len() + 6).sum();
    let mut out = Vec::with_capacity(size + 256);
    start(&mut out, api_version, kind);
    infallible(put_nested(&mut out, 2, |out| {
        put_bytes(out, 1, metadata);
        for item in items {
            put_bytes(out, 2, item);
        }
        Ok(())
    }));
    finish(&mut out);
    out
}

/// One frame of a watch stream: four bytes of length, then the event with the wrapped object.
pub fn watch_frame(event: &str, wrapped_object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.reserve(wrapped_object.len() + 32);
    put_bytes(&mut out, 1, event.as_bytes());
    infallible(put_nested(&mut out, 2, |out| {
        put_bytes(out, 1, wrapped_object);
        Ok(())
    }));
    let len = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

#[cfg(test)]
mod tests;
