//! One decision: a pod and the snapshot in, a [`Decision`] out. Same snapshot, pod and seed, same answer.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::framework::{Cycle, Filter, Plugin, Profile, Score, Verdict};
use crate::plugins::PLUGINS;
use crate::pod::PodInfo;
use crate::snapshot::{NodeInfo, Snapshot};

/// In clusters smaller than this every feasible node is scored.
const MIN_FEASIBLE: usize = 100;
/// Never less than this part of a large cluster is searched, in percent.
const MIN_PERCENT: usize = 5;

/// What to do with a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Bind { node: String, evaluated: usize, feasible: usize },
    Unschedulable(FitError),
}

/// Why no node fits: how many said what, and which plugins said it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FitError {
    pub nodes: usize,
    pub reasons: BTreeMap<String, usize>,
    /// A plugin's word about the pod as a whole.
    pub rejected: Option<String>,
    pub plugins: Vec<&'static str>,
    /// Slots of nodes where taking pods away could help.
    pub resolvable: Vec<usize>,
}

impl std::fmt::Display for FitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if let Some(reason) = &self.rejected {
            return write!(f, " {reason}.");
        }
        let mut reasons: Vec<_> = self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        reasons.sort();
        write!(f, " {}.", reasons.join(", "))
    }
}

/// The plugins that have something to say of this pod, and what each remembers of it.
pub struct Active {
    rows: SmallVec<[Row; 10]>,
    pub only: Option<Only>,
    pub reject: Option<(&'static str, Cow<'static, str>)>,
}

struct Row {
    plugin: &'static Plugin,
    filter: Option<Filter>,
    score: Option<Score>,
    state: Box<dyn Any>,
}

/// The only nodes that can be right, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Only {
    pub nodes: Vec<String>,
    pub plugins: Vec<&'static str>,
}

impl Only {
    /// What two plugins say holds together.
    fn and(self, nodes: Vec<String>, plugin: &'static str) -> Only {
        let mut plugins = self.plugins;
        plugins.push(plugin);
        plugins.sort_unstable();
        Only { nodes: self.nodes.into_iter().filter(|name| nodes.contains(name)).collect(), plugins }
    }

    fn reason(&self) -> String {
        format!("node(s) didn't satisfy plugin(s) [{}]", self.plugins.join(" "))
    }
}

impl Active {
    /// Lets each plugin look at the pod.
    pub fn prepare(profile: Profile, cycle: Cycle) -> Active {
        let mut active = Active { rows: SmallVec::new(), only: None, reject: None };
        for plugin in profile.iter().copied() {
            let interest = (plugin.prepare)(cycle);
            if let Some(nodes) = interest.only {
                active.only = Some(match active.only.take() {
                    Some(only) => only.and(nodes, plugin.name),
                    None => Only { nodes, plugins: vec![plugin.name] },
                });
            }
            if let (Some(reason), None) = (interest.reject, &active.reject) {
                active.reject = Some((plugin.name, reason));
            }
            let filter = plugin.filter.filter(|_| interest.filter);
            let score = plugin.score.filter(|_| interest.score);
            if filter.is_some() || score.is_some() {
                active.rows.push(Row { plugin, filter, score, state: interest.state });
            }
        }
        active
    }

    /// Why no node can be right, and who says so: one plugin alone, or several that leave each other no node.
    fn rejection(&self) -> Option<(Vec<&'static str>, String)> {
        if let Some((plugin, reason)) = &self.reject {
            return Some((vec![*plugin], reason.to_string()));
        }
        let only = self.only.as_ref().filter(|only| only.nodes.is_empty() && only.plugins.len() > 1)?;
        Some((only.plugins.clone(), format!("{} simultaneously", only.reason())))
    }

    /// The first filter that refuses the node, and its word.
    pub fn refuse(&self, cycle: Cycle, node: &NodeInfo) -> Option<(&'static str, Verdict)> {
        self.rows.iter().find_map(|row| {
            let verdict = row.filter.map_or(Verdict::Fits, |filter| filter(cycle, &*row.state, node));
            (verdict != Verdict::Fits).then_some((row.plugin.name, verdict))
        })
    }

    /// Tells every plugin that a pod came to (1) or left (-1) a node, in a what-if.
    pub fn adjust(&mut self, cycle: Cycle, pod: &PodInfo, node: &NodeInfo, by: i64) {
        for row in self.rows.iter_mut().filter(|row| row.filter.is_some()) {
            if let Some(adjust) = row.plugin.adjust {
                adjust(cycle, &mut *row.state, pod, node, by);
            }
        }
    }
}

