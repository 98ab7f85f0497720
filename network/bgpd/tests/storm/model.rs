//! What the answer must be: the pure speaker hears the same bytes, and what it says is held against a table of its own, by
//! RFC 4271, 6608, 7313 and 7606.

use std::collections::BTreeSet;

use bgp::family::Family;
use bgp::message::notification::{Notification, code};
use bgp::message::update::Update;
use bgp::message::{HEADER, Kind, frame};
use bgp::session::restart::Fate;
use bgp::session::{Action, Config, Input, Neighbour, State, Time, Way};
use meta::Prefix;

/// How a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With these words.
    Said(Notification),
    /// Without any: a NOTIFICATION is not answered.
    Silent,
}

/// A connection as the pure speaker sees it.
pub struct Model {
    session: Neighbour,
    rest: Vec<u8>,
    /// Messages that were taken, by type.
    pub taken: [u64; 5],
    /// UPDATEs with an error that cost no session.
    pub faults: u64,
    routes: BTreeSet<(usize, Prefix)>,
    /// Routes that a refresh has not told again yet.
    stale: BTreeSet<(usize, Prefix)>,
}

impl Model {
    pub fn new(config: &Config) -> Model {
        let mut session = Neighbour::new(config.clone(), false);
        session.step(Input::Start, Time::ZERO);
        session.step(Input::Connected(Way::Incoming), Time::ZERO);
        let (routes, stale) = (BTreeSet::new(), BTreeSet::new());
        Model { session, rest: Vec::new(), taken: [0; 5], faults: 0, routes, stale }
    }

    /// Prefixes of both families that are told now.
    pub fn told(&self) -> [usize; 2] {
        Family::ALL.map(|family| self.routes.iter().filter(|(at, _)| *at == family.index()).count())
    }

    /// Hears bytes, until they end the connection.
    pub fn hear(&mut self, bytes: &[u8]) -> Option<End> {
        self.rest.extend_from_slice(bytes);
        let whole = std::mem::take(&mut self.rest);
        let mut at = 0;
        loop {
            let state = self.session.state();
            let here = &whole[at..];
            let (actions, length) = match frame(here, self.session.extended(Way::Incoming)) {
                Ok(None) => {
                    self.rest = here.to_vec();
                    return None;
                }
                Ok(Some((frame, length))) => {
                    self.taken[frame.kind as usize - 1] += 1;
                    let (actions, update) = self.session.received(Way::Incoming, frame, Time::ZERO);
                    if let Some(update) = update {
                        self.routes_of(&update);
                    }
                    (actions, length)
                }
                Err(notification) => (self.session.broken(Way::Incoming, notification, Time::ZERO), 0),
            };
            at += length;
            if let Some(end) = self.act(&actions) {
                assert!(is_right(state, here, &end), "in {state:?}, {end:?} to {here:02x?}");
                return Some(end);
            }
        }
    }

    fn routes_of(&mut self, update: &Update<'_>) {
        self.faults += update.faults.len() as u64;
        for list in update.withdrawn() {
            for route in list.iter() {
                self.gone((list.family().index(), route.prefix));
            }
        }
        for (_, list) in update.announced() {
            for route in list.iter() {
                self.stale.remove(&(list.family().index(), route.prefix));
                self.routes.insert((list.family().index(), route.prefix));
            }
        }
        for family in update.disabled.iter() {
            self.routes.retain(|(at, _)| *at != family.index());
        }
    }

    fn gone(&mut self, route: (usize, Prefix)) {
        self.routes.remove(&route);
        self.stale.remove(&route);
    }

    fn act(&mut self, actions: &[Action]) -> Option<End> {
        let (mut said, mut closed) = (None, false);
        for action in actions {
            match action {
                Action::Send(Way::Incoming, bytes) if bytes[18] == Kind::Notification as u8 => {
                    said = Notification::read(&bytes[HEADER..]);
                }
                Action::Close(Way::Incoming) => closed = true,
                Action::RefreshBegins(family) => {
                    let all = self.routes.iter().filter(|(at, _)| *at == family.index());
                    self.stale.extend(all.copied().collect::<Vec<_>>());
                }
                Action::Stale(Fate::Swept(family)) => {
                    let swept: Vec<_> = self.stale.iter().filter(|(at, _)| *at == family.index()).copied().collect();
                    swept.into_iter().for_each(|route| self.gone(route));
                }
                _ => {}
            }
        }
        closed.then(|| said.map_or(End::Silent, End::Said))
    }
}

/// Whether an answer is one that the RFCs have for a message; `bytes` begin with it.
fn is_right(state: State, bytes: &[u8], end: &End) -> bool {
    let said = match end {
        End::Said(notification) => (notification.code, notification.subcode),
        End::Silent => return bytes.get(18) == Some(&(Kind::Notification as u8)),
    };
    let marker = bytes.len().min(16);
    if bytes[..marker] != [0xff; 16][..marker] {
        return said == (code::MESSAGE_HEADER, 1);
    }
    let (length, kind) = (usize::from(u16::from_be_bytes([bytes[16], bytes[17]])), bytes[18]);
    let least = match kind {
        1 => 29,
        2 | 5 => 23,
        3 => 21,
        4 => 19,
        _ => return said == (code::MESSAGE_HEADER, 3) || length < HEADER && said == (code::MESSAGE_HEADER, 2),
    };
    // Longer ones may come where this speaker has said so (RFC 8654), but for these two.
    let most = match kind {
        1 => 4096,
        4 => HEADER,
        _ if state > State::OpenSent => 65535,
        _ => 4096,
    };
    if kind == 5 && (HEADER..least).contains(&length) {
        return said == (code::ROUTE_REFRESH_MESSAGE, 1);
    }
    if !(least..=most).contains(&length) {
        return said == (code::MESSAGE_HEADER, 2);
    }
    let unexpected = match state {
        State::OpenSent => 1,
        State::OpenConfirm => 2,
        _ => 3,
    };
    let not_now = said == (code::FINITE_STATE_MACHINE, unexpected);
    match (kind, said) {
        (1, (code::OPEN_MESSAGE, sub)) => matches!(sub, 0..=4 | 6 | 7 | 11),
        (1, _) => state > State::OpenSent && not_now,
        // RFC 7606 3: all other errors are lived with.
        (2, (code::UPDATE_MESSAGE, sub)) => state == State::Established && matches!(sub, 1 | 2 | 9 | 10),
        (5, (code::ROUTE_REFRESH_MESSAGE, 1)) => state == State::Established,
        (2 | 4 | 5, _) => state < State::Established && not_now,
        _ => false,
    }
}
