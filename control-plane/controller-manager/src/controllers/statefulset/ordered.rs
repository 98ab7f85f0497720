//! What to do next with the ordinals of a set: in order, each waiting for the one before it, or all at once; scale
//! down from the top; replace old revisions from the top down to the partition. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{EventType, Plan};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::identity;
use crate::common::{acts, count, pods};
use crate::controllers::deployment::scaled;

/// Pods made in one decision where they need not wait for each other, as for other sets. Ordinals are only numbers until
/// there are pods: a set that wants two thousand million costs no more than one that wants these.
const BURST: usize = 500;

/// What a decision works with.
pub struct SyncContext<'a> {
    set: &'a StatefulSet,
    current: &'a ControllerRevision,
    update: &'a ControllerRevision,
    claims: &'a [Arc<PersistentVolumeClaim>],
    /// How many ordinals there are.
    wanted: usize,
    /// The pods that are there, by ordinal from the first.
    replicas: BTreeMap<usize, Arc<Pod>>,
    created: usize,
    /// Pods outside the wanted ordinals, lowest first.
    condemned: Vec<Arc<Pod>>,
    now: Timestamp,
    pub status: StatefulSetStatus,
    pub plan: Plan,
}

/// Whether the ordinals after this one may be looked at.
#[derive(PartialEq)]
enum Go {
    On,
    Stop,
}

