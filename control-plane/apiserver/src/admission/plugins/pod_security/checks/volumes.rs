//! Volumes: nothing of the node's own files, and for the restricted standard nothing but what the cluster provides.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Names, Pod, Violation, plural, quoted, text, violation};

/// Sources that hold nothing but the pod's own and the cluster's data.
const RESTRICTED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn named<'a>(volumes: impl Iterator<Item = &'a Value>) -> Names {
    Names(volumes.map(|volume| text(volume, "name").to_owned()).collect())
}

pub fn host_path(pod: &Pod<'_>) -> Option<Violation> {
    let volumes = named(pod.volumes().filter(|volume| volume["hostPath"].is_object()));
    if volumes.0.is_empty() { None } else { violation("hostPath volumes", volumes.shown("volume")) }
}

/// What a volume is made of.
fn source(volume: &Value) -> &str {
    let fields = volume.as_object().into_iter().flatten();
    let mut sources = fields.filter(|(field, value)| *field != "name" && value.is_object());
    sources.next().map_or("unknown", |(field, _)| field.as_str())
}

pub fn restricted(pod: &Pod<'_>) -> Option<Violation> {
    let wrong = || pod.volumes().filter(|volume| !RESTRICTED.contains(&source(volume)));
    let (volumes, sources) = (named(wrong()), wrong().map(source).collect::<BTreeSet<&str>>());
    if volumes.0.is_empty() {
        return None;
    }
    let uses = if volumes.0.len() == 1 { "uses" } else { "use" };
    let types = plural("type", sources.len());
    let detail = format!("{} {uses} restricted volume {types} {}", volumes.shown("volume"), quoted(&sources));
    violation("restricted volume types", detail)
}
