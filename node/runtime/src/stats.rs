//! Statistics of containers, pods and images, read from control groups and file systems when asked. Does I/O.

use std::path::Path;
use std::sync::Arc;

use linux::cgroup::Stats;
use wire::cri;

use crate::monitor::now;
use crate::runtime::{Container, Runtime, Sandbox};
use crate::status;

fn value(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

fn cpu(stats: &Stats, at: i64) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp: at,
        usage_core_nano_seconds: value(stats.cpu_nanoseconds),
        // A rate needs two readings; the kubelet makes it from its own.
        usage_nano_cores: None,
        psi: None,
    }
}

fn memory(stats: &Stats, at: i64) -> cri::MemoryUsage {
    cri::MemoryUsage {
        timestamp: at,
        working_set_bytes: value(stats.memory_working_set),
        available_bytes: stats.memory_limit.and_then(|l| value(l.saturating_sub(stats.memory_working_set))),
        usage_bytes: value(stats.memory_usage),
        rss_bytes: value(stats.memory_rss),
        page_faults: value(stats.page_faults),
        major_page_faults: value(stats.major_page_faults),
        psi: None,
    }
}

impl Runtime {
    /// One container's use; of its writable layer too.
    pub fn container_stats(&self, container: &Container) -> cri::ContainerStats {
        let at = now();
        let item = status::container_item(container);
        let group = self.cgroups.group(&container.read(|r| r.cgroup.clone()));
        let stats = group.stats();
        let upper = self.container_dir(&container.id).join("upper");
        let running = container.is_running();
        cri::ContainerStats {
            attributes: Some(cri::ContainerAttributes {
                id: item.id,
                metadata: item.metadata,
                labels: item.labels,
                annotations: item.annotations,
            }),
            cpu: running.then(|| cpu(&stats, at)),
            memory: running.then(|| memory(&stats, at)),
            writable_layer: Some(self.written(container, &upper)),
            swap: running.then(|| cri::SwapUsage {
                timestamp: at,
                swap_available_bytes: None,
                swap_usage_bytes: value(stats.swap_usage),
            }),
            io: None,
        }
    }

    /// What a container wrote. The files that its pod's containers share count as the oldest one's.
    fn written(&self, container: &Container, upper: &Path) -> cri::FilesystemUsage {
        let (mut bytes, mut inodes) = linux::disk_usage::below(upper);
        let sandbox = container.read(|r| r.sandbox_id.clone());
        let age = |c: &Container| (c.read(|r| r.created_at), c.id.clone());
        if self.containers_of(&sandbox).iter().all(|other| age(container) <= age(other)) {
            let files = crate::sandbox::files_usage(&self.sandbox_dir(&sandbox));
            (bytes, inodes) = (bytes + files.0, inodes + files.1);
        }
        cri::FilesystemUsage {
            timestamp: now(),
            fs_id: Some(cri::FilesystemIdentifier { mountpoint: self.config.root_dir.display().to_string() }),
            used_bytes: value(bytes),
            inodes_used: value(inodes),
        }
    }

    /// One pod's use: of its control group, its network and its containers.
    pub fn sandbox_stats(&self, sandbox: &Sandbox) -> cri::PodSandboxStats {
        let at = now();
        let item = status::sandbox_item(sandbox);
        let config = sandbox.read(|r| r.config.clone()).unwrap_or_default();
        let parent = config.linux.clone().unwrap_or_default().cgroup_parent;
        let stats = if parent.is_empty() { Stats::default() } else { self.cgroups.group(&parent).stats() };
        let containers = self.containers_of(&sandbox.id);
        let running = containers.iter().filter(|c| c.is_running());
        cri::PodSandboxStats {
            attributes: Some(cri::PodSandboxAttributes {
                id: item.id,
                metadata: item.metadata,
                labels: item.labels,
                annotations: item.annotations,
            }),
            linux: Some(cri::LinuxPodSandboxStats {
                cpu: Some(cpu(&stats, at)),
                memory: Some(memory(&stats, at)),
                network: self.network_usage(sandbox, at),
                process: Some(cri::ProcessUsage { timestamp: at, process_count: value(stats.processes) }),
                containers: running.map(|c| self.container_stats(c)).collect(),
                io: None,
            }),
        }
    }

    /// Counters of the pod's interfaces, as a process of the pod sees them.
    fn network_usage(&self, sandbox: &Sandbox, at: i64) -> Option<cri::NetworkUsage> {
        let netns = self.sandbox_run_dir(&sandbox.id).join("net");
        if !linux::namespaces::is_pinned(&netns) {
            return None;
        }
        let inside = linux::netns::NetNs::open(&netns).ok()?;
        let text = inside.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).ok()?.ok()?;
        let interfaces = parse_net_dev(&text);
        let default = interfaces.iter().find(|i| i.name == "eth0").cloned();
        Some(cri::NetworkUsage { timestamp: at, default_interface: default, interfaces })
    }

    /// What images and writable layers take of their file system.
    pub fn image_fs_info(self: &Arc<Self>) -> cri::ImageFsInfoResponse {
        let images = self.images.usage();
        let id = || Some(cri::FilesystemIdentifier { mountpoint: self.config.root_dir.display().to_string() });
        let usage = |bytes: u64, inodes: u64| cri::FilesystemUsage {
            timestamp: now(),
            fs_id: id(),
            used_bytes: value(bytes),
            inodes_used: value(inodes),
        };
        let layers = self
            .containers()
            .iter()
            .map(|c| linux::disk_usage::below(&self.container_dir(&c.id).join("upper")))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        cri::ImageFsInfoResponse {
            image_filesystems: vec![usage(images.bytes, images.inodes)],
            container_filesystems: vec![usage(layers.0, layers.1)],
        }
    }
}

fn parse_net_dev(text: &str) -> Vec<cri::NetworkInterfaceUsage> {
    let interface = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let n: Vec<u64> = rest.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        Some(cri::NetworkInterfaceUsage {
            name: name.trim().to_owned(),
            rx_bytes: value(*n.first()?),
            rx_errors: value(*n.get(2)?),
            tx_bytes: value(*n.get(8)?),
            tx_errors: value(*n.get(10)?),
        })
    };
    text.lines().skip(2).filter_map(interface).filter(|i| i.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 100 2 3 0 0 0 0 0 200 4 5 0 0 0 0 0\n";
        let found = parse_net_dev(text);
        assert_eq!(found.len(), 1);
        let v = |x: &Option<cri::UInt64Value>| x.as_ref().unwrap().value;
        let i = &found[0];
        assert_eq!((v(&i.rx_bytes), v(&i.rx_errors), v(&i.tx_bytes), v(&i.tx_errors)), (100, 3, 200, 5));
    }
}