impl<'a> SyncContext<'a> {
    pub fn new(
        set: &'a StatefulSet,
        current: &'a ControllerRevision,
        update: &'a ControllerRevision,
        members: &[Arc<Pod>],
        claims: &'a [Arc<PersistentVolumeClaim>],
        now: Timestamp,
    ) -> SyncContext<'a> {
        let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
        let start = identity::start(set);
        let (mut replicas, mut condemned) = (BTreeMap::new(), Vec::new());
        for pod in members {
            let index = identity::ordinal_in(set, pod).and_then(|o| usize::try_from(o - start).ok());
            match index.filter(|n| *n < wanted) {
                Some(index) => drop(replicas.insert(index, pod.clone())),
                None => condemned.push(pod.clone()),
            }
        }
        condemned.sort_by_key(|p| identity::ordinal_in(set, p));
        let mut sync = SyncContext {
            set,
            current,
            update,
            claims,
            wanted,
            replicas,
            created: 0,
            condemned,
            now,
            status: StatefulSetStatus::default(),
            plan: Plan::default(),
        };
        sync.count(members);
        sync
    }

    fn count(&mut self, members: &[Arc<Pod>]) {
        let name = |r: &ControllerRevision| r.metadata.name.clone().unwrap_or_default();
        let (current, update) = (name(self.current), name(self.update));
        let n = |test: &dyn Fn(&Pod) -> bool| members.iter().filter(|p| test(p)).count() as i32;
        let of = |revision: &str| n(&|p| !pods::is_terminating(p) && identity::revision_of(p) == revision);
        let some = |n: i32| (n != 0).then_some(n);
        self.status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: members.len() as i32,
            ready_replicas: some(n(&|p| is_running(p))),
            // Kept when zero: clients wait for it.
            available_replicas: Some(n(&|p| self.is_available(p))),
            current_replicas: some(of(&current)),
            updated_replicas: some(of(&update)),
            collision_count: self.set.status.as_ref().and_then(|s| s.collision_count).or(Some(0)),
            conditions: self.set.status.as_ref().and_then(|s| s.conditions.clone()),
            current_revision: Some(current),
            update_revision: Some(update),
        };
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_running(pod) && pods::is_available(pod, count(self.set.spec.min_ready_seconds), self.now)
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        self.is_available(pod) && !pods::is_terminating(pod)
    }

    fn in_order(&self) -> bool {
        self.set.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    pub fn decide(&mut self) {
        let min_ready = count(self.set.spec.min_ready_seconds);
        let all = self.replicas.values().map(|p| p.as_ref());
        if let Some(delay) = pods::next_available(all, min_ready, self.now) {
            self.plan.requeue(delay);
        }
        if self.set.metadata.deletion_timestamp.is_some() {
            self.plan.because("it is being deleted: its pods are the garbage collector's");
            return;
        }
        for index in 0..self.wanted {
            if self.replica(index) == Go::Stop || self.created == BURST {
                return;
            }
        }
        for index in (0..self.condemned.len()).rev() {
            if self.condemn(index) == Go::Stop {
                return;
            }
        }
        self.roll();
    }

    fn replica(&mut self, index: usize) -> Go {
        let ordinal = identity::start(self.set).saturating_add(index as i32);
        let stop = if self.in_order() { Go::Stop } else { Go::On };
        let Some(pod) = self.replicas.get(&index).cloned() else {
            self.create(ordinal);
            return stop;
        };
        if pods::is_terminal(&pod) {
            self.recreate(&pod);
            return stop;
        }
        self.keep_claims(ordinal, Some(&pod), false);
        if pods::is_terminating(&pod) || !self.is_available(&pod) {
            if stop == Go::Stop {
                self.plan.because("a pod is not available: in order, the next waits for it");
            }
            return stop;
        }
        if !identity::matches(self.set, &pod, ordinal) {
            let mut next = pod.as_ref().clone();
            identity::dress(self.set, &mut next, ordinal);
            self.plan.push(acts::update(&next));
        }
        Go::On
    }

    fn create(&mut self, ordinal: i32) {
        self.created += 1;
        self.keep_claims(ordinal, None, false);
        let pod = identity::pod(self.set, self.revision_for(ordinal), ordinal);
        self.plan.push(acts::create(&pod));
        let name = identity::pod_name(self.set, ordinal);
        self.event(
            EventType::Normal,
            "SuccessfulCreate",
            format!("create Pod {name} in StatefulSet {} successful", self.name()),
        );
    }

    /// New pods below the partition are of the current revision, so that an update in part stays one.
    fn revision_for(&self, ordinal: i32) -> &'a ControllerRevision {
        let strategy = self.set.spec.update_strategy.as_ref();
        let rolling = strategy.is_none_or(|s| s.type_.as_deref() != Some("OnDelete"));
        let partition = strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.partition);
        let start = identity::start(self.set);
        let current = match partition {
            Some(partition) => ordinal < start.saturating_add(partition),
            None => ordinal < start.saturating_add(count(self.set.status.as_ref().and_then(|s| s.current_replicas))),
        };
        if rolling && current { self.current } else { self.update }
    }

    /// Its name is needed again: it must be gone before the next can be.
    fn recreate(&mut self, pod: &Pod) {
        if pods::is_terminating(pod) {
            return;
        }
        let (namespace, name) =
            (pod.metadata.namespace.as_deref().unwrap_or(""), pod.metadata.name.as_deref().unwrap_or(""));
        let of = self.name();
        if pods::phase(pod) == "Failed" {
            let note = format!("StatefulSet {namespace}/{of} is recreating failed Pod {name}");
            self.event(EventType::Warning, "RecreatingFailedPod", note);
        } else {
            let note = format!("StatefulSet {namespace}/{of} is recreating terminated Pod {name}");
            self.event(EventType::Normal, "RecreatingTerminatedPod", note);
        }
        self.delete(pod);
    }

    fn delete(&mut self, pod: &Pod) {
        self.plan.push(acts::delete(pod));
        let name = pod.metadata.name.as_deref().unwrap_or("");
        self.event(
            EventType::Normal,
            "SuccessfulDelete",
            format!("delete Pod {name} in StatefulSet {} successful", self.name()),
        );
    }

    fn keep_claims(&mut self, ordinal: i32, pod: Option<&Pod>, condemned: bool) {
        for wanted in identity::claims(self.set, ordinal) {
            let found = self.claims.iter().find(|c| c.metadata.name == wanted.metadata.name);
            match found {
                Some(found) => {
                    let next = identity::retained(self.set, found, pod, condemned);
                    self.plan.extend(next.map(|c| acts::update(&c)));
                }
                None if condemned => {}
                None => {
                    let made = identity::retained(self.set, &wanted, pod, false).unwrap_or(wanted);
                    let claim = made.metadata.name.clone().unwrap_or_default();
                    self.plan.push(acts::create(&made));
                    let name = identity::pod_name(self.set, ordinal);
                    let note = format!("create Claim {claim} Pod {name} in StatefulSet {} success", self.name());
                    self.event(EventType::Normal, "SuccessfulCreate", note);
                }
            }
        }
    }

    fn condemn(&mut self, index: usize) -> Go {
        let pod = self.condemned[index].clone();
        let stop = if self.in_order() { Go::Stop } else { Go::On };
        if pods::is_terminating(&pod) {
            return stop;
        }
        // In order, nothing goes while another that should stay or go first is ill; the ill one itself may.
        let ill_before = self.condemned[..index].iter().any(|p| !self.is_healthy(p));
        if self.in_order() && !self.is_available(&pod) && ill_before {
            self.plan.because("a pod that goes later is not healthy: in order, none goes before it is");
            return Go::Stop;
        }
        if let Some(ordinal) = identity::ordinal_in(self.set, &pod) {
            self.keep_claims(ordinal, Some(&pod), true);
        }
        self.delete(&pod);
        stop
    }

    /// Old revisions are replaced from the top, as many at once as may be unavailable.
    fn roll(&mut self) {
        let strategy = self.set.spec.update_strategy.as_ref();
        if strategy.is_some_and(|s| s.type_.as_deref() == Some("OnDelete")) {
            self.plan.because("it is updated on delete only");
            return;
        }
        let rolling = strategy.and_then(|s| s.rolling_update.clone()).unwrap_or_default();
        let partition = usize::try_from(rolling.partition.unwrap_or(0)).unwrap_or(0);
        let most = rolling.max_unavailable.unwrap_or(IntOrString::Int(1));
        let most = scaled(&most, self.wanted as i32, false).max(1) as usize;
        let update = self.update.metadata.name.clone().unwrap_or_default();
        let ill = self.wanted - self.replicas.values().filter(|p| self.is_healthy(p)).count();
        let mut room = most.saturating_sub(ill);
        let newest_first: Vec<_> = self.replicas.range(partition..).rev().map(|(_, pod)| pod.clone()).collect();
        for pod in newest_first {
            if identity::revision_of(&pod) == update || pods::is_terminating(&pod) {
                continue;
            }
            // One that is ill already costs nothing more.
            if self.is_healthy(&pod) {
                if room == 0 {
                    self.plan.because("as many pods are unavailable as may be: the update waits");
                    return;
                }
                room -= 1;
            }
            self.delete(&pod);
            let less = self.status.current_replicas.unwrap_or(0) - 1;
            self.status.current_replicas = (less > 0).then_some(less);
        }
    }

    fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or("")
    }

    fn event(&mut self, kind: EventType, reason: &str, note: String) {
        let event = acts::event(self.set, kind, reason, note);
        self.plan.push(event);
    }
}

fn is_running(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

/// When every pod is of the new revision and ready, that revision is the current one.
pub fn complete(set: &StatefulSet, status: &mut StatefulSetStatus) {
    let rolling = set.spec.update_strategy.as_ref().is_none_or(|s| s.type_.as_deref() != Some("OnDelete"));
    let updated = count(status.updated_replicas) == status.replicas && count(status.ready_replicas) == status.replicas;
    if rolling && updated {
        status.current_replicas = status.updated_replicas;
        status.current_revision = status.update_revision.clone();
    }
}
