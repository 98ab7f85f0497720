//! A client of the node's container runtime, for what the command line wants of it: images, and stopping every pod.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use wire::cri;
use wire::cri::image_service_client::ImageServiceClient;
use wire::cri::runtime_service_client::RuntimeServiceClient;
use wire::images::image_transfer_client::ImageTransferClient;

/// Lists with the annotations of hundreds of pods are large.
const MAX_MESSAGE: usize = 16 << 20;

/// Connects to a runtime's socket.
pub async fn connect(socket: &Path) -> Result<Channel> {
    let path = socket.to_owned();
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::try_from("http://runtime")?;
    endpoint.connect_with_connector(connector).await.with_context(|| format!("the runtime at {}", socket.display()))
}

pub fn images(channel: Channel) -> ImageServiceClient<Channel> {
    ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

pub fn transfer(channel: Channel) -> ImageTransferClient<Channel> {
    ImageTransferClient::new(channel)
}

fn runtime(channel: Channel) -> RuntimeServiceClient<Channel> {
    RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

/// Of the time that pods have, those of the system have this share for themselves, after the others.
const FOR_CRITICAL: u32 = 3;

/// Stops every container, each with this long to end by itself, those of critical pods last; then every sandbox. With
/// `remove` they are gone for good. Returns how many containers ran.
pub async fn stop_all(channel: Channel, grace: Duration, remove: bool) -> Result<usize> {
    let mut client = runtime(channel.clone());
    let running = cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning as i32 };
    let filter = cri::ContainerFilter { state: Some(running), ..Default::default() };
    let listed = client.list_containers(cri::ListContainersRequest { filter: Some(filter) }).await?.into_inner();
    let count = listed.containers.len();
    for (containers, grace) in waves(listed.containers, grace) {
        stop_containers(&channel, containers, grace).await;
    }
    let listed = client.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await?.into_inner();
    let mut ends: FuturesUnordered<_> = listed
        .items
        .into_iter()
        .map(|sandbox| {
            let mut client = runtime(channel.clone());
            async move {
                let pod_sandbox_id = sandbox.id;
                client.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() }).await?;
                if remove {
                    client.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }).await?;
                }
                Ok::<(), tonic::Status>(())
            }
        })
        .collect();
    while let Some(ended) = ends.next().await {
        if let Err(error) = ended {
            tracing::warn!(%error, "a sandbox did not stop");
        }
    }
    Ok(count)
}

/// Containers that stop together, and how long each has.
fn waves(containers: Vec<cri::Container>, grace: Duration) -> Vec<(Vec<cri::Container>, Duration)> {
    let (last, first): (Vec<_>, Vec<_>) =
        containers.into_iter().partition(|container| container.annotations.contains_key(kubelet::CRITICAL));
    if first.is_empty() || last.is_empty() {
        return vec![([first, last].concat(), grace)];
    }
    let critical = grace / FOR_CRITICAL;
    vec![(first, grace - critical), (last, critical)]
}

async fn stop_containers(channel: &Channel, containers: Vec<cri::Container>, grace: Duration) {
    // A second is the least that can be said.
    let timeout = grace.as_millis().div_ceil(1000) as i64;
    let mut stops: FuturesUnordered<_> = containers
        .into_iter()
        .map(|container| {
            let mut client = runtime(channel.clone());
            async move { client.stop_container(cri::StopContainerRequest { container_id: container.id, timeout }).await }
        })
        .collect();
    while let Some(stopped) = stops.next().await {
        if let Err(error) = stopped {
            tracing::warn!(%error, "a container did not stop");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_needs_stops_last_and_alone_has_all_the_time() {
        let container = |id: &str, critical: bool| cri::Container {
            id: id.into(),
            annotations: critical.then(|| (kubelet::CRITICAL.to_owned(), "true".to_owned())).into_iter().collect(),
            ..cri::Container::default()
        };
        let told = |containers: Vec<cri::Container>| -> Vec<(String, u64)> {
            let waves = waves(containers, Duration::from_secs(6));
            waves.iter().map(|(all, grace)| (all.iter().map(|c| c.id.as_str()).collect(), grace.as_secs())).collect()
        };
        let both = told(vec![container("a", false), container("b", true), container("c", false)]);
        assert_eq!(both, [("ac".to_owned(), 4), ("b".to_owned(), 2)]);
        assert_eq!(told(vec![container("b", true)]), [("b".to_owned(), 6)]);
        assert_eq!(told(vec![]), [(String::new(), 6)]);
    }
}
