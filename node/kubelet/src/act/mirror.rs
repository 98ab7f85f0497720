//! Mirrors: what the API is shown of pods that files name. Does I/O: writes to the API. The loop asks, when a file or a
//! mirror comes or goes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};

use super::Executor;
use crate::names::annotation;
use crate::pod::pods;

/// What the API is shown of a static pod.
fn mirror_of(pod: &Pod, node: Option<&Node>) -> Pod {
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(annotation::CONFIG_MIRROR.into(), pods::uid(pod).to_owned());
    let owner = node.map(|n| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: n.metadata.name.clone().unwrap_or_default(),
        uid: n.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    });
    Pod {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            labels: pod.metadata.labels.clone(),
            annotations: Some(annotations),
            owner_references: owner.map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        spec: pod.spec.clone(),
        status: None,
    }
}

/// How soon a mirror that could not be made is tried again.
const MIRROR_RETRY: Duration = Duration::from_secs(2);

impl Executor {
    /// Shows a static pod in the API, trying until it is there or the file is gone.
    pub fn create_mirror(self: &Arc<Self>, pod: &Arc<Pod>) {
        let (executor, pod) = (self.clone(), pod.clone());
        tokio::spawn(async move {
            let api: Api<Pod> = Api::namespaced(executor.client.clone(), pods::namespace(&pod));
            executor.nodes.synced().await;
            loop {
                let node = executor.nodes.get_in("", &executor.config.node_name);
                match api.create(&PostParams::default(), &mirror_of(&pod, node.as_deref())).await {
                    Ok(_) => return,
                    Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => return,
                    Err(error) => tracing::debug!(%error, pod = pods::shown(&pod), "mirror pod not made, trying again"),
                }
                tokio::time::sleep(MIRROR_RETRY).await;
            }
        });
    }

    /// Takes a mirror out of the API: given itself, or the static pod that it shows.
    pub fn delete_mirror(self: &Arc<Self>, pod: &Arc<Pod>) {
        let uid = if pods::is_mirror(pod) {
            Some(pods::uid(pod).to_owned())
        } else {
            self.found.mirrors.lock().get(pods::uid(pod)).cloned()
        };
        let Some(uid) = uid else { return };
        let (executor, pod) = (self.clone(), pod.clone());
        tokio::spawn(async move {
            let api: Api<Pod> = Api::namespaced(executor.client.clone(), pods::namespace(&pod));
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
                ..DeleteParams::default()
            };
            if let Err(error) = api.delete(pods::name(&pod), &params).await {
                tracing::debug!(%error, pod = pods::shown(&pod), "mirror pod not deleted");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_names_the_pod_that_it_shows() {
        let mut pod = Pod::default();
        pod.metadata.uid = Some("of-the-file".into());
        let mirror = mirror_of(&pod, None);
        assert!(pods::is_mirror(&mirror));
        assert_eq!(pods::annotation(&mirror, annotation::CONFIG_MIRROR), Some("of-the-file"));
        assert_eq!(mirror.metadata.uid, None);
    }
}
