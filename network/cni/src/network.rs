//! The built-in pod network of a node: a bridge, host-local addresses of one family or of both, masquerading, host ports.
//! Does I/O.
//!
//! `network/pod` calls [`Network::add`] and [`Network::del`] on a thread that may block. All state is in the
//! kernel (links, rules, named by the configuration) and in small files; nothing is lost by a crash, and
//! [`Network::gc`] and [`teardown`] find whatever is there.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use linux::netlink::{Link, LinkKind, Route, Rtnl};
use linux::netns::NetNs;
use meta::{Prefix, Ranges};

use crate::Error;
use crate::alloc::{Allocator, Owner};
use crate::bridge::{self, Attach, Bridge};
use crate::rules::{self, Table};
use crate::source::{Guard, Source};
use crate::types::{AddResult, Interface, IpConfig, PortMapping, RouteConfig, VERSION};

/// What the network of a node is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bridge's name, at most 15 bytes; one a cluster on a host.
    pub bridge: String,
    /// The name of our nftables tables; one a cluster on a host.
    pub table: String,
    /// The node's share of the pod network, such as 10.42.0.0/24. The bridge has the first address of each family.
    pub subnets: Ranges,
    /// Where pods' own addresses are kept, besides the subnet: the whole pod network of the cluster.
    pub cluster_ranges: Vec<Prefix>,
    /// Ranges that have no pods on other hosts: what comes from them comes by the bridge, or from nobody's pod. The
    /// subnets always are such.
    pub only_here: Vec<Prefix>,
    /// What pods send outside takes the host's address.
    pub masquerade: bool,
    /// Bytes; none: that of the link of the default route.
    pub mtu: Option<u32>,
    /// Where records of addresses are kept.
    pub state_dir: PathBuf,
    /// Where the host's settings are kept as they were before our first network. All networks of the host share it,
    /// and the last one to go gives the host its settings back.
    pub settings_dir: PathBuf,
}

/// A pod's interface to make or remove.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a> {
    /// The sandbox's ID: records, interfaces and rules are found again by it.
    pub container_id: &'a str,
    /// The pinned network namespace. It may be gone when a pod is removed.
    pub netns: &'a Path,
    /// The name of the interface inside: eth0.
    pub ifname: &'a str,
    /// Namespace and name of the pod, for messages.
    pub namespace: &'a str,
    /// The pod's name, for messages.
    pub name: &'a str,
    /// Ports of the host that lead into the pod.
    pub ports: &'a [PortMapping],
}

/// The network, ready for pods. Cheap calls, safe from several threads.
#[derive(Debug)]
pub struct Network {
    config: Config,
    bridge: Bridge,
    /// One for each of the subnets, as are the allocators.
    tables: Vec<Table>,
    /// None: this kernel has no rules for bridges.
    guard: Option<Guard>,
    index: u32,
    /// Bytes of a packet, as they were asked for.
    wanted: AtomicU32,
    /// The same of pods that come from now on: never more than those that are there take.
    mtu: AtomicU32,
    allocs: Mutex<Vec<Allocator>>,
}

