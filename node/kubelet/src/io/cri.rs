//! The container runtime over its CRI socket: calls, and its answers in the worker's terms. Does I/O.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use wire::cri;
use wire::cri::image_service_client::ImageServiceClient;
use wire::cri::runtime_service_client::RuntimeServiceClient;

use crate::error::Error;
use crate::names::{annotation, label};
use crate::worker::{Instance, RunState, SandboxRecord};

/// Upstream's bounds on a termination message: of the file, and of what is taken from the log instead.
const MESSAGE_MAX: usize = 4096;
const LOG_MESSAGE_MAX: usize = 2048;
const LOG_MESSAGE_LINES: usize = 80;
/// A list of all containers of a full node with their annotations stays below this.
const MAX_ANSWER: usize = 64 << 20;

/// Clients of both services of one runtime. Cheap to clone.
#[derive(Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// As Go programs print a gRPC error.
pub fn shown(status: &Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

pub fn is_not_found(status: &Status) -> bool {
    status.code() == Code::NotFound
}

impl Cri {
    /// Connects when the first call is made, and again whenever the runtime went away.
    pub fn connect(endpoint: &str) -> Result<Cri, Error> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint).to_owned();
        if !path.starts_with('/') {
            let message = "only unix sockets are supported: unix:///path/to/runtime.sock".to_owned();
            return Err(Error::Runtime { endpoint: endpoint.to_owned(), message });
        }
        let path = PathBuf::from(path);
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Ok(Cri {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER),
        })
    }

    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    pub fn images(&self) -> ImageServiceClient<Channel> {
        self.images.clone()
    }

    pub async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus, Status> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = self.runtime().pod_sandbox_status(request).await?.into_inner();
        answer.status.ok_or_else(|| Status::internal("the runtime sent no sandbox status"))
    }

    pub async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus, Status> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.runtime().container_status(request).await?.into_inner();
        answer.status.ok_or_else(|| Status::internal("the runtime sent no container status"))
    }

    /// One container, with its termination message if it ended.
    pub async fn instance(&self, id: &str) -> Result<Instance, Status> {
        Ok(instance(self.container_status(id).await?))
    }

    /// The image if the runtime has it.
    pub async fn image(&self, image: &str) -> Result<Option<cri::Image>, Status> {
        let spec = cri::ImageSpec { image: image.to_owned(), ..cri::ImageSpec::default() };
        let request = cri::ImageStatusRequest { image: Some(spec), verbose: false };
        Ok(self.images().image_status(request).await?.into_inner().image)
    }

    pub async fn sandboxes(&self, uid: Option<&str>) -> Result<Vec<cri::PodSandbox>, Status> {
        let filter = cri::PodSandboxFilter { label_selector: of_pod(uid), ..cri::PodSandboxFilter::default() };
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        Ok(self.runtime().list_pod_sandbox(request).await?.into_inner().items)
    }

    pub async fn containers(&self, uid: Option<&str>) -> Result<Vec<cri::Container>, Status> {
        let filter = cri::ContainerFilter { label_selector: of_pod(uid), ..cri::ContainerFilter::default() };
        let request = cri::ListContainersRequest { filter: Some(filter) };
        Ok(self.runtime().list_containers(request).await?.into_inner().containers)
    }
}

fn of_pod(uid: Option<&str>) -> std::collections::HashMap<String, String> {
    uid.map(|u| (label::POD_UID.to_owned(), u.to_owned())).into_iter().collect()
}

fn time(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten()
}

/// The sandbox as the worker knows it.
pub fn sandbox(status: &cri::PodSandboxStatus) -> SandboxRecord {
    let network = status.network.clone().unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
    SandboxRecord {
        id: status.id.clone(),
        attempt: status.metadata.as_ref().map_or(0, |m| m.attempt),
        ready: status.state == cri::PodSandboxState::SandboxReady as i32,
        ips: std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect(),
        created_at: time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

/// The container as the worker knows it. Reads the termination message of one that ended.
pub fn instance(status: cri::ContainerStatus) -> Instance {
    let state = match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => RunState::Created,
        Ok(cri::ContainerState::ContainerRunning) => RunState::Running,
        Ok(cri::ContainerState::ContainerExited) => RunState::Exited,
        _ => RunState::Unknown,
    };
    let message = if state == RunState::Exited { termination_message(&status) } else { status.message.clone() };
    let metadata = status.metadata.clone().unwrap_or_default();
    let note = |key: &str| status.annotations.get(key).cloned();
    let user = status.user.and_then(|u| u.linux).map(|l| (l.uid, l.gid, l.supplemental_groups));
    let image = status.image.unwrap_or_default();
    let named = if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
    Instance {
        sandbox: String::new(),
        name: status.labels.get(label::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        restarts: note(annotation::RESTART_COUNT).and_then(|c| c.parse().ok()).unwrap_or(metadata.attempt),
        state,
        created_at: time(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        started_at: time(status.started_at),
        finished_at: if state >= RunState::Unknown {
            time(status.finished_at).or(time(status.created_at))
        } else {
            None
        },
        exit_code: status.exit_code,
        reason: status.reason,
        message,
        image: named,
        image_id: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
        hash: note(annotation::HASH).unwrap_or_default(),
        user,
        log_path: status.log_path,
        run: note(annotation::RUN).unwrap_or_default(),
        id: status.id,
    }
}

/// What the container left in its termination file, or the end of its log if it failed and wants that.
fn termination_message(status: &cri::ContainerStatus) -> String {
    let wanted = status.annotations.get(annotation::TERMINATION_PATH).map_or("", String::as_str);
    let mount = status.mounts.iter().find(|m| !wanted.is_empty() && m.container_path == wanted);
    let mut text = mount.map(|m| read_end(Path::new(&m.host_path))).unwrap_or_default();
    let fallback = status.annotations.get(annotation::TERMINATION_POLICY).map_or("", String::as_str);
    let failed = status.exit_code != 0 || status.reason == "OOMKilled";
    if text.is_empty() && fallback == "FallbackToLogsOnError" && failed {
        text = crate::io::logs::tail_text(Path::new(&status.log_path), LOG_MESSAGE_LINES, LOG_MESSAGE_MAX);
    }
    if status.message.is_empty() || !text.is_empty() { text } else { status.message.clone() }
}

/// The last bytes, as upstream. Of a regular file only: what the container put there may be a pipe or a link.
fn read_end(path: &Path) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut bytes = Vec::new();
    if let Ok(mut file) = linux::root::open_regular(path) {
        let read = file.seek(SeekFrom::End(0)).and_then(|end| {
            file.seek(SeekFrom::Start(end.saturating_sub(MESSAGE_MAX as u64)))?;
            file.take(MESSAGE_MAX as u64).read_to_end(&mut bytes)
        });
        if let Err(error) = read {
            tracing::debug!(%error, file = %path.display(), "termination message not read");
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
