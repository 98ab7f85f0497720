//! Daemon sets against the model: one pod a node, taints and selectors, failed pods, rolling both ways, history.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;
use testkit::model::{World, from};

fn set(strategy: Value) -> DaemonSet {
    from(json!({
        "metadata": {"name": "agent", "namespace": "ns"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "updateStrategy": strategy,
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"nodeSelector": {"os": "linux"}, "containers": [{"name": "c", "image": "one"}]}
            }
        }
    }))
}

fn world(strategy: Value, nodes: usize) -> World {
    let mut world = World::default();
    world.put(&set(strategy));
    for n in 0..nodes {
        world.put(&from::<Node>(json!({"metadata": {"name": format!("n{n}"), "labels": {"os": "linux"}}})));
    }
    world
}

struct Case {
    world: World,
    failed: Failed,
}

impl Case {
    fn new(strategy: Value, nodes: usize) -> Case {
        Case { world: world(strategy, nodes), failed: Failed::new(FAILED_FIRST, FAILED_MOST) }
    }

    fn view(&self) -> View {
        View {
            set: self.world.get::<DaemonSet>("ns", "agent").unwrap(),
            candidates: self.world.list(),
            revisions: self.world.list(),
            orphan_revisions: Vec::new(),
            nodes: self.world.list(),
        }
    }

    fn settle(&mut self) -> Plan {
        for _ in 0..40 {
            let plan = reconcile(&self.view(), &mut self.failed, self.world.now);
            if plan.steps.is_empty() {
                return plan;
            }
            self.world.apply(&plan);
        }
        panic!("does not converge");
    }

    /// Kubelet and scheduler play along, until nothing moves.
    fn play(&mut self, check: impl Fn(&World)) {
        for _ in 0..40 {
            self.settle();
            let before = self.world.writes;
            self.run();
            check(&self.world);
            self.world.end_pods();
            if self.world.writes == before {
                return;
            }
        }
        panic!("does not end");
    }

    fn run(&mut self) {
        for pod in self.world.list::<Pod>() {
            if let Some(node) = nodes::target(&pod) {
                self.world.edit::<Pod>("ns", &pod.name_any(), |p| p.spec.as_mut().unwrap().node_name = Some(node));
            }
        }
        self.world.writes -= self.world.list::<Pod>().len();
        self.world.run_pods();
    }

    fn status(&self) -> DaemonSetStatus {
        self.world.get::<DaemonSet>("ns", "agent").unwrap().status.clone().unwrap()
    }

    fn set_image(&mut self, image: &str) {
        self.world.edit::<DaemonSet>("ns", "agent", |d| {
            d.spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
        });
    }

    fn images(&self) -> BTreeSet<String> {
        let image = |p: &Arc<Pod>| p.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        self.world.list::<Pod>().iter().map(image).collect()
    }
}

#[test]
fn every_fitting_node_has_one_pinned_pod() {
    let mut case = Case::new(json!({"type": "RollingUpdate"}), 3);
    case.world.put(&from::<Node>(json!({"metadata": {"name": "other"}})));
    case.world.put(&from::<Node>(json!({
        "metadata": {"name": "tainted", "labels": {"os": "linux"}},
        "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]}
    })));
    case.play(|_| {});
    let targets: Vec<String> = case.world.list::<Pod>().iter().filter_map(|p| nodes::target(p)).collect();
    assert_eq!(targets, ["n0", "n1", "n2"]);
    let pod = &case.world.list::<Pod>()[0];
    let tolerated: Vec<String> =
        pod.spec.as_ref().unwrap().tolerations.iter().flatten().filter_map(|t| t.key.clone()).collect();
    assert!(tolerated.contains(&"node.kubernetes.io/unschedulable".to_owned()));
    let status = case.status();
    assert_eq!((status.desired_number_scheduled, status.number_ready, status.number_misscheduled), (3, 3, 0));
    assert_eq!((status.number_available, status.updated_number_scheduled), (Some(3), Some(3)));
}

