//! `EncryptionConfiguration` of apiserver.config.k8s.io/v1: which resources are encrypted with which keys. Pure. Refusals
//! are upstream's.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::cipher::{Cipher, Transformer, Transformers};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EncryptionConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<ResourceConfiguration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceConfiguration {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Provider {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    /// `identity: {}`.
    identity: Option<serde_json::Map<String, serde_json::Value>>,
    kms: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

/// Group and resource; `*` for all of them.
type GroupResource = (String, String);

/// The keys of each resource.
#[derive(Default)]
pub struct Resources {
    by_resource: HashMap<GroupResource, Transformers>,
    /// For resources that nothing is said of.
    plain: Transformers,
}

const AES_KEYS: &[usize] = &[16, 24, 32];
const SECRETBOX_KEYS: &[usize] = &[32];

/// What is wrong with a value, without the value: it may be a key, and this goes to the log.
fn without_values(error: &str) -> String {
    match (error.find('"'), error.rfind('"')) {
        (Some(from), Some(to)) if from < to => format!("{}{}", error[..from].trim_end(), &error[to + 1..]),
        _ => error.to_owned(),
    }
}

impl Resources {
    pub fn parse(file: &[u8]) -> Result<Resources, String> {
        let value = codec::yaml::decode(file, codec::json::Form::Any)
            .and_then(codec::json::Decoded::into_strict)
            .map_err(|error| error.to_string())?;
        let config: EncryptionConfiguration =
            serde_json::from_value(value).map_err(|error| without_values(&error.to_string()))?;
        if (config.api_version.as_str(), config.kind.as_str())
            != ("apiserver.config.k8s.io/v1", "EncryptionConfiguration")
        {
            let (version, kind) = (config.api_version, config.kind);
            return Err(format!(
                "no kind {kind:?} is registered for version {version:?}: it is an EncryptionConfiguration of apiserver.config.k8s.io/v1"
            ));
        }
        if config.resources.is_empty() {
            return Err("resources: Required value: at least one resources is required".to_owned());
        }
        let mut resources = Resources::default();
        for (at, part) in config.resources.into_iter().enumerate() {
            let path = format!("resources[{at}]");
            check_names(&path, &part.resources)?;
            if part.providers.is_empty() {
                return Err(format!("{path}.providers: Required value: at least one {path}.providers is required"));
            }
            for name in &part.resources {
                let resource = group_resource(name);
                // What an earlier part says of all of a group, or of all, covers this.
                let all = [(resource.0.clone(), "*".to_owned()), ("*".to_owned(), "*".to_owned())];
                if all.iter().any(|all| resources.by_resource.contains_key(all)) {
                    continue;
                }
                // Each resource has ciphers of its own: they are small, and keys are never shared by accident.
                let more = transformers(&path, &part.providers)?;
                resources.by_resource.entry(resource).or_default().0.extend(more);
            }
        }
        Ok(resources)
    }

    /// The keys of what is stored under a key below `root`.
    pub fn of(&self, root: &str, key: &[u8]) -> &Transformers {
        let Some((group, resource)) = resource_of(root, key) else { return &self.plain };
        let named = |group: &str, resource: &str| self.by_resource.get(&(group.to_owned(), resource.to_owned()));
        named(group, resource).or_else(|| named(group, "*")).or_else(|| named("*", "*")).unwrap_or(&self.plain)
    }
}

/// `deployments.apps`, `*.apps`, `*.` and `secrets`.
fn group_resource(name: &str) -> GroupResource {
    let (resource, group) = name.split_once('.').unwrap_or((name, ""));
    (group.to_owned(), resource.to_owned())
}

/// Group and resource of each built-in prefix, without the root and its slash.
static BUILT_IN: LazyLock<HashMap<&'static str, (&'static str, &'static str)>> = LazyLock::new(|| {
    let stored = kinds::ALL.iter().filter_map(|kind| Some((kind, kind.storage.as_ref()?)));
    let named = stored.filter_map(|(kind, storage)| {
        Some((storage.prefix.strip_prefix("/registry/")?, (&*storage.kind.group, &*kind.plural)))
    });
    named.collect()
});

/// What a key is of: the built-in kind of that prefix, or the custom resource whose group is the first segment. Other
/// keys (allocations, leases of servers) are nobody's and stay plain, as upstream's do.
pub fn resource_of<'k>(root: &str, key: &'k [u8]) -> Option<(&'k str, &'k str)> {
    let key = std::str::from_utf8(key).ok()?.strip_prefix(root)?.strip_prefix('/')?;
    let (first, rest) = key.split_once('/')?;
    if let Some((second, _)) = rest.split_once('/') {
        let both = &key[..first.len() + 1 + second.len()];
        if let Some(found) = BUILT_IN.get(both) {
            return Some(*found);
        }
        if first.contains('.') && !BUILT_IN.contains_key(first) {
            return Some((first, second));
        }
    }
    BUILT_IN.get(first).copied()
}

