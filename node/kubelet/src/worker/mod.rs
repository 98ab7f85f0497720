//! The life of one pod on this node as a state machine: [`PodWorker::step`] takes what happened and gives what to do.
//! The daemon owns one worker per pod UID, runs the actions and feeds their outcomes back; everything that was decided
//! was decided here. Pure: time is an argument, nothing waits.
//!
//! `take` applies an event to the state, `drive` and `end` compare the state with the spec and ask for what is missing;
//! each thing under way is marked in the state, so it is asked for once.

mod drive;
mod end;
mod slot;
mod take;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::pods;
use crate::probe::{Kind, Outcome};
pub use slot::{Doom, Image, Instance, RunState, Slot, Work, hash};

/// How soon a failed step (volumes, sandbox, container configuration) is tried again; upstream's worker back-off.
const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// How soon a failed write to the API is tried again.
const API_RETRY: SignedDuration = SignedDuration::from_secs(1);

/// What the worker needs to know of the node.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `containerd`, `ferrokube`: the scheme of container IDs.
    pub runtime_name: String,
    pub host_ips: Vec<String>,
    pub longest_restart_delay: SignedDuration,
    /// This run of the kubelet, as its containers say it.
    pub run: String,
}

/// Why a pod ends, where the API does not say it itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
    /// Message of the condition `DisruptionTarget` that tells controllers of a pod that was not at fault.
    pub disruption: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Life {
    Active,
    Ending(Ending),
    /// Nothing of the pod is left on the node.
    Finished,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// Containers that still run then are killed.
    pub until: Timestamp,
    /// The pod failed for this.
    pub verdict: Option<Verdict>,
}

/// A step that is done once and tried again when it fails.
#[derive(Debug, Clone, PartialEq)]
pub enum Task {
    Todo,
    Busy,
    Done,
    Retry(Timestamp),
}

