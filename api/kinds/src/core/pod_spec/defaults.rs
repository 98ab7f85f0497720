//! Defaults of a pod spec that depend on other values. Constants are in the table of types; what upstream does to pods
//! and not to templates is in `core/pod.rs`.

use meta::Quantity;
use serde_json::{Map, Value, json};

use crate::value::{at_mut, default_to, items_mut, text};

/// The three lists of containers of a pod spec.
pub(crate) const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Fills the spec at `path` of `object`, when there is one.
pub(crate) fn spec_at(object: &mut Value, path: &str) {
    if let Some(spec) = at_mut(object, path) {
        spec_defaults(spec);
    }
}

/// Fills one pod spec.
pub(crate) fn spec_defaults(spec: &mut Value) {
    service_account(spec);
    items_mut(spec, "volumes").for_each(volume);
    for list in CONTAINERS {
        items_mut(spec, list).for_each(container);
    }
    if let Some(Value::Object(overhead)) = spec.get_mut("overhead") {
        round_up_to_milli(overhead);
    }
}

/// The old name of the field follows the new one, which it stands in for when only it is set.
fn service_account(spec: &mut Value) {
    let name = match (text(spec, "serviceAccountName"), text(spec, "serviceAccount")) {
        ("", old) => old.to_owned(),
        (new, _) => new.to_owned(),
    };
    if let (false, Some(map)) = (name.is_empty(), spec.as_object_mut()) {
        map.insert("serviceAccountName".to_owned(), name.clone().into());
        map.insert("serviceAccount".to_owned(), name.into());
    }
}

/// A volume without a source is an empty directory.
fn volume(volume: &mut Value) {
    let Some(map) = volume.as_object_mut() else { return };
    if map.iter().all(|(key, value)| key == "name" || value.is_null()) {
        map.insert("emptyDir".to_owned(), json!({}));
    }
    if let Some(Value::Object(image)) = map.get_mut("image") {
        let reference = image.get("reference").and_then(Value::as_str).unwrap_or("");
        let policy = pull_policy(reference);
        default_to(image, "pullPolicy", policy);
    }
}

fn container(container: &mut Value) {
    let Some(map) = container.as_object_mut() else { return };
    let image = map.get("image").and_then(Value::as_str).unwrap_or("");
    let policy = pull_policy(image);
    default_to(map, "imagePullPolicy", policy);
    if let Some(Value::Object(resources)) = map.get_mut("resources") {
        for list in ["limits", "requests"] {
            if let Some(Value::Object(list)) = resources.get_mut(list) {
                round_up_to_milli(list);
            }
        }
    }
}

/// `Always` for the tag latest, named or implied, else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    if tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// The tag of an image reference, `latest` when it has neither tag nor digest. None when it is no reference.
fn tag(image: &str) -> Option<&str> {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match name[start..].find(':') {
        Some(colon) => (&name[..start + colon], Some(&name[start + colon + 1..])),
        None => (name, None),
    };
    let first = repository.split('/').next().unwrap_or("");
    let has_domain = repository.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let path = if has_domain { repository.split_once('/').map_or("", |(_, path)| path) } else { repository };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-' | b'/');
    if path.is_empty() || !path.bytes().all(plain) {
        return None;
    }
    match tag {
        Some(tag) => Some(tag),
        None if digest => None,
        None => Some("latest"),
    }
}

/// Upstream keeps amounts in thousandths at the finest.
pub(crate) fn round_up_to_milli(list: &mut Map<String, Value>) {
    for value in list.values_mut() {
        let Some(quantity) = value.as_str().and_then(|s| s.parse::<Quantity>().ok()) else { continue };
        if quantity.nanos() % 1_000_000 != 0 {
            *value = Quantity::from_milli(quantity.milli()).to_string().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        let digest = "nginx@sha256:0000000000000000000000000000000000000000000000000000000000000000";
        for (image, want) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("localhost:5000/a/b", "Always"),
            ("localhost:5000/a/b:v1", "IfNotPresent"),
            (digest, "IfNotPresent"),
            ("", "IfNotPresent"),
            ("Nginx", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), want, "{image}");
        }
    }

    #[test]
    fn specs_get_their_dependent_defaults() {
        let mut spec = json!({"serviceAccount": "a", "volumes": [{"name": "v"}],
            "containers": [{"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "100u"}}}]});
        spec_defaults(&mut spec);
        assert_eq!(spec["serviceAccountName"], "a");
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(spec["containers"][0]["resources"]["requests"]["cpu"], "1m");
    }
}
