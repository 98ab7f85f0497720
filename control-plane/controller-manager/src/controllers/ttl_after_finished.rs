//! ttl-after-finished-controller: finished jobs that say how long they want to stay go when that time is over.

use std::time::Duration;

use client::plan::Deletion;
use client::{Key, Plan, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::api::PropagationPolicy;

use super::job::finish::is_finished;
use crate::common::acts;
use crate::runner::Work;
use crate::setup::Setup;

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let jobs = setup.queue_own::<Job>(&queue);
    let executor = setup.executor("ttl-after-finished-controller");
    let workers = setup.config.concurrency.ttl_after_finished;
    setup.run(Work::new(&queue, executor, workers, move |key, now| {
        jobs.get(key).map(|job| reconcile(&job, now)).unwrap_or_default()
    }));
}

fn reconcile(job: &Job, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let ttl = job.spec.as_ref().and_then(|s| s.ttl_seconds_after_finished);
    let (Some(ttl), true, None) = (ttl, is_finished(job), &job.metadata.deletion_timestamp) else {
        return Plan::nothing("it has no ttl, has not finished, or goes already");
    };
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ended = conditions.filter(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"));
    let Some(ended) = ended.filter_map(|c| c.last_transition_time.as_ref()).map(|t| t.0).min() else { return plan };
    let left = ended.as_second() + i64::from(ttl) - now.as_second();
    if left > 0 {
        plan.requeue(Duration::from_secs(left as u64)).because("its ttl is not over");
        return plan;
    }
    // This version alone: its time may just have been changed.
    let (propagation, resource_version) = (Some(PropagationPolicy::Foreground), job.metadata.resource_version.clone());
    plan.push(acts::delete_as(job, Deletion { propagation, resource_version, ..Deletion::default() }));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use testkit::model::{at, from};

    #[test]
    fn a_finished_job_goes_when_its_time_is_over() {
        let job: Job = from(json!({
            "metadata": {"name": "j", "namespace": "ns"}, "spec": {"ttlSecondsAfterFinished": 60, "template": {}},
            "status": {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        }));
        let ended = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_second();
        assert_eq!(reconcile(&job, at(ended + 20)).requeue_after, Some(Duration::from_secs(40)));
        assert_eq!(reconcile(&job, at(ended + 60)).steps.len(), 1);
        let running: Job = from(json!({"metadata": {}, "spec": {"ttlSecondsAfterFinished": 0, "template": {}}}));
        assert!(reconcile(&running, at(ended)).is_empty());
    }
}
