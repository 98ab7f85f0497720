//! The status of a pod as the API shows it, from what the worker holds: phase, conditions, container statuses. Pure;
//! conditions that others wrote (readiness gates) are kept as they are.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, PodCondition, PodIP, PodStatus, ResourceRequirements, VolumeMountStatus,
};

use super::slot::{Instance, RunState, Slot, Work};
use super::state::{Life, PodWorker, Sandbox};
use super::transitions;
use crate::api::time;
use crate::names::reason;
use crate::pod::pods::{self, ContainerType};

/// The status that the API should have.
pub fn render(worker: &PodWorker, now: Timestamp) -> PodStatus {
    let mut status = worker.known.clone();
    let pod = &worker.pod;
    status.observed_generation = pod.metadata.generation.filter(|g| *g > 0);
    status.start_time = status.start_time.or_else(|| Some(time(worker.started)));
    status.host_ip = worker.settings.host_ips.first().cloned();
    status.host_ips = some(worker.settings.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    if status.qos_class.is_none() {
        status.qos_class = Some(crate::pod::resources::qos(pod).to_owned());
    }
    if let Some(rejected) = &worker.rejected {
        status.phase = Some("Failed".into());
        status.reason = Some(rejected.reason.clone());
        status.message = Some(rejected.message.clone());
        conditions(worker, &mut status, now);
        return status;
    }
    let ips = if pods::host_network(pod) && !matches!(worker.sandbox, Sandbox::None | Sandbox::Creating { .. }) {
        &worker.settings.host_ips
    } else {
        &worker.ips
    };
    if !ips.is_empty() {
        status.pod_ip = ips.first().cloned();
        status.pod_ips = some(ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect());
    }
    let of = |types: &[ContainerType], known: Option<Vec<ContainerStatus>>| {
        let slots = worker.slots.iter().filter(|s| types.contains(&s.container_type));
        some(slots.map(|s| transitions::told(pod, s, known.as_deref(), container(worker, s))).collect())
    };
    status.init_container_statuses =
        of(&[ContainerType::Init, ContainerType::Sidecar], status.init_container_statuses.take());
    status.container_statuses = of(&[ContainerType::Regular], status.container_statuses.take());
    status.ephemeral_container_statuses = of(&[ContainerType::Ephemeral], status.ephemeral_container_statuses.take());
    let held = status.phase.as_deref().filter(|p| pods::is_terminal_phase(p)).map(str::to_owned);
    let stopped = worker.has_stopped();
    // A pod that ended does not come back.
    let phase = held.unwrap_or_else(|| {
        let made = phase(worker, stopped);
        match worker.verdict() {
            // Whatever its containers make of their end: it was ended, and says why.
            Some(verdict) if stopped || pods::is_terminal_phase(made) => {
                status.reason = Some(verdict.reason.clone());
                status.message = Some(verdict.message.clone());
                "Failed".to_owned()
            }
            _ => made.to_owned(),
        }
    });
    status.phase = Some(phase);
    conditions(worker, &mut status, now);
    status
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// The phase that the containers make. `stopped`: none runs and none will be started.
fn phase(worker: &PodWorker, stopped: bool) -> &'static str {
    let pod = &worker.pod;
    let initialized = worker.initialized;
    let ended = |s: &Slot| s.exited().map(|i| i.exit_code);
    let again = |s: &Slot, code: i32| pods::should_restart(pod, s.container_type, &s.container, code);
    for slot in worker.slots.iter().filter(|s| s.container_type == ContainerType::Init) {
        match ended(slot) {
            Some(0) => {}
            Some(code) if !again(slot, code) && !initialized => return "Failed",
            _ if initialized => {}
            _ if stopped => return if slot.current.is_some() { "Failed" } else { unstarted(worker) },
            _ => return "Pending",
        }
    }
    let sidecar_missing =
        |s: &Slot| s.container_type == ContainerType::Sidecar && !s.is_started() && s.exited().is_none();
    if !initialized && !stopped && worker.slots.iter().any(sidecar_missing) {
        return "Pending";
    }
    let regular: Vec<&Slot> = worker.slots.iter().filter(|s| s.container_type == ContainerType::Regular).collect();
    let alive = |s: &&Slot| s.current.as_ref().is_some_and(|i| i.state == RunState::Running) && shows_running(s);
    let sidecar_alive =
        || worker.slots.iter().any(|s| s.container_type == ContainerType::Sidecar && s.running().is_some());
    if regular.iter().any(|s| s.current.is_none() || (s.exited().is_none() && !alive(s))) {
        return if stopped { unstarted(worker) } else { "Pending" };
    }
    if regular.iter().any(alive) || (sidecar_alive() && !stopped && regular.is_empty()) {
        return "Running";
    }
    let codes: Vec<(&Slot, i32)> = regular.iter().filter_map(|s| ended(s).map(|c| (*s, c))).collect();
    if !stopped && (codes.iter().any(|(s, code)| again(s, *code)) || sidecar_alive()) {
        return "Running";
    }
    if pods::is_static(pod) && codes.iter().any(|(s, code)| again(s, *code)) {
        return "Running";
    }
    if codes.iter().all(|(_, code)| *code == 0) { "Succeeded" } else { "Failed" }
}

/// A pod that ended before all of it had started.
fn unstarted(worker: &PodWorker) -> &'static str {
    let ran_badly = worker.slots.iter().any(|s| s.exited().is_some_and(|i| i.exit_code != 0));
    if ran_badly || worker.initialized { "Failed" } else { "Pending" }
}

