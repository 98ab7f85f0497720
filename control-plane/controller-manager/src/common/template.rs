//! Pods from templates, and what tells one template from another: equality that ignores what the server may add or
//! leave empty, and a stable hash in upstream's safe alphabet.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::Value;

pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Longest prefix to which the server can append its random suffix within a DNS label chain.
const LONGEST_NAME: usize = 253;

/// A pod of the template, in `namespace`, managed by `owner`; its name starts with `owner_name-`.
pub fn pod(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some(name_prefix(&owner.name)),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// `name-`, or the name alone when that would be too long.
pub fn name_prefix(name: &str) -> String {
    if name.len() < LONGEST_NAME { format!("{name}-") } else { name.to_owned() }
}

/// The two templates ask for the same pods; the hash label of revisions doesn't count.
pub fn same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a == b || unlabelled(a) == unlabelled(b)
}

fn unlabelled(template: &PodTemplateSpec) -> Value {
    let mut value = plain(template);
    let labels = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut);
    if let Some(labels) = labels {
        labels.remove(POD_TEMPLATE_HASH);
    }
    prune(&mut value);
    value
}

/// The two say the same to the API, whatever the server leaves out or spells out. Every decision to write asks this:
/// a difference that the server does not keep would be written for ever.
pub fn equal<T: Serialize + PartialEq>(a: &T, b: &T) -> bool {
    a == b || plain(a) == plain(b)
}

fn plain<T: Serialize>(object: &T) -> Value {
    let mut value = serde_json::to_value(object).expect("API types serialize to JSON");
    prune(&mut value);
    value
}

/// Drops nulls and empty lists, maps and strings: to the API they are the same as being absent.
fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, v| !is_nothing(v));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// A short hash of a template, different for each collision count.
pub fn hash<T: Serialize>(template: &T, collisions: Option<i32>) -> String {
    let mut bytes = serde_json::to_vec(template).expect("API types serialize to JSON");
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    safe(&fnv32a(&bytes).to_string())
}

pub fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

/// Letters and digits that make no words, as upstream's names have.
pub fn safe(text: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|b| ALPHABET[usize::from(b) % ALPHABET.len()] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_stable_safe_and_moves_with_collisions() {
        let template = PodTemplateSpec::default();
        assert_eq!(hash(&template, None), hash(&template, None));
        assert_ne!(hash(&template, None), hash(&template, Some(1)));
        assert_eq!(fnv32a(b""), 2_166_136_261);
        assert_eq!(safe("0123456789"), "456789bcdf");
    }

    #[test]
    fn the_hash_label_and_empty_fields_make_no_difference() {
        let mut a = PodTemplateSpec::default();
        let mut b = PodTemplateSpec { metadata: Some(ObjectMeta::default()), spec: None };
        b.metadata.get_or_insert_default().labels = Some([(POD_TEMPLATE_HASH.to_owned(), "x".to_owned())].into());
        assert!(same(&a, &b));
        a.metadata =
            Some(ObjectMeta { labels: Some([("a".to_owned(), "b".to_owned())].into()), ..ObjectMeta::default() });
        assert!(!same(&a, &b));
    }
}
