//! What a neighbour's settings come to: what his session needs, what the tables need, what his sockets need. Pure. Made by
//! [`super::parse`] of a neighbour's settings over his group's; compared on a reload, where only what differs is changed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bgp::bfd;
use bgp::family::{Families, Family};
use bgp::policy::{Filter, Source, Verdict};
use bgp::rib::NextHopMode;
use bgp::session::config::{Authentication, DEFAULT_PREFIX_LIMIT, PrefixLimit, RemoteAs, Restart, Transport};

use super::authentication;
use super::node::Fault;
use super::settings::{
    AddPathMode, BfdSettings, FamilyName, LimitSetting, NextHopName, RestartMode, RestartSettings, Settings,
};

/// BGP's port.
pub const PORT: u16 = 179;
/// The name of the filter that takes all.
pub const ACCEPT: &str = "accept";
/// The name of the filter that takes nothing.
pub const REJECT: &str = "reject";
/// The filter of an external neighbour for whom none was named (RFC 8212).
pub const NONE_NAMED: &str = "reject (RFC 8212: no filter is named)";
/// The least that RFC 9687 gives a neighbour to take what is sent; twice the hold time where that is longer.
const SEND_HOLD: Duration = Duration::from_secs(8 * 60);
/// Neighbours of a range who may be there at once where nobody said.
const DEFAULT_LIMIT: u32 = 100;

/// A neighbour, but for his address.
#[derive(Clone, Debug, PartialEq)]
pub struct Peering {
    /// For people.
    pub description: String,
    /// The group that it was made with.
    pub group: Option<String>,
    /// Whether there is to be a session.
    pub enabled: bool,
    /// The session.
    pub session: bgp::session::Config,
    /// His port.
    pub port: u16,
    /// From where we speak.
    pub source: Option<IpAddr>,
    /// The link by which.
    pub interface: Option<String>,
    /// The VRF in which he is.
    pub vrf: Option<String>,
    /// That link is all that was said of where he is: his address on it is learned.
    pub unnumbered: bool,
    /// For how long he may not take what is sent.
    pub send_hold: Duration,
    /// Between two looks at what he is to be told.
    pub advertisement_interval: Duration,
    /// What the tables need.
    pub routes: Routes,
    /// Whether he is watched.
    pub bfd: Option<Watched>,
}

impl Peering {
    /// Whether a session of this one may go on as one of the other: nothing that was agreed on or that its sockets have
    /// differs.
    pub fn same_session(&self, other: &Peering) -> bool {
        let transport = |p: &Peering| (p.port, p.source, p.interface.clone(), p.enabled, p.send_hold);
        let rolls_over = match (self.authentication(), other.authentication()) {
            (Some(old), Some(new)) => old.may_become(new),
            (old, new) => old == new,
        };
        let mut session = other.session.clone();
        session.transport.authentication.clone_from(&self.session.transport.authentication);
        rolls_over && self.session == session && transport(self) == transport(other)
    }

    /// How segments are signed.
    pub fn authentication(&self) -> Option<&Authentication> {
        self.session.transport.authentication.as_ref()
    }
}

/// How a neighbour is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The session.
    pub session: bfd::Config,
    /// He is further away than the next link (RFC 5883).
    pub far: bool,
}

/// What the tables need of a neighbour.
#[derive(Clone, Debug, PartialEq)]
pub struct Routes {
    /// Of this AS, or of another.
    pub source: Source,
    /// The AS that we are to him.
    pub local_as: u32,
    /// Our addresses that he is told, where they were said.
    pub own_addresses: Vec<IpAddr>,
    /// He is a client.
    pub client: bool,
    /// What is told as the next hop.
    pub next_hop: NextHopMode,
    /// So often may our AS be in a path of his.
    pub allowed_own_as: u8,
    /// His paths begin with his AS.
    pub enforce_first_as: bool,
    /// Private numbers are taken out.
    pub remove_private: bool,
    /// His own number is replaced.
    pub as_override: bool,
    /// Of what he tells.
    pub import: Arc<Filter>,
    /// Of what he is told.
    pub export: Arc<Filter>,
}

