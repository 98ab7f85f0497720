//! cronjob-controller: makes a job whenever its schedule says so, and keeps as much history as asked for. When to run
//! is [`schedule`]'s.

pub mod schedule;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::plan::Deletion;
use client::{Key, Plan, WorkQueue};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PropagationPolicy;

use super::job::{condition, finish};
use crate::common::owners::{self, OWNER, by_owner, controller_named};
use crate::common::{acts, template};
use crate::runner::Work;
use crate::setup::Setup;
use schedule::Schedule;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Finished jobs kept when the cron job doesn't say.
const SUCCESSFUL: i32 = 3;
const FAILED: i32 = 1;

pub fn start(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    setup.index::<Job>(OWNER, by_owner);
    let crons = setup.queue_own::<CronJob>(&queue);
    let again = queue.clone();
    let jobs = setup.on(move |delta: &client::Delta<Job>| {
        let meta = &delta.object().metadata;
        if let Some(name) = controller_named::<CronJob>(meta) {
            again.add(Key::new(meta.namespace.clone().unwrap_or_default(), name));
        }
    });
    let executor = setup.executor("cronjob-controller");
    let workers = setup.config.concurrency.cronjob;
    setup.run(Work::new(&queue, executor, workers, move |key, now| {
        let Some(cron) = crons.get(key) else { return Plan::default() };
        reconcile(&cron, &jobs.by(OWNER, &owners::owned_by(&cron.metadata)), now)
    }));
}

/// What is being decided.
struct SyncContext<'a> {
    cron: &'a CronJob,
    jobs: &'a [Arc<Job>],
    status: CronJobStatus,
    plan: Plan,
    now: Timestamp,
}

/// `jobs`: those that the cron job made.
fn reconcile(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let status = cron.status.clone().unwrap_or_default();
    let mut sync = SyncContext { cron, jobs, status, plan: Plan::default(), now };
    sync.follow_jobs();
    sync.forget_history();
    if cron.metadata.deletion_timestamp.is_none() && cron.spec.suspend != Some(true) {
        sync.run();
    } else {
        sync.plan.because("it is suspended, or being deleted");
    }
    let mut next = cron.clone();
    next.status = Some(sync.status);
    if !template::equal(&next.status, &cron.status) {
        sync.plan.push(acts::update_status(&next));
    }
    sync.plan
}

