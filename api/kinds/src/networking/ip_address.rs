//! `ipaddresses` of networking.k8s.io.

use std::net::IpAddr;

use jiff::Timestamp;
use meta::gvk::qualified;
use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, follows, immutable};
use crate::hooks::Hooks;
use crate::kind::{Column, Kind, NameRule};
use crate::print::name;
use crate::value::{at, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("networking.k8s.io", "v1", "IPAddress", "ipaddresses")
        .short(&["ip"])
        .columns(vec![Column::name(), Column::text("ParentRef")])
        .names(NameRule::Any)
        .hooks(Hooks { row, validate, validate_update, ..Hooks::NONE })
}

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    let parent = at(object, "spec.parentRef").map_or_else(
        || "<none>".to_owned(),
        |p| {
            let mut parent = qualified(text(p, "resource"), text(p, "group")).to_lowercase();
            for part in ["namespace", "name"].map(|key| text(p, key)).into_iter().filter(|part| !part.is_empty()) {
                parent = format!("{parent}/{part}");
            }
            parent
        },
    );
    vec![name(object), parent.into()]
}

fn validate(address: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let metadata = Path::root("metadata");
    canonical(&mut errors, metadata.child("name"), text(address, "metadata.name"));
    parent(&mut errors, address);
    errors
}

/// The name is the address, written in the one way that is canonical.
fn canonical(errors: &mut Errors, path: Path, name: &str) {
    match name.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() == name => {}
        Ok(ip) => {
            let message = format!("must be in canonical form (\"{ip}\")");
            errors.push(FieldError::invalid(path, name, message));
        }
        Err(_) => follows(errors, path, name, names::ip),
    }
}

/// Whose the address is.
fn parent(errors: &mut Errors, address: &Value) {
    let spec = Path::root("spec");
    let path = spec.child("parentRef");
    let Some(parent) = at(address, "spec.parentRef") else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    crate::check::named_if_set(errors, &path, parent, "group", names::dns1123_subdomain);
    crate::check::named(errors, &path, parent, "resource", names::path_segment);
    crate::check::named(errors, &path, parent, "name", names::path_segment);
    crate::check::named_if_set(errors, &path, parent, "namespace", names::path_segment);
}

fn validate_update(address: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = Path::root("spec");
    let parent = |object| at(object, "spec.parentRef");
    immutable(&mut errors, spec.child("parentRef"), parent(address), parent(old));
    errors
}
