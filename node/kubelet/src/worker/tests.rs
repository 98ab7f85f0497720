//! The worker against a model of a runtime: scripted lives of pods, and random ones with the laws that hold in all.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const START: i64 = 1_700_000_000;

/// A node of tests: runs actions when told to, in whatever order, and checks the laws while it does.
struct World {
    worker: Option<PodWorker>,
    now: Timestamp,
    pending: Vec<Action>,
    sandboxes: BTreeMap<String, bool>,
    /// Containers that exist: name, running.
    containers: BTreeMap<String, Instance>,
    mounted: bool,
    in_api: bool,
    written: PodStatus,
    notes: Vec<String>,
    killed: bool,
    next: u32,
}

fn pod(spec: Value) -> Arc<Pod> {
    let value = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1, "resourceVersion": "1"},
        "spec": spec});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn settings() -> Settings {
    Settings {
        runtime_name: "fake".into(),
        host_ips: vec!["192.0.2.1".into()],
        longest_restart_delay: crate::backoff::LONGEST,
    }
}

impl World {
    fn new(pod: Arc<Pod>) -> World {
        let now = Timestamp::from_second(START).unwrap();
        let mut world = World {
            worker: Some(PodWorker::new(pod, settings(), Ok(()), now)),
            now,
            pending: Vec::new(),
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            mounted: false,
            in_api: true,
            written: PodStatus::default(),
            notes: Vec::new(),
            killed: false,
            next: 0,
        };
        world.feed(Event::Observed { sandbox: None, containers: vec![] });
        world
    }

    fn w(&self) -> &PodWorker {
        self.worker.as_ref().unwrap()
    }

    fn feed(&mut self, event: Event) {
        let Some(worker) = self.worker.take() else { return };
        let (worker, actions) = worker.step(event, self.now);
        for action in actions {
            match action {
                Action::Forget => {
                    self.check_nothing_left();
                    return;
                }
                Action::Note { reason, note, .. } => self.notes.push(format!("{reason}: {note}")),
                Action::RemoveContainer { id } => {
                    let gone = self.containers.remove(&id);
                    assert!(gone.is_none_or(|i| i.is_over()), "a running container was removed");
                }
                Action::Start { .. } | Action::CreateSandbox { .. } | Action::Pull { .. } | Action::Mount
                    if self.killed =>
                {
                    panic!("{action:?} after the pod was to be killed");
                }
                other => self.pending.push(other),
            }
        }
        self.worker = Some(worker);
    }

    fn check_nothing_left(&self) {
        assert!(self.containers.is_empty(), "containers leaked: {:?}", self.containers);
        assert!(self.sandboxes.is_empty(), "sandboxes leaked: {:?}", self.sandboxes);
        assert!(!self.mounted, "volumes leaked");
        // Answers that come too late to matter: they make nothing.
        let harmless = |a: &&Action| {
            matches!(
                a,
                Action::Kill { .. }
                    | Action::Pull { .. }
                    | Action::Probe { .. }
                    | Action::PostStart { .. }
                    | Action::WriteStatus { .. }
                    | Action::DeletePod
            )
        };
        let left: Vec<_> = self.pending.iter().filter(|a| !harmless(a)).collect();
        assert!(left.is_empty(), "forgotten with work under way: {left:?}");
    }

    fn instance(&mut self, name: &str, restarts: u32, sandbox: &str) -> Instance {
        self.next += 1;
        let hash = self.w().slot(name).map(|s| slot::hash(&s.container)).unwrap_or_default();
        Instance {
            id: format!("{name}-{}", self.next),
            sandbox: sandbox.to_owned(),
            name: name.to_owned(),
            restarts,
            state: RunState::Running,
            created_at: self.now,
            started_at: Some(self.now),
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: "i".into(),
            image_id: "sha".into(),
            hash,
            user: None,
            log_path: String::new(),
        }
    }

