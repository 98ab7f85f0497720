//! The life of one pod on this node as a state machine: [`PodWorker::step`] takes what happened and gives what to do. The
//! loop owns one worker a pod UID, the executor runs the actions, and each outcome comes back as the next event; everything
//! that was decided was decided here. Pure: time is an argument, nothing waits.
//!
//! ```text
//!                    ┌────────────────────── PodWorker::step ──────────────────────┐
//!  Event, now ─────► │ take      the event into the state                          │
//!                    │ drive     while Active: what is missing between spec, state │ ─────► Actions
//!                    │ end       while Ending: what is still there                 │
//!                    │ report    the status, if the API has another one            │
//!                    └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! A pod of one container, from its binding to its deletion. The last column is what keeps the worker from asking twice:
//! each thing under way is a state of its own.
//!
//! ```text
//!  event                          actions                                     state after it
//!  Spec                           -  (what runs already is not known yet)
//!  Observed {nothing}             Mount, CreateSandbox{0}, Pull, WriteStatus   volumes Busy, sandbox Creating, image Busy
//!  Mounted(Ok)                    -  (no sandbox, no image)                    volumes Done
//!  SandboxCreated{0, Ok}          WriteStatus (the address)                    sandbox Ready
//!  Pulled(Ok)                     Start{attempt 0}                             slot Starting
//!  Started{0, Ok}                 Note, Note, WriteStatus (Running)            slot Idle, an instance runs
//!  Observed {it exited with 1}    WriteStatus (CrashLoopBackOff)               slot waits; deadline: then Tick
//!  Tick                           Pull, then Start{attempt 1}
//!  Spec {deletionTimestamp}       Kill{grace}                                  Ending, slot Killing
//!  Killed(Ok)                     StopSandbox, WriteStatus                     sandbox Stopping
//!  SandboxStopped(Ok)             TearDown                                     torn Busy
//!  TornDown(Ok)                   DeletePod, once its last status is written   torn Done
//!  Gone                           Remove                                       present no more
//!  Removed(Ok)                    Forget                                       Finished
//! ```
//!
//! Words of the runtime (Observed, Vanished) come late, twice, and in no order with the answers to our own calls. So each
//! of them says which container, sandbox or attempt it is about and moves nothing else; `tests::laws` tries them in all
//! orders. A kubelet that starts again begins with a fresh worker: Observed carries what a former one left.
//!
//! The parts: `state` (what is known), `slot` (one container of it), `event` (what comes and goes), `take`, `drive`, `end`
//! (the step), `status` with `transitions` (the state as the API shows it), `observation` (looks at the runtime that come
//! before the pod does).

mod drive;
mod end;
mod event;
pub mod observation;
mod slot;
mod state;
mod status;
mod take;
#[cfg(test)]
mod tests;
mod transitions;

use jiff::Timestamp;

pub use event::{Action, Event, SandboxRecord, StartError};
pub use slot::{Instance, RunState};
pub use state::{Life, PodWorker, Settings, Task};

impl PodWorker {
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

    fn report(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        if !self.present || self.life == Life::Finished || !(self.writing == Task::Done || self.writing.is_due(now)) {
            return;
        }
        let new = status::render(self, now);
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