impl Network {
    /// Makes what is missing of bridge, rules and settings; what a former run left is taken over.
    pub fn new(config: Config) -> Result<Self, Error> {
        check(&config)?;
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => bridge::uplink_mtu()?,
        };
        crate::files::make_dir(&config.state_dir)
            .map_err(Error::io(format!("making {}", config.state_dir.display())))?;
        let gateways = config.subnets.iter().map(gateway).collect::<Result<Vec<_>, _>>()?;
        let records = addresses(&config.state_dir);
        let open = |gateway: &Prefix| Allocator::open(&records, gateway.network(), gateway.addr, None);
        let allocs = gateways.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        // Where the kernel shows bridged packets to nftables, a pod's packet to itself by a Service turns round
        // inside the bridge and leaves by the port it came in.
        let bridge = Bridge { name: config.bridge.clone(), gateways, mtu, hairpin: true, promiscuous: false };
        let index = bridge.ensure()?;
        let tables: Vec<Table> = config.subnets.iter().map(|subnet| table(&config, subnet)).collect();
        for (table, subnet) in tables.iter().zip(config.subnets.iter()) {
            table.ensure(config.masquerade.then_some((subnet, &config.cluster_ranges[..])))?;
        }
        bridge::setting(&format!("net/ipv4/conf/{}/route_localnet", config.bridge), "1")?;
        forwarding(&config)?;
        let guard = guard(&config, &allocs)?;
        let (wanted, mtu, allocs) = (AtomicU32::new(mtu), AtomicU32::new(mtu), Mutex::new(allocs));
        let network = Network { config, bridge, tables, guard, index, wanted, mtu, allocs };
        network.fit()?;
        Ok(network)
    }

    /// What it was made from, with nothing filled in.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The bytes of a packet that pods may send.
    pub fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Packets may have so many bytes from now on. Pods that are there keep theirs: the bridge tells them what is too long
    /// for the way that a packet takes, and takes longer packets once no pod is left that they would be too long for.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), Error> {
        self.wanted.store(mtu, Ordering::Relaxed);
        self.fit()
    }

    /// What is longer than the port of a pod takes is lost on a bridge, and nobody is told: so all go by the shortest.
    fn fit(&self) -> Result<(), Error> {
        let mut rtnl = Rtnl::open()?;
        let ports = rtnl.links()?.into_iter().filter(|link| link.master == Some(self.index)).map(|link| link.mtu);
        let mtu = ports.chain([self.wanted.load(Ordering::Relaxed)]).min().unwrap_or_default();
        self.mtu.store(mtu, Ordering::Relaxed);
        if rtnl.link_by_index(self.index)?.is_some_and(|bridge| bridge.mtu != mtu) {
            rtnl.set_mtu(self.index, mtu)?;
        }
        Ok(())
    }

    /// The bridge as it is for pods that come.
    fn bridge(&self) -> Bridge {
        Bridge { mtu: self.mtu(), ..self.bridge.clone() }
    }

    /// Gives packets to a range of Service addresses a way: onto the bridge. They are translated before they get
    /// there; but a host without a default route would refuse to send them at all.
    pub fn route_services(&self, range: Prefix) -> Result<(), Error> {
        Ok(Rtnl::open()?.put_route(&Route::link(range, self.index))?)
    }

    /// Gives a pod its interface. When it fails nothing is left of it. Doing it again for the same container
    /// gives the same addresses.
    pub fn add(&self, pod: &Pod<'_>) -> Result<AddResult, Error> {
        if self.mtu() != self.wanted.load(Ordering::Relaxed) {
            self.fit()?;
        }
        let owner = owner(pod);
        let netns = bridge::open_netns(pod.netns)?;
        let made = self.connect(pod, &owner, &netns);
        let (addresses, host, inside) = made.inspect_err(|_| {
            let _ = self.remove(&owner);
        })?;
        let (bridge, gateways) = (self.bridge(), &self.bridge.gateways);
        let ip = |(address, gateway): (&Prefix, &Prefix)| IpConfig {
            interface: Some(2),
            address: address.to_string(),
            gateway: Some(gateway.addr),
            version: None,
        };
        let everywhere = |gateway: &Prefix| RouteConfig {
            dst: Prefix::everything(gateway.is_ipv6()).to_string(),
            gw: Some(gateway.addr),
        };
        let own = bridge::mac_of(gateways[0].addr).to_string();
        Ok(AddResult {
            cni_version: VERSION.to_owned(),
            interfaces: vec![
                interface(&bridge.name, &own, bridge.mtu, ""),
                interface(&host.name, &mac_text(&host), bridge.mtu, ""),
                interface(pod.ifname, &mac_text(&inside), bridge.mtu, &pod.netns.to_string_lossy()),
            ],
            ips: addresses.iter().zip(gateways).map(ip).collect(),
            routes: gateways.iter().map(everywhere).collect(),
            dns: Default::default(),
        })
    }

    /// Addresses and both ends of the pod's link. Leaves behind what it made when it fails.
    fn connect(&self, pod: &Pod<'_>, owner: &Owner, netns: &NetNs) -> Result<(Vec<Prefix>, Link, Link), Error> {
        let given = self.allocs().iter_mut().map(|alloc| alloc.allocate(owner)).collect::<Result<Vec<_>, _>>()?;
        let with_length = |(addr, subnet): (&IpAddr, Prefix)| Prefix::new(*addr, subnet.len);
        let addresses: Vec<Prefix> = given.iter().zip(self.config.subnets.iter()).map(with_length).collect();
        let host_name = bridge::host_name(pod.container_id, pod.ifname);
        let routes: Vec<Prefix> = addresses.iter().map(|address| Prefix::everything(address.is_ipv6())).collect();
        let attach =
            Attach { host_name: &host_name, ifname: pod.ifname, addresses: &addresses, netns, routes: &routes };
        self.guard.iter().try_for_each(|guard| guard.admit(&source(owner, given.clone())))?;
        let (host, inside) = self.bridge().attach(self.index, &attach)?;
        for (table, addr) in self.tables.iter().zip(&given) {
            table.open_ports(&owner_name(owner), *addr, pod.ports)?;
        }
        Ok((addresses, host, inside))
    }

    /// Takes a pod's interface away; idempotent. The namespace may be gone.
    pub fn del(&self, container_id: &str, ifname: &str) -> Result<(), Error> {
        self.remove(&Owner { container_id: container_id.to_owned(), ifname: ifname.to_owned() })
    }

    fn remove(&self, owner: &Owner) -> Result<(), Error> {
        let name = owner_name(owner);
        self.close_ports(|other| other == name)?;
        // The links go before the addresses are free: no two pods ever have one at once.
        let addrs = self.addresses_of(owner);
        self.bridge.detach(&bridge::host_name(&owner.container_id, &owner.ifname), &addrs)?;
        self.guard.iter().try_for_each(|guard| guard.forget(|other| other == name))?;
        self.allocs().iter_mut().try_for_each(|alloc| alloc.release(owner).map(drop))
    }

    fn close_ports(&self, stale: impl Fn(&str) -> bool) -> Result<(), Error> {
        self.tables.iter().try_for_each(|table| table.close_ports(&stale))
    }

    fn addresses_of(&self, owner: &Owner) -> Vec<IpAddr> {
        self.allocs().iter().filter_map(|alloc| alloc.of(owner)).collect()
    }

    /// Whether a pod's interface is as it was made.
    pub fn check(&self, pod: &Pod<'_>) -> Result<(), Error> {
        let problem =
            |problem: &str| Error::Check { container: pod.container_id.to_owned(), problem: problem.to_owned() };
        let addrs = self.addresses_of(&owner(pod));
        // One of before the network had its second family has an address of the first.
        if addrs.is_empty() {
            return Err(problem("it has no address"));
        }
        let port = Rtnl::open()?.link(&bridge::host_name(pod.container_id, pod.ifname))?;
        if port.is_none_or(|p| p.master != Some(self.index)) {
            return Err(problem("its link is not in the bridge"));
        }
        let mut inside = Rtnl::open_in(&bridge::open_netns(pod.netns)?)?;
        let link = inside.link(pod.ifname)?.ok_or_else(|| problem("its interface is gone"))?;
        let there = inside.addresses(Some(link.index))?;
        if !addrs.iter().all(|addr| there.iter().any(|a| a.prefix.addr == *addr)) {
            return Err(problem("its address is not on the interface"));
        }
        let routes = inside.routes()?;
        let leads_out = |gateway: &Prefix| {
            let everywhere = Prefix::everything(gateway.is_ipv6());
            routes.iter().any(|route| route.dst == everywhere && route.gateway() == Some(gateway.addr))
        };
        let has = |gateway: &&Prefix| addrs.iter().any(|addr| addr.is_ipv6() == gateway.is_ipv6());
        if !self.bridge.gateways.iter().filter(has).all(leads_out) {
            return Err(problem("its default route does not lead to the bridge"));
        }
        Ok(())
    }

    /// The addresses of a container's interface, the primary first.
    pub fn addresses(&self, container_id: &str, ifname: &str) -> Vec<IpAddr> {
        self.addresses_of(&Owner { container_id: container_id.to_owned(), ifname: ifname.to_owned() })
    }

    /// Frees addresses, links and host ports of all containers but these (container id, interface). Returns the
    /// addresses that were freed.
    pub fn gc(&self, valid: &[(&str, &str)]) -> Result<Vec<IpAddr>, Error> {
        let owners: Vec<_> = valid
            .iter()
            .map(|(id, ifname)| Owner { container_id: (*id).to_owned(), ifname: (*ifname).to_owned() })
            .collect();
        let links: HashSet<_> = valid.iter().map(|(id, ifname)| bridge::host_name(id, ifname)).collect();
        let names: HashSet<_> = owners.iter().map(owner_name).collect();
        self.close_ports(|owner| !names.contains(owner))?;
        let mut rtnl = Rtnl::open()?;
        for link in rtnl.links()? {
            if link.master == Some(self.index) && !links.contains(&link.name) {
                rtnl.delete_link(&link.name)?;
            }
        }
        self.guard.iter().try_for_each(|guard| guard.forget(|owner| !names.contains(owner)))?;
        let mut freed = Vec::new();
        for alloc in self.allocs().iter_mut() {
            freed.extend(alloc.gc(&owners)?);
        }
        for addr in &freed {
            rtnl.delete_neighbour(self.index, *addr)?;
        }
        Ok(freed)
    }

    /// Whether another pod could be given an interface.
    pub fn status(&self) -> Result<(), Error> {
        let allocs = self.allocs();
        match allocs.iter().zip(self.config.subnets.iter()).find(|(alloc, _)| !alloc.has_room()) {
            None => Ok(()),
            Some((alloc, subnet)) => Err(Error::NoAddress { subnet: subnet.to_string(), used: alloc.taken().count() }),
        }
    }

    fn allocs(&self) -> MutexGuard<'_, Vec<Allocator>> {
        // Records are files; the memory beside them is right after each step, also when a caller panicked.
        self.allocs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the host forward packets of the network's families, and keeps the old values for the [`teardown`] of the last
