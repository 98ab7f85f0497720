//! The scheduling framework: what a plugin is, and the state of one cycle. A plugin is a row of functions; the ones it
//! doesn't need are absent, and a plugin with nothing to say of a pod is left out of that pod's cycle altogether.

use std::borrow::Cow;

use crate::plugins::inter_pod_affinity::AffinityCounts;
use crate::plugins::pod_topology_spread::Spread;
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// Scores run from 0 to this.
pub const MAX_SCORE: i64 = 100;

/// A filter's word on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    /// Not now: taking pods away could help.
    Unschedulable(Cow<'static, str>),
    /// Not on this node, whoever leaves.
    Unresolvable(Cow<'static, str>),
}

/// What a plugin wants to do with a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    pub filter: bool,
    pub score: bool,
    /// Only these nodes can be right.
    pub only: Option<Vec<String>>,
    /// No node can be right.
    pub reject: Option<Cow<'static, str>>,
}

impl Interest {
    pub const NONE: Interest = Interest { filter: false, score: false, only: None, reject: None };
    pub const FILTER: Interest = Interest { filter: true, score: false, only: None, reject: None };
    pub const SCORE: Interest = Interest { filter: false, score: true, only: None, reject: None };
    pub const BOTH: Interest = Interest { filter: true, score: true, only: None, reject: None };

    pub fn when(filter: bool, score: bool) -> Interest {
        Interest { filter, score, only: None, reject: None }
    }
}

/// One pod's way through the plugins.
#[derive(Debug)]
pub struct Cycle<'a> {
    pub pod: &'a PodInfo,
    pub snapshot: &'a Snapshot,
    pub spread: Spread<'a>,
    pub affinity: AffinityCounts,
}

impl<'a> Cycle<'a> {
    pub fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Cycle<'a> {
        Cycle { pod, snapshot, spread: Spread::default(), affinity: AffinityCounts::default() }
    }
}

/// How raw scores become 0..=100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalize {
    /// They are already.
    No,
    /// By the largest: the more the better.
    Up,
    /// By the largest: the less the better.
    Down,
    /// Between the smallest and the largest.
    Span,
    /// By the largest, the smallest becoming 100: the less the better. Below zero stands a node that is out of the
    /// question: it stays at 0.
    Reverse,
}

impl Normalize {
    pub fn apply(self, scores: &mut [i64]) {
        let (Some(max), Some(min)) = (scores.iter().max().copied(), scores.iter().min().copied()) else { return };
        let span = max - min;
        let least = scores.iter().copied().filter(|s| *s >= 0).min().unwrap_or(0);
        for score in scores {
            *score = match self {
                Normalize::No => *score,
                Normalize::Up if max == 0 => 0,
                Normalize::Up => *score * MAX_SCORE / max,
                Normalize::Down if max == 0 => MAX_SCORE,
                Normalize::Down => MAX_SCORE - *score * MAX_SCORE / max,
                Normalize::Span if span == 0 => 0,
                Normalize::Span => (*score - min) * MAX_SCORE / span,
                Normalize::Reverse if *score < 0 => 0,
                Normalize::Reverse if max == 0 => MAX_SCORE,
                Normalize::Reverse => MAX_SCORE * (max + least - *score) / max,
            };
        }
    }
}

/// A change in the cluster that may make a waiting pod schedulable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    NodeAdded(&'a NodeInfo),
    /// Labels, taints, allocatable or `unschedulable` changed.
    NodeUpdated(&'a NodeInfo),
    /// A bound pod left or shrank.
    PodRemoved(&'a PodInfo),
    /// A pod was bound, or a bound one changed its labels.
    PodAdded(&'a PodInfo),
}

/// A row of the plugin table.
pub struct Plugin {
    pub name: &'static str,
    pub weight: i64,
    /// Looks at the pod once; may fill its part of the cycle.
    pub prepare: fn(&mut Cycle) -> Interest,
    pub filter: Option<fn(&Cycle, &NodeInfo) -> Verdict>,
    pub score: Option<fn(&Cycle, &NodeInfo) -> i64>,
    pub normalize: Normalize,
    /// Tells the cycle that a pod came to (1) or left (-1) a node in a what-if of preemption.
    pub adjust: Option<fn(&mut Cycle, &PodInfo, &NodeInfo, i64)>,
    /// Whether a change could end this plugin's refusal of a pod.
    pub wakes: fn(&Change, &PodInfo) -> bool,
}

impl PartialEq for PodInfo {
    fn eq(&self, other: &PodInfo) -> bool {
        self.uid == other.uid
    }
}
impl Eq for PodInfo {}

impl PartialEq for NodeInfo {
    fn eq(&self, other: &NodeInfo) -> bool {
        self.name == other.name
    }
}
impl Eq for NodeInfo {}
