//! Bodies of requests into objects, with the checks that every body goes through.

use bytes::Bytes;
use codec::{Decoded, Form};
use meta::{Gvk, Status};
use serde_json::Value;

use super::call::Call;
use super::negotiate::{self, Encoding};
use crate::registry::Served;
use crate::registry::create::settle_namespace;
use crate::registry::options::FieldValidation;
use crate::registry::write::{meta_text, metadata};

/// Decodes the body of a write as an object of the served kind.
pub fn decode(call: &Call, served: &Served, body: &Bytes, validation: FieldValidation) -> Result<Value, Status> {
    let encoding = negotiate::body_encoding(call.header(http::header::CONTENT_TYPE), served.custom)?;
    decode_body(call, served, encoding, body, validation)
}

fn decode_body(
    call: &Call,
    served: &Served,
    encoding: Encoding,
    body: &Bytes,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let gvk = served.kind.gvk();
    let mut decoded = read(&gvk, served.form(), encoding, body)?;
    if served.custom {
        schema::drop_nulls(&mut decoded.object, &served.kind.schema);
        let unknown = schema::prune(&mut decoded.object, &served.kind.schema);
        decoded.strict.extend(unknown.into_iter().map(|path| format!("unknown field \"{path}\"")));
    }
    settle(call, &gvk, decoded, validation)
}

/// Decodes the body of an apply patch. It stays as it was written, since only what is written is applied; types and
/// unknown fields are checked all the same.
pub fn decode_intent(call: &Call, served: &Served, body: &Bytes, validation: FieldValidation) -> Result<Value, Status> {
    let fail = |error: codec::DecodeError| Status::bad_request(format!("error decoding YAML: {error}"));
    let mut intent = codec::yaml::decode(body, Form::Any).map_err(fail)?;
    if !intent.object.is_object() {
        return Err(Status::bad_request("error decoding YAML: the body is not an object"));
    }
    let name = call.info.name.as_str();
    let given = meta_text(&intent.object, "name");
    if given.is_empty() {
        metadata(&mut intent.object).insert("name".to_owned(), name.into());
    } else if given != name {
        let message = format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(Status::bad_request(message));
    }
    settle_namespace(served, &call.info.namespace, &mut intent.object)?;
    check_type(&served.kind.gvk(), &mut intent.object)?;
    let strict = intent.strict;
    let checked = serde_json::to_vec(&intent.object).map_err(Status::internal)?;
    decode_body(call, served, Encoding::Json, &checked.into(), validation)?;
    if validation == FieldValidation::Strict && !strict.is_empty() {
        return Err(undecodable(&served.kind.gvk(), &format!("strict decoding error: {}", strict.join(", "))));
    }
    Ok(intent.object)
}

/// Decodes what a patch made, as if it had come in whole: types are checked and unknown fields told.
pub fn redecode(call: &Call, served: &Served, object: &Value, validation: FieldValidation) -> Result<Value, Status> {
    let body = serde_json::to_vec(object).map_err(Status::internal)?;
    decode_body(call, served, Encoding::Json, &body.into(), validation)
}

/// Decodes a body that must be of a built-in kind other than the one served: scales, evictions, bindings.
pub fn decode_as(call: &Call, gvk: &Gvk, body: &Bytes, validation: FieldValidation) -> Result<Value, Status> {
    let encoding = negotiate::body_encoding(call.header(http::header::CONTENT_TYPE), false)?;
    let form = kinds::definitions::message_of(gvk).map_or(Form::Any, Form::Typed);
    settle(call, gvk, read(gvk, form, encoding, body)?, validation)
}

fn read(gvk: &Gvk, form: Form, encoding: Encoding, body: &Bytes) -> Result<Decoded, Status> {
    let decoded = match encoding {
        Encoding::Json => codec::json::decode(body, form),
        Encoding::Yaml => codec::yaml::decode(body, form),
        Encoding::Protobuf => {
            codec::proto::decode_object(body).map(|(_, object)| Decoded { object, strict: Vec::new() })
        }
    };
    match decoded {
        Ok(decoded) if decoded.object.is_object() => Ok(decoded),
        Ok(_) => Err(undecodable(gvk, "the body is not an object")),
        Err(error) => Err(undecodable(gvk, &error.to_string())),
    }
}

/// Checks the type and says what is to be said about unknown fields.
fn settle(call: &Call, gvk: &Gvk, decoded: Decoded, validation: FieldValidation) -> Result<Value, Status> {
    let mut object = decoded.object;
    check_type(gvk, &mut object)?;
    match validation {
        FieldValidation::Strict if !decoded.strict.is_empty() => {
            return Err(undecodable(gvk, &format!("strict decoding error: {}", decoded.strict.join(", "))));
        }
        FieldValidation::Warn => decoded.strict.into_iter().for_each(|problem| call.warn(problem)),
        _ => {}
    }
    Ok(object)
}

fn undecodable(gvk: &Gvk, why: &str) -> Status {
    let (kind, version) = (&gvk.kind, &gvk.version);
    Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
}

/// The body must say the type of the path; a body that says nothing is taken to be of it.
fn check_type(gvk: &Gvk, object: &mut Value) -> Result<(), Status> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    if !api_version.is_empty() && api_version != gvk.api_version() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            gvk.api_version()
        )));
    }
    if !kind.is_empty() && kind != gvk.kind {
        let (given, version) = (kind, gvk.version.as_ref());
        return Err(Status::bad_request(format!(
            "{given} in version \"{version}\" cannot be handled as a {}: converting ({given}) to ({}): unknown conversion",
            gvk.kind, gvk.kind
        )));
    }
    object["apiVersion"] = gvk.api_version().into();
    object["kind"] = gvk.kind.as_ref().into();
    Ok(())
}

/// Decodes a body of options, such as DeleteOptions, leniently.
pub fn decode_options(call: &Call, body: &Bytes, kind: &'static str) -> Result<Value, Status> {
    let encoding = negotiate::body_encoding(call.header(http::header::CONTENT_TYPE), false)?;
    let gvk = Gvk::new("", "v1", kind);
    let form = kinds::definitions::message_of(&gvk).map_or(Form::Any, Form::Typed);
    Ok(read(&gvk, form, encoding, body)?.object)
}
