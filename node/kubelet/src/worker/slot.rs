//! One container of the pod: the instance the runtime has of it, the one before, and what is under way. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};

use crate::names::reason;
use crate::pod::backoff::Backoff;
use crate::pod::make::hash;
use crate::pod::pods::{self, ContainerType};
use crate::pod::probe::{self, Kind, Machine};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunState {
    Created,
    Running,
    /// The runtime lost sight of it.
    Unknown,
    Exited,
}

/// A container as the runtime has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Without the runtime's scheme.
    pub id: String,
    pub sandbox: String,
    pub name: String,
    /// How often the container was restarted before.
    pub restarts: u32,
    pub state: RunState,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    /// As the user wrote it, and as the runtime knows it.
    pub image: String,
    pub image_id: String,
    /// Of the definition that it was made from.
    pub hash: String,
    /// User and groups of the first process, where the runtime says them.
    pub user: Option<(i64, i64, Vec<i64>)>,
    pub log_path: String,
    /// The run of a kubelet that made it; empty where the runtime doesn't say.
    pub run: String,
}

impl Instance {
    pub fn is_over(&self) -> bool {
        matches!(self.state, RunState::Exited | RunState::Unknown)
    }
}

/// The image of the next start.
#[derive(Debug, Clone, PartialEq)]
pub enum Image {
    Todo,
    Busy,
    Ready(String),
    /// Tried in vain: not before `until`. From `told` on users see that it is backing off.
    Waiting {
        until: Timestamp,
        told: Option<Timestamp>,
    },
}

/// What is under way with a container. An answer is awaited in every state but `Idle`.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    Idle,
    /// The instance of this number.
    Starting {
        attempt: u32,
    },
    PostStart,
    Killing {
        until: Timestamp,
    },
}

/// Why a running container is to be killed (upstream's `containerToKillInfo`), as the Event says it, and with how many
/// seconds of grace, if not the pod's.
#[derive(Debug, Clone, PartialEq)]
pub struct Kill {
    pub message: String,
    pub grace: Option<i64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    pub container_type: ContainerType,
    pub container: Container,
    pub current: Option<Instance>,
    /// The instance before, for `lastState` and `logs --previous`.
    pub last: Option<Instance>,
    pub work: Work,
    pub image: Image,
    pub pull_backoff: Backoff,
    pub pull_error: String,
    pub restart_backoff: Backoff,
    /// Not started before, after a failed try.
    pub retry: Option<Timestamp>,
    /// Why it isn't running: reason and message.
    pub waiting: Option<(String, String)>,
    /// Restarts known of a time before this kubelet.
    pub past_restarts: u32,
    /// The running instance has its postStart behind it.
    pub hooked: bool,
    /// By a failed liveness probe or postStart hook, or by a changed definition.
    pub to_kill: Option<Kill>,
    pub startup: Option<Machine>,
    pub liveness: Option<Machine>,
    pub readiness: Option<Machine>,
}

/// The slots that the spec asks for; what is known of a container of the same name is kept.
pub fn slots(pod: &Pod, known: &PodStatus, old: &[Slot]) -> Vec<Slot> {
    let make = |(container_type, container): (ContainerType, Container)| match old
        .iter()
        .find(|s| s.container.name == container.name)
    {
        Some(slot) => slot.respecified(container_type, container),
        None => Slot::new(container_type, container, known),
    };
    pods::containers(pod).into_iter().map(make).collect()
}

impl Slot {
    fn new(container_type: ContainerType, container: Container, known: &PodStatus) -> Slot {
        let lists = [&known.init_container_statuses, &known.container_statuses, &known.ephemeral_container_statuses];
        let status = lists.into_iter().flatten().flatten().find(|s| s.name == container.name);
        let restarts = status.map_or(0, |s| s.restart_count.max(0) as u32);
        // What the API was told of an instance that ended comes first if the runtime has nothing: one more is a restart.
        let ran = status.is_some_and(|s| s.container_id.as_deref().is_some_and(|id| !id.is_empty()));
        Slot {
            container_type,
            container,
            current: None,
            last: None,
            work: Work::Idle,
            image: Image::Todo,
            pull_backoff: Backoff::default(),
            pull_error: String::new(),
            restart_backoff: Backoff::default(),
            retry: None,
            waiting: None,
            past_restarts: if ran { restarts + 1 } else { 0 },
            hooked: false,
            to_kill: None,
            startup: None,
            liveness: None,
            readiness: None,
        }
    }

