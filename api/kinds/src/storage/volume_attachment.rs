//! `volumeattachments` of storage.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, IMMUTABLE, follows};
use crate::core::pod_spec::volume::csi_driver;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::print::{age, boolean, name};
use crate::value::{at, map, same, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments")
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Attacher").named(),
            Column::text("PV"),
            Column::text("Node"),
            Column::boolean("Attached"),
            Column::text("Age"),
        ])
        .conditional_update()
        .fixed_status_metadata()
        .hooks(Hooks { row, validate, validate_update, validate_status: validate_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(object, "spec.attacher").into(),
        text(object, "spec.source.persistentVolumeName").into(),
        text(object, "spec.nodeName").into(),
        boolean(object, "status.attached"),
        age(object, now),
    ]
}

/// All of the metadata of an attachment together, in bytes.
const METADATA_LIMIT: usize = 256 * 1024;
const MESSAGE_LIMIT: usize = 1024;

fn validate(attachment: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(attachment, "spec").unwrap_or(&Value::Null);
    csi_driver(&mut errors, path.child("attacher"), text(spec, "attacher"));
    source(&mut errors, path.child("source"), at(spec, "source").unwrap_or(&Value::Null));
    follows(&mut errors, path.child("nodeName"), text(spec, "nodeName"), names::dns1123_subdomain);
    status(&mut errors, at(attachment, "status").unwrap_or(&Value::Null));
    errors
}

fn source(errors: &mut Errors, path: Path, source: &Value) {
    let volume = at(source, "persistentVolumeName").and_then(Value::as_str);
    match (at(source, "inlineVolumeSpec"), volume) {
        (None, None) => {
            let message = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            errors.push(FieldError::required(path, message));
        }
        (Some(_), Some(_)) => {
            let message = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            errors.push(FieldError::forbidden(path, message));
        }
        (None, Some(name)) => follows(errors, path.child("persistentVolumeName"), name, names::dns1123_subdomain),
        (Some(_), None) => {}
    }
}

fn status(errors: &mut Errors, status: &Value) {
    let path = Path::root("status");
    let metadata = map(status, "attachmentMetadata").into_iter().flatten();
    let size: usize = metadata.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > METADATA_LIMIT {
        errors.push(FieldError::too_long(path.child("attachmentMetadata"), METADATA_LIMIT as i64));
    }
    for key in ["attachError", "detachError"] {
        if at(status, key).is_some_and(|error| text(error, "message").len() > MESSAGE_LIMIT) {
            errors.push(FieldError::too_long(path.child(key).child("message"), MESSAGE_LIMIT as i64));
        }
    }
}

fn validate_update(attachment: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(attachment);
    let (spec, was) = (at(attachment, "spec"), at(old, "spec"));
    if !same(spec, was) {
        errors.push(FieldError::invalid("spec", spec.cloned().unwrap_or_default(), IMMUTABLE));
    }
    errors
}