/// network.
pub fn forwarding(config: &Config) -> Result<(), Error> {
    if config.subnets.family(false).is_some() {
        change(config, FORWARD, "1")?;
    }
    if config.subnets.family(true).is_none() || linux::sysctl::get(FORWARD6).is_ok_and(|value| value == "1") {
        return Ok(());
    }
    // A host that forwards hears no routers any more unless it is told to: its own way out came from one.
    let mut rtnl = Rtnl::open()?;
    let said_by_router = |route: &&Route| route.dst == Prefix::everything(true) && route.protocol == ROUTER_SAID;
    let indexes: Vec<_> = rtnl.routes()?.iter().filter(said_by_router).filter_map(Route::index).collect();
    for link in rtnl.links()?.iter().filter(|link| indexes.contains(&link.index)) {
        let hears = format!("net/ipv6/conf/{}/accept_ra", link.name);
        if linux::sysctl::get(&hears).is_ok_and(|value| value == "1") {
            change(config, &hears, "2")?;
        }
    }
    change(config, FORWARD6, "1")
}

/// Changes a setting of the host, once its old value is on the disk.
fn change(config: &Config, setting: &str, value: &str) -> Result<(), Error> {
    let old = linux::sysctl::get(setting).map_err(Error::io(format!("reading {setting}")))?;
    if old == value {
        return Ok(());
    }
    // Kept first: a crash between the two must not lose what was before.
    let path = config.settings_dir.join(format!("{}.{}", record_of(setting), namespace()?));
    if !path.exists() {
        crate::files::make_dir(&config.settings_dir)
            .map_err(Error::io(format!("making {}", config.settings_dir.display())))?;
        crate::files::write(&path, &old).map_err(Error::io(format!("writing {}", path.display())))?;
    }
    bridge::setting(setting, value).map(drop)
}

