//! Who has a place at a listener, and who gives way when there is none left. Pure; called by `table`.
//!
//! A connection is a stranger until its peer is known: by a certificate that was checked, or because a request was
//! authenticated. When all places are taken, a stranger that does nothing gives way to the newcomer: first one that
//! has not sent a byte, then one that has not asked anything, then one that was answered and keeps its connection
//! open; of these the oldest, of the address that has most of them. So a flood of silent connections pushes itself
//! out. After the strangers come known peers that ask nothing. A connection with a running request stays.
//!
//! The newcomer has its place at once, while the other closes: waiting for each would make the port as slow as the
//! process is busy, and its queue would overflow. So a few more than the limit may be open for a moment.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// A connection's number.
pub type Id = u64;

/// What a connection does, in the order in which they give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It has not sent a byte.
    Mute,
    /// It has sent something, but no whole request.
    Silent,
    /// It was answered and asks nothing.
    Idle,
    /// A request runs, or it was upgraded.
    Busy,
}

/// Whose connections are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum From {
    /// This host: everything on it comes from there, so no share of the places is too large.
    Host,
    /// Another host: its IPv4 address, or the /64 of its IPv6 address.
    Address(IpAddr),
}

impl From {
    /// Whose a connection is by the addresses of its ends.
    pub fn of(peer: IpAddr, local: IpAddr) -> From {
        let (peer, local) = (peer.to_canonical(), local.to_canonical());
        if peer.is_loopback() || peer == local {
            return From::Host;
        }
        match peer {
            IpAddr::V4(_) => From::Address(peer),
            // One host has a whole network of these.
            IpAddr::V6(all) => From::Address(IpAddr::V6((u128::from(all) >> 64 << 64).into())),
        }
    }
}

/// Whether a newcomer may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// There was room.
    Admitted(Id),
    /// The first has the place of the second, which has to be closed.
    Instead(Id, Id),
    /// Enough were told to close and have not yet.
    Wait,
    /// There is no room, and nobody has to give way.
    Full,
}

#[derive(Debug)]
struct Member {
    from: From,
    stage: Stage,
    known: bool,
    leaving: bool,
    /// When it came to this stage, by the crowd's own count.
    since: u64,
}

/// The strangers of an address.
#[derive(Debug, Default)]
struct Group {
    members: usize,
    leaving: usize,
    yielding: BTreeSet<(Stage, u64, Id)>,
}

/// The connections of a listener.
#[derive(Debug)]
pub struct Crowd {
    limit: usize,
    per_address: usize,
    most_leaving: usize,
    members: HashMap<Id, Member>,
    strangers: HashMap<From, Group>,
    /// Known ones that ask nothing.
    known: BTreeSet<(Stage, u64, Id)>,
    leaving: usize,
    count: u64,
}

/// Strangers of one address get one place in so many.
const ADDRESS_SHARE: usize = 4;
/// For so many places one more connection may be open that was told to close.
const LEAVING_SHARE: usize = 8;

impl Crowd {
    /// An empty one of `limit` places; shares of an address and of those that leave follow from it.
    pub fn new(limit: usize) -> Crowd {
        Crowd {
            limit,
            per_address: limit.div_ceil(ADDRESS_SHARE),
            most_leaving: limit.div_ceil(LEAVING_SHARE),
            members: HashMap::new(),
            strangers: HashMap::new(),
            known: BTreeSet::new(),
            leaving: 0,
            count: 0,
        }
    }

    /// How many have a place, those that were told to close included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// A connection from there asks for a place.
    pub fn enter(&mut self, from: From) -> Entry {
        let own = self.strangers.get(&from).filter(|group| {
            // The host's own have no share.
            from != From::Host && group.members - group.leaving >= self.per_address
        });
        let full = self.members.len() - self.leaving >= self.limit;
        if own.is_none() && !full {
            return Entry::Admitted(self.admit(from));
        }
        if self.leaving >= self.most_leaving {
            return Entry::Wait;
        }
        let chosen = match own {
            Some(group) => group.yielding.first().copied(),
            None => self.least_missed(),
        };
        match self.close(chosen) {
            Some(other) => Entry::Instead(self.admit(from), other),
            None => Entry::Full,
        }
    }

