//! Bringing a pod up and keeping it up: what is missing between its spec and what runs is asked for here.

use jiff::{SignedDuration, Timestamp};

use super::event::Action;
use super::slot::{Image, Instance, RunState, Slot, Work};
use super::state::{PodWorker, Sandbox, Task};
use super::take::note;
use crate::names::reason;
use crate::pod::pods::{self, ContainerType};
use crate::pod::verdict::Verdict;

impl PodWorker {
    pub(super) fn drive(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        if self.rejected.is_some() || self.is_over() {
            return self.begin_end(pods::grace(&self.pod), None, now);
        }
        if self.active_deadline().is_some_and(|at| at <= now) {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            out.push(note(None, false, "DeadlineExceeded", message.clone()));
            let verdict = Verdict { reason: "DeadlineExceeded".into(), message, disruption: None };
            return self.begin_end(pods::grace(&self.pod), Some(verdict), now);
        }
        if self.volumes.is_due(now) {
            self.volumes = Task::Busy;
            out.push(Action::Mount);
        }
        self.drive_sandbox(now, out);
        self.drive_kills(now, out);
        for index in self.due() {
            self.start(index, now, out);
        }
        self.drive_probes(now, out);
    }

    /// No container will ever run again: all regular ones ended for good, or an init container failed for good.
    fn is_over(&self) -> bool {
        let gone = |slot: &Slot| {
            let ended = slot.exited().filter(|_| slot.work == Work::Idle);
            ended.is_some_and(|i| {
                !pods::should_restart(&self.pod, slot.container_type, &slot.container, i.exit_code) && !slot.changed()
            })
        };
        let failed = |s: &Slot| {
            s.container_type == ContainerType::Init && s.exited().is_some_and(|i| i.exit_code != 0) && gone(s)
        };
        let mut regular = self.slots.iter().filter(|s| s.container_type == ContainerType::Regular).peekable();
        let all = regular.peek().is_some() && regular.all(gone);
        all || (!self.initialized && self.slots.iter().any(failed))
    }

    fn drive_sandbox(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        match self.sandbox.clone() {
            Sandbox::None => self.create_sandbox(out),
            Sandbox::Retry { at } if at <= now => self.create_sandbox(out),
            Sandbox::Stopped { .. } => {
                out.push(note(
                    None,
                    false,
                    reason::SANDBOX_CHANGED,
                    "Pod sandbox changed, it will be killed and re-created.".into(),
                ));
                self.initialized = false;
                self.create_sandbox(out);
            }
            Sandbox::Dead { id } if self.is_still() && self.torn.is_due(now) => {
                self.sandbox = Sandbox::Stopping { id: id.clone() };
                self.torn = Task::Todo;
                out.push(Action::StopSandbox { id });
            }
            _ => {}
        }
    }

    fn create_sandbox(&mut self, out: &mut Vec<Action>) {
        self.sandbox = Sandbox::Creating { attempt: self.attempt };
        out.push(Action::CreateSandbox { attempt: self.attempt });
    }

    fn drive_kills(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let dead = matches!(self.sandbox, Sandbox::Dead { .. });
        let grace = pods::grace(&self.pod);
        for slot in &mut self.slots {
            if slot.work != Work::Idle || !slot.is_alive() || slot.retry.is_some_and(|at| at > now) {
                continue;
            }
            let kill = slot.to_kill.clone();
            let Some(id) = slot.current.as_ref().map(|c| c.id.clone()) else { continue };
            let (message, grace) = match kill {
                Some(kill) => (kill.message, kill.grace.unwrap_or(grace)),
                None if dead => (format!("Stopping container {}", slot.container.name), grace),
                None => continue,
            };
            slot.work = Work::Killing { until: Timestamp::MAX };
            slot.retry = None;
            out.push(Action::Kill { container: slot.container.name.clone(), id, grace, message, pre_stop: true });
        }
    }

