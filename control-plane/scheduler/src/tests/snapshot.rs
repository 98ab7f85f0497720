//! The snapshot against a plain model of it, its slots over a long life, and its clones as simulations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{asking, cluster, decide, node, pod};
use crate::snapshot::Snapshot;

#[derive(Debug, Clone)]
enum Change {
    Node(usize, usize),
    Gone(usize),
    Place(usize, usize),
    Displace(usize),
    Nominate(usize, usize),
    Withdraw(usize),
}

const NODES: usize = 5;
const PODS: usize = 8;

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = prop_oneof![
        (0..NODES, 0..3usize).prop_map(|(n, images)| Change::Node(n, images)),
        (0..NODES).prop_map(Change::Gone),
        (0..PODS, 0..NODES).prop_map(|(p, n)| Change::Place(p, n)),
        (0..PODS).prop_map(Change::Displace),
        (0..PODS, 0..NODES).prop_map(|(p, n)| Change::Nominate(p, n)),
        (0..PODS).prop_map(Change::Withdraw),
    ];
    prop::collection::vec(one, 0..60)
}

fn with_images(n: usize) -> Value {
    let images: Vec<Value> = (0..n).map(|i| json!({"names": [format!("image-{i}")], "sizeBytes": 1})).collect();
    json!({"status": {"images": images}})
}

/// Who is where, by name.
#[derive(Debug, Default, PartialEq)]
struct Model {
    images: BTreeMap<String, usize>,
    placed: BTreeMap<String, String>,
    nominated: BTreeMap<String, String>,
}

impl Model {
    fn change(&mut self, snapshot: &mut Snapshot, change: &Change) {
        let (node_of, pod_of) = (|n: &usize| format!("n{n}"), |p: &usize| format!("p{p}"));
        match change {
            Change::Node(n, images) => {
                snapshot.set_node(&node(&node_of(n), with_images(*images)));
                self.images.insert(node_of(n), *images);
            }
            Change::Gone(n) => {
                snapshot.remove_node(&node_of(n));
                self.images.remove(&node_of(n));
            }
            Change::Place(p, n) => {
                snapshot.place(asking(&pod_of(p), "100m"), &node_of(n));
                self.placed.insert(pod_of(p), node_of(n));
                self.nominated.remove(&pod_of(p));
            }
            Change::Displace(p) => {
                let known = snapshot.displace(&pod_of(p)).is_some();
                assert_eq!(known, self.placed.remove(&pod_of(p)).is_some());
            }
            Change::Nominate(p, n) => {
                snapshot.nominate(pod(&pod_of(p), json!({})), &node_of(n));
                self.nominated.insert(pod_of(p), node_of(n));
            }
            Change::Withdraw(p) => {
                snapshot.withdraw(&pod_of(p));
                self.nominated.remove(&pod_of(p));
            }
        }
    }

    fn check(&self, snapshot: &Snapshot) {
        assert_eq!(snapshot.len(), self.images.len());
        assert_eq!(snapshot.len(), snapshot.nodes().count());
        let names: BTreeSet<&str> = snapshot.nodes().map(|n| n.name.as_str()).collect();
        assert_eq!(names, self.images.keys().map(String::as_str).collect());
        for p in (0..PODS).map(|p| format!("p{p}")) {
            assert_eq!(snapshot.place_of(&p), self.placed.get(&p).map(String::as_str));
            let nominated = self.nominated.get(&p).filter(|n| self.images.contains_key(*n));
            assert_eq!(snapshot.nomination(&p).map(|n| n.name.as_str()), nominated.map(String::as_str));
        }
        for node in snapshot.nodes() {
            let here = self.placed.values().filter(|n| **n == node.name).count();
            assert_eq!((node.pods.len(), node.requested.milli_cpu), (here, 100 * here as i64));
            let listed = snapshot.nodes_with("default").any(|n| n.name == node.name);
            assert_eq!(listed, here > 0);
        }
        for i in 0..3 {
            let holding = self.images.values().filter(|images| **images > i).count() as i64;
            assert_eq!(snapshot.image_nodes(&format!("image-{i}")), holding);
        }
        assert!(snapshot.slots().len() <= NODES, "no more slots than there were ever names at once");
    }
}

