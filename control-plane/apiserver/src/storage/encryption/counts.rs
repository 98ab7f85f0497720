//! Metrics of encryption, with upstream's names and labels: what was sealed and opened, by resource and provider, and how
//! often the configuration was loaded again. Resources that nothing is said of aren't counted, as upstream's aren't; a value
//! is counted once, by its provider, where upstream counts it once more by its key's name.

use telemetry::{Counter, Family, Registry};

use super::cipher::{ENCRYPTED, Transformers};
use super::config::resource_of;
use crate::storage::KeyValue;

pub struct Counts {
    operations: Family<Counter, 4>,
    reloads: Family<Counter, 1>,
}

impl Counts {
    pub fn declare(r: &Registry) -> Counts {
        let labels = ["resource", "status", "transformation_type", "transformer_prefix"];
        let name = "apiserver_storage_transformation_operations_total";
        let operations = r.counter(name, "Values that were sealed and opened.", labels);
        let name = "apiserver_encryption_config_controller_automatic_reloads_total";
        let reloads = r.counter(name, "How often the encryption configuration was loaded again.", ["status"]);
        Counts { operations, reloads }
    }

    pub fn reloaded(&self, well: bool) {
        self.reloads.with([if well { "success" } else { "failure" }]).inc();
    }

    pub fn sealed(&self, root: &str, key: &[u8], providers: &Transformers, well: bool) {
        if let Some(first) = providers.0.first() {
            self.count(root, key, "to_storage", provider(&first.prefix).unwrap_or_default(), well);
        }
    }

    pub fn opened(&self, root: &str, stored: &KeyValue, providers: &Transformers, well: bool) {
        if providers.0.is_empty() {
            return;
        }
        let provider = match provider(&stored.value) {
            Some(provider) if providers.0.iter().any(|one| one.prefix.starts_with(provider.as_bytes())) => provider,
            None if well => "identity",
            _ => "unknown",
        };
        self.count(root, &stored.key, "from_storage", provider, well);
    }

    fn count(&self, root: &str, key: &[u8], way: &str, provider: &str, well: bool) {
        let Some((group, resource)) = resource_of(root, key) else { return };
        let status = if well { "OK" } else { "Unknown" };
        if group.is_empty() {
            return self.operations.with([resource, status, way, provider]).inc();
        }
        self.operations.with([&format!("{resource}.{group}"), status, way, provider]).inc();
    }
}

/// `k8s:enc:secretbox:v1:` of what begins with that and a key's name.
fn provider(stored: &[u8]) -> Option<&str> {
    let rest = stored.strip_prefix(ENCRYPTED)?;
    let mut colons = rest.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at + 1);
    let length = ENCRYPTED.len() + colons.nth(1)?;
    std::str::from_utf8(stored.get(..length)?).ok()
}
