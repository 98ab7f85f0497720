//! What is asked of a speaker, whoever wrote it: a configuration in words that all have, sessions and routes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use meta::Prefix;

use crate::lab::{Host, eventually, v4, v6};
use crate::{bird, exabgp, frr, gobgp, ours};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Bird,
    Frr,
    Gobgp,
    Exabgp,
}

/// A speaker's configuration.
#[derive(Clone, Debug, Default)]
pub struct Conf {
    /// Its AS.
    pub number: u32,
    pub peers: Vec<Peer>,
    /// What it originates.
    pub networks: Vec<Network>,
    /// Whose clients it reflects for.
    pub cluster: Option<Ipv4Addr>,
    /// It puts routes into the kernel.
    pub kernel: bool,
    /// It is in a VRF.
    pub vrf: Option<&'static str>,
}

/// A route of its own.
#[derive(Clone, Debug)]
pub struct Network {
    pub prefix: Prefix,
    /// `AS:value`; large ones `AS:value:value`; extended ones `rt:AS:value`.
    pub communities: Vec<String>,
}

/// A neighbour, over the transport whose family the session carries.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Of the host with this number.
    pub host: u8,
    /// Over IPv6.
    pub ipv6: bool,
    /// Routes of IPv4, whatever they are carried over (RFC 8950).
    pub ipv4_routes: bool,
    /// Routes of both families in one session.
    pub both: bool,
    /// Only the link is known; both families.
    pub unnumbered: bool,
    /// A line more in the words of BIRD, or behind FRR's `neighbor`.
    pub extra: &'static str,
    pub number: u32,
    pub passive: bool,
    pub password: Option<String>,
    pub ttl_security: bool,
    /// It is reflected for.
    pub client: bool,
    pub add_path: bool,
    pub graceful: bool,
    /// Routes outlive a restart that takes longer than [`Peer::restart_time`] (RFC 9494), by a minute.
    pub long_lived: bool,
    pub bfd: bool,
    /// Seconds.
    pub hold: u16,
}

impl Peer {
    pub fn new(host: u8, number: u32) -> Peer {
        Peer {
            host,
            ipv6: false,
            ipv4_routes: false,
            both: false,
            unnumbered: false,
            extra: "",
            number,
            passive: false,
            password: None,
            ttl_security: false,
            client: false,
            add_path: false,
            graceful: true,
            long_lived: false,
            bfd: false,
            hold: 90,
        }
    }

    /// Seconds in which a speaker is back.
    pub fn restart_time(&self) -> u16 {
        if self.long_lived { 3 } else { 20 }
    }

    pub fn address(&self) -> IpAddr {
        if self.ipv6 { v6(self.host) } else { v4(self.host) }
    }

    /// Whether it carries routes of IPv6.
    pub fn carries_ipv6(&self) -> bool {
        self.ipv6 && !self.ipv4_routes
    }

    /// Whether it carries routes of a family.
    pub fn carries(&self, ipv6: bool) -> bool {
        self.unnumbered || self.both || self.carries_ipv6() == ipv6
    }

    /// The other end's own address.
    pub fn local(&self, host: &Host) -> IpAddr {
        if self.ipv6 { v6(host.n) } else { v4(host.n) }
    }

    pub fn ipv6(self) -> Peer {
        Peer { ipv6: true, ..self }
    }
}

impl Conf {
    pub fn new(number: u32, peers: Vec<Peer>) -> Conf {
        Conf { number, peers, ..Conf::default() }
    }

    pub fn network(mut self, prefix: &str, communities: &[&str]) -> Conf {
        let communities = communities.iter().map(|&text| text.to_owned()).collect();
        self.networks.push(Network { prefix: prefix.parse().unwrap(), communities });
        self
    }

    /// Originates a prefix of each family that tells who it is from.
    pub fn own(self, n: u8) -> Conf {
        let community = format!("{}:{n}", self.number & 0xffff);
        self.network(&own4(n), &[&community]).network(&own6(n), &[&community])
    }
}

