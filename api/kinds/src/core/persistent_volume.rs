//! `persistentvolumes`.

use jiff::Timestamp;
use meta::{FieldError, Path, Quantity, names};
use serde_json::Value;

use crate::check::{Errors, no_backsteps, present};
use crate::core::persistent_volume_claim::access_modes_valid;
use crate::core::persistent_volume_claim::{OLD_ANNOTATIONS, old_annotations};
use crate::core::pod_spec::affinity::node_selector;
use crate::core::pod_spec::volume::{csi_driver, shared_source};
use crate::hooks::{Context, Hooks};
use crate::kind::{Column, Kind};
use crate::print::{access_modes, age, name, storage_class, text_or};
use crate::value::{at, items, map, same, set, text};

/// The row of the table.
pub(crate) fn kind() -> Kind {
    Kind::cluster_row("", "v1", "PersistentVolume", "persistentvolumes")
        .short(&["pv"])
        .status()
        .columns(vec![
            Column::name(),
            Column::text("Capacity"),
            Column::text("Access Modes"),
            Column::text("Reclaim Policy"),
            Column::text("Status"),
            Column::text("Claim"),
            Column::text("StorageClass"),
            Column::text("VolumeAttributesClass"),
            Column::text("Reason"),
            Column::text("Age"),
            Column::text("VolumeMode").wide(),
        ])
        .hooks(Hooks { row, prepare_create, prepare_status, validate, validate_update, warnings, ..Hooks::NONE })
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let claim = at(object, "spec.claimRef").map(|c| format!("{}/{}", text(c, "namespace"), text(c, "name")));
    let deleting = at(object, "metadata.deletionTimestamp").is_some();
    vec![
        name(object),
        text_or(object, "spec.capacity.storage", "0"),
        access_modes(object, "spec.accessModes").into(),
        text(object, "spec.persistentVolumeReclaimPolicy").into(),
        if deleting { "Terminating" } else { text(object, "status.phase") }.into(),
        claim.unwrap_or_default().into(),
        storage_class(object).into(),
        text_or(object, "spec.volumeAttributesClassName", "<unset>"),
        text(object, "status.reason").into(),
        age(object, now),
        text_or(object, "spec.volumeMode", "<unset>"),
    ]
}

/// The phase counts from now.
fn prepare_create(volume: &mut Value, context: &Context) {
    set(volume, "status.phase", "Pending");
    set(volume, "status.lastPhaseTransitionTime", meta::time::format(context.now));
}

/// A new phase counts from now; the same phase keeps its time.
fn prepare_status(volume: &mut Value, old: &Value, context: &Context) {
    const TIME: &str = "status.lastPhaseTransitionTime";
    let same_phase = text(volume, "status.phase") == text(old, "status.phase");
    match (same_phase, text(volume, TIME)) {
        (true, "") if !text(old, TIME).is_empty() => set(volume, TIME, text(old, TIME)),
        (false, time) if time.is_empty() || time == text(old, TIME) => {
            set(volume, TIME, meta::time::format(context.now));
        }
        _ => {}
    }
}

const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn validate(volume: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::root("spec");
    let spec = at(volume, "spec").unwrap_or(&Value::Null);
    if items(spec, "accessModes").is_empty() {
        errors.push(FieldError::required(path.child("accessModes"), ""));
    }
    access_modes_valid(&mut errors, path, spec);
    capacity(&mut errors, path.child("capacity"), spec);
    let policies = ["Delete", "Recycle", "Retain"];
    crate::check::one_of_if_set(&mut errors, &path, spec, "persistentVolumeReclaimPolicy", &policies);
    let affinity = path.child("nodeAffinity");
    match (at(spec, "nodeAffinity"), at(spec, "nodeAffinity.required")) {
        (Some(_), None) => {
            errors.push(FieldError::required(affinity.child("required"), "must specify required node constraints"));
        }
        (_, Some(selector)) => node_selector(&mut errors, affinity.child("required"), selector),
        (None, None) => {}
    }
    sources(&mut errors, path, spec);
    if text(spec, "hostPath.path") == "/" && text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        let message = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(path.child("persistentVolumeReclaimPolicy"), message));
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        crate::check::follows(&mut errors, path.child("storageClassName"), class, names::dns1123_subdomain);
    }
    crate::check::one_of_if_set(&mut errors, &path, spec, "volumeMode", &["Block", "Filesystem"]);
    errors
}