/// A neighbour.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbor {
    /// Where he is.
    pub address: IpAddr,
    /// The rest.
    pub peering: Peering,
}

/// Where somebody is; of an address of one link, with the link.
pub type Place = (IpAddr, Option<String>);
/// Of an unnumbered neighbour, as long as nothing has been heard of him.
pub const UNKNOWN: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Whether an address is one of a link.
pub fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

impl Neighbor {
    /// Where he is.
    pub fn place(&self) -> Place {
        let of_link = is_of_link(self.address) || !self.is_found();
        (self.address, self.peering.interface.clone().filter(|_| of_link))
    }

    /// Where he is by the file, which says no address of an unnumbered one.
    pub fn written(&self) -> Place {
        match (&self.peering.interface, self.peering.unnumbered) {
            (Some(link), true) => (UNKNOWN, Some(link.clone())),
            _ => self.place(),
        }
    }

    /// Whether his address is known: that of an unnumbered one is learned.
    pub fn is_found(&self) -> bool {
        self.address != UNKNOWN
    }

    /// What figures of him are named by: of an unnumbered one the link, which stays.
    pub fn name(&self) -> String {
        match (&self.peering.interface, self.peering.unnumbered) {
            (Some(link), true) => link.clone(),
            _ => self.address.to_string(),
        }
    }
}

/// Neighbours who may come from anywhere in a range.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// The range.
    pub prefix: meta::Prefix,
    /// How many may be there at once.
    pub limit: u32,
    /// Each of them.
    pub peering: Peering,
}

/// A filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// What it does.
    pub filter: Arc<Filter>,
    /// As it was written.
    pub written: serde_json::Value,
}

/// What is the same for all neighbours of a file.
pub struct Common<'a> {
    /// The AS.
    pub number: u32,
    /// The identifier.
    pub identifier: Ipv4Addr,
    /// Where a neighbour says nothing of it.
    pub restart: RestartSettings,
    /// In which VRF.
    pub vrf: Option<&'a str>,
    /// By their names.
    pub filters: &'a [Named],
    /// The first lines of password files.
    pub password_of: &'a dyn Fn(&std::path::Path) -> Result<String, String>,
}

