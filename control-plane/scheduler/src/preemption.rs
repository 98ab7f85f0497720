//! DefaultPreemption: when a pod fits nowhere, which pods of lower priority must leave which node. Pure; the answer
//! names the victims and the node that the pod is nominated to.

use std::sync::Arc;

use facts::labels::{self, Selector};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::framework::{Cycle, Profile};
use crate::pod::PodInfo;
use crate::schedule::{Active, FitError};
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
            selector: labels::selector(pdb.spec.as_ref().and_then(|s| s.selector.as_ref())),
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
pub fn preempt(
    profile: Profile,
    pod: &PodInfo,
    snapshot: &Snapshot,
    error: &FitError,
    budgets: &[Budget],
) -> Preemption {
    let total = error.nodes;
    if pod.never_preempts {
        return Preemption::Pointless("not eligible due to preemptionPolicy=Never.".into());
    }
    let leaving = |node: &NodeInfo| node.pods.iter().any(|p| p.is_terminating && p.priority < pod.priority);
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
        let Some(candidate) = victims_on(profile, pod, snapshot, *slot, budgets) else { continue };
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

fn victims_on(
    profile: Profile,
    pod: &PodInfo,
    snapshot: &Snapshot,
    slot: usize,
    budgets: &[Budget],
) -> Option<Nomination> {
    let mut what_if = WhatIf::new(profile, Cycle { pod, snapshot }, slot);
    let lower: Vec<_> = what_if.node.pods.iter().filter(|p| p.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    lower.iter().for_each(|victim| what_if.take(victim));
    what_if.fits().then_some(())?;
    let (mut victims, mut violations) = (Vec::new(), 0);
    let (breaking, harmless) = by_budget(lower, budgets);
    for (group, breaks) in [(breaking, true), (harmless, false)] {
        for candidate in group {
            what_if.give(&candidate);
            if !what_if.fits() {
                what_if.take(&candidate);
                violations += usize::from(breaks);
                victims.push(candidate);
            }
        }
    }
    (!victims.is_empty()).then_some(Nomination { node: what_if.node.name, victims, violations })
}

/// One node as it would be without some of its pods, and what the plugins would say of it. A copy of the node alone:
/// the plugins' counts are adjusted, not made anew from a copy of the cluster.
struct WhatIf<'a> {
    cycle: Cycle<'a>,
    active: Active,
    node: NodeInfo,
}

impl<'a> WhatIf<'a> {
    fn new(profile: Profile, cycle: Cycle<'a>, slot: usize) -> WhatIf<'a> {
        let node = cycle.snapshot.with_nominated(slot, cycle.pod);
        let node = node.unwrap_or_else(|| NodeInfo::clone(&cycle.snapshot.slots()[slot]));
        WhatIf { cycle, active: Active::prepare(profile, cycle), node }
    }

    fn fits(&self) -> bool {
        self.active.refuse(self.cycle, &self.node).is_none()
    }

    fn take(&mut self, pod: &PodInfo) {
        self.node.remove(&pod.uid);
        self.active.adjust(self.cycle, pod, &self.node, -1);
    }

    fn give(&mut self, pod: &Arc<PodInfo>) {
        self.active.adjust(self.cycle, pod, &self.node, 1);
        self.node.add(pod.clone());
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
