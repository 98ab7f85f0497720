//! The collector against a small world of objects: background, foreground, orphan, circles, several owners, and
//! owners that no watch shows.

use std::collections::BTreeMap;

use client::{Action, PatchBody, Verb};
use kube::api::PropagationPolicy;
use serde_json::Value;

use super::graph::Item;
use super::*;

/// Objects by name; a name is its own uid. Deletes behave as the server's with its finalizers.
#[derive(Default)]
struct World {
    graph: Graph,
    objects: BTreeMap<String, Item>,
    queue: Vec<Wake>,
    deleted: Vec<String>,
    asked: usize,
    told: Vec<String>,
    looks_again: bool,
}

fn owner(name: &str, blocks: bool) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Thing".into(),
        name: name.into(),
        uid: name.into(),
        controller: None,
        block_owner_deletion: Some(blocks),
    }
}

impl World {
    fn put(&mut self, name: &str, owners: Vec<OwnerReference>) {
        self.put_in("ns", name, owners);
    }

    fn put_in(&mut self, namespace: &str, name: &str, owners: Vec<OwnerReference>) {
        let resource = Arc::new(kube::api::ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: "Thing".into(),
            plural: "things".into(),
        });
        let item = Item {
            resource,
            namespace: namespace.into(),
            name: name.into(),
            version: "1".into(),
            owners,
            finalizers: Vec::new(),
            deleting: false,
        };
        self.change(name, item);
    }

    fn change(&mut self, name: &str, item: Item) {
        if item.deleting && item.finalizers.is_empty() {
            self.objects.remove(name);
            self.deleted.push(name.to_owned());
            self.queue.extend(self.graph.deleted(name));
        } else {
            self.objects.insert(name.to_owned(), item.clone());
            self.queue.extend(self.graph.seen(name, item));
        }
    }

    fn delete(&mut self, name: &str, policy: PropagationPolicy) {
        let Some(mut item) = self.objects.get(name).cloned() else { return };
        let finalizer = match policy {
            PropagationPolicy::Orphan => Some(graph::ORPHAN),
            PropagationPolicy::Foreground => Some(graph::FOREGROUND),
            PropagationPolicy::Background => None,
        };
        item.finalizers.extend(finalizer.map(str::to_owned));
        item.deleting = true;
        self.change(name, item);
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            let Some(wake) = self.queue.pop() else { return };
            let mut asked = Asked::new();
            let plan = loop {
                match decide::next(&self.graph, &wake, &asked, |_| Some(true)) {
                    Next::Do(plan) => break plan,
                    Next::Ask { owner, namespace } => {
                        self.asked += 1;
                        let answer = self.look(&owner, &namespace);
                        if answer == Owner::Absent {
                            self.graph.owner_is_gone(Coordinates::of(&owner, &namespace));
                        }
                        asked.push((owner, answer));
                    }
                }
            };
            self.looks_again |= plan.requeue_after.is_some();
            plan.actions().for_each(|a| self.act(a));
        }
        panic!("does not settle");
    }

    /// As the server answers.
    fn look(&self, owner: &OwnerReference, namespace: &str) -> Owner {
        let named = self.objects.get(&owner.name).filter(|o| o.namespace == namespace && owner.kind == "Thing");
        match named.filter(|_| owner.name == owner.uid) {
            Some(found) if found.waits_for_dependents() => Owner::Waiting,
            Some(_) => Owner::Present,
            None => Owner::Absent,
        }
    }

    fn act(&mut self, action: &Action) {
        let op = match action {
            Action::Do(op) => op,
            Action::Event { reason, note, .. } => return self.told.push(format!("{reason}: {note}")),
            Action::Recorded { .. } => panic!("{action:?}"),
        };
        match &op.verb {
            Verb::Delete(deletion) => {
                self.delete(&op.target.name, deletion.propagation.clone().expect("always said"));
            }
            Verb::Patch { patch: PatchBody::Merge(body), .. } => {
                let Some(mut item) = self.objects.get(&op.target.name).cloned() else { return };
                let meta = &body["metadata"];
                let list = |v: &Value| serde_json::from_value(v.clone()).expect("owners");
                if meta["ownerReferences"].is_array() {
                    item.owners = list(&meta["ownerReferences"]);
                }
                if let Some(finalizers) = meta["finalizers"].as_array() {
                    item.finalizers = finalizers.iter().map(|f| f.as_str().expect("text").to_owned()).collect();
                }
                self.change(&op.target.name, item);
            }
            other => panic!("{other:?}"),
        }
    }

    fn names(&self) -> Vec<&str> {
        self.objects.keys().map(String::as_str).collect()
    }
}

