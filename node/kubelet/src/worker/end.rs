//! Ending a pod: regular containers first, sidecars after them in reverse, then the sandbox, what else it has on the
//! node, and last its object in the API. Each stage waits for the one before, whatever order answers come in.

use jiff::Timestamp;

use super::drive::remaining;
use super::event::Action;
use super::slot::Work;
use super::state::{Life, PodWorker, Sandbox, Task};
use super::status;
use crate::pod::pods::ContainerType;

impl PodWorker {
    pub(super) fn end(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        self.kill_all(now, out);
        self.drive_probes(now, out);
        if !self.is_still() || self.volumes == Task::Busy {
            return;
        }
        match self.sandbox.clone() {
            Sandbox::Creating { .. } | Sandbox::Stopping { .. } | Sandbox::Removing { .. } => return,
            Sandbox::Ready { id } | Sandbox::Dead { id } => {
                if self.torn.is_due(now) {
                    self.torn = Task::Todo;
                    self.sandbox = Sandbox::Stopping { id: id.clone() };
                    out.push(Action::StopSandbox { id });
                }
                return;
            }
            Sandbox::None | Sandbox::Retry { .. } | Sandbox::Stopped { .. } => {}
        }
        if self.torn.is_due(now) {
            self.torn = Task::Busy;
            out.push(Action::TearDown);
        }
        if self.torn != Task::Done {
            return;
        }
        if self.present {
            self.delete(now, out);
        } else {
            self.remove(now, out);
        }
    }

    fn kill_all(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let Life::Ending(ending) = &self.life else { return };
        let until = ending.until;
        let mut later_ones_run = self.slots.iter().any(|s| s.container_type != ContainerType::Sidecar && !s.is_still());
        let expired = until <= now;
        for index in (0..self.slots.len()).rev() {
            let sidecar = self.slots[index].container_type == ContainerType::Sidecar;
            if !sidecar || !later_ones_run || expired {
                self.kill_one(index, until, now, out);
            }
            later_ones_run |= sidecar && !self.slots[index].is_still();
        }
    }

    fn kill_one(&mut self, index: usize, until: Timestamp, now: Timestamp, out: &mut Vec<Action>) {
        let slot = &mut self.slots[index];
        let Some(current) = slot.current.as_ref().filter(|c| !c.is_over()) else { return };
        let wanted = match slot.work {
            // What is being started is killed when its start is answered.
            Work::Starting { .. } => false,
            // The pod has less time left than the kill that runs gives.
            Work::Killing { until: given } => until < given && slot.retry.is_none(),
            Work::Idle | Work::PostStart => slot.retry.is_none_or(|at| at <= now),
        };
        if !wanted {
            return;
        }
        let first = !matches!(slot.work, Work::Killing { .. });
        slot.work = Work::Killing { until };
        slot.retry = None;
        let name = slot.container.name.clone();
        out.push(Action::Kill {
            id: current.id.clone(),
            grace: remaining(until, now),
            message: format!("Stopping container {name}"),
            pre_stop: first,
            container: name,
        });
    }

    /// The API forgets a pod that was asked to go, once its last status is written.
    fn delete(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        if self.pod.metadata.deletion_timestamp.is_none() || !self.deleted.is_due(now) || self.writing != Task::Done {
            return;
        }
        if status::render(self, now) == self.known {
            self.deleted = Task::Busy;
            out.push(Action::DeletePod);
        }
    }

    fn remove(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        if self.removed.is_due(now) {
            self.removed = Task::Busy;
            out.push(Action::Remove);
        }
        if self.removed == Task::Done {
            self.life = Life::Finished;
            out.push(Action::Forget);
        }
    }
}
