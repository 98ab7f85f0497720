//! Kinds of the `storage` group, and what their checks share.

use meta::{FieldError, Path, names};
use serde_json::Value;

use crate::check::{Errors, follows};
use crate::value::map;

pub(crate) mod csi_driver;
pub(crate) mod csi_node;
pub(crate) mod csi_storage_capacity;
pub(crate) mod storage_class;
pub(crate) mod volume_attachment;
pub(crate) mod volume_attributes_class;

/// Parameters of a class, by number.
const MOST_PARAMETERS: usize = 512;
/// All of them together, in bytes.
const PARAMETERS_LIMIT: usize = 256 * 1024;

/// The name of who provides volumes.
fn provisioner(errors: &mut Errors, path: Path, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        follows(errors, path, &name.to_lowercase(), names::qualified_name);
    }
}

/// What a class tells its provisioner.
fn parameters(errors: &mut Errors, class: &Value) {
    let parameters = map(class, "parameters").into_iter().flatten();
    let (mut count, mut size) = (0, 0);
    for (key, value) in parameters {
        if key.is_empty() {
            errors.push(FieldError::invalid("parameters", key.as_str(), "field can not be empty."));
        }
        count += 1;
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if count > MOST_PARAMETERS {
        errors.push(FieldError::too_many("parameters", count as i64, MOST_PARAMETERS as i64));
    }
    if size > PARAMETERS_LIMIT {
        errors.push(FieldError::too_long("parameters", PARAMETERS_LIMIT as i64));
    }
}
