//! certificatesigningrequest-cleaner-controller: requests go an hour after they were decided and answered, a day after
//! they were made when nobody did either, and when their certificate is over.

use std::time::Duration;

use client::{Key, Plan, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;
use x509_parser::pem::parse_x509_pem;

use super::{APPROVED, DENIED, FAILED, certificate, conditions};
use crate::common::acts;
use crate::runner::Work;
use crate::setup::Setup;

const WORKERS: usize = 1;
const DECIDED: Duration = Duration::from_secs(3600);
const PENDING: Duration = Duration::from_secs(24 * 3600);

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let requests = setup.queue_own::<Csr>(&queue);
    let executor = setup.executor("certificate-controller");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, now| {
        requests.get(key).map(|csr| reconcile(&csr, now)).unwrap_or_default()
    }));
}

fn reconcile(csr: &Csr, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(due) = due(csr).filter(|_| csr.metadata.deletion_timestamp.is_none()) else { return plan };
    match Duration::try_from(due.duration_since(now)) {
        Ok(left) if !left.is_zero() => plan.requeue(left),
        _ => plan.push(acts::delete(csr)),
    };
    plan
}

/// When the request is to go.
fn due(csr: &Csr) -> Option<Timestamp> {
    if conditions(csr).next().is_none() {
        return after(csr.metadata.creation_timestamp.as_ref()?.0, PENDING);
    }
    let issued = certificate(csr);
    let over = conditions(csr).filter_map(|c| {
        let time = c.last_update_time.as_ref()?.0;
        match c.type_.as_str() {
            APPROVED if issued.is_none() => after(time, PENDING),
            APPROVED | DENIED | FAILED => after(time, DECIDED),
            _ => None,
        }
    });
    over.chain(issued.and_then(expiry)).min()
}

fn after(time: Timestamp, span: Duration) -> Option<Timestamp> {
    time.checked_add(span).ok()
}

/// When the first certificate of the chain is over.
fn expiry(pem: &[u8]) -> Option<Timestamp> {
    let (_, block) = parse_x509_pem(pem).ok()?;
    let over = block.parse_x509().ok()?.validity().not_after.timestamp();
    Timestamp::from_second(over).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use testkit::model::{at, from};

    /// Seconds that the request stays after it was made and decided.
    fn stays(status: Value) -> Option<i64> {
        let csr: Csr = from(json!({
            "metadata": {"name": "c", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"request": "", "signerName": "s"}, "status": status,
        }));
        let made = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_second();
        let due = due(&csr)?.as_second();
        assert_eq!(reconcile(&csr, at(due)).steps.len(), 1);
        assert_eq!(reconcile(&csr, at(due - 5)).requeue_after, Some(Duration::from_secs(5)));
        Some(due - made)
    }

    fn condition(kind: &str) -> Value {
        json!({"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn what_nobody_needs_goes() {
        assert_eq!(stays(json!({})), Some(86_400));
        assert_eq!(stays(json!({"conditions": [condition("Denied")]})), Some(3600));
        assert_eq!(stays(json!({"conditions": [condition("Approved"), condition("Failed")]})), Some(3600));
        assert_eq!(stays(json!({"conditions": [condition("Approved")]})), Some(86_400));
        let issued = json!({"conditions": [condition("Approved")], "certificate": "eA=="});
        assert_eq!(stays(issued), Some(3600));
        assert_eq!(stays(json!({"conditions": [{"type": "Approved", "status": "True"}]})), None, "no time is no age");
    }
}
