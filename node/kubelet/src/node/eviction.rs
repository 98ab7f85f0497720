//! When the node is short of memory, disk or process numbers, and which pod goes first. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::config::{EvictionConfig, Threshold};
use crate::node::machine::Disk;
use crate::pod::pods;
use crate::pod::quantity;
use crate::pod::resources;
use crate::pod::verdict::Pressure;
use crate::pod::verdict::Verdict;

/// What was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reading {
    pub memory_available: u64,
    pub memory_capacity: u64,
    pub nodefs: Disk,
    pub imagefs: Disk,
    pub pids_available: u64,
    pub pids_capacity: u64,
}

/// What one pod uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    pub memory: u64,
    pub processes: u64,
    /// Working set by container, for the message.
    pub containers: BTreeMap<String, u64>,
    /// Bytes written into its root by container.
    pub layers: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Memory,
    EphemeralStorage,
    Inodes,
    Pids,
}

impl Resource {
    fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::EphemeralStorage => "ephemeral-storage",
            Resource::Inodes => "inodes",
            Resource::Pids => "pids",
        }
    }
}

/// A threshold that is crossed.
#[derive(Debug, Clone, PartialEq)]
pub struct Crossed {
    pub resource: Resource,
    pub threshold: u64,
    pub available: u64,
}

/// Thresholds that the reading crosses, memory first: it is what kills fastest.
pub fn crossed(config: &EvictionConfig, reading: &Reading) -> Vec<Crossed> {
    let r = reading;
    let signals = [
        ("memory.available", Resource::Memory, r.memory_available, r.memory_capacity),
        ("nodefs.available", Resource::EphemeralStorage, r.nodefs.available, r.nodefs.capacity),
        ("imagefs.available", Resource::EphemeralStorage, r.imagefs.available, r.imagefs.capacity),
        ("nodefs.inodesFree", Resource::Inodes, r.nodefs.inodes_free, r.nodefs.inodes),
        ("imagefs.inodesFree", Resource::Inodes, r.imagefs.inodes_free, r.imagefs.inodes),
        ("pid.available", Resource::Pids, r.pids_available, r.pids_capacity),
    ];
    let check = |(signal, resource, available, capacity): (&str, Resource, u64, u64)| {
        let threshold = match config.hard.get(signal)? {
            Threshold::Share(share) => (capacity as f64 * share) as u64,
            Threshold::Amount(amount) => *amount,
        };
        // A file system without a capacity counts no inodes (btrfs): it is never short of them.
        (capacity > 0 && available < threshold).then_some(Crossed { resource, threshold, available })
    };
    signals.into_iter().filter_map(check).collect()
}

/// Pressure goes on when a threshold is crossed and off when it was not for the transition period.
#[derive(Debug, Clone, Default)]
pub struct Manager {
    seen: BTreeMap<Resource, Timestamp>,
}

impl Manager {
    pub fn pressure(&mut self, config: &EvictionConfig, crossed: &[Crossed], now: Timestamp) -> Pressure {
        for c in crossed {
            self.seen.insert(c.resource, now);
        }
        let keep = SignedDuration::try_from(config.pressure_transition_period).unwrap_or(SignedDuration::ZERO);
        self.seen.retain(|_, at| now.duration_since(*at) < keep || *at == now);
        let on = |r: Resource| self.seen.contains_key(&r);
        Pressure {
            memory: on(Resource::Memory),
            disk: on(Resource::EphemeralStorage) || on(Resource::Inodes),
            pid: on(Resource::Pids),
        }
    }
}

/// The pod to end, and what it is told: above its request first, then low priority, then the largest excess.
pub fn victim(crossed: &Crossed, candidates: &[(&Pod, Usage)]) -> Option<(String, Verdict)> {
    let excess = |pod: &Pod, usage: &Usage| match crossed.resource {
        Resource::Memory => i64::try_from(usage.memory).unwrap_or(i64::MAX) - resources::requests(pod).memory,
        Resource::Pids => i64::try_from(usage.processes).unwrap_or(i64::MAX),
        Resource::EphemeralStorage | Resource::Inodes => 0,
    };
    let rank = |(pod, usage): &&(&Pod, Usage)| {
        let over = excess(pod, usage);
        (over > 0, std::cmp::Reverse(pods::spec(pod).priority.unwrap_or(0)), over)
    };
    let (pod, usage) = candidates.iter().filter(|(p, _)| !pods::is_critical(p)).max_by_key(rank)?;
    Some((pods::uid(pod).to_owned(), verdict(crossed, pod, usage)))
}

fn shown(bytes: u64) -> String {
    if bytes.is_multiple_of(1024) { quantity::of_kib(bytes).0 } else { bytes.to_string() }
}

fn verdict(crossed: &Crossed, pod: &Pod, usage: &Usage) -> Verdict {
    let name = crossed.resource.name();
    let amount = |n: u64| {
        if matches!(crossed.resource, Resource::Memory | Resource::EphemeralStorage) { shown(n) } else { n.to_string() }
    };
    let mut message = format!(
        "The node was low on resource: {name}. Threshold quantity: {}, available: {}. ",
        amount(crossed.threshold),
        amount(crossed.available)
    );
    if crossed.resource == Resource::Memory {
        for container in &pods::spec(pod).containers {
            let used = usage.containers.get(&container.name).copied().unwrap_or(0);
            let asked = resources::of_container(container, "memory", false);
            let number = asked.map_or(0, quantity::value).unsigned_abs();
            if used > number {
                let asked = asked.map_or("0", |q| q.0.as_str());
                message += &format!(
                    "Container {} was using {}, request is {asked}, has larger consumption of memory. ",
                    container.name,
                    shown(used)
                );
            }
        }
    }
    Verdict { reason: "Evicted".into(), disruption: Some(message.clone()), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32, request: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"memory": request}}}]}}))
        .unwrap()
    }

    fn using(memory: u64) -> Usage {
        Usage { memory, containers: [("c".to_owned(), memory)].into(), ..Usage::default() }
    }

    #[test]
    fn who_uses_more_than_it_asked_for_goes_first() {
        let config = crate::Config::new("n").eviction;
        let reading = Reading {
            memory_available: 50 << 20,
            memory_capacity: 4 << 30,
            nodefs: Disk { capacity: 100, available: 50, inodes: 0, inodes_free: 0 },
            ..Reading::default()
        };
        let found = crossed(&config, &reading);
        assert_eq!(found.len(), 1);
        let (a, b, c) = (pod("a", 0, "1Gi"), pod("b", 10, "1Mi"), pod("c", 0, "1Mi"));
        let critical = pod("d", 2_000_000_000, "1Mi");
        let all = [(&a, using(512 << 20)), (&b, using(900 << 20)), (&c, using(100 << 20)), (&critical, using(3 << 30))];
        let (uid, verdict) = victim(&found[0], &all).unwrap();
        assert_eq!(uid, "c", "over its request and of lower priority than b");
        assert_eq!(
            verdict.message,
            "The node was low on resource: memory. Threshold quantity: 102400Ki, available: 51200Ki. \
             Container c was using 102400Ki, request is 1Mi, has larger consumption of memory. "
        );
        let mut manager = Manager::default();
        let at = |s| Timestamp::from_second(s).unwrap();
        assert!(manager.pressure(&config, &found, at(0)).memory);
        assert!(manager.pressure(&config, &[], at(299)).memory, "pressure does not flap");
        assert!(!manager.pressure(&config, &[], at(300)).memory);
    }
}
