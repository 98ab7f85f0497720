//! What of an object's metadata must agree with the path of a request. Pure; decoding and the verbs both stand on it.

use meta::Status;
use object::{meta_text, metadata};
use serde_json::Value;

use super::Served;

/// The name in a body must be that of the path; whether there must be one depends on the call.
pub fn check_name(object: &Value, name: &str, optional: bool) -> Result<(), Status> {
    let given = meta_text(object, "name");
    if given == name || (given.is_empty() && optional) {
        return Ok(());
    }
    Err(Status::bad_request(if given.is_empty() {
        format!("the name of the object ({name} based on URL) was undeterminable: name must be provided")
    } else {
        format!("the name of the object ({given}) does not match the name on the URL ({name})")
    }))
}

/// The namespace in the body is not the path's.
pub const OTHER_NAMESPACE: &str =
    "the namespace of the provided object does not match the namespace sent on the request";

/// Checks the namespace of a body against the path's, and fills it in.
pub fn settle_namespace(served: &Served, namespace: &str, object: &mut Value) -> Result<(), Status> {
    let given = meta_text(object, "namespace");
    if served.namespaced() {
        if given.is_empty() {
            metadata(object).insert("namespace".to_owned(), namespace.into());
        } else if given != namespace {
            return Err(Status::bad_request(OTHER_NAMESPACE));
        }
    } else if !given.is_empty() {
        metadata(object).remove("namespace");
    }
    Ok(())
}