    fn admit(&mut self, from: From) -> Id {
        self.count += 1;
        let (id, since) = (self.count, self.count);
        let member = Member { from, stage: Stage::Mute, known: false, leaving: false, since };
        self.members.insert(id, member);
        let group = self.strangers.entry(from).or_default();
        group.members += 1;
        group.yielding.insert((Stage::Mute, since, id));
        id
    }

    /// Somebody has to be closed, whoever asks: the one that is missed least.
    pub fn shed(&mut self) -> Option<Id> {
        self.close(self.least_missed())
    }

    fn least_missed(&self) -> Option<(Stage, u64, Id)> {
        let heaviest = self.strangers.values().max_by_key(|group| group.yielding.len());
        let stranger = heaviest.and_then(|group| group.yielding.first());
        stranger.or_else(|| self.known.first()).copied()
    }

    fn close(&mut self, chosen: Option<(Stage, u64, Id)>) -> Option<Id> {
        let entry = chosen?;
        let member = self.members.get_mut(&entry.2)?;
        member.leaving = true;
        self.leaving += 1;
        if member.known {
            self.known.remove(&entry);
        } else if let Some(group) = self.strangers.get_mut(&member.from) {
            group.yielding.remove(&entry);
            group.leaving += 1;
        }
        Some(entry.2)
    }

    /// It does something else now.
    pub fn stage(&mut self, id: Id, stage: Stage) {
        let Some(member) = self.members.get_mut(&id).filter(|m| !m.leaving && m.stage != stage) else { return };
        self.count += 1;
        let before = (member.stage, member.since, id);
        (member.stage, member.since) = (stage, self.count);
        let set = match member.known {
            true => &mut self.known,
            false => &mut self.strangers.entry(member.from).or_default().yielding,
        };
        set.remove(&before);
        if stage != Stage::Busy {
            set.insert((stage, self.count, id));
        }
    }

    /// Its peer is known from now on.
    pub fn know(&mut self, id: Id) {
        let Some(member) = self.members.get_mut(&id).filter(|m| !m.leaving && !m.known) else { return };
        member.known = true;
        let (from, entry) = (member.from, (member.stage, member.since, id));
        if entry.0 != Stage::Busy {
            self.known.insert(entry);
        }
        self.part(from, entry, false);
    }

    /// It is closed.
    pub fn leave(&mut self, id: Id) {
        let Some(member) = self.members.remove(&id) else { return };
        self.leaving -= usize::from(member.leaving);
        let entry = (member.stage, member.since, id);
        match member.known {
            true => drop(self.known.remove(&entry)),
            false => self.part(member.from, entry, member.leaving),
        }
    }

