//! The scheduling framework: what a plugin is, and what it may do in one pod's cycle. A plugin is a row of functions;
//! the ones it doesn't need are absent, and a plugin with nothing to say of a pod is left out of that pod's cycle
//! altogether. The frame knows no plugin by name: what one remembers between two calls is a box that only it opens.
//!
//! ```text
//!              once a pod      for each node        for each that fits     once, for the chosen node
//!   a plugin   prepare ──────► filter ────────────► score, normalize ────► reserve ──► pre_bind ──► (bound)
//!                 │               ▲                     ▲                     ▲
//!                 └─ state ───────┴─────────────────────┘                     └── unreserve, in reverse order,
//!                    adjust: "and if this pod were gone?" (preemption)            when anything after it fails
//! ```
//!
//! `prepare` to `score` only read: they run also on a copy of the snapshot, as a simulation. `reserve` writes into the
//! snapshot what the pod will take beside the place on the node, so that the next decision sees it; `pre_bind` gives
//! the writes that the API must have before the binding.

use std::any::Any;
use std::borrow::Cow;

use client::Plan;

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
pub struct Interest {
    pub filter: bool,
    pub score: bool,
    /// Only these nodes can be right. When several plugins say so, those that all of them name.
    pub only: Option<Vec<String>>,
    /// No node can be right.
    pub reject: Option<Cow<'static, str>>,
    /// What the plugin's other functions are given back in this cycle.
    pub state: Box<dyn Any>,
}

impl Interest {
    pub fn when(filter: bool, score: bool) -> Interest {
        // A box of nothing takes no memory.
        Interest { filter, score, only: None, reject: None, state: Box::new(()) }
    }

    pub fn none() -> Interest {
        Interest::when(false, false)
    }

    pub fn both() -> Interest {
        Interest::when(true, true)
    }

    pub fn with(mut self, state: impl Any) -> Interest {
        self.state = Box::new(state);
        self
    }
}

/// What every plugin sees of one pod's cycle.
#[derive(Debug, Clone, Copy)]
pub struct Cycle<'a> {
    pub pod: &'a PodInfo,
    pub snapshot: &'a Snapshot,
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
    /// By the largest, the smallest becoming 100: the less the better. A node with a negative score is out of the
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

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Added,
    Updated,
    Removed,
}

pub const NODES: &str = "nodes";
/// Pods that are bound: `Added` when one is bound or changes its labels, `Removed` when it leaves.
pub const PODS: &str = "pods";

/// A change in the cluster that may make a waiting pod schedulable. A resource is a name, so that one more of them
/// (claims, CSI nodes) is one more informer and one more row of [`Wake`]s, and nothing here.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    pub resource: &'static str,
    pub what: What,
    object: &'a dyn Any,
}

impl<'a> Change<'a> {
    pub fn new(resource: &'static str, what: What, object: &'a dyn Any) -> Change<'a> {
        Change { resource, what, object }
    }

    pub fn node(what: What, node: &'a NodeInfo) -> Change<'a> {
        Change::new(NODES, what, node)
    }

    pub fn pod(what: What, pod: &'a PodInfo) -> Change<'a> {
        Change::new(PODS, what, pod)
    }

    /// The object as it is now (or was, when removed), if it is of this type.
    pub fn object<T: Any>(&self) -> Option<&'a T> {
        self.object.downcast_ref()
    }
}

/// A change that could end a plugin's refusal: of which resource, what happened, and whether this very object could
/// help this pod (upstream's `ClusterEventWithHint`).
pub struct Wake {
    pub resource: &'static str,
    pub what: &'static [What],
    pub helps: fn(&Change, &PodInfo) -> bool,
}

impl Wake {
    pub const fn new(resource: &'static str, what: &'static [What], helps: fn(&Change, &PodInfo) -> bool) -> Wake {
        Wake { resource, what, helps }
    }
}

/// Judges one node. Here and below, `&dyn Any` is the plugin's own state of this cycle.
pub type Filter = fn(Cycle, &dyn Any, &NodeInfo) -> Verdict;

/// Rates one node, in numbers that [`Normalize`] understands.
pub type Score = fn(Cycle, &dyn Any, &NodeInfo) -> i64;

/// Tells the state that a pod came to (1) or left (-1) a node in a what-if of preemption.
pub type Adjust = fn(Cycle, &mut dyn Any, &PodInfo, &NodeInfo, i64);

/// A row of the plugin table.
pub struct Plugin {
    pub name: &'static str,
    pub weight: i64,
    /// Looks at the pod once.
    pub prepare: fn(Cycle) -> Interest,
    pub filter: Option<Filter>,
    pub score: Option<Score>,
    pub normalize: Normalize,
    pub adjust: Option<Adjust>,
    /// Which changes could end this plugin's refusal of a pod.
    pub wakes: &'static [Wake],
    pub reservation: Option<Reservation>,
}

/// What a plugin does between the choice of a node and the binding, for pods that need it. See [`crate::binding`].
pub struct Reservation {
    /// Takes, in the snapshot, what the pod will use. An error is the reason why it can't have it after all.
    pub reserve: fn(&mut Snapshot, &PodInfo, node: &str) -> Result<(), String>,
    /// What the API must have before the binding; an empty plan is nothing.
    pub pre_bind: fn(&Snapshot, &PodInfo, node: &str) -> Plan,
    /// Gives back what `reserve` took. Idempotent: it is also called where `reserve` failed or was never reached.
    pub unreserve: fn(&mut Snapshot, &PodInfo, node: &str),
}

impl Plugin {
    /// Has nothing to say of any pod; rows are this with what they do.
    pub const NOTHING: Plugin = Plugin {
        name: "",
        weight: 0,
        prepare: |_| Interest::none(),
        filter: None,
        score: None,
        normalize: Normalize::No,
        adjust: None,
        wakes: &[],
        reservation: None,
    };

    /// Whether the change could end this plugin's refusal of the pod.
    pub fn wakes(&self, change: &Change, pod: &PodInfo) -> bool {
        let registered = |w: &&Wake| w.resource == change.resource && w.what.contains(&change.what);
        self.wakes.iter().filter(registered).any(|w| (w.helps)(change, pod))
    }
}

/// The plugins of one scheduler, in the order in which filters run.
pub type Profile = &'static [&'static Plugin];

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
