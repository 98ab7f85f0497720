//! The backend wireguard: packets encrypted by the kernel, between hosts that know each other by their public keys. Pure.
//! Caller: the daemon.
//!
//! ```text
//! lease      BackendData {"PublicKey": "BNTz…", "Port": 51820}             and the same as BackendV6Data
//! peer       BNTz… endpoint 192.0.2.7:51820 allowed 10.5.2.0/24          what may come from there and goes there
//! route      10.5.0.0/16 dev flannel-wg                                 all hosts' pods: the key says which host
//! ```
//!
//! `Mode` says who speaks how: `separate` has a link for each family, the others one for both, by IPv4 or IPv6 between the
//! hosts; `auto` takes what is likelier to get there. A peer that speaks from elsewhere is followed by the kernel, so an
//! endpoint is written when it is new or its lease says another, and not because it differs.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use linux::netlink::Route;
use linux::netlink::wireguard::{Peer, PeerChange, PublicKey, SecretKey};
use meta::Prefix;
use serde_json::{Value, json};

use super::{External, Wanted, astray};
use crate::config::{ConfigError, Fields, NetConf};
use crate::lease::{Attributes, Lease, Subnets};

pub const TYPE: &str = "wireguard";
/// The bytes around a packet: IPv6, UDP, and what WireGuard adds; with IPv4 outside it is less, and is not counted so.
pub const OVERHEAD: u32 = 80;
const PORT: u32 = 51820;
const PORT6: u32 = 51821;
/// A key in base64.
const KEY_TEXT: usize = 44;

/// How hosts speak to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A link for each family of pods, each by its own family between hosts.
    Separate,
    /// One link, by the family that is likelier to get there.
    Auto,
    /// One link, by IPv4.
    V4,
    /// One link, by IPv6.
    V6,
}

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub psk: Option<SecretKey>,
    pub port: u16,
    /// Of the link of IPv6, where there is one.
    pub port6: u16,
    /// Of the outer packets; 0 is the external link's.
    pub mtu: u32,
    pub mode: Mode,
    /// Seconds; 0 is off.
    pub keepalive: u16,
}

/// Whom the links of IPv4 (or of both families) and of IPv6 speak to.
pub type Peers = [Vec<Peer>; 2];

impl Options {
    pub fn of(conf: &NetConf) -> Result<Options, ConfigError> {
        let fields = &conf.backend;
        let port = |name: &str, default| match fields.number(name, default, u32::from(u16::MAX))? as u16 {
            0 => Err(fields.wrong(name, "0 is no port that others can send to")),
            port => Ok(port),
        };
        let mode = match fields.text("Mode")? {
            None | Some("separate") => Mode::Separate,
            Some("auto") => Mode::Auto,
            Some("ipv4") => Mode::V4,
            Some("ipv6") => Mode::V6,
            Some(other) => {
                return Err(fields.wrong("Mode", format!("{other:?} is none of separate, auto, ipv4 and ipv6")));
            }
        };
        let options = Options {
            psk: psk(fields)?,
            port: port("ListenPort", PORT)?,
            port6: port("ListenPortV6", PORT6)?,
            mtu: fields.number("MTU", 0, 65_535)?,
            mode,
            keepalive: fields.number("PersistentKeepaliveInterval", 0, u32::from(u16::MAX))? as u16,
        };
        // Each link listens on both families.
        if options.two(conf) && conf.v4.is_some() && options.port == options.port6 {
            return Err(fields.wrong("ListenPortV6", format!("{} is ListenPort's: say another", options.port6)));
        }
        Ok(options)
    }

    /// Whether IPv6 has a link of its own.
    fn two(&self, conf: &NetConf) -> bool {
        self.mode == Mode::Separate && conf.v6.is_some()
    }

    /// The links that this host has: whether each is that of IPv6, its port, and the families whose pods it has.
    pub fn links(&self, conf: &NetConf) -> Vec<(bool, u16, Vec<bool>)> {
        let has = [conf.v4.is_some(), conf.v6.is_some()];
        let families = [false, true].into_iter().filter(|v6| has[usize::from(*v6)]);
        if self.mode != Mode::Separate {
            return vec![(false, self.port, families.collect())];
        }
        families.map(|v6| (v6, if v6 { self.port6 } else { self.port }, vec![v6])).collect()
    }

    /// What other hosts must know of this one.
    pub fn data(&self, key: PublicKey, v6: bool) -> Value {
        // The one link listens on one port, whichever family others come by.
        let port = if v6 && self.mode == Mode::Separate { self.port6 } else { self.port };
        json!({"PublicKey": STANDARD.encode(key.0), "Port": port})
    }
}