    /// Runs the pending action at `index`; `good` says whether it works.
    fn perform(&mut self, index: usize, good: bool) {
        let action = self.pending.remove(index);
        let ok = |good: bool| if good { Ok(()) } else { Err("no".to_owned()) };
        let event = match action {
            Action::Mount => {
                self.mounted = true;
                Event::Mounted(ok(good))
            }
            Action::CreateSandbox { attempt } if good => {
                self.sandboxes.clear();
                self.containers.retain(|_, c| !c.is_over());
                assert!(self.containers.is_empty(), "a new sandbox while containers of the old one run");
                let id = format!("s{attempt}");
                self.sandboxes.insert(id.clone(), true);
                let record =
                    SandboxRecord { id, attempt, ready: true, ips: vec!["10.0.0.2".into()], created_at: self.now };
                Event::SandboxCreated(Ok(record))
            }
            Action::CreateSandbox { .. } => Event::SandboxCreated(Err("no network".into())),
            Action::Pull { container } => {
                let fault = StartError { reason: crate::names::reason::ERR_IMAGE_PULL, message: "no".into() };
                Event::Pulled { container, result: if good { Ok("sha".into()) } else { Err(fault) } }
            }
            Action::Start { container, sandbox, attempt, .. } => {
                let twin = self.containers.values().find(|c| c.name == container && !c.is_over());
                assert!(twin.is_none(), "{container} started while it runs");
                if !good {
                    let fault = StartError { reason: crate::names::reason::CONFIG_ERROR, message: "no secret".into() };
                    return self.feed(Event::Started { container, result: Err(fault) });
                }
                assert_eq!(self.sandboxes.get(&sandbox), Some(&true), "started in a sandbox that is gone");
                let made = self.instance(&container, attempt, &sandbox);
                self.containers.insert(made.id.clone(), made.clone());
                Event::Started { container, result: Ok(made) }
            }
            Action::PostStart { container, id } => Event::Hooked { container, id, result: ok(good) },
            Action::Kill { container, id, .. } => {
                if !good {
                    return self.feed(Event::Killed { container, id, result: Err("busy".into()) });
                }
                let found = self.exit_id(&id, 137);
                let Some(found) = found else { return };
                Event::Killed { container, id, result: Ok(found) }
            }
            Action::Probe { container, id, kind } => {
                let outcome = if good { Outcome::Success } else { Outcome::Failure("bad".into()) };
                Event::Probed { container, id, kind, outcome }
            }
            Action::StopSandbox { id } => {
                assert!(self.containers.values().all(Instance::is_over), "sandbox stopped under running containers");
                if good && let Some(ready) = self.sandboxes.get_mut(&id) {
                    *ready = false;
                }
                Event::SandboxStopped(ok(good))
            }
            Action::TearDown => {
                assert!(self.containers.values().all(Instance::is_over), "volumes removed under running containers");
                self.mounted &= !good;
                Event::TornDown(ok(good))
            }
            Action::Remove => {
                if good {
                    self.sandboxes.clear();
                    self.containers.clear();
                }
                Event::Removed(ok(good))
            }
            Action::WriteStatus { old, new } => {
                assert_ne!(old, new, "a status that says nothing new");
                if !good {
                    return self.feed(Event::StatusWritten(Err("down".into())));
                }
                self.written = *new.clone();
                let mut pod = Pod::clone(&self.w().pod);
                pod.status = Some(*new);
                Event::StatusWritten(Ok(Some(Arc::new(pod))))
            }
            Action::DeletePod => {
                if good {
                    self.in_api = false;
                }
                Event::Deleted(ok(good))
            }
            Action::Note { .. } | Action::Forget | Action::RemoveContainer { .. } => return,
        };
        self.feed(event);
    }

    fn exit_id(&mut self, id: &str, code: i32) -> Option<Instance> {
        let now = self.now;
        let found = self.containers.get_mut(id)?;
        if !found.is_over() {
            found.state = RunState::Exited;
            found.finished_at = Some(now);
            found.exit_code = code;
        }
        Some(found.clone())
    }

    /// A container ends by itself and the runtime says so.
    fn exit(&mut self, name: &str, code: i32) {
        let id = self.containers.values().find(|c| c.name == name && !c.is_over()).map(|c| c.id.clone());
        let Some(found) = id.and_then(|id| self.exit_id(&id, code)) else { return };
        self.feed(Event::Observed { sandbox: None, containers: vec![found] });
    }

