//! The metrics that the kubelet serves at /metrics/cadvisor when it takes them from the runtime. Does I/O.

use wire::cri;

use crate::monitor::now;
use crate::runtime::{Runtime, Sandbox};

type Read = fn(&linux::cgroup::Stats) -> u64;

/// One row a metric of containers: name, help, kind, value. Names are cAdvisor's.
const CONTAINER: [(&str, &str, cri::MetricType, Read); 6] = [
    ("container_cpu_usage_seconds_total", "CPU time used, in seconds.", cri::MetricType::Counter, |s| {
        s.cpu_nanoseconds / 1_000_000_000
    }),
    ("container_memory_usage_bytes", "Memory in use, in bytes.", cri::MetricType::Gauge, |s| s.memory_usage),
    (
        "container_memory_working_set_bytes",
        "Memory in use that can't be dropped at once, in bytes.",
        cri::MetricType::Gauge,
        |s| s.memory_working_set,
    ),
    ("container_memory_rss", "Anonymous memory, in bytes.", cri::MetricType::Gauge, |s| s.memory_rss),
    ("container_memory_swap", "Swap in use, in bytes.", cri::MetricType::Gauge, |s| s.swap_usage),
    ("container_processes", "Processes in the container.", cri::MetricType::Gauge, |s| s.processes),
];

const LABELS: [&str; 5] = ["id", "name", "image", "namespace", "pod"];

/// What can be asked for.
pub fn descriptors() -> Vec<cri::MetricDescriptor> {
    let describe = |(name, help, _, _): &(&str, &str, cri::MetricType, Read)| cri::MetricDescriptor {
        name: (*name).to_owned(),
        help: (*help).to_owned(),
        label_keys: LABELS.iter().map(|l| (*l).to_owned()).collect(),
    };
    CONTAINER.iter().map(describe).collect()
}

impl Runtime {
    /// The metrics of a pod's running containers.
    pub fn sandbox_metrics(&self, sandbox: &Sandbox) -> cri::PodSandboxMetrics {
        let metadata = sandbox.read(|r| r.config.clone()).unwrap_or_default().metadata.unwrap_or_default();
        let running = self.containers_of(&sandbox.id).into_iter().filter(|c| c.is_running());
        let containers = running.map(|container| {
            let (config, cgroup) = container.read(|r| (r.config.clone().unwrap_or_default(), r.cgroup.clone()));
            let stats = self.cgroups.group(&cgroup).stats();
            let labels = vec![
                cgroup,
                config.metadata.unwrap_or_default().name,
                config.image.unwrap_or_default().image,
                metadata.namespace.clone(),
                metadata.name.clone(),
            ];
            let metric = |(name, _, kind, read): &(&str, &str, cri::MetricType, Read)| cri::Metric {
                name: (*name).to_owned(),
                timestamp: now(),
                metric_type: *kind as i32,
                label_values: labels.clone(),
                value: Some(cri::UInt64Value { value: read(&stats) }),
            };
            cri::ContainerMetrics {
                container_id: container.id.clone(),
                metrics: CONTAINER.iter().map(metric).collect(),
            }
        });
        cri::PodSandboxMetrics {
            pod_sandbox_id: sandbox.id.clone(),
            metrics: Vec::new(),
            container_metrics: containers.collect(),
        }
    }
}