proptest! {
    /// Also: what happens to a clone is nothing to the original.
    #[test]
    fn any_order_of_changes_gives_what_a_plain_model_gives(before in changes(), after in changes()) {
        let (mut snapshot, mut model) = (Snapshot::default(), Model::default());
        for change in &before {
            model.change(&mut snapshot, change);
            model.check(&snapshot);
        }
        let clone = snapshot.clone();
        let mut other = Model { images: model.images.clone(), placed: model.placed.clone(), nominated: model.nominated.clone() };
        for change in &after {
            model.change(&mut snapshot, change);
        }
        model.check(&snapshot);
        other.check(&clone);
        let mut clone = clone;
        for change in &after {
            other.change(&mut clone, change);
        }
        other.check(&clone);
        prop_assert_eq!(other, model);
    }
}

#[test]
fn a_cluster_that_grows_and_shrinks_for_ever_needs_no_more_slots() {
    let mut snapshot = cluster(&[node("stays", json!({}))]);
    for i in 0..1000 {
        let (name, pod) = (format!("n{i}"), format!("p{i}"));
        snapshot.set_node(&node(&name, json!({})));
        snapshot.place(asking(&pod, "1"), &name);
        snapshot.nominate(asking("urgent", "1"), &name);
        snapshot.remove_node(&name);
        assert_eq!(snapshot.place_of(&pod), Some(&*name), "the pod is still there when its node is gone");
        snapshot.displace(&pod);
        snapshot.withdraw("urgent");
    }
    assert_eq!((snapshot.slots().len(), snapshot.len()), (2, 1));
}

#[test]
fn a_clone_shares_nodes_until_they_change() {
    let snapshot = cluster(&[node("a", json!({})), node("b", json!({}))]);
    let mut clone = snapshot.clone();
    clone.place(asking("p", "1"), "a");
    let shared = |slot: usize| Arc::ptr_eq(&snapshot.slots()[slot], &clone.slots()[slot]);
    assert_eq!((shared(0), shared(1)), (false, true));
}

#[test]
fn a_decision_on_a_clone_is_a_simulation() {
    let mut snapshot = cluster(&[node("a", json!({})), node("b", json!({}))]);
    snapshot.place(asking("idle", "3"), "a");
    snapshot.place(asking("busy", "3"), "b");
    let waiting = asking("waiting", "2");
    let full = "0/2 nodes are available: 2 Insufficient cpu.";
    assert_eq!(decide(&snapshot, &waiting), full);

    let mut one_more = snapshot.clone();
    one_more.set_node(&node("c", json!({})));
    assert_eq!(decide(&one_more, &waiting), "c", "another node would help");
    let mut too_small = snapshot.clone();
    too_small.set_node(&node("c", json!({"status": {"allocatable": {"cpu": "1"}}})));
    assert_eq!(decide(&too_small, &waiting), "0/3 nodes are available: 3 Insufficient cpu.");

    // Could node a be drained? Its pod would need room elsewhere.
    let mut drained = snapshot.clone();
    drained.remove_node("a");
    let idle = drained.displace("idle").unwrap();
    assert_eq!(decide(&drained, &idle), "0/1 nodes are available: 1 Insufficient cpu.");
    drained.displace("busy");
    assert_eq!(decide(&drained, &idle), "b");

    assert_eq!(decide(&snapshot, &waiting), full, "the original has seen nothing of it");
    assert_eq!((snapshot.len(), snapshot.place_of("idle"), snapshot.place_of("busy")), (2, Some("a"), Some("b")));
}
