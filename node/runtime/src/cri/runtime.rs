//! RuntimeService: sandboxes, containers, exec, statistics, events.

use futures::StreamExt;
use meta::Prefix;
use pod_network::NotReady;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Status};
use wire::cri::runtime_service_server::RuntimeService;
use wire::cri::*;

use super::{Answer, BoxStream, Service, ok, stream};
use crate::error::Error;
use crate::runtime::blocking;
use crate::status;

/// The name in version answers and node status: "ferrokube://0.1.0".
const NAME: &str = "ferrokube";

#[tonic::async_trait]
impl RuntimeService for Service {
    type StreamPodSandboxesStream = BoxStream<StreamPodSandboxesResponse>;
    type StreamContainersStream = BoxStream<StreamContainersResponse>;
    type StreamContainerStatsStream = BoxStream<StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = BoxStream<StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = BoxStream<StreamPodSandboxMetricsResponse>;
    type GetContainerEventsStream = BoxStream<ContainerEventResponse>;

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: NAME.into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn run_pod_sandbox(&self, r: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let r = r.into_inner();
        let config = r.config.ok_or_else(|| Status::invalid_argument("config is missing"))?;
        ok(RunPodSandboxResponse { pod_sandbox_id: self.runtime.run_sandbox(config, r.runtime_handler).await? })
    }

    async fn stop_pod_sandbox(&self, r: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        self.runtime.stop_sandbox(&r.into_inner().pod_sandbox_id).await?;
        ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, r: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        self.runtime.remove_sandbox(&r.into_inner().pod_sandbox_id).await?;
        ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, r: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let sandbox = self.runtime.sandbox(&r.into_inner().pod_sandbox_id)?;
        let containers = self.runtime.containers_of(&sandbox.id);
        ok(PodSandboxStatusResponse {
            status: Some(status::sandbox_status(&sandbox)),
            info: Default::default(),
            containers_statuses: containers.iter().map(|c| status::container_status(c)).collect(),
            timestamp: crate::monitor::now(),
        })
    }

    async fn list_pod_sandbox(&self, r: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        ok(ListPodSandboxResponse { items: self.list_sandboxes(r.into_inner().filter) })
    }

