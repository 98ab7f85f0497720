//! Bodies of requests into objects, with the checks that every body goes through. It lies below the verbs: those that
//! write call it, and the audit log for what it shows of a body. Pure.

use bytes::Bytes;
use codec::{DecodeError, Decoded, Form};
use meta::{Gvk, Status};
use serde_json::Value;

use super::Served;
use super::object_meta::{check_name, settle_namespace};
use super::options::FieldValidation;
use crate::http::call::Call;
use crate::http::negotiate::{self, Encoding};
use crate::http::unreadable::{self, Trouble};

/// Decodes the body of a write as an object of the served kind.
pub fn decode(call: &Call, served: &Served, body: &Bytes, validation: FieldValidation) -> Result<Value, Status> {
    let encoding = negotiate::body_encoding(call.header(http::header::CONTENT_TYPE), served.custom)?;
    let gvk = served.kind.gvk();
    decode_body(call, served, encoding, body, body, validation).map_err(|trouble| trouble.of_body(&gvk, body))
}

/// `shown` is what an error may show of the body.
fn decode_body(
    call: &Call,
    served: &Served,
    encoding: Encoding,
    body: &Bytes,
    shown: &[u8],
    validation: FieldValidation,
) -> Result<Value, Trouble> {
    let mut decoded = read(served.form(), encoding, body)?;
    if served.custom {
        unreadable::must_be_typed(&decoded.object, shown)?;
        schema::drop_nulls(&mut decoded.object, &served.kind.schema);
        let unknown = schema::prune(&mut decoded.object, &served.kind.schema);
        decoded.strict.extend(unknown.into_iter().map(|path| format!("unknown field \"{path}\"")));
    }
    settle(call, &served.kind.gvk(), decoded, validation)
}

/// Decodes the body of an apply patch. It stays as it was written, since only what is written is applied; its fields
/// are checked against the schema when it is.
pub fn decode_intent(call: &Call, served: &Served, body: &Bytes, validation: FieldValidation) -> Result<Value, Status> {
    decode_intent_as(call, &served.kind.gvk(), served, body, validation)
}

