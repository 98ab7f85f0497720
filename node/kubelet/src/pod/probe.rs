//! Probes as a state machine: when the next one is due, what a row of answers means. The worker owns one machine for
//! each probe of a container and asks the shell to run those that are due. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Probe};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    /// As Events name it.
    pub fn shown(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
}

/// The answer of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Counts as success and is told (an HTTP redirect to another host).
    Warning(String),
    Failure(String),
    /// The probe itself could not be run: told, counted as nothing.
    Error(String),
}

/// One probe of one running container.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    pub due: Timestamp,
    /// A probe is under way.
    pub busy: bool,
    /// What is held to be true; `None` before the first verdict.
    pub verdict: Option<bool>,
    last: Option<bool>,
    row: i32,
    /// A liveness or startup probe that failed says nothing more: the container is being replaced.
    pub hold: bool,
}

/// What changed with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Unchanged,
    Passed,
    Failed,
}

pub fn of(container: &Container, kind: Kind) -> Option<&Probe> {
    match kind {
        Kind::Startup => container.startup_probe.as_ref(),
        Kind::Liveness => container.liveness_probe.as_ref(),
        Kind::Readiness => container.readiness_probe.as_ref(),
    }
}

fn seconds(value: Option<i32>, default: i64) -> SignedDuration {
    SignedDuration::from_secs(value.map(i64::from).filter(|v| *v > 0).unwrap_or(default))
}

pub fn timeout(probe: &Probe) -> SignedDuration {
    seconds(probe.timeout_seconds, 1)
}

impl Machine {
    pub fn new(probe: &Probe, started: Timestamp) -> Machine {
        let delay = SignedDuration::from_secs(i64::from(probe.initial_delay_seconds.unwrap_or(0).max(0)));
        Machine {
            due: started.saturating_add(delay).unwrap_or(started),
            busy: false,
            verdict: None,
            last: None,
            row: 0,
            hold: false,
        }
    }

    /// Holds what a former kubelet had found out of the same container, until an answer says otherwise.
    pub fn believe(&mut self, kind: Kind) {
        self.verdict = Some(true);
        self.hold = kind == Kind::Startup;
    }

    pub fn is_due(&self, now: Timestamp) -> bool {
        !self.busy && !self.hold && self.due <= now
    }

    /// Takes the answer to the probe that was under way.
    pub fn answer(&mut self, kind: Kind, probe: &Probe, outcome: &Outcome, now: Timestamp) -> Verdict {
        self.busy = false;
        self.due = now.saturating_add(seconds(probe.period_seconds, 10)).unwrap_or(now);
        let good = match outcome {
            Outcome::Success | Outcome::Warning(_) => true,
            Outcome::Failure(_) => false,
            Outcome::Error(_) => return Verdict::Unchanged,
        };
        self.row = if self.last == Some(good) { self.row.saturating_add(1) } else { 1 };
        self.last = Some(good);
        let enough = if good { probe.success_threshold } else { probe.failure_threshold };
        let enough = enough.filter(|n| *n > 0).unwrap_or(if good { 1 } else { 3 });
        if self.row < enough || self.verdict == Some(good) {
            return Verdict::Unchanged;
        }
        self.verdict = Some(good);
        if good {
            // A startup probe has said all it can.
            self.hold = kind == Kind::Startup;
            return Verdict::Passed;
        }
        if kind != Kind::Readiness {
            self.hold = true;
        }
        Verdict::Failed
    }
}

/// The Event text of an answer that users should see.
pub fn note(kind: Kind, outcome: &Outcome) -> Option<(&'static str, String)> {
    use crate::names::reason;
    let kind = kind.shown();
    match outcome {
        Outcome::Success => None,
        Outcome::Warning(output) => Some((reason::PROBE_WARNING, format!("{kind} probe warning: {output}"))),
        Outcome::Failure(output) => Some((reason::UNHEALTHY, format!("{kind} probe failed: {output}"))),
        Outcome::Error(error) => {
            Some((reason::UNHEALTHY, format!("{kind} probe errored and resulted in unknown state: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn bad() -> Outcome {
        Outcome::Failure("no".into())
    }

    #[test]
    fn a_verdict_takes_as_many_answers_as_the_threshold() {
        let probe = Probe { failure_threshold: Some(2), success_threshold: Some(2), ..Probe::default() };
        let mut machine = Machine::new(&probe, at(0));
        let kind = Kind::Readiness;
        let answers = [
            (Outcome::Success, Verdict::Unchanged),
            (Outcome::Success, Verdict::Passed),
            (bad(), Verdict::Unchanged),
            (Outcome::Success, Verdict::Unchanged),
            (bad(), Verdict::Unchanged),
            (Outcome::Error("lost".into()), Verdict::Unchanged),
            (bad(), Verdict::Failed),
            (bad(), Verdict::Unchanged),
        ];
        for (i, (outcome, verdict)) in answers.into_iter().enumerate() {
            assert_eq!(machine.answer(kind, &probe, &outcome, at(i as i64)), verdict, "answer {i}");
        }
        assert!(!machine.hold, "readiness goes on");
    }

    #[test]
    fn liveness_fails_once_and_waits_for_the_next_container() {
        let probe = Probe { failure_threshold: Some(1), initial_delay_seconds: Some(5), ..Probe::default() };
        let mut machine = Machine::new(&probe, at(0));
        assert!(!machine.is_due(at(4)) && machine.is_due(at(5)));
        assert_eq!(machine.answer(Kind::Liveness, &probe, &bad(), at(5)), Verdict::Failed);
        assert!(!machine.is_due(at(100)));
    }
}
