//! TaintToleration: no pod on a node whose NoSchedule or NoExecute taint it doesn't tolerate; fewer untolerated
//! PreferNoSchedule taints are better.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::framework::{Change, Cycle, Interest, Normalize, Plugin, Verdict};
use crate::pod::PodInfo;
use crate::snapshot::NodeInfo;

pub const PLUGIN: Plugin = Plugin {
    name: "TaintToleration",
    weight: 3,
    prepare: |_| Interest::BOTH,
    filter: Some(filter),
    score: Some(score),
    normalize: Normalize::Down,
    adjust: None,
    wakes: |change, pod| matches!(change, Change::NodeAdded(n) | Change::NodeUpdated(n) if untolerated(pod, n).is_none()),
};

fn filter(cycle: &Cycle, node: &NodeInfo) -> Verdict {
    match untolerated(cycle.pod, node) {
        Some(taint) => {
            let value = taint.value.as_deref().unwrap_or("");
            Verdict::Unresolvable(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key).into())
        }
        None => Verdict::Fits,
    }
}

/// The first taint that keeps the pod away.
pub fn untolerated<'a>(pod: &PodInfo, node: &'a NodeInfo) -> Option<&'a Taint> {
    let keeps_away = |t: &&Taint| t.effect == "NoSchedule" || t.effect == "NoExecute";
    node.taints.iter().filter(keeps_away).find(|t| !tolerates(pod, t))
}

fn score(cycle: &Cycle, node: &NodeInfo) -> i64 {
    node.taints.iter().filter(|t| t.effect == "PreferNoSchedule" && !tolerates(cycle.pod, t)).count() as i64
}

fn tolerates(pod: &PodInfo, taint: &Taint) -> bool {
    tolerates_key(pod, &taint.key, taint.value.as_deref().unwrap_or(""), &taint.effect)
}

/// Whether one of the pod's tolerations covers a taint of this key, value and effect.
pub fn tolerates_key(pod: &PodInfo, key: &str, value: &str, effect: &str) -> bool {
    pod.tolerations.iter().any(|t| covers(t, key, value, effect))
}

fn covers(toleration: &Toleration, key: &str, value: &str, effect: &str) -> bool {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let wanted_effect = text(&toleration.effect);
    if !wanted_effect.is_empty() && wanted_effect != effect {
        return false;
    }
    let wanted_key = text(&toleration.key);
    if !wanted_key.is_empty() && wanted_key != key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => toleration.value.as_deref().unwrap_or("") == value && !wanted_key.is_empty(),
        _ => false,
    }
}