/// Like [`decode_intent`], of what a subresource shows of the kind.
pub fn decode_intent_as(
    call: &Call,
    gvk: &Gvk,
    served: &Served,
    body: &Bytes,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let fail = |error: DecodeError| Status::bad_request(format!("error decoding patch: {error}"));
    let mut intent = codec::yaml::decode(body, Form::Any).map_err(fail)?;
    if intent.object.is_null() {
        intent.object = Value::Object(serde_json::Map::new());
    }
    if let Some(kind) = unreadable::not_an_object(&intent.object) {
        let why = format!(
            "error decoding patch: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        );
        return Err(Status::bad_request(why));
    }
    let text = |field: &str| intent.object[field].as_str().unwrap_or_default();
    if text("apiVersion") != gvk.api_version() || text("kind") != gvk.kind {
        let (group, version) = meta::gvk::split_api_version(text("apiVersion"));
        let kind = text("kind");
        return Err(Status::bad_request(format!("invalid object type: {group}/{version}, Kind={kind}")));
    }
    check_name(&intent.object, &call.info.name, true)?;
    // What is not said of the namespace stays unsaid: only what is written is applied.
    settle_namespace(served, &call.info.namespace, &mut intent.object.clone())?;
    match validation {
        FieldValidation::Strict if !intent.strict.is_empty() => {
            // The body of an apply is YAML: what it has twice is what upstream's converter to JSON finds.
            let why = codec::strict_words(&intent.strict);
            let why = format!("error strict decoding patch: error converting YAML to JSON: {why}");
            return Err(Status::bad_request(why));
        }
        FieldValidation::Warn => intent.strict.into_iter().for_each(|problem| call.warn(problem)),
        _ => {}
    }
    Ok(intent.object)
}

/// Decodes what a patch made, as if it had come in whole: types are checked and unknown fields told. `duplicates` are
/// the fields that the patch itself names twice.
pub fn redecode(
    call: &Call,
    served: &Served,
    object: &Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Value, Trouble> {
    let body = serde_json::to_vec(object).map_err(|error| Trouble::Unrecognized(error.to_string()))?;
    if validation == FieldValidation::Strict && !duplicates.is_empty() {
        return Err(Trouble::strict(None, duplicates));
    }
    if validation == FieldValidation::Warn {
        duplicates.iter().for_each(|problem| call.warn(problem));
    }
    // An error shows nothing of the object: whoever may patch it need not be one who may read it.
    decode_body(call, served, Encoding::Json, &body.into(), b"the patched object", validation)
}

/// Decodes a body that must be of a built-in kind other than the one served: scales, evictions, bindings.
pub fn decode_as(call: &Call, gvk: &Gvk, body: &Bytes, validation: FieldValidation) -> Result<Value, Status> {
    let encoding = negotiate::body_encoding(call.header(http::header::CONTENT_TYPE), false)?;
    let outcome = read(form_of(gvk), encoding, body).and_then(|decoded| settle(call, gvk, decoded, validation));
    outcome.map_err(|trouble| trouble.of_body(gvk, body))
}

/// Checks that a value is of a built-in kind's type, as [`redecode`] does for the kind that is served.
pub fn recheck(call: &Call, gvk: &Gvk, object: &Value, validation: FieldValidation) -> Result<Value, Trouble> {
    let body = serde_json::to_vec(object).map_err(|error| Trouble::Unrecognized(error.to_string()))?;
    let decoded = read(form_of(gvk), Encoding::Json, &body.into())?;
    settle(call, gvk, decoded, validation)
}

fn form_of(gvk: &Gvk) -> Form {
    kinds::definitions::message_of(gvk).map_or(Form::Any, Form::Typed)
}

fn read(form: Form, encoding: Encoding, body: &Bytes) -> Result<Decoded, Trouble> {
    let decoded = match encoding {
        Encoding::Json => codec::json::decode(body, form),
        Encoding::Yaml => codec::yaml::decode(body, form),
        Encoding::Protobuf => {
            codec::proto::decode_object(body).map(|(_, object)| Decoded { object, strict: Vec::new() })
        }
    };
    match decoded {
        Ok(decoded) if decoded.object.is_object() => Ok(decoded),
        // Go takes null for an object without fields.
        Ok(Decoded { object: Value::Null, strict }) => {
            Ok(Decoded { object: Value::Object(Default::default()), strict })
        }
        Ok(_) => Err(Trouble::decoding(encoding, body, &DecodeError::Syntax("the body is not an object".to_owned()))),
        Err(error) => Err(Trouble::decoding(encoding, body, &error)),
    }
}

/// Checks the type and says what is to be said about unknown fields.
fn settle(call: &Call, gvk: &Gvk, decoded: Decoded, validation: FieldValidation) -> Result<Value, Trouble> {
    let mut object = decoded.object;
    unreadable::check_type(gvk, &mut object)?;
    match validation {
        FieldValidation::Strict if !decoded.strict.is_empty() => {
            return Err(Trouble::strict(object["kind"].as_str(), &decoded.strict));
        }
        FieldValidation::Warn => decoded.strict.into_iter().for_each(|problem| call.warn(problem)),
        _ => {}
    }
    Ok(object)
}

/// Decodes a body of options, such as DeleteOptions, leniently.
pub fn decode_options(call: &Call, body: &Bytes, kind: &'static str) -> Result<Value, Status> {
    let encoding = negotiate::body_encoding(call.header(http::header::CONTENT_TYPE), false)?;
    let gvk = Gvk::new("", "v1", kind);
    let object = read(form_of(&gvk), encoding, body).map_err(|trouble| trouble.of_options())?.object;
    let given = object["kind"].as_str().unwrap_or_default();
    if !given.is_empty() && given != kind {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        return Err(Status::bad_request(unreadable::not_registered(given, version)));
    }
    Ok(object)
}