/// A container whose postStart has not ended is still being created for users.
fn shows_running(slot: &Slot) -> bool {
    !matches!(slot.work, Work::Starting { .. } | Work::PostStart)
}

/// Termination messages of a pod together, as upstream: each of its containers has an equal share.
const MESSAGES_MAX: usize = 12 << 10;

fn container(worker: &PodWorker, slot: &Slot) -> ContainerStatus {
    let share = MESSAGES_MAX / worker.slots.len().max(1);
    let over = |instance: &Instance, id: String| over(instance, id, share);
    let image = slot.container.image.clone().unwrap_or_default();
    let id = |i: &Instance| format!("{}://{}", worker.settings.runtime_name, i.id);
    let mut status = ContainerStatus {
        name: slot.container.name.clone(),
        image,
        restart_count: slot.restarts() as i32,
        ready: slot.is_ready(),
        started: Some(if slot.container_type == ContainerType::Init {
            slot.running().is_some()
        } else {
            slot.is_started()
        }),
        ..ContainerStatus::default()
    };
    let default_reason = || {
        // Of all containers of such a pod, those that initialise it too: clients count on the word.
        let initializes = !pods::init_containers(&worker.pod).is_empty();
        if initializes { reason::POD_INITIALIZING } else { reason::CONTAINER_CREATING }.to_owned()
    };
    let waiting = |reason: String, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason), message: message.filter(|m| !m.is_empty()) }),
        ..ContainerState::default()
    };
    let told = slot.waiting.as_ref().map(|(reason, message)| waiting(reason.clone(), Some(message.clone())));
    let last = slot.last.as_ref().filter(|l| l.is_over()).map(|l| over(l, id(l)));
    let active = worker.life == Life::Active;
    let (state, last) = match &slot.current {
        None => (told.unwrap_or_else(|| waiting(default_reason(), None)), last),
        Some(i) if i.is_over() => match told.filter(|_| active) {
            Some(told) => (told, Some(over(i, id(i)))),
            None => (over(i, id(i)), last),
        },
        Some(i) if i.state == RunState::Running && shows_running(slot) => (running(i), last),
        Some(_) => (waiting(default_reason(), None), last),
    };
    if let Some(current) = &slot.current {
        status.container_id = Some(id(current));
        status.image_id = current.image_id.clone();
        if !current.image.is_empty() {
            status.image = current.image.clone();
        }
        status.user = current.user.as_ref().map(user);
    }
    status.stop_signal = slot.container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone());
    status.state = Some(state);
    // An empty state is what the API shows when there was none before.
    status.last_state = Some(last.unwrap_or_default());
    allocated(slot, &mut status);
    status.volume_mounts = mounts(slot);
    status
}

fn running(instance: &Instance) -> ContainerState {
    let started_at = instance.started_at.map(time);
    ContainerState { running: Some(ContainerStateRunning { started_at }), ..ContainerState::default() }
}

