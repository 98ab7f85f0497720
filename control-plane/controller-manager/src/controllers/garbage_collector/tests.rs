//! The collector against a small world of objects: background, foreground, orphan, circles, several owners, and
//! owners that no watch shows.

use std::collections::BTreeMap;

use client::{Action, PatchBody};
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
        let resource = Arc::new(kube::api::ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: "Thing".into(),
            plural: "things".into(),
        });
        let item = Item {
            resource,
            namespace: "ns".into(),
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
            let mut asked = HashMap::new();
            let plan = loop {
                match decide::next(&self.graph, &wake, &asked, |_| Some(true)) {
                    Next::Do(plan) => break plan,
                    Next::Ask { owner, .. } => {
                        self.asked += 1;
                        let found = self.objects.contains_key(&owner.uid);
                        if !found {
                            self.queue.extend(self.graph.owner_is_gone(&owner.uid));
                        }
                        asked.insert(owner.uid, if found { Owner::Present } else { Owner::Absent });
                    }
                }
            };
            plan.actions.iter().for_each(|a| self.act(a));
        }
        panic!("does not settle");
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Together(all) => all.iter().for_each(|a| self.act(a)),
            Action::Delete { target, propagation, .. } => {
                self.delete(&target.name, propagation.clone().expect("always said"));
            }
            Action::Patch { target, patch: PatchBody::Merge(body), .. } => {
                let Some(mut item) = self.objects.get(&target.name).cloned() else { return };
                let meta = &body["metadata"];
                let list = |v: &Value| serde_json::from_value(v.clone()).expect("owners");
                if meta["ownerReferences"].is_array() {
                    item.owners = list(&meta["ownerReferences"]);
                }
                if let Some(finalizers) = meta["finalizers"].as_array() {
                    item.finalizers = finalizers.iter().map(|f| f.as_str().expect("text").to_owned()).collect();
                }
                self.change(&target.name.clone(), item);
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
