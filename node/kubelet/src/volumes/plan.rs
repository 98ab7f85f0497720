//! What is to be done so that the volumes of this node are as they should be: desired and actual state in, operations out.
//! Pure: time is an argument, and [`super::manager`] runs what comes out.
//!
//! Desired is what somebody said of a pod: it is to have these volumes, or nothing any more. Actual is what lies on the
//! disk, as far as it is known: after a crash it is read from there and everything in it is uncertain. What nobody spoke of
//! is left alone, so a kubelet that starts takes nothing from pods whose objects are still to come.
//!
//! ```text
//!  desired      actual                                operations, in this order
//!  volumes      nothing, or uncertain                 SetUp
//!  volumes      ready, files older than their objects Refresh, at once; a minute after one that failed
//!  volumes      ready, a token is old                 Refresh
//!  volumes      ready                                 -
//!  nothing      something                             Unbind subpaths, TearDown each volume, RemoveDir
//!  nothing      nothing                               -  (and the pod is forgotten)
//!  not said     anything                              -
//! ```
//!
//! Whoever runs them may stop after any operation, or in the middle of one, and ask again: an operation is idempotent, and
//! what was cut off is uncertain. A volume that is first made known to the whole node (attach, stage) gets a state of its
//! own beside those of pods and its operations before the SetUp of the first pod and after the TearDown of the last.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// How soon files that could not be brought up to date are tried again, when nothing changes before that.
pub const REFRESH_RETRY: SignedDuration = SignedDuration::from_secs(60);

/// One volume of a pod: its name, and in which directory of the pod's `volumes/` it lies. None for what lies elsewhere: it
/// is set up, and nothing of it is there to be torn down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub directory: Option<String>,
    pub name: String,
}

/// What is in a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// What the pod or the host put there.
    Theirs,
    /// Files that the kubelet makes from objects and tokens, again whenever these change.
    Files,
}

/// What is wanted of a pod's volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Volumes {
        volumes: BTreeMap<Key, Content>,
        /// Counts what files are made of: each change of an object, a label or an annotation adds one.
        revision: u64,
    },
    /// The pod has ended.
    Nothing,
}

/// By pod UID.
pub type Desired = BTreeMap<String, Wanted>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Something is there, maybe whole and maybe not: from a former life, or a try that failed or was cut off.
    Uncertain,
    Ready {
        /// Of what its files were made of.
        revision: u64,
        /// When a token in it wants to be replaced.
        until: Option<Timestamp>,
    },
}

/// What a pod has on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodDir {
    pub volumes: BTreeMap<Key, State>,
    /// Parts of volumes may be bound to places of their own, for containers that mount a subpath.
    pub subpaths: bool,
    /// Files of this revision could not be made; no sooner again than that.
    pub failed: Option<(u64, Timestamp)>,
}

/// By pod UID.
pub type Actual = BTreeMap<String, PodDir>;

/// One thing to do, of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    SetUp(Key),
    /// Write the files of a volume that is set up anew.
    Refresh(Key),
    /// Take away what is bound for subpaths: it holds the volumes.
    Unbind,
    TearDown(Key),
    /// Remove the pod's directory and what else is in it.
    RemoveDir,
}

/// What is to be done now for one pod, in its order. Pods don't wait for one another.
pub fn plan(wanted: &Wanted, found: Option<&PodDir>, now: Timestamp) -> Vec<Op> {
    let Wanted::Volumes { volumes, revision } = wanted else { return found.map(remove).unwrap_or_default() };
    let nothing = PodDir::default();
    let dir = found.unwrap_or(&nothing);
    let waits = dir.is_whole(volumes) && dir.waits_for(*revision).is_some_and(|at| now < at);
    let one = |(key, content): (&Key, &Content)| match dir.volumes.get(key) {
        None | Some(State::Uncertain) => Some(Op::SetUp(key.clone())),
        Some(ready) if *content == Content::Files && !waits && ready.is_old(*revision, now) => {
            Some(Op::Refresh(key.clone()))
        }
        Some(_) => None,
    };
    volumes.iter().filter_map(one).collect()
}

/// From above to below: a bind holds its volume, and the directory goes when no volume is in it.
fn remove(dir: &PodDir) -> Vec<Op> {
    let unbind = dir.subpaths.then_some(Op::Unbind);
    let volumes = dir.volumes.keys().filter(|key| key.directory.is_some()).cloned().map(Op::TearDown);
    unbind.into_iter().chain(volumes).chain([Op::RemoveDir]).collect()
}

