//! The groups above those of pods: `kubepods` may use what is not reserved, and its two classes have their weights, as
//! upstream's container manager sets them. Guaranteed pods stand beside the classes.
//!
//! ```text
//! kubepods             memory and CPU of the node without what is reserved
//! ├── pod…             guaranteed: its own requests
//! ├── burstable        the sum of its pods' requests
//! │   └── pod…
//! └── besteffort       the least there is
//! ```
//!
//! I/O: writes to the control groups. Callers: the daemon at its start, housekeeping while pods come and go.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;
use linux::cgroup::{Cgroups, Group, Limits};
use linux::failure::Failure;

use crate::config::Config;
use crate::node::machine::Machine;
use crate::pod::resources;

/// The three groups of a node.
#[derive(Debug)]
pub struct Classes {
    burstable: Group,
    /// What burstable pods weigh now.
    shares: Option<i64>,
}

impl Classes {
    /// Makes the groups; none where pods have no groups of their own.
    pub fn prepare(cgroups: Option<&Cgroups>, config: &Config, machine: &Machine) -> Result<Option<Classes>, Failure> {
        let (Some(cgroups), true) = (cgroups, config.cgroups_per_qos) else { return Ok(None) };
        let made = |path: &str| {
            let group = group(cgroups, config, path);
            group.create().map(|()| group)
        };
        made("kubepods")?.set(&whole(config, machine))?;
        made("kubepods/besteffort")?.set(&weight(resources::MIN_SHARES))?;
        Ok(Some(Classes { burstable: made("kubepods/burstable")?, shares: None }))
    }

    /// Weighs the class of burstable pods by those that are here now.
    pub fn weigh<'a>(&mut self, pods: impl Iterator<Item = &'a Pod>) -> Result<(), Failure> {
        let shares = burstable_shares(pods);
        if self.shares != Some(shares) {
            self.burstable.set(&weight(shares))?;
            self.shares = Some(shares);
        }
        Ok(())
    }
}

/// What a container's group of version 2 has beside its limits: it ends as a whole when one of its processes is killed
/// for memory, and it has no swap, also without a limit of memory (upstream's `NoSwap`). The older version can't.
pub fn container_files(cgroups: Option<&Cgroups>, config: &Config) -> HashMap<String, String> {
    let Some(cgroups) = cgroups.filter(|cgroups| cgroups.is_v2()) else { return HashMap::new() };
    let mut files = HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())]);
    if group(cgroups, config, "kubepods").limits_swap() {
        files.insert("memory.swap.max".to_owned(), "0".to_owned());
    }
    files
}

/// A group of this node, by its path below the root that the node has been given.
pub fn group(cgroups: &Cgroups, config: &Config, path: &str) -> Group {
    cgroups.group(&format!("{}/{path}", config.cgroup_root.trim_end_matches('/')))
}

fn weight(shares: i64) -> Limits {
    Limits { cpu_shares: u64::try_from(shares).ok(), ..Limits::default() }
}

fn burstable_shares<'a>(pods: impl Iterator<Item = &'a Pod>) -> i64 {
    let burstable = pods.filter(|pod| resources::qos(pod) == "Burstable");
    resources::shares(burstable.map(|pod| resources::requests(pod).milli_cpu).sum())
}

/// What all pods together may use: without what eviction keeps free, or there would be nothing to evict for.
fn whole(config: &Config, machine: &Machine) -> Limits {
    let memory = i64::try_from(machine.memory).unwrap_or(i64::MAX).saturating_sub(config.reserved("memory") / 1000);
    let milli_cpu =
        i64::try_from(machine.cpus).unwrap_or(i64::MAX / 1000).saturating_mul(1000) - config.reserved("cpu");
    Limits { memory: Some(memory).filter(|bytes| *bytes > 0), ..weight(resources::shares(milli_cpu)) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use serde_json::json;

    fn pod(resources: serde_json::Value) -> Pod {
        let container = json!({"name": "c", "resources": resources});
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}})).unwrap()
    }

    #[test]
    fn the_burstable_class_weighs_what_its_pods_ask_for() {
        let pods = [
            pod(json!({"requests": {"cpu": "500m"}})),
            pod(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})),
            pod(json!({"limits": {"cpu": "3", "memory": "1Gi"}})),
            pod(json!({})),
        ];
        assert_eq!(burstable_shares(pods.iter()), 1536, "neither the guaranteed nor the best-effort pod counts");
        assert_eq!(burstable_shares([].iter()), 2);
    }

    #[test]
    fn all_pods_together_leave_what_is_reserved() {
        let machine = Machine { cpus: 4, memory: 8 << 30, ..Machine::read() };
        let mut config = Config::new("node");
        let all = whole(&config, &machine);
        assert_eq!((all.cpu_shares, all.memory), (Some(4096), Some(8 << 30)));
        config.kube_reserved = BTreeMap::from([("cpu".into(), "500m".into()), ("memory".into(), "1Gi".into())]);
        config.system_reserved = BTreeMap::from([("cpu".into(), "500m".into())]);
        let left = whole(&config, &machine);
        assert_eq!((left.cpu_shares, left.memory), (Some(3072), Some(7 << 30)));
    }
}
