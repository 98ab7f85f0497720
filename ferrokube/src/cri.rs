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

/// Stops every container, each with this long to end by itself, then every sandbox; all at once. With `remove` they
/// are gone for good. Returns how many containers ran.
pub async fn stop_all(channel: Channel, grace: Duration, remove: bool) -> Result<usize> {
    let mut client = runtime(channel.clone());
    let running = cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning as i32 };
    let filter = cri::ContainerFilter { state: Some(running), ..Default::default() };
    let listed = client.list_containers(cri::ListContainersRequest { filter: Some(filter) }).await?.into_inner();
    let count = listed.containers.len();
    let timeout = grace.as_secs() as i64;
    let mut stops: FuturesUnordered<_> = listed
        .containers
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
