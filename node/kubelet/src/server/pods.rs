//! Pods of the node as the kubelet has them, and its own configuration. Does I/O: asks the loop.

use std::sync::Arc;

use http::StatusCode;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::reply::{Reply, Server, json as reply_json, text};
use crate::io::cri::shown;
use crate::messages::Query;
use crate::names::label;
use crate::worker::PodWorker;

/// All pods with their status.
pub async fn all(server: &Server) -> Vec<Arc<Pod>> {
    server.executor.mailbox.ask(Query::Pods).await.unwrap_or_default()
}

/// One pod by name.
pub async fn find(server: &Server, namespace: &str, name: &str, uid: Option<&str>) -> Option<Box<PodWorker>> {
    let (namespace, name, uid) = (namespace.to_owned(), name.to_owned(), uid.map(str::to_owned));
    server.executor.mailbox.ask(|reply| Query::Pod { namespace, name, uid, reply }).await.flatten()
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
    let found = match server.executor.cri.containers(None).await {
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