    /// What is known of the image before goes with it; a pull that runs says itself what it was for.
    fn respecified(&self, container_type: ContainerType, container: Container) -> Slot {
        let mut slot = Slot { container_type, container, ..self.clone() };
        if slot.container.image != self.container.image && slot.image != Image::Busy {
            slot.image = Image::Todo;
            slot.pull_backoff = Backoff::default();
        }
        slot
    }

    pub fn name(&self) -> &str {
        &self.container.name
    }

    pub fn image_name(&self) -> &str {
        self.container.image.as_deref().unwrap_or("")
    }

    pub fn running(&self) -> Option<&Instance> {
        self.current.as_ref().filter(|i| i.state == RunState::Running)
    }

    pub fn exited(&self) -> Option<&Instance> {
        self.current.as_ref().filter(|i| i.is_over())
    }

    /// No process is left and none is on its way.
    pub fn is_still(&self) -> bool {
        self.work == Work::Idle && self.current.as_ref().is_none_or(|i| i.is_over())
    }

    /// Something has to be killed before the pod is still.
    pub fn is_alive(&self) -> bool {
        self.current.as_ref().is_some_and(|i| !i.is_over())
    }

    pub fn changed(&self) -> bool {
        let Some(current) = &self.current else { return false };
        self.container_type != ContainerType::Ephemeral
            && !current.hash.is_empty()
            && current.hash != hash(&self.container)
    }

    /// Runs, its hook is through and its startup probe passed.
    pub fn is_started(&self) -> bool {
        let passed =
            self.container.startup_probe.is_none() || self.startup.as_ref().is_some_and(|m| m.verdict == Some(true));
        self.running().is_some() && self.hooked && passed
    }

    /// As `containerStatuses[].ready` says it.
    pub fn is_ready(&self) -> bool {
        if self.container_type == ContainerType::Init {
            return self.exited().is_some_and(|i| i.exit_code == 0 && i.state == RunState::Exited);
        }
        let passed = self.container.readiness_probe.is_none()
            || self.readiness.as_ref().is_some_and(|m| m.verdict == Some(true));
        self.is_started() && passed && self.container_type != ContainerType::Ephemeral
    }

    pub fn restarts(&self) -> u32 {
        self.current.as_ref().map_or(self.past_restarts, |i| i.restarts)
    }

    /// The number of the next instance.
    pub fn next_attempt(&self) -> u32 {
        self.current.as_ref().map_or(0, |i| i.restarts.saturating_add(1)).max(self.past_restarts)
    }

    pub fn machine(&mut self, kind: Kind) -> &mut Option<Machine> {
        match kind {
            Kind::Startup => &mut self.startup,
            Kind::Liveness => &mut self.liveness,
            Kind::Readiness => &mut self.readiness,
        }
    }

    /// Probes that run now: startup alone until it passed, then the other two. An ending pod keeps its readiness.
    pub fn live_kinds(&self, active: bool) -> Vec<Kind> {
        if self.running().is_none() || !self.hooked {
            return Vec::new();
        }
        match (active, self.is_started()) {
            (true, false) => vec![Kind::Startup],
            (true, true) => vec![Kind::Liveness, Kind::Readiness],
            (false, true) => vec![Kind::Readiness],
            (false, false) => Vec::new(),
        }
    }

