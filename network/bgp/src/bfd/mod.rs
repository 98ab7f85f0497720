//! BFD (RFC 5880, 5881): whether a neighbour is there, in tenths of a second instead of the hold time's tens. Asynchronous
//! mode, one session a neighbour. Pure: packets and the time in, packets and news out. Called by the loop, which tells
//! `session` by `Input::BfdDown`.
//!
//! ```text
//!  Down ──his Down──► Init ──his Init or Up──► Up          each sends its state, so both hear what the other hears
//!    └──his Init───────────────────────────────►┘
//!  silence for as many intervals as were agreed, or his Down ──► Down
//! ```

pub mod packet;

use std::time::Duration;

pub use packet::{Diagnostic, Packet, State};

use crate::session::Time;

/// Who is not up sends no more than one packet a second (RFC 5880 6.8.3).
const SLOW: Duration = Duration::from_secs(1);

/// What is wanted of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How often to send.
    pub desired_min_tx: Duration,
    /// How often to receive.
    pub required_min_rx: Duration,
    /// So many packets may be lost.
    pub detect_multiplier: u8,
    /// The neighbour begins.
    pub passive: bool,
}

impl Default for Config {
    /// 300 ms, three times, as routers mostly have it.
    fn default() -> Config {
        let interval = Duration::from_millis(300);
        Config { desired_min_tx: interval, required_min_rx: interval, detect_multiplier: 3, passive: false }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(Packet),
    /// The neighbour is there.
    Up,
    /// He is not.
    Down(Diagnostic),
    /// He has stopped his side of it, which says nothing of the way to him: nothing is to be done (RFC 5882 4.2).
    Stopped,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Bfd {
    config: Config,
    discriminator: u32,
    state: State,
    diagnostic: Diagnostic,
    /// His last packet.
    remote: Option<Packet>,
    /// A change of ours that he has not confirmed.
    polling: bool,
    next_packet: Option<Time>,
    detection: Option<Time>,
    chance: u64,
}

impl Bfd {
    /// Down. The discriminator is a name that no other session here has, and not 0.
    pub fn new(config: Config, discriminator: u32, now: Time) -> Bfd {
        Bfd {
            config,
            discriminator: discriminator.max(1),
            state: State::Down,
            diagnostic: Diagnostic::None,
            remote: None,
            polling: false,
            next_packet: (!config.passive).then_some(now),
            detection: None,
            chance: u64::from(discriminator) | 1 << 32,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// When [`Bfd::time`] is next to be called.
    pub fn due(&self) -> Option<Time> {
        [self.next_packet, self.detection].into_iter().flatten().min()
    }

    /// A packet of his, which his discriminator or address has led here.
    pub fn received(&mut self, packet: &Packet, now: Time) -> Vec<Action> {
        if packet.your_discriminator != 0 && packet.your_discriminator != self.discriminator {
            return Vec::new();
        }
        self.remote = Some(*packet);
        self.polling &= !packet.is_final;
        let mut actions = Vec::new();
        if self.state == State::AdminDown {
            return actions;
        }
        self.detection = Some(now + self.detection_time());
        let down = Diagnostic::NeighborSignaledDown;
        match (self.state, packet.state) {
            (State::Init | State::Up, State::AdminDown) => {
                let was = std::mem::replace(&mut self.state, State::Down);
                self.down(down, &mut actions);
                actions.extend((was == State::Up).then_some(Action::Stopped));
            }
            (State::Up, State::Down) => self.down(down, &mut actions),
            (State::Down, State::Down) => self.state = State::Init,
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => self.up(&mut actions),
            _ => {}
        }
        if packet.poll {
            actions.push(Action::Send(Packet { poll: false, is_final: true, ..self.packet() }));
        }
        // What has changed is told at once, and the interval counts from now.
        let sooner = now + self.interval();
        self.next_packet = Some(self.next_packet.map_or(now, |next| next.min(sooner)));
        actions
    }

    /// It is later.
    pub fn time(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.detection.is_some_and(|due| due <= now) {
            self.detection = None;
            if matches!(self.state, State::Init | State::Up) {
                self.down(Diagnostic::DetectionTimeExpired, &mut actions);
            }
            // He is nobody that is known until he speaks again (RFC 5880 6.8.1).
            self.remote = None;
        }
        if self.next_packet.is_some_and(|due| due <= now) {
            self.next_packet = Some(now + self.interval());
            if self.wanted() {
                actions.push(Action::Send(self.packet()));
            }
        }
        actions
    }

    /// Stops it: he hears that nobody failed.
    pub fn stop(&mut self) -> Vec<Action> {
        let was = self.state;
        (self.state, self.diagnostic) = (State::AdminDown, Diagnostic::AdministrativelyDown);
        (self.next_packet, self.detection) = (None, None);
        let down = (was == State::Up).then_some(Action::Down(Diagnostic::AdministrativelyDown));
        [Action::Send(self.packet())].into_iter().chain(down).collect()
    }

    fn up(&mut self, actions: &mut Vec<Action>) {
        (self.state, self.diagnostic) = (State::Up, Diagnostic::None);
        // From one packet a second to what is wanted (RFC 5880 6.8.3).
        self.polling = true;
        actions.push(Action::Up);
    }

    fn down(&mut self, why: Diagnostic, actions: &mut Vec<Action>) {
        let was = self.state;
        (self.state, self.diagnostic, self.polling) = (State::Down, why, false);
        if was == State::Up {
            actions.push(Action::Down(why));
        }
    }

    fn desired(&self) -> Duration {
        if self.state == State::Up { self.config.desired_min_tx } else { self.config.desired_min_tx.max(SLOW) }
    }

    /// Whether he wants packets: not from one who waits for him, not where he says 0, and where he asks himself, by demand
    /// (RFC 5880 6.8.7), only the question of ours that is open.
    fn wanted(&self) -> bool {
        match &self.remote {
            Some(remote) => {
                let asks = remote.demand && self.state == State::Up && remote.state == State::Up;
                remote.required_min_rx > 0 && (self.polling || !asks)
            }
            None => !self.config.passive,
        }
    }

    /// Between packets: what both agree to, less a chance part of a quarter (RFC 5880 6.8.7).
    fn interval(&mut self) -> Duration {
        let his = self.remote.map_or(0, |remote| remote.required_min_rx);
        let agreed = self.desired().max(Duration::from_micros(his.into()));
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        // Where no packet may be lost, the next must come well before it is missed.
        let most = if self.config.detect_multiplier == 1 { 90 } else { 100 };
        agreed * (75 + (self.chance % (most - 75 + 1)) as u32) / 100
    }

    /// RFC 5880 6.8.4.
    fn detection_time(&self) -> Duration {
        let Some(remote) = &self.remote else { return SLOW };
        let interval = self.config.required_min_rx.max(Duration::from_micros(remote.desired_min_tx.into()));
        interval * remote.detect_multiplier.into()
    }

    fn packet(&self) -> Packet {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Packet {
            diagnostic: self.diagnostic as u8,
            state: self.state,
            poll: self.polling,
            is_final: false,
            demand: false,
            detect_multiplier: self.config.detect_multiplier.max(1),
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.map_or(0, |remote| remote.my_discriminator),
            desired_min_tx: micros(self.desired()),
            required_min_rx: micros(self.config.required_min_rx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sessions over a wire that takes no time; what each had to say.
    fn run(pair: &mut [Bfd; 2], from: Time, to: Time, works: bool) -> [Vec<(Time, Action)>; 2] {
        let mut news = [Vec::new(), Vec::new()];
        let mut now = from;
        while let Some((side, due)) = (0..2).filter_map(|side| Some((side, pair[side].due()?))).min_by_key(|(_, d)| *d)
        {
            if due > to {
                break;
            }
            now = now.max(due);
            let mut work: Vec<(usize, Vec<Action>)> = vec![(side, pair[side].time(now))];
            while let Some((side, actions)) = work.pop() {
                for action in actions {
                    match action {
                        Action::Send(packet) if works => {
                            let read = Packet::read(&packet.write()).expect("sound");
                            work.push((1 - side, pair[1 - side].received(&read, now)));
                        }
                        Action::Send(_) => {}
                        other => news[side].push((now, other)),
                    }
                }
            }
        }
        news
    }

    fn pair(config: Config) -> [Bfd; 2] {
        [Bfd::new(config, 1, Time::ZERO), Bfd::new(Config { passive: true, ..config }, 2, Time::ZERO)]
    }

    const SECOND: Time = Time::from_secs(1);

    #[test]
    fn both_come_up_and_stay_up() {
        let mut both = pair(Config::default());
        let news = run(&mut both, Time::ZERO, SECOND * 600, true);
        assert!(
            news.iter().all(|news| news.len() == 1 && news[0].1 == Action::Up && news[0].0 < SECOND * 4),
            "{news:?}"
        );
        assert!(!both[0].polling && !both[1].polling, "both have confirmed the faster pace");
    }

    #[test]
    fn silence_is_noticed_in_three_intervals() {
        let mut both = pair(Config::default());
        run(&mut both, Time::ZERO, SECOND * 10, true);
        let news = run(&mut both, SECOND * 10, SECOND * 60, false);
        for (at, action) in news.iter().map(|news| news[0]) {
            assert_eq!(action, Action::Down(Diagnostic::DetectionTimeExpired));
            assert!(at <= SECOND * 10 + Duration::from_millis(900), "{at:?}");
        }
        let back = run(&mut both, SECOND * 60, SECOND * 70, true);
        assert!(back.iter().all(|news| news.last().is_some_and(|(_, action)| *action == Action::Up)), "{back:?}");
    }

    #[test]
    fn one_who_is_stopped_says_so() {
        let mut both = pair(Config::default());
        run(&mut both, Time::ZERO, SECOND * 10, true);
        let [Action::Send(last), Action::Down(_)] = both[0].stop()[..] else { panic!("a packet, and that it is down") };
        let heard = both[1].received(&last, SECOND * 10);
        assert_eq!(heard[0], Action::Stopped, "nothing has failed");
        assert!(!heard.iter().any(|action| matches!(action, Action::Down(_))));
        assert_eq!((both[0].state(), both[1].state()), (State::AdminDown, State::Down));
    }

    #[test]
    fn one_who_asks_by_demand_is_answered_and_not_bothered() {
        let mut both = pair(Config::default());
        run(&mut both, Time::ZERO, SECOND * 10, true);
        let demand = Packet { demand: true, ..both[1].packet() };
        assert_eq!(both[0].received(&demand, SECOND * 10), []);
        let due = both[0].due().expect("a time");
        assert_eq!((both[0].time(due), both[0].state()), (vec![], State::Up));
        let asked = both[0].received(&Packet { poll: true, ..demand }, due);
        assert!(matches!(asked[..], [Action::Send(answer)] if answer.is_final), "{asked:?}");
    }

    #[test]
    fn packets_of_another_session_change_nothing() {
        let mut both = pair(Config::default());
        run(&mut both, Time::ZERO, SECOND * 10, true);
        let strange = Packet { state: State::Down, your_discriminator: 99, ..both[1].packet() };
        assert_eq!((both[0].received(&strange, SECOND * 10), both[0].state()), (vec![], State::Up));
    }
}
