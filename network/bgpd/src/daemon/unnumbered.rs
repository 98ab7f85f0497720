//! Neighbours of whom only the link is known: where each is, is learned from who advertises himself as a router there
//! (RFC 4861), or connects from there. A link has one session. The loop's side of `routers`. I/O: logs.

use std::net::{IpAddr, Ipv6Addr};

use bgp::session::{Input, Time};

use super::Daemon;
use super::addresses::index_of;
use super::event::{Advertised, Key};
use crate::config::Neighbor;
use crate::config::peering::{Place, UNKNOWN};

/// Why there is no session before anything has been heard.
pub const NOBODY: &str = "nobody has been found on the link yet: no router has advertised itself there, and nobody has \
                          connected from there";
/// Whoever was found, or has lost his session, is given this long before another takes his place: of two who advertise in
/// turn one gets a session.
const HOLD: Time = Time::from_secs(5);

/// What is known of the neighbour of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    address: IpAddr,
    /// When he was found, or his session came or went.
    since: Time,
    has_session: bool,
    /// He restarts, and his routes are kept for him: whoever takes his place ends that.
    is_awaited: bool,
}

/// What becomes of somebody who was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is he.
    Same,
    /// He is the neighbour from now on.
    Take,
    /// He is not: another is there.
    Leave,
}

impl Known {
    fn step(&self, heard: Ipv6Addr, now: Time) -> Step {
        if self.address == heard {
            Step::Same
        } else if self.address == UNKNOWN {
            Step::Take
        } else if self.has_session || self.is_awaited || now.saturating_sub(self.since) < HOLD {
            Step::Leave
        } else {
            Step::Take
        }
    }
}

impl Daemon {
    /// Links of unnumbered neighbours are advertised on, and no others.
    pub(super) fn routers(&mut self) {
        let unnumbered = self.config.neighbors.iter().map(|neighbor| &neighbor.peering);
        let links = unnumbered.filter(|peering| peering.unnumbered && peering.enabled);
        self.routers.set(links.filter_map(|peering| peering.interface.clone()).collect(), &self.tasks);
    }

    /// A router has advertised itself on a link, or it is another whether one could.
    pub(super) fn advertised(&mut self, link: &str, news: Advertised) {
        let why = match news {
            Advertised::From(address) => {
                self.found(link, address, "by its Router Advertisement");
                return;
            }
            Advertised::Begun => None,
            Advertised::Failed(why) => Some(why),
        };
        let now = self.now();
        let Some(peer) = self.peers.on_link(link).and_then(|key| self.peers.get_mut(key)) else { return };
        let (found, has_session) = (peer.neighbor.is_found(), peer.session.negotiated().is_some());
        if let Some(why) = why {
            if !has_session && peer.failed(why.clone(), now) {
                tracing::warn!(link, "no Router Advertisements: {why}");
            }
        } else if !found {
            peer.failed(NOBODY.to_owned(), now);
        }
    }

    /// Who connects from the link of an unnumbered neighbour is he. Not where he has to sign: nobody has asked him for it.
    pub(super) fn by_link(&mut self, place: &Place) -> Option<Key> {
        let (IpAddr::V6(address), Some(link)) = place else { return None };
        let peer = self.peers.get(self.peers.on_link(link)?)?;
        if peer.peering().authentication().is_some() {
            tracing::debug!(link, %address, "refused: who signs has to advertise himself before he connects");
            return None;
        }
        self.found(link, *address, "by its connection")
    }

    /// Somebody is there: the neighbour of the link, if it is or becomes he.
    fn found(&mut self, link: &str, address: Ipv6Addr, how: &str) -> Option<Key> {
        let now = self.now();
        let key = self.peers.on_link(link)?;
        let peer = self.peers.get(key)?;
        let has_session = peer.session.negotiated().is_some();
        let is_awaited = peer.session.is_awaited();
        let known = Known { address: peer.neighbor.address, since: peer.since, has_session, is_awaited };
        match known.step(address, now) {
            Step::Same => return Some(key),
            Step::Leave => {
                tracing::debug!(link, %address, neighbor = %known.address, "another router on the link of a neighbour");
                return None;
            }
            Step::Take => {}
        }
        // One whom a range has let in is who he is.
        if self.peers.at(&(address.into(), Some(link.to_owned()))).is_some() {
            return None;
        }
        // Of several programs on this host each hears the others' advertisements.
        if !peer.peering().enabled || index_of(link).is_none_or(|index| self.own.has(address.into(), index, now)) {
            return None;
        }
        tracing::info!(link, neighbor = %address, "the neighbour of the link is found {how}");
        let peering = peer.neighbor.peering.clone();
        self.input(key, Input::Deconfigured);
        self.remove(key);
        self.begin(Neighbor { address: address.into(), peering });
        let key = self.peers.on_link(link)?;
        if self.peers.get(key)?.peering().authentication().is_some() {
            self.set_keys();
        }
        // He may not know yet where this speaker is.
        self.routers.again(link);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router that was exchanged is found again; one that stands beside him ends no session.
    #[test]
    fn a_link_has_one_neighbour_and_another_only_without_a_session() {
        let at = |n: u16| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n);
        let (since, now) = (Time::from_secs(100), Time::from_secs(101));
        let known = Known { address: at(2).into(), since, has_session: true, is_awaited: false };
        assert_eq!(known.step(at(2), now), Step::Same);
        assert_eq!(known.step(at(3), now + HOLD * 100), Step::Leave);
        let without = Known { has_session: false, ..known };
        assert_eq!((without.step(at(3), now), without.step(at(3), now + HOLD)), (Step::Leave, Step::Take));
        let awaited = Known { is_awaited: true, ..without };
        assert_eq!(awaited.step(at(3), now + HOLD * 10), Step::Leave, "his routes are kept");
        assert_eq!(Known { address: UNKNOWN, ..without }.step(at(3), now), Step::Take, "at once");
    }
}
