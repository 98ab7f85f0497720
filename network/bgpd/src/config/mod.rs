//! The configuration: a YAML file made a value that can be compared with the next one. Read strictly: a field that nobody
//! knows, one that does nothing where it stands and a value that means nothing are errors that say where and what would be
//! right; nothing is changed by a file with one.
//!
//! - [`document`], [`settings`]: the file as it is written; `node`: where in it an error is; `words`: what is said of it;
//!   `faults`: all errors of a file, `lines`: in which lines they are
//! - [`found`]: neighbours who are not in the file
//! - [`peering`]: what a neighbour's settings come to, `authentication` among it; `keys`: whether the kernel can tell their
//!   passwords apart
//! - `protocols`: whose numbers routes in the kernel have
//! - `file`: the file itself, and those of passwords; I/O
//!
//! Called by the daemon at its start and on a reload, and by `ferrokube bgp check`.

mod authentication;
pub mod document;
mod faults;
mod file;
pub mod found;
mod keys;
mod lines;
mod node;
pub mod peering;
mod protocols;
#[cfg(test)]
mod readme;
pub mod settings;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bgp::decision::Options;
use bgp::policy::{Change, Filter};
use meta::Prefix;

use crate::kernel;

pub use document::Rest;
pub use file::{ConfigError, File, first_line, read};
pub use peering::{Named, Neighbor, Peering, Range, Routes};

use document::{Document, Listen, Written};
use found::{LeftOut, Others};
use node::{Fault, Node};
use peering::{Common, PORT, limit_of};
use settings::Settings;

/// How deep a file may nest: rules of filters are the deepest.
const MAX_DEPTH: usize = 32;
/// Lists, maps, names and values of a file: the most neighbours have ten each.
const MAX_NODES: usize = 1_000_000;
/// Neighbours of a file; the tables have room for some more sources.
pub const MAX_NEIGHBORS: usize = 60_000;
/// Where `ferrokube bgp show` finds the daemon.
pub const CONTROL_SOCKET: &str = "/run/ferrokube/bgp.sock";
/// A table is dumped so often where nobody said.
const TABLE_INTERVAL: Duration = Duration::from_secs(3600);
/// RT_TABLE_LOCAL.
const LOCAL_TABLE: u32 = 255;
/// What is said to whoever says what shall be in the kernel, and that nothing shall be.
const WITHOUT_ROUTES: &str = "does nothing without kernel.routes: true";
/// How many of several equal paths the kernel can have.
const MAX_PATHS: u8 = 64;

/// All that is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The AS.
    pub number: u32,
    /// The identifier.
    pub identifier: Ipv4Addr,
    /// Of the cluster that is reflected for.
    pub cluster_id: Ipv4Addr,
    /// The VRF in which it is.
    pub vrf: Option<String>,
    /// How paths are compared.
    pub options: Options,
    /// Where neighbours reach this speaker.
    pub listen: Vec<SocketAddr>,
    /// The socket of `ferrokube bgp show`.
    pub control_socket: PathBuf,
    /// Where metrics are read.
    pub metrics: Option<SocketAddr>,
    /// With whom there are sessions, by their addresses.
    pub neighbors: Vec<Neighbor>,
    /// Who may connect though he isn't named.
    pub dynamic: Vec<Range>,
    /// All that were written.
    pub filters: Vec<Named>,
    /// Routes of this host.
    pub networks: Vec<Network>,
    /// What goes into the kernel's tables, and out of them.
    pub kernel: Kernel,
    /// Dumps.
    pub mrt: Mrt,
}

/// A route of this host.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Where it leads.
    pub prefix: Prefix,
    /// By whom.
    pub next_hop: Option<IpAddr>,
    /// What the kernel does with the rest of it.
    pub rest: Rest,
    /// Its attributes.
    pub change: Change,
}

/// What goes into the kernel's tables, and out of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Chosen routes are put there.
    pub routes: bool,
    /// Into which table, by which number they are known, and where next hops are.
    pub tables: kernel::Config,
    /// With which metric.
    pub metric: u32,
    /// The metric follows LOCAL_PREF where a route has one.
    pub metric_of_local_preference: bool,
    /// Which of them; none is all.
    pub export: Option<Arc<Filter>>,
    /// The addresses of links as routes of ours.
    pub direct: Option<Learned>,
    /// Routes that others put there.
    pub learn: Option<Learned>,
}