/// What [`Conf::own`] originates.
pub fn own4(n: u8) -> String {
    format!("10.{n}.0.0/24")
}

pub fn own6(n: u8) -> String {
    format!("fd00:{n}::/48")
}

/// Which kind of communities one is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Community {
    Standard,
    Large,
    Extended,
}

impl Network {
    /// Its communities of a kind.
    pub fn of(&self, kind: Community) -> Vec<&str> {
        let is = |text: &&str| match text.matches(':').count() {
            1 => kind == Community::Standard,
            _ if text.starts_with("rt:") => kind == Community::Extended,
            _ => kind == Community::Large,
        };
        self.communities.iter().map(String::as_str).filter(is).collect()
    }
}

/// A path to a prefix as a speaker has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    pub next_hop: Option<IpAddr>,
    pub as_path: Vec<u32>,
    /// Of all kinds, as in [`Network`], in order.
    pub communities: Vec<String>,
    pub originator: Option<Ipv4Addr>,
    pub clusters: Vec<Ipv4Addr>,
    pub best: bool,
}

pub type Table = BTreeMap<Prefix, Vec<Path>>;

/// A running speaker.
pub trait Speaker {
    fn name(&self) -> &'static str;
    /// Neighbours with whom there is a session.
    fn sessions(&self) -> Result<Vec<IpAddr>>;
    /// What it has of both families, with its own.
    fn routes(&self) -> Result<Table>;
    /// kill -9 of all of it.
    fn kill(&mut self);

    /// Waits for sessions with all of these.
    fn meets(&self, peers: &[IpAddr]) {
        eventually(&format!("{} has sessions with {peers:?}", self.name()), || {
            let sessions = self.sessions()?;
            ensure!(peers.iter().all(|peer| sessions.contains(peer)), "only with {sessions:?}");
            Ok(())
        });
    }

    /// Waits until it has these prefixes, and returns all.
    fn learns(&self, prefixes: &[&str]) -> Table {
        eventually(&format!("{} has {prefixes:?}", self.name()), || {
            let table = self.routes()?;
            // A prefix may be gone again before its paths were asked for.
            let paths = |text: &&&str| table.get(&text.parse().unwrap()).is_none_or(Vec::is_empty);
            let missing = prefixes.iter().find(paths);
            ensure!(missing.is_none(), "{missing:?} is not among {:?}", table.keys());
            Ok(table)
        })
    }

    /// Waits until a prefix has one path, or its best, for which this holds.
    fn has(&self, prefix: &str, what: &str, holds: &dyn Fn(&Path) -> bool) -> Path {
        eventually(&format!("{} has {prefix} {what}", self.name()), || {
            let table = self.routes()?;
            let paths = table.get(&prefix.parse::<Prefix>()?).cloned().unwrap_or_default();
            let best = paths.iter().find(|path| path.best).or(paths.first()).cloned();
            match best {
                Some(path) if holds(&path) => Ok(path),
                best => anyhow::bail!("{best:?}"),
            }
        })
    }

    /// Waits until it has none of these any more.
    fn loses(&self, prefixes: &[&str]) {
        eventually(&format!("{} has lost {prefixes:?}", self.name()), || {
            let table = self.routes()?;
            let left = prefixes.iter().find(|text| table.contains_key(&text.parse().unwrap()));
            ensure!(left.is_none(), "{left:?} is still there");
            Ok(())
        });
    }
}

impl Kind {
    pub fn start(self, host: &Host, conf: &Conf) -> Box<dyn Speaker> {
        match self {
            Kind::Ours => Box::new(ours::Ours::start(host, conf)),
            Kind::Bird => Box::new(bird::Bird::start(host, conf)),
            Kind::Frr => Box::new(frr::Frr::start(host, conf)),
            Kind::Gobgp => Box::new(gobgp::Gobgp::start(host, conf)),
            Kind::Exabgp => Box::new(exabgp::Exabgp::start(host, conf)),
        }
    }
}
