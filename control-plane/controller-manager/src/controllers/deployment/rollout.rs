//! How many replicas each set of a deployment gets now. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;

use super::{SyncContext, is_recreate, replicas, revision, slack};
use crate::common::{acts, count, owners, pods};

pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    count(set.status.as_ref().and_then(|s| s.available_replicas))
}

/// What the new set may have beside the others.
pub fn new_size<'a>(deployment: &Deployment, others: impl Iterator<Item = &'a ReplicaSet>, now: i32) -> i32 {
    let wanted = replicas(deployment);
    if is_recreate(deployment) {
        return wanted;
    }
    let room = wanted + slack(deployment).0 - others.map(size).sum::<i32>() - now;
    if room <= 0 { now } else { now + room.min(wanted - now) }
}

/// The user changed `replicas` since the sets were last scaled.
pub fn is_scaling(sync: &SyncContext) -> bool {
    let wanted = replicas(sync.deployment);
    let noted = |s: &ReplicaSet| -> Option<i32> { revision::note(&s.metadata, revision::DESIRED)?.parse().ok() };
    sync.all().filter(|s| size(s) > 0).any(|s| noted(s).is_some_and(|n| n != wanted))
}

/// Gives the set its size; true if anything of it changes.
fn resize(sync: &mut SyncContext, which: Which, to: i32) -> bool {
    let deployment = sync.deployment;
    let set = match which {
        Which::New => sync.new.as_mut(),
        Which::Old(n) => sync.old.get_mut(n),
    };
    let Some(set) = set else { return false };
    let from = size(set);
    let noted = revision::set_sizes(deployment, set);
    if from == to && !noted {
        return false;
    }
    set.spec.replicas = Some(to);
    // A set written before in this plan (or not yet made) is sized when it is seen again.
    if set.metadata.resource_version.is_none() {
        return true;
    }
    let update = acts::update(set);
    let name = set.metadata.name.clone().unwrap_or_default();
    sync.plan.push(update);
    if from != to {
        let way = if to > from { "up" } else { "down" };
        let text = format!("Scaled {way} replica set {name} from {from} to {to}");
        sync.plan.push(acts::normal(deployment, "ScalingReplicaSet", text));
    }
    true
}

#[derive(Clone, Copy)]
enum Which {
    New,
    Old(usize),
}

/// Surge up, then take down what is not needed for the minimum.
pub fn rolling(sync: &mut SyncContext) {
    revision::keep(sync, true);
    let wanted = replicas(sync.deployment);
    if let Some(now) = sync.new.as_ref().map(size)
        && now != wanted
    {
        let to = if now > wanted { wanted } else { new_size(sync.deployment, sync.old.iter(), now) };
        if to != now && resize(sync, Which::New, to) {
            return;
        }
    }
    if take_down_old(sync) {
        return;
    }
    if revision::arrived(sync) {
        revision::clean_up(sync);
    }
}

fn take_down_old(sync: &mut SyncContext) -> bool {
    let old: i32 = sync.old.iter().map(size).sum();
    if old == 0 {
        return false;
    }
    let least = replicas(sync.deployment) - slack(sync.deployment).1;
    let new = sync.new.as_ref().map_or(0, size);
    let new_missing = new - sync.new.as_ref().map_or(0, available);
    let most_down = old + new - least - new_missing;
    if most_down <= 0 {
        return false;
    }
    let mut sizes: Vec<i32> = sync.old.iter().map(size).collect();
    let mut down = 0;
    // Those that don't work go first: they are no loss.
    for (n, set) in sync.old.iter().enumerate() {
        let ill = (sizes[n] - available(set)).clamp(0, most_down - down);
        sizes[n] -= ill;
        down += ill;
    }
    let mut spare = sync.all().map(available).sum::<i32>() - least;
    for size in &mut sizes {
        let less = (*size).min(spare).max(0);
        *size -= less;
        spare -= less;
    }
    let changes: Vec<(usize, i32)> =
        sizes.into_iter().enumerate().filter(|(n, to)| size(&sync.old[*n]) != *to).collect();
    changes.iter().for_each(|(n, to)| {
        resize(sync, Which::Old(*n), *to);
    });
    !changes.is_empty()
}

