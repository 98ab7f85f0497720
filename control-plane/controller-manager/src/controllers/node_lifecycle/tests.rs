//! Nodes against the model: silence, recovery, taints and how fast they spread.

use client::{Action, Verb};
use serde_json::json;

use super::zones::Turn;
use super::*;
use testkit::model::{World, at, from};

fn node(name: &str, ready: Option<&str>) -> Node {
    let conditions = ready.map(|status| json!([{"type": "Ready", "status": status}]));
    from(json!({
        "metadata": {"name": name},
        "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]},
        "status": {"conditions": conditions}
    }))
}

struct Case {
    world: World,
    zones: Zones,
    config: Config,
    heard: Option<Timestamp>,
}

impl Case {
    fn new(nodes: &[(&str, Option<&str>)]) -> Case {
        let mut world = World::default();
        for (name, ready) in nodes {
            world.put(&node(name, *ready));
        }
        let heard = Some(world.now);
        Case { world, zones: Zones::default(), config: Config::default(), heard }
    }

    fn settle(&mut self, name: &str) -> Plan {
        for _ in 0..10 {
            let node = self.world.get::<Node>("", name).expect("there");
            let all = self.world.list::<Node>();
            let rates = Rates::of(&self.config);
            let _ = all.iter().filter(|n| self.zones.see(n, &rates)).count();
            let view = View { node: &node, heard: self.heard, pods: self.world.list::<Pod>(), config: &self.config };
            let plan = reconcile(&view, &mut self.zones, self.world.now);
            if plan.steps.is_empty() {
                return plan;
            }
            self.world.apply(&plan);
        }
        panic!("does not converge");
    }

    fn taints(&self, name: &str) -> Vec<String> {
        let spec = self.world.get::<Node>("", name).unwrap().spec.clone().unwrap();
        let mut all: Vec<String> = spec
            .taints
            .unwrap_or_default()
            .iter()
            .map(|t| format!("{}:{}", t.key.rsplit('/').next().unwrap(), t.effect))
            .collect();
        all.sort();
        all
    }
}

#[test]
fn a_silent_node_becomes_unknown_is_tainted_and_its_pods_leave() {
    let mut case = Case::new(&[("a", Some("True")), ("b", Some("True"))]);
    case.world.put(&from::<Pod>(json!({
        "metadata": {"name": "p", "namespace": "ns"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    })));
    let plan = case.settle("a");
    assert_eq!(plan.requeue_after.map(|d| d.as_secs()), Some(51), "looked at when the grace is over");
    case.world.advance(51);
    case.settle("a");
    let ready = nodes::condition(&case.world.get::<Node>("", "a").unwrap(), READY).cloned().unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("Unknown", Some("NodeStatusUnknown")));
    assert_eq!(case.taints("a"), ["mine:NoSchedule", "unreachable:NoExecute", "unreachable:NoSchedule"]);
    assert!(!pods::is_ready(&case.world.get::<Pod>("ns", "p").unwrap()));
    assert_eq!(case.world.events[0], "NodeNotReady: Node a status is now: NodeNotReady");
    case.heard = Some(case.world.now);
    case.world.edit::<Node>("", "a", |n| {
        n.status.as_mut().unwrap().conditions.as_mut().unwrap().iter_mut().for_each(|c| {
            c.status = if c.type_ == READY { "True".into() } else { "False".into() };
        });
    });
    case.settle("a");
    assert_eq!(case.taints("a"), ["mine:NoSchedule"], "only ours are taken off");
}

#[test]
fn a_node_that_never_spoke_has_a_minute() {
    let mut case = Case::new(&[("a", None), ("b", Some("True"))]);
    case.heard = None;
    case.world.advance(59);
    case.settle("a");
    assert_eq!(case.taints("a"), ["mine:NoSchedule", "not-ready:NoSchedule"]);
    case.world.advance(2);
    case.settle("a");
    let ready = nodes::condition(&case.world.get::<Node>("", "a").unwrap(), READY).cloned().unwrap();
    assert_eq!(ready.reason.as_deref(), Some("NodeStatusNeverUpdated"));
}

#[test]
fn a_restart_of_the_controller_gives_every_node_its_grace_again() {
    let mut case = Case::new(&[("a", Some("True"))]);
    case.heard = None;
    case.world.advance(3600);
    case.settle("a");
    assert_eq!(nodes::status(&case.world.get::<Node>("", "a").unwrap(), READY), "True");
}

#[test]
fn conditions_and_cordoning_are_taints() {
    let mut case = Case::new(&[("a", Some("True"))]);
    case.world.edit::<Node>("", "a", |n| {
        n.spec.as_mut().unwrap().unschedulable = Some(true);
        let conditions = n.status.as_mut().unwrap().conditions.as_mut().unwrap();
        conditions.push(from(json!({"type": "DiskPressure", "status": "True"})));
    });
    case.settle("a");
    assert_eq!(case.taints("a"), ["disk-pressure:NoSchedule", "mine:NoSchedule", "unschedulable:NoSchedule"]);
}

#[test]
fn when_everything_is_gone_nothing_is_evicted() {
    let mut case = Case::new(&[("a", Some("True"))]);
    case.world.advance(60);
    case.settle("a");
    assert_eq!(case.taints("a"), ["mine:NoSchedule", "unreachable:NoSchedule"]);
}

