//! Upstream's flags of leader election, which the controller manager and the scheduler have alike: whether one leads only
//! while it holds a Lease, which Lease that is, and for how long. Called by both.

use std::time::Duration;

use client::election::Timing;
use client::lease::Candidate;

use super::{candidate, duration};
use crate::fault::Fault;

/// See each flag.
#[derive(Debug, clap::Args)]
pub struct Election {
    /// Run only while holding a Lease
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    leader_elect: bool,
    /// How long others wait after the last renewal of the leader
    #[arg(long, default_value = "15s", value_parser = duration, value_name = "DURATION")]
    leader_elect_lease_duration: Duration,
    /// How long a leader goes on that can't renew
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "DURATION")]
    leader_elect_renew_deadline: Duration,
    /// Between two tries
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "DURATION")]
    leader_elect_retry_period: Duration,
    /// What the lock is: leases, and nothing else
    #[arg(long, default_value = "leases", value_parser = ["leases"], value_name = "KIND")]
    leader_elect_resource_lock: String,
    /// Name of the Lease [default: the component's]
    #[arg(long, value_name = "NAME")]
    leader_elect_resource_name: Option<String>,
    /// Namespace of the Lease
    #[arg(long, default_value = "kube-system", value_name = "NAMESPACE")]
    leader_elect_resource_namespace: String,
}

/// The fields.
pub const ELECTION: &[&str] = &[
    "leader_elect",
    "leader_elect_lease_duration",
    "leader_elect_renew_deadline",
    "leader_elect_retry_period",
    "leader_elect_resource_lock",
    "leader_elect_resource_name",
    "leader_elect_resource_namespace",
];

/// A retry may come late by a fifth.
const JITTER: f64 = 1.2;

impl Election {
    fn timing(&self) -> Result<Timing, Fault> {
        let timing = Timing {
            lease_duration: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry_period: self.leader_elect_retry_period,
        };
        if timing.lease_duration <= timing.renew_deadline {
            let sentence = "--leader-elect-lease-duration must be longer than --leader-elect-renew-deadline";
            return Err(Fault::usage(sentence));
        }
        if timing.retry_period.is_zero() || timing.renew_deadline <= timing.retry_period.mul_f64(JITTER) {
            let sentence = "--leader-elect-renew-deadline must be longer than 1.2 of --leader-elect-retry-period";
            return Err(Fault::usage(sentence));
        }
        Ok(timing)
    }

    /// Who stands for it, if anybody; `component` is what the Lease is called where nothing else is said.
    pub fn candidate(&self, component: &str) -> Result<Option<Candidate>, Fault> {
        let timing = self.timing()?;
        if !self.leader_elect {
            return Ok(None);
        }
        let name = self.leader_elect_resource_name.as_deref().unwrap_or(component);
        let mut stands = Candidate::new(name, &candidate());
        (stands.namespace, stands.timing) = (self.leader_elect_resource_namespace.clone(), timing);
        Ok(Some(stands))
    }

    /// What of it is given, over what the cluster sets: any of these flags means that there is an election, unless it is
    /// turned off.
    pub fn over(
        &self,
        given: impl Fn(&str) -> bool,
        component: &str,
        config: &mut Option<Candidate>,
    ) -> Result<(), Fault> {
        if ELECTION.iter().any(|field| given(field)) {
            *config = self.candidate(component)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        election: Election,
    }

    fn stands(line: &str) -> Result<Option<Candidate>, Fault> {
        Flags::try_parse_from(line.split(' ')).expect("flags").election.candidate("kube-scheduler")
    }

    #[test]
    fn the_lease_and_its_times_are_upstreams_unless_said_otherwise() {
        let candidate = stands("x").expect("good").expect("one");
        assert_eq!((candidate.namespace.as_str(), candidate.name.as_str()), ("kube-system", "kube-scheduler"));
        assert_eq!(candidate.timing, Timing::default());
        assert!(stands("x --leader-elect=false").is_ok_and(|one| one.is_none()));
        let line = "x --leader-elect=true --leader-elect-resource-name a --leader-elect-lease-duration 30s";
        let candidate = stands(line).expect("good").expect("one");
        assert_eq!((candidate.name.as_str(), candidate.timing.lease_duration.as_secs()), ("a", 30));
    }

    #[test]
    fn times_that_would_let_two_lead_are_refused() {
        let says = |line: &str| stands(line).err().map(|fault| fault.sentence).unwrap_or_default();
        assert!(says("x --leader-elect-lease-duration=10s").contains("longer than --leader-elect-renew-deadline"));
        assert!(says("x --leader-elect-retry-period=9s").contains("1.2 of --leader-elect-retry-period"));
        assert!(says("x --leader-elect-retry-period=0s").contains("retry-period"));
    }
}
