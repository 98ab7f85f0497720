//! Whether a job is over, and what is said about it: first the interim condition (`FailureTarget`,
//! `SuccessCriteriaMet`), then, once every pod has ended and is counted, the final one. Pure.

use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::count::{self, Totals};
use super::{SyncContext, condition, indexes, policy, whole};
use crate::common::{acts, pods};

const COMPLETE: &str = "Complete";
const FAILED: &str = "Failed";
const SUCCESS_MET: &str = "SuccessCriteriaMet";
const FAILURE_TARGET: &str = "FailureTarget";
const SUSPENDED: &str = "Suspended";

/// How the job ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    succeeds: bool,
    reason: String,
    message: String,
}

impl Target {
    fn fails(reason: &str, message: &str) -> Target {
        Target { succeeds: false, reason: reason.into(), message: message.into() }
    }

    fn succeeds(reason: &str, message: &str) -> Target {
        Target { succeeds: true, reason: reason.into(), message: message.into() }
    }
}

pub fn is_finished(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|s| condition(s, COMPLETE).is_some() || condition(s, FAILED).is_some())
}

/// The job is over, or is about to be.
pub fn target(sync: &mut SyncContext, totals: &Totals) -> Option<Target> {
    let said = |type_: &str| {
        let c = condition(&sync.status, type_)?;
        Some((c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default()))
    };
    if let Some((reason, message)) = said(SUCCESS_MET) {
        return Some(Target::succeeds(&reason, &message));
    }
    if let Some((reason, message)) = said(FAILURE_TARGET) {
        return Some(Target::fails(&reason, &message));
    }
    if let Some(message) =
        sync.pods.iter().filter(|p| sync.has_failed(p)).find_map(|p| policy::verdict(sync, p).fails_job)
    {
        return Some(Target::fails("PodFailurePolicy", &message));
    }
    limits(sync, totals).or_else(|| of_indexes(sync)).or_else(|| completed(sync, totals))
}

fn limits(sync: &mut SyncContext, totals: &Totals) -> Option<Target> {
    let limit = sync.spec.backoff_limit.unwrap_or(6);
    if totals.failed > limit || restarted_too_often(sync, limit) {
        return Some(Target::fails("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    let deadline = sync.spec.active_deadline_seconds?;
    let started = sync.status.start_time.as_ref().filter(|_| !sync.is_suspended())?.0;
    let left = started.as_second() + deadline - sync.now.as_second();
    if left <= 0 {
        return Some(Target::fails("DeadlineExceeded", "Job was active longer than specified deadline"));
    }
    sync.plan.requeue(Duration::from_secs(left as u64));
    None
}

/// With `restartPolicy: OnFailure` containers fail inside their pods.
fn restarted_too_often(sync: &SyncContext, limit: i32) -> bool {
    let policy = sync.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let count = |p: &k8s_openapi::api::core::v1::Pod| -> i32 {
        let Some(status) = &p.status else { return 0 };
        let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
        all.map(|c| c.restart_count).sum()
    };
    let restarts: i32 =
        sync.pods.iter().filter(|p| matches!(pods::phase(p), "Running" | "Pending")).map(|p| count(p)).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn of_indexes(sync: &SyncContext) -> Option<Target> {
    if !sync.is_indexed() {
        return None;
    }
    let failed = sync.failed.len() as i32;
    if sync.spec.max_failed_indexes.is_some_and(|most| failed > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Target::fails("MaxFailedIndexesExceeded", message));
    }
    if failed > 0 && failed + sync.succeeded.len() as i32 >= indexes::completions(sync) {
        return Some(Target::fails("FailedIndexes", "Job has failed indexes"));
    }
    policy::success(sync).map(|message| Target::succeeds("SuccessPolicy", &message))
}

fn completed(sync: &SyncContext, totals: &Totals) -> Option<Target> {
    let active = sync.active().next().is_some();
    let done = match sync.spec.completions {
        None => totals.succeeded > 0 && !active,
        Some(completions) => totals.succeeded >= completions && !active,
    };
    done.then(|| Target::succeeds("CompletionsReached", "Reached expected number of succeeded pods"))
}

/// The interim condition now; the final one when nothing runs, ends or waits to be counted.
pub fn conclude(sync: &mut SyncContext, target: &Target) {
    let interim = if target.succeeds { SUCCESS_MET } else { FAILURE_TARGET };
    set(&mut sync.status, sync.now, interim, true, &target.reason, &target.message);
    let over = sync.active().next().is_none() && sync.status.terminating == Some(0) && count::is_settled(sync);
    if !over {
        return;
    }
    let last = if target.succeeds { COMPLETE } else { FAILED };
    set(&mut sync.status, sync.now, last, true, &target.reason, &target.message);
    if target.succeeds {
        sync.status.completion_time = Some(Time(whole(sync.now)));
        sync.plan.push(acts::normal(sync.job, "Completed", "Job completed".into()));
    } else {
        sync.plan.push(acts::warning(sync.job, &target.reason, target.message.clone()));
    }
}

/// Says that the job was suspended or goes on; going on starts its clock anew.
pub fn note_suspension(sync: &mut SyncContext) {
    let now = sync.now;
    let said = sync.status.conditions.iter().flatten().find(|c| c.type_ == SUSPENDED).map(|c| c.status == "True");
    if sync.is_suspended() && said != Some(true) {
        set(&mut sync.status, now, SUSPENDED, true, "JobSuspended", "Job suspended");
        sync.status.start_time = None;
        sync.plan.push(acts::normal(sync.job, "Suspended", "Job suspended".into()));
    } else if !sync.is_suspended() && said == Some(true) {
        set(&mut sync.status, now, SUSPENDED, false, "JobResumed", "Job resumed");
        sync.status.start_time = Some(Time(whole(now)));
        sync.plan.push(acts::normal(sync.job, "Resumed", "Job resumed".into()));
    }
}

fn set(status: &mut JobStatus, now: jiff::Timestamp, type_: &str, is: bool, reason: &str, message: &str) {
    let at = Some(Time(whole(now)));
    let is = if is { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let next = JobCondition {
        type_: type_.into(),
        status: is.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: at.clone(),
        last_transition_time: at,
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(known) if known.status == is => {}
        Some(known) => *known = next,
        None => conditions.push(next),
    }
}