#[test]
fn a_node_that_stops_fitting_loses_its_pod() {
    let mut case = Case::new(json!({"type": "RollingUpdate"}), 2);
    case.play(|_| {});
    case.world.edit::<Node>("", "n0", |n| {
        n.labels_mut().insert("os".into(), "other".into());
    });
    case.play(|_| {});
    assert_eq!(case.world.list::<Pod>().len(), 1);
    case.world.edit::<Node>("", "n1", |n| {
        n.spec.get_or_insert_default().taints = Some(from(json!([{"key": "mine", "effect": "NoSchedule"}])));
    });
    case.play(|_| {});
    assert_eq!(case.world.list::<Pod>().len(), 1, "NoSchedule does not drive out what runs");
    assert_eq!(case.status().number_misscheduled, 1);
}

#[test]
fn a_failed_pod_is_replaced_after_a_growing_wait() {
    let mut case = Case::new(json!({"type": "RollingUpdate"}), 1);
    case.play(|_| {});
    let fail = |case: &mut Case| {
        let name = case.world.list::<Pod>()[0].name_any();
        case.world.set_pod("ns", &name, "Failed", json!([]));
        name
    };
    let first = fail(&mut case);
    case.settle();
    assert!(case.world.get::<Pod>("ns", &first).is_none());
    assert!(case.world.events.iter().any(|e| e.starts_with("FailedDaemonPod: Found failed daemon pod ns/agent-")));
    case.run();
    let second = fail(&mut case);
    assert_eq!(case.settle().requeue_after, Some(Duration::from_secs(1)));
    assert!(case.world.get::<Pod>("ns", &second).is_some());
    case.world.advance(1);
    case.settle();
    assert!(case.world.get::<Pod>("ns", &second).is_none());
}

#[test]
fn a_rolling_update_takes_one_node_at_a_time() {
    let mut case = Case::new(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}), 4);
    case.play(|_| {});
    case.set_image("two");
    for _ in 0..20 {
        case.settle();
        let ready = case.world.list::<Pod>().iter().filter(|p| pods::is_ready(p)).count();
        assert!(ready >= 3, "{ready} ready");
        case.run();
    }
    case.settle();
    assert_eq!(case.images(), BTreeSet::from(["two".to_owned()]));
    assert_eq!(case.world.list::<ControllerRevision>().len(), 2);
}

#[test]
fn surging_runs_the_new_beside_the_old() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let mut case = Case::new(strategy, 3);
    case.play(|_| {});
    case.set_image("two");
    for _ in 0..20 {
        case.settle();
        let ready: BTreeSet<String> =
            case.world.list::<Pod>().iter().filter(|p| pods::is_ready(p)).filter_map(|p| nodes::target(p)).collect();
        assert_eq!(ready.len(), 3, "never a node without");
        assert!(case.world.list::<Pod>().len() <= 4);
        case.run();
    }
    case.settle();
    assert_eq!(case.images(), BTreeSet::from(["two".to_owned()]));
    assert_eq!(case.world.list::<Pod>().len(), 3);
}

#[test]
fn rolling_back_takes_the_old_revision_as_the_newest() {
    let mut case = Case::new(json!({"type": "OnDelete"}), 1);
    case.play(|_| {});
    case.set_image("two");
    case.play(|_| {});
    case.set_image("one");
    case.play(|_| {});
    let mut revisions: Vec<Option<i64>> = case.world.list::<ControllerRevision>().iter().map(|r| r.revision).collect();
    revisions.sort();
    assert_eq!(revisions, [Some(2), Some(3)]);
    assert_eq!(case.images(), BTreeSet::from(["one".to_owned()]), "OnDelete leaves pods alone");
    let data = &case.world.list::<ControllerRevision>()[0].data.0;
    assert_eq!(data["spec"]["template"]["$patch"], "replace");
}
