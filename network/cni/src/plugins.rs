//! The built-in plugins by the specification: bridge, host-local, loopback, portmap; flannel, which calls one of the others,
//! has a file of its own. Does I/O through the rest.
//!
//! `exec` calls these with what the environment and standard input say, `list` in process.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use linux::netlink::Rtnl;
use meta::Prefix;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;
use crate::alloc::{Allocator, Owner};
use crate::bridge::{self, Attach, Bridge};
use crate::flannel;
use crate::rules::Table;
use crate::types::{AddResult, Interface, IpConfig, PortMapping, RouteConfig, VERSION, VERSIONS};

/// What a plugin is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// A call of a plugin.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    pub command: Command,
    pub container_id: String,
    pub netns: Option<PathBuf>,
    pub ifname: String,
    pub args: String,
    /// Where other plugins are: for address management by a plugin that is not built in.
    pub path: Vec<PathBuf>,
    pub config: Value,
}

const DEFAULT_BRIDGE: &str = "cni0";
/// Where the reference host-local plugin keeps its records.
const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// The configuration of a network, as far as the built-in plugins know it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NetConf {
    cni_version: String,
    name: String,
    bridge: Option<String>,
    is_gateway: bool,
    is_default_gateway: bool,
    ip_masq: bool,
    mtu: Option<u32>,
    hairpin_mode: bool,
    promisc_mode: bool,
    ipam: Option<Ipam>,
    prev_result: Option<AddResult>,
    runtime_config: RuntimeConfig,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Vec<Attachment>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ipam {
    r#type: String,
    subnet: Option<String>,
    range_start: Option<Ipv4Addr>,
    range_end: Option<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
    ranges: Vec<Vec<Range>>,
    routes: Vec<RouteConfig>,
    data_dir: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Range {
    subnet: String,
    range_start: Option<Ipv4Addr>,
    range_end: Option<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    port_mappings: Vec<PortMapping>,
}

#[derive(Clone, Debug, Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

/// Whether a plugin of this name is built in: a program called by it speaks the exec protocol.
pub fn is_builtin(plugin: &str) -> bool {
    matches!(plugin, "bridge" | "host-local" | "loopback" | "portmap" | flannel::NAME)
}

/// Runs a built-in plugin; what it prints comes back, nothing for commands that print nothing.
pub(crate) fn run(plugin: &str, call: &Invocation) -> Result<Option<Value>, Error> {
    if call.command == Command::Version {
        return Ok(Some(json!({"cniVersion": VERSION, "supportedVersions": VERSIONS})));
    }
    let conf: NetConf = serde_json::from_value(call.config.clone())?;
    if !VERSIONS.contains(&conf.cni_version.as_str()) {
        return Err(Error::Version(conf.cni_version));
    }
    crate::list::check_name(&conf.name)?;
    if plugin == flannel::NAME {
        return flannel::run(call);
    }
    let result = match plugin {
        "bridge" => run_bridge(call, &conf)?,
        "host-local" => run_host_local(call, &conf)?,
        "loopback" => run_loopback(call, &conf)?,
        "portmap" => run_portmap(call, &conf)?,
        _ => return Err(Error::NoPlugin { plugin: plugin.to_owned(), path: call.path.clone() }),
    };
    Ok(result.map(|r| r.to_json(&conf.cni_version)))
}

impl Invocation {
    fn owner(&self) -> Owner {
        Owner { container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }

    fn netns(&self) -> Result<&Path, Error> {
        let missing = || Error::Environment { variable: "CNI_NETNS", problem: "needed for ADD and CHECK".to_owned() };
        self.netns.as_deref().ok_or_else(missing)
    }

    fn failed(&self, problem: &str) -> Error {
        Error::Check { container: self.container_id.clone(), problem: problem.to_owned() }
    }
}

impl NetConf {
    fn valid(&self) -> Vec<Owner> {
        let owner = |a: &Attachment| Owner { container_id: a.container_id.clone(), ifname: a.ifname.clone() };
        self.valid_attachments.iter().map(owner).collect()
    }

    fn table(&self, bridge: &str, purpose: &str) -> Table {
        let name = format!("cni-{}-{purpose}", self.name);
        Table { name, v6: false, bridge: bridge.to_owned(), own: Vec::new() }
    }
}

// bridge

fn run_bridge(call: &Invocation, conf: &NetConf) -> Result<Option<AddResult>, Error> {
    let name = conf.bridge.clone().unwrap_or_else(|| DEFAULT_BRIDGE.to_owned());
    let own = Bridge { name, gateways: Vec::new(), mtu: 0, hairpin: conf.hairpin_mode, promiscuous: conf.promisc_mode };
    match call.command {
        Command::Add => add_to_bridge(call, conf, own).map(Some),
        Command::Del => {
            let addrs: Vec<_> = conf.prev_result.iter().filter_map(AddResult::ip).collect();
            own.detach(&bridge::host_name(&call.container_id, &call.ifname), &addrs)?;
            ipam(call, conf, Command::Del).map(|_| None)
        }
        Command::Check => check_bridge(call, conf, &own.name).map(|()| None),
        Command::Gc => {
            let keep: Vec<_> = conf.valid().iter().map(|o| bridge::host_name(&o.container_id, &o.ifname)).collect();
            let mut rtnl = Rtnl::open()?;
            if let Some(link) = rtnl.link(&own.name)? {
                let gone = |l: &linux::netlink::Link| l.master == Some(link.index) && !keep.contains(&l.name);
                for port in rtnl.links()?.iter().filter(|l| gone(l) && bridge::is_host_name(&l.name)) {
                    rtnl.delete_link(&port.name)?;
                }
            }
            ipam(call, conf, Command::Gc).map(|_| None)
        }
        _ => ipam(call, conf, Command::Status).map(|_| None),
    }
}

fn add_to_bridge(call: &Invocation, conf: &NetConf, mut own: Bridge) -> Result<AddResult, Error> {
    let netns = bridge::open_netns(call.netns()?)?;
    let given = ipam(call, conf, Command::Add)?.unwrap_or_default();
    let undo = |e| {
        let _ = ipam(call, conf, Command::Del);
        Err(e)
    };
    let (ip, address, mut routes) = match usable(&given) {
        Ok(usable) => usable,
        Err(e) => return undo(e),
    };
    let is_gateway = conf.is_gateway || conf.is_default_gateway;
    let gateway = ip.gateway.or_else(|| address.nth(1));
    own.gateways = gateway.filter(|_| is_gateway).map(|g| Prefix::new(g, address.len)).into_iter().collect();
    if conf.is_default_gateway {
        routes.push(Prefix::new(Ipv4Addr::UNSPECIFIED, 0));
    }
    let host_name = bridge::host_name(&call.container_id, &call.ifname);
    let made = conf.mtu.map_or_else(bridge::uplink_mtu, Ok).and_then(|mtu| {
        own.mtu = mtu;
        let index = own.ensure()?;
        let attach = Attach {
            host_name: &host_name,
            ifname: &call.ifname,
            addresses: &[address],
            netns: &netns,
            routes: &routes,
        };
        let links = own.attach(index, &attach)?;
        if conf.ip_masq {
            conf.table(&own.name, "masquerade").ensure(Some((address, &[])))?;
        }
        if is_gateway {
            bridge::setting("net/ipv4/ip_forward", "1")?;
        }
        Ok(links)
    });
    let (host, inside) = match made {
        Ok(links) => links,
        Err(e) => {
            let _ = own.detach(&host_name, &[]);
            return undo(e);
        }
    };
    let mac = |l: &linux::netlink::Link| l.mac.map(|m| m.to_string()).unwrap_or_default();
    let link =
        |name: &str, mac: String, sandbox: String| Interface { name: name.to_owned(), mac, mtu: own.mtu, sandbox };
    let sandbox = call.netns()?.to_string_lossy().into_owned();
    Ok(AddResult {
        interfaces: vec![
            link(&own.name, String::new(), String::new()),
            link(&host.name, mac(&host), String::new()),
            link(&call.ifname, mac(&inside), sandbox),
        ],
        ips: vec![IpConfig { interface: Some(2), ..ip.clone() }],
        ..given
    })
}

/// The address and the routes of what address management gave, or what is wrong with them: they are set in the kernel as
/// they are.
fn usable(given: &AddResult) -> Result<(&IpConfig, Prefix, Vec<Prefix>), Error> {
    /// More than a pod has use for; each is a call of the kernel.
    const MOST_ROUTES: usize = 1024;
    let ip = given.ips.first().ok_or_else(|| Error::config("ipam", "it gave no address"))?;
    let wrong = |problem: &str| Error::config("ipam", format!("it gave {:?}: {problem}", ip.address));
    let address: Prefix = ip.address.parse().map_err(|_| wrong("that is no address with a prefix length"))?;
    let IpAddr::V4(addr) = address.addr else {
        return Err(Error::config("ipam", "an IPv6 address for the bridge network"));
    };
    if addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() || addr.is_broadcast() || address.len == 0 {
        return Err(wrong("no pod can have it"));
    }
    if ip.gateway.is_some_and(|gateway| !gateway.is_ipv4() || gateway == address.addr) {
        return Err(wrong("the gateway can't be that"));
    }
    if given.routes.len() > MOST_ROUTES {
        return Err(Error::config("ipam", format!("it gave more than {MOST_ROUTES} routes")));
    }
    let route = |route: &RouteConfig| {
        let dst: Option<Prefix> = route.dst.parse().ok();
        let fits = dst.filter(|dst| dst.addr.is_ipv4());
        fits.ok_or_else(|| Error::config("ipam", format!("it gave a route to {:?}, no IPv4 range", route.dst)))
    };
    let routes = given.routes.iter().map(route).collect::<Result<_, _>>()?;
    Ok((ip, address, routes))
}

fn check_bridge(call: &Invocation, conf: &NetConf, bridge: &str) -> Result<(), Error> {
    let mut rtnl = Rtnl::open()?;
    let master = rtnl.link(bridge)?.map(|l| l.index);
    let port = rtnl.link(&bridge::host_name(&call.container_id, &call.ifname))?;
    if master.is_none() || port.is_none_or(|p| p.master != master) {
        return Err(call.failed("its link is not in the bridge"));
    }
    let mut inside = Rtnl::open_in(&bridge::open_netns(call.netns()?)?)?;
    let link = inside.link(&call.ifname)?.ok_or_else(|| call.failed("its interface is gone"))?;
    let there = inside.addresses(Some(link.index))?;
    for ip in conf.prev_result.iter().flat_map(|r| &r.ips) {
        if !there.iter().any(|a| a.prefix.to_string() == ip.address) {
            return Err(call.failed(&format!("{} is not on its interface", ip.address)));
        }
    }
    Ok(())
}

/// Calls the plugin that manages addresses.
fn ipam(call: &Invocation, conf: &NetConf, command: Command) -> Result<Option<AddResult>, Error> {
    let kind = conf.ipam.as_ref().map(|i| i.r#type.as_str()).unwrap_or_default();
    let call = Invocation { command, ..call.clone() };
    match kind {
        "host-local" => run_host_local(&call, conf),
        "" => Err(Error::config("ipam.type", "the bridge needs addresses for pods: use host-local")),
        other => {
            let printed = crate::exec::call(other, &call)?;
            Ok(printed.map(serde_json::from_value).transpose()?)
        }
    }
}

// host-local

fn run_host_local(call: &Invocation, conf: &NetConf) -> Result<Option<AddResult>, Error> {
    let ipam = conf.ipam.as_ref().ok_or_else(|| Error::config("ipam", "missing"))?;
    let (mut alloc, subnet, gateway) = allocator(conf, ipam)?;
    match call.command {
        Command::Add => {
            let addr = alloc.allocate(&call.owner())?;
            let ip = IpConfig {
                interface: None,
                address: Prefix::new(addr, subnet.len).to_string(),
                gateway: Some(gateway.into()),
                version: None,
            };
            return Ok(Some(AddResult { ips: vec![ip], routes: ipam.routes.clone(), ..AddResult::default() }));
        }
        Command::Del => drop(alloc.release(&call.owner())?),
        Command::Gc => drop(alloc.gc(&conf.valid())?),
        Command::Check if alloc.of(&call.owner()).is_none() => return Err(call.failed("it has no address")),
        Command::Status if !alloc.has_room() => {
            return Err(Error::NoAddress { subnet: subnet.to_string(), used: alloc.taken().count() });
        }
        _ => {}
    }
    Ok(None)
}

fn allocator(conf: &NetConf, ipam: &Ipam) -> Result<(Allocator, Prefix, Ipv4Addr), Error> {
    let range = match ipam.ranges.first().and_then(|set| set.first()) {
        Some(range) => range.clone(),
        None => Range {
            subnet: ipam.subnet.clone().unwrap_or_default(),
            range_start: ipam.range_start,
            range_end: ipam.range_end,
            gateway: ipam.gateway,
        },
    };
    let subnet: Prefix = range.subnet.parse().map_err(|e| Error::config("ipam.subnet", format!("{e}")))?;
    let first = v4(subnet.nth(1)).ok_or_else(|| Error::config("ipam.subnet", format!("{subnet} is not IPv4")))?;
    let last = v4(Some(subnet.last())).map_or(first, |l| Ipv4Addr::from_bits(l.to_bits().saturating_sub(1)));
    let gateway = range.gateway.unwrap_or(first);
    let (from, to) = (range.range_start.unwrap_or(first), range.range_end.unwrap_or(last));
    if from > to || !subnet.contains(from.into()) || !subnet.contains(to.into()) {
        return Err(Error::config("ipam.rangeStart", format!("{from} to {to} is not a range in {subnet}")));
    }
    let dir = ipam.data_dir.clone().unwrap_or_else(|| DEFAULT_DATA_DIR.into()).join(&conf.name);
    Ok((Allocator::open(dir, subnet, gateway.into(), Some((from.into(), to.into())))?, subnet, gateway))
}

fn v4(addr: Option<IpAddr>) -> Option<Ipv4Addr> {
    match addr {
        Some(IpAddr::V4(v4)) => Some(v4),
        _ => None,
    }
}

// loopback

fn run_loopback(call: &Invocation, conf: &NetConf) -> Result<Option<AddResult>, Error> {
    match call.command {
        Command::Add => {
            bridge::loopback_up(&mut Rtnl::open_in(&bridge::open_netns(call.netns()?)?)?)?;
            if let Some(before) = &conf.prev_result {
                return Ok(Some(before.clone())); // in a chain it has nothing to tell
            }
            let sandbox = call.netns()?.to_string_lossy().into_owned();
            let lo = Interface { name: "lo".to_owned(), sandbox, ..Interface::default() };
            let ip = |address: &str| IpConfig {
                interface: Some(0),
                address: address.to_owned(),
                gateway: None,
                version: None,
            };
            let ips = vec![ip("127.0.0.1/8"), ip("::1/128")];
            Ok(Some(AddResult { interfaces: vec![lo], ips, ..AddResult::default() }))
        }
        Command::Check => {
            let mut rtnl = Rtnl::open_in(&bridge::open_netns(call.netns()?)?)?;
            let up = rtnl.link("lo")?.is_some_and(|l| l.up);
            if up { Ok(None) } else { Err(call.failed("its loopback interface is down")) }
        }
        _ => Ok(None),
    }
}

// portmap

fn run_portmap(call: &Invocation, conf: &NetConf) -> Result<Option<AddResult>, Error> {
    let owner = format!("{}/{}", call.container_id, call.ifname);
    let bridge = conf.prev_result.iter().flat_map(|r| &r.interfaces).find(|i| i.sandbox.is_empty());
    let table = conf.table(bridge.map(|i| i.name.as_str()).unwrap_or_default(), "ports");
    match call.command {
        Command::Add => {
            let result = conf.prev_result.clone();
            let result = result.ok_or_else(|| Error::config("prevResult", "portmap comes after a plugin that adds"))?;
            let pod = v4(result.ip()).ok_or_else(|| Error::config("prevResult.ips", "no IPv4 address"))?;
            if !conf.runtime_config.port_mappings.is_empty() {
                table.ensure(None)?;
                if let Some(bridge) = bridge {
                    bridge::setting(&format!("net/ipv4/conf/{}/route_localnet", bridge.name), "1")?;
                }
                table.open_ports(&owner, pod.into(), &conf.runtime_config.port_mappings)?;
            }
            return Ok(Some(result));
        }
        Command::Del => table.close_ports(|other| other == owner)?,
        Command::Gc => {
            let valid: Vec<_> = conf.valid().iter().map(|o| format!("{}/{}", o.container_id, o.ifname)).collect();
            table.close_ports(|other| !valid.iter().any(|v| v == other))?;
        }
        _ => {}
    }
    Ok(None)
}
