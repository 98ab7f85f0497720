//! The configuration file as it is written: one structure, each field by its name in the file. Pure. Read by
//! [`super::parse`], which makes a [`super::Config`] of it.
//!
//! ```yaml
//! router-id: 10.0.0.1
//! as: 64512
//! groups:
//!   - {name: rack, remote-as: external, hold-time: 9s, import: from-rack, export: to-rack}
//! neighbors:
//!   - {address: 10.0.0.2, remote-as: internal}
//!   - {address: 10.0.1.1, group: rack}
//! dynamic:
//!   - {prefix: 10.0.2.0/24, group: rack, limit: 20}
//! networks:
//!   - {prefix: 192.168.7.0/26, kernel: blackhole}
//! filters:
//!   - name: to-rack
//!     rules: [{match: {source: [static]}, action: accept}]
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bgp::policy::{Change, Filter};
use meta::Prefix;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::settings::{RestartSettings, Settings, duration};

/// All of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Document {
    /// This speaker's BGP identifier.
    pub router_id: Ipv4Addr,
    /// Its AS.
    #[serde(rename = "as")]
    pub number: u32,
    /// The VRF in which it is: its sockets, links and routes.
    pub vrf: Option<String>,
    /// The cluster that it reflects for.
    pub cluster_id: Option<Ipv4Addr>,
    /// Where neighbours reach it.
    #[serde(default)]
    pub listen: Listen,
    /// The socket of `ferrokube bgp show`.
    pub control_socket: Option<PathBuf>,
    /// Where metrics are read; without it they aren't.
    pub metrics: Option<SocketAddr>,
    /// How paths are compared.
    #[serde(default)]
    pub decision: Decision,
    /// Of neighbours who say nothing of it.
    pub graceful_restart: Option<RestartSettings>,
    /// What several neighbours have in common.
    #[serde(default)]
    pub groups: Vec<Settings>,
    /// With whom there are sessions.
    #[serde(default)]
    pub neighbors: Vec<Settings>,
    /// Who may connect though he isn't named.
    #[serde(default)]
    pub dynamic: Vec<Settings>,
    /// By the names that neighbours and the kernel say.
    #[serde(default)]
    pub filters: Vec<Written>,
    /// Routes of this host.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// What goes into the kernel's tables, and out of them.
    #[serde(default)]
    pub kernel: Kernel,
    /// Dumps for others' tools.
    #[serde(default)]
    pub mrt: Mrt,
}

/// A filter, and how it was written.
#[derive(Debug)]
pub struct Written {
    /// What it does.
    pub filter: Filter,
    /// For people.
    pub text: serde_json::Value,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Written, D::Error> {
        let text = serde_json::Value::deserialize(from)?;
        let filter = Filter::deserialize(super::node::Node(&text)).map_err(|fault| super::node::carried(&fault))?;
        Ok(Written { filter, text })
    }
}

/// Where neighbours reach this speaker.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Listen {
    /// All of both families where none is said; an empty list is nowhere.
    pub addresses: Option<Vec<IpAddr>>,
    /// 179 where none is said.
    pub port: Option<u16>,
}

/// How paths are compared.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Decision {
    /// MEDs of different neighbouring ASes, too.
    pub always_compare_med: bool,
    /// Of two external ones that are as good the older stays.
    pub prefer_older: bool,
    /// How many are used at once.
    pub maximum_paths: Option<u8>,
    /// Those through different neighbouring ASes together.
    pub multipath_relax: bool,
}

/// A route of this host.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Network {
    /// Where it leads.
    pub prefix: Prefix,
    /// By whom; this host where nobody is said.
    pub next_hop: Option<IpAddr>,
    /// What the kernel does with packets that no longer prefix takes.
    #[serde(default)]
    pub kernel: Rest,
    /// Its attributes.
    #[serde(default)]
    pub set: Change,
}

/// What the kernel does with packets to a network of ours that no longer prefix takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// What it does anyway: no route is made.
    #[default]
    None,
    /// They are dropped.
    Blackhole,
    /// The sender hears that there is no way.
    Unreachable,
}

/// The kernel's tables.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Kernel {
    /// Chosen routes are put there.
    pub routes: Option<bool>,
    /// Into which table; `main` is 254. That of the VRF where none is said.
    pub table: Option<u32>,
    /// The table that says where next hops are.
    pub next_hop_table: Option<u32>,
    /// The number by which they are known: `ip route show proto 71`.
    pub protocol: Option<u8>,
    /// How often all is compared, beside the news of each change.
    #[serde(deserialize_with = "duration")]
    pub scan_interval: Option<Duration>,
    /// With which metric.
    pub metric: Option<u32>,
    /// The metric follows LOCAL_PREF where a route has one, as Calico's: 2147483647 less it.
    pub metric_of_local_preference: bool,
    /// Which of them.
    pub export: Option<String>,
    /// The addresses of links as routes of ours.
    pub direct: Option<Direct>,
    /// Routes that others put there.
    pub learn: Option<Learn>,
}

/// The addresses of links as routes of ours.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Direct {
    /// Of these links; `*` at the end is any end. All where none is said.
    pub interfaces: Vec<String>,
    /// Which of them; all where none is said.
    pub import: Option<String>,
}

/// Routes that others put into the kernel.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Learn {
    /// Those by these links; `*` at the end is any end. All where none is said.
    pub interfaces: Vec<String>,
    /// Those of these protocols, by name or number. All where none is said.
    #[serde(deserialize_with = "protocols")]
    pub protocols: Vec<u8>,
    /// Which of them; all where none is said.
    pub import: Option<String>,
}

fn protocols<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let one = |value: serde_json::Value| {
        let named = |text: &str| super::protocols::named(text);
        let number = value.as_u64().and_then(|number| u8::try_from(number).ok());
        number.or_else(|| value.as_str().and_then(named)).ok_or_else(|| {
            let names = super::protocols::NAMES.map(|(name, _)| name).join(", ");
            D::Error::custom(format!("{value} is not a number up to 255 or one of {names}"))
        })
    };
    Vec::<serde_json::Value>::deserialize(from)?.into_iter().map(one).collect()
}

/// Dumps (RFC 6396).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Mrt {
    /// A file to which messages and changes of state are appended.
    pub updates: Option<PathBuf>,
    /// A file that is made anew with all routes.
    pub table: Option<PathBuf>,
    /// How often the table is.
    #[serde(deserialize_with = "duration")]
    pub table_interval: Option<Duration>,
}
