//! DefaultPreemption: when a pod fits nowhere, which pods of lower priority must leave which node. Pure; the answer
//! names the victims and the node that the pod is nominated to.

use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::framework::Cycle;
use crate::labels::Selector;
use crate::pod::PodInfo;
use crate::schedule::{Active, FitError, prepare, refuse};
use crate::snapshot::{NodeInfo, Snapshot};

/// Candidate nodes that are tried: a tenth of the cluster, but at least this many, as upstream.
const MIN_CANDIDATES: usize = 100;

/// A budget that evictions should respect: pods it covers, and how many of them may go.
#[derive(Debug, Clone)]
pub struct Budget {
    namespace: String,
    selector: Selector,
    allowed: i64,
}

impl Budget {
    pub fn of(pdb: &PodDisruptionBudget) -> Budget {
        Budget {
            namespace: pdb.metadata.namespace.clone().unwrap_or_default(),
            selector: Selector::of(pdb.spec.as_ref().and_then(|s| s.selector.as_ref())),
            allowed: pdb.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0).into(),
        }
    }
}

/// Who must go where.
#[derive(Debug, Clone, PartialEq)]
pub struct Nomination {
    pub node: String,
    pub victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

/// Outcome of looking for victims.
#[derive(Debug, Clone, PartialEq)]
pub enum Preemption {
    Nominate(Nomination),
    /// In upstream's words, to follow the pod's own fit error.
    Pointless(String),
}

/// Looks for the node where the least harm makes room.
pub fn preempt(pod: &PodInfo, snapshot: &Snapshot, error: &FitError, budgets: &[Budget]) -> Preemption {
    let total = error.nodes;
    let never = pod.pod.spec.as_ref().and_then(|s| s.preemption_policy.as_deref()) == Some("Never");
    if never {
        return Preemption::Pointless("not eligible due to preemptionPolicy=Never.".into());
    }
    let leaving = |node: &NodeInfo| node.pods.iter().any(|p| p.is_terminating() && p.priority < pod.priority);
    if snapshot.nomination(&pod.uid).is_some_and(leaving) {
        return Preemption::Pointless("not eligible due to a terminating pod on the nominated node.".into());
    }
    if error.resolvable.is_empty() {
        return Preemption::Pointless(format!(
            "0/{total} nodes are available: {total} Preemption is not helpful for scheduling."
        ));
    }
    let limit = MIN_CANDIDATES.max(total / 10);
    let mut best: Option<Nomination> = None;
    let mut found = 0;
    for slot in &error.resolvable {
        let Some(candidate) = victims_on(pod, snapshot, *slot, budgets) else { continue };
        found += 1;
        if best.as_ref().is_none_or(|b| harm(&candidate) < harm(b)) {
            best = Some(candidate);
        }
        if found >= limit {
            break;
        }
    }
    match best {
        Some(nomination) => Preemption::Nominate(nomination),
        None => {
            let (tried, other) = (error.resolvable.len(), total - error.resolvable.len());
            let mut words = vec![format!("{tried} No preemption victims found for incoming pod")];
            if other > 0 {
                words.push(format!("{other} Preemption is not helpful for scheduling"));
            }
            words.sort();
            Preemption::Pointless(format!("0/{total} nodes are available: {}.", words.join(", ")))
        }
    }
}

/// Upstream's order of harm: broken budgets, the highest priority, the sum of priorities, the number of victims.
fn harm(n: &Nomination) -> (usize, i32, i64, usize) {
    let highest = n.victims.iter().map(|v| v.priority).max().unwrap_or(i32::MIN);
    let sum = n.victims.iter().map(|v| i64::from(v.priority) + i64::from(i32::MAX) + 1).sum();
    (n.violations, highest, sum, n.victims.len())
}

fn victims_on(pod: &PodInfo, snapshot: &Snapshot, slot: usize, budgets: &[Budget]) -> Option<Nomination> {
    let mut cycle = Cycle::new(pod, snapshot);
    let active = prepare(&mut cycle);
    let mut node = snapshot.with_nominated(slot, pod).unwrap_or_else(|| snapshot.slots()[slot].clone());
    let lower: Vec<_> = node.pods.iter().filter(|p| p.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    for victim in &lower {
        take(&mut cycle, &active, &mut node, victim);
    }
    refuse(&cycle, &active, &node).is_none().then_some(())?;
    let (mut victims, mut violations) = (Vec::new(), 0);
    let (breaking, harmless) = by_budget(lower, budgets);
    for (group, breaks) in [(breaking, true), (harmless, false)] {
        for candidate in group {
            give(&mut cycle, &active, &mut node, &candidate);
            if refuse(&cycle, &active, &node).is_some() {
                take(&mut cycle, &active, &mut node, &candidate);
                violations += usize::from(breaks);
                victims.push(candidate);
            }
        }
    }
    (!victims.is_empty()).then_some(Nomination { node: node.name, victims, violations })
}

fn take(cycle: &mut Cycle, active: &Active, node: &mut NodeInfo, pod: &PodInfo) {
    node.remove(&pod.uid);
    adjust(cycle, active, node, pod, -1);
}

fn give(cycle: &mut Cycle, active: &Active, node: &mut NodeInfo, pod: &Arc<PodInfo>) {
    adjust(cycle, active, node, pod, 1);
    node.add(pod.clone());
}

fn adjust(cycle: &mut Cycle, active: &Active, node: &NodeInfo, pod: &PodInfo, by: i64) {
    for plugin in &active.filters {
        if let Some(adjust) = plugin.adjust {
            adjust(cycle, pod, node, by);
        }
    }
}

/// Those whose leaving would break a budget, and the others; each by falling priority, so that the most important are
/// the first to be given their place back.
fn by_budget(mut pods: Vec<Arc<PodInfo>>, budgets: &[Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    pods.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.uid.cmp(&b.uid)));
    let mut left: Vec<i64> = budgets.iter().map(|b| b.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut breaks = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            if budget.namespace == pod.namespace && !pod.labels.is_empty() && budget.selector.matches(&pod.labels) {
                *left -= 1;
                breaks |= *left < 0;
            }
        }
        breaks
    })
}
