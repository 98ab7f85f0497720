//! What can be said of a neighbour: each field by its name in the file. The same for a neighbour, for a range of them and
//! for a group, whose fields are those that a neighbour does not say itself. Pure. Read by [`super::parse`], made a session
//! of by [`super::peering`].

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bgp::message::capability::Role;
use bgp::session::config::{Algorithm, RemoteAs};
use meta::Prefix;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

macro_rules! settings {
    ($($(#[$about:meta])* $field:ident: $kind:ty $(, $with:literal)?;)*) => {
        /// What is said of a neighbour, a range or a group.
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
        pub struct Settings {
            $($(#[$about])* $(#[serde(deserialize_with = $with)])? pub $field: Option<$kind>,)*
        }

        impl Settings {
            /// These, and what they do not say from those below.
            #[must_use]
            pub fn over(self, below: &Settings) -> Settings {
                Settings { $($field: self.$field.or_else(|| below.$field.clone()),)* }
            }
        }
    };
}

settings! {
    /// Of a group: by which neighbours say it.
    name: String;
    /// Of a neighbour: where he is. Without one, what has come by his `interface` says so.
    address: IpAddr;
    /// Of a range of neighbours: where they may come from.
    prefix: Prefix;
    /// Of a range: how many may be there at once.
    limit: u32;
    /// Whose fields count where these say nothing.
    group: String;
    /// For people.
    description: String;
    /// `false`: the neighbour is known and there is no session with him.
    enabled: bool;
    /// Which AS he is of: a number, `internal` or `external`.
    remote_as: RemoteAs, "remote_as";
    /// The AS that we are to him, where it is not ours.
    local_as: u32;
    /// The address from which we speak to him.
    source_address: IpAddr;
    /// The link by which he is reached; of an address of one link it says which, and without an address it is all that is
    /// known of where he is.
    interface: String;
    /// His port.
    port: u16;
    /// He connects, we do not.
    passive: bool;
    /// How many links away he may be.
    multihop: u8;
    /// Packets from further away are dropped (GTSM, RFC 5082).
    ttl_security: bool;
    /// TCP-MD5 (RFC 2385).
    password: Secret;
    /// The same, the first line of a file.
    password_file: PathBuf;
    /// TCP-AO (RFC 5925): keys, of which the first is to be used, and others are taken, too.
    tcp_ao: Vec<AoKeySettings>;
    /// Silence of this long ends the session.
    hold_time: Duration, "duration";
    /// The least that he may ask for.
    least_hold_time: Duration, "duration";
    /// How often he hears of us; a third of the hold time at most.
    keepalive_time: Duration, "duration";
    /// How long a connection may take before it is tried again.
    connect_retry_time: Duration, "duration";
    /// How long his OPEN is waited for before ours is sent.
    delay_open_time: Duration, "duration";
    /// How long a session that failed rests; twice as long after each failure.
    idle_hold_time: Duration, "duration";
    /// The longest rest.
    longest_idle_hold_time: Duration, "duration";
    /// What he does not take for so long ends the session (RFC 9687).
    send_hold_time: Duration, "duration";
    /// The least time between two looks at what he is to be told.
    advertisement_interval: Duration, "duration";
    /// Which routes are carried.
    families: Vec<FamilyName>;
    /// Several paths of a prefix (RFC 7911).
    add_path: AddPathMode;
    /// Next hops of IPv6 for routes of IPv4 (RFC 8950).
    extended_next_hop: bool;
    /// Messages of up to 64 KiB (RFC 8654).
    extended_messages: bool;
    /// Routes outlive a restart (RFC 4724).
    graceful_restart: RestartSettings;
    /// What we are to him (RFC 9234).
    role: Role, "role";
    /// He must say what he is.
    strict_role: bool;
    /// He is a client of this route reflector (RFC 4456).
    route_reflector_client: bool;
    /// What he is told as the next hop.
    next_hop: NextHopName;
    /// Our addresses that he is told as next hops, where they are not those of the link to him.
    own_addresses: Vec<IpAddr>;
    /// Private AS numbers are taken out of what he is told.
    remove_private_as: bool;
    /// His AS in a path is replaced by ours.
    as_override: bool;
    /// How often our AS may be in a path of his.
    allow_own_as: u8;
    /// A path of another AS begins with its number.
    enforce_first_as: bool;
    /// How many prefixes he may tell.
    prefix_limits: LimitSettings;
    /// The filter of what he tells.
    import: String;
    /// The filter of what he is told.
    export: String;
    /// Whether he is there, several times a second (RFC 5880).
    bfd: BfdSettings;
}

impl Settings {
    /// Of a neighbour nothing is said of where he is but his link.
    pub fn is_unnumbered(&self) -> bool {
        self.address.is_none() && self.prefix.is_none() && self.interface.is_some()
    }
}

/// A family, by its name in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FamilyName {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}

/// Which way several paths of a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddPathMode {
    /// Neither.
    None,
    /// From him to us.
    Receive,
    /// From us to him.
    Send,
    /// Both ways.
    Both,
}

/// What is told as the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NextHopName {
    /// Ours to other ASes, what was told inside of ours.
    Auto,
    /// Ours.
    #[serde(rename = "self")]
    Own,
    /// What was told.
    Keep,
}

/// Graceful restart, as it is said.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RestartSettings {
    /// What is done: all of it where nothing is said.
    pub mode: Option<RestartMode>,
    /// In which time this speaker is back.
    #[serde(deserialize_with = "duration")]
    pub restart_time: Option<Duration>,
    /// How long stale routes wait for a neighbour who is back to tell them again.
    #[serde(deserialize_with = "duration")]
    pub stale_time: Option<Duration>,
    /// How long routes stay beyond, as the last resort (RFC 9494).
    #[serde(deserialize_with = "duration")]
    pub long_lived_time: Option<Duration>,
    /// Routes outlive NOTIFICATIONs, too (RFC 8538).
    pub notification: Option<bool>,
}

/// Whose restarts routes outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartMode {
    /// Ours and his.
    Full,
    /// His.
    Helper,
    /// Nobody's.
    Off,
}

