//! `csidrivers` of storage.k8s.io.

use jiff::Timestamp;
use meta::{FieldError, Path};
use serde_json::Value;

use crate::check::{Errors, immutable};
use crate::core::pod_spec::volume::csi_driver;
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{age, boolean, joined, name};
use crate::value::{at, int, items, same, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("storage.k8s.io", "v1", "CSIDriver", "csidrivers")
        .columns(vec![
            Column::name(),
            Column::boolean("AttachRequired"),
            Column::boolean("PodInfoOnMount"),
            Column::boolean("StorageCapacity"),
            Column::text("TokenRequests"),
            Column::boolean("RequiresRepublish"),
            Column::text("Modes"),
            Column::text("Age"),
        ])
        .conditional_update()
        .hooks(Hooks { row, prepare_update, validate, validate_update, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let modes = joined(object, "spec.volumeLifecycleModes", ",");
    let audiences =
        items(object, "spec.tokenRequests").iter().map(|t| text(t, "audience")).collect::<Vec<_>>().join(",");
    let tokens = if at(object, "spec.tokenRequests").is_some() { audiences } else { "<unset>".to_owned() };
    vec![
        name(object),
        at(object, "spec.attachRequired").and_then(Value::as_bool).unwrap_or(true).into(),
        boolean(object, "spec.podInfoOnMount"),
        boolean(object, "spec.storageCapacity"),
        tokens.into(),
        boolean(object, "spec.requiresRepublish"),
        if modes.is_empty() { "<none>".to_owned() } else { modes }.into(),
        age(object, now),
    ]
}

/// Generations are counted from the first change on.
fn prepare_update(driver: &mut Value, old: &Value, _context: &Context) {
    if !same(at(driver, "spec"), at(old, "spec")) {
        let next = int(old, "metadata.generation").unwrap_or(0) + 1;
        set(driver, "metadata.generation", next);
    }
}

const GROUP_POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
const MODES: [&str; 2] = ["Ephemeral", "Persistent"];
/// Shortest and longest life of a token that a driver gets, in seconds.
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);
/// Drivers report how many volumes a node takes no more often than this, in seconds.
const SHORTEST_PERIOD: i64 = 10;

fn validate(driver: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    csi_driver(&mut errors, Path::root("name"), text(driver, "metadata.name"));
    spec(&mut errors, at(driver, "spec").unwrap_or(&Value::Null));
    errors
}

fn spec(errors: &mut Errors, spec: &Value) {
    let path = Path::root("spec");
    for key in ["attachRequired", "podInfoOnMount", "storageCapacity", "fsGroupPolicy", "seLinuxMount"] {
        if at(spec, key).is_none() {
            // Upstream's name for the first one has a d.
            let shown = if key == "attachRequired" { "attachedRequired" } else { key };
            errors.push(FieldError::required(path.child(shown), ""));
        }
    }
    crate::check::one_of_if_set(errors, &path, spec, "fsGroupPolicy", &GROUP_POLICIES);
    tokens(errors, path.child("tokenRequests"), items(spec, "tokenRequests"));
    let list = path.child("volumeLifecycleModes");
    for mode in items(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str) {
        crate::check::among(errors, list, mode, &MODES);
    }
    const PERIOD: &str = "nodeAllocatableUpdatePeriodSeconds";
    if let Some(seconds) = int(spec, PERIOD).filter(|s| *s < SHORTEST_PERIOD) {
        let message = "must be greater than or equal to 10 seconds";
        errors.push(FieldError::invalid(path.child(PERIOD), seconds, message));
    }
}

fn tokens(errors: &mut Errors, path: Path, requests: &[Value]) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        let (path, audience) = (path.index(i), text(request, "audience"));
        if seen.contains(&audience) {
            errors.push(FieldError::duplicate(path.child("audience"), audience));
        }
        seen.push(audience);
        let Some(seconds) = int(request, "expirationSeconds") else { continue };
        if seconds < TOKEN_SECONDS.0 {
            let message = "may not specify a duration less than 10 minutes";
            errors.push(FieldError::invalid(path.child("expirationSeconds"), seconds, message));
        }
        if seconds > TOKEN_SECONDS.1 {
            let message = "may not specify a duration larger than 2^32 seconds";
            errors.push(FieldError::invalid(path.child("expirationSeconds"), seconds, message));
        }
    }
}

fn validate_update(driver: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(driver);
    let path = Path::root("spec");
    for (key, shown) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")] {
        let of = |object| at(object, "spec").and_then(|spec| at(spec, key));
        immutable(&mut errors, path.child(shown), of(driver), of(old));
    }
    errors
}
