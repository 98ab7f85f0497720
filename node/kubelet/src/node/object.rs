//! The Node object of this kubelet: what it registers, what its status says. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::api::time;
use crate::config::{Config, Threshold};
use crate::node::machine::{Disk, Machine};
use crate::pod::quantity;
use crate::pod::verdict::Pressure;

/// What the runtime says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Runtime {
    pub name: String,
    pub version: String,
    /// Why the node can't run pods; empty when it can.
    pub problems: Vec<String>,
    pub handlers: Vec<NodeRuntimeHandler>,
    pub supplemental_groups_policy: bool,
    pub images: Vec<ContainerImage>,
}

/// Everything that a Node's status is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub machine: Machine,
    pub disk: Disk,
    pub addresses: Vec<String>,
    pub port: u16,
    pub runtime: Runtime,
    pub pressure: Pressure,
}

/// Name of the label value and of the Hostname address.
pub fn hostname(config: &Config, machine: &Machine) -> String {
    config.hostname_override.clone().unwrap_or_else(|| {
        if machine.hostname.is_empty() { config.node_name.clone() } else { machine.hostname.clone() }
    })
}

/// The object that the kubelet registers.
pub fn register(config: &Config, facts: &Facts, now: Timestamp) -> Node {
    let arch = facts.machine.arch;
    let own = [
        ("beta.kubernetes.io/arch", arch.to_owned()),
        ("beta.kubernetes.io/os", "linux".to_owned()),
        ("kubernetes.io/arch", arch.to_owned()),
        ("kubernetes.io/hostname", config.node_name.clone()),
        ("kubernetes.io/os", "linux".to_owned()),
    ];
    let mut labels: BTreeMap<String, String> = own.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    labels.extend(config.node_labels.clone());
    let annotation = ("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned());
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels),
            annotations: Some([annotation].into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: config.provider_id.clone(),
            taints: Some(config.register_with_taints.clone()).filter(|t| !t.is_empty()),
            ..NodeSpec::default()
        }),
        status: Some(status(config, facts, None, now)),
    }
}

/// The status as it should be; conditions keep their transition times from `old`.
pub fn status(config: &Config, facts: &Facts, old: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let capacity = capacity(config, facts);
    let allocatable = allocatable(config, &capacity);
    let internal = facts.addresses.iter().map(|ip| NodeAddress { address: ip.clone(), type_: "InternalIP".into() });
    let host = NodeAddress { address: hostname(config, &facts.machine), type_: "Hostname".into() };
    let mut images = facts.runtime.images.clone();
    // Names, too: an order that depends on the runtime's list would be news each time.
    images.sort_by(|a, b| (b.size_bytes, &a.names).cmp(&(a.size_bytes, &b.names)));
    if config.node_status_max_images >= 0 {
        images.truncate(config.node_status_max_images as usize);
    }
    let previous = old.and_then(|o| o.conditions.as_deref()).unwrap_or(&[]);
    // What others say of the node (its network) stays.
    let mut conditions: Vec<NodeCondition> =
        previous.iter().filter(|c| !OURS.contains(&c.type_.as_str())).cloned().collect();
    conditions.extend(our_conditions(facts).into_iter().map(|c| dated(c, previous, now)));
    NodeStatus {
        addresses: Some(internal.chain([host]).collect()),
        allocatable: Some(allocatable),
        capacity: Some(capacity),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(facts.port) }),
        }),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(facts.runtime.supplemental_groups_policy) }),
        images: Some(images).filter(|i| !i.is_empty()),
        node_info: Some(info(config, facts)),
        runtime_handlers: Some(facts.runtime.handlers.clone()).filter(|h| !h.is_empty()),
        ..NodeStatus::default()
    }
}

const OURS: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];

fn info(config: &Config, facts: &Facts) -> NodeSystemInfo {
    let m = &facts.machine;
    NodeSystemInfo {
        architecture: m.arch.to_owned(),
        boot_id: m.boot_id.clone(),
        container_runtime_version: format!("{}://{}", facts.runtime.name, facts.runtime.version),
        kernel_version: m.kernel.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: config.version.clone(),
        machine_id: m.machine_id.clone(),
        operating_system: "linux".into(),
        os_image: m.os_image.clone(),
        system_uuid: m.system_uuid.clone(),
        swap: (m.swap > 0).then_some(NodeSwapStatus { capacity: Some(m.swap as i64) }),
        ..NodeSystemInfo::default()
    }
}

fn capacity(config: &Config, facts: &Facts) -> BTreeMap<String, Quantity> {
    let m = &facts.machine;
    let mut out = BTreeMap::from([
        ("cpu".to_owned(), Quantity(m.cpus.to_string())),
        ("memory".to_owned(), quantity::of_kib(m.memory)),
        ("ephemeral-storage".to_owned(), quantity::of_kib(facts.disk.capacity)),
        ("pods".to_owned(), Quantity(config.max_pods.to_string())),
    ]);
    for (size, total) in &m.hugepages {
        let (number, unit) = if size % (1 << 30) == 0 { (size >> 30, "Gi") } else { (size >> 20, "Mi") };
        let amount = if *total == 0 { Quantity("0".into()) } else { quantity::of_kib(*total) };
        out.insert(format!("hugepages-{number}{unit}"), amount);
    }
    out
}

