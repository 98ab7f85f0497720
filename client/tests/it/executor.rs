//! The executor does to a server what the model says that a plan does; and where the server refuses, it stops there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Action, Deletion, Effect, EventType, Executor, Op, PatchBody, Plan, Step, Target, Words};
use k8s_openapi::api::core::v1::{Event, ObjectReference, Pod};
use serde_json::{Value, json};
use testkit::model::serve::{self, Served};
use testkit::model::{Refusal, World, from};

const DONE: Words = Words { reason: "SuccessfulCreate", note: "Created pod: " };
const FAILED: Words = Words { reason: "FailedCreate", note: "Error creating: " };

fn target(name: &str) -> Target {
    Target::named::<Pod>("ns", name)
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns"}, "spec": {"containers": []}})
}

fn create(name: &str) -> Op {
    Op::create(target(name), pod(name))
}

fn delete(name: &str) -> Op {
    Op::delete(target(name), Deletion::default())
}

fn label(name: &str, value: &str) -> Op {
    Op::patch(target(name), None, PatchBody::Strategic(json!({"metadata": {"labels": {"l": value}}})))
}

fn owner() -> Box<ObjectReference> {
    let (kind, name, namespace) = (Some("ReplicaSet".into()), Some("web".into()), Some("ns".into()));
    Box::new(ObjectReference { kind, name, namespace, ..ObjectReference::default() })
}

fn recorded(op: Op) -> Action {
    Action::Recorded { op, regarding: owner(), done: DONE, failed: FAILED }
}

struct Server {
    served: Arc<Mutex<Served>>,
    executor: Executor,
}

impl Server {
    fn new(world: World) -> Server {
        let served = Arc::new(Mutex::new(Served { world, ..Served::default() }));
        Server { executor: Executor::new(serve::client(&served), "tester"), served }
    }

    fn refuse(&self, start: &'static str, code: u16, reason: &'static str) {
        let refusal = Refusal { code, reason, message: format!("no: {start}") };
        self.served.lock().expect("nobody panicked").refusals.push((start, refusal));
    }

    /// Runs a plan: what its effects were, and its error if it came to one.
    async fn run(&self, plan: &Plan) -> (Vec<String>, Option<client::ExecuteError>) {
        let mut effects = Vec::new();
        let seen = |target: &Target, effect: Effect| {
            let what = match effect {
                Effect::Written(object) => format!("written {}", object.metadata.name.unwrap_or_default()),
                Effect::Deleted(_) => format!("deleted {}", target.name),
                Effect::Posted => format!("posted {}", target.name),
            };
            effects.push(what);
        };
        let result = self.executor.run(plan, seen).await;
        (effects, result.err())
    }

    /// The requests about pods, in the order in which they came.
    fn asked(&self) -> Vec<String> {
        let asked = self.served.lock().expect("nobody panicked").asked.clone();
        asked.into_iter().filter(|op| !op.contains(" events ")).collect()
    }