fn transformers(path: &str, providers: &[Provider]) -> Result<Vec<Transformer>, String> {
    let mut all = Vec::new();
    for (at, provider) in providers.iter().enumerate() {
        let path = format!("{path}.providers[{at}]");
        let given = [
            provider.aesgcm.is_some(),
            provider.aescbc.is_some(),
            provider.secretbox.is_some(),
            provider.identity.is_some(),
            provider.kms.is_some(),
        ];
        match given.iter().filter(|given| **given).count() {
            0 => {
                return Err(format!(
                    "{path}: Required value: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
                ));
            }
            1 => {}
            _ => {
                return Err(format!(
                    "{path}: Invalid value: more than one provider specified in a single element, should split into different list elements"
                ));
            }
        }
        if provider.kms.is_some() {
            return Err(format!(
                "{path}.kms: Unsupported value: keys of a KMS plugin are not supported: use aesgcm, secretbox or aescbc"
            ));
        }
        let kinds = [
            ("aesgcm", &provider.aesgcm, AES_KEYS, Cipher::gcm as fn(&[u8]) -> Option<Cipher>),
            ("aescbc", &provider.aescbc, AES_KEYS, Cipher::cbc),
            ("secretbox", &provider.secretbox, SECRETBOX_KEYS, Cipher::secretbox),
        ];
        for (kind, keys, sizes, make) in kinds {
            if let Some(keys) = keys {
                all.extend(keyed(&format!("{path}.{kind}"), kind, keys, sizes, make)?);
            }
        }
        if let Some(identity) = &provider.identity {
            if let Some(field) = identity.keys().next() {
                return Err(format!("{path}.identity: unknown field {field:?}"));
            }
            all.push(Transformer { prefix: Vec::new(), cipher: Cipher::Identity });
        }
    }
    Ok(all)
}

fn keyed(
    path: &str,
    kind: &str,
    keys: &Keys,
    sizes: &[usize],
    make: fn(&[u8]) -> Option<Cipher>,
) -> Result<Vec<Transformer>, String> {
    if keys.keys.is_empty() {
        return Err(format!("{path}.keys: Required value: at least one {path}.keys is required"));
    }
    let mut all = Vec::new();
    for (at, key) in keys.keys.iter().enumerate() {
        let path = format!("{path}.keys[{at}]");
        for (field, value) in [("name", &key.name), ("secret", &key.secret)] {
            if value.is_empty() {
                return Err(format!("{path}.{field}: Required value: {field} is a mandatory field for a key"));
            }
        }
        // The secret is never repeated in an answer.
        let secret = STANDARD
            .decode(&key.secret)
            .map_err(|_| format!("{path}.secret: Invalid value: \"REDACTED\": secrets must be base64 encoded"))?;
        let cipher = make(&secret).filter(|_| sizes.contains(&secret.len())).ok_or_else(|| {
            let sizes = sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
            let length = secret.len();
            format!("{path}.secret: Invalid value: \"REDACTED\": secret is not of the expected length, got {length}, expected one of [{sizes}]")
        })?;
        all.push(Transformer { prefix: format!("k8s:enc:{kind}:v1:{}:", key.name).into_bytes(), cipher });
    }
    Ok(all)
}

/// What upstream refuses of names of resources.
fn check_names(path: &str, names: &[String]) -> Result<(), String> {
    if names.is_empty() {
        return Err(format!("{path}.resources: Required value: at least one {path}.resources is required"));
    }
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    for (at, name) in names.iter().enumerate() {
        let wrong = |why: &str| Err(format!("{path}.resources[{at}]: Invalid value: {name:?}: {why}"));
        let (group, resource) = group_resource(name);
        if name.is_empty() {
            return Err(format!("{path}.resources[{at}]: Required value: resource name should not be empty"));
        }
        if name.chars().any(char::is_uppercase) {
            return wrong("resource name should not contain capital letters");
        }
        if name.contains('/') {
            return wrong("resources which do not have REST API/s cannot be encrypted");
        }
        if name == "*" {
            return wrong("use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources");
        }
        if group == "extensions" {
            return wrong("'extensions' group has been removed and cannot be used for encryption");
        }
        if name == "*.events.k8s.io" || name == "events.events.k8s.io" {
            return wrong(
                "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
            );
        }
        if group == "*" && resource != "*" {
            return wrong("encrypting the same resource across groups is not supported");
        }
        if names[..at].contains(name) {
            return wrong("the same resource cannot be specified multiple times");
        }
        let covered = (name != "*.*" && has("*.*")) || (resource != "*" && has(&format!("*.{group}")));
        if covered {
            return wrong(
                "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
            );
        }
    }
    Ok(())
}
