//! A neighbour: the connections with him, of which one stays, and what he says over it. Pure: inputs and the time in,
//! actions out, in the order to be done. Called by the loop and, in tests, by a simulated wire.

use super::config::{Config, Opening};
use super::fsm::{Event, Fsm, State, Step};
use super::negotiated::{Negotiated, judge};
use super::reason::Reason;
use super::restart::{Fate, Kept};
use super::{Time, Way};
use crate::family::{Families, Family};
use crate::message::notification::{Notification, cease, code, open as open_error};
use crate::message::open::Open;
use crate::message::refresh::{RouteRefresh, Subtype};
use crate::message::update::{self, Update};
use crate::message::{Coding, Frame, Kind, Message};

/// Between the end of a session whose configuration has changed and the next one.
const SHORT_REST: std::time::Duration = std::time::Duration::from_secs(1);

/// What happens beside messages.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The session is wanted.
    Start,
    /// It is not wanted any more, and why, for whoever runs the neighbour (RFC 9003).
    Stop(String),
    /// The neighbour is gone from the configuration.
    Deconfigured,
    /// A connection is there. One of the neighbour's waits for [`Action::Accept`] or [`Action::Refuse`].
    Connected(Way),
    /// A connection is gone, or could not be made.
    ConnectionLost(Way),
    /// BFD has lost him (RFC 9384).
    BfdDown,
    /// He has not taken for too long what was sent (RFC 9687).
    SendHoldTimerExpires,
    /// So many prefixes of a family has he told.
    Prefixes(Family, u32),
    /// It is later: asked for by [`Neighbour::due`].
    Time,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Begin a connection to him.
    Connect,
    /// The connection of his that waits is taken.
    Accept,
    /// It is not: send this and close it.
    Refuse(Vec<u8>),
    /// Send these bytes.
    Send(Way, Vec<u8>),
    /// Close the connection when what was sent is out.
    Close(Way),
    /// The session is there: routes may be sent over this connection.
    Up(Way, Box<Negotiated>),
    /// It is over. Routes of the families in `kept` stay, stale; others go.
    Down {
        /// Why.
        reason: Reason,
        /// Whose routes stay.
        kept: Families,
    },
    /// An attempt at a session came to nothing.
    Failed(Reason),
    /// What becomes of stale routes.
    Stale(Fate),
    /// He wants all routes of a family again.
    Resend(Family),
    /// He begins to tell all routes of a family again: what he has told is stale until he has told it again.
    RefreshBegins(Family),
    /// He has told all routes of a family.
    EndOfRib(Family),
}

/// A neighbour.
#[derive(Clone, Debug)]
pub struct Neighbour {
    config: Config,
    /// Whether a session is wanted.
    wanted: bool,
    /// What the next session is to him.
    opening: Opening,
    outgoing: Fsm,
    incoming: Option<Fsm>,
    kept: Kept,
    /// Of the session that is there.
    established: Option<(Way, Box<Negotiated>)>,
    /// Families that were given up in it (RFC 4760 7).
    disabled: Families,
    /// Families of which he has told all in it.
    told: Families,
    /// Families of which he is telling all again in it (RFC 7313).
    refreshing: Families,
}

impl Neighbour {
    /// Not wanted yet. `restarted`: routes of his are still in the kernel from before.
    pub fn new(config: Config, restarted: bool) -> Neighbour {
        let outgoing = Fsm::new(Way::Outgoing, &config);
        let opening = if restarted { Opening::Restarted } else { Opening::First };
        Neighbour {
            config,
            wanted: false,
            opening,
            outgoing,
            incoming: None,
            kept: Kept::default(),
            established: None,
            disabled: Families::NONE,
            told: Families::NONE,
            refreshing: Families::NONE,
        }
    }

    /// What is wanted of him.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How far the connection is that is furthest.
    pub fn state(&self) -> State {
        let incoming = self.incoming.as_ref().map_or(State::Idle, Fsm::state);
        self.outgoing.state().max(incoming)
    }

