//! Pods that keep more on the node's disk than they may: an emptyDir volume, a container, all of it together. Pure;
//! [`crate::housekeeping`] measures and ends them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::worker::Verdict;
use crate::{pods, resources};

const STORAGE: &str = "ephemeral-storage";

/// Bytes that a pod keeps on the node's disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Used {
    /// By emptyDir volume.
    pub volumes: BTreeMap<String, u64>,
    /// By container: what it wrote into its root and its logs.
    pub containers: BTreeMap<String, u64>,
}

/// The emptyDir volumes of a pod that are on disk.
pub fn on_disk(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let in_memory = |volume: &Volume| volume.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref() == Some("Memory"));
    pods::spec(pod).volumes.iter().flatten().filter(move |v| v.empty_dir.is_some() && !in_memory(v))
}

/// Whether there is a limit to watch.
pub fn limited(pod: &Pod) -> bool {
    let volumes = on_disk(pod).any(|volume| size_limit(volume).is_some());
    volumes || pods::containers(pod).iter().any(|(_, container)| limit_of(container).is_some())
}

fn size_limit(volume: &Volume) -> Option<&Quantity> {
    volume.empty_dir.as_ref()?.size_limit.as_ref().filter(|limit| bytes(limit) > 0)
}

fn limit_of(container: &k8s_openapi::api::core::v1::Container) -> Option<&Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(STORAGE)
}

fn bytes(quantity: &Quantity) -> u64 {
    quantity.0.parse::<meta::Quantity>().ok().and_then(|q| u64::try_from(q.value()).ok()).unwrap_or(0)
}

/// Why the pod has to go, if it has: in upstream's order and words.
pub fn exceeded(pod: &Pod, used: &Used) -> Option<Verdict> {
    let volumes = on_disk(pod).find_map(|volume| {
        let limit = size_limit(volume)?;
        let over = used.volumes.get(&volume.name).copied().unwrap_or(0) > bytes(limit);
        over.then(|| format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", volume.name, limit.0))
    });
    let whole = || {
        let limit = u64::try_from(resources::of_pod(pod, true).get(STORAGE).copied()? / 1000).ok()?;
        let total: u64 = used.volumes.values().chain(used.containers.values()).sum();
        let shown = meta::Quantity::binary(i64::try_from(limit).unwrap_or(i64::MAX));
        (total > limit)
            .then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {shown}. "))
    };
    let containers = || {
        pods::containers(pod).iter().find_map(|(_, container)| {
            let limit = limit_of(container)?;
            let over = used.containers.get(&container.name).copied().unwrap_or(0) > bytes(limit);
            let text =
                || format!("Container {} exceeded its local ephemeral storage limit \"{}\". ", container.name, limit.0);
            over.then(text)
        })
    };
    let message = volumes.or_else(whole).or_else(containers)?;
    Some(Verdict { reason: "Evicted".to_owned(), message, disruption: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        let limits = json!({"limits": {"ephemeral-storage": "1Mi"}});
        serde_json::from_value(json!({"spec": {
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "64Ki"}}, {"name": "free", "emptyDir": {}},
                {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Ki"}}],
            "containers": [{"name": "a", "resources": limits}, {"name": "b", "resources": limits}]}}))
        .unwrap()
    }

    fn says(volumes: &[(&str, u64)], containers: &[(&str, u64)]) -> String {
        let map = |list: &[(&str, u64)]| list.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect();
        let used = Used { volumes: map(volumes), containers: map(containers) };
        exceeded(&pod(), &used).map(|verdict| verdict.message).unwrap_or_default()
    }

    #[test]
    fn each_limit_is_watched() {
        assert!(limited(&pod()) && !limited(&Pod::default()));
        assert_eq!(says(&[("v", 64 << 10)], &[("a", 1 << 20)]), "");
        assert_eq!(says(&[("v", 65 << 10)], &[]), "Usage of EmptyDir volume \"v\" exceeds the limit \"64Ki\". ");
        let container = "Container a exceeded its local ephemeral storage limit \"1Mi\". ";
        assert_eq!(says(&[], &[("a", (1 << 20) + 1)]), container);
        let whole = "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ";
        assert_eq!(says(&[("free", 1 << 20)], &[("a", 1 << 20), ("b", 1)]), whole);
    }
}
