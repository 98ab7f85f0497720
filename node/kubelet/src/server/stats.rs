//! Numbers of the node and its pods: `/stats/summary` for people and autoscalers, `/metrics*` for collectors. Does I/O.

use std::fmt::Write;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use wire::cri;

use super::reply::{Reply, Server, json as reply_json, text};
use crate::act::ProbeCount;
use crate::io::cri::shown;
use crate::names::label;
use crate::node::machine;

struct PodStats {
    name: String,
    namespace: String,
    uid: String,
    stats: cri::PodSandboxStats,
}

async fn collect(server: &Server) -> Result<Vec<PodStats>, Reply> {
    let answer = server.executor.cri.runtime().list_pod_sandbox_stats(cri::ListPodSandboxStatsRequest::default()).await;
    let answer = answer.map_err(|e| text(StatusCode::INTERNAL_SERVER_ERROR, shown(&e)))?;
    let mut out = Vec::new();
    for stats in answer.into_inner().stats {
        let metadata = stats.attributes.as_ref().and_then(|a| a.metadata.clone()).unwrap_or_default();
        out.push(PodStats { name: metadata.name, namespace: metadata.namespace, uid: metadata.uid, stats });
    }
    out.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(out)
}

fn at(nanos: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH);
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

fn number(value: &Option<cri::UInt64Value>) -> Option<u64> {
    value.as_ref().map(|v| v.value)
}

fn cpu(usage: &cri::CpuUsage) -> Value {
    json!({
        "time": at(usage.timestamp),
        "usageNanoCores": number(&usage.usage_nano_cores),
        "usageCoreNanoSeconds": number(&usage.usage_core_nano_seconds),
    })
}

fn memory(usage: &cri::MemoryUsage) -> Value {
    json!({
        "time": at(usage.timestamp),
        "availableBytes": number(&usage.available_bytes),
        "usageBytes": number(&usage.usage_bytes),
        "workingSetBytes": number(&usage.working_set_bytes),
        "rssBytes": number(&usage.rss_bytes),
        "pageFaults": number(&usage.page_faults),
        "majorPageFaults": number(&usage.major_page_faults),
    })
}

fn container(stats: &cri::ContainerStats) -> Value {
    let name = stats.attributes.as_ref().and_then(|a| a.metadata.as_ref()).map_or("", |m| m.name.as_str());
    let disk = stats.writable_layer.as_ref().map(|w| {
        json!({
        "time": at(w.timestamp), "usedBytes": number(&w.used_bytes), "inodesUsed": number(&w.inodes_used)})
    });
    json!({
        "name": name,
        "cpu": stats.cpu.as_ref().map(cpu),
        "memory": stats.memory.as_ref().map(memory),
        "rootfs": disk,
    })
}

fn network(usage: &cri::NetworkUsage) -> Value {
    let one = |i: &cri::NetworkInterfaceUsage| {
        json!({
            "name": i.name,
            "rxBytes": number(&i.rx_bytes), "rxErrors": number(&i.rx_errors),
            "txBytes": number(&i.tx_bytes), "txErrors": number(&i.tx_errors),
        })
    };
    let mut out = usage.default_interface.as_ref().map_or(json!({}), one);
    out["time"] = at(usage.timestamp).into();
    out["interfaces"] = usage.interfaces.iter().map(one).collect();
    out
}

fn pod(stats: &PodStats) -> Value {
    let linux = stats.stats.linux.clone().unwrap_or_default();
    let containers: Vec<Value> = linux.containers.iter().map(container).collect();
    json!({
        "podRef": {"name": stats.name, "namespace": stats.namespace, "uid": stats.uid},
        "containers": containers,
        "cpu": linux.cpu.as_ref().map(cpu),
        "memory": linux.memory.as_ref().map(memory),
        "network": linux.network.as_ref().map(network),
        "process_stats": linux.process.as_ref().map(|p| json!({"process_count": number(&p.process_count)})),
    })
}

fn node_group(server: &Server) -> Option<linux::cgroup::Stats> {
    server.executor.cgroups.as_ref().map(|c| c.group("/").stats())
}

