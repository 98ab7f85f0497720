//! The decision (RFC 4271 9.1.2.2): which of several paths to a prefix is used, which are as good (multipath), and by
//! which step each other one lost. Steps and their order are BIRD's. Pure. Called by `rib` for each prefix that has changed.
//!
//! The steps look at all candidates at once and leave out whoever is worse: MED compares only paths of one neighbouring
//! AS, so that comparing two at a time would make the answer depend on their order.

use std::net::{IpAddr, Ipv4Addr};

use smallvec::SmallVec;

use crate::attribute::Attributes;

/// Why a path is where it is: the step that chose it, or at which it lost, or why it was no candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Why {
    /// There is no other.
    Only,
    /// Fresh paths before those that are only kept (RFC 9494).
    Stale,
    /// Routes of this host before those of neighbours.
    Source,
    /// The highest LOCAL_PREF.
    LocalPreference,
    /// The shortest AS_PATH.
    AsPathLength,
    /// The lowest ORIGIN.
    Origin,
    /// The lowest MULTI_EXIT_DISC of those from the same AS.
    Med,
    /// Paths from another AS before those of this one.
    External,
    /// The nearest next hop.
    IgpMetric,
    /// The oldest, where that is wanted.
    Oldest,
    /// The lowest identifier: ORIGINATOR_ID's, or the neighbour's.
    Identifier,
    /// The shortest CLUSTER_LIST.
    ClusterList,
    /// The lowest address of the neighbour.
    Address,
    /// The lowest path identifier.
    PathId,
    /// No candidate: this AS is in its AS_PATH.
    AsLoop,
    /// No candidate: its AS_PATH does not begin with the neighbour's AS.
    FirstAs,
    /// No candidate: this speaker is its ORIGINATOR_ID.
    OriginatorLoop,
    /// No candidate: this cluster is in its CLUSTER_LIST.
    ClusterLoop,
    /// No candidate: it came a way that is not meant for it (RFC 9234).
    RouteLeak,
    /// No candidate: the import filter rejected it.
    Filter,
    /// No candidate: there is no way to its next hop.
    NextHop,
}

impl Why {
    /// Whether the path is no candidate.
    pub fn is_refused(self) -> bool {
        self >= Why::AsLoop
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Why::Only => "there is no other path",
            Why::Stale => "fresh before stale",
            Why::Source => "routes of this host before those of neighbours",
            Why::LocalPreference => "highest local preference",
            Why::AsPathLength => "shortest AS path",
            Why::Origin => "lowest origin",
            Why::Med => "lowest MED of the same neighbouring AS",
            Why::External => "external before internal",
            Why::IgpMetric => "nearest next hop",
            Why::Oldest => "oldest",
            Why::Identifier => "lowest identifier of the originator or neighbour",
            Why::ClusterList => "shortest cluster list",
            Why::Address => "lowest neighbour address",
            Why::PathId => "lowest path identifier",
            Why::AsLoop => "refused: our AS is in the AS path",
            Why::FirstAs => "refused: the AS path does not begin with the neighbour's AS",
            Why::OriginatorLoop => "refused: we are its originator",
            Why::ClusterLoop => "refused: our cluster is in the cluster list",
            Why::RouteLeak => "refused: a route leak (only to customer)",
            Why::Filter => "refused by the import filter",
            Why::NextHop => "refused: no way to the next hop",
        }
    }
}

/// What is known of a path when it is compared.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its attributes, as the import filter left them.
    pub set: &'a Attributes,
    /// Kept beyond its session as the last resort.
    pub stale: bool,
    /// 0 is a route of this host, 1 of a neighbour.
    pub source: u8,
    /// From a neighbour of another AS.
    pub external: bool,
    /// The way to its next hop.
    pub igp_metric: u32,
    /// When it came, in seconds.
    pub since: u32,
    /// The neighbour's identifier.
    pub identifier: Ipv4Addr,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Which of his paths.
    pub path_id: u32,
}

/// What an administrator may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// MEDs of different neighbouring ASes are compared.
    pub always_compare_med: bool,
    /// Of two external paths that are as good the older stays (RFC 5004).
    pub prefer_older: bool,
    /// How many paths are used at once.
    pub maximum_paths: usize,
    /// Paths through different neighbouring ASes are used together.
    pub multipath_relax: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { always_compare_med: false, prefer_older: false, maximum_paths: 1, multipath_relax: false }
    }
}

/// A list that is mostly short: so many paths to a prefix cost no allocation.
pub type Few<T> = SmallVec<[T; 8]>;

/// What was decided of candidates, each by its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The best, then those that are used with it.
    pub used: Few<usize>,
    /// For the best the step that left it alone; for others the step at which they lost.
    pub why: Few<Why>,
}

