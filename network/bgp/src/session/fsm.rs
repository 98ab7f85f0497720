//! The state machine of one connection (RFC 4271 8.2.2), with all of its events and timers. Pure: an event and the time
//! in, actions out. Called by [`super::neighbour`], which has two.
//!
//! ```text
//!  Idle ──start──► Connect ◄──retry──► Active        DelayOpen waits in either
//!                     └──────TCP──────────┴──► OpenSent ──OPEN──► OpenConfirm ──KEEPALIVE──► Established
//!  a connection that can't be made ──► Active, for the ConnectRetryTimer
//!  every other error, stop and expiry ──► Idle, for as long as the IdleHoldTimer says
//! ```

use std::time::Duration;

use super::config::{Config, LARGE_HOLD};
use super::negotiated::Negotiated;
use super::reason::Reason;
use super::{Time, Way};
use crate::message::notification::{Notification, cease, code};
use crate::message::{Kind, Message};

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the words of RFC 4271")]
pub enum State {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

/// What happens to it (RFC 4271 8.1). Events 3 to 7 are [`Event::Start`] with what the configuration says; 14 and 15 are
/// the listener's, who lets in or doesn't.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// 1, 3, 4, 5, 6, 7: ManualStart, AutomaticStart, each also passive and damped.
    Start,
    /// 2: ManualStop, with what the neighbour is told.
    ManualStop(Notification),
    /// 8: AutomaticStop.
    AutomaticStop(Notification),
    /// 9.
    ConnectRetryTimerExpires,
    /// 10.
    HoldTimerExpires,
    /// 11.
    KeepaliveTimerExpires,
    /// 12.
    DelayOpenTimerExpires,
    /// 13.
    IdleHoldTimerExpires,
    /// 16 and 17: TcpCrAcked, TcpConnectionConfirmed.
    TcpConnected,
    /// 18.
    TcpConnectionFails,
    /// 19 and 20: BGPOpen, without and with the DelayOpenTimer running. It has been judged.
    BgpOpen(Box<Negotiated>),
    /// 21 and 22: BGPHeaderErr, BGPOpenMsgErr.
    MessageError(Notification),
    /// 23.
    OpenCollisionDump,
    /// 24.
    NotifMsgVerErr(Notification),
    /// 25.
    NotifMsg(Notification),
    /// 26.
    KeepAliveMsg,
    /// 27.
    UpdateMsg,
    /// A ROUTE-REFRESH, which RFC 4271 does not know: where an UPDATE may come, it may.
    RouteRefreshMsg,
    /// 28.
    UpdateMsgErr(Notification),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Begin a connection.
    Connect,
    /// Send our OPEN.
    SendOpen,
    /// Send a message.
    Send(Message),
    /// Close the connection, once what was sent is out.
    Close,
    /// Routes may flow.
    Up(Box<Negotiated>),
    /// The session is over, or the attempt at one.
    Down(Reason),
}

/// When what is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Timers {
    connect_retry: Option<Time>,
    hold: Option<Time>,
    keepalive: Option<Time>,
    delay_open: Option<Time>,
    idle_hold: Option<Time>,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Fsm {
    way: Way,
    state: State,
    timers: Timers,
    /// ConnectRetryCounter: failures since the last session that was good.
    failures: u32,
    /// Since when it is Established.
    since: Time,
    negotiated: Option<Box<Negotiated>>,
    chance: u64,
}

