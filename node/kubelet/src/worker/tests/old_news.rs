//! News of the runtime may be old: late, twice, in any order, from before this kubelet. Nobody who runs is killed for it.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[derive(Debug, Clone)]
enum Move {
    Perform { which: usize },
    Exit { which: usize, code: i32 },
    Wait,
    Late { which: usize },
    Again { which: usize },
    Restart { halfway: bool },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        10 => (0usize..8).prop_map(|which| Move::Perform { which }),
        2 => (0usize..4, 0i32..2).prop_map(|(which, code)| Move::Exit { which, code }),
        2 => Just(Move::Wait),
        5 => (0usize..256).prop_map(|which| Move::Late { which }),
        5 => (0usize..256).prop_map(|which| Move::Again { which }),
        1 => prop::bool::ANY.prop_map(|halfway| Move::Restart { halfway }),
    ];
    prop::collection::vec(one, 0..150)
}

impl World {
    /// Everyone whom a slot takes for its running instance runs, and nobody else does.
    fn check_who_runs(&self) {
        let thought = self.w().slots.iter().filter_map(|s| s.running()).map(|i| i.id.as_str());
        let real = self.containers.values().filter(|c| c.state == RunState::Running).map(|c| c.id.as_str());
        assert_eq!(thought.collect::<BTreeSet<_>>(), real.collect::<BTreeSet<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// No probe fails, no hook, no sandbox dies and nobody deletes the pod: then no word of the runtime, however old and
    /// however often it comes, has a container killed or removed that runs, and in the end everybody runs once.
    #[test]
    fn old_news_kills_no_successor(spec in super::laws::specs(), moves in moves(), says_who in prop::bool::ANY) {
        let mut spec = spec;
        spec["restartPolicy"] = json!("Always");
        let mut world = World::new(pod(spec.clone()));
        world.run = if says_who { world.run } else { String::new() };
        for step in moves {
            match step {
                Move::Perform { which } if !world.pending.is_empty() => {
                    let which = which % world.pending.len();
                    world.perform(which, true);
                }
                Move::Exit { which, code } => world.exit_one_of_those_that_run(which, code),
                Move::Wait => drop(world.wait()),
                Move::Late { which } if !world.seen.is_empty() => {
                    let containers = world.seen[which % world.seen.len()].clone();
                    world.feed(Event::Observed { sandbox: None, containers });
                }
                Move::Again { which } if !world.heard.is_empty() => {
                    let event = world.heard[which % world.heard.len()].clone();
                    world.feed(event);
                }
                Move::Restart { halfway } => world.restart(halfway),
                Move::Perform { .. } | Move::Late { .. } | Move::Again { .. } => {}
            }
            prop_assert!(world.kills.is_empty(), "killed: {:?}", world.kills);
        }
        let init = spec.get("initContainers").is_some();
        let wanted: BTreeSet<&str> = if init { ["a", "b", "s"].into() } else { ["a", "b"].into() };
        // Back-offs and probes pass.
        for _ in 0..400 {
            world.settle();
            if world.running() == wanted {
                break;
            }
            if world.running().contains("i1") {
                world.exit("i1", 0);
            }
            world.wait();
        }
        world.check_who_runs();
        prop_assert_eq!(world.running(), wanted);
        prop_assert!(world.kills.is_empty(), "killed: {:?}", world.kills);
    }
}

/// A pod whose container `c` was restarted once, and what the runtime had when it was made each time.
fn restarted() -> (World, [Vec<Instance>; 2]) {
    let mut world = World::new(pod(json!({"containers": [{"name": "c", "image": "i"}]})));
    world.settle();
    world.exit("c", 137);
    world.settle();
    let made = |restarts: u32| {
        let half = |i: &Instance| i.restarts == restarts && i.state == RunState::Created;
        world.seen.iter().find(|seen| seen.iter().any(half)).unwrap().clone()
    };
    let made = [made(0), made(1)];
    (world, made)
}

#[test]
fn a_late_word_that_a_container_was_made_does_not_kill_what_another_kubelet_left_running() {
    let (mut world, made) = restarted();
    world.restart(false);
    world.settle();
    for late in made {
        world.feed(Event::Observed { sandbox: None, containers: late });
        world.settle();
    }
    assert_eq!((world.running().len(), world.kills.len(), world.removed.len()), (1, 0, 0));
    assert_eq!(world.w().slot("c").unwrap().restarts(), 1);
    world.check_who_runs();
}

#[test]
fn a_container_that_failed_to_start_is_not_thought_alive_when_its_making_is_heard_of_late() {
    let mut world = World::new(pod(json!({"containers": [{"name": "c", "image": "i"}]})));
    let start = |w: &World| w.pending.iter().position(|a| matches!(a, Action::Start { .. }));
    while start(&world).is_none() {
        world.perform(0, true);
    }
    let made = world.instance("c", 0, "s0");
    let late = Instance { state: RunState::Created, started_at: None, ..made };
    world.perform(start(&world).unwrap(), false);
    world.wait();
    world.feed(Event::Observed { sandbox: None, containers: vec![late] });
    world.perform(start(&world).unwrap(), false);
    world.wait();
    world.settle();
    assert_eq!(world.running(), BTreeSet::from(["c"]), "tried again, however often");
}

#[test]
fn a_container_that_was_lost_keeps_its_number() {
    let (mut world, _) = restarted();
    world.containers.clear();
    let id = world.w().slot("c").unwrap().current.as_ref().unwrap().id.clone();
    // Its liveness probe failed, and the runtime knows nothing of it when it is to be killed.
    let mut worker = world.worker.take().unwrap();
    worker.slots[0].to_kill = Some(Kill { message: "m".into(), grace: None });
    world.worker = Some(worker);
    world.feed(Event::Tick);
    let kill = world.pending.iter().position(|a| matches!(a, Action::Kill { .. })).unwrap();
    world.perform(kill, true);
    for _ in 0..3 {
        world.settle();
        world.wait();
    }
    let slot = world.w().slot("c").unwrap();
    assert_eq!(slot.restarts(), 2, "the next one is not the first again");
    assert_eq!(slot.last.as_ref().map(|l| l.id.as_str()), Some(id.as_str()));
}

#[test]
fn an_image_that_was_pulled_for_another_definition_is_not_run() {
    let mut world = World::new(pod(json!({"containers": [{"name": "c", "image": "old"}]})));
    let pull = |w: &World| w.pending.iter().position(|a| matches!(a, Action::Pull { .. }));
    let mut changed = Pod::clone(&world.w().pod);
    changed.spec.as_mut().unwrap().containers[0].image = Some("new".into());
    let old = pull(&world).unwrap();
    world.feed(Event::Spec(Arc::new(changed)));
    world.perform(old, true);
    let asked =
        world.pending.iter().find_map(|a| if let Action::Pull { image, .. } = a { Some(image.as_str()) } else { None });
    assert_eq!(asked, Some("new"));
    world.settle();
    assert_eq!(world.running(), BTreeSet::from(["c"]));
}
