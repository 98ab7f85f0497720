//! Lives of pods, each told step by step: what happens, and what the worker makes of it.

use serde_json::json;

use super::*;

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
fn a_pod_that_the_api_has_forgotten_takes_no_room_while_it_ends() {
    let mut world = World::new(pod(json!({"containers": [{"name": "c", "image": "i"}]})));
    world.settle();
    assert!(world.w().takes_room());
    world.delete(30);
    assert!(world.w().takes_room(), "it may run for its grace, and the scheduler knows");
    world.feed(Event::Gone);
    assert!(world.running().contains("c") && !world.w().takes_room());
}

#[test]
fn termination_messages_of_a_pod_share_twelve_kibibytes() {
    let names = ["a", "b", "c", "d", "e", "i"];
    let made = |names: &[&str]| names.iter().map(|n| json!({"name": n, "image": "i"})).collect::<Vec<_>>();
    let mut world = World::new(pod(json!({"restartPolicy": "Never", "containers": made(&names[..5]),
        "initContainers": made(&names[5..])})));
    let end = |world: &mut World, name: &str| {
        let id = world.containers.values().find(|c| c.name == name).map(|c| c.id.clone()).unwrap();
        let ended = world.exit_id(&id, 1).unwrap();
        let message = format!("x{}", "é".repeat(2047));
        world.feed(Event::Observed { sandbox: None, containers: vec![Instance { message, ..ended }] });
        world.settle();
    };
    world.settle();
    end(&mut world, "i");
    let status = &world.written.init_container_statuses.as_ref().unwrap()[0];
    let message = status.state.as_ref().unwrap().terminated.as_ref().unwrap().message.clone().unwrap();
    assert_eq!(message, format!("x{}", "é".repeat(1023)), "no character is cut in two");
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
    let next = world.written.init_container_statuses.as_ref().unwrap()[2].state.clone().unwrap();
    assert_eq!(next.waiting.unwrap().reason.as_deref(), Some("PodInitializing"), "kubectl shows Init:0/3 by it");
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
fn a_pod_with_init_containers_tells_its_new_address_when_its_sandbox_was_replaced() {
    for policy in ["Always", "OnFailure"] {
        let mut world = World::new(pod(json!({"restartPolicy": policy,
            "initContainers": [{"name": "i1", "image": "i"}], "containers": [{"name": "c", "image": "i"}]})));
        world.settle();
        world.exit("i1", 0);
        world.settle();
        let record = SandboxRecord { id: "s0".into(), attempt: 0, ready: false, ips: vec![], created_at: world.now };
        let ids: Vec<String> = world.containers.keys().cloned().collect();
        let dead = ids.iter().filter_map(|id| world.exit_id(id, 137)).collect();
        world.feed(Event::Observed { sandbox: Some(record), containers: dead });
        world.next_ip = "10.0.0.9".into();
        world.settle();
        assert_eq!(world.running(), BTreeSet::from(["i1"]), "{policy}");
        assert_eq!(world.written.pod_ip.as_deref(), Some("10.0.0.9"), "{policy}");
        world.exit("i1", 0);
        world.settle();
        assert_eq!((world.running(), world.condition("Ready")), (BTreeSet::from(["c"]), "True"), "{policy}");
    }
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

/// A new kubelet took every pod with a readiness probe out of its Services until the probe had passed again.
#[test]
fn what_was_ready_before_the_kubelet_restarted_is_ready_until_a_probe_says_otherwise() {
    let probe = |threshold: i32| json!({"periodSeconds": 5, "failureThreshold": threshold, "exec": {"command": ["x"]}});
    let spec =
        json!({"containers": [{"name": "c", "image": "i", "startupProbe": probe(1), "readinessProbe": probe(2)}]});
    let mut before = World::new(pod(spec));
    before.settle();
    assert_eq!(before.condition("Ready"), "True");
    let mut known = Pod::clone(&before.w().pod);
    known.status = Some(before.written.clone());
    let now = before.now;
    let again = |known: Pod| {
        let worker = PodWorker::new(Arc::new(known), settings(), Ok(()), now);
        let record =
            SandboxRecord { id: "s0".into(), attempt: 0, ready: true, ips: vec!["10.0.0.2".into()], created_at: now };
        let containers = before.containers.values().cloned().collect();
        worker.step(Event::Observed { sandbox: Some(record), containers }, now)
    };
    let (worker, actions) = again(known.clone());
    assert!(worker.slot("c").unwrap().is_ready(), "as the API knows it");
    let written = actions.iter().any(|action| matches!(action, Action::WriteStatus { .. }));
    let started = actions.iter().any(|action| matches!(action, Action::Probe { kind: Kind::Startup, .. }));
    assert!(!written && !started, "{actions:?}");
    let fail = |worker: PodWorker| {
        let id = worker.slot("c").unwrap().running().unwrap().id.clone();
        let (mut worker, _) = worker.step(Event::Tick, now);
        worker.slots[0].machine(Kind::Readiness).as_mut().unwrap().busy = true;
        let outcome = Outcome::Failure("bad".into());
        worker.step(Event::Probed { container: "c".into(), id, kind: Kind::Readiness, outcome }, now).0
    };
    let once = fail(worker);
    assert!(once.slot("c").unwrap().is_ready(), "one failure of two");
    assert!(!fail(once).slot("c").unwrap().is_ready());
    // Of another instance nothing is known.
    let mut other = known;
    let statuses = other.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
    statuses[0].container_id = Some("fake://c-0".into());
    assert!(!again(other).0.slot("c").unwrap().is_ready());
}

#[test]
fn a_container_that_a_killed_kubelet_made_and_never_started_is_made_anew() {
    for policy in ["Always", "Never"] {
        let spec = json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]});
        let mut before = World::new(pod(spec));
        before.settle();
        let now = before.now;
        let mut made = before.containers.values().next().unwrap().clone();
        // Not every runtime says whose it is.
        let run = if policy == "Always" { "before" } else { "" };
        (made.state, made.started_at, made.run) = (RunState::Created, None, run.into());
        let id = made.id.clone();
        let known = Pod::clone(&before.w().pod);
        let worker = PodWorker::new(Arc::new(known), settings(), Ok(()), now);
        let record =
            SandboxRecord { id: "s0".into(), attempt: 0, ready: true, ips: vec!["10.0.0.2".into()], created_at: now };
        let seen = Event::Observed { sandbox: Some(record), containers: vec![made] };
        let answers = [
            seen.clone(),
            seen,
            Event::Mounted(Ok(())),
            Event::Pulled { container: "c".into(), image: "i".into(), result: Ok("i".into()) },
        ];
        let (_, actions) = answers.into_iter().fold((worker, Vec::new()), |(worker, mut all), event| {
            let (worker, actions) = worker.step(event, now);
            all.extend(actions);
            (worker, all)
        });
        assert!(actions.contains(&Action::RemoveContainer { id }), "{actions:?}");
        let started = actions.iter().any(|a| matches!(a, Action::Start { attempt: 1, .. }));
        assert!(started, "anew, under a number of its own: {actions:?}");
    }
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
fn an_evicted_pod_says_why_whatever_its_containers_make_of_it() {
    for (policy, code) in [("Always", 137), ("Never", 137), ("Never", 0)] {
        let mut world = World::new(pod(json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]})));
        world.settle();
        let verdict = Verdict { reason: "Evicted".into(), message: "too much".into(), disruption: None };
        world.feed(Event::Evict { verdict, grace: 30 });
        world.exit("c", code);
        world.settle();
        let told = (world.phase(), world.written.reason.as_deref(), world.written.message.as_deref());
        assert_eq!(told, ("Failed", Some("Evicted"), Some("too much")), "{policy} {code}");
    }
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