    /// Everything that is asked for works, until nothing is asked for any more.
    fn settle(&mut self) {
        for _ in 0..500 {
            if self.pending.is_empty() {
                return;
            }
            self.perform(0, true);
        }
        panic!("never settles: {:?}", self.pending);
    }

    /// To the next deadline of the worker.
    fn wait(&mut self) -> i64 {
        let Some(at) = self.worker.as_ref().and_then(|w| w.deadline(self.now)) else { return 0 };
        let waited = at.duration_since(self.now).as_secs();
        self.now = at;
        self.feed(Event::Tick);
        waited
    }

    fn delete(&mut self, grace: i64) {
        let mut changed = Pod::clone(&self.w().pod);
        changed.metadata.deletion_timestamp = Some(crate::status::time(self.now));
        changed.metadata.deletion_grace_period_seconds = Some(grace);
        changed.status = Some(self.written.clone());
        self.killed = true;
        self.feed(Event::Spec(Arc::new(changed)));
    }

    fn running(&self) -> BTreeSet<&str> {
        self.containers.values().filter(|c| !c.is_over()).map(|c| c.name.as_str()).collect()
    }

    fn phase(&self) -> &str {
        self.written.phase.as_deref().unwrap_or("")
    }

    fn condition(&self, kind: &str) -> &str {
        let found = self.written.conditions.iter().flatten().find(|c| c.type_ == kind);
        found.map_or("", |c| c.status.as_str())
    }

    fn told(&self, start: &str) -> bool {
        self.notes.iter().any(|n| n.starts_with(start))
    }
}

#[test]
fn a_pod_starts_runs_and_is_deleted() {
    let mut world = World::new(pod(json!({"containers": [{"name": "c", "image": "i"}]})));
    let first: Vec<_> =
        world.pending.iter().map(|a| format!("{a:?}").split([' ', '{']).next().unwrap().to_owned()).collect();
    assert_eq!(first, ["Mount", "CreateSandbox", "Pull", "WriteStatus"], "all at once");
    world.settle();
    assert_eq!((world.phase(), world.condition("Ready")), ("Running", "True"));
    assert_eq!(world.written.pod_ip.as_deref(), Some("10.0.0.2"));
    let status = &world.written.container_statuses.as_ref().unwrap()[0];
    assert_eq!(status.container_id.as_deref(), Some("fake://c-1"));
    assert_eq!(world.w().deadline(world.now), None, "an idle pod has no timer");
    world.delete(30);
    world.settle();
    assert!(world.worker.is_none() && !world.in_api);
    assert!(world.told("Killing: Stopping container c") || world.phase() == "Failed");
}

#[test]
fn a_crashing_container_backs_off_and_keeps_count() {
    let mut world = World::new(pod(json!({"containers": [{"name": "c", "image": "i"}]})));
    world.settle();
    world.exit("c", 1);
    world.settle();
    assert!(world.running().contains("c"), "the first restart is at once");
    let mut waits = Vec::new();
    for _ in 0..3 {
        world.exit("c", 1);
        world.settle();
        let state = world.written.container_statuses.as_ref().unwrap()[0].clone();
        let waiting = state.state.unwrap().waiting.unwrap();
        assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
        assert!(state.last_state.unwrap().terminated.is_some());
        assert_eq!(world.phase(), "Running");
        waits.push(world.wait());
        world.settle();
    }
    assert_eq!(waits, [10, 20, 40]);
    assert_eq!(world.written.container_statuses.as_ref().unwrap()[0].restart_count, 4);
    assert!(world.told("BackOff: Back-off restarting failed container c in pod p_n(u)"));
    assert_eq!(world.containers.len(), 2, "one dead container is kept for its log");
}

