//! Routes over the end of a session and a refresh: which go, which stay stale, which are the last resort (RFC 4724, 7313,
//! 9494). Pure. Called with what `session` says.

use super::table::{Address, LONG_LIVED, Path, STALE};
use super::{PeerId, Rib, identity};
use crate::attribute::{Attributes, Community, Interner};
use crate::family::{Families, Family};
use crate::session::restart::Fate;

/// Says of a path that it is long-lived.
pub(super) fn mark(interner: &mut Interner, path: &mut Path) {
    if let Some(accepted) = &path.accepted {
        let mut set = Attributes::clone(accepted);
        set.add_community(Community::LLGR_STALE);
        path.accepted = Some(interner.intern(set));
    }
}

impl Rib {
    /// His session is over: his routes of the kept families are stale, the others go.
    pub fn down(&mut self, id: PeerId, kept: Families) {
        self.silent::<u32>(id);
        self.silent::<u128>(id);
        let Some(peer) = self.peer_mut(id) else { return };
        peer.session = None;
        for family in Family::ALL {
            let stale = kept.has(family);
            self.each_path(family, id, |path| {
                path.flags |= STALE;
                stale
            });
        }
    }

    /// What becomes of his stale routes.
    pub fn fate(&mut self, id: PeerId, fate: Fate) {
        match fate {
            Fate::Swept(family) => self.each_path(family, id, |path| path.flags & STALE == 0),
            Fate::LongLived(family) => self.long_lived(family, id),
        }
    }

    /// He tells all of a family again: what he has told is stale until he has.
    pub fn refresh_begins(&mut self, id: PeerId, family: Family) {
        self.each_path(family, id, |path| {
            path.flags |= STALE;
            true
        });
    }

    pub(super) fn each_path(&mut self, family: Family, id: PeerId, mut keep: impl FnMut(&mut Path) -> bool) {
        match family {
            Family::Ipv4Unicast => {
                (0..self.tables.v4.places()).for_each(|place| self.keep::<u32>(place, id, &mut keep));
            }
            Family::Ipv6Unicast => {
                (0..self.tables.v6.places()).for_each(|place| self.keep::<u128>(place, id, &mut keep));
            }
        }
    }

    /// RFC 9494 4.2: stale routes stay, marked, as the last resort; but those that are not to.
    fn long_lived(&mut self, family: Family, id: PeerId) {
        // As he told them, or as the filter says.
        let unwanted = |path: &Path| {
            let accepted = path.accepted.as_ref().is_some_and(|set| set.has(Community::NO_LLGR));
            accepted || path.received.has(Community::NO_LLGR)
        };
        self.each_path(family, id, |path| path.flags & STALE == 0 || !unwanted(path));
        match family {
            Family::Ipv4Unicast => self.mark_long_lived::<u32>(id),
            Family::Ipv6Unicast => self.mark_long_lived::<u128>(id),
        }
    }

    fn mark_long_lived<A: Address>(&mut self, id: PeerId) {
        for place in 0..A::table(&self.tables).places() {
            let entry = A::table_mut(&mut self.tables).get_mut(place);
            let before = identity(entry);
            let mut marked = false;
            for path in entry.paths.as_mut_slice().iter_mut().filter(|p| p.peer == id && p.flags & STALE != 0) {
                path.flags |= LONG_LIVED;
                marked = true;
                mark(&mut self.interner, path);
            }
            if marked {
                self.choose::<A>(place, before);
            }
        }
    }

    /// What he has been told is nothing any more.
    fn silent<A: Address>(&mut self, id: PeerId) {
        let Rib { tables, peers, .. } = self;
        let Some(peer) = peers.get_mut(usize::from(id.0)).and_then(|peer| peer.as_deref_mut()) else { return };
        let out = std::mem::take(&mut peer.out[A::FAMILY.index()]);
        let table = A::table_mut(tables);
        let mut next = out.advertised.next(0);
        let mut told: Vec<u32> = out.paths.into_keys().collect();
        while let Some(place) = next {
            told.push(place);
            next = out.advertised.next(place + 1);
        }
        for place in told {
            let entry = table.get_mut(place);
            entry.advertised = entry.advertised.saturating_sub(1);
            table.release(place);
        }
    }
}