/// How many feasible nodes are enough, of this many: upstream's adaptive percentageOfNodesToScore.
pub fn enough(nodes: usize) -> usize {
    if nodes < MIN_FEASIBLE {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(MIN_PERCENT);
    (nodes * percent / 100).max(MIN_FEASIBLE)
}

/// Decides on one pod by the default profile. `start` is where the round of nodes begins, so that all get their turn;
/// `seed` breaks ties. Reads only: on a copy of the snapshot it is a simulation.
pub fn schedule(pod: &PodInfo, snapshot: &Snapshot, start: usize, seed: u64) -> Decision {
    schedule_by(PLUGINS, pod, snapshot, start, seed)
}

/// The same by another profile.
pub fn schedule_by(profile: Profile, pod: &PodInfo, snapshot: &Snapshot, start: usize, seed: u64) -> Decision {
    let cycle = Cycle { pod, snapshot };
    let active = Active::prepare(profile, cycle);
    let total = snapshot.len();
    let mut error = FitError { nodes: total, ..FitError::default() };
    if let Some((plugins, reason)) = active.rejection() {
        error.rejected = Some(reason);
        error.plugins = plugins;
        return Decision::Unschedulable(error);
    }
    let mut feasible: Vec<usize> = Vec::new();
    let mut evaluated = 0;
    if let Some(slot) = kept(cycle, &active) {
        return Decision::Bind { node: snapshot.slots()[slot].name.clone(), evaluated: 0, feasible: 1 };
    }
    for slot in candidates(snapshot, &active, start) {
        let node = &snapshot.slots()[slot];
        if !node.exists {
            continue;
        }
        evaluated += 1;
        // Both with and without those who have a claim on the node: they may still go elsewhere.
        let verdict = active.refuse(cycle, node);
        let claimed = || snapshot.with_nominated(slot, pod).and_then(|node| active.refuse(cycle, &node));
        match verdict.or_else(claimed) {
            None => feasible.push(slot),
            Some((plugin, verdict)) => error.note(plugin, verdict, slot),
        }
        if feasible.len() >= enough(total) {
            break;
        }
    }
    if feasible.is_empty() {
        if let Some(only) = active.only.filter(|_| evaluated < total) {
            *error.reasons.entry(only.reason()).or_insert(0) += total - evaluated;
            error.plugins.extend(&only.plugins);
        }
        return Decision::Unschedulable(error);
    }
    let best = best(cycle, &active, &feasible, seed);
    Decision::Bind { node: snapshot.slots()[best].name.clone(), evaluated, feasible: feasible.len() }
}

/// The node where room was made for this pod, if it fits there now.
fn kept(cycle: Cycle, active: &Active) -> Option<usize> {
    let node = cycle.snapshot.nomination(&cycle.pod.uid)?;
    let slot = cycle.snapshot.index(&node.name)?;
    let claimed = cycle.snapshot.with_nominated(slot, cycle.pod);
    let fits = active.refuse(cycle, claimed.as_ref().unwrap_or(node)).is_none();
    let allowed = active.only.as_ref().is_none_or(|only| only.nodes.contains(&node.name));
    (fits && allowed).then_some(slot)
}

impl FitError {
    fn note(&mut self, plugin: &'static str, verdict: Verdict, slot: usize) {
        if !self.plugins.contains(&plugin) {
            self.plugins.push(plugin);
        }
        let reason = match verdict {
            Verdict::Fits => return,
            Verdict::Unschedulable(reason) => {
                self.resolvable.push(slot);
                reason
            }
            Verdict::Unresolvable(reason) => reason,
        };
        for line in reason.lines() {
            match self.reasons.get_mut(line) {
                Some(n) => *n += 1,
                None => drop(self.reasons.insert(line.to_owned(), 1)),
            }
        }
    }
}

fn candidates<'a>(snapshot: &'a Snapshot, active: &Active, start: usize) -> Box<dyn Iterator<Item = usize> + 'a> {
    match &active.only {
        Some(only) => {
            let slots: Vec<usize> = only.nodes.iter().filter_map(|n| snapshot.index(n)).collect();
            Box::new(slots.into_iter())
        }
        None => {
            let n = snapshot.slots().len();
            Box::new((0..n).map(move |i| (start + i) % n.max(1)))
        }
    }
}

fn best(cycle: Cycle, active: &Active, feasible: &[usize], seed: u64) -> usize {
    if feasible.len() == 1 {
        return feasible[0];
    }
    let nodes: Vec<&NodeInfo> = feasible.iter().map(|i| &*cycle.snapshot.slots()[*i]).collect();
    let mut totals = vec![0i64; nodes.len()];
    let mut scores = vec![0i64; nodes.len()];
    for row in &active.rows {
        let Some(score) = row.score else { continue };
        scores.iter_mut().zip(&nodes).for_each(|(s, node)| *s = score(cycle, &*row.state, node));
        row.plugin.normalize.apply(&mut scores);
        totals.iter_mut().zip(&scores).for_each(|(total, s)| *total += s * row.plugin.weight);
    }
    let top = totals.iter().max().copied().unwrap_or(0);
    let ties: Vec<usize> = (0..totals.len()).filter(|i| totals[*i] == top).collect();
    feasible[ties[(mix(seed) % ties.len() as u64) as usize]]
}

/// splitmix64: spreads consecutive seeds.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