#[test]
fn a_list_taken_before_starts_were_answered_kills_nobody_and_removes_no_log() {
    for policy in ["Always", "Never"] {
        let containers: Vec<_> = (0..40).map(|i| json!({"name": format!("c{i}"), "image": "i"})).collect();
        let mut world = World::new(pod(json!({"restartPolicy": policy, "containers": containers})));
        world.settle();
        assert_eq!(world.running().len(), 40);
        let half_done = |seen: &&Vec<Instance>| seen.iter().any(|i| i.state == RunState::Created);
        let late: Vec<_> = world.seen.iter().filter(half_done).cloned().collect();
        assert_eq!(late.len(), 40, "each start was seen half done");
        for containers in late.clone() {
            world.feed(Event::Observed { sandbox: None, containers });
        }
        world.settle();
        assert_eq!((world.running().len(), world.removed.len()), (40, 0), "{policy}");
        if policy == "Never" {
            (0..40).for_each(|i| world.exit(&format!("c{i}"), 0));
            late.into_iter().for_each(|containers| world.feed(Event::Observed { sandbox: None, containers }));
            world.settle();
            assert_eq!(world.phase(), "Succeeded");
        }
        assert!(world.removed.is_empty(), "{policy}: {:?}", world.removed);
        assert!(world.w().slots.iter().all(|s| s.restarts() == 0), "{policy}");
    }
}

#[test]
fn a_node_that_has_another_address_says_so_for_its_pods() {
    for host_network in [true, false] {
        let spec = json!({"hostNetwork": host_network, "containers": [{"name": "c", "image": "i"}]});
        let mut world = World::new(pod(spec));
        world.settle();
        world.feed(Event::HostIps(vec!["192.0.2.9".into()]));
        world.settle();
        let pod_ip = if host_network { "192.0.2.9" } else { "10.0.0.2" };
        let told = (world.written.host_ip.as_deref(), world.written.pod_ip.as_deref());
        assert_eq!(told, (Some("192.0.2.9"), Some(pod_ip)));
        assert_eq!(world.written.host_ips.iter().flatten().count(), 1);
        assert!(world.kills.is_empty() && world.w().deadline(world.now).is_none());
    }
}