impl Common<'_> {
    /// A filter by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn filter(&self, field: &str, name: &str) -> Result<Arc<Filter>, Fault> {
        let built_in = |verdict| Filter { name: name.to_owned(), rules: Vec::new(), default: verdict };
        if let Some(named) = self.filters.iter().find(|named| named.filter.name == name) {
            return Ok(Arc::clone(&named.filter));
        }
        match name {
            ACCEPT => Ok(Arc::new(built_in(Verdict::Accept))),
            REJECT => Ok(Arc::new(built_in(Verdict::Reject))),
            _ => {
                let names: Vec<&str> = self.filters.iter().map(|named| named.filter.name.as_str()).collect();
                let known = [&[ACCEPT, REJECT], &names[..]].concat().join(", ");
                Err(Fault::at(field, format!("there is no filter {name:?}; there are {known}")))
            }
        }
    }

    /// A neighbour of a family's addresses.
    ///
    /// # Errors
    /// The field that is missing or can't be, from the neighbour on.
    pub fn peering(&self, settings: &Settings, v6: bool) -> Result<Peering, Fault> {
        let remote_as = settings.remote_as.ok_or_else(|| {
            Fault::at("remote-as", "is missing, here and in the group: a number, \"internal\" or \"external\"")
        })?;
        let local_as = settings.local_as.unwrap_or(self.number);
        if local_as == 0 {
            return Err(Fault::at("local-as", "0 is not the number of an AS"));
        }
        let internal = remote_as == RemoteAs::Internal || remote_as == RemoteAs::Number(local_as);
        sound(settings, internal, v6)?;
        let session = self.session(settings, (local_as, remote_as), v6)?;
        let send_hold = SEND_HOLD.max(Duration::from_secs(2 * u64::from(session.hold_time)));
        Ok(Peering {
            description: settings.description.clone().unwrap_or_default(),
            group: settings.group.clone(),
            enabled: settings.enabled.unwrap_or(true),
            port: settings.port.unwrap_or(PORT),
            source: settings.source_address,
            interface: settings.interface.clone(),
            vrf: self.vrf.map(str::to_owned),
            unnumbered: settings.is_unnumbered(),
            send_hold: settings.send_hold_time.unwrap_or(send_hold),
            advertisement_interval: settings.advertisement_interval.unwrap_or_default(),
            routes: self.routes(settings, local_as, internal)?,
            bfd: settings
                .bfd
                .as_ref()
                .filter(|bfd| bfd.enabled.unwrap_or(true))
                .map(|bfd| watch(bfd, settings.multihop))
                .transpose()?,
            session,
        })
    }

    fn session(
        &self,
        settings: &Settings,
        (local_as, remote_as): (u32, RemoteAs),
        v6: bool,
    ) -> Result<bgp::session::Config, Fault> {
        let mut config = bgp::session::Config::new(local_as, remote_as, self.identifier);
        let s = settings;
        let seconds = |field: &str, time: Option<Duration>, default: u16| match time {
            None => Ok(default),
            Some(time) => u16::try_from(time.as_secs())
                .ok()
                .filter(|seconds| (*seconds == 0 || *seconds >= 3) && time.subsec_nanos() == 0)
                .ok_or_else(|| Fault::at(field, format!("{time:?} is not 0, nor whole seconds from 3s to 65535s"))),
        };
        config.hold_time = seconds("hold-time", s.hold_time, config.hold_time)?;
        config.least_hold_time = seconds("least-hold-time", s.least_hold_time, config.least_hold_time)?;
        config.keepalive = positive("keepalive-time", s.keepalive_time)?;
        config.delay_open = positive("delay-open-time", s.delay_open_time)?;
        config.connect_retry = positive("connect-retry-time", s.connect_retry_time)?.unwrap_or(config.connect_retry);
        config.idle_hold = positive("idle-hold-time", s.idle_hold_time)?.unwrap_or(config.idle_hold);
        let longest = positive("longest-idle-hold-time", s.longest_idle_hold_time)?;
        config.most_idle_hold = longest.unwrap_or(config.most_idle_hold).max(config.idle_hold);
        config.passive = s.passive.unwrap_or(false);
        config.families = families(s, v6)?;
        let (receive, send) = match s.add_path {
            None | Some(AddPathMode::None) => (false, false),
            Some(AddPathMode::Receive) => (true, false),
            Some(AddPathMode::Send) => (false, true),
            Some(AddPathMode::Both) => (true, true),
        };
        let all_or_none = |all: bool| if all { config.families } else { Families::NONE };
        (config.receive_paths, config.send_paths) = (all_or_none(receive), all_or_none(send));
        config.extended_next_hop = s.extended_next_hop.unwrap_or(true);
        config.extended_messages = s.extended_messages.unwrap_or(true);
        config.restart = restart(s.graceful_restart.as_ref(), &self.restart)?;
        (config.role, config.strict_role) = (s.role, s.strict_role.unwrap_or(false));
        let limits = s.prefix_limits.clone().unwrap_or_default();
        config.prefix_limits = [limits.ipv4, limits.ipv6].map(limit);
        let authentication = authentication::of(s, self.password_of)?;
        let ttl_security = s.ttl_security.unwrap_or(false);
        config.transport = Transport { multihop: s.multihop, ttl_security, authentication };
        Ok(config)
    }

    fn routes(&self, settings: &Settings, local_as: u32, internal: bool) -> Result<Routes, Fault> {
        let s = settings;
        // RFC 8212: nothing to and from another AS before somebody has said what.
        let unnamed = |verdict| Arc::new(Filter { name: NONE_NAMED.to_owned(), rules: Vec::new(), default: verdict });
        let filter = |field: &str, name: &Option<String>| match name {
            Some(name) => self.filter(field, name),
            None if internal => Ok(Arc::new(Filter::accept_all())),
            None => Ok(unnamed(Verdict::Reject)),
        };
        Ok(Routes {
            source: if internal { Source::Internal } else { Source::External },
            local_as,
            own_addresses: s.own_addresses.clone().unwrap_or_default(),
            client: s.route_reflector_client.unwrap_or(false),
            next_hop: match s.next_hop {
                None | Some(NextHopName::Auto) => NextHopMode::Auto,
                Some(NextHopName::Own) => NextHopMode::Own,
                Some(NextHopName::Keep) => NextHopMode::Keep,
            },
            allowed_own_as: s.allow_own_as.unwrap_or(0),
            enforce_first_as: s.enforce_first_as.unwrap_or(true),
            remove_private: s.remove_private_as.unwrap_or(false),
            as_override: s.as_override.unwrap_or(false),
            import: filter("import", &s.import)?,
            export: filter("export", &s.export)?,
        })
    }
}