    /// `reason: note` of the events in the server, once there are so many.
    async fn events(&self, wanted: usize) -> Vec<String> {
        for _ in 0..100 {
            let events = self.served.lock().expect("nobody panicked").world.list::<Event>();
            if events.len() >= wanted {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                let mut told: Vec<String> =
                    events.iter().map(|e| format!("{}: {}", text(&e.reason), text(&e.message))).collect();
                told.sort();
                return told;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("events don't come: {:?}", self.served.lock().expect("nobody panicked").asked);
    }
}

fn world() -> World {
    let mut world = World::default();
    for name in ["old", "older"] {
        world.put::<Pod>(&from(pod(name)));
    }
    world
}

#[tokio::test]
async fn a_server_becomes_what_the_model_says() {
    let mut generated = pod("");
    generated["metadata"]["generateName"] = json!("web-");
    generated["metadata"].as_object_mut().expect("an object").remove("name");
    let mut ready = pod("a");
    ready["status"] = json!({"phase": "Running"});
    let mut plan = Plan::of([create("a"), label("a", "x"), Op::update(target("a"), Some("status"), ready)]);
    plan.push(recorded(Op::create(target(""), generated)));
    plan.push(Step::Together(vec![delete("old").into(), label("older", "y").into()]));
    plan.push(Op::post(target("a"), "binding", json!({"target": {"name": "n"}})));
    let (regarding, reason, note) = (owner(), "Scaled".to_owned(), "by one".to_owned());
    plan.push(Action::Event { regarding, kind: EventType::Normal, reason, note });

    let mut model = world();
    model.apply(&plan);
    let server = Server::new(world());
    let (effects, error) = server.run(&plan).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(effects.len(), 7, "all but the event: {effects:?}");
    assert_eq!(server.events(2).await, ["Scaled: by one", "SuccessfulCreate: Created pod: web-00001"]);
    model.events.sort();
    assert_eq!(server.events(2).await, model.events);
    let pods = |world: &World| -> Vec<Value> {
        let pods = world.list::<Pod>();
        pods.iter().map(|p| serde_json::to_value(p.as_ref()).expect("a pod")).map(without_versions).collect()
    };
    let served = server.served.lock().expect("nobody panicked");
    assert_eq!(pods(&served.world), pods(&model));
    assert_eq!(pods(&model).len(), 3);
}

/// Events count versions too.
fn without_versions(mut pod: Value) -> Value {
    let meta = pod["metadata"].as_object_mut().expect("an object");
    meta.remove("resourceVersion");
    meta.remove("uid");
    pod
}

#[tokio::test]
async fn nothing_is_begun_after_a_failure_and_what_was_done_before_is_known() {
    let server = Server::new(world());
    server.refuse("create pods ns/b", 403, "Forbidden");
    let plan = Plan::of([create("a"), create("b"), delete("old")]);
    let (effects, error) = server.run(&plan).await;
    let error = error.expect("refused");
    assert_eq!(error.op.describe(), "create pods ns/b");
    assert_eq!(error.status(), Some((403, "Forbidden")));
    assert_eq!(error.message(), "no: create pods ns/b");
    assert_eq!(effects, ["written a"]);
    assert_eq!(server.asked(), ["create pods ns/a", "create pods ns/b"]);
}

#[tokio::test]
async fn what_is_gone_already_counts_as_deleted() {
    let server = Server::new(world());
    let (effects, error) = server.run(&Plan::of([delete("never"), label("old", "x")])).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(effects, ["deleted never", "written old"]);
    let (_, error) = server.run(&Plan::of([label("never", "x")])).await;
    assert!(error.expect("a patch needs its object").is_not_found());
}

#[tokio::test]
async fn preconditions_are_carried_and_a_conflict_is_one() {
    let server = Server::new(world());
    let another = || Deletion { uid: Some("another".into()), ..Deletion::default() };
    let stale = PatchBody::Merge(json!({"metadata": {"resourceVersion": "999", "labels": {"l": "x"}}}));
    for op in [Op::delete(target("old"), another()), Op::patch(target("old"), None, stale)] {
        let (effects, error) = server.run(&Plan::of([op])).await;
        assert!(error.expect("refused").is_conflict());
        assert!(effects.is_empty());
    }
    let (_, error) = server.run(&Plan::of([create("old")])).await;
    let error = error.expect("refused");
    assert!(error.is_already_exists() && !error.is_conflict());
}

#[tokio::test]
async fn of_what_is_done_together_all_is_tried_and_nothing_after_it() {
    let server = Server::new(world());
    server.refuse("create pods ns/b", 403, "Forbidden");
    let mut plan = Plan::default();
    plan.push(Step::Together(["a", "b", "c"].map(|name| recorded(create(name))).into()));
    plan.push(delete("old"));
    let (mut effects, error) = server.run(&plan).await;
    effects.sort();
    assert_eq!(effects, ["written a", "written c"]);
    assert_eq!(error.expect("refused").op.describe(), "create pods ns/b");
    let mut asked = server.asked();
    asked.sort();
    assert_eq!(asked, ["create pods ns/a", "create pods ns/b", "create pods ns/c"]);
    let wanted = [
        "FailedCreate: Error creating: no: create pods ns/b",
        "SuccessfulCreate: Created pod: a",
        "SuccessfulCreate: Created pod: c",
    ];
    assert_eq!(server.events(3).await, wanted);
}