#[test]
fn nodes_of_a_zone_are_tainted_one_after_the_other() {
    let mut case = Case::new(&[("a", Some("False")), ("b", Some("False")), ("c", Some("True")), ("d", Some("True"))]);
    case.settle("a");
    let plan = case.settle("b");
    assert!(case.taints("a").contains(&"not-ready:NoExecute".to_owned()));
    assert!(!case.taints("b").contains(&"not-ready:NoExecute".to_owned()));
    assert_eq!(plan.requeue_after.map(|d| d.as_secs()), Some(10), "0.1 nodes a second");
    case.world.now = at(case.world.now.as_second() + 10);
    case.settle("b");
    assert!(case.taints("b").contains(&"not-ready:NoExecute".to_owned()));
}

#[test]
fn a_small_zone_mostly_gone_is_left_alone() {
    let mut case = Case::new(&[("a", Some("False")), ("b", Some("False")), ("c", Some("False")), ("d", Some("True"))]);
    let plan = case.settle("a");
    assert!(!case.taints("a").contains(&"not-ready:NoExecute".to_owned()));
    assert!(!plan.actions().filter_map(Action::op).any(|op| matches!(op.verb, Verb::Delete(_))));
}

#[test]
fn nodes_are_counted_as_they_change() {
    let (rates, mut zones) = (Rates::of(&Config::default()), Zones::default());
    let see = |zones: &mut Zones, name: &str, ready: &str| zones.see(&node(name, Some(ready)), &rates);
    assert!(see(&mut zones, "a", "True"), "a first zone has a rate");
    assert!(!see(&mut zones, "a", "True") && !see(&mut zones, "b", "True") && !see(&mut zones, "c", "False"));
    assert!(!see(&mut zones, "d", "False"));
    assert!(see(&mut zones, "e", "False"), "more than half of a zone, and more than two, are gone");
    assert_eq!(zones.turn(&node("e", Some("False")), false, at(0)), Turn::Never);
    assert!(see(&mut zones, "e", "True"));
    assert_eq!(zones.turn(&node("c", Some("False")), false, at(0)), Turn::Now);
    assert_eq!(["a", "b", "c", "d"].map(|name| zones.forget(name, &rates)), [false; 4]);
    assert!(see(&mut zones, "e", "False"), "everything is gone");
    assert!(!zones.forget("never was", &rates));
}

/// Nodes of a zone, so many of which are well.
fn zone(name: &str, nodes: usize, well: usize) -> Vec<Node> {
    (0..nodes)
        .map(|n| {
            let mut node = node(&format!("{name}-{n}"), Some(if n < well { "True" } else { "Unknown" }));
            let labels = [("topology.kubernetes.io/zone".to_owned(), name.to_owned())];
            node.metadata.labels = Some(labels.into());
            node
        })
        .collect()
}

/// Seconds between the taints of two nodes of the first zone that are gone; none when it has none tainted at all.
fn gap(zones: &[Vec<Node>]) -> Option<u64> {
    let mut counted = Zones::default();
    for node in zones.iter().flatten() {
        counted.see(node, &Rates::of(&Config::default()));
    }
    let gone: Vec<&Node> = zones[0].iter().rev().take(2).collect();
    let now = at(1_000);
    match (counted.turn(gone[0], false, now), counted.turn(gone[1], false, now)) {
        (zones::Turn::Now, zones::Turn::Later(wait)) => Some(wait.as_secs()),
        (zones::Turn::Never, zones::Turn::Never) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_worse_a_zone_is_the_slower_its_nodes_lose_their_pods() {
    let well = || zone("well", 3, 3);
    assert_eq!(gap(&[zone("a", 100, 60), well()]), Some(10), "less than 55 of a hundred are gone");
    assert_eq!(gap(&[zone("a", 100, 45), well()]), Some(100), "55 are: 0.01 nodes a second in a large zone");
    assert_eq!(gap(&[zone("a", 51, 10), well()]), Some(100));
    assert_eq!(gap(&[zone("a", 50, 10), well()]), None, "and none in a small one");
    assert_eq!(gap(&[zone("a", 50, 0), well()]), Some(10), "a zone that is gone whole, while another is well");
    assert_eq!(gap(&[zone("a", 3, 1), well()]), Some(10), "two nodes are few, whatever their share");
    assert_eq!(gap(&[zone("a", 50, 0), zone("b", 7, 0)]), None, "everything is gone: rather the network is");
}

#[test]
fn who_has_the_taint_keeps_it_while_its_zone_is_ill_and_loses_it_when_everything_is() {
    let (ill, well, gone) = (zone("a", 50, 10), zone("b", 3, 3), zone("b", 3, 0));
    let (mut zones, rates, now) = (Zones::default(), Rates::of(&Config::default()), at(1_000));
    for node in ill.iter().chain(&well) {
        zones.see(node, &rates);
    }
    assert_eq!(zones.turn(&ill[49], true, now), zones::Turn::Now);
    assert!(!ill.iter().chain(&well).any(|node| zones.see(node, &rates)), "nothing is new");
    let dark = zone("a", 50, 0);
    for node in dark.iter().chain(&gone) {
        zones.see(node, &rates);
    }
    assert_eq!(zones.turn(&dark[49], true, now), zones::Turn::Never);
}
