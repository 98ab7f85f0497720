//! Cron jobs against the model: one job a time, the three concurrency policies, deadlines and history.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;
use testkit::model::{World, at, from};

/// 2026-01-01T00:00:00Z
const MIDNIGHT: i64 = 1_767_225_600;

fn world(spec: Value) -> World {
    let mut world = World::at(MIDNIGHT + 10);
    let mut value = json!({
        "metadata": {"name": "tick", "namespace": "ns"},
        "spec": {"schedule": "*/10 * * * *", "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}}
    });
    for (name, field) in spec.as_object().unwrap() {
        value["spec"][name] = field.clone();
    }
    world.put(&from::<CronJob>(value));
    world
}

#[test]
fn a_job_says_its_time_in_the_time_zone_of_the_cron_job() {
    for schedule in ["*/10 * * * *", "@every 10m"] {
        let mut world = world(json!({"schedule": schedule, "timeZone": "Asia/Kolkata"}));
        world.advance(1200);
        world.settle(step);
        let said = world.list::<Job>()[0].annotations()[SCHEDULED].clone();
        assert!(said.starts_with("2026-01-01T05:") && said.ends_with("+05:30"), "{said}");
    }
}

fn step(world: &World) -> Plan {
    let cron = world.get::<CronJob>("ns", "tick").unwrap();
    reconcile(&cron, &world.list(), world.now)
}

fn jobs(world: &World) -> Vec<String> {
    world.list::<Job>().iter().map(|j| j.name_any()).collect()
}

fn finish(world: &mut World, name: &str, how: &str) {
    let now = world.now.to_string();
    world.edit::<Job>("ns", name, |j| {
        j.status = Some(from(
            json!({"startTime": now, "completionTime": now, "conditions": [{"type": how, "status": "True"}]}),
        ));
    });
}

fn name(minutes: i64) -> String {
    format!("tick-{}", MIDNIGHT / 60 + minutes)
}

#[test]
fn each_time_has_one_job() {
    let mut world = world(json!({}));
    world.settle(step);
    assert!(jobs(&world).is_empty());
    assert_eq!(step(&world).requeue_after, Some(Duration::from_secs(590)));
    world.advance(600);
    world.settle(step);
    assert_eq!(jobs(&world), [name(10)]);
    let job = world.get::<Job>("ns", &name(10)).unwrap();
    assert_eq!((job.labels()["a"].as_str(), job.annotations()[SCHEDULED].as_str()), ("b", "2026-01-01T00:10:00Z"));
    let status = world.get::<CronJob>("ns", "tick").unwrap().status.clone().unwrap();
    assert_eq!(status.active.unwrap()[0].name, Some(name(10)));
    assert_eq!(status.last_schedule_time.unwrap().0, at(MIDNIGHT + 600));
    world.advance(1200);
    world.settle(step);
    assert_eq!(jobs(&world), [name(10), name(30)], "of missed times only the last is made up for");
}

#[test]
fn forbid_waits_and_replace_takes_over() {
    for (policy, left) in [("Forbid", vec![name(10)]), ("Replace", vec![name(20)]), ("Allow", vec![name(10), name(20)])]
    {
        let mut world = world(json!({"concurrencyPolicy": policy}));
        world.advance(600);
        world.settle(step);
        world.advance(600);
        let plan = step(&world);
        world.apply(&plan);
        assert_eq!(jobs(&world), left, "{policy}");
    }
}

#[test]
fn a_suspended_or_late_job_is_not_made() {
    let mut world = world(json!({"suspend": true}));
    world.advance(600);
    world.settle(step);
    assert!(jobs(&world).is_empty());
    let mut world = self::world(json!({"startingDeadlineSeconds": 30}));
    world.advance(900);
    world.settle(step);
    assert!(jobs(&world).is_empty(), "its time was 5 minutes ago");
}

#[test]
fn finished_jobs_are_told_and_only_some_kept() {
    let mut world = world(json!({"successfulJobsHistoryLimit": 1}));
    for minutes in [10, 20, 30] {
        world.advance(600);
        world.settle(step);
        finish(&mut world, &name(minutes), "Complete");
        world.settle(step);
    }
    assert_eq!(jobs(&world), [name(30)]);
    assert!(world.events.contains(&format!("SawCompletedJob: Saw completed job: {}, condition: Complete", name(10))));
    let status = world.get::<CronJob>("ns", "tick").unwrap().status.clone().unwrap();
    assert!(status.active.is_none() && status.last_successful_time.is_some());
}
