//! A kubelet on a runtime and an API server in memory, in a directory of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use kubelet::Config;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::cri::Runtime;

pub struct Node {
    pub api: Api,
    pub runtime: Runtime,
    pub config: Config,
    _dir: tempfile::TempDir,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<(), kubelet::Error>>>,
}

pub const NODE: &str = "/api/v1/nodes/n1";

/// Path of a pod in namespace `ns`.
pub fn path(name: &str) -> String {
    format!("/api/v1/namespaces/ns/pods/{name}")
}

/// A pod bound to the node.
pub fn pod(name: &str, mut spec: Value) -> Value {
    spec["nodeName"] = "n1".into();
    json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "ns", "uid": format!("{name}-uid"), "generation": 1, "labels": {"app": name}},
        "spec": spec})
}

pub fn has_condition(object: &Value, kind: &str) -> bool {
    let found = object["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
    found.is_some_and(|c| c["status"] == "True")
}

impl Node {
    /// A node that is ready. `adjust` changes its configuration before it starts.
    pub async fn start(adjust: impl FnOnce(&mut Config, &Path)) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let (runtime, endpoint) = Runtime::serve(dir.path());
        let mut config = Config::new("n1");
        config.root_dir = dir.path().join("kubelet");
        config.pod_logs_dir = dir.path().join("logs");
        config.container_runtime_endpoint = endpoint;
        config.node_ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        config.cgroups_per_qos = false;
        config.server.healthz_port = 0;
        config.server.port = 0;
        adjust(&mut config, dir.path());
        let mut node = Node { api: Api::new(), runtime, config, _dir: dir, stop: CancellationToken::new(), task: None };
        node.run();
        node.api.until(NODE, |n| n.is_some()).await;
        node.api.change(NODE, |n| n["spec"]["podCIDRs"] = json!(["10.1.0.0/24", "fd01::/64"]));
        node.api.until(NODE, |n| n.is_some_and(|n| has_condition(n, "Ready"))).await;
        node
    }

    fn run(&mut self) {
        self.stop = CancellationToken::new();
        let run = kubelet::run(self.config.clone(), self.api.client(), self.stop.clone());
        self.task = Some(tokio::spawn(run));
    }

    /// The kubelet ends and another one begins; the runtime goes on.
    pub async fn restart(&mut self) {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap().unwrap();
        self.run();
    }

    pub async fn create(&self, name: &str, spec: Value) {
        self.api.put(&path(name), pod(name, spec));
    }

    pub async fn until(&self, name: &str, mut good: impl FnMut(&Value) -> bool) -> Value {
        self.api.until(&path(name), |p| p.is_some_and(&mut good)).await.unwrap()
    }

    pub async fn until_ready(&self, name: &str) -> Value {
        self.until(name, |p| has_condition(p, "Ready")).await
    }

    /// As the API server marks a pod for deletion.
    pub fn delete(&self, name: &str) {
        self.api.change(&path(name), |p| {
            p["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            p["metadata"]["deletionGracePeriodSeconds"] = 5.into();
        });
    }

    pub async fn until_gone(&self, name: &str) {
        self.api.until(&path(name), |p| p.is_none()).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