impl SyncContext<'_> {
    fn active(&mut self) -> &mut Vec<ObjectReference> {
        self.status.active.get_or_insert_default()
    }

    /// The status lists the jobs that run; what has ended is told and taken off.
    fn follow_jobs(&mut self) {
        for job in self.jobs {
            let uid = job.metadata.uid.clone();
            let name = job.metadata.name.as_deref().unwrap_or("");
            let listed = self.active().iter().any(|r| r.uid == uid);
            if finish::is_finished(job) {
                if listed {
                    let how = job
                        .status
                        .as_ref()
                        .map_or("Failed", |s| if condition(s, "Complete").is_some() { "Complete" } else { "Failed" });
                    let note = format!("Saw completed job: {name}, condition: {how}");
                    self.plan.push(acts::normal(self.cron, "SawCompletedJob", note));
                    self.active().retain(|r| r.uid != uid);
                }
                let ended = job.status.as_ref().and_then(|s| s.completion_time.clone());
                if ended.as_ref().map(|t| t.0) > self.status.last_successful_time.as_ref().map(|t| t.0) {
                    self.status.last_successful_time = ended;
                }
            } else if !listed {
                self.active().push(client::reference(job.as_ref()));
            }
        }
        let known = |r: &ObjectReference| self.jobs.iter().any(|j| j.metadata.uid == r.uid);
        let listed = self.status.active.take().unwrap_or_default();
        let (there, gone): (Vec<_>, Vec<_>) = listed.into_iter().partition(known);
        for missing in gone {
            let note = format!("Active job went missing: {}", missing.name.unwrap_or_default());
            self.plan.push(acts::normal(self.cron, "MissingJob", note));
        }
        self.status.active = (!there.is_empty()).then_some(there);
    }

    fn forget_history(&mut self) {
        let of = |complete: bool| {
            let ended = |j: &&Arc<Job>| {
                finish::is_finished(j)
                    && j.status.as_ref().is_some_and(|s| condition(s, "Complete").is_some() == complete)
            };
            let mut all: Vec<&Arc<Job>> = self.jobs.iter().filter(ended).collect();
            all.sort_by_key(|j| {
                (j.status.as_ref().and_then(|s| s.start_time.as_ref().map(|t| t.0)), j.metadata.name.clone())
            });
            all
        };
        let spec = &self.cron.spec;
        for (all, limit) in [
            (of(true), spec.successful_jobs_history_limit.unwrap_or(SUCCESSFUL)),
            (of(false), spec.failed_jobs_history_limit.unwrap_or(FAILED)),
        ] {
            let surplus = all.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in all.into_iter().take(surplus).filter(|j| j.metadata.deletion_timestamp.is_none()) {
                delete(self.cron, job, &mut self.plan);
            }
        }
    }

    fn run(&mut self) {
        let schedule = match Schedule::parse(&self.cron.spec.schedule, self.cron.spec.time_zone.as_deref()) {
            Ok(schedule) => schedule,
            Err(why) => {
                // Said once: the next change of the cron job brings it here again.
                let note = format!("unparseable schedule: {:?} : {why}", self.cron.spec.schedule);
                self.plan.push(acts::warning(self.cron, "UnparseableSchedule", note));
                return;
            }
        };
        if let Some(next) = schedule.next(self.now) {
            let wait = (next.as_millisecond() - self.now.as_millisecond()).max(0) as u64;
            self.plan.requeue(Duration::from_millis(wait));
        }
        let Some(due) = self.due(&schedule) else {
            self.plan.because("no time of its schedule has come");
            return;
        };
        let deadline = self.cron.spec.starting_deadline_seconds;
        if deadline.is_some_and(|d| due.as_second() + d < self.now.as_second()) {
            let note = format!("Missed scheduled time to start a job: {due}");
            self.plan.push(acts::warning(self.cron, "MissSchedule", note));
            return;
        }
        let name = job_name(self.cron, due);
        let made = |name: &str| self.jobs.iter().any(|j| j.metadata.name.as_deref() == Some(name));
        if made(&name) {
            self.plan.because("the job of the last time is there");
            self.status.last_schedule_time = Some(Time(due));
            return;
        }
        if !self.clear_the_way() {
            return;
        }
        self.make(&name, due);
    }

    /// The latest time in the past that no job was made for.
    fn due(&self, schedule: &Schedule) -> Option<Timestamp> {
        let created = self.cron.metadata.creation_timestamp.as_ref().map_or(self.now, |t| t.0);
        let mut since = self.status.last_schedule_time.as_ref().map_or(created, |t| t.0);
        if let Some(deadline) = self.cron.spec.starting_deadline_seconds {
            let earliest = self.now.as_second() - deadline;
            since = since.max(Timestamp::from_second(earliest).unwrap_or(since));
        }
        schedule.last_between(since, self.now)
    }

    /// What the concurrency policy says about jobs that still run; false: not now.
    fn clear_the_way(&mut self) -> bool {
        let policy = self.cron.spec.concurrency_policy.as_deref().unwrap_or("Allow");
        let running: Vec<&Arc<Job>> = self.jobs.iter().filter(|j| !finish::is_finished(j)).collect();
        match policy {
            "Forbid" if !running.is_empty() => {
                let note = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.plan.push(acts::normal(self.cron, "JobAlreadyActive", note.into()));
                false
            }
            "Replace" => {
                for job in running.into_iter().filter(|j| j.metadata.deletion_timestamp.is_none()) {
                    delete(self.cron, job, &mut self.plan);
                }
                self.status.active = None;
                true
            }
            _ => true,
        }
    }

    fn make(&mut self, name: &str, due: Timestamp) {
        let of = &self.cron.spec.job_template;
        let from = of.metadata.clone().unwrap_or_default();
        let mut annotations = from.annotations.unwrap_or_default();
        // In the job's zone, as upstream: the schedule was readable, so the zone is.
        let zone = schedule::zone(self.cron.spec.time_zone.as_deref()).unwrap_or(TimeZone::UTC);
        annotations.insert(SCHEDULED.into(), schedule::written(due, &zone));
        let job = Job {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: self.cron.metadata.namespace.clone(),
                labels: from.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![owners::owner_reference(self.cron)]),
                ..ObjectMeta::default()
            },
            spec: of.spec.clone(),
            status: None,
        };
        self.plan.push(acts::create(&job));
        self.plan.push(acts::normal(self.cron, "SuccessfulCreate", format!("Created job {name}")));
        // The status lists the job when it is seen; that it was its time is said now.
        self.status.last_schedule_time = Some(Time(due));
    }
}

fn delete(cron: &CronJob, job: &Job, plan: &mut Plan) {
    plan.push(acts::delete_as(
        job,
        Deletion { propagation: Some(PropagationPolicy::Background), ..Deletion::default() },
    ));
    let name = job.metadata.name.as_deref().unwrap_or("");
    plan.push(acts::normal(cron, "SuccessfulDelete", format!("Deleted job {name}")));
}

/// One name per time, so that no time has two jobs.
fn job_name(cron: &CronJob, due: Timestamp) -> String {
    format!("{}-{}", cron.metadata.name.as_deref().unwrap_or(""), due.as_second() / 60)
}