    /// When the rest of one who rests is over, or a connection of ours is tried again; none while there is one, or where
    /// nothing is done before something happens.
    pub fn next_try(&self) -> Option<Time> {
        let none = self.state() <= State::Active;
        self.outgoing.due().filter(|_| none)
    }

    /// Over whose connection the session is that is there.
    pub fn way(&self) -> Option<Way> {
        self.established.as_ref().map(|(way, _)| *way)
    }

    /// Whether there is none, and he is waited for: he restarts, and his routes are used meanwhile (RFC 4724).
    pub fn is_awaited(&self) -> bool {
        self.established.is_none() && self.kept.is_waiting()
    }

    /// Families of which he has told all in it.
    pub fn told(&self) -> Families {
        self.told
    }

    /// What holds in the session that is there.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.established.as_ref().map(|(_, negotiated)| &**negotiated)
    }

    /// Whether messages of more than 4096 bytes may come over a connection.
    pub fn extended(&self, way: Way) -> bool {
        self.fsm(way).and_then(Fsm::negotiated).is_some_and(|negotiated| negotiated.receive.extended_messages)
    }

    /// When [`Input::Time`] is next to be told.
    pub fn due(&self) -> Option<Time> {
        let incoming = self.incoming.as_ref().and_then(Fsm::due);
        [self.outgoing.due(), incoming, self.kept.due()].into_iter().flatten().min()
    }

    /// Does what an input asks for.
    pub fn step(&mut self, input: Input, now: Time) -> Vec<Action> {
        match input {
            Input::Start => {
                self.wanted = true;
                self.event(Way::Outgoing, Event::Start, now)
            }
            Input::Stop(text) => self.stop(&Notification::shutdown(cease::ADMINISTRATIVE_SHUTDOWN, &text), now),
            Input::Deconfigured => self.stop(&Notification::cease(cease::PEER_DECONFIGURED), now),
            // Routes by somebody who is not there are what BFD is to end.
            Input::BfdDown => self.end(&self.for_good(&Notification::cease(cease::BFD_DOWN)), now),
            Input::SendHoldTimerExpires => {
                self.end(&Notification::new(code::SEND_HOLD_TIMER_EXPIRED, 0, Vec::new()), now)
            }
            Input::Connected(Way::Outgoing) => self.event(Way::Outgoing, Event::TcpConnected, now),
            Input::Connected(Way::Incoming) => self.incoming(now),
            Input::ConnectionLost(way) => self.event(way, Event::TcpConnectionFails, now),
            Input::Prefixes(family, count) => self.prefixes(family, count, now),
            Input::Time => self.time(now),
        }
    }

    /// Something else is wanted of him: the session ends, for that, and begins anew by it. What is on its way to one begins
    /// anew, too: its sockets are as they were wanted before.
    pub fn reconfigure(&mut self, config: Config, now: Time) -> Vec<Action> {
        let mut actions = self.end(&Notification::cease(cease::CONFIGURATION_CHANGE), now);
        self.config = config;
        if self.incoming.take().is_some() {
            actions.push(Action::Close(Way::Incoming));
        }
        if self.outgoing.state() != State::Idle {
            actions.push(Action::Close(Way::Outgoing));
        }
        self.outgoing.rest_for(self.wanted.then_some(SHORT_REST), now);
        actions
    }

    /// A message of his. What it does to the session comes back, and an UPDATE for the routes' tables.
    pub fn received<'a>(&mut self, way: Way, frame: Frame<'a>, now: Time) -> (Vec<Action>, Option<Update<'a>>) {
        let event = match frame.kind {
            Kind::Update => return self.update(way, frame.body, now),
            Kind::RouteRefresh => return (self.refresh(way, frame.body, now), None),
            Kind::Open => return (self.open(way, frame.body, now), None),
            Kind::Keepalive => Event::KeepAliveMsg,
            Kind::Notification => {
                let malformed = Notification::new(0, 0, Vec::new());
                let notification = Notification::read(frame.body).unwrap_or(malformed);
                let version =
                    notification.code == code::OPEN_MESSAGE && notification.subcode == open_error::UNSUPPORTED_VERSION;
                if version { Event::NotifMsgVerErr(notification) } else { Event::NotifMsg(notification) }
            }
        };
        (self.event(way, event, now), None)
    }

    /// Bytes that are no message: what [`crate::message::frame`] says of them.
    pub fn broken(&mut self, way: Way, notification: Notification, now: Time) -> Vec<Action> {
        self.event(way, Event::MessageError(notification), now)
    }

    fn fsm(&self, way: Way) -> Option<&Fsm> {
        match way {
            Way::Outgoing => Some(&self.outgoing),
            Way::Incoming => self.incoming.as_ref(),
        }
    }

    fn state_of(&self, way: Way) -> State {
        self.fsm(way).map_or(State::Idle, Fsm::state)
    }

    /// Tells a machine, and does what follows for the neighbour as a whole.
    fn event(&mut self, way: Way, event: Event, now: Time) -> Vec<Action> {
        let fsm = match way {
            Way::Outgoing => &mut self.outgoing,
            Way::Incoming => match &mut self.incoming {
                Some(fsm) => fsm,
                None => return Vec::new(),
            },
        };
        let steps = fsm.step(&self.config, event, now);
        let mut actions = Vec::new();
        for step in steps {
            match step {
                Step::Connect => actions.push(Action::Connect),
                Step::SendOpen => {
                    let open = Message::Open(self.config.open(self.opening));
                    actions.push(Action::Send(way, open.write()));
                }
                Step::Send(message) => actions.push(Action::Send(way, message.write())),
                Step::Close => actions.push(Action::Close(way)),
                Step::Up(negotiated) => self.up(way, negotiated, now, &mut actions),
                Step::Down(reason) => self.down(way, reason, now, &mut actions),
            }
        }
        if way == Way::Incoming && self.state_of(way) == State::Idle {
            self.incoming = None;
        }
        actions
    }

    fn up(&mut self, way: Way, negotiated: Box<Negotiated>, now: Time, actions: &mut Vec<Action>) {
        let other = way.other();
        if self.state_of(other) != State::Idle {
            // An attempt that is not needed any more has not failed.
            let dumped = self.event(other, Event::OpenCollisionDump, now);
            actions.extend(dumped.into_iter().filter(|action| !matches!(action, Action::Failed(_))));
        }
        if way == Way::Incoming {
            // It waits, for as long as this session lasts.
            self.outgoing.rest_for(None, now);
        }
        self.opening = Opening::Another;
        (self.disabled, self.told, self.refreshing) = (Families::NONE, Families::NONE, Families::NONE);
        let fates = self.kept.back(&negotiated, self.config.restart.as_ref(), now);
        self.established = Some((way, negotiated.clone()));
        actions.push(Action::Up(way, negotiated));
        actions.extend(fates.into_iter().map(Action::Stale));
    }

    fn down(&mut self, way: Way, reason: Reason, now: Time, actions: &mut Vec<Action>) {
        let Some((_, negotiated)) = self.established.take_if(|(established, _)| *established == way) else {
            return actions.push(Action::Failed(reason));
        };
        let kept = Kept::families(&negotiated, &reason).without(self.disabled);
        actions.extend(self.kept.lost(&negotiated, kept, now).into_iter().map(Action::Stale));
        actions.push(Action::Down { reason, kept });
        if way == Way::Incoming && self.wanted {
            self.outgoing.rest(&self.config, now, true);
        }
    }

    /// A connection of his.
    fn incoming(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        let here = self.established.as_ref().map(|(way, negotiated)| (*way, negotiated.restarts()));
        match here {
            // RFC 4724 5: he has restarted, and the old connection does not know yet.
            Some((Way::Incoming, true)) => actions.extend(self.replaced(Way::Incoming, now)),
            // His OPEN will say whether it is him.
            Some((Way::Outgoing, true)) => {}
            Some(_) => return vec![refuse(cease::COLLISION)],
            None => {}
        }
        // Who rests is not disturbed; but whose routes are kept is waited for.
        let resting = self.outgoing.state() == State::Idle && here.is_none() && self.kept.due().is_none();
        if !self.wanted || resting || self.incoming.is_some() {
            return vec![refuse(cease::CONNECTION_REJECTED)];
        }
        let mut fsm = Fsm::new(Way::Incoming, &self.config);
        fsm.step(&self.config, Event::Start, now);
        self.incoming = Some(fsm);
        actions.push(Action::Accept);
        actions.extend(self.event(Way::Incoming, Event::TcpConnected, now));
        actions
    }

    /// The session over a connection ends because there is a new one; nothing is said over the old.
    fn replaced(&mut self, way: Way, now: Time) -> Vec<Action> {
        let mut actions = vec![Action::Close(way)];
        self.down(way, Reason::Replaced, now, &mut actions);
        if way == Way::Incoming {
            self.incoming = None;
        }
        // Should nothing come of the new one, ours is tried.
        self.outgoing.rest(&self.config, now, false);
        actions
    }

    fn open(&mut self, way: Way, body: &[u8], now: Time) -> Vec<Action> {
        let judged = Open::read(body).and_then(|open| judge(&self.config, &open));
        let negotiated = match judged {
            Ok(negotiated) => Box::new(negotiated),
            Err(notification) => return self.event(way, Event::MessageError(notification), now),
        };
        let mut actions = Vec::new();
        if self.state_of(way) <= State::OpenSent {
            match self.state_of(way.other()) {
                State::OpenConfirm if self.survivor(&negotiated) == way => {
                    actions.extend(self.event(way.other(), Event::OpenCollisionDump, now));
                }
                State::OpenConfirm => return self.event(way, Event::OpenCollisionDump, now),
                State::Established if self.negotiated().is_some_and(Negotiated::restarts) => {
                    actions.extend(self.replaced(way.other(), now));
                }
                State::Established => return self.event(way, Event::OpenCollisionDump, now),
                _ => {}
            }
        }
        actions.extend(self.event(way, Event::BgpOpen(negotiated), now));
        actions
    }

    /// Of two connections that which the speaker with the higher identifier began; of equal ones the higher AS (RFC 6286).
    fn survivor(&self, his: &Negotiated) -> Way {
        let ours = (u32::from(self.config.identifier), self.config.local_as);
        if ours > (u32::from(his.identifier), his.number) { Way::Outgoing } else { Way::Incoming }
    }

    fn update<'a>(&mut self, way: Way, body: &'a [u8], now: Time) -> (Vec<Action>, Option<Update<'a>>) {
        let Some((_, negotiated)) = self.established.as_ref().filter(|(established, _)| *established == way) else {
            return (self.event(way, Event::UpdateMsg, now), None);
        };
        let receive = negotiated.receive;
        let coding = Coding { families: receive.families.without(self.disabled), ..receive };
        let update = match update::read(body, &coding) {
            Ok(update) => update,
            Err(notification) => return (self.event(way, Event::UpdateMsgErr(notification), now), None),
        };
        let mut actions = self.event(way, Event::UpdateMsg, now);
        self.disabled.extend(update.disabled.iter());
        if let Some(family) = update.end_of_rib.filter(|family| coding.families.has(*family)) {
            self.told.insert(family);
            actions.extend(self.kept.told(family).map(Action::Stale));
            actions.push(Action::EndOfRib(family));
        }
        (actions, Some(update))
    }

    fn refresh(&mut self, way: Way, body: &[u8], now: Time) -> Vec<Action> {
        let here = self.established.as_ref().is_some_and(|(established, _)| *established == way);
        let refresh = match RouteRefresh::read(body) {
            Ok(refresh) => refresh,
            Err(_) if !here => None,
            Err(notification) => return self.event(way, Event::UpdateMsgErr(notification), now),
        };
        let mut actions = self.event(way, Event::RouteRefreshMsg, now);
        let Some(negotiated) = self.negotiated() else { return actions };
        let carried = |refresh: &RouteRefresh| refresh.family.family().filter(|f| negotiated.families().has(*f));
        let (enhanced, restart) = (negotiated.enhanced_refresh, negotiated.restart.is_some());
        if let Some((refresh, family)) = refresh.and_then(|refresh| Some((refresh, carried(&refresh)?))) {
            actions.extend(match refresh.subtype {
                Subtype::Request => Some(Action::Resend(family)),
                // RFC 7313 4: none before End-of-RIB, and no end without a beginning.
                Subtype::Begin if enhanced && (!restart || self.told.has(family)) => {
                    self.refreshing.insert(family);
                    Some(Action::RefreshBegins(family))
                }
                Subtype::End if enhanced && self.refreshing.has(family) => {
                    self.refreshing.remove(family);
                    Some(Action::Stale(Fate::Swept(family)))
                }
                _ => None,
            });
        }
        actions
    }

    fn time(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        for way in Way::BOTH {
            loop {
                let fsm = match way {
                    Way::Outgoing => Some(&mut self.outgoing),
                    Way::Incoming => self.incoming.as_mut(),
                };
                let Some(event) = fsm.and_then(|fsm| fsm.expired(now)) else { break };
                actions.extend(self.event(way, event, now));
            }
        }
        actions.extend(self.kept.expired(now).into_iter().map(Action::Stale));
        actions
    }

    /// More prefixes than are allowed end the session, and it rests for as long as the limit says (RFC 4486 4).
    fn prefixes(&mut self, family: Family, count: u32, now: Time) -> Vec<Action> {
        let limit = self.config.prefix_limits[family.index()].filter(|limit| count > limit.most);
        let (Some(limit), true) = (limit, self.established.is_some()) else { return Vec::new() };
        let wire = family.wire();
        let data = [&wire.afi.to_be_bytes()[..], &[wire.safi], &limit.most.to_be_bytes()].concat();
        let actions = self.end(&self.for_good(&Notification::new(code::CEASE, cease::MAXIMUM_PREFIXES, data)), now);
        self.outgoing.rest_for(limit.restart, now);
        actions
    }

    /// A NOTIFICATION after which no routes are kept (RFC 8538 3).
    fn for_good(&self, notification: &Notification) -> Notification {
        let restart = self.negotiated().is_some_and(|negotiated| negotiated.restart_on_notification);
        if restart { notification.hard() } else { notification.clone() }
    }

    fn end(&mut self, notification: &Notification, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        for way in Way::BOTH.into_iter().filter(|way| self.state_of(*way) >= State::OpenSent).collect::<Vec<_>>() {
            actions.extend(self.event(way, Event::AutomaticStop(notification.clone()), now));
        }
        actions
    }

    fn stop(&mut self, notification: &Notification, now: Time) -> Vec<Action> {
        self.wanted = false;
        let notification = self.for_good(notification);
        let mut actions = Vec::new();
        for way in Way::BOTH {
            if self.state_of(way) != State::Idle {
                actions.extend(self.event(way, Event::ManualStop(notification.clone()), now));
            }
        }
        self.outgoing.rest_for(None, now);
        actions.extend(self.kept.forget().into_iter().map(Action::Stale));
        actions
    }
}

fn refuse(subcode: u8) -> Action {
    Action::Refuse(Message::Notification(Notification::cease(subcode)).write())
}
