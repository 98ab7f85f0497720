//! The loop of leader election: reads the `Lease`, asks the pure [`crate::election`], writes. Called by the
//! controller-manager and the scheduler when they run beside others of their kind; a single node needs none. I/O.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::election::{Election, Timing, Wish};
use crate::outage::Outage;

/// One of those that want to lead.
#[derive(Clone)]
pub struct Candidate {
    /// Where the lease is: `--leader-elect-resource-namespace`.
    pub namespace: String,
    /// Its name: `--leader-elect-resource-name`.
    pub name: String,
    /// Unique among the candidates: host name and a random id.
    pub identity: String,
    /// How long terms and waits are.
    pub timing: Timing,
    /// What this host takes for the time: for people who read the lease, never for a decision.
    wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "candidate {} for {}/{}", self.identity, self.namespace, self.name)
    }
}

impl Candidate {
    /// A candidate for the lease `name` in kube-system, with upstream's times.
    pub fn new(name: &str, identity: &str) -> Candidate {
        Candidate {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            timing: Timing::default(),
            wall: Arc::new(Timestamp::now),
        }
    }

    /// Waits until this candidate leads, then does `work` and gives back what it came to; None when `shutdown` came
    /// first. The token that `work` gets is cancelled by `shutdown` and when the lease is lost; work has to end then
    /// within `lease_duration - renew_deadline`. The lease is renewed until `work` has ended, and given up after it, so
    /// that the next leader need not wait.
    pub async fn lead<F: Future>(
        self,
        client: kube::Client,
        shutdown: CancellationToken,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Option<F::Output> {
        let mut term = Term::new(self, client);
        if shutdown.run_until_cancelled(term.campaign()).await.is_none() {
            // The request that was cut short may have made it ours.
            term.release().await;
            return None;
        }
        tracing::info!(lease = term.candidate.name, identity = term.candidate.identity, "became leader");
        let (held, ended) = (shutdown.child_token(), CancellationToken::new());
        // Whoever drops this future wants no lease kept for it.
        let _dropped = ended.clone().drop_guard();
        // A task of its own: work that keeps its thread busy must not keep the lease from being renewed.
        let keeper = tokio::spawn({
            let (held, ended) = (held.clone(), ended.clone());
            async move {
                if ended.run_until_cancelled(term.keep()).await.is_some() {
                    held.cancel();
                }
                term
            }
        });
        let came_to = work(held).await;
        ended.cancel();
        if let Ok(mut term) = keeper.await {
            term.release().await;
        }
        Some(came_to)
    }
}

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("no answer within {0:?}")]
    Late(Duration),
}

/// What one look, and the write that it led to, came to.
enum Attempt {
    Held,
    /// Another candidate's, or somebody wrote in between: look again.
    Again,
    Lost,
}

/// A candidate at work.
struct Term {
    candidate: Candidate,
    api: Api<Lease>,
    election: Election,
    outage: Outage,
}

impl Term {
    fn new(candidate: Candidate, client: kube::Client) -> Term {
        let api = Api::namespaced(client, &candidate.namespace);
        let election = Election::new(&candidate.identity, candidate.timing);
        Term { candidate, api, election, outage: Outage::default() }
    }

    /// Until the lease is ours.
    async fn campaign(&mut self) {
        while !matches!(self.attempt().await, Ok(Attempt::Held)) {
            tokio::time::sleep(self.candidate.timing.retry_period).await;
        }
    }

    /// Renews the lease until it is lost: another has it, or no renewal was confirmed in time, whatever hangs.
    async fn keep(&mut self) {
        while let Some(deadline) = self.election.deadline() {
            let period = self.candidate.timing.retry_period;
            let renewal = timeout_at(deadline.into(), async {
                tokio::time::sleep(period).await;
                self.attempt().await
            });
            match renewal.await {
                Ok(Ok(Attempt::Held | Attempt::Again) | Err(_)) => {}
                Ok(Ok(Attempt::Lost)) => break,
                Err(_) => {
                    let within = self.candidate.timing.renew_deadline;
                    tracing::warn!(lease = self.candidate.name, "the lease was not renewed within {within:?}");
                    break;
                }
            }
        }
        tracing::warn!(lease = self.candidate.name, identity = self.candidate.identity, "leads no more");
        self.election.resign();
    }

    /// One look at the lease and, if it may be ours, one write. Failures are told here, once per outage.
    async fn attempt(&mut self) -> Result<Attempt, Failure> {
        let result = self.look_and_write().await;
        let (lease, now) = (&self.candidate.name, Instant::now().into_std());
        match &result {
            Err(error) if self.outage.failed(now) => tracing::warn!(%error, lease, "election fails; trying again"),
            Err(error) => tracing::debug!(%error, lease, "election failed, trying again"),
            Ok(_) => {
                if let Some(lasted) = self.outage.over(now) {
                    tracing::info!(lease, ?lasted, "election works again");
                }
            }
        }
        result
    }

    async fn look_and_write(&mut self) -> Result<Attempt, Failure> {
        let found = self.in_time(self.api.get_opt(&self.candidate.name)).await?;
        let seen = found.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        match self.election.step(seen.as_ref(), Instant::now().into_std()) {
            Wish::Wait => return Ok(Attempt::Again),
            Wish::Lost => return Ok(Attempt::Lost),
            Wish::Hold => {}
        }
        let record = self.election.record(seen.as_ref(), (self.candidate.wall)());
        let sent = Instant::now().into_std();
        match self.in_time(self.write(found, record.clone())).await {
            Ok(()) => {
                self.election.held(record, sent);
                Ok(Attempt::Held)
            }
            // Somebody wrote since we looked; who, the next look tells.
            Err(Failure::Api(kube::Error::Api(status))) if status.code == 409 => Ok(Attempt::Again),
            Err(error) => Err(error),
        }
    }

    /// Writes over the lease that was found, guarded by its version, or makes it.
    async fn write(&self, found: Option<Lease>, record: LeaseSpec) -> kube::Result<()> {
        let params = PostParams::default();
        if let Some(lease) = found {
            let next = Lease { spec: Some(record), ..lease };
            self.api.replace(&self.candidate.name, &params, &next).await?;
        } else {
            let metadata = ObjectMeta { name: Some(self.candidate.name.clone()), ..ObjectMeta::default() };
            self.api.create(&params, &Lease { metadata, spec: Some(record) }).await?;
        }
        Ok(())
    }

    /// A request gets half of the time in which a leader must renew, as upstream's client for elections: so that one
    /// that hangs can be tried again on another connection.
    async fn in_time<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
        let limit = self.candidate.timing.renew_deadline / 2;
        Ok(timeout(limit, request).await.map_err(|_| Failure::Late(limit))??)
    }

    /// Gives the lease up if it is ours. Takes no longer than until the others look again: past that a stop that waits
    /// costs more than it saves them.
    async fn release(&mut self) {
        self.election.resign();
        let give_up = async {
            let Some(lease) = self.api.get_opt(&self.candidate.name).await? else { return Ok(()) };
            let seen = lease.spec.clone().unwrap_or_default();
            match self.election.release(&seen, (self.candidate.wall)()) {
                Some(record) => self.write(Some(lease), record).await,
                None => Ok(()),
            }
        };
        let limit = self.candidate.timing.retry_period;
        let result: Result<(), Failure> = match timeout(limit, give_up).await {
            Ok(result) => result.map_err(Failure::Api),
            Err(_) => Err(Failure::Late(limit)),
        };
        if let Err(error) = result {
            tracing::debug!(%error, lease = self.candidate.name, "lease not released");
        }
    }
}

#[cfg(test)]
mod tests;
