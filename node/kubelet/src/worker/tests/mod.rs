//! The worker against a model of a runtime: [`lives`] are scripted, [`laws`] hold in random ones.

mod laws;
mod lives;
mod old_news;

use super::slot::Kill;
use super::state::Sandbox;
use super::*;
use crate::pod::probe::{Kind, Outcome};
use crate::pod::verdict::Verdict;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    /// The resource version under which the API has that.
    version: u64,
    notes: Vec<String>,
    killed: bool,
    next: u32,
    /// What the runtime had at some time: lists and events that come late.
    seen: Vec<Vec<Instance>>,
    /// What the worker was told once and may be told again.
    heard: Vec<Event>,
    /// Containers that the worker wanted killed.
    kills: Vec<String>,
    /// Containers that were removed on the worker's word.
    removed: Vec<String>,
    /// Who made a container, as the runtime says.
    run: String,
    /// Kubelets that came after the first.
    runs: u32,
    /// Address of the next sandbox.
    next_ip: String,
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
        longest_restart_delay: crate::pod::backoff::LONGEST,
        run: "this".into(),
    }
}

/// Words of the runtime and answers that may come twice or late, and say what they are about.
fn is_repeatable(event: &Event) -> bool {
    match event {
        Event::Observed { .. } | Event::Hooked { result: Ok(()), .. } | Event::Killed { result: Ok(_), .. } => true,
        Event::SandboxCreated { result, .. } => result.is_ok(),
        Event::Pulled { result, .. } => result.is_ok(),
        Event::Started { result, .. } => result.is_ok(),
        Event::SandboxStopped { result, .. } => result.is_ok(),
        Event::Probed { outcome, .. } => *outcome == Outcome::Success,
        _ => false,
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
            version: 1,
            notes: Vec::new(),
            killed: false,
            next: 0,
            seen: Vec::new(),
            heard: Vec::new(),
            kills: Vec::new(),
            removed: Vec::new(),
            run: settings().run,
            runs: 0,
            next_ip: "10.0.0.2".into(),
        };
        world.feed(Event::Observed { sandbox: None, containers: vec![] });
        world
    }

    fn w(&self) -> &PodWorker {
        self.worker.as_ref().unwrap()
    }

    fn feed(&mut self, event: Event) {
        if is_repeatable(&event) {
            self.heard.push(event.clone());
        }
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
                    let ran = gone.is_some_and(|i| i.state == RunState::Running);
                    assert!(!ran, "a running container was removed");
                    self.heard.push(Event::Vanished { id: id.clone() });
                    self.removed.push(id);
                }
                Action::Start { .. } | Action::CreateSandbox { .. } | Action::Pull { .. } | Action::Mount
                    if self.killed =>
                {
                    panic!("{action:?} after the pod was to be killed");
                }
                other => {
                    if let Action::Kill { id, .. } = &other {
                        self.kills.push(id.clone());
                    }
                    self.pending.push(other);
                }
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
        let hash = self.w().slot(name).map(|s| crate::pod::make::hash(&s.container)).unwrap_or_default();
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
            run: self.run.clone(),
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
                    SandboxRecord { id, attempt, ready: true, ips: vec![self.next_ip.clone()], created_at: self.now };
                Event::SandboxCreated { attempt, result: Ok(record) }
            }
            Action::CreateSandbox { attempt } => Event::SandboxCreated { attempt, result: Err("no network".into()) },
            Action::Pull { container, image } => {
                let fault = StartError { reason: crate::names::reason::ERR_IMAGE_PULL, message: "no".into() };
                Event::Pulled { container, image, result: if good { Ok("sha".into()) } else { Err(fault) } }
            }
            Action::Start { container, sandbox, attempt, .. } => {
                let twin = self.containers.values().find(|c| c.name == container && !c.is_over());
                assert!(twin.is_none(), "{container} started while it runs");
                if !good {
                    let fault = StartError { reason: crate::names::reason::CONFIG_ERROR, message: "no secret".into() };
                    return self.feed(Event::Started { container, attempt, result: Err(fault) });
                }
                assert_eq!(self.sandboxes.get(&sandbox), Some(&true), "started in a sandbox that is gone");
                let made = self.instance(&container, attempt, &sandbox);
                // Somebody looked between the two calls.
                let unstarted = Instance { state: RunState::Created, started_at: None, ..made.clone() };
                self.seen.push(self.containers.values().cloned().chain([unstarted]).collect());
                self.containers.insert(made.id.clone(), made.clone());
                self.seen.push(self.containers.values().cloned().collect());
                Event::Started { container, attempt, result: Ok(made) }
            }
            Action::PostStart { container, id } => Event::Hooked { container, id, result: ok(good) },
            Action::Kill { container, id, .. } => {
                if !good {
                    return self.feed(Event::Killed { container, id, result: Err("busy".into()) });
                }
                let found = self.exit_id(&id, 137);
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
                Event::SandboxStopped { id, result: ok(good) }
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
                self.check_transitions(&new);
                self.written = *new;
                self.version += 1;
                Event::StatusWritten(Ok(Some(Arc::new(self.in_the_api()))))
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

    /// The pod as the API has it.
    fn in_the_api(&self) -> Pod {
        let mut pod = Pod::clone(&self.w().pod);
        pod.status = Some(self.written.clone());
        pod.metadata.resource_version = Some(self.version.to_string());
        pod
    }

    /// The API refuses a status in which something runs that ended for good.
    fn check_transitions(&self, new: &PodStatus) {
        let lists = |s: &PodStatus| {
            let lists = [&s.init_container_statuses, &s.container_statuses, &s.ephemeral_container_statuses];
            lists.into_iter().flatten().flatten().cloned().collect::<Vec<_>>()
        };
        let code = |s: &ContainerStatus| Some(s.state.as_ref()?.terminated.as_ref()?.exit_code);
        let new = lists(new);
        for was in lists(&self.written) {
            let Some(ended) = code(&was) else { continue };
            let leaves = new.iter().any(|s| s.name == was.name && code(s).is_none());
            let slot = self.w().slot(&was.name).unwrap();
            let may = transitions::may_run(&self.w().pod, slot, ended);
            assert!(!leaves || may, "{} may not be transitioned to non-terminated state", was.name);
        }
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

    /// The kubelet is killed and another comes; `halfway`: what was being started is made and not started.
    fn restart(&mut self, halfway: bool) {
        let pending = std::mem::take(&mut self.pending);
        for action in pending {
            if let Action::Start { container, sandbox, attempt, .. } = action
                && halfway
            {
                let made = self.instance(&container, attempt, &sandbox);
                let unstarted = Instance { state: RunState::Created, started_at: None, ..made };
                self.containers.insert(unstarted.id.clone(), unstarted);
            }
        }
        let known = self.in_the_api();
        self.runs += 1;
        let run = format!("run-{}", self.runs);
        if !self.run.is_empty() {
            self.run = run.clone();
        }
        let settings = Settings { run, ..settings() };
        self.worker = Some(PodWorker::new(Arc::new(known), settings, Ok(()), self.now));
        let sandbox = self.sandboxes.iter().next_back().map(|(id, ready)| SandboxRecord {
            id: id.clone(),
            attempt: id[1..].parse().unwrap(),
            ready: *ready,
            ips: vec!["10.0.0.2".into()],
            created_at: self.now,
        });
        self.heard.clear();
        self.feed(Event::Observed { sandbox, containers: self.containers.values().cloned().collect() });
        // It says what the runtime had then: lists of it may come late as well.
        self.heard.clear();
    }

    /// Ends one of the containers that run now, by its place among them; content when there are fewer.
    fn exit_one_of_those_that_run(&mut self, which: usize, code: i32) {
        let name = self.running().iter().nth(which).map(|name| (*name).to_owned());
        if let Some(name) = name {
            self.exit(&name, code);
        }
    }

    /// A container ends by itself and the runtime says so.
    fn exit(&mut self, name: &str, code: i32) {
        let id = self.containers.values().find(|c| c.name == name && !c.is_over()).map(|c| c.id.clone());
        let Some(found) = id.and_then(|id| self.exit_id(&id, code)) else { return };
        self.seen.push(self.containers.values().cloned().collect());
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
        self.version += 1;
        let mut changed = self.in_the_api();
        changed.metadata.deletion_timestamp = Some(crate::api::time(self.now));
        changed.metadata.deletion_grace_period_seconds = Some(grace);
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
