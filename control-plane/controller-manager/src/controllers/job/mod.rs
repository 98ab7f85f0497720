//! job-controller: runs pods until enough have succeeded, or too many have failed.
//!
//! - [`count`]: which pods have ended and are not yet in the status; each is counted exactly once, because its
//!   finalizer goes only after the status that counts it is stored
//! - [`finish`]: whether the job has failed or succeeded, and why
//! - [`manage`]: pods to make and delete
//! - [`indexes`], [`policy`], [`retry`]: completion indexes, failure and success policies, waiting after failures

pub mod count;
pub mod finish;
pub mod indexes;
pub mod manage;
pub mod policy;
pub mod retry;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Action, Delta, Key, Plan, WorkQueue};
use facts::labels::{self, Selector};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::replicaset::watch_pods;
use crate::common::owners::{self, OWNER, by_owner, controller_named, controller_of};
use crate::common::{acts, pods, template};
use crate::runner::Work;
use crate::setup::{Setup, Shared};
use indexes::Indexes;

/// Finalizer of pods that are not yet counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// The controller that `managedBy` names when it is this one.
const OURSELVES: &str = "kubernetes.io/job-controller";

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    setup.index::<Pod>(OWNER, by_owner);
    let jobs = setup.queue_own::<Job>(&queue);
    let pods = watch_pods::<Job>(setup, &queue, jobs.clone(), selector);
    let executor = setup.executor("job-controller");
    let workers = setup.config.concurrency.job;
    free_orphans(setup, jobs.clone());
    setup.run(Work::new(&queue, executor, workers, move |key, now| {
        let Some(job) = jobs.get(key) else { return Plan::default() };
        let candidates = owners::candidates(&pods, &job.metadata, &selector(&job));
        reconcile(&View { job, candidates }, now)
    }));
}

/// Pods that nobody will count any more must not be held by our finalizer. Keys are pods.
fn free_orphans(setup: &mut Setup, jobs: Shared<Job>) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let again = queue.clone();
    let pods = setup.on(move |delta: &Delta<Pod>| {
        if !matches!(delta, Delta::Deleted(_)) && is_tracked(delta.object()) {
            again.add(Key::of(delta.object().as_ref()));
        }
    });
    let (again, all) = (queue.clone(), pods.clone());
    setup.on(move |delta: &Delta<Job>| {
        if let Delta::Deleted(job) = delta {
            let left = all.by(OWNER, &owners::owned_by(&job.metadata));
            left.iter().for_each(|p| again.add(Key::of(p.as_ref())));
        }
    });
    let executor = setup.executor("job-controller");
    setup.run(Work::new(&queue, executor, 1, move |key, _| {
        let mut plan = Plan::default();
        let Some(pod) = pods.get(key).filter(|p| is_tracked(p)) else { return plan };
        let owner = controller_of(&pod.metadata);
        let of_job = controller_named::<Job>(&pod.metadata);
        let job = of_job.and_then(|name| jobs.get_in(&key.namespace, name));
        let counted_by_it = match (&job, owner) {
            (Some(job), Some(owner)) => job.metadata.uid.as_deref() == Some(&owner.uid) && !finish::is_finished(job),
            // Orphans may yet be adopted; those of other controllers are none of ours.
            (None, None) => !pods::is_terminating(&pod),
            _ => of_job.is_none() && owner.is_some(),
        };
        if !counted_by_it {
            plan.push(untrack(&pod));
        }
        plan
    }));
}

fn selector(job: &Job) -> Selector {
    labels::selector(job.spec.as_ref().and_then(|s| s.selector.as_ref()))
}

pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.as_ref().is_some_and(|f| f.iter().any(|f| f == TRACKING))
}

pub fn untrack(pod: &Pod) -> Action {
    acts::patch(pod, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [TRACKING]}}))
}

/// What the caches show of one job.
pub struct View {
    pub job: Arc<Job>,
    /// Its pods and the orphans of its namespace.
    pub candidates: Vec<Arc<Pod>>,
}

/// What a decision works with.
pub struct Course<'a> {
    pub job: &'a Job,
    pub spec: &'a JobSpec,
    pub pods: Vec<Arc<Pod>>,
    /// The status as it will be.
    pub status: JobStatus,
    /// Indexes that have succeeded, and failed for good; empty unless indexed.
    pub succeeded: Indexes,
    pub failed: Indexes,
    pub plan: Plan,
    pub now: Timestamp,
}

impl Course<'_> {
    pub fn active(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|p| pods::is_active(p))
    }

    pub fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    pub fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    /// Replacements wait until a pod has really ended.
    pub fn replaces_ended_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed") || self.spec.pod_failure_policy.is_some()
    }

    /// Failed, or going without success.
    pub fn has_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => pods::is_terminating(pod) && !self.replaces_ended_only(),
        }
    }
}

pub fn reconcile(view: &View, now: Timestamp) -> Plan {
    let job = view.job.as_ref();
    let no_spec = JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&no_spec);
    if spec.managed_by.as_deref().is_some_and(|m| m != OURSELVES) {
        return Plan::nothing("another controller manages it (spec.managedBy)");
    }
    let claim = owners::claim(job, &selector(job), view.candidates.iter().cloned(), Some(TRACKING));
    let plan = Plan::of(claim.actions);
    let status = job.status.clone().unwrap_or_default();
    let mut course = Course {
        job,
        spec,
        pods: claim.mine,
        status,
        succeeded: Indexes::default(),
        failed: Indexes::default(),
        plan,
        now,
    };
    if finish::is_finished(job) {
        let left: Vec<Action> = course.pods.iter().filter(|p| is_tracked(p)).map(|p| untrack(p)).collect();
        course.plan.extend(left);
        course.plan.because("it has finished");
        return course.plan;
    }
    decide(&mut course);
    course.plan
}

fn decide(course: &mut Course) {
    count::settle(course);
    if course.status.start_time.is_none() && !course.is_suspended() {
        course.status.start_time = Some(Time(whole(course.now)));
    }
    indexes::calculate(course);
    let totals = count::totals(course);
    let target = finish::target(course, &totals);
    let mut active = course.active().count();
    let mut ready = course.active().filter(|p| pods::is_ready(p)).count();
    match &target {
        Some(_) => manage::delete_active(course),
        None if course.job.metadata.deletion_timestamp.is_none() => {
            let (made, deleted) = manage::pods(course, &totals);
            active = active + made - deleted.len();
            ready -= deleted.iter().filter(|p| pods::is_ready(p)).count();
            finish::note_suspension(course);
        }
        None => {
            course.plan.because("it is being deleted");
        }
    }
    if target.is_some() {
        (active, ready) = (0, 0);
    }
    let going = course.pods.iter().filter(|p| pods::is_terminating(p) && !pods::is_terminal(p)).count();
    course.status.active = (active != 0).then_some(active as i32);
    course.status.ready = Some(ready as i32);
    course.status.terminating = Some(going as i32);
    let untracked = count::track(course, target.is_some());
    if let Some(target) = &target {
        finish::conclude(course, target);
    }
    write_status(course);
    course.plan.together(untracked);
}

fn write_status(course: &mut Course) {
    let mut next = course.job.clone();
    next.status = Some(course.status.clone());
    if !template::equal(&next.status, &course.job.status) {
        course.plan.push(acts::update_status(&next));
    }
}

pub fn whole(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

pub fn condition<'a>(status: &'a JobStatus, type_: &str) -> Option<&'a JobCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_ == type_ && c.status == "True")
}
