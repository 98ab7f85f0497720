//! Next hops of routes, where somebody resolves them: each costs a look whenever links or routes change, so one neighbour has a
//! share of them. A next hop is charged to whoever told it first. Pure data. Kept by `next_hops`, asked by `choose`.

use std::collections::HashSet;
use std::net::IpAddr;

use hashbrown::HashMap;

use super::peer::PeerId;
use crate::attribute::NextHop;

/// Next hops that one neighbour may have beside those of others: three times what a reflector of the largest clusters tells, of
/// whose 5,000 nodes each is one.
pub const MAX_NEXT_HOPS_OF_ONE: usize = 16_384;

/// Next hops of routes.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    /// With whom each is charged to; nobody where he is gone.
    pub(super) all: HashMap<IpAddr, Option<PeerId>>,
    /// Those that nobody has been asked about yet.
    pub(super) new: Vec<IpAddr>,
    /// Those of which nobody has said yet whether there is a way.
    pub(super) unanswered: HashSet<IpAddr>,
    pub(super) shares: HashMap<PeerId, Share>,
    /// There was no room for one since those were forgotten that no route has.
    pub(super) short: bool,
}

/// Of one neighbour.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) charged: usize,
    /// How often there was no room for one.
    pub(super) refused: u64,
}

impl Noticed {
    /// Notes one; whether it is new and there is room for it.
    pub(super) fn add(&mut self, address: IpAddr, of: PeerId) -> bool {
        if self.all.contains_key(&address) {
            return false;
        }
        let share = self.shares.entry(of).or_default();
        if share.charged >= MAX_NEXT_HOPS_OF_ONE {
            share.refused += 1;
            self.short = true;
            return false;
        }
        share.charged += 1;
        self.all.insert(address, Some(of));
        self.new.push(address);
        self.unanswered.insert(address);
        true
    }

    pub(super) fn remove(&mut self, address: &IpAddr) {
        self.unanswered.remove(address);
        if let Some(Some(of)) = self.all.remove(address)
            && let Some(share) = self.shares.get_mut(&of)
        {
            share.charged = share.charged.saturating_sub(1);
        }
    }
}

/// Whether there is anything to resolve: not of a route of this host, nor of an address of a link, which is next door.
pub(super) fn resolvable(next_hop: NextHop) -> Option<IpAddr> {
    let address = next_hop.address();
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    (!address.is_unspecified() && !link_local).then_some(address)
}

/// The metric of the way to a next hop: none where there is none, or nobody was asked about it.
pub(super) fn metric(next_hops: &HashMap<IpAddr, Option<u32>>, resolved: bool, next_hop: NextHop) -> Option<u32> {
    match next_hops.get(&next_hop.address()) {
        Some(metric) => *metric,
        None if resolved && resolvable(next_hop).is_some() => None,
        None => Some(0),
    }
}