/// Everything old away, then everything new.
pub fn recreate(sync: &mut SyncContext, all_pods: &[Arc<Pod>]) {
    revision::keep(sync, false);
    let running: Vec<usize> = (0..sync.old.len()).filter(|n| size(&sync.old[*n]) > 0).collect();
    if !running.is_empty() {
        running.into_iter().for_each(|n| {
            resize(sync, Which::Old(n), 0);
        });
        return;
    }
    let new_uid = sync.new.as_ref().and_then(|s| s.metadata.uid.clone()).unwrap_or_default();
    let old_pods = all_pods.iter().any(|p| !pods::is_terminal(p) && !owners::is_controlled_by(&p.metadata, &new_uid));
    let old_counted = sync.old.iter().any(|s| s.status.as_ref().is_some_and(|s| s.replicas > 0));
    if old_pods || old_counted {
        return;
    }
    let made = sync.new.is_none();
    revision::keep(sync, true);
    let wanted = replicas(sync.deployment);
    if !made && sync.new.as_ref().map(size) != Some(wanted) {
        resize(sync, Which::New, wanted);
    }
    if revision::arrived(sync) {
        revision::clean_up(sync);
    }
}

/// Paused or scaled by the user: no new revision, but the right number of replicas in all.
pub fn scale(sync: &mut SyncContext) {
    let wanted = replicas(sync.deployment);
    let active: Vec<usize> = (0..sync.old.len()).filter(|n| size(&sync.old[*n]) > 0).collect();
    let new_active = sync.new.as_ref().is_some_and(|s| size(s) > 0);
    match (active.as_slice(), new_active) {
        ([], true) => {
            resize(sync, Which::New, wanted);
            return;
        }
        ([only], false) => {
            resize(sync, Which::Old(*only), wanted);
            return;
        }
        ([], false) => {
            if sync.new.is_some() {
                resize(sync, Which::New, wanted);
            } else if let Some(latest) = (0..sync.old.len()).max_by_key(|n| revision::number(&sync.old[*n].metadata)) {
                resize(sync, Which::Old(latest), wanted);
            }
            return;
        }
        _ => {}
    }
    let saturated = sync.new.as_ref().is_some_and(|s| {
        let noted = revision::note(&s.metadata, revision::DESIRED).and_then(|v| v.parse().ok());
        size(s) == wanted && noted == Some(wanted) && available(s) == wanted
    });
    if saturated {
        active.into_iter().for_each(|n| {
            resize(sync, Which::Old(n), 0);
        });
    } else if !is_recreate(sync.deployment) {
        proportional(sync, &active, new_active);
    }
}

/// Shares the change among the active sets by their size, so that a scaled rollout keeps its balance.
fn proportional(sync: &mut SyncContext, active: &[usize], new_active: bool) {
    let wanted = replicas(sync.deployment);
    let mut sets: Vec<(Which, i32)> = active.iter().map(|n| (Which::Old(*n), size(&sync.old[*n]))).collect();
    if new_active {
        // Newest last: old sets are ordered by age.
        sets.push((Which::New, sync.new.as_ref().map_or(0, size)));
    }
    let total: i32 = sets.iter().map(|(_, size)| size).sum();
    let allowed = if wanted > 0 { wanted + slack(sync.deployment).0 } else { 0 };
    let change = allowed - total;
    // The bigger first; among equals the newer when growing, the older when shrinking.
    if change > 0 {
        sets.reverse();
    }
    sets.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let mut done = 0;
    let mut sizes: Vec<i32> = Vec::new();
    for (which, now) in &sets {
        let share = if change == 0 { 0 } else { share(sync, *which, *now, change, done) };
        done += share;
        sizes.push(now + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + change - done).max(0);
    }
    for ((which, _), to) in sets.iter().zip(sizes) {
        resize(sync, *which, to);
    }
}

fn share(sync: &SyncContext, which: Which, now: i32, change: i32, done: i32) -> i32 {
    if now == 0 || change == done {
        return 0;
    }
    let wanted = replicas(sync.deployment);
    let set = match which {
        Which::New => sync.new.as_ref(),
        Which::Old(n) => sync.old.get(n),
    };
    let fraction = if wanted == 0 {
        -now
    } else {
        let noted = set.and_then(|s| revision::note(&s.metadata, revision::MAX)?.parse::<i32>().ok());
        let reported = sync.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let before = noted.filter(|n| *n > 0).unwrap_or(reported).max(1);
        let max = wanted + slack(sync.deployment).0;
        (f64::from(now) * f64::from(max) / f64::from(before)).round() as i32 - now
    };
    let left = change - done;
    if change > 0 { fraction.min(left) } else { fraction.max(left) }
}
