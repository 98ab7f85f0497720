//! Applying what happened to the state of a pod. Nothing is asked for here but Events for users and the removal of
//! containers that nobody needs any more.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::event::{Action, Event, SandboxRecord, StartError};
use super::slot::{self, Image, Instance, Kill, RunState, Work};
use super::state::{PodWorker, Sandbox, Task, version};
use crate::names::reason;
use crate::pod::pods::{self, ContainerType};
use crate::pod::probe::{self, Kind, Outcome, Verdict as Probe};

/// How soon a failed step (volumes, sandbox, container configuration) is tried again; upstream's worker back-off.
const RETRY: SignedDuration = SignedDuration::from_secs(10);
/// How soon a failed write to the API is tried again.
const API_RETRY: SignedDuration = SignedDuration::from_secs(1);

/// How long users see the error of a pull before they see that it is backing off.
const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(3);

impl PodWorker {
    pub(super) fn take(&mut self, event: Event, now: Timestamp, out: &mut Vec<Action>) {
        match event {
            Event::Spec(pod) => self.take_spec(pod, now),
            Event::Gone => {
                self.present = false;
                self.begin_end(pods::grace(&self.pod), None, now);
            }
            Event::Observed { sandbox, containers } => self.take_observed(sandbox, containers, now, out),
            Event::Vanished { id } => self.slots.iter_mut().for_each(|slot| slot.lose(&id, now)),
            Event::Mounted(result) => self.take_mounted(result, now, out),
            Event::SandboxCreated { attempt, result } => self.take_sandbox(attempt, result, now, out),
            Event::Pulled { container, image, result } => self.take_pulled(&container, &image, result, now, out),
            Event::Started { container, attempt, result } => self.take_started(&container, attempt, result, now, out),
            Event::Hooked { container, id, result } => self.take_hooked(&container, &id, result, now, out),
            Event::Killed { container, id, result } => self.take_killed(&container, &id, result, now, out),
            Event::Probed { container, id, kind, outcome } => {
                self.take_probed(&container, &id, kind, &outcome, now, out)
            }
            Event::SandboxStopped { id, result } => self.take_stopped(&id, result, now, out),
            Event::TornDown(result) => self.torn = done_or_retry(result, "release", now),
            Event::Removed(result) => self.removed = done_or_retry(result, "remove", now),
            Event::StatusWritten(result) => self.take_written(result, now),
            Event::Deleted(result) => {
                if result.is_ok() {
                    self.present = false;
                }
                self.deleted = done_or_retry(result, "delete", now);
            }
            Event::Evict { verdict, grace } => self.begin_end(grace, Some(verdict), now),
            // What ended was where it was.
            Event::HostIps(ips) if !self.is_ended() => self.settings.host_ips = ips,
            Event::HostIps(_) => {}
            Event::Refresh => self.take_refresh(),
            Event::Tick => {}
        }
    }