#[test]
fn policies_decide_the_phase() {
    for (policy, code, phase) in [("Never", 0, "Succeeded"), ("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")] {
        let mut world = World::new(pod(json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]})));
        world.settle();
        world.exit("c", code);
        world.settle();
        assert_eq!(world.phase(), phase, "{policy} {code}");
        assert_eq!(world.condition("Ready"), "False");
        assert!(!world.mounted && world.worker.is_some(), "its volumes are released, its log stays");
    }
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let mut world = World::new(pod(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "i1", "image": "i"}, {"name": "side", "image": "i", "restartPolicy": "Always"},
                           {"name": "i2", "image": "i"}],
        "containers": [{"name": "c", "image": "i"}]})));
    world.settle();
    assert_eq!(world.running(), BTreeSet::from(["i1"]));
    assert_eq!(world.phase(), "Pending");
    let state = world.written.container_statuses.as_ref().unwrap()[0].state.clone().unwrap();
    assert_eq!(state.waiting.unwrap().reason.as_deref(), Some("PodInitializing"));
    world.exit("i1", 0);
    world.settle();
    assert_eq!(world.running(), BTreeSet::from(["i2", "side"]));
    world.exit("i2", 0);
    world.settle();
    assert_eq!(world.running(), BTreeSet::from(["c", "side"]));
    assert_eq!((world.phase(), world.condition("Initialized")), ("Running", "True"));
    world.exit("side", 1);
    world.settle();
    assert!(world.running().contains("side"), "a sidecar restarts whatever the policy");
    world.exit("c", 0);
    world.settle();
    assert_eq!(world.running(), BTreeSet::new());
    assert_eq!(world.phase(), "Succeeded");
}

