//! The status of a deployment: counts, the conditions Available, Progressing and ReplicaFailure with upstream's reasons
//! and messages, and the progress deadline. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{SyncContext, replicas, revision, rollout, slack};
use crate::common::{acts, count, template};

pub const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// `progressDeadlineSeconds` of this value means none.
const NO_DEADLINE: i32 = i32::MAX;

pub fn has_deadline(deployment: &Deployment) -> bool {
    deadline(deployment).is_some()
}

fn deadline(deployment: &Deployment) -> Option<i32> {
    deployment.spec.progress_deadline_seconds.filter(|s| *s != NO_DEADLINE)
}

/// While paused, scaled or deleted: counts and availability only, and whether it is paused.
pub fn write(sync: &mut SyncContext) {
    let mut status = counts(sync);
    pause(sync, &mut status);
    finish(sync, status);
}

/// While rolling out: also how it goes.
pub fn write_rollout(sync: &mut SyncContext) {
    let mut status = counts(sync);
    pause(sync, &mut status);
    let current = sync.deployment.status.clone().unwrap_or_default();
    let name = match &sync.new {
        Some(set) => format!("ReplicaSet {:?}", set.metadata.name.as_deref().unwrap_or("")),
        None => format!("Deployment {:?}", sync.deployment.metadata.name.as_deref().unwrap_or("")),
    };
    begin(sync, &mut status);
    let known = find(&current, PROGRESSING);
    let settled = count(status.replicas) == count(status.updated_replicas)
        && known.is_some_and(|c| c.reason.as_deref() == Some(NEW_AVAILABLE));
    if !has_deadline(sync.deployment) {
        status.conditions.get_or_insert_default().retain(|c| c.type_.as_deref() != Some(PROGRESSING));
    } else if !settled {
        progress(sync, &current, &mut status, &name);
    }
    failures(sync, &mut status);
    requeue_for_deadline(sync, &status);
    finish(sync, status);
}

/// The first word about a rollout: that its set was made or found.
fn begin(sync: &SyncContext, status: &mut DeploymentStatus) {
    let Some(set) = sync.new.as_ref().filter(|_| has_deadline(sync.deployment)) else { return };
    let name = set.metadata.name.as_deref().unwrap_or("");
    let made = set.metadata.uid.is_none();
    let conditions = status.conditions.get_or_insert_default();
    if made {
        set_(conditions, "True", "NewReplicaSetCreated", &format!("Created new replica set {name:?}"), sync.now);
    } else if !conditions.iter().any(|c| c.type_.as_deref() == Some(PROGRESSING)) {
        set_(conditions, "True", "FoundNewReplicaSet", &format!("Found new replica set {name:?}"), sync.now);
    }
}

fn set_(conditions: &mut Vec<DeploymentCondition>, status: &str, reason: &str, message: &str, now: Timestamp) {
    set(conditions, PROGRESSING, status, reason, message, now);
}

fn progress(sync: &SyncContext, before: &DeploymentStatus, status: &mut DeploymentStatus, name: &str) {
    let now = sync.now;
    if is_complete(sync.deployment, status) {
        let message = format!("{name} has successfully progressed.");
        set_(status.conditions.get_or_insert_default(), "True", NEW_AVAILABLE, &message, now);
    } else if advances(before, status) {
        let message = format!("{name} is progressing.");
        let conditions = status.conditions.get_or_insert_default();
        let since = conditions.iter().find(|c| c.type_.as_deref() == Some(PROGRESSING)).cloned();
        conditions.retain(|c| c.type_.as_deref() != Some(PROGRESSING));
        let mut next = condition(PROGRESSING, "True", "ReplicaSetUpdated", &message, now);
        if let Some(since) = since.filter(|c| c.status.as_deref() == Some("True")) {
            next.last_transition_time = since.last_transition_time;
        }
        conditions.push(next);
    } else if timed_out(sync.deployment, status, now) {
        let message = format!("{name} has timed out progressing.");
        set_(status.conditions.get_or_insert_default(), "False", TIMED_OUT, &message, now);
    }
}

fn pause(sync: &SyncContext, status: &mut DeploymentStatus) {
    if !has_deadline(sync.deployment) {
        return;
    }
    let paused = sync.deployment.spec.paused == Some(true);
    let conditions = status.conditions.get_or_insert_default();
    let reason = conditions.iter().find(|c| c.type_.as_deref() == Some(PROGRESSING)).and_then(|c| c.reason.as_deref());
    // A rollout that has timed out stays so, paused or not.
    match reason {
        Some(TIMED_OUT) => {}
        Some(PAUSED) if !paused => {
            set_(conditions, "Unknown", "DeploymentResumed", "Deployment is resumed", sync.now);
        }
        Some(PAUSED) => {}
        _ if paused => set_(conditions, "Unknown", PAUSED, "Deployment is paused", sync.now),
        _ => {}
    }
}

