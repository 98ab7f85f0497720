//! Bodies of requests into objects, with the checks that every body goes through.

use bytes::Bytes;
use meta::{Gvk, Status};
use serde_json::Value;

use super::call::Call;
use super::negotiate::{self, Encoding};
use crate::registry::Served;
use crate::registry::options::FieldValidation;

/// Decodes the body of a write as an object of the served kind.
pub fn decode(call: &Call, served: &Served, body: &Bytes, validation: FieldValidation) -> Result<Value, Status> {
    let encoding = negotiate::body_encoding(call.header(http::header::CONTENT_TYPE), served.custom)?;
    let kind = &served.kind;
    decode_as(call, &kind.gvk(), &kind.schema, encoding, body, validation)
}

/// Decodes a body that must be of the kind `gvk`.
pub fn decode_as(
    call: &Call,
    gvk: &Gvk,
    schema: &schema::Schema,
    encoding: Encoding,
    body: &Bytes,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let (mut object, problems) = codec_decode(gvk, schema, encoding, body, validation)?;
    check_type(gvk, &mut object)?;
    match validation {
        FieldValidation::Strict if !problems.is_empty() => {
            let list = problems.join(", ");
            let kind = &gvk.kind;
            return Err(Status::bad_request(format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: strict decoding error: {list}",
                gvk.version
            )));
        }
        FieldValidation::Warn => problems.into_iter().for_each(|problem| call.warn(problem)),
        _ => {}
    }
    Ok(object)
}

/// The object and its unknown and duplicate fields.
fn codec_decode(
    gvk: &Gvk,
    _schema: &schema::Schema,
    encoding: Encoding,
    body: &Bytes,
    _validation: FieldValidation,
) -> Result<(Value, Vec<String>), Status> {
    match encoding {
        Encoding::Json | Encoding::Yaml | Encoding::Protobuf => match serde_json::from_slice::<Value>(body) {
            Ok(value) if value.is_object() => Ok((value, Vec::new())),
            Ok(_) => Err(undecodable(gvk, "the body is not an object")),
            Err(error) => Err(undecodable(gvk, &error.to_string())),
        },
    }
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
    let (object, _) = codec_decode(&gvk, &schema::Schema::ANYTHING, encoding, body, FieldValidation::Ignore)?;
    Ok(object)
}