/// The name of a link: upstream's, and those of further clusters of the host have their number.
pub fn link(v6: bool, number: u16) -> String {
    match (v6, number) {
        (false, 0) => "flannel-wg".to_owned(),
        (true, 0) => "flannel-wg-v6".to_owned(),
        (false, number) => format!("flannel-wg.{number}"),
        (true, number) => format!("flannel-wg6.{number}"),
    }
}

/// What stands there is a secret: a refusal doesn't show it.
fn psk(fields: &Fields) -> Result<Option<SecretKey>, ConfigError> {
    let wrong = || fields.wrong("PSK", "it is no key of 32 bytes in base64, such as `wg genpsk` prints");
    match fields.text("PSK").map_err(|_| wrong())?.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => key(text).map(|key| Some(SecretKey(key))).ok_or_else(wrong),
    }
}

/// A key as `wg` and leases write it.
pub fn key(text: &str) -> Option<[u8; 32]> {
    if text.len() != KEY_TEXT {
        return None;
    }
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// What a lease says of its host's link: its key, and its port where it says one.
pub fn told(data: Option<&Value>) -> Option<(PublicKey, Option<u16>)> {
    let data = data?;
    let port = data.get("Port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).filter(|p| *p != 0);
    Some((PublicKey(key(data.get("PublicKey")?.as_str()?)?), port))
}

/// The route of each family, and whom each link speaks to. `own_key` is this host's; `index` says the link of a family.
pub fn wanted<'a>(
    (conf, options): (&NetConf, &Options),
    own: &Subnets,
    external: &External,
    own_key: PublicKey,
    leases: impl IntoIterator<Item = &'a Lease>,
    index: impl Fn(bool) -> Option<u32>,
) -> (Wanted, Peers) {
    let (mut wanted, mut all) = (Wanted::default(), Peers::default());
    for (v6, range) in [(false, conf.v4), (true, conf.v6)] {
        if let (Some(range), Some(index)) = (range, index(v6)) {
            wanted.routes.push(Route::link(range.network, index));
        }
    }
    let mut known = [HashSet::from([own_key]), HashSet::from([own_key])];
    for lease in leases {
        for (v6, _, families) in options.links(conf) {
            let subnet = |v6: &bool| if *v6 { lease.subnets.v6 } else { lease.subnets.v4 };
            let allowed: Vec<Prefix> = families.iter().filter_map(subnet).map(|subnet| subnet.network()).collect();
            let Some(first) = allowed.first().copied() else { continue };
            match peer((conf, options), own, external, lease, v6, allowed) {
                Ok(None) => {}
                Ok(Some(peer)) if known[usize::from(v6)].insert(peer.key) => all[usize::from(v6)].push(peer),
                Ok(Some(_)) => wanted.complaints.push(format!(
                    "the host of {first} has the WireGuard key of another: remove its key file (wgkey below \
                     /run/ferrokube, or /run/flannel/wgkey of a flannel alone) and start its flannel again"
                )),
                Err(complaint) => wanted.complaints.push(complaint),
            }
        }
    }
    (wanted, all)
}

/// The other host of a lease as a link has it; none is this one.
fn peer(
    (conf, options): (&NetConf, &Options),
    own: &Subnets,
    external: &External,
    lease: &Lease,
    v6: bool,
    allowed: Vec<Prefix>,
) -> Result<Option<Peer>, String> {
    let Some(subnet) = allowed.first().copied().filter(|_| lease.subnets != *own) else { return Ok(None) };
    if let Some(complaint) = astray(conf, own, lease, subnet, TYPE) {
        return Err(complaint);
    }
    let attributes = &lease.attributes;
    let (four, six) = (told(attributes.data.as_ref()), told(attributes.data6.as_ref()));
    // Upstream has the same key in both, and in the latter a port that a link for both families does not listen on.
    let said = match options.mode == Mode::Separate && v6 {
        true => six,
        false => four.or(six),
    };
    let Some((key, port)) = said else {
        return Err(format!("the lease of {subnet} has no BackendData with a PublicKey of 32 bytes in base64"));
    };
    let by6 = match options.mode {
        Mode::Separate => v6,
        Mode::V4 => false,
        Mode::V6 => true,
        Mode::Auto => by_ipv6(external, attributes),
    };
    let Some(address) = attributes.address(by6) else {
        let family = if by6 { "IPv6" } else { "IPv4" };
        return Err(format!("the lease of {subnet} does not say how its host is reached by {family}"));
    };
    let own_port = if v6 { options.port6 } else { options.port };
    Ok(Some(Peer {
        key,
        endpoint: Some(SocketAddr::new(address, port.unwrap_or(own_port))),
        psk: options.psk.clone(),
        keepalive: options.keepalive,
        allowed,
    }))
}

/// Upstream's choice: IPv4 where the other's address is everybody's; else IPv6 where both hosts' are; else IPv4.
fn by_ipv6(external: &External, other: &Attributes) -> bool {
    let Some(six) = other.public_ipv6 else { return false };
    let Some(four) = other.public_ip else { return true };
    if !four.is_private() && external.public_v4.is_some() {
        return false;
    }
    !six.is_unique_local() && external.public_v6.is_some_and(|own| !own.is_unique_local())
}

/// What is to change of a link's peers. `told` is where each was said to be last: what the kernel has may be newer.
pub fn changes(wanted: &[Peer], there: &[Peer], told: &HashMap<PublicKey, SocketAddr>) -> Vec<PeerChange> {
    let keys: HashSet<PublicKey> = wanted.iter().map(|peer| peer.key).collect();
    let known: HashMap<PublicKey, &Peer> = there.iter().map(|peer| (peer.key, peer)).collect();
    // First: what one has, another can't be given without taking it.
    let gone = there.iter().map(|peer| peer.key).filter(|key| !keys.contains(key)).map(PeerChange::Remove);
    let mut changes: Vec<PeerChange> = gone.collect();
    for peer in wanted {
        let there = known.get(&peer.key);
        let moved = there.is_none() || peer.endpoint.as_ref() != told.get(&peer.key);
        if moved || there.is_some_and(|there| !same(there, peer)) {
            changes.push(PeerChange::Put(Peer { endpoint: peer.endpoint.filter(|_| moved), ..peer.clone() }));
        }
    }
    changes
}

fn same(there: &Peer, wanted: &Peer) -> bool {
    let ranges = |peer: &Peer| peer.allowed.iter().copied().collect::<HashSet<Prefix>>();
    (&there.psk, there.keepalive) == (&wanted.psk, wanted.keepalive) && ranges(there) == ranges(wanted)
}

/// By which address a host is reached on a link, as [`changes`] remembers it.
pub fn endpoints(wanted: &[Peer]) -> HashMap<PublicKey, SocketAddr> {
    wanted.iter().filter_map(|peer| Some((peer.key, peer.endpoint?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Backend;
    use super::super::tests::{external, lease, subnets};
    use super::*;

    const OWN: PublicKey = PublicKey([1; 32]);

    fn data(n: u8, port: &str) -> String {
        format!(r#"{{"PublicKey": "{}"{port}}}"#, STANDARD.encode([n; 32]))
    }

    fn dual(backend: &str) -> NetConf {
        let text = format!(
            r#"{{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48", "Backend": {backend}}}"#
        );
        NetConf::parse(text.as_bytes()).unwrap()
    }

    fn options(conf: &NetConf) -> Options {
        let Backend::Wireguard(options) = Backend::of(conf).unwrap() else { panic!() };
        options
    }

    fn both(n: u8, public: &str, public6: &str) -> Lease {
        let mut lease = lease(&format!("10.5.{n}.0/24"), public, TYPE, Some(&data(n, r#", "Port": 51820"#)));
        lease.subnets.v6 = format!("fd00:5:0:{n}::/64").parse().ok();
        lease.attributes.public_ipv6 = public6.parse().ok();
        lease.attributes.data6 = serde_json::from_str(&data(n, r#", "Port": 51821"#)).ok();
        lease
    }

    fn look(conf: &NetConf, leases: &[Lease]) -> (Wanted, Peers) {
        let mut own = subnets("10.5.1.0/24");
        own.v6 = "fd00:5:0:1::/64".parse().ok();
        let own = Subnets { v6: own.v6.filter(|_| conf.v6.is_some()), ..own };
        let single = options(conf).mode != Mode::Separate;
        wanted((conf, &options(conf)), &own, &external(), OWN, leases, |v6| Some(if v6 && !single { 10 } else { 9 }))
    }

    #[test]
    fn defaults_are_upstreams_and_what_is_wrong_is_told_without_the_secret() {
        let conf = dual(r#"{"Type": "wireguard"}"#);
        let defaults = options(&conf);
        assert_eq!(
            (defaults.port, defaults.port6, defaults.mode, defaults.keepalive),
            (51820, 51821, Mode::Separate, 0)
        );
        assert_eq!(defaults.links(&conf), [(false, 51820, vec![false]), (true, 51821, vec![true])]);
        assert_eq!((link(false, 0), link(true, 0)), ("flannel-wg".into(), "flannel-wg-v6".into()));
        assert_eq!((link(false, 3), link(true, 79)), ("flannel-wg.3".into(), "flannel-wg6.79".into()));
        assert!(link(true, 79).len() < 16, "the kernel's longest");
        let written = defaults.data(PublicKey([0; 32]), true);
        assert_eq!(written["PublicKey"], "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        assert_eq!((&written["Port"], &defaults.data(OWN, false)["Port"]), (&json!(51821), &json!(51820)));
        let single = options(&dual(r#"{"Type": "wireguard", "Mode": "auto", "ListenPortV6": 51820}"#));
        assert_eq!(single.data(OWN, true)["Port"], 51820);
        assert_eq!(single.links(&conf), [(false, 51820, vec![false, true])]);

        let secret = STANDARD.encode([0x5a; 32]);
        let full = options(&dual(&format!(
            r#"{{"Type": "wireguard", "PSK": "{secret}", "Mode": "ipv6", "PersistentKeepaliveInterval": 25, "MTU": 9000}}"#
        )));
        assert_eq!((full.psk.clone(), full.keepalive, full.mtu), (Some(SecretKey([0x5a; 32])), 25, 9000));
        assert!(!format!("{full:?} {:?}", dual(&format!(r#"{{"PSK": "{secret}"}}"#))).contains(&secret));
        for (backend, end) in [
            (
                r#"{"Type": "wireguard", "Mode": "both"}"#,
                "Backend.Mode: \"both\" is none of separate, auto, ipv4 and ipv6",
            ),
            (r#"{"Type": "wireguard", "ListenPort": 0}"#, "Backend.ListenPort: 0 is no port that others can send to"),
            (
                r#"{"Type": "wireguard", "ListenPortV6": 51820}"#,
                "Backend.ListenPortV6: 51820 is ListenPort's: say another",
            ),
            (
                r#"{"Type": "wireguard", "PSK": "hunter2"}"#,
                "Backend.PSK: it is no key of 32 bytes in base64, such as `wg genpsk` prints",
            ),
            (
                r#"{"Type": "wireguard", "PSK": 1234}"#,
                "Backend.PSK: it is no key of 32 bytes in base64, such as `wg genpsk` prints",
            ),
        ] {
            let said = Backend::of(&dual(backend)).unwrap_err().to_string();
            assert!(said.ends_with(end), "{said}");
        }
    }

    #[test]
    fn each_other_host_is_a_peer_of_the_link_of_its_family() {
        let conf = dual(r#"{"Type": "wireguard"}"#);
        // One of an older upstream says no port.
        let mut old = both(3, "192.0.2.3", "2001:db8::3");
        old.attributes.data = serde_json::from_str(&data(3, "")).ok();
        let leases = [both(1, "192.0.2.1", "2001:db8::1"), both(2, "192.0.2.2", "2001:db8::2"), old];
        let (wanted, [four, six]) = look(&conf, &leases);
        let routes = [Route::link("10.5.0.0/16".parse().unwrap(), 9), Route::link("fd00:5::/48".parse().unwrap(), 10)];
        assert_eq!((&wanted.routes[..], wanted.complaints.len()), (&routes[..], 0));
        let shown = |peers: &[Peer]| {
            let one = |p: &Peer| format!("{} {} {}", p.key.0[0], p.endpoint.unwrap(), p.allowed[0]);
            peers.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(shown(&four), ["2 192.0.2.2:51820 10.5.2.0/24", "3 192.0.2.3:51820 10.5.3.0/24"]);
        let expected = ["2 [2001:db8::2]:51821 fd00:5:0:2::/64", "3 [2001:db8::3]:51821 fd00:5:0:3::/64"];
        assert_eq!(shown(&six), expected);
    }

    #[test]
    fn one_link_for_both_goes_by_what_is_likelier_to_get_there() {
        let rows = [
            ("auto", "192.0.2.2", "2001:db8::2", "192.0.2.2:51820"),
            ("auto", "10.0.0.2", "2001:db8::2", "10.0.0.2:51820"),
            ("ipv4", "10.0.0.2", "2001:db8::2", "10.0.0.2:51820"),
            ("ipv6", "192.0.2.2", "fd00::2", "[fd00::2]:51820"),
        ];
        for (mode, public, public6, endpoint) in rows {
            let conf = dual(&format!(r#"{{"Type": "wireguard", "Mode": "{mode}"}}"#));
            let (wanted, [peers, none]) = look(&conf, &[both(2, public, public6)]);
            assert_eq!((peers[0].endpoint.unwrap().to_string(), none.len()), (endpoint.to_owned(), 0), "{mode}");
            assert_eq!(peers[0].allowed.len(), 2);
            assert_eq!(wanted.routes.iter().filter_map(Route::index).collect::<Vec<_>>(), [9, 9]);
        }
        // With an address of IPv6 that is everybody's on both ends.
        let own = External { public_v6: "2001:db8::1".parse().ok(), ..external() };
        let other = |v4: &str, v6: &str| both(2, v4, v6).attributes;
        assert!(by_ipv6(&own, &other("10.0.0.2", "2001:db8::2")) && !by_ipv6(&own, &other("10.0.0.2", "fd00::2")));
        assert!(!by_ipv6(&own, &other("192.0.2.2", "2001:db8::2")));
    }

    #[test]
    fn a_lease_without_a_key_or_with_anothers_is_told_and_no_peer() {
        let conf = dual(r#"{"Type": "wireguard", "Mode": "ipv4"}"#);
        let with = |text: &str| Some(serde_json::from_str(text).unwrap());
        for wrong in [r#"{"PublicKey": "AAAA"}"#, r#"{"PublicKey": 7}"#, r#"{"Port": 51820}"#, "[]"] {
            let mut other = both(2, "192.0.2.2", "2001:db8::2");
            (other.attributes.data, other.attributes.data6) = (with(wrong), None);
            let (wanted, [peers, _]) = look(&conf, &[other]);
            assert!(peers.is_empty() && wanted.complaints[0].contains("PublicKey"), "{wrong}: {wanted:?}");
        }
        // A host that was copied, key and all; and one with this host's own key, which the kernel would never take.
        let mut copy = both(3, "192.0.2.3", "2001:db8::3");
        copy.attributes.data = with(&data(2, ""));
        let mut mine = both(4, "192.0.2.4", "2001:db8::4");
        mine.attributes.data = with(&data(1, ""));
        let (wanted, [peers, _]) = look(&conf, &[both(2, "192.0.2.2", "2001:db8::2"), copy, mine]);
        assert_eq!((peers.len(), wanted.complaints.len()), (1, 2), "{wanted:?}");
        assert!(wanted.complaints[0].contains("10.5.3.0/24 has the WireGuard key of another"));
    }

    #[test]
    fn peers_are_put_right_and_one_that_roams_is_left_where_it_is() {
        let conf = dual(r#"{"Type": "wireguard", "Mode": "ipv4"}"#);
        let leases = [both(2, "192.0.2.2", "2001:db8::2"), both(3, "192.0.2.3", "2001:db8::3")];
        let (_, [wanted, _]) = look(&conf, &leases);
        let told = endpoints(&wanted);
        assert_eq!(changes(&wanted, &[], &HashMap::new()).len(), 2);
        assert_eq!(changes(&wanted, &[], &told), wanted.iter().cloned().map(PeerChange::Put).collect::<Vec<_>>());
        assert_eq!(changes(&wanted, &wanted, &told), []);
        // After a start nothing was told: leases have the word.
        assert_eq!(changes(&wanted, &wanted, &HashMap::new()).len(), 2);
        let mut there = wanted.clone();
        there[0].endpoint = "203.0.113.9:4711".parse().ok();
        there[0].allowed.reverse();
        assert_eq!(changes(&wanted, &there, &told), [], "a translator has given it another port");
        there[0].allowed.pop();
        let expected = PeerChange::Put(Peer { endpoint: None, ..wanted[0].clone() });
        assert_eq!(changes(&wanted, &there, &told), [expected]);
        // Another endpoint of the lease; another key of the same host, whose ranges must be free first.
        let mut moved = wanted.clone();
        moved[1].endpoint = "192.0.2.33:51820".parse().ok();
        assert_eq!(changes(&moved, &wanted, &told), [PeerChange::Put(moved[1].clone())]);
        let mut anew = wanted.clone();
        anew[0].key = PublicKey([7; 32]);
        let expected = [PeerChange::Remove(wanted[0].key), PeerChange::Put(anew[0].clone())];
        assert_eq!(changes(&anew, &wanted, &told), expected);
    }
}
