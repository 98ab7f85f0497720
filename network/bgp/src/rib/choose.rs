//! The decision about a prefix of the tables: who is a candidate, what that changes, and whom it puts first. Pure. Called by
//! [`super::Rib`] whenever a path has come, gone or changed.

use std::net::{IpAddr, Ipv4Addr};

use super::noticed;
use super::table::{Address, Entry, LONG_LIVED, Path};
use super::{Peer, PeerId, Rib};
use crate::attribute::{Attributes, Community, Interned};
use crate::decision::{Candidate, Few, Options, Why, decide};

/// What makes the best path, or one of those used with it, another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    best: Option<(usize, PeerId, u32, u8)>,
    /// Of all that are used, in any order: sets have addresses for keys, which nobody outside chooses.
    used: u64,
}

pub(super) fn identity<A: Address>(entry: &Entry<A>) -> Identity {
    let key = |path: &Path| path.accepted.as_ref().map_or(0, Interned::key);
    let best = entry.best().map(|path| (key(path), path.peer, path.local_id, path.flags & LONG_LIVED));
    let one = |path: &Path| (key(path) as u64 ^ u64::from(path.local_id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let used = entry.paths.as_slice().iter().take(entry.used.into()).map(one).fold(0, u64::wrapping_add);
    Identity { best, used }
}

impl Rib {
    /// Decides about a prefix, and notes it when that changed anything: `before` is what was best.
    pub(super) fn choose<A: Address>(&mut self, place: u32, before: Identity) {
        let Rib { tables, peers, next_hops, noticed: resolved, speaker, all_paths, .. } = self;
        let entry = A::table_mut(tables).get_mut(place);
        let metric = |set: &Attributes| noticed::metric(next_hops, resolved.is_some(), set.next_hop);
        let paths = entry.paths.as_mut_slice();
        for path in paths.iter_mut() {
            path.why = match &path.accepted {
                Some(set) if metric(set).is_none() => Why::NextHop,
                Some(_) => Why::Only,
                None => path.why,
            };
        }
        entry.used = match paths {
            [] => 0,
            [only] => u8::from(!only.why.is_refused()),
            all => among(all, peers, &speaker.options, metric),
        };
        // Who takes all paths hears of the others, too, and that they are gone.
        if before != identity(entry) || *all_paths {
            A::table_mut(tables).change(place);
        }
    }
}

/// Decides between several, and puts those that are used first; how many they are.
fn among(
    paths: &mut [Path],
    peers: &[Option<Box<Peer>>],
    options: &Options,
    metric: impl Fn(&Attributes) -> Option<u32>,
) -> u8 {
    // Candidates first, so that their places in both lists are the same.
    paths.sort_by_key(|path| path.why.is_refused());
    let candidates: Few<Candidate<'_>> = paths
        .iter()
        .take_while(|path| !path.why.is_refused())
        .filter_map(|path| {
            let set = path.accepted.as_deref()?;
            let peer = peers.get(usize::from(path.peer.0)).and_then(|peer| peer.as_deref());
            let identifier = peer.map_or(Ipv4Addr::UNSPECIFIED, |peer| peer.identifier);
            Some(Candidate {
                set,
                stale: path.flags & LONG_LIVED != 0 || set.has(Community::LLGR_STALE),
                source: peer.is_none_or(|peer| peer.config.source.is_bgp()).into(),
                external: peer.is_some_and(Peer::is_external),
                igp_metric: metric(set).unwrap_or(u32::MAX),
                since: path.since,
                identifier,
                address: peer.map_or(IpAddr::V4(identifier), |peer| peer.config.address),
                path_id: path.path_id,
            })
        })
        .collect();
    let decision = decide(&candidates, options);
    drop(candidates);
    for (path, why) in paths.iter_mut().zip(&decision.why) {
        path.why = *why;
    }
    // To their head, the best first; behind them the others as they were.
    for (to, from) in decision.used.iter().enumerate() {
        let moved = decision.used[..to].iter().filter(|earlier| **earlier > *from).count();
        paths[to..=from + moved].rotate_right(1);
    }
    u8::try_from(decision.used.len()).unwrap_or(u8::MAX)
}