/// What cannot be together, or does nothing where it stands.
fn sound(s: &Settings, internal: bool, v6: bool) -> Result<(), Fault> {
    let other_family = |address: &Option<IpAddr>| address.is_some_and(|address| address.is_ipv6() != v6);
    let faults: [(bool, &str, &str); 11] = [
        (
            s.route_reflector_client == Some(true) && !internal,
            "route-reflector-client",
            "he must be of our AS for that",
        ),
        (s.role.is_some() && internal, "role", "roles are between ASes, and he is of ours"),
        (s.strict_role == Some(true) && s.role.is_none(), "strict-role", "goes with role"),
        (s.remove_private_as == Some(true) && internal, "remove-private-as", "does nothing inside of an AS"),
        (s.as_override == Some(true) && internal, "as-override", "does nothing inside of an AS"),
        (s.multihop == Some(0), "multihop", "0 links away is nobody: 1 to 255"),
        (s.ttl_security == Some(true) && s.multihop == Some(255), "ttl-security", "from 255 links away drops nothing"),
        (other_family(&s.source_address), "source-address", "is not of the neighbour's family"),
        (s.is_unnumbered() && s.multihop.is_some_and(|hops| hops > 1), "multihop", "he is on his link, one away"),
        (s.port == Some(0), "port", "0 is not a port"),
        (s.limit == Some(0), "limit", "0 lets nobody in"),
    ];
    match faults.iter().find(|(wrong, _, _)| *wrong) {
        Some((_, field, problem)) => Err(Fault::at(*field, *problem)),
        None => Ok(()),
    }
}

fn positive(field: &str, time: Option<Duration>) -> Result<Option<Duration>, Fault> {
    match time {
        Some(time) if time.is_zero() => Err(Fault::at(field, "0 is too short")),
        time => Ok(time),
    }
}

fn families(s: &Settings, v6: bool) -> Result<Families, Fault> {
    let family = |name: &FamilyName| match name {
        FamilyName::Ipv4 => Family::Ipv4Unicast,
        FamilyName::Ipv6 => Family::Ipv6Unicast,
    };
    match s.families.as_deref() {
        // On a link without addresses both have next hops of IPv6 (RFC 8950).
        None if s.is_unnumbered() => Ok(Families::ALL),
        None => Ok([if v6 { Family::Ipv6Unicast } else { Family::Ipv4Unicast }].into_iter().collect()),
        Some([]) => Err(Fault::at("families", "is empty: ipv4, ipv6 or both")),
        Some(names) => Ok(names.iter().map(family).collect()),
    }
}

