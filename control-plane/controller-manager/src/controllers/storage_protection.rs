//! persistentvolumeclaim-protection and persistentvolume-protection controllers: a claim that a pod uses, or a volume
//! that a claim has, goes only when it is used no more. Both work by a finalizer.

use client::{Delta, Key, Plan, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Resource;

use crate::common::acts::{self, Written};
use crate::common::pods;
use crate::runner::Work;
use crate::setup::Setup;

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const WORKERS: usize = 1;
/// Index of pods by `namespace/claim`.
const BY_CLAIM: &str = "claim";

pub fn start_claims(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let claims = setup.queue_own::<PersistentVolumeClaim>(&queue);
    setup.index::<Pod>(BY_CLAIM, |pod| claims_of(pod).iter().map(Key::to_string).collect());
    let again = queue.clone();
    let pods = setup.on(move |delta: &Delta<Pod>| {
        if matches!(delta, Delta::Deleted(_)) || pods::is_terminal(delta.object()) {
            claims_of(delta.object()).into_iter().for_each(|claim| again.add(claim));
        }
    });
    let executor = setup.executor("persistentvolumeclaim-protection-controller");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, _| {
        let Some(claim) = claims.get(key) else { return Plan::default() };
        // A pod that never got a node, or has ended, mounts nothing.
        let uses = |p: &Pod| {
            let placed = p.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_some_and(|n| !n.is_empty());
            placed && !pods::is_terminal(p)
        };
        let used = pods.by(BY_CLAIM, &key.to_string()).iter().any(|p| uses(p));
        reconcile(claim.as_ref(), CLAIM_FINALIZER, used)
    }));
}

pub fn start_volumes(setup: &mut Setup) {
    let queue: WorkQueue<Key> = WorkQueue::default();
    let volumes = setup.queue_own::<PersistentVolume>(&queue);
    let executor = setup.executor("persistentvolume-protection-controller");
    setup.run(Work::new(&queue, executor, WORKERS, move |key, _| {
        let Some(volume) = volumes.get(key) else { return Plan::default() };
        let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        reconcile(volume.as_ref(), VOLUME_FINALIZER, bound)
    }));
}

/// Claims that the pod mounts, its own ephemeral ones too.
fn claims_of(pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or("");
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let claim = |v: &k8s_openapi::api::core::v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{name}-{}", v.name)),
        (None, None) => None,
    };
    volumes.filter_map(claim).map(|c| Key::new(namespace.clone(), c)).collect()
}

fn reconcile<K: Written + Clone>(object: &K, finalizer: &str, used: bool) -> Plan {
    let mut plan = Plan::default();
    let mut next = object.clone();
    let deleting = object.meta().deletion_timestamp.is_some();
    let finalizers = Resource::meta_mut(&mut next).finalizers.get_or_insert_default();
    let has = finalizers.iter().any(|f| f == finalizer);
    if deleting && has && !used {
        finalizers.retain(|f| f != finalizer);
    } else if !deleting && !has {
        finalizers.push(finalizer.to_owned());
    } else {
        let held = deleting && has;
        return Plan::nothing(if held {
            "it is in use: deleted when it no more is"
        } else {
            "the finalizer is as it should be"
        });
    }
    plan.push(acts::update(&next));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use testkit::model::{World, from};

    #[test]
    fn a_used_claim_stays_until_it_is_used_no_more() {
        let mut world = World::default();
        world.put(&from::<PersistentVolumeClaim>(json!({"metadata": {"name": "c", "namespace": "ns"}})));
        let step = |used: bool| {
            move |w: &World| {
                let claim = w.get::<PersistentVolumeClaim>("ns", "c");
                claim.map(|c| reconcile(c.as_ref(), CLAIM_FINALIZER, used)).unwrap_or_default()
            }
        };
        world.settle(step(false));
        world.delete::<PersistentVolumeClaim>("ns", "c");
        world.settle(step(true));
        assert!(world.get::<PersistentVolumeClaim>("ns", "c").is_some());
        world.settle(step(false));
        assert!(world.get::<PersistentVolumeClaim>("ns", "c").is_none());
    }
}