/// Decides. Without candidates nothing is used.
pub fn decide(candidates: &[Candidate<'_>], options: &Options) -> Decision {
    let mut left: Few<usize> = (0..candidates.len()).collect();
    let mut decision = Decision { used: Few::new(), why: SmallVec::from_elem(Why::Only, candidates.len()) };
    let mut equal = Few::new();
    let mut last = Why::Only;
    for step in STEPS {
        if *step == Why::Oldest {
            // What is equal so far is as good: the rest is only to have one answer.
            equal.clone_from(&left);
        }
        let before = left.len();
        if before <= 1 {
            continue;
        }
        eliminate(candidates, *step, options, &mut left, &mut decision.why);
        if left.len() < before {
            last = *step;
        }
    }
    // Two that are equal to the end are one neighbour's path twice, which the tables don't have.
    let Some(best) = left.first().copied() else { return decision };
    decision.why[best] = last;
    decision.used.push(best);
    let chosen = &candidates[best];
    let alike = |at: &usize| {
        let other = &candidates[*at];
        let same_way = options.multipath_relax || other.set.as_path.first() == chosen.set.as_path.first();
        *at != best && other.external == chosen.external && same_way && other.set.next_hop != chosen.set.next_hop
    };
    decision.used.extend(equal.into_iter().filter(alike).take(options.maximum_paths.saturating_sub(1)));
    decision
}

/// The steps in their order.
const STEPS: &[Why] = &[
    Why::Stale,
    Why::Source,
    Why::LocalPreference,
    Why::AsPathLength,
    Why::Origin,
    Why::Med,
    Why::External,
    Why::IgpMetric,
    Why::Oldest,
    Why::Identifier,
    Why::ClusterList,
    Why::Address,
    Why::PathId,
];

/// Leaves out whoever loses at a step.
fn eliminate(all: &[Candidate<'_>], step: Why, options: &Options, left: &mut Few<usize>, why: &mut [Why]) {
    match step {
        Why::Med => return compare_med(all, options, left, why),
        Why::Oldest if !options.prefer_older || !left.iter().all(|at| all[*at].external) => return,
        _ => {}
    }
    let rank = |at: usize| rank(&all[at], step);
    let Some(best) = left.iter().map(|at| rank(*at)).min() else { return };
    left.retain(|at| {
        let stays = rank(*at) == best;
        if !stays {
            why[*at] = step;
        }
        stays
    });
}

/// What a step compares: the lowest is best.
fn rank(candidate: &Candidate<'_>, step: Why) -> u128 {
    let set = candidate.set;
    match step {
        Why::Stale => candidate.stale.into(),
        Why::Source => candidate.source.into(),
        Why::LocalPreference => (u32::MAX - set.preference()).into(),
        Why::AsPathLength => set.as_path.length() as u128,
        Why::Origin => set.origin as u128,
        Why::External => (!candidate.external).into(),
        Why::IgpMetric => candidate.igp_metric.into(),
        Why::Oldest => candidate.since.into(),
        Why::Identifier => u32::from(set.originator_id.unwrap_or(candidate.identifier)).into(),
        Why::ClusterList => set.cluster_list.len() as u128,
        Why::Address => match candidate.address {
            IpAddr::V4(v4) => u32::from(v4).into(),
            IpAddr::V6(v6) => u128::from(v6),
        },
        Why::PathId => candidate.path_id.into(),
        _ => 0,
    }
}

/// The lowest MED of each neighbouring AS stays; no MED is the lowest (RFC 4271 9.1.2.2 c).
fn compare_med(all: &[Candidate<'_>], options: &Options, left: &mut Few<usize>, why: &mut [Why]) {
    let group = |at: usize| if options.always_compare_med { None } else { all[at].set.as_path.first() };
    let med = |at: usize| all[at].set.med.unwrap_or(0);
    let mut lowest: Few<(Option<u32>, u32)> = Few::new();
    for at in left.iter().copied() {
        match lowest.iter_mut().find(|(number, _)| *number == group(at)) {
            Some((_, least)) => *least = med(at).min(*least),
            None => lowest.push((group(at), med(at))),
        }
    }
    left.retain(|at| {
        let stays = lowest.contains(&(group(*at), med(*at)));
        if !stays {
            why[*at] = Why::Med;
        }
        stays
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::{AsPath, NextHop, Origin};

    fn set(change: impl FnOnce(&mut Attributes)) -> Attributes {
        let mut set = Attributes::local(NextHop::V4(Ipv4Addr::new(10, 0, 0, 1)));
        set.as_path = AsPath::sequence(&[1, 2]);
        change(&mut set);
        set
    }

    fn candidate(set: &Attributes) -> Candidate<'_> {
        Candidate {
            set,
            stale: false,
            source: 1,
            external: true,
            igp_metric: 0,
            since: 0,
            identifier: Ipv4Addr::new(10, 0, 0, 9),
            address: Ipv4Addr::new(10, 0, 0, 9).into(),
            path_id: 5,
        }
    }

    /// That the second is chosen, and by which step; whatever the order.
    fn chosen(first: Candidate<'_>, second: Candidate<'_>) -> Why {
        let there = decide(&[first, second], &Options::default());
        let back = decide(&[second, first], &Options::default());
        assert_eq!((&there.used[..], &back.used[..]), (&[1][..], &[0][..]));
        assert_eq!(there.why[0], there.why[1]);
        there.why[1]
    }

    #[test]
    fn each_step_decides_when_all_before_it_are_equal() {
        let plain = set(|_| ());
        let base = candidate(&plain);
        let better = set(|set| set.local_preference = Some(101));
        assert_eq!(chosen(base, candidate(&better)), Why::LocalPreference);
        let shorter = set(|set| set.as_path = AsPath::sequence(&[1]));
        assert_eq!(chosen(base, candidate(&shorter)), Why::AsPathLength);
        let worse = set(|set| set.origin = Origin::Incomplete);
        assert_eq!(chosen(candidate(&worse), base), Why::Origin);
        let med = set(|set| set.med = Some(1));
        assert_eq!(chosen(candidate(&med), base), Why::Med);
        assert_eq!(chosen(Candidate { stale: true, ..base }, base), Why::Stale);
        assert_eq!(chosen(base, Candidate { source: 0, ..base }), Why::Source);
        assert_eq!(chosen(Candidate { external: false, ..base }, base), Why::External);
        assert_eq!(chosen(Candidate { igp_metric: 1, ..base }, base), Why::IgpMetric);
        assert_eq!(chosen(base, Candidate { identifier: Ipv4Addr::new(10, 0, 0, 8), ..base }), Why::Identifier);
        let originated = set(|set| set.originator_id = Some(Ipv4Addr::new(1, 1, 1, 1)));
        assert_eq!(chosen(base, candidate(&originated)), Why::Identifier);
        let reflected = set(|set| set.cluster_list = [Ipv4Addr::LOCALHOST].into());
        assert_eq!(chosen(candidate(&reflected), base), Why::ClusterList);
        assert_eq!(chosen(base, Candidate { address: Ipv4Addr::new(10, 0, 0, 8).into(), ..base }), Why::Address);
        assert_eq!(chosen(base, Candidate { path_id: 4, ..base }), Why::PathId);
        assert_eq!(decide(&[base], &Options::default()).why[..], [Why::Only]);
        assert!(decide(&[], &Options::default()).used.is_empty());
    }

    #[test]
    fn med_compares_paths_of_one_as_and_order_changes_nothing() {
        // The classic of three: a beats b by MED, b beats c by identifier, c beats a by identifier.
        let a = set(|set| set.med = Some(1));
        let b = set(|set| set.med = Some(2));
        let c = set(|set| set.as_path = AsPath::sequence(&[7, 2]));
        let id = |set, last| Candidate { identifier: Ipv4Addr::new(10, 0, 0, last), ..candidate(set) };
        let all = [id(&a, 3), id(&b, 1), id(&c, 2)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let ordered = order.map(|at| all[at]);
            let decision = decide(&ordered, &Options::default());
            assert_eq!(order[decision.used[0]], 2, "{order:?}");
        }
        let always = Options { always_compare_med: true, ..Options::default() };
        let lower = set(|set| (set.med, set.as_path) = (Some(0), AsPath::sequence(&[8, 2])));
        assert_eq!(decide(&[id(&a, 1), id(&lower, 9)], &always).used[..], [1]);
    }

    #[test]
    fn paths_that_are_as_good_are_used_together() {
        let hop = |last| NextHop::V4(Ipv4Addr::new(10, 0, 0, last));
        let (a, b) = (set(|set| set.next_hop = hop(1)), set(|set| set.next_hop = hop(2)));
        let c = set(|set| (set.next_hop, set.as_path) = (hop(3), AsPath::sequence(&[9, 2])));
        let d = set(|set| (set.next_hop, set.local_preference) = (hop(4), Some(1)));
        let id = |set, last| Candidate { identifier: Ipv4Addr::new(10, 0, 0, last), ..candidate(set) };
        let all = [id(&a, 1), id(&b, 2), id(&c, 3), id(&d, 0)];
        let used = |options| decide(&all, &options).used.to_vec();
        let four = Options { maximum_paths: 4, ..Options::default() };
        assert_eq!(used(four), [0, 1], "not through another AS, and not what is worse");
        assert_eq!(used(Options { multipath_relax: true, ..four }), [0, 1, 2]);
        assert_eq!(used(Options { maximum_paths: 2, multipath_relax: true, ..four }), [0, 1]);
        assert_eq!(used(Options::default()), [0]);
    }

    #[test]
    fn the_older_stays_where_that_is_wanted() {
        let plain = set(|_| ());
        let old = Candidate { since: 1, ..candidate(&plain) };
        let new = Candidate { since: 2, identifier: Ipv4Addr::new(1, 1, 1, 1), ..candidate(&plain) };
        let options = Options { prefer_older: true, ..Options::default() };
        assert_eq!(decide(&[new, old], &options).why[1], Why::Oldest);
        assert_eq!(decide(&[new, old], &Options::default()).used[..], [0]);
    }
}