/// The pods that have all their volumes, and when their files want to be brought up to date. Of a pod that lacks one,
/// whoever wants it to have them asks again by himself.
pub fn refreshes<'a>(desired: &'a Desired, actual: &'a Actual) -> impl Iterator<Item = (Timestamp, &'a str)> {
    desired.iter().filter_map(|(pod, wanted)| {
        let Wanted::Volumes { volumes, revision } = wanted else { return None };
        let dir = actual.get(pod).filter(|dir| dir.is_whole(volumes))?;
        let files = volumes.iter().filter(|(_, content)| **content == Content::Files);
        let due = files.filter_map(|(key, _)| match dir.volumes.get(key)? {
            State::Ready { revision: made, .. } if made < revision => Some(Timestamp::MIN),
            State::Ready { until, .. } => *until,
            State::Uncertain => None,
        });
        let due = due.min()?;
        Some((dir.waits_for(*revision).map_or(due, |at| at.max(due)), pod.as_str()))
    })
}

impl State {
    fn is_old(&self, wanted: u64, now: Timestamp) -> bool {
        match self {
            State::Ready { revision, until } => *revision < wanted || until.is_some_and(|at| at <= now),
            State::Uncertain => true,
        }
    }
}

impl PodDir {
    fn is_whole(&self, volumes: &BTreeMap<Key, Content>) -> bool {
        volumes.keys().all(|key| matches!(self.volumes.get(key), Some(State::Ready { .. })))
    }

    /// What failed may go as soon as something changes.
    fn waits_for(&self, revision: u64) -> Option<Timestamp> {
        self.failed.filter(|(failed, _)| *failed == revision).map(|(_, at)| at)
    }
}

/// The operation begins: from now on the disk may have any part of it.
pub fn begin(actual: &mut Actual, pod: &str, op: &Op) {
    if let Op::SetUp(key) = op {
        actual.entry(pod.to_owned()).or_default().volumes.insert(key.clone(), State::Uncertain);
    }
}

/// The operation was done. `revision` is what files were made of, `until` when a token of theirs wants to be replaced: a
/// server that would not give a new one is not asked again at once.
pub fn done(actual: &mut Actual, pod: &str, op: Op, revision: u64, until: Option<Timestamp>, now: Timestamp) {
    let Op::RemoveDir = op else {
        let dir = actual.entry(pod.to_owned()).or_default();
        match op {
            Op::SetUp(key) | Op::Refresh(key) => {
                let until = until.map(|at| if at <= now { later(now) } else { at });
                dir.volumes.insert(key, State::Ready { revision, until });
                dir.failed = None;
            }
            Op::Unbind => dir.subpaths = false,
            Op::TearDown(key) => drop(dir.volumes.remove(&key)),
            Op::RemoveDir => {}
        }
        return;
    };
    actual.remove(pod);
}

/// The pod's files could not be made.
pub fn failed(actual: &mut Actual, pod: &str, revision: u64, now: Timestamp) {
    actual.entry(pod.to_owned()).or_default().failed = Some((revision, later(now)));
}