    fn take_spec(&mut self, pod: Arc<Pod>, now: Timestamp) {
        if self.writing != Task::Busy && version(&pod) >= self.known_version {
            self.known_version = version(&pod);
            self.known = pod.status.clone().unwrap_or_default();
        }
        let changed = pod.spec != self.pod.spec || pod.metadata.annotations != self.pod.metadata.annotations;
        self.pod = pod;
        self.slots = slot::slots(&self.pod, &self.known, &self.slots);
        if changed {
            self.take_refresh();
        }
        for slot in &mut self.slots {
            if slot.changed() && slot.running().is_some() && slot.to_kill.is_none() {
                let message = format!("Container {} definition changed, will be restarted", slot.container.name);
                slot.to_kill = Some(Kill { message, grace: None });
            }
        }
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.begin_end(pods::grace(&self.pod), None, now);
        }
    }

    /// What could not be mounted or started may go now.
    fn take_refresh(&mut self) {
        let stuck = |s: &&mut slot::Slot| s.exited().is_none() && s.retry.is_some();
        self.slots.iter_mut().filter(stuck).for_each(|s| s.retry = None);
        if matches!(self.volumes, Task::Retry(_)) {
            self.volumes = Task::Todo;
        }
    }

    fn take_observed(
        &mut self,
        sandbox: Option<SandboxRecord>,
        containers: Vec<Instance>,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let first = !std::mem::replace(&mut self.observed, true);
        if let Some(record) = sandbox {
            self.take_sandbox_record(record, first);
        }
        let deleted = self.pod.metadata.deletion_timestamp.is_some();
        if first && (deleted || pods::is_terminal_phase(pods::phase(&self.pod))) {
            self.begin_end(pods::grace(&self.pod), None, now);
        }
        for instance in containers {
            if instance.state != RunState::Created {
                self.adopt(instance, now, out);
            } else if self.is_abandoned(&instance) {
                out.push(Action::RemoveContainer { id: instance.id });
            }
        }
        if first {
            self.initialized =
                self.slots.iter().any(|s| s.container_type == ContainerType::Regular && s.current.is_some());
        }
    }

    /// Whether a container that was made and not started when the runtime was looked at was left by a kubelet that ended
    /// before it started it: nobody will. It may as well have been started, have ended and be gone by now: only who made
    /// it tells for sure, unless it is known to have run. What this kubelet made, it hears of as the answer to its call.
    fn is_abandoned(&mut self, seen: &Instance) -> bool {
        let Some(slot) = self.slots.iter_mut().find(|s| s.container.name == seen.name) else { return false };
        let starting = matches!(slot.work, Work::Starting { attempt } if attempt == seen.restarts);
        let known = [&slot.current, &slot.last].into_iter().flatten().any(|known| known.id == seen.id);
        // A runtime that doesn't say who made it leaves that open: what is at work here is ours.
        let ours = seen.run == self.settings.run || (seen.run.is_empty() && starting);
        if known || ours {
            return false;
        }
        // Its number is not used again.
        slot.past_restarts = slot.past_restarts.max(seen.restarts.saturating_add(1));
        true
    }

    fn take_sandbox_record(&mut self, record: SandboxRecord, first: bool) {
        self.attempt = self.attempt.max(record.attempt.saturating_add(1));
        match &self.sandbox {
            Sandbox::Ready { id } if *id == record.id && !record.ready => {
                self.sandbox = Sandbox::Dead { id: record.id };
            }
            Sandbox::None if first && record.ready => {
                self.ips = record.ips;
                self.sandbox = Sandbox::Ready { id: record.id };
            }
            Sandbox::None if first => self.sandbox = Sandbox::Dead { id: record.id },
            _ => {}
        }
    }

    /// Merges one instance of the runtime's list.
    fn adopt(&mut self, instance: Instance, now: Timestamp, out: &mut Vec<Action>) {
        let (id, over) = (instance.id.clone(), instance.is_over());
        let Some(slot) = self.slots.iter_mut().find(|s| s.container.name == instance.name) else { return };
        let before = slot.last.as_ref().map(|l| l.id.clone());
        let began = slot.observe(instance);
        if began && slot.work == Work::Idle {
            // Found running: started by a kubelet before this one.
            slot.hooked = true;
            slot.arm_probes(now);
            slot.believe(&self.known);
        }
        let kept = |id: &str| [&slot.current, &slot.last].into_iter().flatten().any(|i| i.id == id);
        for old in before.into_iter().chain(over.then_some(id)) {
            if !kept(&old) {
                out.push(Action::RemoveContainer { id: old });
            }
        }
    }

    fn take_mounted(&mut self, result: Result<(), String>, now: Timestamp, out: &mut Vec<Action>) {
        match result {
            Ok(()) => self.volumes = Task::Done,
            Err(message) => {
                self.volumes = Task::Retry(later(now, RETRY));
                out.push(note(None, true, reason::FAILED_MOUNT, message));
            }
        }
    }

    fn take_sandbox(
        &mut self,
        attempt: u32,
        result: Result<SandboxRecord, String>,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        if self.sandbox != (Sandbox::Creating { attempt }) {
            return;
        }
        match result {
            Ok(record) => {
                self.attempt = self.attempt.max(record.attempt.saturating_add(1));
                self.ips = record.ips;
                self.sandbox = Sandbox::Ready { id: record.id };
            }
            Err(message) => {
                self.attempt = self.attempt.max(attempt.saturating_add(1));
                self.sandbox = Sandbox::Retry { at: later(now, RETRY) };
                let text = format!("Failed to create pod sandbox: {message}");
                out.push(note(None, true, reason::FAILED_SANDBOX, text));
            }
        }
    }

    fn take_pulled(
        &mut self,
        name: &str,
        image: &str,
        result: Result<String, StartError>,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let longest = self.settings.longest_restart_delay.max(crate::pod::backoff::LONGEST);
        let Some(slot) = self.slots.iter_mut().find(|s| s.container.name == name) else { return };
        if slot.image != Image::Busy {
            return;
        }
        if slot.image_name() != image {
            // The container was given another image meanwhile.
            slot.image = Image::Todo;
            return;
        }
        match result {
            Ok(image) => {
                slot.image = Image::Ready(image);
                slot.pull_error.clear();
                let about_image = |w: &(String, String)| w.0 != reason::CRASH_LOOP;
                slot.waiting.take_if(|w| about_image(w));
            }
            Err(StartError { reason: why, message }) => {
                let pull = why == reason::ERR_IMAGE_PULL;
                let (until, told) = if pull {
                    slot.pull_backoff.next(now, longest);
                    (later(now, slot.pull_backoff.delay()), Some(later(now, PULL_ERROR_SHOWN)))
                } else {
                    (later(now, RETRY), None)
                };
                slot.image = Image::Waiting { until, told };
                slot.pull_error = format!("{why}: {message}");
                slot.waiting = Some((why.into(), message));
                out.push(note(Some(name), true, reason::FAILED, format!("Error: {why}")));
            }
        }
    }

    fn take_started(
        &mut self,
        name: &str,
        attempt: u32,
        result: Result<Instance, StartError>,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let Some(slot) = self.slots.iter_mut().find(|s| s.container.name == name) else {
            // Taken out of the spec meanwhile: it can't stay.
            if let Ok(i) = result {
                out.push(kill(name, &i.id, 0, format!("Stopping container {name}")));
            }
            return;
        };
        let awaited = slot.work == Work::Starting { attempt };
        match result {
            Ok(instance) if !awaited => self.adopt(instance, now, out),
            Err(_) if !awaited => {}
            Ok(instance) => {
                let id = instance.id.clone();
                slot.image = Image::Todo;
                slot.waiting = None;
                slot.retry = None;
                out.push(note(Some(name), false, reason::CREATED, "Container created".into()));
                out.push(note(Some(name), false, reason::STARTED, "Container started".into()));
                let hook = slot.container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
                self.initialized |= slot.container_type == ContainerType::Regular;
                self.adopt(instance, now, out);
                let Some(slot) = self.slots.iter_mut().find(|s| s.container.name == name) else { return };
                if hook && slot.current.as_ref().is_some_and(|c| c.id == id) {
                    slot.work = Work::PostStart;
                    out.push(Action::PostStart { container: name.into(), id });
                } else {
                    slot.work = Work::Idle;
                    slot.hooked = true;
                    slot.arm_probes(now);
                }
            }
            Err(StartError { reason: why, message }) => {
                // A program that could not be run counts as a container that ended: it is restarted by policy.
                let ended = slot.exited().is_some_and(|i| i.restarts >= attempt);
                slot.work = Work::Idle;
                slot.retry = (!ended).then(|| later(now, RETRY));
                out.push(note(Some(name), true, reason::FAILED, format!("Error: {message}")));
                slot.waiting = Some((why.into(), message));
            }
        }
    }

    fn take_hooked(&mut self, name: &str, id: &str, result: Result<(), String>, now: Timestamp, out: &mut Vec<Action>) {
        let Some(slot) = self.slots.iter_mut().find(|s| s.container.name == name) else { return };
        if slot.work != Work::PostStart || slot.current.as_ref().is_none_or(|c| c.id != id) {
            return;
        }
        slot.work = Work::Idle;
        match result {
            Ok(()) => {
                slot.hooked = true;
                slot.arm_probes(now);
            }
            Err(message) => {
                out.push(note(Some(name), true, reason::FAILED_POST_START, "PostStartHook failed".into()));
                slot.waiting = Some((reason::POST_START_ERROR.into(), message));
                slot.to_kill = Some(Kill { message: reason::FAILED_POST_START.into(), grace: None });
            }
        }
    }

    fn take_killed(
        &mut self,
        name: &str,
        id: &str,
        result: Result<Option<Instance>, String>,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let Some(slot) = self.slots.iter_mut().find(|s| s.container.name == name) else { return };
        if slot.current.as_ref().is_none_or(|c| c.id != id) {
            return;
        }
        // One of two kills of the same instance, when the other was answered: what is under way by now is its own.
        let awaited = matches!(slot.work, Work::Killing { .. });
        match result {
            Ok(found) => {
                match found {
                    Some(instance) => {
                        slot.observe(instance);
                    }
                    None => slot.lose(id, now),
                }
                if !awaited {
                    return;
                }
                slot.work = Work::Idle;
                // A runtime that says "stopped" of what runs is asked again, not at once.
                slot.retry = slot.is_alive().then(|| later(now, API_RETRY));
                if !slot.is_alive() {
                    slot.to_kill = None;
                }
            }
            Err(_) if !awaited => {}
            Err(message) => {
                slot.work = Work::Idle;
                slot.retry = Some(later(now, RETRY));
                out.push(note(None, true, reason::FAILED_KILL, format!("error killing pod: {message}")));
            }
        }
    }

    fn take_probed(
        &mut self,
        name: &str,
        id: &str,
        kind: Kind,
        outcome: &Outcome,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let restarts = pods::restart_policy(&self.pod) != "Never";
        let Some(slot) = self.slots.iter_mut().find(|s| s.container.name == name) else { return };
        let Some(probe) = probe::of(&slot.container, kind).cloned() else { return };
        if slot.running().is_none_or(|c| c.id != id) {
            return;
        }
        let Some(machine) = slot.machine(kind).as_mut().filter(|m| m.busy) else { return };
        let verdict = machine.answer(kind, &probe, outcome, now);
        if let Some((why, text)) = probe::note(kind, outcome) {
            out.push(note(Some(name), true, why, text));
        }
        match (kind, verdict) {
            // Not to wait a whole period for the first word on readiness.
            (Kind::Startup, Probe::Passed) => {
                if let Some(readiness) = &mut slot.readiness {
                    readiness.due = readiness.due.min(now);
                }
            }
            (Kind::Startup | Kind::Liveness, Probe::Failed) => {
                let what = kind.shown().to_lowercase();
                let again =
                    if restarts || slot.container_type == ContainerType::Sidecar { ", will be restarted" } else { "" };
                let message = format!("Container {name} failed {what} probe{again}");
                slot.to_kill = Some(Kill { message, grace: probe.termination_grace_period_seconds });
            }
            _ => {}
        }
    }

    fn take_stopped(&mut self, id: &str, result: Result<(), String>, now: Timestamp, out: &mut Vec<Action>) {
        let id = id.to_owned();
        if self.sandbox != (Sandbox::Stopping { id: id.clone() }) {
            return;
        }
        self.sandbox = match result {
            Ok(()) => Sandbox::Stopped { id },
            Err(message) => {
                out.push(note(None, true, reason::FAILED_KILL, format!("error killing pod: {message}")));
                // The daemon comes back to it at the next deadline of the worker.
                self.torn = Task::Retry(later(now, API_RETRY));
                Sandbox::Dead { id }
            }
        };
    }

    fn take_written(&mut self, result: Result<Option<Arc<Pod>>, String>, now: Timestamp) {
        let base = self.base.take();
        match result {
            Ok(answer) => {
                self.writing = Task::Done;
                if let Some(pod) = answer {
                    self.known_version = self.known_version.max(version(&pod));
                }
            }
            Err(error) => {
                tracing::debug!(pod = pods::shown(&self.pod), error, "status not written, trying again");
                self.writing = Task::Retry(later(now, API_RETRY));
                if let Some(base) = base {
                    self.known = *base;
                }
            }
        }
    }
}

pub(super) fn later(now: Timestamp, delay: SignedDuration) -> Timestamp {
    now.saturating_add(delay).unwrap_or(now)
}

pub(super) fn note(container: Option<&str>, warning: bool, reason: &'static str, note: String) -> Action {
    Action::Note { container: container.map(str::to_owned), warning, reason, note }
}

fn kill(name: &str, id: &str, grace: i64, message: String) -> Action {
    Action::Kill { container: name.into(), id: id.into(), grace, message, pre_stop: false }
}

fn done_or_retry(result: Result<(), String>, what: &str, now: Timestamp) -> Task {
    match result {
        Ok(()) => Task::Done,
        Err(error) => {
            tracing::warn!(error, "could not {what} pod, trying again");
            Task::Retry(later(now, API_RETRY))
        }
    }
}