fn over(instance: &Instance, id: String, share: usize) -> ContainerState {
    let reason = match (instance.reason.as_str(), instance.exit_code) {
        ("", 0) => reason::COMPLETED,
        ("", _) => reason::ERROR,
        (given, _) => given,
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(id),
        exit_code: instance.exit_code,
        reason: Some(reason.to_owned()),
        message: Some(&instance.message[..instance.message.floor_char_boundary(share)])
            .filter(|m| !m.is_empty())
            .map(str::to_owned),
        started_at: instance.started_at.map(time),
        finished_at: instance.finished_at.map(time),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn user((uid, gid, groups): &(i64, i64, Vec<i64>)) -> ContainerUser {
    let linux = LinuxContainerUser { uid: *uid, gid: *gid, supplemental_groups: some(groups.clone()) };
    ContainerUser { linux: Some(linux) }
}

fn allocated(slot: &Slot, status: &mut ContainerStatus) {
    let Some(wanted) = slot.container.resources.clone().filter(|_| slot.running().is_some()) else { return };
    status.allocated_resources = wanted.requests.clone().filter(|r| !r.is_empty());
    status.resources = Some(ResourceRequirements { claims: None, ..wanted });
}

fn mounts(slot: &Slot) -> Option<Vec<VolumeMountStatus>> {
    let one = |m: &k8s_openapi::api::core::v1::VolumeMount| {
        let read_only = m.read_only.filter(|r| *r);
        VolumeMountStatus {
            name: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only,
            recursive_read_only: read_only.map(|_| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        }
    };
    some(slot.container.volume_mounts.iter().flatten().map(one).collect())
}

struct Said {
    kind: &'static str,
    yes: bool,
    reason: Option<String>,
    message: Option<String>,
}

impl Said {
    fn yes(kind: &'static str) -> Said {
        Said { kind, yes: true, reason: None, message: None }
    }

    fn no(kind: &'static str, reason: &str, message: String) -> Said {
        Said { kind, yes: false, reason: Some(reason.to_owned()), message: Some(message).filter(|m| !m.is_empty()) }
    }
}

fn conditions(worker: &PodWorker, status: &mut PodStatus, now: Timestamp) {
    let phase = status.phase.clone().unwrap_or_default();
    let mut said = Vec::new();
    let containers_ready = containers_ready(worker, &phase);
    let ready = match (&containers_ready.yes, gates(worker, status)) {
        (false, _) => Said { kind: "Ready", ..clone(&containers_ready) },
        (true, Some(missing)) => Said::no("Ready", "ReadinessGatesNotReady", missing),
        (true, None) => Said::yes("Ready"),
    };
    if worker.rejected.is_none() {
        said.push(Said {
            yes: matches!(worker.sandbox, Sandbox::Ready { .. }),
            ..Said::yes("PodReadyToStartContainers")
        });
        said.push(initialized(worker, &phase));
        said.push(ready);
        said.push(containers_ready);
    }
    said.push(Said::yes("PodScheduled"));
    let generation = status.observed_generation;
    let list = status.conditions.get_or_insert_default();
    said.into_iter().for_each(|s| set(list, s, generation, now));
    if let Some(message) = worker.verdict().and_then(|v| v.disruption.clone()) {
        let reason = Some("TerminationByKubelet".to_owned());
        set(list, Said { kind: "DisruptionTarget", yes: true, reason, message: Some(message) }, generation, now);
    }
}

fn clone(said: &Said) -> Said {
    Said { kind: said.kind, yes: said.yes, reason: said.reason.clone(), message: said.message.clone() }
}

fn set(list: &mut Vec<PodCondition>, said: Said, generation: Option<i64>, now: Timestamp) {
    let status = if said.yes { "True" } else { "False" }.to_owned();
    let fresh = PodCondition {
        type_: said.kind.to_owned(),
        status,
        reason: said.reason,
        message: said.message,
        observed_generation: generation,
        last_transition_time: Some(time(now)),
        ..PodCondition::default()
    };
    match list.iter_mut().find(|c| c.type_ == fresh.type_) {
        Some(old) => {
            let since = if old.status == fresh.status { old.last_transition_time.take() } else { None };
            let since = since.or(fresh.last_transition_time.clone());
            *old = PodCondition { last_transition_time: since, last_probe_time: old.last_probe_time.take(), ..fresh };
        }
        None => list.push(fresh),
    }
}

fn containers_ready(worker: &PodWorker, phase: &str) -> Said {
    const KIND: &str = "ContainersReady";
    match phase {
        "Succeeded" => return Said::no(KIND, "PodCompleted", String::new()),
        "Failed" => return Said::no(KIND, "PodFailed", String::new()),
        _ => {}
    }
    let unready: Vec<&str> = worker
        .slots
        .iter()
        .filter(|s| matches!(s.container_type, ContainerType::Sidecar | ContainerType::Regular) && !s.is_ready())
        .map(|s| s.container.name.as_str())
        .collect();
    if unready.is_empty() {
        return Said::yes(KIND);
    }
    Said::no(KIND, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
}

fn initialized(worker: &PodWorker, phase: &str) -> Said {
    const KIND: &str = "Initialized";
    if phase == "Succeeded" {
        return Said { reason: Some("PodCompleted".into()), ..Said::yes(KIND) };
    }
    let missing = |s: &&Slot| match s.container_type {
        ContainerType::Init => !s.is_ready(),
        ContainerType::Sidecar => !s.is_started(),
        ContainerType::Regular | ContainerType::Ephemeral => false,
    };
    let names: Vec<&str> = worker.slots.iter().filter(missing).map(|s| s.container.name.as_str()).collect();
    if worker.initialized || names.is_empty() {
        return Said::yes(KIND);
    }
    let message = format!("containers with incomplete status: [{}]", names.join(" "));
    Said::no(KIND, "ContainersNotInitialized", message)
}

/// What readiness gates still miss.
fn gates(worker: &PodWorker, status: &PodStatus) -> Option<String> {
    let have = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind);
    let missing = pods::spec(&worker.pod).readiness_gates.iter().flatten().filter_map(|gate| {
        let kind = &gate.condition_type;
        match have(kind) {
            None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
            Some(c) if c.status != "True" => {
                Some(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", c.status))
            }
            Some(_) => None,
        }
    });
    let missing: Vec<String> = missing.collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}