#[test]
fn an_init_container_that_fails_ends_a_pod_that_never_restarts() {
    let mut world = World::new(pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i1", "image": "i"}], "containers": [{"name": "c", "image": "i"}]})));
    world.settle();
    world.exit("i1", 1);
    world.settle();
    assert_eq!((world.phase(), world.running().len()), ("Failed", 0));
}

#[test]
fn sidecars_end_after_the_containers_they_serve() {
    let mut world = World::new(pod(json!({
        "initContainers": [{"name": "s1", "image": "i", "restartPolicy": "Always"}, {"name": "s2", "image": "i", "restartPolicy": "Always"}],
        "containers": [{"name": "c", "image": "i"}]})));
    world.settle();
    assert_eq!(world.running(), BTreeSet::from(["c", "s1", "s2"]));
    world.delete(30);
    let kills = |w: &World| -> Vec<String> {
        w.pending
            .iter()
            .filter_map(|a| if let Action::Kill { container, .. } = a { Some(container.clone()) } else { None })
            .collect()
    };
    for name in ["c", "s2", "s1"] {
        assert_eq!(kills(&world), [name]);
        let index = world.pending.iter().position(|a| matches!(a, Action::Kill { .. })).unwrap();
        world.perform(index, true);
    }
    world.settle();
    assert!(world.worker.is_none());
}

#[test]
fn a_failed_pull_backs_off_and_says_why() {
    let mut world = World::new(pod(json!({"containers": [{"name": "c", "image": "x"}]})));
    let pull = world.pending.iter().position(|a| matches!(a, Action::Pull { .. })).unwrap();
    world.perform(pull, false);
    world.settle();
    let reason = |w: &World| {
        let s = w.written.container_statuses.as_ref().unwrap()[0].state.clone().unwrap().waiting.unwrap();
        (s.reason.unwrap(), s.message.unwrap_or_default())
    };
    assert_eq!(reason(&world), ("ErrImagePull".to_owned(), "no".to_owned()));
    world.wait();
    world.settle();
    assert_eq!(
        reason(&world),
        ("ImagePullBackOff".to_owned(), "Back-off pulling image \"x\": ErrImagePull: no".to_owned())
    );
    assert_eq!(world.wait(), 7);
    world.settle();
    assert_eq!(world.phase(), "Running");
}

#[test]
fn liveness_restarts_and_readiness_only_tells() {
    let mut world = World::new(pod(json!({"containers": [{"name": "c", "image": "i",
        "readinessProbe": {"periodSeconds": 5, "failureThreshold": 1, "exec": {"command": ["x"]}},
        "livenessProbe": {"periodSeconds": 7, "failureThreshold": 1, "exec": {"command": ["x"]}}}]})));
    world.settle();
    assert_eq!((world.phase(), world.condition("Ready")), ("Running", "True"));
    world.wait();
    world.perform(0, false);
    world.settle();
    assert_eq!(world.condition("Ready"), "False");
    assert!(world.told("Unhealthy: Readiness probe failed: bad"));
    world.wait();
    world.perform(0, false);
    world.settle();
    assert!(world.running().contains("c") && world.containers.len() == 2);
    assert_eq!(world.written.container_statuses.as_ref().unwrap()[0].restart_count, 1);
}

#[test]
fn a_startup_probe_holds_the_others_back() {
    let mut world = World::new(pod(json!({"containers": [{"name": "c", "image": "i",
        "startupProbe": {"periodSeconds": 1, "failureThreshold": 2, "exec": {"command": ["x"]}},
        "readinessProbe": {"exec": {"command": ["x"]}}}]})));
    for _ in 0..20 {
        let next = world.pending.iter().position(|a| !matches!(a, Action::Probe { .. }));
        let Some(next) = next else { break };
        world.perform(next, true);
    }
    assert!(matches!(world.pending[..], [Action::Probe { kind: Kind::Startup, .. }]));
    assert!(!world.w().slot("c").unwrap().is_started());
    world.perform(0, false);
    world.wait();
    world.settle();
    assert_eq!(world.condition("Ready"), "True");
}

#[test]
fn a_dead_sandbox_is_replaced_with_all_containers() {
    let mut world = World::new(pod(json!({"containers": [{"name": "c", "image": "i"}]})));
    world.settle();
    let record = SandboxRecord { id: "s0".into(), attempt: 0, ready: false, ips: vec![], created_at: world.now };
    let id = world.containers.keys().next().unwrap().clone();
    let dead = world.exit_id(&id, 137).unwrap();
    world.feed(Event::Observed { sandbox: Some(record), containers: vec![dead] });
    world.settle();
    assert!(world.told("SandboxChanged"));
    assert_eq!(world.w().sandbox, Sandbox::Ready { id: "s1".into() });
    assert_eq!(world.running(), BTreeSet::from(["c"]));
}

#[test]
fn a_kubelet_that_restarts_finds_its_containers_and_touches_none() {
    let mut before = World::new(pod(json!({"containers": [{"name": "c", "image": "i"}]})));
    before.settle();
    let mut known = Pod::clone(&before.w().pod);
    known.status = Some(before.written.clone());
    let now = before.now;
    let worker = PodWorker::new(Arc::new(known), settings(), Ok(()), now);
    let record =
        SandboxRecord { id: "s0".into(), attempt: 0, ready: true, ips: vec!["10.0.0.2".into()], created_at: now };
    let containers = before.containers.values().cloned().collect();
    let (worker, actions) = worker.step(Event::Observed { sandbox: Some(record), containers }, now);
    assert_eq!(actions, [Action::Mount], "volumes are looked after again, nothing else changes");
    assert_eq!(worker.slot("c").unwrap().restarts(), 0);
}

#[test]
fn the_active_deadline_fails_the_pod() {
    let mut world = World::new(pod(json!({"activeDeadlineSeconds": 5, "containers": [{"name": "c", "image": "i"}]})));
    world.settle();
    assert_eq!(world.wait(), 5);
    world.settle();
    assert_eq!((world.phase(), world.written.reason.as_deref()), ("Failed", Some("DeadlineExceeded")));
    assert!(world.running().is_empty());
}

#[test]
fn a_refused_pod_fails_and_starts_nothing() {
    let now = Timestamp::from_second(START).unwrap();
    let refused = Verdict { reason: "OutOfcpu".into(), message: "Pod was rejected: too much".into(), disruption: None };
    let worker = PodWorker::new(pod(json!({"containers": [{"name": "c"}]})), settings(), Err(refused), now);
    let (_, actions) = worker.step(Event::Observed { sandbox: None, containers: vec![] }, now);
    let status = actions.iter().find_map(|a| if let Action::WriteStatus { new, .. } = a { Some(new) } else { None });
    assert_eq!(status.unwrap().phase.as_deref(), Some("Failed"));
    assert!(!actions.iter().any(|a| matches!(a, Action::CreateSandbox { .. } | Action::Mount | Action::Pull { .. })));
}

#[derive(Debug, Clone)]
enum Move {
    Perform { which: usize, good: bool },
    Exit { which: usize, code: i32 },
    Wait,
    KillSandbox,
    Delete { grace: i64 },
    ForceDelete,
    Touch,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        12 => (0usize..8, prop::bool::weighted(0.85)).prop_map(|(which, good)| Move::Perform { which, good }),
        3 => (0usize..4, 0i32..2).prop_map(|(which, code)| Move::Exit { which, code }),
        2 => Just(Move::Wait),
        1 => Just(Move::KillSandbox),
        1 => (0i64..40).prop_map(|grace| Move::Delete { grace }),
        1 => Just(Move::ForceDelete),
        1 => Just(Move::Touch),
    ];
    prop::collection::vec(one, 0..120)
}