fn restart(own: Option<&RestartSettings>, common: &RestartSettings) -> Result<Option<Restart>, Fault> {
    let none = RestartSettings::default();
    let own = own.unwrap_or(&none);
    let default = Restart::default();
    let forwarding = match own.mode.or(common.mode).unwrap_or(RestartMode::Full) {
        RestartMode::Off => return Ok(None),
        RestartMode::Helper => Families::NONE,
        RestartMode::Full => default.forwarding,
    };
    let within = |field: &str, time: Duration, most: u32| {
        let seconds = u32::try_from(time.as_secs()).ok().filter(|seconds| *seconds <= most);
        let path = || format!("graceful-restart.{field}");
        seconds.ok_or_else(|| Fault::at(path(), format!("{time:?} is more than the {most}s that can be told")))
    };
    // Twelve bits of the capability, and 24 (RFC 4724 3, 9494 3).
    let time = own.restart_time.or(common.restart_time).map(|time| within("restart-time", time, 4095));
    let long_lived =
        own.long_lived_time.or(common.long_lived_time).map(|time| within("long-lived-time", time, 0xff_ffff));
    let time = time.transpose()?.and_then(|seconds| u16::try_from(seconds).ok());
    Ok(Some(Restart {
        time: time.unwrap_or(default.time),
        forwarding,
        notification: own.notification.or(common.notification).unwrap_or(default.notification),
        stale_paths: own.stale_time.or(common.stale_time).unwrap_or(default.stale_paths),
        long_lived: long_lived.transpose()?.unwrap_or(default.long_lived),
    }))
}

fn limit(setting: Option<LimitSetting>) -> Option<PrefixLimit> {
    match setting {
        None => Some(DEFAULT_PREFIX_LIMIT),
        Some(LimitSetting { most, restart_after }) => most.map(|most| PrefixLimit { most, restart: restart_after }),
    }
}

/// Intervals that can be kept, and told in microseconds of four bytes.
const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

fn watch(settings: &BfdSettings, multihop: Option<u8>) -> Result<Watched, Fault> {
    let default = bfd::Config::default();
    let interval = settings.interval.unwrap_or(default.desired_min_tx);
    if !INTERVALS.contains(&interval) {
        return Err(Fault::at("bfd.interval", format!("{interval:?} is not from 10ms to 1m")));
    }
    if settings.multiplier == Some(0) {
        return Err(Fault::at("bfd.multiplier", "0 is not from 1 to 255"));
    }
    let session = bfd::Config {
        desired_min_tx: interval,
        required_min_rx: interval,
        detect_multiplier: settings.multiplier.unwrap_or(default.detect_multiplier),
        passive: settings.passive.unwrap_or(default.passive),
    };
    Ok(Watched { session, far: settings.multihop.unwrap_or(multihop.is_some_and(|hops| hops > 1)) })
}

/// Whether somebody who turns BFD off says more of it, which would do nothing.
pub(super) fn watched(own: &Settings) -> Result<(), Fault> {
    let Some(bfd) = own.bfd.as_ref().filter(|bfd| bfd.enabled == Some(false)) else { return Ok(()) };
    let fields = [
        ("interval", bfd.interval.is_some()),
        ("multiplier", bfd.multiplier.is_some()),
        ("multihop", bfd.multihop.is_some()),
        ("passive", bfd.passive.is_some()),
    ];
    match fields.iter().find(|(_, said)| *said) {
        Some((field, _)) => Err(Fault::at(format!("bfd.{field}"), "does nothing with bfd.enabled: false")),
        None => Ok(()),
    }
}

/// A link whose neighbour is found by himself has no other.
pub(super) fn one_a_link(all: &[Neighbor]) -> Result<(), Fault> {
    let unnumbered = all.iter().filter(|neighbor| neighbor.peering.unnumbered);
    let links: BTreeSet<&str> = unnumbered.filter_map(|neighbor| neighbor.peering.interface.as_deref()).collect();
    for (at, neighbor) in all.iter().enumerate().filter(|(_, neighbor)| is_of_link(neighbor.address)) {
        if let Some(link) = neighbor.peering.interface.as_deref().filter(|link| links.contains(link)) {
            let problem = format!("{} is on {link}, where a neighbour without an address is", neighbor.address);
            return Err(Fault::at(format!("neighbors[{at}].address"), problem));
        }
    }
    Ok(())
}

/// Of a range, its limit.
pub(super) fn limit_of(settings: &Settings) -> u32 {
    settings.limit.unwrap_or(DEFAULT_LIMIT)
}