impl Kernel {
    /// Whether the kernel is needed at all.
    pub fn is_used(&self) -> bool {
        self.routes || self.direct.is_some() || self.learn.is_some()
    }
}

/// Routes that come from the kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// Of these links; `*` at the end is any end. None is all.
    pub interfaces: Vec<String>,
    /// Of these protocols. None is all.
    pub protocols: Vec<u8>,
    /// Which of them.
    pub import: Arc<Filter>,
}

impl Learned {
    /// Whether a link's are meant.
    pub fn means(&self, interface: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(begin) => interface.starts_with(begin),
            None => interface == pattern,
        };
        self.interfaces.is_empty() || self.interfaces.iter().any(fits)
    }
}

/// Dumps (RFC 6396).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mrt {
    /// A file to which messages and changes of state are appended.
    pub updates: Option<PathBuf>,
    /// A file that is made anew with all routes, and how often.
    pub table: Option<(PathBuf, Duration)>,
}

/// Which of the two programs reads a file: what they do where it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ferrokube bgp`: chosen routes are the kernel's.
    Speaker,
    /// `ferrokube route-reflector`: no packet passes here.
    Reflector,
}

/// Reads a text; `password_of` gives the first line of a password's file.
///
/// # Errors
/// The field, and what would be right: of each error a line.
pub fn parse(text: &str, kind: Kind, password_of: &dyn Fn(&Path) -> Result<String, String>) -> Result<Config, String> {
    parse_with(text, kind, password_of, Others::default()).map(|(config, _)| config)
}

fn parse_with(
    text: &str,
    kind: Kind,
    password_of: &dyn Fn(&Path) -> Result<String, String>,
    others: Others<'_>,
) -> Result<(Config, Vec<LeftOut>), String> {
    let options = || {
        serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES, max_events: 2 * MAX_NODES },
            strict_booleans: true,
        }
    };
    let value: serde_json::Value = serde_saphyr::from_str_with_options(text, options())
        .map_err(|error| words::of_yaml(&error, MAX_DEPTH, MAX_NODES))?;
    let read = |value: &serde_json::Value| {
        let document: Document = serde::Deserialize::deserialize(Node(value)).map_err(words::with_form)?;
        made(document, kind, password_of, others)
    };
    faults::read(value, || lines::Lines::of(text, options()), read).map_err(|all| all.join("\n"))
}

fn made(
    document: Document,
    kind: Kind,
    password_of: &dyn Fn(&Path) -> Result<String, String>,
    others: Others<'_>,
) -> Result<(Config, Vec<LeftOut>), Fault> {
    if document.number == 0 {
        return Err(Fault::at("as", "0 is not the number of an AS"));
    }
    if document.router_id.is_unspecified() {
        return Err(Fault::at("router-id", "0.0.0.0 is nobody's: an address of this host"));
    }
    if document.vrf.as_deref().is_some_and(|name| !is_link_name(name)) {
        return Err(Fault::at("vrf", "is not the name of a link: 1 to 15 bytes without / and spaces"));
    }
    let filters = filters(document.filters)?;
    let common = Common {
        number: document.number,
        identifier: document.router_id,
        restart: document.graceful_restart.unwrap_or_default(),
        vrf: document.vrf.as_deref(),
        filters: &filters,
        password_of,
    };
    let groups = groups(document.groups)?;
    let mut neighbors = neighbors(document.neighbors, &groups, &common)?;
    let dynamic = ranges(document.dynamic, &groups, &common)?;
    keys::sound(&neighbors, &dynamic)?;
    let cluster_id = document.cluster_id.or(others.cluster_id()).unwrap_or(document.router_id);
    let left_out = others.join(&mut neighbors, &dynamic, &groups, &common, cluster_id)?;
    let decision = document.decision;
    let paths = decision.maximum_paths.unwrap_or(1);
    if !(1..=MAX_PATHS).contains(&paths) {
        return Err(Fault::at("decision.maximum-paths", format!("{paths} is not from 1 to {MAX_PATHS}")));
    }
    let kernel = kernel(document.kernel, kind, &common)?;
    let config = Config {
        number: document.number,
        identifier: document.router_id,
        cluster_id,
        vrf: document.vrf,
        options: Options {
            always_compare_med: decision.always_compare_med,
            prefer_older: decision.prefer_older,
            maximum_paths: paths.into(),
            multipath_relax: decision.multipath_relax,
        },
        listen: listen(&document.listen)?,
        control_socket: document.control_socket.unwrap_or_else(|| CONTROL_SOCKET.into()),
        metrics: document.metrics,
        neighbors,
        dynamic,
        networks: networks(document.networks, kernel.routes)?,
        kernel,
        mrt: mrt(document.mrt)?,
        filters,
    };
    Ok((config, left_out))
}