#[test]
fn in_the_background_dependents_follow_their_owner() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.put("b", vec![owner("a", true)]);
    world.put("c", vec![owner("b", true)]);
    world.put("other", vec![]);
    world.settle();
    assert_eq!(world.asked, 0, "owners that are watched need no question");
    world.delete("a", PropagationPolicy::Background);
    world.settle();
    assert_eq!(world.names(), ["other"]);
}

#[test]
fn in_the_foreground_the_owner_goes_last() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.put("b", vec![owner("a", true)]);
    world.put("c", vec![owner("b", true)]);
    world.delete("a", PropagationPolicy::Foreground);
    world.settle();
    assert_eq!(world.deleted, ["c", "b", "a"]);
}

#[test]
fn a_dependent_that_does_not_block_is_not_waited_for() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.put("b", vec![owner("a", false)]);
    world.objects.get_mut("b").unwrap().finalizers.push("held".into());
    let held = world.objects["b"].clone();
    world.change("b", held);
    world.delete("a", PropagationPolicy::Foreground);
    world.settle();
    assert_eq!(world.names(), ["b"]);
    assert!(world.objects["b"].deleting);
}

#[test]
fn orphans_are_set_free_before_the_owner_goes() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.put("b", vec![owner("a", true)]);
    world.delete("a", PropagationPolicy::Orphan);
    world.settle();
    assert_eq!(world.names(), ["b"]);
    assert!(world.objects["b"].owners.is_empty() && !world.objects["b"].deleting);
}

#[test]
fn of_two_owners_one_is_enough() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.put("b", vec![]);
    world.put("c", vec![owner("a", true), owner("b", true)]);
    world.delete("a", PropagationPolicy::Foreground);
    world.settle();
    assert_eq!(world.names(), ["b", "c"]);
    assert_eq!(world.objects["c"].owners, vec![owner("b", true)]);
}

#[test]
fn a_circle_goes_as_a_whole() {
    for policy in [PropagationPolicy::Background, PropagationPolicy::Foreground] {
        let mut world = World::default();
        world.put("a", vec![owner("c", true)]);
        world.put("b", vec![owner("a", true)]);
        world.put("c", vec![owner("b", true)]);
        world.settle();
        assert_eq!(world.names().len(), 3);
        world.delete("a", policy);
        world.settle();
        assert!(world.names().is_empty(), "{:?}", world.names());
    }
}

#[test]
fn what_refers_to_an_owner_that_never_was_is_deleted() {
    let mut world = World::default();
    world.put("b", vec![owner("ghost", true)]);
    world.put("c", vec![owner("ghost", true)]);
    world.settle();
    assert!(world.names().is_empty());
    assert_eq!(world.asked, 1, "one question is enough for all its dependents");
}

#[test]
fn a_late_dependent_of_a_gone_owner_is_deleted_too() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.put("b", vec![owner("a", true)]);
    world.delete("a", PropagationPolicy::Background);
    world.settle();
    world.put("late", vec![owner("a", true)]);
    world.settle();
    assert!(world.names().is_empty());
}

#[test]
fn the_graph_forgets_what_is_gone() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.put("b", vec![owner("a", true)]);
    world.delete("a", PropagationPolicy::Foreground);
    world.settle();
    assert!(world.graph.is_empty());
}

#[test]
fn an_owner_that_a_list_leaves_out_is_asked_for_before_its_dependents_go() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.put("b", vec![owner("a", true)]);
    world.settle();
    // The server can't read it, or the list was of another moment: it is there.
    let wake = world.graph.missing("a");
    world.queue.extend(wake);
    world.settle();
    assert_eq!((world.names(), world.asked), (vec!["a", "b"], 1));
    world.objects.remove("a");
    world.put("c", vec![owner("a", true)]);
    let wake = world.graph.missing("a");
    world.queue.extend(wake);
    world.settle();
    assert!(world.names().is_empty(), "{:?}", world.names());
}

