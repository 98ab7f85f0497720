//! What is wanted of a session. Pure data: the loop makes it of a configuration file; `fsm` and `neighbour` go by it. What
//! the sockets need ([`Transport`]) is told here and done by whoever makes them.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::family::{AFI_IPV6, Families, Family};
use crate::message::capability::{AddPath, Capability, GracefulRestart, LongLived, Role};
use crate::message::open::Open;

/// The hold timer while nobody has said how long it is (RFC 4271 8.2.2).
pub const LARGE_HOLD: Duration = Duration::from_secs(240);

/// Which AS the neighbour must be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAs {
    /// This one.
    Number(u32),
    /// Ours.
    Internal,
    /// Any but ours.
    External,
}

/// How many prefixes of a family a neighbour may tell where nobody said: several times what the largest clusters have (a
/// block of addresses or two for each of 5,000 nodes, and services), and with their attributes 40 MB of memory at most, so
/// that a neighbour gone wrong, or a table of the whole Internet by mistake, does not take all there is. Who wants that
/// table says so. The session rests for ten minutes, and then he may have been mended.
pub const DEFAULT_PREFIX_LIMIT: PrefixLimit = PrefixLimit { most: 50_000, restart: Some(Duration::from_secs(600)) };

/// How many prefixes a neighbour may tell of a family; with add-path, how many paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLimit {
    /// One more ends the session.
    pub most: u32,
    /// How long it stays down then; none is until it is started by hand.
    pub restart: Option<Duration>,
}

/// Graceful restart, as this speaker offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Seconds in which it will be back; also how long routes are kept at most until the neighbour has told all again.
    pub time: u16,
    /// Families whose routes stay in the kernel while it restarts; without one it only helps others.
    pub forwarding: Families,
    /// Routes outlive NOTIFICATIONs (RFC 8538).
    pub notification: bool,
    /// How long stale routes wait for the neighbour's End-of-RIB once he is back.
    pub stale_paths: Duration,
    /// Seconds that routes are kept beyond (RFC 9494); 0 is not.
    pub long_lived: u32,
}

impl Default for Restart {
    /// BIRD's times.
    fn default() -> Restart {
        Restart {
            time: 120,
            forwarding: Families::ALL,
            notification: true,
            stale_paths: Duration::from_secs(360),
            long_lived: 0,
        }
    }
}

/// Which of a speaker's sessions an OPEN begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The first, and there was none before.
    First,
    /// Another: this process has had one, and its routes stayed in the kernel meanwhile.
    Another,
    /// The first since a restart over which the routes stayed in the kernel (RFC 4724).
    Restarted,
}

/// What the sockets of a session need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// How many hops away the neighbour may be; 1 is on the same link. Of an external one that is refused beyond.
    pub multihop: Option<u8>,
    /// Packets that came further than `multihop` are refused by their TTL (GTSM, RFC 5082).
    pub ttl_security: bool,
    /// How segments are signed.
    pub authentication: Option<Authentication>,
}

/// How segments are signed. What both know is not in its `Debug`, which may get into a log.
#[derive(Clone, PartialEq, Eq)]
pub enum Authentication {
    /// TCP-MD5 (RFC 2385), with this password.
    Md5(String),
    /// TCP-AO (RFC 5925). The first key is what the neighbour is asked to send by; by the others he may.
    Ao(Vec<AoKey>),
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Authentication::Md5(_) => f.write_str("Md5(…)"),
            Authentication::Ao(keys) => f.debug_tuple("Ao").field(keys).finish(),
        }
    }
}

impl Authentication {
    /// Whether a session with these may go on with others: keys that both have are the same, by their numbers.
    pub fn may_become(&self, other: &Authentication) -> bool {
        match (self, other) {
            (Authentication::Ao(old), Authentication::Ao(new)) => {
                new.iter().all(|key| old.iter().all(|other| key == other || !key.clashes(other)))
            }
            _ => self == other,
        }
    }
}

/// A key of TCP-AO (RFC 5925 3.1). Its secret is not in its `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct AoKey {
    /// Its number in what is sent.
    pub send_id: u8,
    /// Its number in what is received.
    pub receive_id: u8,
    /// By what is signed.
    pub algorithm: Algorithm,
    /// What both know.
    pub secret: String,
}

impl fmt::Debug for AoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AoKey { send_id, receive_id, algorithm, secret: _ } = self;
        write!(f, "AoKey({send_id}, {receive_id}, {algorithm:?}, …)")
    }
}

impl AoKey {
    /// Whether a socket can't have both.
    pub fn clashes(&self, other: &AoKey) -> bool {
        self.send_id == other.send_id || self.receive_id == other.receive_id
    }
}

/// Algorithms of TCP-AO (RFC 5926).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA-1-96.
    HmacSha1,
    /// AES-128-CMAC-96.
    Aes128Cmac,
}

