//! podcertificaterequest-cleaner-controller: requests for certificates of pods go a quarter of an hour after they were
//! made. Whatever becomes of one does so sooner; a kubelet whose request is gone makes another.

use std::time::Duration;

use client::{Key, Plan, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::PodCertificateRequest;

use crate::common::acts;
use crate::runner::Work;
use crate::setup::Setup;

const WORKERS: usize = 1;
const STAYS: Duration = Duration::from_secs(15 * 60);

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let requests = setup.queue_own::<PodCertificateRequest>(&queue);
    let executor = setup.executor("podcertificaterequestcleaner");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, now| {
        requests.get(key).map(|request| reconcile(&request, now)).unwrap_or_default()
    }));
}

fn reconcile(request: &PodCertificateRequest, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let made = request.metadata.creation_timestamp.as_ref().filter(|_| request.metadata.deletion_timestamp.is_none());
    let Some(due) = made.and_then(|made| made.0.checked_add(STAYS).ok()) else { return plan };
    match Duration::try_from(due.duration_since(now)) {
        Ok(left) if !left.is_zero() => plan.requeue(left),
        _ => plan.push(acts::delete(request)),
    };
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::model::{at, from};
    use serde_json::json;

    #[test]
    fn a_request_goes_a_quarter_of_an_hour_after_it_was_made() {
        let request: PodCertificateRequest = from(json!({
            "metadata": {"name": "req-1", "namespace": "ns", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {},
        }));
        let made = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_second();
        assert_eq!(reconcile(&request, at(made + 60)).requeue_after, Some(Duration::from_secs(14 * 60)));
        assert_eq!(reconcile(&request, at(made + 15 * 60)).actions.len(), 1);
    }
}
