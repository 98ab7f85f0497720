//! What a worker hears and what it asks for: the two ends of [`super::PodWorker::step`], and the records that they carry.
//! Pure data. Made by the loop and the executor, and by `drive`, `end` and `take`.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::slot::Instance;
use crate::pod::probe::{Kind, Outcome};
use crate::pod::verdict::Verdict;

/// A sandbox as the runtime reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxRecord {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub ips: Vec<String>,
    pub created_at: Timestamp,
}

/// Why a container did not start: the waiting reason and its message.
#[derive(Debug, Clone, PartialEq)]
pub struct StartError {
    pub reason: &'static str,
    pub message: String,
}

/// What happened. Whatever comes from the runtime may be old by the time it is heard, and in no order with the answers to
/// our own calls: each word says which container, sandbox, attempt or image it is about, and moves nothing but that.
#[derive(Debug, Clone)]
pub enum Event {
    /// The pod, new or changed, from its source.
    Spec(Arc<Pod>),
    /// The source has the pod no more.
    Gone,
    /// What the runtime has of this pod.
    Observed {
        sandbox: Option<SandboxRecord>,
        containers: Vec<Instance>,
    },
    /// The runtime removed a container.
    Vanished {
        id: String,
    },
    Mounted(Result<(), String>),
    SandboxCreated {
        attempt: u32,
        result: Result<SandboxRecord, String>,
    },
    Pulled {
        container: String,
        /// As the container names it.
        image: String,
        result: Result<String, StartError>,
    },
    Started {
        container: String,
        attempt: u32,
        result: Result<Instance, StartError>,
    },
    /// The postStart hook of this instance is through.
    Hooked {
        container: String,
        id: String,
        result: Result<(), String>,
    },
    Killed {
        container: String,
        id: String,
        /// As the runtime has it after that; `None` when it has it no more.
        result: Result<Option<Instance>, String>,
    },
    Probed {
        container: String,
        id: String,
        kind: Kind,
        outcome: Outcome,
    },
    SandboxStopped {
        id: String,
        result: Result<(), String>,
    },
    TornDown(Result<(), String>),
    Removed(Result<(), String>),
    /// The answer to a write: the pod as the API has it now, or its fault. `Ok(None)`: the API has no such pod.
    StatusWritten(Result<Option<Arc<Pod>>, String>),
    Deleted(Result<(), String>),
    /// The node can't keep the pod.
    Evict {
        verdict: Verdict,
        grace: i64,
    },
    /// The node has other addresses now.
    HostIps(Vec<String>),
    /// An object that the pod refers to changed: what failed for it may go now.
    Refresh,
    /// A deadline passed.
    Tick,
}

/// What is to be done. Everything but [`Action::Note`] is answered by an [`Event`], except where said.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Mount,
    CreateSandbox {
        attempt: u32,
    },
    Pull {
        container: String,
        image: String,
    },
    Start {
        container: String,
        image: String,
        sandbox: String,
        attempt: u32,
    },
    PostStart {
        container: String,
        id: String,
    },
    Kill {
        container: String,
        id: String,
        grace: i64,
        message: String,
        pre_stop: bool,
    },
    Probe {
        container: String,
        id: String,
        kind: Kind,
    },
    StopSandbox {
        id: String,
    },
    /// Unmount, release the cgroup and what else the pod has on the node.
    TearDown,
    /// Remove the sandboxes with all containers and logs.
    Remove,
    /// Remove one dead container; not answered.
    RemoveContainer {
        id: String,
    },
    WriteStatus {
        old: Box<PodStatus>,
        new: Box<PodStatus>,
    },
    /// Tell the API that the pod is gone.
    DeletePod,
    /// An Event for users; not answered.
    Note {
        container: Option<String>,
        warning: bool,
        reason: &'static str,
        note: String,
    },
    /// The worker is finished and can be dropped; not answered.
    Forget,
}