impl Fsm {
    /// Idle.
    pub fn new(way: Way, config: &Config) -> Fsm {
        Fsm {
            way,
            state: State::Idle,
            timers: Timers::default(),
            failures: 0,
            since: Time::ZERO,
            negotiated: None,
            chance: config.seed ^ 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// What holds, once an OPEN has been taken.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_deref()
    }

    /// When it wants to be asked again.
    pub fn due(&self) -> Option<Time> {
        let t = &self.timers;
        [t.connect_retry, t.hold, t.keepalive, t.delay_open, t.idle_hold].into_iter().flatten().min()
    }

    /// The event of a timer that has run out, once.
    pub fn expired(&mut self, now: Time) -> Option<Event> {
        let t = &mut self.timers;
        let all = [
            (&mut t.hold, Event::HoldTimerExpires),
            (&mut t.keepalive, Event::KeepaliveTimerExpires),
            (&mut t.delay_open, Event::DelayOpenTimerExpires),
            (&mut t.connect_retry, Event::ConnectRetryTimerExpires),
            (&mut t.idle_hold, Event::IdleHoldTimerExpires),
        ];
        let (timer, event) = all.into_iter().find(|(timer, _)| timer.is_some_and(|due| due <= now))?;
        *timer = None;
        Some(event)
    }

    /// Does what an event asks for.
    pub fn step(&mut self, config: &Config, event: Event, now: Time) -> Vec<Step> {
        match self.state {
            State::Idle => self.idle(config, &event, now),
            State::Connect | State::Active => self.connecting(config, event, now),
            State::OpenSent => self.open_sent(config, event, now),
            State::OpenConfirm => self.open_confirm(config, event, now),
            State::Established => self.established(config, event, now),
        }
    }

    /// Rests as if it had failed: a session over the other connection has.
    pub fn rest(&mut self, config: &Config, now: Time, failed: bool) {
        self.enter_idle();
        self.failures += u32::from(failed);
        self.timers.idle_hold = Some(now + self.rest_time(config));
    }

    /// Rests for this long, whatever failed; none is until it is started.
    pub fn rest_for(&mut self, rest: Option<Duration>, now: Time) {
        self.enter_idle();
        self.timers.idle_hold = rest.map(|rest| now + rest);
    }

    fn idle(&mut self, config: &Config, event: &Event, now: Time) -> Vec<Step> {
        // 6 and 7: what rests is not started but by hand, and that is this.
        if !matches!(event, Event::Start | Event::IdleHoldTimerExpires) {
            return Vec::new();
        }
        if matches!(event, Event::Start) {
            self.failures = 0;
        }
        self.timers.idle_hold = None;
        if config.passive || self.way == Way::Incoming {
            self.state = State::Active;
            return Vec::new();
        }
        self.state = State::Connect;
        self.timers.connect_retry = Some(now + self.jitter(config.connect_retry));
        vec![Step::Connect]
    }

    /// Connect and Active: they differ in what a failed connection leads to.
    fn connecting(&mut self, config: &Config, event: Event, now: Time) -> Vec<Step> {
        match event {
            Event::Start | Event::IdleHoldTimerExpires => Vec::new(),
            Event::ManualStop(_) => self.stop(None),
            Event::ConnectRetryTimerExpires if self.way == Way::Outgoing && !config.passive => {
                let close = (self.state == State::Connect).then_some(Step::Close);
                self.timers = Timers::default();
                self.timers.connect_retry = Some(now + self.jitter(config.connect_retry));
                self.state = State::Connect;
                close.into_iter().chain([Step::Connect]).collect()
            }
            Event::DelayOpenTimerExpires => self.send_open(now),
            Event::TcpConnected => match config.delay_open {
                Some(delay) => {
                    self.timers.connect_retry = None;
                    self.timers.delay_open = Some(now + delay);
                    Vec::new()
                }
                None => self.send_open(now),
            },
            Event::TcpConnectionFails if self.state == State::Connect && self.timers.delay_open.is_some() => {
                self.timers = Timers::default();
                self.timers.connect_retry = Some(now + self.jitter(config.connect_retry));
                self.state = State::Active;
                vec![Step::Close]
            }
            // RFC 4271 8.2.2 says Idle, where his connections are refused: one who can't be reached but connects himself
            // would never be met. BIRD and FRR wait for him, too.
            Event::TcpConnectionFails if self.way == Way::Outgoing && self.state == State::Connect => {
                self.wait(config, Reason::ConnectionFailed, now)
            }
            Event::TcpConnectionFails => self.fail(config, None, Reason::ConnectionFailed, now),
            Event::BgpOpen(negotiated) if self.timers.delay_open.is_some() => {
                self.timers = Timers::default();
                let mut steps = vec![Step::SendOpen];
                steps.extend(self.confirm(config, negotiated, now));
                steps
            }
            Event::MessageError(notification) => {
                self.fail(config, Some(notification.clone()), Reason::Sent(notification), now)
            }
            Event::NotifMsgVerErr(notification) if self.timers.delay_open.is_some() => {
                self.fail_uncounted(config, None, Reason::Received(notification), now)
            }
            Event::NotifMsg(notification) | Event::NotifMsgVerErr(notification) => {
                self.fail(config, None, Reason::Received(notification), now)
            }
            _ => self.fail(config, None, Reason::ConnectionLost, now),
        }
    }

    fn open_sent(&mut self, config: &Config, event: Event, now: Time) -> Vec<Step> {
        match event {
            // Back to waiting, not to Idle (RFC 4271 8.2.2).
            Event::TcpConnectionFails if self.way == Way::Outgoing => self.wait(config, Reason::ConnectionLost, now),
            Event::BgpOpen(negotiated) => self.confirm(config, negotiated, now),
            other => self.common(config, other, 1, now),
        }
    }

    fn open_confirm(&mut self, config: &Config, event: Event, now: Time) -> Vec<Step> {
        match event {
            Event::KeepaliveTimerExpires => self.keepalive(config, now),
            Event::KeepAliveMsg => {
                self.state = State::Established;
                self.since = now;
                self.alive(now);
                self.negotiated.clone().map(Step::Up).into_iter().collect()
            }
            other => self.common(config, other, 2, now),
        }
    }

    fn established(&mut self, config: &Config, event: Event, now: Time) -> Vec<Step> {
        match event {
            Event::KeepaliveTimerExpires => self.keepalive(config, now),
            Event::KeepAliveMsg | Event::UpdateMsg | Event::RouteRefreshMsg => {
                self.alive(now);
                Vec::new()
            }
            Event::UpdateMsgErr(notification) => {
                self.fail(config, Some(notification.clone()), Reason::Sent(notification), now)
            }
            other => self.common(config, other, 3, now),
        }
    }

    /// What is the same in the three states with an OPEN under way; `state` is the subcode of what is not.
    fn common(&mut self, config: &Config, event: Event, state: u8, now: Time) -> Vec<Step> {
        let notify = |fsm: &mut Fsm, notification: Notification| {
            fsm.fail(config, Some(notification.clone()), Reason::Sent(notification), now)
        };
        match event {
            Event::Start | Event::IdleHoldTimerExpires | Event::TcpConnected => Vec::new(),
            Event::ManualStop(notification) => self.stop(Some(notification)),
            Event::AutomaticStop(notification) | Event::MessageError(notification) => notify(self, notification),
            Event::HoldTimerExpires => notify(self, Notification::new(code::HOLD_TIMER_EXPIRED, 0, Vec::new())),
            Event::OpenCollisionDump => {
                let notification = Notification::cease(cease::COLLISION);
                self.fail_uncounted(config, Some(notification.clone()), Reason::Sent(notification), now)
            }
            Event::TcpConnectionFails => self.fail(config, None, Reason::ConnectionLost, now),
            Event::NotifMsg(notification) if self.is_refusal(&notification) => {
                self.wait(config, Reason::Received(notification), now)
            }
            Event::NotifMsg(notification) => self.fail(config, None, Reason::Received(notification), now),
            // Of an OPEN, no failure of this speaker's: not damped.
            Event::NotifMsgVerErr(notification) if self.state < State::Established => {
                self.fail_uncounted(config, None, Reason::Received(notification), now)
            }
            Event::NotifMsgVerErr(notification) => self.fail(config, None, Reason::Received(notification), now),
            other => self.unexpected(config, &other, state, now),
        }
    }

    /// Whether the neighbour takes another connection than this, or none just now: no failure, and were it one, two that
    /// rest by turns would never meet.
    fn is_refusal(&self, notification: &Notification) -> bool {
        let refusal = matches!(notification.subcode, cease::COLLISION | cease::CONNECTION_REJECTED);
        notification.code == code::CEASE && refusal && self.way == Way::Outgoing && self.state < State::Established
    }

    /// Waits for a connection of his, and tries again.
    fn wait(&mut self, config: &Config, reason: Reason, now: Time) -> Vec<Step> {
        self.enter_idle();
        self.timers.connect_retry = Some(now + self.jitter(config.connect_retry));
        self.state = State::Active;
        vec![Step::Close, Step::Down(reason)]
    }

    /// Its data is the type of the message, where it was one (RFC 6608 4).
    fn unexpected(&mut self, config: &Config, event: &Event, state: u8, now: Time) -> Vec<Step> {
        let kind = match event {
            Event::BgpOpen(_) => Some(Kind::Open),
            Event::UpdateMsg | Event::UpdateMsgErr(_) => Some(Kind::Update),
            Event::KeepAliveMsg => Some(Kind::Keepalive),
            Event::RouteRefreshMsg => Some(Kind::RouteRefresh),
            _ => None,
        };
        let data = kind.map(|kind| kind as u8).into_iter().collect();
        let notification = Notification::new(code::FINITE_STATE_MACHINE, state, data);
        self.fail(config, Some(notification.clone()), Reason::Sent(notification), now)
    }

    fn send_open(&mut self, now: Time) -> Vec<Step> {
        self.timers = Timers { hold: Some(now + LARGE_HOLD), ..Timers::default() };
        self.state = State::OpenSent;
        vec![Step::SendOpen]
    }

    fn confirm(&mut self, config: &Config, negotiated: Box<Negotiated>, now: Time) -> Vec<Step> {
        self.negotiated = Some(negotiated);
        self.timers = Timers::default();
        self.state = State::OpenConfirm;
        self.alive(now);
        self.keepalive(config, now)
    }

    /// Sends a KEEPALIVE, and another in a third of the hold time, or sooner where that is wanted.
    fn keepalive(&mut self, config: &Config, now: Time) -> Vec<Step> {
        let hold = self.negotiated.as_ref().and_then(|negotiated| negotiated.hold_time);
        let interval = hold.map(|hold| config.keepalive.unwrap_or(hold).min(hold / 3));
        self.timers.keepalive = interval.map(|interval| now + self.jitter(interval));
        vec![Step::Send(Message::Keepalive)]
    }

    /// The neighbour has been heard.
    fn alive(&mut self, now: Time) {
        let hold = self.negotiated.as_ref().and_then(|negotiated| negotiated.hold_time);
        self.timers.hold = hold.map(|hold| now + hold);
    }

    fn stop(&mut self, notification: Option<Notification>) -> Vec<Step> {
        let was = self.state;
        self.enter_idle();
        self.failures = 0;
        let reason = match &notification {
            Some(notification) => Reason::Sent(notification.clone()),
            None => Reason::ConnectionLost,
        };
        let send = notification.map(|notification| Step::Send(Message::Notification(notification)));
        let down = (was >= State::OpenSent).then_some(Step::Down(reason));
        send.into_iter().chain([Step::Close]).chain(down).collect()
    }

    fn fail(&mut self, config: &Config, say: Option<Notification>, reason: Reason, now: Time) -> Vec<Step> {
        // A session that was good for longer than the longest rest begins anew with short ones.
        if self.state == State::Established && now.saturating_sub(self.since) > config.most_idle_hold {
            self.failures = 0;
        }
        self.rest(config, now, true);
        let send = say.map(|notification| Step::Send(Message::Notification(notification)));
        send.into_iter().chain([Step::Close, Step::Down(reason)]).collect()
    }

    fn fail_uncounted(&mut self, config: &Config, say: Option<Notification>, reason: Reason, now: Time) -> Vec<Step> {
        let failures = self.failures;
        let steps = self.fail(config, say, reason, now);
        self.failures = failures;
        steps
    }

    fn enter_idle(&mut self) {
        self.state = State::Idle;
        self.timers = Timers::default();
        self.negotiated = None;
    }

    /// The first rest is the configured one, each after it twice as long.
    fn rest_time(&mut self, config: &Config) -> Duration {
        let doubled = config.idle_hold.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        self.jitter(doubled.min(config.most_idle_hold))
    }

    /// Three quarters of a time to the whole of it (RFC 4271 10), so that sessions don't beat together.
    fn jitter(&mut self, time: Duration) -> Duration {
        // xorshift64: chance enough for that, and the same for the same seed.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        time.saturating_mul(75 + (self.chance % 26) as u32) / 100
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::config::{Opening, RemoteAs};
    use super::super::negotiated::judge;
    use super::*;

    #[test]
    fn another_version_is_a_failure_only_where_it_is_none_of_an_open() {
        // RFC 4271 8.2.2, event 24: whether the ConnectRetryCounter is one more.
        let config = Config::new(1, RemoteAs::Number(2), Ipv4Addr::new(10, 0, 0, 1));
        let his = Config::new(2, RemoteAs::Number(1), Ipv4Addr::new(10, 0, 0, 2)).open(Opening::First);
        let open = Event::BgpOpen(Box::new(judge(&config, &his).expect("an agreement")));
        let delayed = Config { delay_open: Some(Duration::from_secs(5)), ..config.clone() };
        let wrong = || Event::NotifMsgVerErr(Notification::new(2, 1, vec![0, 3]));
        let [start, connected, alive] = [Event::Start, Event::TcpConnected, Event::KeepAliveMsg];
        let cases = [
            (&config, vec![start.clone()], State::Connect, 1),
            (&delayed, vec![start.clone(), connected.clone()], State::Connect, 0),
            (&config, vec![start.clone(), connected.clone()], State::OpenSent, 0),
            (&config, vec![start.clone(), connected.clone(), open.clone()], State::OpenConfirm, 0),
            (&config, vec![start, connected, open, alive], State::Established, 1),
        ];
        for (config, before, state, failures) in cases {
            let mut fsm = Fsm::new(Way::Outgoing, config);
            for event in before {
                fsm.step(config, event, Time::ZERO);
            }
            assert_eq!(fsm.state(), state);
            fsm.step(config, wrong(), Time::ZERO);
            assert_eq!((fsm.state(), fsm.failures), (State::Idle, failures), "in {state:?}");
        }
    }
}
