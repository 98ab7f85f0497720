//! What the API's documentation says of each type and field: the words of `kubectl explain`. Taken from the typed crate
//! when this one is built, kept compressed, unpacked when the first OpenAPI document is written. Called by OpenAPI.

#![warn(missing_docs)]

use std::collections::HashMap;
use std::io::Read;
use std::sync::LazyLock;

/// Lines of `definition TAB field TAB words`; the words of the definition itself stand under an empty field.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.gz"));

/// Words by definition, then by field.
static WORDS: LazyLock<HashMap<&'static str, HashMap<&'static str, String>>> = LazyLock::new(|| {
    let mut text = String::new();
    let mut words: HashMap<_, HashMap<_, _>> = HashMap::new();
    // The bytes are this crate's own: they unpack, or the test below fails.
    if flate2::read::GzDecoder::new(PACKED).read_to_string(&mut text).is_err() {
        return words;
    }
    let text: &'static str = text.leak();
    for line in text.lines() {
        let mut parts = line.splitn(3, '\t');
        if let (Some(definition), Some(field), Some(said)) = (parts.next(), parts.next(), parts.next()) {
            words.entry(definition).or_default().insert(field, said.replace("\\n", "\n"));
        }
    }
    words
});

/// What is said of a type by its published name, as `io.k8s.api.core.v1.Pod`.
pub fn of_type(definition: &str) -> Option<&'static str> {
    of_field(definition, "")
}

/// What is said of a field of a type.
pub fn of_field(definition: &str, field: &str) -> Option<&'static str> {
    WORDS.get(definition)?.get(field).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_of_every_depth_have_words() {
        for (definition, field) in [
            ("io.k8s.api.core.v1.Pod", ""),
            ("io.k8s.api.core.v1.PodSpec", "containers"),
            ("io.k8s.api.core.v1.SeccompProfile", "type"),
            ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers"),
            ("io.k8s.api.rbac.v1.PolicyRule", "verbs"),
            ("io.k8s.api.resource.v1.DeviceClassSpec", "selectors"),
        ] {
            assert!(of_field(definition, field).is_some_and(|words| words.len() > 10), "{definition} {field}");
        }
        assert_eq!(of_field("io.k8s.api.core.v1.Pod", "nonsense"), None);
    }
}
