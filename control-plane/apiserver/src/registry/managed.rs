//! `metadata.managedFields`: who wrote which field, kept on every write.

use std::sync::LazyLock;

use meta::Status;
use object::{Set, Write};
use serde_json::Value;

use super::Served;
use crate::http::call::Call;

static NOTHING: LazyLock<Set> = LazyLock::new(|| Set::of_paths(&[]));
static STATUS: LazyLock<Set> = LazyLock::new(|| Set::of_paths(&[&["status"]]));
static SPEC: LazyLock<Set> = LazyLock::new(|| Set::of_paths(&[&["spec"]]));

/// Fields that an endpoint resets: what a client writes there does not count.
fn reset(served: &Served, subresource: &str) -> &'static Set {
    match subresource {
        "" if served.kind.has_status() && !served.kind.status_on_create => &STATUS,
        "status" => &SPEC,
        _ => &NOTHING,
    }
}

/// Records a create (`old` is `None`), update or patch in the managed fields of `new`.
pub fn on_write(
    call: &Call,
    served: &Served,
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    subresource: &str,
) -> Result<(), Status> {
    let (manager, gvk, now) = (call.manager(manager), served.kind.gvk(), meta::time::format(call.now));
    let write = Write {
        manager: &manager,
        subresource,
        gvk: &gvk,
        schema: &served.kind.schema,
        reset: reset(served, subresource),
        now: &now,
    };
    object::apply::update(old, new, &write);
    Ok(())
}

/// Applies a configuration to the live object, or makes a new one of it; the result carries its managed fields.
pub fn apply(
    call: &Call,
    served: &Served,
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    force: bool,
) -> Result<Value, Status> {
    let (gvk, now) = (served.kind.gvk(), meta::time::format(call.now));
    let subresource = call.info.subresource.as_str();
    let write = Write {
        manager,
        subresource,
        gvk: &gvk,
        schema: &served.kind.schema,
        reset: reset(served, subresource),
        now: &now,
    };
    Ok(object::apply::apply(live, config, &write, force)?.object)
}