/// Whether a link can have this name (IFNAMSIZ, `dev_valid_name`).
pub(crate) fn is_link_name(name: &str) -> bool {
    let odd = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
    (1..16).contains(&name.len()) && ![".", ".."].contains(&name) && !name.bytes().any(odd)
}

fn filters(written: Vec<Written>) -> Result<Vec<Named>, Fault> {
    let mut names = BTreeSet::from([peering::ACCEPT.to_owned(), peering::REJECT.to_owned()]);
    let one = |(at, Written { filter, text }): (usize, Written)| {
        let field = format!("filters[{at}].name");
        if filter.name.is_empty() {
            return Err(Fault::at(field, "is empty"));
        }
        if !names.insert(filter.name.clone()) {
            return Err(Fault::at(field, format!("{:?} is there already, or built in", filter.name)));
        }
        Ok(Named { filter: Arc::new(filter), written: text })
    };
    written.into_iter().enumerate().map(one).collect()
}

/// By their names.
type Groups = BTreeMap<String, Settings>;

fn groups(written: Vec<Settings>) -> Result<Groups, Fault> {
    let mut groups = BTreeMap::new();
    for (at, group) in written.into_iter().enumerate() {
        let step = format!("groups[{at}]");
        let name = group.name.clone().ok_or_else(|| Fault::at("name", "is missing").within(&step))?;
        let not_here = [
            ("address", group.address.is_some()),
            ("prefix", group.prefix.is_some()),
            ("limit", group.limit.is_some()),
            ("group", group.group.is_some()),
        ];
        if let Some((field, _)) = not_here.iter().find(|(_, said)| *said) {
            return Err(Fault::at(*field, "is no field of a group").within(&step));
        }
        if groups.insert(name.clone(), group).is_some() {
            return Err(Fault::at("name", format!("{name:?} is there already")).within(&step));
        }
    }
    Ok(groups)
}

/// A neighbour's or range's own fields over those of its group.
fn whole(own: Settings, groups: &Groups) -> Result<Settings, Fault> {
    let Some(name) = own.group.clone() else { return Ok(own) };
    let group = groups.get(&name).ok_or_else(|| {
        let names = groups.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let known = if names.is_empty() { "none is written".to_owned() } else { format!("there are {names}") };
        Fault::at("group", format!("there is no group {name:?}; {known}"))
    })?;
    // Of a password in the file, one beside it and keys, what the neighbour has counts.
    let mut group = group.clone();
    if own.password.is_some() || own.password_file.is_some() || own.tcp_ao.is_some() {
        (group.password, group.password_file, group.tcp_ao) = (None, None, None);
    }
    Ok(own.over(&group))
}

fn neighbors(written: Vec<Settings>, groups: &Groups, common: &Common<'_>) -> Result<Vec<Neighbor>, Fault> {
    if written.len() > MAX_NEIGHBORS {
        return Err(Fault::at("neighbors", format!("{} are more than {MAX_NEIGHBORS}", written.len())));
    }
    let mut known = BTreeMap::new();
    let mut all = Vec::with_capacity(written.len());
    for (at, own) in written.into_iter().enumerate() {
        let mut neighbor = neighbor(own, groups, common).map_err(|fault| fault.within(&format!("neighbors[{at}]")))?;
        if let Some(first) = known.insert(neighbor.place(), at) {
            let (field, name) = if neighbor.is_found() { ("address", "") } else { ("interface", "the neighbour of ") };
            let problem = format!("{name}{} is neighbors[{first}] already", neighbor.name());
            return Err(Fault::at(format!("neighbors[{at}].{field}"), problem));
        }
        // Sessions whose timers begin together don't beat together.
        neighbor.peering.session.seed = match &neighbor.peering.interface {
            Some(interface) if !neighbor.is_found() => hash(interface.as_bytes()),
            _ => seed(neighbor.address),
        };
        all.push(neighbor);
    }
    peering::one_a_link(&all)?;
    Ok(all)
}