fn counts(sync: &SyncContext) -> DeploymentStatus {
    let of = |get: &dyn Fn(&ReplicaSet) -> i32| sync.all().map(get).sum::<i32>();
    let reported = |s: &ReplicaSet| s.status.as_ref().map_or(0, |s| s.replicas);
    let available = of(&|s| count(s.status.as_ref().and_then(|s| s.available_replicas)));
    let terminating: Option<i32> = sync.all().map(|s| s.status.as_ref().and_then(|s| s.terminating_replicas)).sum();
    let current = sync.deployment.status.clone().unwrap_or_default();
    let mut conditions = current.conditions.unwrap_or_default();
    if available >= replicas(sync.deployment) - slack(sync.deployment).1 {
        let message = "Deployment has minimum availability.";
        set(&mut conditions, AVAILABLE, "True", "MinimumReplicasAvailable", message, sync.now);
    } else {
        let message = "Deployment does not have minimum availability.";
        set(&mut conditions, AVAILABLE, "False", "MinimumReplicasUnavailable", message, sync.now);
    }
    let some = |n: i32| (n != 0).then_some(n);
    DeploymentStatus {
        observed_generation: sync.deployment.metadata.generation,
        replicas: some(of(&reported)),
        updated_replicas: some(sync.new.as_ref().map_or(0, reported)),
        ready_replicas: some(of(&|s| count(s.status.as_ref().and_then(|s| s.ready_replicas)))),
        available_replicas: some(available),
        unavailable_replicas: some((of(&rollout::size) - available).max(0)),
        terminating_replicas: terminating,
        collision_count: current.collision_count,
        conditions: Some(conditions),
    }
}

fn failures(sync: &SyncContext, status: &mut DeploymentStatus) {
    let of = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_.as_deref() == Some(REPLICA_FAILURE)).cloned()
    };
    let found = sync.new.iter().chain(&sync.old).find_map(of);
    let conditions = status.conditions.get_or_insert_default();
    match found {
        Some(c) => set(
            conditions,
            REPLICA_FAILURE,
            c.status.as_deref().unwrap_or("True"),
            c.reason.as_deref().unwrap_or(""),
            c.message.as_deref().unwrap_or(""),
            sync.now,
        ),
        None => conditions.retain(|c| c.type_.as_deref() != Some(REPLICA_FAILURE)),
    }
}

pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = replicas(deployment);
    count(status.updated_replicas) == wanted
        && count(status.replicas) == wanted
        && count(status.available_replicas) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn advances(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let old = |s: &DeploymentStatus| count(s.replicas) - count(s.updated_replicas);
    count(after.updated_replicas) > count(before.updated_replicas)
        || old(after) < old(before)
        || count(after.ready_replicas) > count(before.ready_replicas)
        || count(after.available_replicas) > count(before.available_replicas)
}

fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_.as_deref() == Some(type_))
}

/// Until when the rollout must show progress; `None` when nothing is waited for.
fn due(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let deadline = deadline(deployment)?;
    let progressing = find(status, PROGRESSING)?;
    let waiting = !matches!(progressing.reason.as_deref(), Some(NEW_AVAILABLE | TIMED_OUT));
    let from = progressing.last_update_time.as_ref()?.0;
    Timestamp::from_second(from.as_second() + i64::from(deadline)).ok().filter(|_| waiting)
}

fn timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    find(status, PROGRESSING).is_some_and(|c| c.reason.as_deref() == Some(TIMED_OUT))
        || due(deployment, status).is_some_and(|due| due < now)
}

fn requeue_for_deadline(sync: &mut SyncContext, status: &DeploymentStatus) {
    if is_complete(sync.deployment, status) || sync.deployment.spec.paused == Some(true) {
        return;
    }
    if let Some(due) = due(sync.deployment, status) {
        let left = (due.as_second() - sync.now.as_second()).max(0) as u64;
        sync.plan.requeue(Duration::from_secs(left + 1));
    }
}

/// Writes status and revision number in one: written to the deployment itself, the annotation would count as a change
/// of what is wanted, and a new deployment would be of generation 2.
fn finish(sync: &mut SyncContext, status: DeploymentStatus) {
    let renumbered = revision::renumbered(sync);
    if renumbered.is_none() && template::equal(&Some(&status), &sync.deployment.status.as_ref()) {
        return;
    }
    let mut next = renumbered.unwrap_or_else(|| sync.deployment.clone());
    next.status = Some(status);
    sync.plan.push(acts::update_status(&next));
}

fn condition(type_: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> DeploymentCondition {
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    DeploymentCondition {
        type_: Some(type_.into()),
        status: Some(status.into()),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    }
}

/// Sets a condition, unless status and reason say the same already.
pub fn set(
    conditions: &mut Vec<DeploymentCondition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let known = conditions.iter().position(|c| c.type_.as_deref() == Some(type_));
    let mut next = condition(type_, status, reason, message, now);
    if let Some(n) = known {
        let known = &conditions[n];
        if known.status.as_deref() == Some(status) && known.reason.as_deref() == Some(reason) {
            return;
        }
        if known.status.as_deref() == Some(status) {
            next.last_transition_time = known.last_transition_time.clone();
        }
        conditions.remove(n);
    }
    conditions.push(next);
}