    async fn stream_pod_sandboxes(
        &self,
        r: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let items = self.list_sandboxes(r.into_inner().filter);
        stream(items, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes })
    }

    async fn create_container(&self, r: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let r = r.into_inner();
        let config = r.config.ok_or_else(|| Status::invalid_argument("config is missing"))?;
        ok(CreateContainerResponse { container_id: self.runtime.create_container(&r.pod_sandbox_id, config).await? })
    }

    async fn start_container(&self, r: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        self.runtime.start_container(&r.into_inner().container_id).await?;
        ok(StartContainerResponse {})
    }

    async fn stop_container(&self, r: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let r = r.into_inner();
        self.runtime.stop_container(&r.container_id, r.timeout).await?;
        ok(StopContainerResponse {})
    }

    async fn remove_container(&self, r: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        self.runtime.remove_container(&r.into_inner().container_id).await?;
        ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, r: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        ok(ListContainersResponse { containers: self.list_containers_of(r.into_inner().filter) })
    }

    async fn stream_containers(&self, r: Request<StreamContainersRequest>) -> Answer<Self::StreamContainersStream> {
        let items = self.list_containers_of(r.into_inner().filter);
        stream(items, |containers| StreamContainersResponse { containers })
    }

    async fn container_status(&self, r: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let r = r.into_inner();
        let container = self.runtime.container(&r.container_id)?;
        let mut info = std::collections::HashMap::new();
        if r.verbose {
            let (pid, sandbox) = container.read(|record| (record.pid, record.sandbox_id.clone()));
            info.insert("info".into(), format!("{{\"pid\":{pid},\"sandboxID\":{sandbox:?}}}"));
        }
        ok(ContainerStatusResponse { status: Some(status::container_status(&container)), info })
    }

    async fn update_container_resources(
        &self,
        r: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let r = r.into_inner();
        self.runtime.update_resources(&r.container_id, r.linux.unwrap_or_default()).await?;
        ok(UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(&self, r: Request<ReopenContainerLogRequest>) -> Answer<ReopenContainerLogResponse> {
        self.runtime.reopen_log(&r.into_inner().container_id).await?;
        ok(ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, r: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        ok(self.runtime.exec_sync(r.into_inner()).await?)
    }

    async fn exec(&self, r: Request<ExecRequest>) -> Answer<ExecResponse> {
        let mut r = r.into_inner();
        r.container_id = self.runtime.running(&r.container_id)?;
        if r.cmd.is_empty() {
            return Err(Status::invalid_argument("exec: no command specified"));
        }
        ok(ExecResponse { url: self.runtime.streams.exec(r)? })
    }

    async fn attach(&self, r: Request<AttachRequest>) -> Answer<AttachResponse> {
        let mut r = r.into_inner();
        r.container_id = self.runtime.running(&r.container_id)?;
        ok(AttachResponse { url: self.runtime.streams.attach(r)? })
    }

    async fn port_forward(&self, r: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        let mut r = r.into_inner();
        let sandbox = self.runtime.sandbox(&r.pod_sandbox_id)?;
        if status::sandbox_item(&sandbox).state() != PodSandboxState::SandboxReady {
            return Err(Status::failed_precondition(format!("sandbox {:?} is not ready", r.pod_sandbox_id)));
        }
        r.pod_sandbox_id = sandbox.id.clone();
        ok(PortForwardResponse { url: self.runtime.streams.port_forward(r)? })
    }

    async fn container_stats(&self, r: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        let container = self.runtime.container(&r.into_inner().container_id)?;
        let runtime = self.runtime.clone();
        let stats = crate::runtime::blocking(move || runtime.container_stats(&container)).await?;
        ok(ContainerStatsResponse { stats: Some(stats) })
    }

    async fn list_container_stats(&self, r: Request<ListContainerStatsRequest>) -> Answer<ListContainerStatsResponse> {
        ok(ListContainerStatsResponse { stats: self.all_container_stats(r.into_inner().filter).await? })
    }

    async fn stream_container_stats(
        &self,
        r: Request<StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let items = self.all_container_stats(r.into_inner().filter).await?;
        stream(items, |container_stats| StreamContainerStatsResponse { container_stats })
    }

    async fn pod_sandbox_stats(&self, r: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        let sandbox = self.runtime.sandbox(&r.into_inner().pod_sandbox_id)?;
        let runtime = self.runtime.clone();
        let stats = crate::runtime::blocking(move || runtime.sandbox_stats(&sandbox)).await?;
        ok(PodSandboxStatsResponse { stats: Some(stats) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        r: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        ok(ListPodSandboxStatsResponse { stats: self.all_sandbox_stats(r.into_inner().filter).await? })
    }

    async fn stream_pod_sandbox_stats(
        &self,
        r: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let items = self.all_sandbox_stats(r.into_inner().filter).await?;
        stream(items, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats })
    }

    async fn update_runtime_config(
        &self,
        r: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        let config = r.into_inner().runtime_config.and_then(|c| c.network_config).unwrap_or_default();
        let ranges = pod_ranges(&config.pod_cidr)?;
        if !ranges.is_empty() {
            let network = self.runtime.network.clone();
            let taken = blocking(move || network.set_ranges(&ranges)).await?;
            // They are known from now on; whether the network works is told by `status`, for as long as it doesn't.
            if let Err(error) = taken {
                tracing::warn!(%error, ranges = config.pod_cidr, "the node's pod addresses");
            }
        }
        ok(UpdateRuntimeConfigResponse {})
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let network = self.runtime.network.clone();
        let network = blocking(move || network.ready()).await?;
        let condition = |name: &str, state: Result<(), NotReady>| RuntimeCondition {
            r#type: name.into(),
            status: state.is_ok(),
            reason: if state.is_ok() { String::new() } else { "NetworkPluginNotReady".into() },
            message: state.err().map(|reason| reason.to_string()).unwrap_or_default(),
        };
        ok(StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![condition("RuntimeReady", Ok(())), condition("NetworkReady", network)],
            }),
            info: Default::default(),
            runtime_handlers: vec![RuntimeHandler {
                name: String::new(),
                features: Some(RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false }),
            }],
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
                mount_options: true,
            }),
        })
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        Err(Error::Unsupported("checkpoints are not supported".into()).into())
    }

    async fn checkpoint_pod(&self, _: Request<CheckpointPodRequest>) -> Answer<CheckpointPodResponse> {
        Err(Error::Unsupported("checkpoints are not supported".into()).into())
    }

    async fn restore_pod(&self, _: Request<RestorePodRequest>) -> Answer<RestorePodResponse> {
        Err(Error::Unsupported("checkpoints are not supported".into()).into())
    }

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let lost = |_| Status::data_loss("the listener fell behind: list again");
        let events = BroadcastStream::new(self.runtime.events.subscribe()).map(move |event| event.map_err(lost));
        ok(Box::pin(events.take_until(self.runtime.closing.clone().cancelled_owned())))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        ok(ListMetricDescriptorsResponse { descriptors: crate::metrics::descriptors() })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        ok(ListPodSandboxMetricsResponse { pod_metrics: self.all_metrics().await? })
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let items = self.all_metrics().await?;
        stream(items, |pod_sandbox_metrics| StreamPodSandboxMetricsResponse { pod_sandbox_metrics })
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 };
        ok(RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_pod_sandbox_resources(
        &self,
        r: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        // Pod groups are the kubelet's; there is nothing of a sandbox's own to change.
        self.runtime.sandbox(&r.into_inner().pod_sandbox_id)?;
        ok(UpdatePodSandboxResourcesResponse {})
    }
}