const FORWARD: &str = "net/ipv4/ip_forward";
const FORWARD6: &str = "net/ipv6/conf/all/forwarding";
/// The oldest record has a name of its own.
const FORWARD_RECORD: &str = "ip_forward";
/// Settings that others of ours are recorded by begin like this.
const OTHERS: &str = "net:ipv6:";
/// RTPROT_RA: a router said so.
const ROUTER_SAID: u8 = 9;

/// The first part of a record's name. No link has a colon or a slash in its name.
fn record_of(setting: &str) -> String {
    if setting == FORWARD { FORWARD_RECORD.to_owned() } else { setting.replace('/', ":") }
}

/// Gives the host back the settings that were changed in this network namespace. What it hears of routers comes after
/// what it forwards: a router's word is believed anew.
fn give_back(config: &Config) -> Result<(), Error> {
    let what = || format!("listing {}", config.settings_dir.display());
    let end = format!(".{}", namespace()?);
    let entries = match fs::read_dir(&config.settings_dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(what()))?,
    };
    for entry in entries {
        let name = entry.map_err(Error::io(what()))?.file_name();
        let Some(record) = name.to_str().and_then(|name| name.strip_suffix(&end)) else { continue };
        let setting = match record {
            FORWARD_RECORD => FORWARD.to_owned(),
            other if other.starts_with(OTHERS) => other.replace(':', "/"),
            _ => continue,
        };
        let path = config.settings_dir.join(&name);
        if let Ok(old) = fs::read_to_string(&path)
            // Its link may be gone.
            && linux::sysctl::get(&setting).is_ok()
        {
            bridge::setting(&setting, old.trim())?;
        }
        fs::remove_file(&path).map_err(Error::io(format!("removing {}", path.display())))?;
    }
    Ok(())
}

