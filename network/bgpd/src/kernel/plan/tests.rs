//! Whatever happens to the kernel's table, told or not: after a list there is what is wanted, and nobody else's route was
//! touched.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use linux::netlink::RouteKind;
use proptest::prelude::*;

use super::*;
use crate::kernel::wish::{Target, Way};

type Key = (Prefix, u32);

/// A table, as the kernel has it: one route for a prefix and a metric.
#[derive(Default)]
struct World {
    ours: BTreeMap<Key, Arc<Shape>>,
    others: BTreeMap<Key, ()>,
    /// The shape of each wish, by its number.
    shapes: HashMap<Arc<Wish>, Option<Arc<Shape>>>,
}

impl Surroundings for World {
    fn shape(&self, wish: &Arc<Wish>) -> Option<Arc<Shape>> {
        self.shapes.get(wish).cloned().flatten()
    }

    fn is_taken(&self, prefix: &Prefix, metric: u32) -> bool {
        self.others.contains_key(&(*prefix, metric))
    }
}

impl World {
    fn found(&self) -> Vec<Found> {
        let found = |((prefix, metric), shape): (&Key, &Arc<Shape>)| Found {
            prefix: *prefix,
            metric: *metric,
            shape: shape.clone(),
        };
        self.ours.iter().map(found).collect()
    }

    /// What the kernel does; whether it did.
    fn make(&mut self, change: &Change) -> bool {
        let key = (change.prefix, change.metric);
        match &change.step {
            Step::Add(_) if self.ours.contains_key(&key) || self.others.contains_key(&key) => return false,
            Step::Add(shape) => drop(self.ours.insert(key, shape.clone())),
            Step::Replace(shape) => {
                assert!(!self.others.contains_key(&key), "{change:?} would take another's place");
                self.ours.insert(key, shape.clone());
            }
            Step::Delete => drop(self.ours.remove(&key)),
        }
        true
    }

    fn has(&self, prefix: Prefix) -> bool {
        self.ours.keys().any(|(known, _)| *known == prefix)
    }

    /// Carries out all there is to do. A prefix that had a route and shall have one is never without.
    fn settle(&mut self, plan: &mut Plan) {
        while plan.is_dirty() {
            let changes = plan.changes(3, self);
            let before: HashMap<Prefix, bool> = changes.iter().map(|c| (c.prefix, self.has(c.prefix))).collect();
            let mut gaps = Vec::new();
            for change in &changes {
                if !self.make(change) {
                    plan.refused(change);
                }
                if before[&change.prefix] && !self.has(change.prefix) {
                    gaps.push(change.prefix);
                }
            }
            for prefix in gaps {
                assert!(!self.has(prefix), "{prefix} was without a route for a while: {changes:?}");
            }
        }
    }
}

fn prefix(n: u8) -> Prefix {
    let text = if n.is_multiple_of(2) { format!("10.{n}.0.0/16") } else { format!("fd00:{n}::/32") };
    text.parse().unwrap()
}

/// A wish of this number: metrics and targets repeat.
fn wish(n: u8) -> Arc<Wish> {
    let hop = crate::kernel::Hop::new(IpAddr::from([192, 0, 2, n]));
    Arc::new(Wish { metric: u32::from(n % 2) * 10, target: Target::Hops(vec![hop]) })
}

fn shape(n: u8) -> Arc<Shape> {
    let way = Way { gateway: Some("fd00::1".parse().unwrap()), link: u32::from(n) + 1, onlink: false, weight: 1 };
    Arc::new(match n {
        0 => Shape::reject(RouteKind::Blackhole),
        n => Shape::by([way, Way { link: u32::from(n) + 2, ..way }]).unwrap(),
    })
}

#[derive(Clone, Debug)]
enum Op {
    Want(u8, Option<u8>),
    /// A wish takes another shape, or none.
    Reshape(u8, Option<u8>),
    /// Somebody removes a route of ours; told or not.
    Remove(u8, bool),
    /// Somebody puts one of ours, of any metric.
    Put(u8, u32, u8, bool),
    /// Another protocol's, which takes the place of ours if it has to.
    Other(u8, u32, bool),
    OtherGone(u8, u32, bool),
    List,
    Loaded,
    Settle,
}

fn metric() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![1, 10, 99])
}

fn op() -> impl Strategy<Value = Op> {
    let (p, w) = (0..6_u8, 0..4_u8);
    prop_oneof![
        4 => (p.clone(), prop::option::weighted(0.7, w.clone())).prop_map(|(p, w)| Op::Want(p, w)),
        1 => (w.clone(), prop::option::weighted(0.8, w.clone())).prop_map(|(w, s)| Op::Reshape(w, s)),
        2 => (p.clone(), any::<bool>()).prop_map(|(p, told)| Op::Remove(p, told)),
        1 => (p.clone(), metric(), w, any::<bool>()).prop_map(|(p, m, s, told)| Op::Put(p, m, s, told)),
        1 => (p.clone(), metric(), any::<bool>()).prop_map(|(p, m, told)| Op::Other(p, m, told)),
        1 => (p, metric(), any::<bool>()).prop_map(|(p, m, told)| Op::OtherGone(p, m, told)),
        1 => Just(Op::List),
        1 => Just(Op::Loaded),
        3 => Just(Op::Settle),
    ]
}

