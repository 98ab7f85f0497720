//! The executor of the kubelet: runs what workers ask for, one task an action, and answers with an event. Does I/O.
//!
//! Nothing is decided here. An action gets what it needs of the pod as it was when it was asked for. A file a kind of
//! action: `pull`, `sandbox`, `containers`, `mirror`; probes are `prober` and hooks are `hooks`, which both ask over
//! `http_get`, `grpc_health` and `dial`.

mod containers;
mod dial;
mod grpc_health;
mod hooks;
mod http_get;
mod mirror;
mod prober;
pub mod pull;
mod sandbox;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use client::{Cache, EventRecorder, EventType};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;

use crate::config::Config;
use crate::io::cri::Cri;
use crate::io::objects::Objects;
use crate::messages::{Mailbox, Message};
use crate::node::addresses::Addresses;
use crate::pod::downward_api::Facts;
use crate::pod::pods;
use crate::pod::security::ImageUser;
use crate::volumes::Volumes;
use crate::worker::{Action, Event, PodWorker};

/// What all actions share.
pub struct Executor {
    pub config: Arc<Config>,
    pub cri: Cri,
    pub client: kube::Client,
    pub events: EventRecorder,
    pub objects: Arc<Objects>,
    pub volumes: Arc<Volumes>,
    pub services: Cache<Service>,
    pub nodes: Cache<Node>,
    pub cgroups: Option<linux::cgroup::Cgroups>,
    pub node_memory: u64,
    pub addresses: Addresses,
    /// To the loop: answers to actions.
    pub mailbox: Mailbox,
    /// One pull at a time, if configured so.
    pub pulls: Option<tokio::sync::Semaphore>,
    pub found: Found,
}

/// What actions found out and later ones need.
#[derive(Default)]
pub struct Found {
    /// Whom images run as, by image ID: it never changes.
    pub image_users: Mutex<HashMap<String, ImageUser>>,
    /// Mirror pods of static pods: UID of the static pod to UID of the mirror.
    pub mirrors: Mutex<HashMap<String, String>>,
    /// Images of image volumes, by pod UID and volume.
    pub volume_images: Mutex<HashMap<(String, String), wire::cri::ImageSpec>>,
    /// How probes of pods that are here ended.
    pub probe_counts: Mutex<BTreeMap<ProbeCount, u64>>,
}

/// Whose probes are counted, and how they ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeCount {
    pub uid: String,
    pub container: String,
    pub namespace: String,
    pub pod: String,
    pub kind: &'static str,
    pub result: &'static str,
}

/// No file of the host that goes into a pod is longer than what a pod may have of it (an Event, a mount, a message).
const MAX_HOST_FILE: u64 = 1 << 20;

/// A file of the host that goes into pods (resolv.conf, hosts), empty where there is none.
fn host_file(path: &Path) -> std::io::Result<String> {
    let found = std::fs::canonicalize(path).and_then(|path| linux::root::read_regular(path, MAX_HOST_FILE));
    match found {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(std::io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    }
}

/// A directory whose parent only the kubelet writes to, made when it is missing.
fn make_below(dir: &Path) -> std::io::Result<linux::root::Beneath> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(std::io::Error::other(format!("{} has no parent", dir.display())));
    };
    linux::root::Beneath::open(parent)?.make_dirs(name, 0o755)
}

/// The pod as an action sees it.
pub struct Context {
    pub pod: Arc<Pod>,
    pub facts: Facts,
    pub attempt: u32,
    /// IDs of running containers by name.
    pub running: HashMap<String, String>,
}

impl Executor {
    fn context(&self, worker: &PodWorker) -> Context {
        let ips = if pods::host_network(&worker.pod) { self.addresses.texts() } else { worker.ips.clone() };
        let running = worker.slots.iter().filter_map(|s| Some((s.name().to_owned(), s.running()?.id.clone())));
        Context {
            pod: worker.pod.clone(),
            facts: self.facts(ips),
            attempt: worker.attempt.saturating_sub(1),
            running: running.collect(),
        }
    }

    /// Values for downward-API files and variables.
    pub fn facts(&self, pod_ips: Vec<String>) -> Facts {
        let node = self.nodes.get_in("", &self.config.node_name);
        let allocatable = node.and_then(|n| n.status.as_ref()?.allocatable.clone()).unwrap_or_default();
        Facts { host_ips: self.addresses.texts(), pod_ips, allocatable }
    }

