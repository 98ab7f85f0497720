//! Taking an input apart: bytes become text, JSON, or several parts. Pure; targets call these.

use std::borrow::Cow;

use codec::{Form, json};
use serde_json::Value;

/// What stands between the parts of an input. It is in no UTF-8 text, so texts never hold it.
pub const SEPARATOR: u8 = 0xff;

/// The bytes as text: what isn't UTF-8 is replaced, as a lenient reader would.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The first `N` parts; missing ones are empty.
pub fn parts<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut all = bytes.splitn(N, |byte| *byte == SEPARATOR);
    std::array::from_fn(|_| all.next().unwrap_or_default())
}

/// Parts put together: for seeds.
pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&SEPARATOR)
}

/// A JSON value as the server reads it.
pub fn value(bytes: &[u8]) -> Option<Value> {
    json::decode(bytes, Form::Any).ok().map(|decoded| decoded.object)
}

/// Seeds that are plain text.
pub fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}