pub async fn summary(server: &Server) -> Reply {
    let pods = match collect(server).await {
        Ok(pods) => pods,
        Err(refusal) => return refusal,
    };
    let now = Timestamp::now();
    let time = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    let disk = machine::disk(&server.executor.config.root_dir);
    let group = node_group(server).unwrap_or_default();
    let available = machine::meminfo("MemAvailable");
    // The root of version 2 counts no memory of its own.
    let usage = match group.memory_usage {
        0 => server.executor.node_memory.saturating_sub(machine::meminfo("MemFree")),
        counted => counted,
    };
    reply_json(&json!({
        "node": {
            "nodeName": server.executor.config.node_name,
            "cpu": {"time": time, "usageCoreNanoSeconds": group.cpu_nanoseconds},
            "memory": {
                "time": time,
                "availableBytes": available,
                "usageBytes": usage,
                "workingSetBytes": server.executor.node_memory.saturating_sub(available),
                "rssBytes": group.memory_rss,
            },
            "fs": {
                "time": time,
                "availableBytes": disk.available,
                "capacityBytes": disk.capacity,
                "usedBytes": disk.capacity.saturating_sub(disk.available),
                "inodesFree": disk.inodes_free,
                "inodes": disk.inodes,
                "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
            },
            "rlimit": {
                "time": time,
                "maxpid": machine::Machine::read().pid_max,
                "curproc": machine::processes(),
            },
        },
        "pods": pods.iter().map(pod).collect::<Vec<_>>(),
    }))
}

/// A family in the text format of Prometheus.
fn family(out: &mut String, name: &str, kind: &str, help: &str, samples: &[(String, f64)]) {
    // A String takes all that is written to it.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let quoted = |v: &str| v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let list: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}=\"{}\"", quoted(v))).collect();
    if list.is_empty() { String::new() } else { format!("{{{}}}", list.join(",")) }
}

fn metrics_text(body: String) -> Reply {
    let mut reply = text(StatusCode::OK, body);
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    reply
}

/// What metrics-server reads.
pub async fn resource(server: &Server) -> Reply {
    let pods = match collect(server).await {
        Ok(pods) => pods,
        Err(refusal) => return refusal,
    };
    let mut out = String::new();
    let group = node_group(server).unwrap_or_default();
    let working = server.executor.node_memory.saturating_sub(machine::meminfo("MemAvailable"));
    let node_cpu = group.cpu_nanoseconds as f64 / 1e9;
    let mut cpu = Vec::new();
    let mut memory = Vec::new();
    let (mut pod_cpu, mut pod_memory) = (Vec::new(), Vec::new());
    for pod in &pods {
        let linux = pod.stats.linux.clone().unwrap_or_default();
        let own = labels(&[("namespace", &pod.namespace), ("pod", &pod.name)]);
        if let Some(c) = linux.cpu.as_ref().and_then(|c| number(&c.usage_core_nano_seconds)) {
            pod_cpu.push((own.clone(), c as f64 / 1e9));
        }
        if let Some(m) = linux.memory.as_ref().and_then(|m| number(&m.working_set_bytes)) {
            pod_memory.push((own, m as f64));
        }
        for c in &linux.containers {
            let name = container_name(c);
            let own = labels(&[("container", &name), ("namespace", &pod.namespace), ("pod", &pod.name)]);
            if let Some(v) = c.cpu.as_ref().and_then(|c| number(&c.usage_core_nano_seconds)) {
                cpu.push((own.clone(), v as f64 / 1e9));
            }
            if let Some(v) = c.memory.as_ref().and_then(|m| number(&m.working_set_bytes)) {
                memory.push((own, v as f64));
            }
        }
    }
    let seconds = "[STABLE] Cumulative cpu time consumed by the";
    let bytes = "[STABLE] Current working set of the";
    family(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        &format!("{seconds} container in core-seconds"),
        &cpu,
    );
    family(&mut out, "container_memory_working_set_bytes", "gauge", &format!("{bytes} container in bytes"), &memory);
    family(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        &format!("{seconds} node in core-seconds"),
        &[(String::new(), node_cpu)],
    );
    family(
        &mut out,
        "node_memory_working_set_bytes",
        "gauge",
        &format!("{bytes} node in bytes"),
        &[(String::new(), working as f64)],
    );
    family(&mut out, "pod_cpu_usage_seconds_total", "counter", &format!("{seconds} pod in core-seconds"), &pod_cpu);
    family(&mut out, "pod_memory_working_set_bytes", "gauge", &format!("{bytes} pod in bytes"), &pod_memory);
    let error = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    family(&mut out, "resource_scrape_error", "gauge", error, &[(String::new(), 0.0)]);
    metrics_text(out)
}

fn container_name(stats: &cri::ContainerStats) -> String {
    let attributes = stats.attributes.clone().unwrap_or_default();
    attributes.labels.get(label::CONTAINER_NAME).cloned().or(attributes.metadata.map(|m| m.name)).unwrap_or_default()
}

