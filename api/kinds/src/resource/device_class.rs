//! `deviceclasses` of resource.k8s.io.

use meta::{FieldError, Path};
use serde_json::Value;

use super::{MOST_CONFIGS, config, each, selectors};
use crate::core::pod_spec::resources::extended;
use crate::hooks::Hooks;
use crate::kind::{Column, Kind};
use crate::value::{at, items, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("resource.k8s.io", "v1", "DeviceClass", "deviceclasses")
        .columns(vec![Column::name(), Column::text("Age")])
        .generations()
        .hooks(Hooks { validate, validate_update: |o, _| validate(o), ..Hooks::NONE })
}

fn validate(class: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(class, "spec").unwrap_or(&Value::Null);
    selectors(&mut errors, path, spec);
    each(&mut errors, path.child("config"), items(spec, "config"), MOST_CONFIGS, "", config);
    let name = text(spec, "extendedResourceName");
    if !name.is_empty() && !extended(name) {
        let message = "must be a valid extended resource name";
        errors.push(FieldError::invalid(path.child("extendedResourceName"), name, message));
    }
    errors
}