impl Service {
    fn list_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Vec<PodSandbox> {
        let all = self.runtime.sandboxes().into_iter().map(|s| status::sandbox_item(&s));
        all.filter(|s| status::sandbox_passes(s, filter.as_ref())).collect()
    }

    fn list_containers_of(&self, filter: Option<ContainerFilter>) -> Vec<Container> {
        let all = self.runtime.containers().into_iter().map(|c| status::container_item(&c));
        all.filter(|c| status::container_passes(c, filter.as_ref())).collect()
    }

    async fn all_container_stats(&self, filter: Option<ContainerStatsFilter>) -> Result<Vec<ContainerStats>, Status> {
        let f = filter.unwrap_or_default();
        let filter = ContainerFilter {
            id: f.id,
            state: None,
            pod_sandbox_id: f.pod_sandbox_id,
            label_selector: f.label_selector,
        };
        let runtime = self.runtime.clone();
        let work = move || {
            let chosen = runtime.containers().into_iter();
            let chosen = chosen.filter(|c| c.is_running());
            let chosen = chosen.filter(|c| status::container_passes(&status::container_item(c), Some(&filter)));
            chosen.map(|c| runtime.container_stats(&c)).collect()
        };
        Ok(blocking(work).await?)
    }

    async fn all_sandbox_stats(&self, filter: Option<PodSandboxStatsFilter>) -> Result<Vec<PodSandboxStats>, Status> {
        let f = filter.unwrap_or_default();
        let ready = PodSandboxStateValue { state: PodSandboxState::SandboxReady as i32 };
        let filter = PodSandboxFilter { id: f.id, state: Some(ready), label_selector: f.label_selector };
        let runtime = self.runtime.clone();
        let work = move || {
            let chosen = runtime.sandboxes().into_iter();
            let chosen = chosen.filter(|s| status::sandbox_passes(&status::sandbox_item(s), Some(&filter)));
            chosen.map(|s| runtime.sandbox_stats(&s)).collect()
        };
        Ok(blocking(work).await?)
    }

    async fn all_metrics(&self) -> Result<Vec<PodSandboxMetrics>, Status> {
        let runtime = self.runtime.clone();
        let work = move || runtime.sandboxes().into_iter().map(|s| runtime.sandbox_metrics(&s)).collect();
        Ok(blocking(work).await?)
    }
}

/// The node's ranges as a kubelet says them: one, or one of each family with a comma between.
fn pod_ranges(text: &str) -> Result<Vec<Prefix>, Error> {
    let each = text.split(',').map(str::trim).filter(|range| !range.is_empty());
    each.map(|range| range.parse().map_err(|e| Error::Invalid(format!("pod_cidr {text:?}: {e}")))).collect()
}