/// Removes all that the network made: links, rules, records, settings. Idempotent.
pub fn teardown(config: &Config) -> Result<(), Error> {
    for v6 in [false, true] {
        let (name, bridge) = (config.table.clone(), config.bridge.clone());
        Table { name, v6, bridge, own: Vec::new() }.remove()?;
    }
    Guard { table: config.table.clone() }.remove()?;
    let mut rtnl = Rtnl::open()?;
    if let Some(bridge) = rtnl.link(&config.bridge)?
        && bridge.kind == Some(LinkKind::Bridge)
    {
        // Somebody else's port is let go of, not removed.
        for port in rtnl.links()?.iter().filter(|l| l.master == Some(bridge.index) && bridge::is_host_name(&l.name)) {
            rtnl.delete_link(&port.name)?;
        }
        rtnl.delete_link(&config.bridge)?;
    }
    // The bridge's own routes went with it. What else is ours and leads to this cluster's pods is by links that stay.
    let to_pods = |route: &Route| config.cluster_ranges.iter().any(|range| range.covers(&route.dst));
    for route in rtnl.routes()?.iter().filter(|route| route.is_ours() && to_pods(route)) {
        rtnl.delete_route(route)?;
    }
    if !rules::others_exist(&config.table)? {
        give_back(config)?;
    }
    linux::root::remove_tree(&config.state_dir).map_err(Error::io(format!("removing {}", config.state_dir.display())))
}

fn check(config: &Config) -> Result<(), Error> {
    if config.bridge.is_empty() || config.bridge.len() > 15 || config.bridge.contains(['/', ' ']) {
        return Err(Error::config("bridge", format!("{:?} is not a link name of 1 to 15 bytes", config.bridge)));
    }
    if config.table.is_empty() {
        return Err(Error::config("table", "the nftables table needs a name"));
    }
    Ok(())
}

/// The bridge's address in a subnet.
fn gateway(subnet: Prefix) -> Result<Prefix, Error> {
    let no_room = || Error::config("subnet", format!("{subnet} has no room for a gateway and a pod"));
    Ok(Prefix::new(subnet.nth(1).ok_or_else(no_room)?, subnet.len))
}

fn table(config: &Config, subnet: Prefix) -> Table {
    let v6 = subnet.is_ipv6();
    let mut own: Vec<_> = config.only_here.iter().copied().filter(|range| range.is_ipv6() == v6).collect();
    if !own.iter().any(|range| range.contains(subnet.addr)) {
        own.push(subnet);
    }
    Table { name: config.table.clone(), v6, bridge: config.bridge.clone(), own }
}

/// Binds the pods that are there to their ports. Where the kernel has no rules for bridges, routing at least refuses
/// what can't have come from the pod network.
fn guard(config: &Config, allocs: &[Allocator]) -> Result<Option<Guard>, Error> {
    let guard = Guard { table: config.table.clone() };
    let mut taken: BTreeMap<&Owner, Vec<IpAddr>> = BTreeMap::new();
    for (addr, owner) in allocs.iter().flat_map(Allocator::taken) {
        taken.entry(owner).or_default().push(addr);
    }
    let sources: Vec<_> = taken.into_iter().map(|(owner, addrs)| source(owner, addrs)).collect();
    if guard.ensure(&sources)? {
        return Ok(Some(guard));
    }
    bridge::setting(&format!("net/ipv4/conf/{}/rp_filter", config.bridge), "1")?;
    Ok(None)
}

/// The hardware address is made from the first of the addresses, as the pod's is.
fn source(owner: &Owner, addrs: Vec<IpAddr>) -> Source {
    Source {
        owner: owner_name(owner),
        host_name: bridge::host_name(&owner.container_id, &owner.ifname),
        mac: bridge::mac_of(addrs.first().copied().unwrap_or(IpAddr::from([0; 4]))),
        addrs,
    }
}

fn owner(pod: &Pod<'_>) -> Owner {
    Owner { container_id: pod.container_id.to_owned(), ifname: pod.ifname.to_owned() }
}

/// How rules name a container.
fn owner_name(owner: &Owner) -> String {
    format!("{}/{}", owner.container_id, owner.ifname)
}

fn addresses(state_dir: &Path) -> PathBuf {
    state_dir.join("addresses")
}

/// Each network namespace has the settings for itself.
fn namespace() -> Result<u64, Error> {
    Ok(fs::metadata("/proc/thread-self/ns/net").map_err(Error::io("looking at the network namespace"))?.ino())
}

fn interface(name: &str, mac: &str, mtu: u32, sandbox: &str) -> Interface {
    Interface { name: name.to_owned(), mac: mac.to_owned(), mtu, sandbox: sandbox.to_owned() }
}

fn mac_text(link: &linux::netlink::Link) -> String {
    link.mac.map(|m| m.to_string()).unwrap_or_default()
}