/// Capacity without what is reserved and without what eviction keeps free.
fn allocatable(config: &Config, capacity: &BTreeMap<String, Quantity>) -> BTreeMap<String, Quantity> {
    let mut out = capacity.clone();
    for (name, amount) in &mut out {
        let kept = match name.as_str() {
            "memory" => config.eviction.hard.get("memory.available"),
            "ephemeral-storage" => config.eviction.hard.get("nodefs.available"),
            _ => None,
        };
        let total = quantity::milli(amount);
        let kept = kept.map_or(0, |t| match t {
            Threshold::Share(share) => (total as f64 * share) as i64,
            Threshold::Amount(bytes) => (*bytes as i64).saturating_mul(1000),
        });
        let taken = config.reserved(name) + kept;
        if taken == 0 {
            continue;
        }
        let left = (total - taken).max(0);
        *amount = match name.as_str() {
            "memory" => quantity::of_kib((left / 1000) as u64),
            "ephemeral-storage" => Quantity((left / 1000).to_string()),
            _ => quantity::of_milli(left),
        };
    }
    out
}

fn condition(kind: &str, status: bool, reason: &str, message: String) -> NodeCondition {
    NodeCondition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..NodeCondition::default()
    }
}

fn our_conditions(facts: &Facts) -> Vec<NodeCondition> {
    let p = facts.pressure;
    let memory = match p.memory {
        true => ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        false => ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    };
    let disk = match p.disk {
        true => ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        false => ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    };
    let pid = match p.pid {
        true => ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        false => ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    };
    let ready = if facts.runtime.problems.is_empty() {
        condition("Ready", true, "KubeletReady", "kubelet is posting ready status".into())
    } else {
        let all = facts.runtime.problems.join(", ");
        let text = if facts.runtime.problems.len() > 1 { format!("[{all}]") } else { all };
        condition("Ready", false, "KubeletNotReady", text)
    };
    vec![
        condition("MemoryPressure", p.memory, memory.0, memory.1.into()),
        condition("DiskPressure", p.disk, disk.0, disk.1.into()),
        condition("PIDPressure", p.pid, pid.0, pid.1.into()),
        ready,
    ]
}

fn dated(mut fresh: NodeCondition, previous: &[NodeCondition], now: Timestamp) -> NodeCondition {
    let old = previous.iter().find(|c| c.type_ == fresh.type_ && c.status == fresh.status);
    fresh.last_transition_time = old.and_then(|o| o.last_transition_time.clone()).or(Some(time(now)));
    fresh.last_heartbeat_time = Some(time(now));
    fresh
}

/// Whether two statuses say the same but for heartbeats.
pub fn is_same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |s: &NodeStatus| {
        let mut s = s.clone();
        s.conditions.iter_mut().flatten().for_each(|c| c.last_heartbeat_time = None);
        s
    };
    still(a) == still(b)
}

/// The strategic merge patch from one status to another.
pub fn patch(old: &NodeStatus, new: &NodeStatus) -> Value {
    let object = |s: &NodeStatus| match serde_json::to_value(s) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (object(old), object(new));
    let mut diff = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = if key == "addresses" {
            let mut list = vec![json!({"$patch": "replace"})];
            list.extend(value.as_array().cloned().unwrap_or_default());
            Value::Array(list)
        } else {
            value.clone()
        };
        diff.insert(key.clone(), value);
    }
    for key in ["images", "runtimeHandlers"] {
        if old.contains_key(key) && !new.contains_key(key) {
            diff.insert(key.to_owned(), Value::Null);
        }
    }
    json!({"status": diff})
}

/// Handlers as the runtime lists them.
pub fn handler(name: &str, recursive_read_only: bool, user_namespaces: bool) -> NodeRuntimeHandler {
    NodeRuntimeHandler {
        name: Some(name.to_owned()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(recursive_read_only),
            user_namespaces: Some(user_namespaces),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let machine = Machine { cpus: 2, memory: 1 << 30, arch: "amd64", ..Machine::default() };
        Facts {
            machine,
            disk: Disk { capacity: 100 << 20, ..Disk::default() },
            addresses: vec!["10.0.0.1".into()],
            port: 10250,
            runtime: Runtime::default(),
            pressure: Pressure::default(),
        }
    }

    #[test]
    fn a_ready_node_keeps_its_transition_time() {
        let mut config = Config::new("n");
        config.kube_reserved.insert("cpu".into(), "500m".into());
        let first = status(&config, &facts(), None, Timestamp::from_second(100).unwrap());
        let second = status(&config, &facts(), Some(&first), Timestamp::from_second(200).unwrap());
        assert!(is_same(&first, &second));
        let ready = second.conditions.as_ref().unwrap().iter().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!(ready.last_transition_time.as_ref().unwrap().0.as_second(), 100);
        assert_eq!(ready.last_heartbeat_time.as_ref().unwrap().0.as_second(), 200);
        let give = first.allocatable.unwrap();
        assert_eq!(give["cpu"].0, "1500m");
        assert_eq!(give["memory"].0, format!("{}Ki", (1024 - 100) * 1024));
        let mut bad = facts();
        bad.runtime.problems = vec!["container runtime is down".into()];
        let third = status(&config, &bad, Some(&second), Timestamp::from_second(300).unwrap());
        let diff = patch(&second, &third);
        assert_eq!(diff["status"].as_object().unwrap().keys().collect::<Vec<_>>(), ["conditions"]);
    }
}
