//! Jobs against the model: every pod counted once, limits, deadlines, suspension, indexes and policies.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;
use testkit::model::{World, from};

fn job(spec: Value) -> Job {
    let mut value = json!({
        "metadata": {"name": "work", "namespace": "ns"},
        "spec": {
            "parallelism": 1, "completions": 1, "backoffLimit": 6,
            "selector": {"matchLabels": {"job": "work"}},
            "template": {
                "metadata": {"labels": {"job": "work"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
            }
        }
    });
    for (name, field) in spec.as_object().unwrap() {
        value["spec"][name] = field.clone();
    }
    from(value)
}

fn world(spec: Value) -> World {
    let mut world = World::graceful();
    world.put(&job(spec));
    world
}

fn step(world: &World) -> Plan {
    let view = View { job: world.get::<Job>("ns", "work").unwrap(), candidates: world.list() };
    reconcile(&view, world.now)
}

fn running(world: &World) -> Vec<Arc<Pod>> {
    world.list::<Pod>().into_iter().filter(|p| pods::is_active(p)).collect()
}

/// Ends one pod; failures carry an exit code.
fn end(world: &mut World, pod: &Pod, code: i32) {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    world.set_pod("ns", &pod.name_any(), phase, json!([]));
    let at = world.now.to_string();
    world.edit::<Pod>("ns", &pod.name_any(), |p| {
        p.status.as_mut().unwrap().container_statuses = Some(from(json!([
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": code, "finishedAt": at}}}
        ])));
    });
}

fn end_one(world: &mut World, code: i32) {
    let pod = running(world)[0].clone();
    end(world, &pod, code);
    world.settle(step);
}

fn status(world: &World) -> JobStatus {
    world.get::<Job>("ns", "work").unwrap().status.clone().unwrap()
}

fn reason(world: &World, type_: &str) -> Option<String> {
    condition(&status(world), type_)?.reason.clone()
}

fn index_of(pod: &Pod) -> i32 {
    pod.annotations()["batch.kubernetes.io/job-completion-index"].parse().unwrap()
}

#[test]
fn runs_in_parallel_until_enough_have_succeeded() {
    let mut world = world(json!({"parallelism": 2, "completions": 3}));
    world.settle(step);
    assert_eq!(running(&world).len(), 2);
    assert!(running(&world)[0].metadata.finalizers.as_ref().unwrap().contains(&TRACKING.to_owned()));
    end_one(&mut world, 0);
    assert_eq!(running(&world).len(), 2);
    end_one(&mut world, 0);
    assert_eq!(running(&world).len(), 1, "only what is still needed");
    end_one(&mut world, 0);
    let status = status(&world);
    assert_eq!((status.succeeded, status.active, status.ready), (Some(3), None, Some(0)));
    assert!(status.completion_time.is_some() && condition(&status, "Complete").is_some());
    assert_eq!(reason(&world, "SuccessCriteriaMet").as_deref(), Some("CompletionsReached"));
    assert!(world.list::<Pod>().iter().all(|p| !is_tracked(p)), "every pod is let go");
    assert_eq!(world.events.last().unwrap(), "Completed: Job completed");
    assert!(step(&world).is_empty());
}

#[test]
fn failures_are_retried_later_each_time_up_to_the_limit() {
    let mut world = world(json!({"backoffLimit": 2}));
    world.settle(step);
    for wait in [10, 20] {
        end_one(&mut world, 1);
        assert!(running(&world).is_empty());
        assert_eq!(step(&world).requeue_after.map(|d| d.as_secs()), Some(wait));
        world.advance(wait as i64);
        world.settle(step);
        assert_eq!(running(&world).len(), 1);
    }
    end_one(&mut world, 1);
    assert_eq!(reason(&world, "Failed").as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!(status(&world).failed, Some(3));
    assert_eq!(world.events.last().unwrap(), "BackoffLimitExceeded: Job has reached the specified backoff limit");
}

#[test]
fn a_pod_that_is_gone_before_it_was_counted_is_counted_once() {
    let mut world = world(json!({}));
    world.settle(step);
    let pod = running(&world)[0].clone();
    world.delete::<Pod>("ns", &pod.name_any());
    world.settle(step);
    world.end_pods();
    assert!(world.get::<Pod>("ns", &pod.name_any()).is_none(), "the finalizer is off");
    world.settle(step);
    assert_eq!(status(&world).failed, Some(1));
    world.advance(10);
    world.settle(step);
    assert_eq!((status(&world).failed, running(&world).len()), (Some(1), 1));
}

#[test]
fn a_deadline_ends_what_runs() {
    let mut world = world(json!({"activeDeadlineSeconds": 60}));
    world.settle(step);
    assert_eq!(step(&world).requeue_after.map(|d| d.as_secs()), Some(60));
    world.advance(60);
    world.settle(step);
    assert_eq!(reason(&world, "FailureTarget").as_deref(), Some("DeadlineExceeded"));
    assert_eq!(reason(&world, "Failed"), None, "not while a pod still ends");
    world.end_pods();
    world.settle(step);
    assert_eq!(reason(&world, "Failed").as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn a_suspended_job_has_no_pods_and_counts_none_of_those_it_stopped() {
    let mut world = world(json!({}));
    world.settle(step);
    world.edit::<Job>("ns", "work", |j| j.spec.as_mut().unwrap().suspend = Some(true));
    world.settle(step);
    world.end_pods();
    world.settle(step);
    assert!(world.list::<Pod>().is_empty());
    let suspended = status(&world);
    assert_eq!((suspended.failed, suspended.start_time, suspended.active), (None, None, None));
    assert_eq!(reason(&world, "Suspended").as_deref(), Some("JobSuspended"));
    world.edit::<Job>("ns", "work", |j| j.spec.as_mut().unwrap().suspend = Some(false));
    world.settle(step);
    assert_eq!(running(&world).len(), 1);
    assert!(status(&world).start_time.is_some());
    assert!(world.events.contains(&"Resumed: Job resumed".to_owned()));
}

#[test]
fn indexed_pods_know_their_index_and_each_succeeds_once() {
    let mut world = world(json!({"completionMode": "Indexed", "parallelism": 3, "completions": 4}));
    world.settle(step);
    let all = running(&world);
    assert_eq!(all.iter().map(|p| index_of(p)).collect::<Vec<_>>(), [0, 1, 2]);
    let spec = all[1].spec.as_ref().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("work-1"));
    assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
    assert!(all[1].name_any().starts_with("work-1-"));
    end(&mut world, &all[0], 0);
    end(&mut world, &all[2], 0);
    world.settle(step);
    assert_eq!(status(&world).completed_indexes.as_deref(), Some("0,2"));
    assert_eq!(running(&world).iter().map(|p| index_of(p)).collect::<Vec<_>>(), [1, 3]);
    end_one(&mut world, 0);
    end_one(&mut world, 0);
    assert_eq!(status(&world).completed_indexes.as_deref(), Some("0-3"));
    assert_eq!((status(&world).succeeded, reason(&world, "Complete").is_some()), (Some(4), true));
}

#[test]
fn indexes_fail_by_themselves_with_a_limit_for_each() {
    let mut world = world(json!({
        "completionMode": "Indexed", "parallelism": 2, "completions": 2, "backoffLimitPerIndex": 1, "backoffLimit": 100
    }));
    world.settle(step);
    for _ in 0..2 {
        let zero = running(&world).into_iter().find(|p| index_of(p) == 0).unwrap();
        end(&mut world, &zero, 1);
        world.settle(step);
        world.advance(10);
        world.settle(step);
    }
    assert_eq!(status(&world).failed_indexes.as_deref(), Some("0"));
    assert_eq!(running(&world).len(), 1, "index 0 is not tried again");
    end_one(&mut world, 0);
    assert_eq!(reason(&world, "Failed").as_deref(), Some("FailedIndexes"));
    assert_eq!((status(&world).failed, status(&world).completed_indexes.as_deref()), (Some(2), Some("1")));
}

#[test]
fn a_failure_policy_fails_the_job_or_ignores_the_pod() {
    let rules = json!({"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    ]});
    let mut world = world(json!({"backoffLimit": 0, "podFailurePolicy": rules}));
    world.settle(step);
    let pod = running(&world)[0].clone();
    world.set_pod("ns", &pod.name_any(), "Failed", json!([{"type": "DisruptionTarget", "status": "True"}]));
    world.settle(step);
    world.advance(600);
    world.settle(step);
    assert_eq!((status(&world).failed, running(&world).len()), (None, 1), "ignored and replaced");
    let pod = running(&world)[0].name_any();
    end_one(&mut world, 42);
    let failed = condition(&status(&world), "Failed").cloned().unwrap();
    assert_eq!(failed.reason.as_deref(), Some("PodFailurePolicy"));
    let message = format!("Container c for pod ns/{pod} failed with exit code 42 matching FailJob rule at index 0");
    assert_eq!(failed.message, Some(message));
}

#[test]
fn a_success_policy_ends_the_job_early() {
    let mut world = world(json!({
        "completionMode": "Indexed", "parallelism": 3, "completions": 3,
        "successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]}
    }));
    world.settle(step);
    let one = running(&world).into_iter().find(|p| index_of(p) == 1).unwrap();
    end(&mut world, &one, 0);
    world.settle(step);
    world.end_pods();
    world.settle(step);
    assert_eq!(reason(&world, "Complete").as_deref(), Some("SuccessPolicy"));
    assert!(running(&world).is_empty());
}

#[test]
fn without_completions_the_first_success_is_enough() {
    let mut job = job(json!({"parallelism": 2}));
    job.spec.as_mut().unwrap().completions = None;
    let mut world = World::graceful();
    world.put(&job);
    world.settle(step);
    end_one(&mut world, 0);
    assert_eq!(running(&world).len(), 1, "the other may finish, none is started");
    end_one(&mut world, 0);
    assert!(reason(&world, "Complete").is_some());
}