    /// Containers that should run and don't, in the order of upstream: ephemeral ones as soon as there is a sandbox,
    /// init containers one after the other, sidecars before what follows them, then all regular ones.
    fn due(&self) -> Vec<usize> {
        let mut due = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.container_type == ContainerType::Ephemeral && slot.current.is_none() && slot.past_restarts == 0 {
                due.push(index);
            }
        }
        for (index, slot) in self.slots.iter().enumerate() {
            let alive = slot.is_alive();
            match slot.container_type {
                ContainerType::Sidecar if !alive => {
                    due.push(index);
                    if !self.initialized {
                        return due;
                    }
                }
                ContainerType::Sidecar if !slot.is_started() && !self.initialized => return due,
                ContainerType::Init if !self.initialized && !self.is_done_here(slot) => {
                    if !alive {
                        due.push(index);
                    }
                    return due;
                }
                _ => {}
            }
        }
        for (index, slot) in self.slots.iter().enumerate().filter(|(_, s)| s.container_type == ContainerType::Regular) {
            let again = slot.exited().is_none_or(|i| {
                slot.changed() || pods::should_restart(&self.pod, slot.container_type, &slot.container, i.exit_code)
            });
            if !slot.is_alive() && again {
                due.push(index);
            }
            // A postStart hook holds back the containers after it.
            let hook = slot.container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
            if hook && !slot.hooked && slot.exited().is_none() {
                break;
            }
        }
        due
    }

    /// An init container that ended well in the present sandbox.
    fn is_done_here(&self, slot: &Slot) -> bool {
        let here = |i: &&Instance| self.sandbox.id() == Some(i.sandbox.as_str());
        slot.exited().filter(here).is_some_and(|i| i.exit_code == 0 && i.state == RunState::Exited)
    }

    fn start(&mut self, index: usize, now: Timestamp, out: &mut Vec<Action>) {
        let longest = self.settings.longest_restart_delay;
        let shown = pods::shown(&self.pod);
        let can_start = self.volumes == Task::Done;
        let sandbox = match &self.sandbox {
            Sandbox::Ready { id } if can_start => Some(id.clone()),
            _ => None,
        };
        let slot = &mut self.slots[index];
        let name = slot.container.name.clone();
        if slot.work != Work::Idle || slot.retry.is_some_and(|at| at > now) {
            return;
        }
        slot.retry = None;
        if slot.changed() {
            slot.restart_backoff = Default::default();
        }
        if let Some(until) =
            slot.exited().and_then(|i| slot.restart_backoff.until(i.finished_at.unwrap_or(i.created_at), longest))
            && until > now
        {
            slot.retry = Some(until);
            let delay = shown_delay(slot.restart_backoff.delay());
            let text = format!("back-off {delay} restarting failed container={name} pod={shown}");
            slot.waiting = Some((reason::CRASH_LOOP.into(), text));
            let text = format!("Back-off restarting failed container {name} in pod {shown}");
            out.push(note(Some(&name), true, reason::BACK_OFF, text));
            return;
        }
        match slot.image.clone() {
            Image::Busy => {}
            Image::Waiting { until, told } if until > now => {
                if told.is_some_and(|at| at <= now) {
                    let image = slot.container.image.clone().unwrap_or_default();
                    slot.image = Image::Waiting { until, told: None };
                    let text = format!("Back-off pulling image \"{image}\"");
                    slot.waiting = Some((reason::IMAGE_BACK_OFF.into(), format!("{text}: {}", slot.pull_error)));
                    out.push(note(Some(&name), false, reason::BACK_OFF, text));
                    out.push(note(Some(&name), true, reason::FAILED, format!("Error: {}", reason::IMAGE_BACK_OFF)));
                }
            }
            Image::Todo | Image::Waiting { .. } => {
                slot.image = Image::Busy;
                out.push(Action::Pull { container: name, image: slot.image_name().to_owned() });
            }
            Image::Ready(image) => {
                let Some(sandbox) = sandbox else { return };
                if slot.exited().is_some() {
                    slot.restart_backoff.next(now, longest);
                }
                let attempt = slot.next_attempt();
                slot.work = Work::Starting { attempt };
                out.push(Action::Start { container: name, image, sandbox, attempt });
            }
        }
    }

    pub(super) fn drive_probes(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let active = self.life == super::Life::Active;
        for slot in &mut self.slots {
            let Some(id) = slot.running().map(|c| c.id.clone()) else { continue };
            for kind in slot.live_kinds(active) {
                let container = slot.container.name.clone();
                if let Some(machine) = slot.machine(kind).as_mut().filter(|m| m.is_due(now)) {
                    machine.busy = true;
                    out.push(Action::Probe { container, id: id.clone(), kind });
                }
            }
        }
    }
}

/// `10s`, `1m20s`, `5m0s`: as Go writes whole seconds.
pub(super) fn shown_delay(delay: SignedDuration) -> String {
    let seconds = delay.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

/// Used by [`super::end`], too.
pub(super) fn remaining(until: Timestamp, now: Timestamp) -> i64 {
    let left = until.duration_since(now);
    // A started second counts.
    (left.as_secs() + i64::from(left.subsec_nanos() > 0)).max(0)
}
