//! Kinds of the `resource` group.

use serde_json::Value;

use crate::value::{int, items_mut, set, text};

pub(crate) mod device_class;
pub(crate) mod device_taint_rule;
pub(crate) mod resource_claim;
pub(crate) mod resource_claim_template;
pub(crate) mod resource_slice;

/// A request for an exact count that names none wants one device, in each of its alternatives too.
fn default_requests(object: &mut Value, path: &str) {
    let one = |request: &mut Value| {
        let exact = text(request, "allocationMode") == "ExactCount";
        if exact && int(request, "count").unwrap_or(0) == 0 {
            set(request, "count", 1);
        }
    };
    for request in items_mut(object, path) {
        request.get_mut("exactly").into_iter().for_each(one);
        items_mut(request, "firstAvailable").for_each(one);
    }
}