/// A ConfigMap elsewhere says that a Secret with the uid of a Deployment owns it.
#[test]
fn a_reference_with_a_right_uid_and_wrong_coordinates_says_nothing_of_who_has_the_uid() {
    let wrong: [fn(&mut OwnerReference); 4] =
        [|o| o.kind = "Secret".into(), |o| o.name = "x".into(), |o| o.api_version = "v2".into(), |_| {}];
    for (change, namespace) in wrong.iter().zip(["elsewhere", "ns", "ns", "elsewhere"]) {
        let mut world = World::default();
        world.put("a", vec![]);
        let mut reference = owner("a", true);
        change(&mut reference);
        world.put_in(namespace, "liar", vec![reference]);
        world.settle();
        assert!(!world.names().contains(&"liar") || namespace == "ns", "{:?}", world.names());
        world.put("b", vec![owner("a", true)]);
        world.settle();
        assert!(world.names().contains(&"b"));
        world.delete("a", PropagationPolicy::Foreground);
        world.settle();
        assert!(world.names().is_empty(), "{:?}", world.names());
        assert!(world.graph.is_empty());
    }
}

#[test]
fn an_owner_in_another_namespace_is_told_and_is_none() {
    for owner_first in [true, false] {
        let mut world = World::default();
        if owner_first {
            world.put("a", vec![]);
        }
        world.put_in("elsewhere", "b", vec![owner("a", true)]);
        world.put("a", vec![]);
        world.settle();
        assert_eq!(world.names(), ["a"]);
        let told = "OwnerRefInvalidNamespace: ownerRef [v1/Thing, namespace: elsewhere, name: a, uid: a] does not exist \
                    in namespace \"elsewhere\"";
        assert_eq!(world.told, [told]);
    }
}

#[test]
fn a_namespaced_owner_of_a_cluster_wide_object_is_told_and_changes_nothing() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.put_in("", "b", vec![owner("ghost", true), owner("a", true)]);
    world.settle();
    assert_eq!((world.names(), world.asked), (vec!["a", "b"], 0));
    assert_eq!(world.objects["b"].owners.len(), 2);
    assert_eq!(world.told.len(), 1, "{:?}", world.told);
}

#[test]
fn a_dependent_elsewhere_does_not_hold_the_deletion_up() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.put("keeper", vec![]);
    world.put_in("elsewhere", "b", vec![owner("a", true)]);
    world.objects.get_mut("b").unwrap().finalizers.push("held".into());
    let held = world.objects["b"].clone();
    world.change("b", held);
    world.delete("a", PropagationPolicy::Foreground);
    world.settle();
    assert_eq!(world.deleted, ["a"]);
}

/// The first one is being deleted already and never comes to ask.
#[test]
fn every_dependent_of_an_owner_that_was_not_seen_asks_for_itself() {
    let mut world = World::default();
    world.put("first", vec![owner("ghost", true)]);
    world.objects.get_mut("first").unwrap().finalizers.push("held".into());
    let held = world.objects["first"].clone();
    world.change("first", held);
    world.delete("first", PropagationPolicy::Background);
    world.put("second", vec![owner("ghost", true)]);
    world.settle();
    assert_eq!((world.names(), world.asked), (vec!["first"], 1));
}

#[test]
fn an_owner_that_no_watch_shows_is_looked_for_again() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.put("b", vec![owner("a", true)]);
    world.settle();
    assert!(!world.looks_again);
    world.queue.extend(world.graph.missing("a"));
    world.settle();
    assert!(world.looks_again);
}

#[test]
fn what_was_seen_after_all_is_not_gone() {
    let mut world = World::default();
    world.put("a", vec![]);
    world.graph.owner_is_gone(Coordinates::of(&owner("a", true), "ns"));
    let item = world.objects["a"].clone();
    world.change("a", item);
    world.put("b", vec![owner("a", true)]);
    world.settle();
    assert_eq!(world.names(), ["a", "b"]);
}