impl Task {
    fn is_due(&self, now: Timestamp) -> bool {
        match self {
            Task::Todo => true,
            Task::Retry(at) => *at <= now,
            Task::Busy | Task::Done => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Sandbox {
    None,
    Creating {
        attempt: u32,
    },
    Retry {
        at: Timestamp,
    },
    Ready {
        id: String,
    },
    /// Died, or is to be stopped.
    Dead {
        id: String,
    },
    Stopping {
        id: String,
    },
    Stopped {
        id: String,
    },
    Removing {
        id: String,
    },
}

impl Sandbox {
    pub fn id(&self) -> Option<&str> {
        match self {
            Sandbox::Ready { id } | Sandbox::Dead { id } | Sandbox::Stopping { id } => Some(id),
            Sandbox::Stopped { id } | Sandbox::Removing { id } => Some(id),
            Sandbox::None | Sandbox::Creating { .. } | Sandbox::Retry { .. } => None,
        }
    }
}

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

/// The state of one pod on this node.
#[derive(Debug, Clone, PartialEq)]
pub struct PodWorker {
    pub pod: Arc<Pod>,
    pub settings: Settings,
    pub life: Life,
    /// The source still has the pod.
    pub present: bool,
    /// Refused at admission: never started.
    pub rejected: Option<Verdict>,
    pub volumes: Task,
    pub sandbox: Sandbox,
    /// Number of the next sandbox.
    pub attempt: u32,
    pub ips: Vec<String>,
    pub slots: Vec<Slot>,
    /// A regular container was started in the present sandbox.
    pub initialized: bool,
    pub torn: Task,
    pub removed: Task,
    pub deleted: Task,
    pub started: Timestamp,
    /// Status as the API has it.
    pub known: PodStatus,
    known_version: u64,
    writing: Task,
    /// What the API had before the write that is under way.
    base: Option<Box<PodStatus>>,
    /// The runtime was asked what it has of the pod; nothing is started before.
    observed: bool,
    /// The timer that the loop has set for this worker.
    pub deadline_set: Option<Timestamp>,
}

impl PodWorker {
    /// A worker for a pod that was admitted or refused. What the runtime already has of it comes as `Observed`.
    pub fn new(pod: Arc<Pod>, settings: Settings, admitted: Result<(), Verdict>, now: Timestamp) -> PodWorker {
        let known = pod.status.clone().unwrap_or_default();
        let started = known.start_time.as_ref().map_or(now, |t| t.0);
        let slots = slot::slots(&pod, &known, &[]);
        PodWorker {
            known_version: version(&pod),
            known,
            pod,
            settings,
            life: Life::Active,
            present: true,
            rejected: admitted.err(),
            volumes: Task::Todo,
            sandbox: Sandbox::None,
            attempt: 0,
            ips: Vec::new(),
            slots,
            initialized: false,
            torn: Task::Todo,
            removed: Task::Todo,
            deleted: Task::Todo,
            started,
            writing: Task::Done,
            base: None,
            observed: false,
            deadline_set: None,
        }
    }

    /// Takes what happened and says what to do about it.
    pub fn step(mut self, event: Event, now: Timestamp) -> (PodWorker, Vec<Action>) {
        let mut out = Vec::new();
        self.take(event, now, &mut out);
        // Ending starts in the same step in which it is decided.
        if self.life == Life::Active && self.observed {
            self.drive(now, &mut out);
        }
        if matches!(self.life, Life::Ending(_)) && self.observed {
            self.end(now, &mut out);
        }
        self.report(now, &mut out);
        (self, out)
    }

    /// When [`Event::Tick`] is wanted after a step at `now`, if nothing else happens before.
    pub fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let mut times: Vec<Timestamp> = Vec::new();
        let mut task = |t: &Task| {
            if let Task::Retry(at) = t {
                times.push(*at);
            }
        };
        task(&self.writing);
        if self.life != Life::Finished {
            task(&self.torn);
            task(&self.removed);
            task(&self.deleted);
        }
        if self.life == Life::Active {
            task(&self.volumes);
            if let Sandbox::Retry { at } = self.sandbox {
                times.push(at);
            }
            times.extend(self.active_deadline());
            times.extend(self.slots.iter().filter_map(|s| s.wake()));
        }
        if let Life::Ending(ending) = &self.life {
            times.push(ending.until);
            times.extend(self.slots.iter().filter_map(|s| s.retry));
        }
        if self.life != Life::Finished {
            times.extend(self.slots.iter().filter_map(|s| s.next_probe(self.life == Life::Active)));
        }
        // What was due at `now` was looked at just now.
        times.into_iter().filter(|t| *t > now).min()
    }

    fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = pods::spec(&self.pod).active_deadline_seconds?;
        self.started.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// Starts ending the pod, once; a later call may only shorten it.
    fn begin_end(&mut self, grace: i64, verdict: Option<Verdict>, now: Timestamp) {
        let until = now.saturating_add(SignedDuration::from_secs(grace.max(0))).unwrap_or(now);
        match &mut self.life {
            Life::Active => self.life = Life::Ending(Ending { until, verdict }),
            Life::Ending(ending) => {
                ending.until = ending.until.min(until);
                if ending.verdict.is_none() && !pods::is_terminal_phase(self.known.phase.as_deref().unwrap_or("")) {
                    ending.verdict = verdict;
                }
            }
            Life::Finished => {}
        }
    }

    pub fn verdict(&self) -> Option<&Verdict> {
        let ending = match &self.life {
            Life::Ending(ending) => ending.verdict.as_ref(),
            _ => None,
        };
        self.rejected.as_ref().or(ending)
    }

    pub fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|s| s.container.name == name)
    }

    /// Nothing runs and nothing is being started.
    pub fn is_still(&self) -> bool {
        self.slots.iter().all(|s| s.is_still())
    }

    /// Nothing of the pod runs, and nothing will: its volumes and cgroup are released.
    pub fn is_ended(&self) -> bool {
        self.life == Life::Finished || (matches!(self.life, Life::Ending(_)) && self.torn == Task::Done)
    }

    /// Counts when the node is asked to take another pod. What the API no longer has does not, even while it is being
    /// ended: who comes in its place was let in by a scheduler that doesn't see it either.
    pub fn takes_room(&self) -> bool {
        self.present && !self.is_ended() && self.rejected.is_none()
    }

    fn report(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        if !self.present || self.life == Life::Finished || !(self.writing == Task::Done || self.writing.is_due(now)) {
            return;
        }
        let new = crate::status::render(self, now);
        if new == self.known {
            self.writing = Task::Done;
            return;
        }
        self.writing = Task::Busy;
        let old = std::mem::replace(&mut self.known, new.clone());
        self.base = Some(Box::new(old.clone()));
        out.push(Action::WriteStatus { old: Box::new(old), new: Box::new(new) });
    }
}

/// Revisions of one server are ordered; what can't be read is oldest.
fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