/// A session.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The AS that is told to the neighbour.
    pub local_as: u32,
    /// The AS that he must be of.
    pub remote_as: RemoteAs,
    /// This speaker's BGP identifier.
    pub identifier: Ipv4Addr,
    /// Seconds of silence that end the session; 0 is never.
    pub hold_time: u16,
    /// The least that he may ask for.
    pub least_hold_time: u16,
    /// How often the neighbour hears of this speaker at least; a third of the hold time at most, which is it where none is
    /// said.
    pub keepalive: Option<Duration>,
    /// How long a connection may take before it is tried again.
    pub connect_retry: Duration,
    /// How long the neighbour's OPEN is waited for before ours is sent; none is not at all.
    pub delay_open: Option<Duration>,
    /// How long a session that failed rests; twice as long after each failure.
    pub idle_hold: Duration,
    /// The longest rest.
    pub most_idle_hold: Duration,
    /// The neighbour connects, this speaker doesn't.
    pub passive: bool,
    /// Families that are carried.
    pub families: Families,
    /// Families of which several paths are taken.
    pub receive_paths: Families,
    /// Families of which several paths are sent.
    pub send_paths: Families,
    /// Routes of IPv4 may have next hops of IPv6.
    pub extended_next_hop: bool,
    /// Messages may be longer than 4096 bytes.
    pub extended_messages: bool,
    /// Graceful restart; none is that the capability isn't told, and no routes are kept.
    pub restart: Option<Restart>,
    /// What this speaker is to the neighbour.
    pub role: Option<Role>,
    /// A neighbour without a role is refused.
    pub strict_role: bool,
    /// Of each family; none is no limit, [`DEFAULT_PREFIX_LIMIT`] where nobody said.
    pub prefix_limits: [Option<PrefixLimit>; 2],
    /// For the sockets.
    pub transport: Transport,
    /// Where chance begins: timers are a little shorter than they are long, each session's by something else.
    pub seed: u64,
}

impl Config {
    /// A session with the usual times: hold 90 s, retry 5 s, rest 5 to 60 s; and with a limit of prefixes.
    pub fn new(local_as: u32, remote_as: RemoteAs, identifier: Ipv4Addr) -> Config {
        Config {
            local_as,
            remote_as,
            identifier,
            hold_time: 90,
            least_hold_time: 3,
            keepalive: None,
            connect_retry: Duration::from_secs(5),
            delay_open: None,
            idle_hold: Duration::from_secs(5),
            most_idle_hold: Duration::from_secs(60),
            passive: false,
            families: Families::IPV4,
            receive_paths: Families::NONE,
            send_paths: Families::NONE,
            extended_next_hop: true,
            extended_messages: true,
            restart: Some(Restart::default()),
            role: None,
            strict_role: false,
            prefix_limits: [Some(DEFAULT_PREFIX_LIMIT); 2],
            transport: Transport::default(),
            seed: 0,
        }
    }

    /// The OPEN that says so.
    pub fn open(&self, opening: Opening) -> Open {
        let (restarted, forwarded) = (opening == Opening::Restarted, opening != Opening::First);
        let mut all: Vec<Capability> =
            self.families.iter().map(|family| Capability::Multiprotocol(family.wire())).collect();
        all.extend([Capability::RouteRefresh, Capability::EnhancedRouteRefresh]);
        if self.extended_next_hop && self.families.has(Family::Ipv4Unicast) {
            all.push(Capability::ExtendedNextHop(vec![(Family::Ipv4Unicast.wire(), AFI_IPV6)]));
        }
        if self.extended_messages {
            all.push(Capability::ExtendedMessage);
        }
        // Between ASes (RFC 9234 4).
        let internal =
            matches!(self.remote_as, RemoteAs::Internal) || self.remote_as == RemoteAs::Number(self.local_as);
        all.extend(self.role.filter(|_| !internal).map(|role| Capability::Role(Some(role))));
        if let Some(restart) = &self.restart {
            let forwarding = |family: Family| (family.wire(), forwarded && restart.forwarding.has(family));
            let families = self.families.and(restart.forwarding).iter().map(forwarding).collect();
            let (notification, time) = (restart.notification, restart.time);
            all.push(Capability::GracefulRestart(GracefulRestart { restarted, notification, time, families }));
            if restart.long_lived > 0 {
                let kept = |family: Family| LongLived {
                    family: family.wire(),
                    forwarding: forwarded && restart.forwarding.has(family),
                    stale_time: restart.long_lived,
                };
                all.push(Capability::LongLived(self.families.iter().map(kept).collect()));
            }
        }
        all.push(Capability::FourOctetAs(self.local_as));
        let paths = |family: Family| {
            let (receive, send) = (self.receive_paths.has(family), self.send_paths.has(family));
            (receive || send).then_some(AddPath { family: family.wire(), receive, send })
        };
        let paths: Vec<AddPath> = self.families.iter().filter_map(paths).collect();
        if !paths.is_empty() {
            all.push(Capability::AddPath(paths));
        }
        Open::new(self.local_as, self.hold_time, self.identifier, all)
    }
}