/// cAdvisor's names for what the runtime counts.
pub async fn cadvisor(server: &Server) -> Reply {
    let pods = match collect(server).await {
        Ok(pods) => pods,
        Err(refusal) => return refusal,
    };
    let (mut cpu, mut usage, mut working, mut rss, mut rx, mut tx) = (vec![], vec![], vec![], vec![], vec![], vec![]);
    for pod in &pods {
        let linux = pod.stats.linux.clone().unwrap_or_default();
        for c in &linux.containers {
            let name = container_name(c);
            let id = c.attributes.as_ref().map_or("", |a| a.id.as_str());
            let own = labels(&[("container", &name), ("id", id), ("namespace", &pod.namespace), ("pod", &pod.name)]);
            let put = |to: &mut Vec<(String, f64)>, value: Option<u64>, scale: f64| {
                to.extend(value.map(|v| (own.clone(), v as f64 / scale)));
            };
            put(&mut cpu, c.cpu.as_ref().and_then(|c| number(&c.usage_core_nano_seconds)), 1e9);
            put(&mut usage, c.memory.as_ref().and_then(|m| number(&m.usage_bytes)), 1.0);
            put(&mut working, c.memory.as_ref().and_then(|m| number(&m.working_set_bytes)), 1.0);
            put(&mut rss, c.memory.as_ref().and_then(|m| number(&m.rss_bytes)), 1.0);
        }
        for i in linux.network.iter().flat_map(|n| n.default_interface.iter()) {
            let own = labels(&[("interface", &i.name), ("namespace", &pod.namespace), ("pod", &pod.name)]);
            rx.extend(number(&i.rx_bytes).map(|v| (own.clone(), v as f64)));
            tx.extend(number(&i.tx_bytes).map(|v| (own, v as f64)));
        }
    }
    let mut out = String::new();
    family(&mut out, "container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", &cpu);
    family(
        &mut out,
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        &usage,
    );
    family(&mut out, "container_memory_working_set_bytes", "gauge", "Current working set in bytes.", &working);
    family(&mut out, "container_memory_rss", "gauge", "Size of RSS in bytes.", &rss);
    family(&mut out, "container_network_receive_bytes_total", "counter", "Cumulative count of bytes received", &rx);
    family(&mut out, "container_network_transmit_bytes_total", "counter", "Cumulative count of bytes transmitted", &tx);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get()) as f64;
    family(&mut out, "machine_cpu_cores", "gauge", "Number of logical CPU cores.", &[(String::new(), cores)]);
    let total = server.executor.node_memory as f64;
    family(
        &mut out,
        "machine_memory_bytes",
        "gauge",
        "Amount of memory installed on the machine.",
        &[(String::new(), total)],
    );
    metrics_text(out)
}

/// Counts of what the kubelet runs.
pub async fn metrics(server: &Server) -> Reply {
    let pods = super::pods::all(server).await;
    let mut running = std::collections::BTreeMap::<&str, f64>::new();
    let mut pods_running = 0.0;
    for pod in &pods {
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let mut any = false;
        for state in statuses.filter_map(|s| s.state.as_ref()) {
            let name = if state.running.is_some() {
                any = true;
                "running"
            } else if state.terminated.is_some() {
                "exited"
            } else {
                "created"
            };
            *running.entry(name).or_default() += 1.0;
        }
        pods_running += f64::from(u8::from(any));
    }
    let containers: Vec<(String, f64)> =
        running.into_iter().map(|(state, n)| (labels(&[("container_state", state)]), n)).collect();
    let mut out = String::new();
    let node = labels(&[("node", &server.executor.config.node_name)]);
    family(&mut out, "kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.", &[(node, 1.0)]);
    family(
        &mut out,
        "kubelet_running_containers",
        "gauge",
        "[ALPHA] Number of containers currently running",
        &containers,
    );
    let help = "[ALPHA] Number of pods that have a running pod sandbox";
    family(&mut out, "kubelet_running_pods", "gauge", help, &[(String::new(), pods_running)]);
    let help = "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.";
    let desired: Vec<(String, f64)> = [("", "false"), ("true", "true")]
        .iter()
        .map(|(wanted, value)| {
            let of_files = *wanted == "true";
            let count = pods.iter().filter(|p| crate::pod::pods::is_static(p) == of_files).count();
            (labels(&[("static", value)]), count as f64)
        })
        .collect();
    family(&mut out, "kubelet_desired_pods", "gauge", help, &desired);
    let process = telemetry::Registry::default();
    telemetry::process::declare(&process);
    telemetry::process::declare_build(&process, meta::version::GIT_VERSION);
    metrics_text(out + &process.text())
}

/// How often probes ended how, by container.
pub async fn probes(server: &Server) -> Reply {
    let counts = server.executor.found.probe_counts.lock().clone();
    let sample = |(key, count): (&ProbeCount, &u64)| {
        let own = labels(&[
            ("container", &key.container),
            ("namespace", &key.namespace),
            ("pod", &key.pod),
            ("pod_uid", &key.uid),
            ("probe_type", key.kind),
            ("result", key.result),
        ]);
        (own, *count as f64)
    };
    let samples: Vec<(String, f64)> = counts.iter().map(sample).collect();
    let mut out = String::new();
    let help = "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.";
    family(&mut out, "prober_probe_total", "counter", help, &samples);
    metrics_text(out)
}
