//! Rolling update of a daemon set: old pods are replaced within `maxUnavailable`, or beside new ones within
//! `maxSurge`. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::manage::Changes;
use super::{SyncContext, nodes, revision_of};
use crate::common::{count, pods};
use crate::controllers::deployment::scaled;

/// Pods that may run beside old ones, of `desired` nodes.
pub fn surge(set: &DaemonSet, desired: i32) -> i32 {
    let rolling = set.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    rolling.and_then(|r| r.max_surge.as_ref()).map_or(0, |v| scaled(v, desired, true))
}

fn unavailable(set: &DaemonSet, desired: i32) -> i32 {
    let rolling = set.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let value = rolling.and_then(|r| r.max_unavailable.clone()).unwrap_or(IntOrString::Int(1));
    scaled(&value, desired, true)
}

pub fn changes(sync: &SyncContext) -> Changes {
    let wanted: Vec<&str> =
        sync.nodes.iter().filter(|n| nodes::fit(sync.set, n).runs).filter_map(|n| n.metadata.name.as_deref()).collect();
    let desired = wanted.len() as i32;
    let surge = surge(sync.set, desired);
    if surge > 0 { beside(sync, &wanted, surge) } else { instead(sync, &wanted, unavailable(sync.set, desired)) }
}

/// New and old pod of one node.
type Pair = (Option<Arc<Pod>>, Option<Arc<Pod>>);

/// The one new and the one old pod of a node; `None` when there are more, which is for `manage` to mend.
fn pair(sync: &SyncContext, here: &[Arc<Pod>]) -> Option<Pair> {
    let (new, old): (Vec<_>, Vec<_>) = here.iter().cloned().partition(|p| revision_of(p) == sync.hash);
    (new.len() <= 1 && old.len() <= 1).then(|| (new.into_iter().next(), old.into_iter().next()))
}

fn is_available(sync: &SyncContext, pod: &Pod) -> bool {
    pods::is_available(pod, count(sync.set.spec.min_ready_seconds), sync.now)
}

fn instead(sync: &SyncContext, wanted: &[&str], most: i32) -> Changes {
    let (mut missing, mut free, mut costly) = (0, Vec::new(), Vec::new());
    let none = Vec::new();
    for node in wanted {
        match pair(sync, sync.pods.get(*node).unwrap_or(&none)) {
            Some((Some(new), None)) => missing += i32::from(!is_available(sync, &new)),
            Some((None, Some(old))) if pods::is_terminating(&old) => missing += 1,
            Some((None, Some(old))) if !is_available(sync, &old) => {
                // It is no loss: replaced at once.
                missing += 1;
                free.push(old);
            }
            Some((None, Some(old))) => costly.push(old),
            _ => missing += 1,
        }
    }
    let room = usize::try_from(most - missing).unwrap_or(0);
    free.extend(costly.into_iter().take(room));
    Changes { make: Vec::new(), delete: free }
}

fn beside(sync: &SyncContext, wanted: &[&str], most: i32) -> Changes {
    let (mut surging, mut free, mut costly) = (0, Vec::new(), Vec::new());
    let mut delete = Vec::new();
    let none = Vec::new();
    for node in wanted {
        match pair(sync, sync.pods.get(*node).unwrap_or(&none)) {
            Some((_, None)) => {}
            Some((None, Some(old))) if is_available(sync, &old) && !pods::is_terminating(&old) => {
                costly.push((*node).to_owned());
            }
            Some((None, Some(_))) => free.push((*node).to_owned()),
            Some((Some(new), Some(old))) if is_available(sync, &new) => {
                if !pods::is_terminating(&old) {
                    delete.push(old);
                }
            }
            _ => surging += 1,
        }
    }
    let room = usize::try_from(most - surging).unwrap_or(0);
    free.extend(costly.into_iter().take(room));
    Changes { make: free, delete }
}