    /// Makes the machines of a container that runs now.
    pub fn arm_probes(&mut self, now: Timestamp) {
        let Some(started) = self.running().map(|i| i.started_at.unwrap_or(now)) else { return };
        for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
            let machine = probe::of(&self.container, kind).map(|p| Machine::new(p, started));
            let slot = self.machine(kind);
            if slot.is_none() {
                *slot = machine;
            }
        }
    }

    /// What the API was told of the very instance that was found running holds until a probe says otherwise: that this
    /// kubelet is new changes nothing for the container.
    pub fn believe(&mut self, known: &PodStatus) {
        let Some(id) = self.running().map(|instance| instance.id.clone()) else { return };
        let lists = [&known.init_container_statuses, &known.container_statuses];
        let status = lists.into_iter().flatten().flatten().find(|status| {
            let told = status.container_id.as_deref().and_then(|told| told.split_once("://"));
            status.name == self.container.name && told.is_some_and(|(_, told)| told == id)
        });
        let Some(status) = status else { return };
        for (kind, held) in [(Kind::Startup, status.started == Some(true)), (Kind::Readiness, status.ready)] {
            if let Some(machine) = self.machine(kind).as_mut().filter(|_| held) {
                machine.believe(kind);
            }
        }
    }

    pub fn next_probe(&self, active: bool) -> Option<Timestamp> {
        let kinds = self.live_kinds(active);
        let machine = |kind: &Kind| match kind {
            Kind::Startup => self.startup.as_ref(),
            Kind::Liveness => self.liveness.as_ref(),
            Kind::Readiness => self.readiness.as_ref(),
        };
        kinds.iter().filter_map(machine).filter(|m| !m.busy && !m.hold).map(|m| m.due).min()
    }

    /// When something of an idle container becomes due.
    pub fn wake(&self) -> Option<Timestamp> {
        if self.work != Work::Idle {
            return None;
        }
        let image = match &self.image {
            Image::Waiting { until, told } => Some(told.map_or(*until, |t| t.min(*until))),
            _ => None,
        };
        self.retry.into_iter().chain(image).min()
    }

    /// The runtime has the instance no more: if it was thought alive, it ended in a way nobody saw.
    pub fn lose(&mut self, id: &str, now: Timestamp) {
        if self.last.as_ref().is_some_and(|l| l.id == id) {
            self.last = None;
        }
        if let Some(current) = self.current.as_mut().filter(|c| c.id == id && !c.is_over()) {
            current.state = RunState::Exited;
            current.finished_at = Some(now);
            current.exit_code = 137;
            current.reason = reason::UNKNOWN_STATUS.into();
            current.message = "The container could not be located when the pod was terminated".into();
            self.retry = None;
        }
    }

    /// Takes what the runtime says; it never goes back from a later state to an earlier one, nor from an instance to the
    /// one before. True when a process that was not known to run runs now.
    pub fn observe(&mut self, mut seen: Instance) -> bool {
        match &mut self.current {
            Some(current) if current.id == seen.id => {
                if seen.state < current.state || (current.is_over() && current.finished_at.is_some()) {
                    return false;
                }
                let began = seen.state == RunState::Running && current.state != RunState::Running;
                // Not every word of the runtime says it.
                if seen.sandbox.is_empty() {
                    seen.sandbox = std::mem::take(&mut current.sandbox);
                }
                if seen.is_over() && !current.is_over() {
                    // It was to be killed once more.
                    self.retry = None;
                }
                *current = seen;
                began
            }
            Some(current) if (seen.restarts, seen.created_at) < (current.restarts, current.created_at) => {
                let newer =
                    self.last.as_ref().is_none_or(|l| (l.restarts, l.created_at) <= (seen.restarts, seen.created_at));
                if newer && seen.is_over() {
                    self.last = Some(seen);
                }
                false
            }
            _ => {
                let began = seen.state == RunState::Running;
                self.last = self.current.take().or(self.last.take());
                self.current = Some(seen);
                self.startup = None;
                self.liveness = None;
                self.readiness = None;
                self.to_kill = None;
                self.hooked = false;
                began
            }
        }
    }
}
