//! What holds whatever happens in whatever order.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Clone)]
enum Move {
    Perform {
        which: usize,
        good: bool,
    },
    Exit {
        which: usize,
        code: i32,
    },
    Wait,
    KillSandbox,
    Delete {
        grace: i64,
    },
    ForceDelete,
    Touch,
    /// A list of the runtime, or an event, that was taken some time ago.
    Late {
        which: usize,
    },
    /// An answer or event once more.
    Again {
        which: usize,
    },
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
        3 => (0usize..64).prop_map(|which| Move::Late { which }),
        2 => (0usize..256).prop_map(|which| Move::Again { which }),
    ];
    prop::collection::vec(one, 0..120)
}

pub(super) fn specs() -> impl Strategy<Value = Value> {
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
    /// pod is forgotten nothing of it is left. So it is with a runtime that leaves out who made a container.
    #[test]
    fn any_order_of_events_keeps_the_laws(spec in specs(), moves in moves(), says_who in prop::bool::ANY) {
        let mut world = World::new(pod(spec));
        world.run = if says_who { world.run } else { String::new() };
        for step in moves {
            if world.worker.is_none() {
                break;
            }
            match step {
                Move::Perform { which, good } if !world.pending.is_empty() => {
                    let which = which % world.pending.len();
                    world.perform(which, good);
                }
                Move::Exit { which, code } => world.exit_one_of_those_that_run(which, code),
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
                    let same = world.in_the_api();
                    world.feed(Event::Spec(Arc::new(same)));
                }
                Move::Late { which } if !world.seen.is_empty() => {
                    let containers = world.seen[which % world.seen.len()].clone();
                    world.feed(Event::Observed { sandbox: None, containers });
                }
                Move::Again { which } if !world.heard.is_empty() => {
                    let event = world.heard[which % world.heard.len()].clone();
                    world.feed(event);
                }
                Move::Perform { .. } | Move::Late { .. } | Move::Again { .. } => {}
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