fn neighbor(own: Settings, groups: &Groups, common: &Common<'_>) -> Result<Neighbor, Fault> {
    let address = own.address.unwrap_or(peering::UNKNOWN);
    for (field, said) in [("prefix", own.prefix.is_some()), ("limit", own.limit.is_some())] {
        if said {
            return Err(Fault::at(field, "is a field of dynamic neighbours: they are below \"dynamic\""));
        }
    }
    if own.name.is_some() {
        return Err(Fault::at("name", "is a field of groups; a neighbour has a description"));
    }
    let is_said = own.address.is_some();
    let host = match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none(),
    };
    if !host && is_said {
        return Err(Fault::at("address", format!("{address} is not the address of a neighbour")));
    }
    peering::watched(&own)?;
    let settings = whole(own, groups)?;
    if !is_said && settings.interface.is_none() {
        return Err(Fault::at(
            "address",
            "is missing, and so is the interface of a neighbour without one (unnumbered)",
        ));
    }
    if peering::is_of_link(address) && settings.interface.is_none() {
        return Err(Fault::at(
            "interface",
            format!("is missing: {address} is an address of one link, and which is not said"),
        ));
    }
    Ok(Neighbor { address, peering: common.peering(&settings, address.is_ipv6())? })
}

/// What is another for each address.
pub fn seed(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => hash(&v4.octets()),
        IpAddr::V6(v6) => hash(&v6.octets()),
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn ranges(written: Vec<Settings>, groups: &Groups, common: &Common<'_>) -> Result<Vec<Range>, Fault> {
    let mut all: Vec<Range> = Vec::new();
    for (at, own) in written.into_iter().enumerate() {
        let range = range(own, groups, common).map_err(|fault| fault.within(&format!("dynamic[{at}]")))?;
        if let Some(first) = all.iter().position(|other| other.prefix == range.prefix) {
            let problem = format!("{} is dynamic[{first}] already", range.prefix);
            return Err(Fault::at(format!("dynamic[{at}].prefix"), problem));
        }
        all.push(range);
    }
    // The longest that has an address says who he is.
    all.sort_by_key(|range| std::cmp::Reverse(range.prefix.len));
    Ok(all)
}

fn range(own: Settings, groups: &Groups, common: &Common<'_>) -> Result<Range, Fault> {
    let prefix = own.prefix.ok_or_else(|| Fault::at("prefix", "is missing"))?;
    if own.address.is_some() || own.name.is_some() {
        let field = if own.name.is_some() { "name" } else { "address" };
        return Err(Fault::at(field, "is no field of dynamic neighbours"));
    }
    if prefix.network() != prefix {
        return Err(Fault::at("prefix", format!("{prefix} has bits behind its length: {}", prefix.network())));
    }
    // What a group says is of others in it, too.
    for (field, said) in [("port", own.port.is_some()), ("connect-retry-time", own.connect_retry_time.is_some())] {
        if said {
            return Err(Fault::at(field, "does nothing: they connect, and nobody connects to them"));
        }
    }
    peering::watched(&own)?;
    let settings = whole(own, groups)?;
    if settings.passive == Some(false) {
        return Err(Fault::at("passive", "they connect: nobody knows where they are before that"));
    }
    let mut peering = common.peering(&settings, prefix.is_ipv6())?;
    peering.session.passive = true;
    Ok(Range { prefix, limit: limit_of(&settings), peering })
}

fn listen(written: &Listen) -> Result<Vec<SocketAddr>, Fault> {
    let port = written.port.unwrap_or(PORT);
    let everywhere = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let addresses = written.addresses.clone().unwrap_or(everywhere);
    let mut seen = BTreeSet::new();
    for (at, address) in addresses.iter().enumerate() {
        if !seen.insert(*address) {
            return Err(Fault::at(format!("listen.addresses[{at}]"), format!("{address} is there already")));
        }
    }
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

fn networks(written: Vec<document::Network>, routes: bool) -> Result<Vec<Network>, Fault> {
    let mut seen = BTreeSet::new();
    let one = |(at, network): (usize, document::Network)| {
        let fault = |field: &str, problem: String| Err(Fault::at(format!("networks[{at}].{field}"), problem));
        let prefix = network.prefix;
        if prefix.network() != prefix {
            return fault("prefix", format!("{prefix} has bits behind its length: {}", prefix.network()));
        }
        if !seen.insert(prefix) {
            return fault("prefix", format!("{prefix} is there already"));
        }
        if network.kernel != Rest::None && !routes {
            return fault("kernel", WITHOUT_ROUTES.to_owned());
        }
        Ok(Network { prefix, next_hop: network.next_hop, rest: network.kernel, change: network.set })
    };
    written.into_iter().enumerate().map(one).collect()
}

fn kernel(written: document::Kernel, kind: Kind, common: &Common<'_>) -> Result<Kernel, Fault> {
    let import = |field: &str, name: Option<String>| {
        let name = name.as_deref().unwrap_or(peering::ACCEPT);
        common.filter("import", name).map_err(|fault| fault.within(&format!("kernel.{field}")))
    };
    for (field, table) in [("table", written.table), ("next-hop-table", written.next_hop_table)] {
        let fault = |why: &str| Err(Fault::at(format!("kernel.{field}"), why));
        match table {
            Some(0) => return fault("0 is not a table; main is 254"),
            Some(LOCAL_TABLE) => return fault("255 is the kernel's own, of this host's addresses; main is 254"),
            _ => {}
        }
    }
    let routes = written.routes.unwrap_or(kind == Kind::Speaker);
    let of_routes = [
        ("metric", written.metric.is_some()),
        ("metric-of-local-preference", written.metric_of_local_preference),
        ("export", written.export.is_some()),
    ];
    if let Some((field, _)) = of_routes.iter().find(|(_, said)| *said && !routes) {
        return Err(Fault::at(format!("kernel.{field}"), WITHOUT_ROUTES));
    }
    let default = kernel::Config::default();
    let scan = written.scan_interval.unwrap_or(default.scan);
    if scan < Duration::from_secs(1) {
        return Err(Fault::at("kernel.scan-interval", format!("{scan:?} is less than 1s")));
    }
    if let Some((number, owner)) = written.protocol.and_then(|number| Some((number, protocols::owner(number)?))) {
        let why = format!(
            "{number} is the number of {owner}, whose routes would be taken for ours and removed; {} is free",
            kernel::PROTOCOL
        );
        return Err(Fault::at("kernel.protocol", why));
    }
    let direct = written.direct.map(|document::Direct { interfaces, import: name }| {
        import("direct", name).map(|import| Learned { interfaces, protocols: Vec::new(), import })
    });
    let learn = written.learn.map(|document::Learn { interfaces, protocols, import: name }| {
        import("learn", name).map(|import| Learned { interfaces, protocols, import })
    });
    let (direct, learn) = (direct.transpose()?, learn.transpose()?);
    let of_vrf = common.vrf.map(|_| kernel::OF_VRF);
    Ok(Kernel {
        routes,
        tables: kernel::Config {
            vrf: common.vrf.map(str::to_owned),
            table: written.table.or(of_vrf).unwrap_or(default.table),
            ways: written.next_hop_table.or(of_vrf).unwrap_or(default.ways),
            protocol: written.protocol.unwrap_or(default.protocol),
            scan,
            learn: learn.is_some(),
            write: routes,
            ..default
        },
        metric: written.metric.unwrap_or(kernel::METRIC),
        metric_of_local_preference: written.metric_of_local_preference,
        export: written.export.map(|name| common.filter("kernel.export", &name)).transpose()?,
        direct,
        learn,
    })
}

fn mrt(written: document::Mrt) -> Result<Mrt, Fault> {
    if written.table.is_none() && written.table_interval.is_some() {
        return Err(Fault::at("mrt.table-interval", "goes with mrt.table"));
    }
    let interval = written.table_interval.unwrap_or(TABLE_INTERVAL);
    if interval < Duration::from_secs(1) {
        return Err(Fault::at("mrt.table-interval", format!("{interval:?} is less than 1s")));
    }
    Ok(Mrt { updates: written.updates, table: written.table.map(|path| (path, interval)) })
}
