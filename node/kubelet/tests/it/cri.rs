//! A container runtime in memory: sandboxes and containers as records, events, logs on disk, exec by a script.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tonic::{Request, Response, Status};
use wire::cri::image_service_server::{ImageService, ImageServiceServer};
use wire::cri::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use wire::cri::*;

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Default)]
pub struct State {
    next: u32,
    pub sandboxes: BTreeMap<String, (PodSandboxConfig, PodSandboxState)>,
    pub containers: BTreeMap<String, Container_>,
    pub images: Vec<String>,
    /// Answers of exec by command line; anything else works.
    pub exec: HashMap<String, i32>,
    pub stream_url: String,
    pub pod_cidr: String,
    /// How much later than what they tell of events arrive.
    pub event_lag: std::time::Duration,
}

pub struct Container_ {
    pub sandbox: String,
    pub config: ContainerConfig,
    pub log: PathBuf,
    pub state: ContainerState,
    pub exit_code: i32,
    times: [i64; 3],
}

/// Clones are the same runtime.
#[derive(Clone)]
pub struct Runtime {
    pub state: Arc<Mutex<State>>,
    events: broadcast::Sender<ContainerEventResponse>,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

impl Runtime {
    /// Serves on a socket in `dir` until the test's runtime ends.
    pub fn serve(dir: &Path) -> (Runtime, String) {
        let path = dir.join("cri.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let runtime = Runtime { state: Arc::default(), events: broadcast::Sender::new(1024) };
        let service = runtime.clone();
        let incoming = futures::stream::unfold(listener, |listener| async move {
            let next = listener.accept().await.map(|(stream, _)| stream);
            Some((next, listener))
        });
        tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(RuntimeServiceServer::new(service.clone()))
                .add_service(ImageServiceServer::new(service))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        (runtime, format!("unix://{}", path.display()))
    }

    /// A running container by name.
    pub fn running(&self, name: &str) -> Option<String> {
        let state = self.state.lock();
        let is = |c: &Container_| {
            c.state == ContainerState::ContainerRunning && c.config.metadata.as_ref().unwrap().name == name
        };
        state.containers.iter().find(|(_, c)| is(c)).map(|(id, _)| id.clone())
    }

    /// The container ends by itself.
    pub fn exit(&self, id: &str, code: i32) {
        {
            let mut state = self.state.lock();
            let Some(c) = state.containers.get_mut(id).filter(|c| c.state != ContainerState::ContainerExited) else {
                return;
            };
            c.state = ContainerState::ContainerExited;
            c.exit_code = code;
            c.times[2] = now();
        }
        self.tell(id, ContainerEventType::ContainerStoppedEvent);
    }

    pub fn write_log(&self, id: &str, lines: &[&str]) {
        use std::io::Write;
        let log = self.state.lock().containers[id].log.clone();
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        for line in lines {
            writeln!(file, "2026-01-01T00:00:00Z stdout F {line}").unwrap();
        }
    }

    fn tell(&self, id: &str, kind: ContainerEventType) {
        let state = self.state.lock();
        let sandbox = state.containers.get(id).map_or(id.to_owned(), |c| c.sandbox.clone());
        let Some(found) = state.sandboxes.get(&sandbox) else { return };
        let mine = state.containers.iter().filter(|(_, c)| c.sandbox == sandbox);
        let _ = self.events.send(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: now(),
            pod_sandbox_status: Some(sandbox_status(&sandbox, found)),
            containers_statuses: mine.map(|(id, c)| status(id, c)).collect(),
        });
    }
}

fn sandbox_status(id: &str, (config, state): &(PodSandboxConfig, PodSandboxState)) -> PodSandboxStatus {
    PodSandboxStatus {
        id: id.to_owned(),
        metadata: config.metadata.clone(),
        state: *state as i32,
        created_at: 1,
        network: Some(PodSandboxNetworkStatus { ip: "10.1.0.5".into(), additional_ips: vec![] }),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        ..PodSandboxStatus::default()
    }
}

fn status(id: &str, c: &Container_) -> ContainerStatus {
    ContainerStatus {
        id: id.to_owned(),
        metadata: c.config.metadata.clone(),
        state: c.state as i32,
        created_at: c.times[0],
        started_at: c.times[1],
        finished_at: c.times[2],
        exit_code: c.exit_code,
        image: c.config.image.clone(),
        image_ref: "sha256:1".into(),
        labels: c.config.labels.clone(),
        annotations: c.config.annotations.clone(),
        mounts: c.config.mounts.clone(),
        log_path: c.log.to_string_lossy().into_owned(),
        ..ContainerStatus::default()
    }
}

fn ok<T>(value: T) -> Answer<T> {
    Ok(Response::new(value))
}

fn refused<T>() -> Answer<T> {
    Err(Status::unimplemented("not in the fake runtime"))
}

fn selected(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

macro_rules! refuse {
    ($($name:ident($request:ty) -> $reply:ty;)*) => {
        $(fn $name<'a, 'b>(&'a self, _: Request<$request>)
            -> Pin<Box<dyn Future<Output = Answer<$reply>> + Send + 'b>> where 'a: 'b, Self: 'b {
            Box::pin(async { refused() })
        })*
    };
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    type StreamPodSandboxesStream = Items<StreamPodSandboxesResponse>;
    type StreamContainersStream = Items<StreamContainersResponse>;
    type StreamContainerStatsStream = Items<StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Items<StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = Items<StreamPodSandboxMetricsResponse>;
    type GetContainerEventsStream = Items<ContainerEventResponse>;

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        ok(VersionResponse { runtime_name: "fake".into(), runtime_version: "1".into(), ..VersionResponse::default() })
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let network = !self.state.lock().pod_cidr.is_empty();
        let condition =
            |kind: &str, status| RuntimeCondition { r#type: kind.into(), status, ..RuntimeCondition::default() };
        let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", network)];
        ok(StatusResponse { status: Some(RuntimeStatus { conditions }), ..StatusResponse::default() })
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        let config = request.into_inner().runtime_config.unwrap().network_config.unwrap();
        self.state.lock().pod_cidr = config.pod_cidr;
        ok(UpdateRuntimeConfigResponse {})
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("sandbox{}", state.next);
        state.sandboxes.insert(id.clone(), (request.into_inner().config.unwrap(), PodSandboxState::SandboxReady));
        ok(RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        let mut state = self.state.lock();
        if let Some(found) = state.sandboxes.get_mut(&request.into_inner().pod_sandbox_id) {
            found.1 = PodSandboxState::SandboxNotready;
        }
        ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.state.lock();
        state.sandboxes.remove(&id);
        state.containers.retain(|_, c| c.sandbox != id);
        ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let state = self.state.lock();
        let found = state.sandboxes.get(&id).ok_or(Status::not_found("no such sandbox"))?;
        ok(PodSandboxStatusResponse { status: Some(sandbox_status(&id, found)), ..PodSandboxStatusResponse::default() })
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let state = self.state.lock();
        let found = state.sandboxes.iter().filter(|(_, (c, _))| selected(&c.labels, &filter.label_selector));
        let items = found.map(|(id, (c, s))| PodSandbox {
            id: id.clone(),
            metadata: c.metadata.clone(),
            state: *s as i32,
            labels: c.labels.clone(),
            ..PodSandbox::default()
        });
        ok(ListPodSandboxResponse { items: items.collect() })
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.unwrap();
        let mut state = self.state.lock();
        let (sandbox, _) = state.sandboxes.get(&request.pod_sandbox_id).ok_or(Status::not_found("no such sandbox"))?;
        let log = Path::new(&sandbox.log_directory).join(&config.log_path);
        state.next += 1;
        let id = format!("container{}", state.next);
        let made = Container_ {
            sandbox: request.pod_sandbox_id,
            config,
            log,
            state: ContainerState::ContainerCreated,
            exit_code: 0,
            times: [now(), 0, 0],
        };
        state.containers.insert(id.clone(), made);
        drop(state);
        self.tell(&id, ContainerEventType::ContainerCreatedEvent);
        ok(CreateContainerResponse { container_id: id })
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let id = request.into_inner().container_id;
        {
            let mut state = self.state.lock();
            let c = state.containers.get_mut(&id).ok_or(Status::not_found("no such container"))?;
            c.state = ContainerState::ContainerRunning;
            c.times[1] = now();
            std::fs::write(&c.log, "").unwrap();
        }
        self.tell(&id, ContainerEventType::ContainerStartedEvent);
        ok(StartContainerResponse {})
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        self.exit(&request.into_inner().container_id, 143);
        ok(StopContainerResponse {})
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        self.state.lock().containers.remove(&request.into_inner().container_id);
        ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let state = self.state.lock();
        let found = state.containers.iter().filter(|(_, c)| selected(&c.config.labels, &filter.label_selector));
        let containers = found.map(|(id, c)| Container {
            id: id.clone(),
            pod_sandbox_id: c.sandbox.clone(),
            metadata: c.config.metadata.clone(),
            state: c.state as i32,
            labels: c.config.labels.clone(),
            ..Container::default()
        });
        ok(ListContainersResponse { containers: containers.collect() })
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let state = self.state.lock();
        let found = state.containers.get(&id).ok_or(Status::not_found("no such container"))?;
        ok(ContainerStatusResponse { status: Some(status(&id, found)), ..ContainerStatusResponse::default() })
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let command = request.into_inner().cmd.join(" ");
        let exit_code = self.state.lock().exec.get(&command).copied().unwrap_or(0);
        ok(ExecSyncResponse { stdout: format!("ran {command}").into(), exit_code, ..ExecSyncResponse::default() })
    }

    async fn exec(&self, _: Request<ExecRequest>) -> Answer<ExecResponse> {
        ok(ExecResponse { url: self.state.lock().stream_url.clone() })
    }

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let events = self.events.subscribe();
        let state = self.state.clone();
        let next = move |mut events: broadcast::Receiver<ContainerEventResponse>| {
            let state = state.clone();
            async move {
                let event = events.recv().await.ok()?;
                let lag = state.lock().event_lag;
                let due = UNIX_EPOCH + std::time::Duration::from_nanos(event.created_at as u64) + lag;
                tokio::time::sleep(due.duration_since(SystemTime::now()).unwrap_or_default()).await;
                Some((Ok(event), events))
            }
        };
        ok(futures::stream::unfold(events, next).boxed())
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let log = self.state.lock().containers[&request.into_inner().container_id].log.clone();
        std::fs::write(log, "").unwrap();
        ok(ReopenContainerLogResponse {})
    }

    refuse! {
        stream_pod_sandboxes(StreamPodSandboxesRequest) -> Self::StreamPodSandboxesStream;
        stream_containers(StreamContainersRequest) -> Self::StreamContainersStream;
        stream_container_stats(StreamContainerStatsRequest) -> Self::StreamContainerStatsStream;
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> Self::StreamPodSandboxStatsStream;
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest) -> Self::StreamPodSandboxMetricsStream;
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
        attach(AttachRequest) -> AttachResponse;
        port_forward(PortForwardRequest) -> PortForwardResponse;
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
        checkpoint_pod(CheckpointPodRequest) -> CheckpointPodResponse;
        restore_pod(RestorePodRequest) -> RestorePodResponse;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
    }
}

#[tonic::async_trait]
impl ImageService for Runtime {
    type StreamImagesStream = Items<StreamImagesResponse>;

    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let images = self.state.lock().images.iter().map(|name| image(name)).collect();
        ok(ListImagesResponse { images })
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let wanted = request.into_inner().image.unwrap().image;
        let found = self.state.lock().images.iter().find(|n| **n == wanted || id_of(n) == wanted).map(|n| image(n));
        ok(ImageStatusResponse { image: found, ..ImageStatusResponse::default() })
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let wanted = request.into_inner().image.unwrap().image;
        if wanted.contains("missing") {
            return Err(Status::not_found("no such image in the registry"));
        }
        let id = id_of(&wanted);
        self.state.lock().images.push(wanted);
        ok(PullImageResponse { image_ref: id })
    }

    async fn remove_image(&self, _: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        refused()
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        refused()
    }

    async fn stream_images(&self, _: Request<StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        refused()
    }
}

fn id_of(name: &str) -> String {
    format!("sha256:{name}")
}

fn image(name: &str) -> Image {
    Image { id: id_of(name), repo_tags: vec![name.to_owned()], size: 7, ..Image::default() }
}
