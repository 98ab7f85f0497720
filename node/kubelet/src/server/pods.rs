//! Pods of the node as the kubelet has them, and its own configuration. Does I/O: asks the loop.

use std::sync::Arc;

use http::StatusCode;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Reply, Server, json as reply_json, text};
use crate::cri::shown;
use crate::daemon::{Msg, Query};
use crate::names::label;
use crate::worker::PodWorker;

/// All pods with their status.
pub async fn all(server: &Server) -> Vec<Arc<Pod>> {
    let (reply, answer) = oneshot::channel();
    let _ = server.queries.send(Msg::Query(Query::Pods(reply)));
    answer.await.unwrap_or_default()
}

/// One pod by name.
pub async fn find(server: &Server, namespace: &str, name: &str, uid: Option<&str>) -> Option<Box<PodWorker>> {
    let (reply, answer) = oneshot::channel();
    let query =
        Query::Pod { namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.map(str::to_owned), reply };
    let _ = server.queries.send(Msg::Query(query));
    answer.await.ok().flatten()
}

pub fn not_found(namespace: &str, name: &str) -> Reply {
    text(StatusCode::NOT_FOUND, format!("pod \"{name}\" in namespace \"{namespace}\" not found\n"))
}

pub async fn pods(server: &Server) -> Reply {
    let items: Vec<Pod> = all(server).await.iter().map(|p| Pod::clone(p)).collect();
    reply_json(&List { items, metadata: Default::default() })
}

/// What the runtime says is running, as pods with no more than names and images.
pub async fn running(server: &Server) -> Reply {
    let found = match server.hands.cri.containers(None).await {
        Ok(found) => found,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, shown(&error)),
    };
    let mut pods: std::collections::BTreeMap<String, Pod> = Default::default();
    for c in found.into_iter().filter(|c| c.state == wire::cri::ContainerState::ContainerRunning as i32) {
        let label = |key: &str| c.labels.get(key).cloned();
        let Some(uid) = label(label::POD_UID) else { continue };
        let pod = pods.entry(uid.clone()).or_default();
        pod.metadata.uid = Some(uid);
        pod.metadata.name = label(label::POD_NAME);
        pod.metadata.namespace = label(label::POD_NAMESPACE);
        let spec = pod.spec.get_or_insert_with(PodSpec::default);
        spec.containers.push(Container {
            name: label(label::CONTAINER_NAME).unwrap_or_default(),
            image: Some(c.image_ref.clone()),
            ..Container::default()
        });
    }
    reply_json(&List { items: pods.into_values().collect::<Vec<_>>(), metadata: Default::default() })
}

/// The effective configuration in the words of KubeletConfiguration.
pub fn configz(server: &Server) -> Reply {
    let c = &server.hands.config;
    let seconds = |d: std::time::Duration| format!("{}s", d.as_secs());
    let dns: Vec<String> = c.cluster_dns.iter().map(ToString::to_string).collect();
    reply_json(&json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "enableServer": true,
        "address": c.server.address.to_string(),
        "port": c.server.port,
        "authentication": {
            "x509": {"clientCAFile": c.server.client_ca_file},
            "webhook": {"enabled": c.server.webhook_authentication},
            "anonymous": {"enabled": c.server.anonymous},
        },
        "authorization": {"mode": if c.server.webhook_authorization { "Webhook" } else { "AlwaysAllow" }},
        "healthzPort": c.server.healthz_port,
        "healthzBindAddress": c.server.healthz_bind_address.to_string(),
        "podLogsDir": c.pod_logs_dir,
        "staticPodPath": c.static_pod_path,
        "clusterDomain": c.cluster_domain,
        "clusterDNS": dns,
        "resolvConf": c.resolv_conf,
        "maxPods": c.max_pods,
        "podPidsLimit": c.pod_pids_limit,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": c.cgroup_root,
        "cgroupsPerQOS": c.cgroups_per_qos,
        "cpuCFSQuota": c.cpu_cfs_quota,
        "cpuCFSQuotaPeriod": format!("{}ms", c.cpu_cfs_quota_period.as_millis()),
        "nodeStatusReportFrequency": seconds(c.node_status_report_frequency),
        "nodeLeaseDurationSeconds": c.node_lease_duration.as_secs(),
        "nodeStatusMaxImages": c.node_status_max_images,
        "imageMinimumGCAge": seconds(c.image_minimum_gc_age),
        "imageGCHighThresholdPercent": c.image_gc_high_threshold_percent,
        "imageGCLowThresholdPercent": c.image_gc_low_threshold_percent,
        "serializeImagePulls": c.serialize_image_pulls,
        "containerLogMaxSize": c.container_log_max_size.to_string(),
        "containerLogMaxFiles": c.container_log_max_files,
        "seccompDefault": c.seccomp_default,
        "registerNode": c.register_node,
        "containerRuntimeEndpoint": c.container_runtime_endpoint,
        "crashLoopBackOff": {"maxContainerRestartPeriod": seconds(c.max_container_restart_period)},
    }}))
}