    /// A stranger less.
    fn part(&mut self, from: From, entry: (Stage, u64, Id), leaving: bool) {
        let Some(group) = self.strangers.get_mut(&from) else { return };
        group.members -= 1;
        group.leaving -= usize::from(leaving);
        group.yielding.remove(&entry);
        if group.members == 0 {
            self.strangers.remove(&from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> From {
        From::Address(IpAddr::from([10, 0, 0, last]))
    }

    fn admitted(crowd: &mut Crowd, from: From) -> Id {
        match crowd.enter(from) {
            Entry::Admitted(id) => id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flood_of_silent_connections_pushes_itself_out() {
        let mut crowd = Crowd::new(8);
        let honest = admitted(&mut crowd, From::Host);
        crowd.stage(honest, Stage::Silent);
        let flood: Vec<Id> = (0..7).map(|_| admitted(&mut crowd, From::Host)).collect();
        // Who is in the middle of a handshake stays; the oldest that is mute goes, and is not waited for.
        let Entry::Instead(next, first) = crowd.enter(From::Host) else { panic!("a place") };
        assert_eq!((first, crowd.len()), (flood[0], 9));
        // No more than one of eight is on its way out.
        assert_eq!(crowd.enter(From::Host), Entry::Wait);
        crowd.leave(flood[0]);
        assert!(matches!(crowd.enter(From::Host), Entry::Instead(_, other) if other == flood[1]));
        crowd.leave(flood[1]);
        assert_eq!(crowd.len(), 8);
        crowd.leave(next);
        assert!(matches!(crowd.enter(From::Host), Entry::Admitted(_)), "there is a place");
    }

    #[test]
    fn strangers_of_one_address_have_a_quarter_and_their_own_give_way() {
        let mut crowd = Crowd::new(8);
        let (first, second) = (admitted(&mut crowd, address(1)), admitted(&mut crowd, address(1)));
        let Entry::Instead(third, other) = crowd.enter(address(1)) else { panic!("a place") };
        assert_eq!(other, first);
        crowd.leave(first);
        crowd.stage(second, Stage::Busy);
        crowd.stage(third, Stage::Busy);
        assert_eq!(crowd.enter(address(1)), Entry::Full, "who works is not disturbed");
        assert!(matches!(crowd.enter(address(2)), Entry::Admitted(_)), "others are none the worse");
        crowd.know(second);
        assert!(matches!(crowd.enter(address(1)), Entry::Admitted(_)), "known peers don't count");
    }

    #[test]
    fn the_busiest_address_gives_way_to_a_new_one_and_known_peers_last() {
        let mut crowd = Crowd::new(4);
        let known = admitted(&mut crowd, address(1));
        crowd.know(known);
        crowd.stage(known, Stage::Idle);
        let lone = admitted(&mut crowd, address(2));
        let pair = [admitted(&mut crowd, From::Host), admitted(&mut crowd, From::Host)];
        let mut gone = Vec::new();
        for last in 10..14 {
            let Entry::Instead(next, other) = crowd.enter(address(last)) else { panic!("a place") };
            crowd.leave(other);
            crowd.stage(next, Stage::Busy);
            gone.push(other);
        }
        assert_eq!((gone[0], gone[3]), (pair[0], known));
        // Between two addresses with one each either may go.
        assert!(gone.contains(&lone) && gone.contains(&pair[1]));
        assert_eq!(crowd.enter(address(9)), Entry::Full);
    }

    #[test]
    fn whose_a_connection_is() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(From::of(ip("127.0.0.1"), ip("127.0.0.1")), From::Host);
        assert_eq!(From::of(ip("10.1.2.3"), ip("10.1.2.3")), From::Host, "the node's own address");
        assert_eq!(From::of(ip("::ffff:10.1.2.3"), ip("::1")), From::Address(ip("10.1.2.3")));
        assert_eq!(From::of(ip("fd00::1:2"), ip("::1")), From::of(ip("fd00::3:4"), ip("::1")), "one network");
    }

    #[test]
    fn the_books_balance_whatever_happens() {
        let mut crowd = Crowd::new(16);
        let mut here: Vec<Id> = Vec::new();
        let mut seed = 7_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (what, which) = (seed >> 60, (seed >> 33) as usize);
            let some = (!here.is_empty()).then(|| which % here.len().max(1));
            match (what, some) {
                (0..=6, _) => match crowd.enter(if which % 5 == 0 { From::Host } else { address((which % 5) as u8) }) {
                    Entry::Admitted(id) => here.push(id),
                    Entry::Instead(id, gone) => {
                        here.retain(|other| *other != gone);
                        here.push(id);
                        crowd.leave(gone);
                    }
                    Entry::Wait => panic!("nobody is leaving"),
                    Entry::Full => {}
                },
                (7, Some(at)) => crowd.know(here[at]),
                (8..=12, Some(at)) => {
                    let stages = [Stage::Silent, Stage::Idle, Stage::Busy];
                    crowd.stage(here[at], stages[which / 16 % 3]);
                }
                (_, Some(at)) => crowd.leave(here.swap_remove(at)),
                _ => {}
            }
            assert!(crowd.len() <= 16 && crowd.len() == here.len());
        }
        here.into_iter().for_each(|id| crowd.leave(id));
        assert!(crowd.len() == 0 && crowd.strangers.is_empty() && crowd.known.is_empty() && crowd.leaving == 0);
    }
}