fn specs() -> impl Strategy<Value = Value> {
    let policy = prop::sample::select(vec!["Always", "OnFailure", "Never"]);
    let hook = prop::bool::ANY;
    (policy, hook, prop::bool::ANY, prop::bool::ANY).prop_map(|(policy, hook, init, probes)| {
        let mut container = json!({"name": "a", "image": "i"});
        if hook {
            container["lifecycle"] = json!({"postStart": {"exec": {"command": ["x"]}}});
        }
        if probes {
            let probe = json!({"failureThreshold": 1, "exec": {"command": ["x"]}});
            container["livenessProbe"] = probe.clone();
            container["startupProbe"] = probe;
        }
        let mut spec = json!({"restartPolicy": policy, "containers": [container, {"name": "b", "image": "i"}]});
        if init {
            spec["initContainers"] =
                json!([{"name": "i1", "image": "i"}, {"name": "s", "image": "i", "restartPolicy": "Always"}]);
        }
        spec
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: nothing is started once the pod is to go, nothing runs twice, and when the
    /// pod is forgotten nothing of it is left.
    #[test]
    fn any_order_of_events_keeps_the_laws(spec in specs(), moves in moves()) {
        let mut world = World::new(pod(spec));
        for step in moves {
            if world.worker.is_none() {
                break;
            }
            match step {
                Move::Perform { which, good } if !world.pending.is_empty() => {
                    let which = which % world.pending.len();
                    world.perform(which, good);
                }
                Move::Exit { which, code } => {
                    let names: Vec<String> = world.running().into_iter().map(str::to_owned).collect();
                    if let Some(name) = names.get(which) {
                        world.exit(name, code);
                    }
                }
                Move::Wait => drop(world.wait()),
                Move::KillSandbox => {
                    let Some(id) = world.sandboxes.keys().next().cloned() else { continue };
                    let attempt = id[1..].parse().unwrap();
                    let record = SandboxRecord { id, attempt, ready: false, ips: vec![], created_at: world.now };
                    world.feed(Event::Observed { sandbox: Some(record), containers: vec![] });
                }
                Move::Delete { grace } => world.delete(grace),
                Move::ForceDelete => {
                    world.killed = true;
                    world.feed(Event::Gone);
                }
                Move::Touch => {
                    let same = world.w().pod.clone();
                    world.feed(Event::Spec(same));
                }
                Move::Perform { .. } => {}
            }
        }
        // Then the pod is deleted and everything works: nothing may stay.
        if world.worker.is_some() {
            world.killed = true;
            world.feed(Event::Gone);
        }
        for _ in 0..400 {
            if world.worker.is_none() {
                break;
            }
            if world.pending.is_empty() {
                prop_assert!(world.w().deadline(world.now).is_some(), "stuck: {:#?}", world.w());
                world.wait();
            } else {
                world.perform(0, true);
            }
        }
        prop_assert!(world.worker.is_none(), "never ends: {:?}", world.worker);
    }
}