fn later(now: Timestamp) -> Timestamp {
    now.saturating_add(REFRESH_RETRY).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What is to be done for each pod.
    fn plan_all(desired: &Desired, actual: &Actual, now: Timestamp) -> Vec<(String, Op)> {
        let of = |(pod, wanted): (&String, &Wanted)| {
            plan(wanted, actual.get(pod), now).into_iter().map(|op| (pod.clone(), op)).collect::<Vec<_>>()
        };
        desired.iter().flat_map(of).collect()
    }

    /// What really lies on the disk: more than the kubelet knows, and all that is left after a crash.
    #[derive(Debug, Clone, Default, PartialEq)]
    struct OnDisk {
        /// Volumes, and of which revision their files are (0 for a set-up that was cut off).
        volumes: BTreeMap<Key, u64>,
        subpaths: bool,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Want(usize),
        End(usize),
        Change(usize),
        /// A container of the pod mounts a subpath.
        Bind(usize),
        Wait(i64),
        /// Runs so many operations of one plan; the last one is cut off in the middle, or fails.
        Run(usize, bool),
        /// The kubelet dies: what it knew is gone, the disk stays.
        Crash,
    }

    const PODS: [&str; 3] = ["a", "b", "c"];

    struct World {
        desired: Desired,
        actual: Actual,
        disk: BTreeMap<String, OnDisk>,
        now: Timestamp,
        /// Pods that live, and how often their objects changed: what is told again after a crash.
        live: BTreeMap<String, u64>,
        ended: BTreeSet<String>,
    }

    fn key(directory: Option<&str>, name: &str) -> Key {
        Key { directory: directory.map(str::to_owned), name: name.to_owned() }
    }

    fn volumes() -> BTreeMap<Key, Content> {
        BTreeMap::from([
            (key(Some("kubernetes.io~empty-dir"), "e"), Content::Theirs),
            (key(Some("kubernetes.io~secret"), "s"), Content::Files),
            (key(None, "h"), Content::Theirs),
        ])
    }

    impl World {
        fn new() -> World {
            World {
                desired: Desired::new(),
                actual: Actual::new(),
                disk: BTreeMap::new(),
                now: Timestamp::from_second(1_700_000_000).unwrap(),
                live: BTreeMap::new(),
                ended: BTreeSet::new(),
            }
        }

        fn say(&mut self, pod: &str) {
            let wanted = match self.live.get(pod) {
                Some(revision) => Wanted::Volumes { volumes: volumes(), revision: *revision },
                None => Wanted::Nothing,
            };
            self.desired.insert(pod.to_owned(), wanted);
        }

        fn step(&mut self, step: &Step) {
            match step {
                Step::Want(i) if !self.ended.contains(PODS[*i]) => {
                    self.live.entry(PODS[*i].to_owned()).or_insert(1);
                    self.say(PODS[*i]);
                }
                Step::End(i) if self.live.remove(PODS[*i]).is_some() => {
                    self.ended.insert(PODS[*i].to_owned());
                    // As the manager does: what lies there is read anew, for containers left things.
                    self.scan(PODS[*i]);
                    self.say(PODS[*i]);
                }
                Step::Change(i) => {
                    if let Some(revision) = self.live.get_mut(PODS[*i]) {
                        *revision += 1;
                        self.say(PODS[*i]);
                    }
                }
                Step::Bind(i) if self.live.contains_key(PODS[*i]) => {
                    if let Some(disk) = self.disk.get_mut(PODS[*i]) {
                        disk.subpaths = true;
                    }
                }
                Step::Wait(seconds) => self.now += SignedDuration::from_secs(*seconds),
                Step::Run(many, cut) => self.run(*many, *cut),
                Step::Crash => {
                    self.actual.clear();
                    self.desired.clear();
                    for pod in PODS {
                        self.scan(pod);
                    }
                }
                Step::Want(_) | Step::End(_) | Step::Bind(_) => {}
            }
        }

        /// What `scan` does on a real disk.
        fn scan(&mut self, pod: &str) {
            self.actual.remove(pod);
            let Some(disk) = self.disk.get(pod) else { return };
            let lies = disk.volumes.keys().filter(|key| key.directory.is_some());
            let volumes = lies.map(|key| (key.clone(), State::Uncertain)).collect();
            self.actual.insert(pod.to_owned(), PodDir { volumes, subpaths: disk.subpaths, failed: None });
        }

        fn run(&mut self, many: usize, cut: bool) {
            let ops = plan_all(&self.desired, &self.actual, self.now);
            let last = many.min(ops.len());
            for (n, (pod, op)) in ops.into_iter().take(many).enumerate() {
                let whole = !cut || n + 1 < last;
                begin(&mut self.actual, &pod, &op);
                let revision = self.live.get(&pod).copied().unwrap_or(0);
                self.perform(&pod, &op, if whole { revision } else { 0 }, whole);
                if whole {
                    done(&mut self.actual, &pod, op, revision, None, self.now);
                } else {
                    failed(&mut self.actual, &pod, revision, self.now);
                }
            }
        }

        /// The disk after an operation, or after half of it; and the laws.
        fn perform(&mut self, pod: &str, op: &Op, revision: u64, whole: bool) {
            let takes = !matches!(op, Op::SetUp(_) | Op::Refresh(_));
            assert!(!(takes && self.live.contains_key(pod)), "{op:?} of {pod}, which lives");
            assert!(takes || self.live.contains_key(pod), "{op:?} of {pod}, which ended");
            let disk = self.disk.entry(pod.to_owned()).or_default();
            match op {
                Op::SetUp(key) => {
                    // Only files are made of something that changes.
                    let files = volumes().get(key) == Some(&Content::Files);
                    disk.volumes.insert(key.clone(), if files { revision } else { 1 });
                }
                Op::Refresh(key) => {
                    let made = disk.volumes.get_mut(key).expect("only what is set up is refreshed");
                    *made = if whole { revision } else { *made };
                }
                Op::Unbind => disk.subpaths &= !whole,
                Op::TearDown(key) => {
                    assert!(!disk.subpaths, "{key:?} goes before what is bound to it");
                    if whole {
                        disk.volumes.remove(key);
                    }
                }
                Op::RemoveDir => {
                    let left = disk.volumes.keys().any(|key| key.directory.is_some());
                    assert!(!left && !disk.subpaths, "the directory goes before what is in it: {disk:?}");
                    if whole {
                        self.disk.remove(pod);
                    }
                }
            }
        }

        /// Everybody says again what they want, and nothing is cut off any more.
        fn settle(&mut self) {
            for pod in PODS {
                if self.live.contains_key(pod) || self.ended.contains(pod) {
                    self.say(pod);
                }
            }
            for _ in 0..3 {
                self.run(usize::MAX, false);
                self.now += REFRESH_RETRY;
            }
            assert_eq!(
                plan_all(&self.desired, &self.actual, self.now),
                [],
                "it converges, and then there is nothing to do"
            );
            let wanted: BTreeSet<&String> = self.live.keys().collect();
            assert_eq!(self.disk.keys().collect::<BTreeSet<_>>(), wanted);
            for (pod, disk) in &self.disk {
                assert_eq!(disk.volumes.keys().cloned().collect::<Vec<_>>(), volumes().into_keys().collect::<Vec<_>>());
                assert_eq!(
                    disk.volumes[&key(Some("kubernetes.io~secret"), "s")],
                    self.live[pod],
                    "files are the newest"
                );
            }
        }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let pod = 0..PODS.len();
        let one = prop_oneof![
            pod.clone().prop_map(Step::Want),
            pod.clone().prop_map(Step::End),
            pod.clone().prop_map(Step::Change),
            pod.prop_map(Step::Bind),
            (0i64..90).prop_map(Step::Wait),
            (0usize..6, any::<bool>()).prop_map(|(many, cut)| Step::Run(many, cut)),
            Just(Step::Crash),
        ];
        proptest::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn whatever_happens_and_wherever_it_is_cut_off_the_disk_becomes_what_is_wanted(steps in steps()) {
            let mut world = World::new();
            for step in &steps {
                world.step(step);
            }
            world.settle();
            let disk = world.disk.clone();
            world.step(&Step::Crash);
            world.settle();
            prop_assert_eq!(world.disk, disk, "a kubelet that starts again changes nothing");
        }
    }

    #[test]
    fn what_nobody_spoke_of_is_left_alone() {
        let mut world = World::new();
        world.step(&Step::Want(0));
        world.run(usize::MAX, false);
        world.step(&Step::Crash);
        assert_eq!(plan_all(&world.desired, &world.actual, world.now), [], "the pod's object is still to come");
    }

    #[test]
    fn a_token_wakes_when_it_wants_to_be_replaced_and_not_before() {
        let mut world = World::new();
        world.step(&Step::Want(0));
        let secret = key(Some("kubernetes.io~secret"), "s");
        let hour = world.now + SignedDuration::from_hours(1);
        for key in volumes().into_keys() {
            done(&mut world.actual, "a", Op::SetUp(key), 1, Some(hour), world.now);
        }
        let next = |world: &World| refreshes(&world.desired, &world.actual).map(|(at, _)| at).next();
        assert_eq!(plan_all(&world.desired, &world.actual, world.now), []);
        assert_eq!(next(&world), Some(hour));
        world.now = hour;
        assert_eq!(plan_all(&world.desired, &world.actual, world.now), [("a".to_owned(), Op::Refresh(secret.clone()))]);
        // The server gave no new one: the old one serves, and is not shown to be due at once.
        done(&mut world.actual, "a", Op::Refresh(secret.clone()), 1, Some(hour), world.now);
        assert_eq!(next(&world), Some(hour + REFRESH_RETRY));
        // It gave one: nothing wakes before that one is old.
        let later = hour + SignedDuration::from_hours(1);
        done(&mut world.actual, "a", Op::Refresh(secret), 1, Some(later), world.now);
        assert_eq!(next(&world), Some(later));
    }

    #[test]
    fn what_failed_waits_unless_something_changes() {
        let mut world = World::new();
        world.step(&Step::Want(0));
        world.run(usize::MAX, false);
        world.step(&Step::Change(0));
        let due = |world: &World| plan_all(&world.desired, &world.actual, world.now).len();
        assert_eq!(due(&world), 1);
        failed(&mut world.actual, "a", 2, world.now);
        assert_eq!(due(&world), 0);
        world.step(&Step::Change(0));
        assert_eq!(due(&world), 1, "another object may be the one that was missing");
        failed(&mut world.actual, "a", 3, world.now);
        world.now += REFRESH_RETRY;
        assert_eq!(due(&world), 1);
    }
}
