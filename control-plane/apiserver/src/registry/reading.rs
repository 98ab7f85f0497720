//! Whether stored bytes are an object of their resource: what the watch cache asks of everything that this server did
//! not write itself. Another server may have, or etcdctl, or a disk that forgets. A reader is never stricter than the
//! writer: both decode along the same type, within the same depth. Pure; the registry and the controller of custom
//! resources call it.

use std::sync::Arc;

use bytes::Bytes;
use codec::Form;
use kinds::Kind;
use meta::depth;
use serde_json::Value;

use crate::cache::Reader;

/// Reads objects of a built-in kind. They are served as they are stored.
pub fn of_kind(kind: &kinds::KindRef) -> Reader {
    let kind = kind.clone();
    let form = kind.message.map_or(Form::Any, Form::Typed);
    Arc::new(move |stored| decode(stored, form, &kind).map(|_| None))
}

/// The object, if it is one of the kind. What is wrong is told without the object.
pub fn decode(stored: &Bytes, form: Form, kind: &Kind) -> Result<Value, String> {
    // Fields that the type does not know are passed over when decoding, and served all the same.
    std::str::from_utf8(stored).map_err(|_| "json: invalid UTF-8".to_owned())?;
    if !depth::text_fits(stored) {
        return Err(format!("json: {}", depth::TOO_DEEP));
    }
    let object = codec::json::decode(stored, form).map_err(|error| error.to_string())?.object;
    if !object.is_object() {
        return Err("it is not an object".to_owned());
    }
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (group, _) = meta::gvk::split_api_version(text("apiVersion"));
    if text("kind") != kind.kind || (!text("apiVersion").is_empty() && group != kind.group) {
        return Err(format!("no kind \"{}\" is stored here, but {}", text("kind"), kind.kind));
    }
    Ok(object)
}

/// Whether an object may be stored, or served after what is done to it on its way out.
pub fn fits(object: &Value) -> Result<(), String> {
    if depth::fits(object) { Ok(()) } else { Err(format!("json: {}", depth::TOO_DEEP)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stored: &str) -> Result<Option<Bytes>, String> {
        let kind = kinds::by_kind("", "v1", "ConfigMap").expect("a built-in kind");
        of_kind(kind)(&Bytes::copy_from_slice(stored.as_bytes()))
    }

    #[test]
    fn only_objects_of_the_kind_can_be_read() {
        assert_eq!(
            read(r#"{"apiVersion":"v1","data":{"a":"b"},"kind":"ConfigMap","metadata":{"name":"x"}}"#),
            Ok(None)
        );
        assert_eq!(read(r#"{"kind":"ConfigMap","metadata":{"name":"x"},"later":{"than":"us"}}"#), Ok(None));
        let deep = format!(r#"{{"kind":"ConfigMap","unknown":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        for wrong in [
            "",
            "null",
            "[]",
            r#"{"kind":"ConfigMap""#,
            r#"{"kind":"ConfigMap","data":{"secret":5}}"#,
            r#"{"kind":"Secret","metadata":{}}"#,
            r#"{"kind":"ConfigMap","apiVersion":"apps/v1"}"#,
            &deep,
        ] {
            let why = read(wrong).expect_err(wrong);
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
