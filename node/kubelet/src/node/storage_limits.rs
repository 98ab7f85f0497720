//! Pods that keep more on the node's disk than they may: an emptyDir volume, a container, all of it together. Pure but
//! for [`measure`], which does I/O; [`crate::daemon::housekeeping`] ends them.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use linux::disk_usage;

use crate::pod::pods;
use crate::pod::resources;
use crate::pod::verdict::Verdict;
use crate::volumes::{EMPTY_DIR, HOSTS_FILE, TERMINATION_FILES};

const STORAGE: &str = "ephemeral-storage";

/// Bytes that a pod keeps on the node's disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Used {
    /// By emptyDir volume.
    pub volumes: BTreeMap<String, u64>,
    /// By container: what it wrote into its root, its logs and its termination messages.
    pub containers: BTreeMap<String, u64>,
    /// The files that all containers of the pod have mounted: /etc/hosts (CVE-2020-8557).
    pub shared: u64,
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

/// What a pod keeps now, given what the runtime says of its containers' layers (host name and resolver's settings, which
/// are the runtime's files, included).
pub fn measure(pod: &Pod, pod_dir: &Path, logs: &Path, layers: BTreeMap<String, u64>) -> Used {
    let messages = pod_dir.join(TERMINATION_FILES);
    let mut containers = layers;
    for (_, container) in pods::containers(pod) {
        let files = disk_usage::of(&logs.join(&container.name)) + disk_usage::of(&messages.join(&container.name));
        *containers.entry(container.name).or_default() += files;
    }
    Used {
        volumes: on_disk(pod).map(|v| (v.name.clone(), disk_usage::of(&EMPTY_DIR.path(pod_dir, v)))).collect(),
        containers,
        shared: disk_usage::of(&pod_dir.join(HOSTS_FILE)),
    }
}

/// Why the pod has to go, if it has: in upstream's order and words.
pub fn exceeded(pod: &Pod, used: &Used) -> Option<Verdict> {
    let volumes = on_disk(pod).find_map(|volume| {
        let limit = size_limit(volume)?;
        let over = used.volumes.get(&volume.name).copied().unwrap_or(0) > bytes(limit);
        over.then(|| format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", volume.name, limit.0))
    });
    let whole = || {
        let limit = u64::try_from(resources::limits(pod).ephemeral_storage).ok().filter(|limit| *limit > 0)?;
        let total: u64 = used.volumes.values().chain(used.containers.values()).chain([&used.shared]).sum();
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
        let used = Used { volumes: map(volumes), containers: map(containers), shared: 0 };
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
        let hosts = Used { shared: (2 << 20) + 1, ..Used::default() };
        assert_eq!(exceeded(&pod(), &hosts).map(|verdict| verdict.message).unwrap_or_default(), whole);
    }

    #[test]
    fn what_a_pod_writes_into_its_hosts_file_and_termination_messages_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (pod_dir, logs) = (dir.path().join("pod"), dir.path().join("logs"));
        std::fs::create_dir_all(pod_dir.join(TERMINATION_FILES).join("a")).unwrap();
        std::fs::create_dir_all(logs.join("b")).unwrap();
        let big = vec![1u8; (2 << 20) + 1];
        let measured = || measure(&pod(), &pod_dir, &logs, BTreeMap::from([("a".into(), 1), ("b".into(), 1)]));
        assert_eq!(exceeded(&pod(), &measured()), None);
        std::fs::write(pod_dir.join(HOSTS_FILE), &big).unwrap();
        assert!(measured().shared > 2 << 20 && exceeded(&pod(), &measured()).is_some());
        std::fs::remove_file(pod_dir.join(HOSTS_FILE)).unwrap();
        std::fs::write(pod_dir.join(TERMINATION_FILES).join("a/01234567"), &big).unwrap();
        assert!(measured().containers["a"] > 2 << 20 && exceeded(&pod(), &measured()).is_some());
        std::fs::remove_dir_all(&pod_dir).unwrap();
        std::fs::write(logs.join("b/0.log"), &big).unwrap();
        assert!(measured().containers["b"] > 2 << 20 && exceeded(&pod(), &measured()).is_some());
    }
}