/// What is not in a `Debug`, which may get into a log.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A key of TCP-AO.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AoKeySettings {
    /// Its number in what is sent: the neighbour's number for what he receives.
    pub send_id: u8,
    /// Its number in what is received.
    pub receive_id: u8,
    /// By what is signed.
    pub algorithm: AoAlgorithm,
    /// What both know.
    pub key: Option<Secret>,
    /// The same, the first line of a file.
    pub key_file: Option<PathBuf>,
}

/// RFC 5926's algorithms, by its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum AoAlgorithm {
    /// HMAC-SHA-1-96.
    #[serde(rename = "hmac-sha-1-96")]
    HmacSha1,
    /// AES-128-CMAC-96.
    #[serde(rename = "aes-128-cmac-96")]
    Aes128Cmac,
}

impl From<AoAlgorithm> for Algorithm {
    fn from(written: AoAlgorithm) -> Algorithm {
        match written {
            AoAlgorithm::HmacSha1 => Algorithm::HmacSha1,
            AoAlgorithm::Aes128Cmac => Algorithm::Aes128Cmac,
        }
    }
}

/// Limits of prefixes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Of IPv4.
    pub ipv4: Option<LimitSetting>,
    /// Of IPv6.
    pub ipv6: Option<LimitSetting>,
}

/// A limit of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LimitSetting {
    /// One more ends the session; `unlimited` is never.
    #[serde(deserialize_with = "most")]
    pub most: Option<u32>,
    /// How long it stays down; without it until a reload brings another configuration of the neighbour, or for good.
    #[serde(default, deserialize_with = "duration")]
    pub restart_after: Option<Duration>,
}

/// BFD, as it is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BfdSettings {
    /// `false` turns off what a group says.
    pub enabled: Option<bool>,
    /// How often packets are sent and wanted.
    #[serde(deserialize_with = "duration")]
    pub interval: Option<Duration>,
    /// So many may be lost.
    pub multiplier: Option<u8>,
    /// He may be further away than the next link (RFC 5883); as `multihop` says where nothing is said.
    pub multihop: Option<bool>,
    /// He begins.
    pub passive: Option<bool>,
}

/// Go's notation, `90s`, `1h30m`; a number is seconds, as other speakers' files have it.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let wrong =
        |text: &str| D::Error::custom(format!("{text} is not a duration such as 90s, 5m or 300ms, nor whole seconds"));
    match serde_json::Value::deserialize(from)? {
        serde_json::Value::String(text) => {
            meta::duration::parse(&text).map(Some).map_err(|_| wrong(&format!("{text:?}")))
        }
        serde_json::Value::Number(number) => {
            let seconds = number.as_u64().and_then(|seconds| u32::try_from(seconds).ok());
            seconds.map(|seconds| Some(Duration::from_secs(seconds.into()))).ok_or_else(|| wrong(&number.to_string()))
        }
        serde_json::Value::Null => Ok(None),
        other => Err(wrong(&other.to_string())),
    }
}

fn remote_as<'de, D: Deserializer<'de>>(from: D) -> Result<Option<RemoteAs>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number != 0);
    match (value.as_str(), number) {
        (Some("internal"), _) => Ok(Some(RemoteAs::Internal)),
        (Some("external"), _) => Ok(Some(RemoteAs::External)),
        (_, Some(number)) => Ok(Some(RemoteAs::Number(number))),
        _ => Err(D::Error::custom(format!(
            "{value} is not the number of an AS (1 to 4294967295), \"internal\" or \"external\""
        ))),
    }
}

/// The names of RFC 9234's roles.
pub const ROLES: [(&str, Role); 5] = [
    ("provider", Role::Provider),
    ("customer", Role::Customer),
    ("peer", Role::Peer),
    ("route-server", Role::RouteServer),
    ("route-server-client", Role::RouteServerClient),
];

fn role<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Role>, D::Error> {
    let text = String::deserialize(from)?;
    let found = ROLES.iter().find(|(name, _)| *name == text).map(|(_, role)| *role);
    let names = ROLES.map(|(name, _)| name).join(", ");
    found.map(Some).ok_or_else(|| D::Error::custom(format!("{text:?} is not one of {names}")))
}

fn most<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    match (value.as_str(), value.as_u64().and_then(|number| u32::try_from(number).ok())) {
        (Some("unlimited"), _) => Ok(None),
        (_, Some(number)) if number > 0 => Ok(Some(number)),
        _ => Err(D::Error::custom(format!("{value} is not a number of prefixes or \"unlimited\""))),
    }
}