/// Does one thing to the world and tells the plan, and keeps what is wanted.
fn happen(op: Op, world: &mut World, plan: &mut Plan, wanted: &mut BTreeMap<Prefix, Arc<Wish>>) {
    match op {
        Op::Want(p, w) => {
            plan.want(prefix(p), w.map(wish));
            match w {
                Some(w) => drop(wanted.insert(prefix(p), wish(w))),
                None => drop(wanted.remove(&prefix(p))),
            }
        }
        Op::Reshape(w, s) => {
            world.shapes.insert(wish(w), s.map(shape));
            plan.reshape(&HashSet::from([wish(w)]));
        }
        Op::Remove(p, told) => {
            let keys: Vec<Key> = world.ours.keys().filter(|(known, _)| *known == prefix(p)).copied().collect();
            for key in keys {
                world.ours.remove(&key);
                if told {
                    plan.removed(key.0, key.1);
                }
            }
        }
        Op::Put(p, m, s, told) => {
            let key = (prefix(p), m);
            if !world.others.contains_key(&key) {
                world.ours.insert(key, shape(s));
                if told {
                    plan.put(Found { prefix: key.0, metric: m, shape: shape(s) });
                }
            }
        }
        Op::Other(p, m, told) => {
            let key = (prefix(p), m);
            world.ours.remove(&key);
            world.others.insert(key, ());
            // Whoever replaces a route knows the table: without the news there is a list before anything is written.
            if told {
                plan.removed(key.0, m);
                plan.others_changed(key.0);
            } else {
                plan.list(world.found());
            }
        }
        Op::OtherGone(p, m, told) => {
            if world.others.remove(&(prefix(p), m)).is_some() && told {
                plan.others_changed(prefix(p));
            }
        }
        Op::List => plan.list(world.found()),
        Op::Loaded => plan.loaded(),
        Op::Settle => world.settle(plan),
    }
}

fn start(found: &[(u8, u32, u8)]) -> (World, Plan) {
    let mut world = World::default();
    for n in 0..4 {
        world.shapes.insert(wish(n), Some(shape(n)));
    }
    for (p, m, s) in found {
        world.ours.insert((prefix(*p), *m), shape(*s));
    }
    let mut plan = Plan::default();
    plan.list(world.found());
    (world, plan)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn in_the_end_there_is_what_is_wanted(
        found in prop::collection::vec((0..6_u8, metric(), 0..4_u8), 0..5),
        ops in prop::collection::vec(op(), 0..40),
    ) {
        let (mut world, mut plan) = start(&found);
        let mut wanted = BTreeMap::new();
        for op in ops {
            happen(op, &mut world, &mut plan, &mut wanted);
        }
        plan.loaded();
        plan.list(world.found());
        world.settle(&mut plan);
        let mut expected = BTreeMap::new();
        for (prefix, wish) in &wanted {
            let key = (*prefix, wish.metric.max(1));
            if let Some(shape) = world.shape(wish)
                && !world.others.contains_key(&key)
            {
                expected.insert(key, shape);
            }
        }
        prop_assert_eq!(&world.ours, &expected);
        let [number, there, kept, refused] = plan.counts();
        let missing = wanted.values().filter(|wish| world.shape(wish).is_none()).count();
        prop_assert_eq!([number, there, kept], [wanted.len(), expected.len(), 0]);
        prop_assert_eq!(refused, wanted.len() - expected.len() - missing);
        plan.clear();
        world.settle(&mut plan);
        prop_assert!(world.ours.is_empty() && plan.entries.is_empty());
    }

    /// Until the end of the restart nothing that was found goes, unless it is said to go.
    #[test]
    fn what_is_found_at_the_start_is_kept(
        found in prop::collection::btree_map(0..6_u8, 0..4_u8, 1..6),
        wishes in prop::collection::vec((0..6_u8, 0..4_u8), 0..10),
    ) {
        let found: Vec<(u8, u32, u8)> = found.into_iter().map(|(p, s)| (p, 1, s)).collect();
        let (mut world, mut plan) = start(&found);
        for (p, w) in wishes {
            plan.want(prefix(p), Some(wish(w)));
            world.settle(&mut plan);
            for (p, ..) in &found {
                prop_assert!(world.has(prefix(*p)));
            }
        }
    }
}

#[test]
fn a_route_that_is_right_is_not_written_again() {
    let (mut world, mut plan) = start(&[(0, 1, 0), (1, 10, 1)]);
    plan.want(prefix(0), Some(wish(0)));
    plan.want(prefix(1), Some(wish(1)));
    assert_eq!(plan.counts(), [2, 2, 2, 0]);
    assert_eq!(plan.changes(10, &world), []);
    assert_eq!(plan.counts(), [2, 2, 0, 0]);
    plan.loaded();
    plan.list(world.found());
    assert_eq!(plan.changes(10, &world), []);
    // Another shape takes its place; another metric is there before the old one goes.
    world.shapes.insert(wish(0), Some(shape(3)));
    plan.reshape(&HashSet::from([wish(0)]));
    let replaced = Change { prefix: prefix(0), metric: 1, step: Step::Replace(shape(3)) };
    assert_eq!(plan.changes(10, &world), [replaced]);
    plan.want(prefix(0), Some(wish(1)));
    let added = Change { prefix: prefix(0), metric: 10, step: Step::Add(shape(1)) };
    assert_eq!(plan.changes(10, &world), [added, Change { prefix: prefix(0), metric: 1, step: Step::Delete }]);
}