    /// Starts the action; its answer comes to the loop as [`Message::Answer`].
    pub fn run(self: &Arc<Self>, worker: &PodWorker, action: Action) {
        if let Action::Note { container, warning, reason, note } = &action {
            return self.note(&worker.pod, container.as_deref(), *warning, reason, note);
        }
        let executor = self.clone();
        let context = self.context(worker);
        let uid = pods::uid(&worker.pod).to_owned();
        tokio::spawn(async move {
            if let Some(event) = executor.act(context, action).await {
                executor.mailbox.send(Message::Answer { uid, event });
            }
        });
    }

    async fn act(&self, context: Context, action: Action) -> Option<Event> {
        let pod = context.pod.clone();
        let uid = pods::uid(&pod).to_owned();
        Some(match action {
            Action::Mount => Event::Mounted(self.mount(&context).await),
            Action::CreateSandbox { attempt } => {
                Event::SandboxCreated { attempt, result: self.create_sandbox(&pod, attempt).await }
            }
            Action::Pull { container, image } => {
                let result = self.ensure_image(&pod, &container, &image, context.attempt).await;
                Event::Pulled { container, image, result }
            }
            Action::Start { container, image, sandbox, attempt } => {
                let result = self.start_container(&context, &container, image, &sandbox, attempt).await;
                Event::Started { container, attempt, result }
            }
            Action::PostStart { container, id } => {
                let result = self.post_start(&context, &container, &id).await;
                Event::Hooked { container, id, result }
            }
            Action::Kill { container, id, grace, message, pre_stop } => {
                let result = self.kill_container(&context, &container, &id, grace, message, pre_stop).await;
                Event::Killed { container, id, result }
            }
            Action::Probe { container, id, kind } => {
                let outcome = self.probe(&context, &container, &id, kind).await;
                Event::Probed { container, id, kind, outcome }
            }
            Action::StopSandbox { id } => {
                let result = self.stop_sandbox(&id).await;
                Event::SandboxStopped { id, result }
            }
            Action::TearDown => Event::TornDown(self.tear_down(&pod).await),
            Action::Remove => Event::Removed(self.remove_pod(&pod).await),
            Action::RemoveContainer { id } => {
                self.remove_container(&id).await;
                return None;
            }
            Action::WriteStatus { old, new } => Event::StatusWritten(self.write_status(&pod, &uid, &old, &new).await),
            Action::DeletePod => Event::Deleted(self.delete_pod(&pod, &uid).await),
            // Told by `run`, in order.
            Action::Note { .. } | Action::Forget => return None,
        })
    }

    async fn mount(&self, context: &Context) -> Result<(), String> {
        self.volumes.mount(&context.pod, &context.facts).await?;
        self.pull_volumes(&context.pod, context.attempt).await
    }

    /// Tells users; in the order of the calls. When more is told than the API takes, the newest is lost.
    pub fn note(&self, pod: &Pod, container: Option<&str>, warning: bool, reason: &str, note: &str) {
        let regarding = match container {
            Some(name) => pods::container_reference(pod, name),
            None => client::reference(pod),
        };
        let kind = if warning { EventType::Warning } else { EventType::Normal };
        self.events.event(&regarding, kind, reason, note);
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pods::namespace(pod))
    }

    async fn write_status(
        &self,
        pod: &Pod,
        uid: &str,
        old: &k8s_openapi::api::core::v1::PodStatus,
        new: &k8s_openapi::api::core::v1::PodStatus,
    ) -> Result<Option<Arc<Pod>>, String> {
        let uid = if pods::is_static(pod) {
            // The API knows a static pod by its mirror only.
            let Some(mirror) = self.found.mirrors.lock().get(uid).cloned() else {
                return Err("the mirror pod is not there yet".into());
            };
            mirror
        } else {
            uid.to_owned()
        };
        let patch = crate::pod::patch::status(&uid, old, new);
        let answer =
            self.pods(pod).patch_status(pods::name(pod), &PatchParams::default(), &Patch::Strategic(patch)).await;
        match answer {
            Ok(pod) => Ok(Some(Arc::new(pod))),
            Err(error) if crate::api::is_not_found(&error) => Ok(None),
            // The name belongs to another pod by now.
            Err(kube::Error::Api(status)) if status.code == 409 && status.message.contains("UID") => Ok(None),
            Err(error) => Err(crate::api::message(&error)),
        }
    }

    async fn delete_pod(&self, pod: &Pod, uid: &str) -> Result<(), String> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.pods(pod).delete(pods::name(pod), &params).await {
            Ok(_) => Ok(()),
            Err(error) if crate::api::is_not_found(&error) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(crate::api::message(&error)),
        }
    }
}
