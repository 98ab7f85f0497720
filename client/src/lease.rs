//! Leader election on a `Lease`: one holder at a time among several replicas of a component. Called by the
//! controller-manager and the scheduler when they run beside others of their kind; a single node needs none.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;

/// Upstream's defaults: `--leader-elect-lease-duration`, `-renew-deadline`, `-retry-period`.
#[derive(Debug, Clone)]
pub struct Election {
    pub namespace: String,
    pub name: String,
    /// Unique among the candidates: host name and a random id.
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl Election {
    pub fn new(name: &str, identity: &str) -> Election {
        Election {
            namespace: "kube-system".into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    /// Waits until this candidate holds the lease. The returned token is cancelled when the lease is lost or
    /// `shutdown` comes; on shutdown the lease is given up so that the next holder need not wait.
    pub async fn acquire(self, client: kube::Client, shutdown: CancellationToken) -> Option<CancellationToken> {
        let api: Api<Lease> = Api::namespaced(client, &self.namespace);
        loop {
            match self.step(&api).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, lease = self.name, "election failed, trying again"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(self.retry_period) => {}
            }
        }
        tracing::info!(lease = self.name, identity = self.identity, "became leader");
        let held = shutdown.child_token();
        tokio::spawn(self.keep(api, held.clone()));
        Some(held)
    }

    async fn keep(self, api: Api<Lease>, held: CancellationToken) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = held.cancelled() => {
                    if let Err(error) = self.release(&api).await {
                        tracing::debug!(%error, lease = self.name, "lease not released");
                    }
                    return;
                }
                () = tokio::time::sleep(self.retry_period) => {}
            }
            match self.step(&api).await {
                Ok(true) => renewed = tokio::time::Instant::now(),
                Ok(false) => return held.cancel(),
                Err(_) if renewed.elapsed() < self.renew_deadline => {}
                Err(_) => return held.cancel(),
            }
        }
    }

    /// Takes or renews the lease; false when another candidate holds it.
    async fn step(&self, api: &Api<Lease>) -> kube::Result<bool> {
        let now = jiff::Timestamp::now();
        let Some(mut lease) = api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(now, 0)),
            };
            api.create(&PostParams::default(), &lease).await?;
            return Ok(true);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let mine = spec.holder_identity.as_deref() == Some(&self.identity);
        let free = spec.holder_identity.as_deref().unwrap_or("").is_empty() || expired(&spec, now);
        if !mine && !free {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(!mine);
        let acquired = if mine { spec.acquire_time } else { None };
        let mut next = self.spec(now, transitions);
        next.acquire_time = acquired.or(next.acquire_time);
        lease.spec = Some(next);
        match api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&self, api: &Api<Lease>) -> kube::Result<()> {
        let mut lease = api.get(&self.name).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            api.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    fn spec(&self, now: jiff::Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.lease_duration.as_secs() as i32),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

fn expired(spec: &LeaseSpec, now: jiff::Timestamp) -> bool {
    let Some(renewed) = &spec.renew_time else { return true };
    let seconds = i64::from(spec.lease_duration_seconds.unwrap_or(0));
    renewed.0.as_second() + seconds < now.as_second()
}
