//! The state of one pod on this node, and what can be read off it. Pure. `take`, `drive` and `end` change it, `status`
//! renders it; the loop and housekeeping look at it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::slot::{self, Slot};
use crate::pod::pods;
use crate::pod::verdict::Verdict;

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
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
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
    pub(super) known_version: u64,
    pub(super) writing: Task,
    /// What the API had before the write that is under way.
    pub(super) base: Option<Box<PodStatus>>,
    /// The runtime was asked what it has of the pod; nothing is started before.
    pub(super) observed: bool,
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

    pub(super) fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = pods::spec(&self.pod).active_deadline_seconds?;
        self.started.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// Starts ending the pod, once; a later call may only shorten it.
    pub(super) fn begin_end(&mut self, grace: i64, verdict: Option<Verdict>, now: Timestamp) {
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

    /// Whether the pod has ended in the sense of its status: nothing runs, nothing will.
    pub fn has_stopped(&self) -> bool {
        match self.life {
            Life::Active => false,
            Life::Ending(_) => self.is_still(),
            Life::Finished => true,
        }
    }
}

/// Revisions of one server are ordered; what can't be read is oldest.
pub(super) fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}