fn capacity(errors: &mut Errors, path: Path, spec: &Value) {
    let capacity = map(spec, "capacity").filter(|c| !c.is_empty());
    if capacity.is_none() {
        errors.push(FieldError::required(path, ""));
    }
    if capacity.is_none_or(|c| !c.contains_key("storage") || c.len() > 1) {
        let value = capacity.cloned().map_or(Value::Null, Value::Object);
        errors.push(FieldError::not_supported(path, value, ["storage"]));
    }
    for (name, amount) in capacity.into_iter().flatten() {
        let amount = amount.as_str().and_then(|a| a.parse::<Quantity>().ok()).unwrap_or_default();
        if amount.sign() < 0 {
            // Upstream prints the bare amount here.
            let bare = serde_json::from_str::<Value>(&amount.to_string()).unwrap_or_else(|_| amount.to_string().into());
            errors.push(FieldError::invalid(path.key(name), bare, "must be a valid resource quantity"));
        }
        if amount.sign() <= 0 {
            errors.push(FieldError::invalid(path.key(name), amount.to_string(), "must be greater than zero"));
        }
    }
}

fn sources(errors: &mut Errors, path: Path, spec: &Value) {
    let mut found = 0;
    for name in SOURCES {
        let Some(source) = at(spec, name) else { continue };
        found += 1;
        let source_path = path.child(name);
        if found > 1 {
            errors.push(FieldError::forbidden(source_path, "may not specify more than 1 volume type"));
            continue;
        }
        match name {
            "local" => {
                if present(errors, &source_path, source, "path") {
                    no_backsteps(errors, source_path.child("path"), text(source, "path"));
                }
                if at(spec, "nodeAffinity").is_none() {
                    errors
                        .push(FieldError::required(path.child("nodeAffinity"), "Local volume requires node affinity"));
                }
            }
            "csi" => {
                csi_driver(errors, source_path.child("driver"), text(source, "driver"));
                present(errors, &source_path, source, "volumeHandle");
            }
            shared => shared_source(errors, source_path, shared, source),
        }
    }
    if found == 0 {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

fn validate_update(volume: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate(volume);
    let source = |v: &Value| SOURCES.iter().filter_map(|s| at(v, &format!("spec.{s}")).cloned()).collect::<Vec<_>>();
    if source(volume) != source(old) {
        let message = "spec.persistentvolumesource is immutable after creation\n";
        errors.push(FieldError::forbidden("spec.persistentvolumesource", message));
    }
    let mode = |v| at(v, "spec.volumeMode");
    crate::check::immutable(&mut errors, Path::root("volumeMode"), mode(volume), mode(old));
    let affinity = |v| at(v, "spec.nodeAffinity");
    if affinity(old).is_some() && !same(affinity(volume), affinity(old)) {
        let value = affinity(volume).cloned().unwrap_or_default();
        errors.push(FieldError::invalid("nodeAffinity", value, crate::check::IMMUTABLE));
    }
    errors
}

fn warnings(volume: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = old_annotations(volume, &OLD_ANNOTATIONS);
    if text(volume, "spec.persistentVolumeReclaimPolicy") == "Recycle" {
        let why = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
        warnings.push(format!("spec.persistentVolumeReclaimPolicy: {why}"));
    }
    let size = text(volume, "spec.capacity.storage");
    if super::pod_spec::warnings::fractional(size) {
        warnings.push(format!("spec.capacity[storage]: fractional byte value {size:?} is invalid, must be an integer"));
    }
    warnings
}
