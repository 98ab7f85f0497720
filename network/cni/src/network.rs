//! The built-in pod network of a node: a bridge, host-local addresses, masquerading, host ports. Does I/O.
//!
//! `network/pod` calls [`Network::add`] and [`Network::del`] on a thread that may block. All state is in the
//! kernel (links, rules, named by the configuration) and in small files; nothing is lost by a crash, and
//! [`Network::gc`] and [`teardown`] find whatever is there.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use linux::netlink::{LinkKind, Route, Rtnl};
use meta::Prefix;

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
    /// The name of our nftables table in the ip family; one a cluster on a host.
    pub table: String,
    /// The node's share of the pod network, such as 10.42.0.0/24.
    pub subnet: Prefix,
    /// The bridge's address; none: the first of the subnet.
    pub gateway: Option<Ipv4Addr>,
    /// Where pods' own addresses are kept, besides the subnet: the whole pod network of the cluster.
    pub cluster_ranges: Vec<Prefix>,
    /// Ranges that have no pods on other hosts: what comes from them comes by the bridge, or from nobody's pod. The
    /// subnet always is one.
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
    table: Table,
    /// None: this kernel has no rules for bridges.
    guard: Option<Guard>,
    gateway: Ipv4Addr,
    index: u32,
    /// Bytes of a packet, of pods that come from now on.
    mtu: AtomicU32,
    alloc: Mutex<Allocator>,
}

impl Network {
    /// Makes what is missing of bridge, rules and settings; what a former run left is taken over.
    pub fn new(config: Config) -> Result<Self, Error> {
        check(&config)?;
        let gateway = gateway(&config)?;
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => bridge::uplink_mtu()?,
        };
        crate::files::make_dir(&config.state_dir)
            .map_err(Error::io(format!("making {}", config.state_dir.display())))?;
        let bridge = Bridge {
            name: config.bridge.clone(),
            gateway: Some(Prefix::new(gateway, config.subnet.len)),
            mtu,
            // Where the kernel shows bridged packets to nftables, a pod's packet to itself by a Service turns round
            // inside the bridge and leaves by the port it came in.
            hairpin: true,
            promiscuous: false,
        };
        let alloc = Allocator::open(addresses(&config.state_dir), config.subnet, gateway, None)?;
        let index = bridge.ensure()?;
        let mut own = config.only_here.clone();
        if !own.iter().any(|range| range.contains(config.subnet.addr)) {
            own.push(config.subnet);
        }
        let table = Table { name: config.table.clone(), bridge: config.bridge.clone(), own };
        table.ensure(config.masquerade.then_some((config.subnet, &config.cluster_ranges[..])))?;
        bridge::setting(&format!("net/ipv4/conf/{}/route_localnet", config.bridge), "1")?;
        forwarding(&config)?;
        let guard = guard(&config, &alloc)?;
        let (mtu, alloc) = (AtomicU32::new(mtu), Mutex::new(alloc));
        Ok(Network { config, bridge, table, guard, gateway, index, mtu, alloc })
    }

    /// What it was made from, with nothing filled in.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The bridge's address, which pods send to.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// The bytes of a packet that pods may send.
    pub fn mtu(&self) -> u32 {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Packets may have so many bytes from now on. Pods that are there keep theirs: the bridge tells them what is too long
    /// for the way that a packet takes.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), Error> {
        if self.mtu.swap(mtu, Ordering::Relaxed) != mtu {
            Rtnl::open()?.set_mtu(self.index, mtu)?;
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
    /// gives the same address.
    pub fn add(&self, pod: &Pod<'_>) -> Result<AddResult, Error> {
        let owner = owner(pod);
        let netns = bridge::open_netns(pod.netns)?;
        let addr = self.alloc().allocate(&owner)?;
        let address = Prefix::new(addr, self.config.subnet.len);
        let host_name = bridge::host_name(pod.container_id, pod.ifname);
        let (everywhere, bridge) = ([Prefix::new(Ipv4Addr::UNSPECIFIED, 0)], self.bridge());
        let attach = Attach { host_name: &host_name, ifname: pod.ifname, address, netns: &netns, routes: &everywhere };
        let admitted = self.guard.iter().try_for_each(|guard| guard.admit(&source(&owner, addr)));
        let made = admitted.and_then(|()| bridge.attach(self.index, &attach)).and_then(|links| {
            self.table.open_ports(&owner_name(&owner), addr, pod.ports)?;
            Ok(links)
        });
        let (host, inside) = match made {
            Ok(links) => links,
            Err(e) => {
                let _ = self.remove(&owner);
                return Err(e);
            }
        };
        Ok(AddResult {
            cni_version: VERSION.to_owned(),
            interfaces: vec![
                interface(&bridge.name, &bridge::mac_of(self.gateway).to_string(), bridge.mtu, ""),
                interface(&host.name, &mac_text(&host), bridge.mtu, ""),
                interface(pod.ifname, &mac_text(&inside), bridge.mtu, &pod.netns.to_string_lossy()),
            ],
            ips: vec![IpConfig {
                interface: Some(2),
                address: address.to_string(),
                gateway: Some(self.gateway.into()),
                version: None,
            }],
            routes: vec![RouteConfig { dst: "0.0.0.0/0".to_owned(), gw: Some(self.gateway.into()) }],
            dns: Default::default(),
        })
    }

    /// Takes a pod's interface away; idempotent. The namespace may be gone.
    pub fn del(&self, container_id: &str, ifname: &str) -> Result<(), Error> {
        self.remove(&Owner { container_id: container_id.to_owned(), ifname: ifname.to_owned() })
    }

    fn remove(&self, owner: &Owner) -> Result<(), Error> {
        let name = owner_name(owner);
        self.table.close_ports(|other| other == name)?;
        // The links go before the address is free: no two pods ever have it at once.
        let addrs: Vec<_> = self.alloc().of(owner).into_iter().collect();
        self.bridge.detach(&bridge::host_name(&owner.container_id, &owner.ifname), &addrs)?;
        self.guard.iter().try_for_each(|guard| guard.forget(|other| other == name))?;
        self.alloc().release(owner)?;
        Ok(())
    }

    /// Whether a pod's interface is as it was made.
    pub fn check(&self, pod: &Pod<'_>) -> Result<(), Error> {
        let problem =
            |problem: &str| Error::Check { container: pod.container_id.to_owned(), problem: problem.to_owned() };
        let addr = self.alloc().of(&owner(pod)).ok_or_else(|| problem("it has no address"))?;
        let port = Rtnl::open()?.link(&bridge::host_name(pod.container_id, pod.ifname))?;
        if port.is_none_or(|p| p.master != Some(self.index)) {
            return Err(problem("its link is not in the bridge"));
        }
        let mut inside = Rtnl::open_in(&bridge::open_netns(pod.netns)?)?;
        let link = inside.link(pod.ifname)?.ok_or_else(|| problem("its interface is gone"))?;
        if !inside.addresses(Some(link.index))?.iter().any(|a| a.prefix.addr == IpAddr::V4(addr)) {
            return Err(problem("its address is not on the interface"));
        }
        if inside.default_route()?.is_none_or(|r| r.gateway() != Some(self.gateway.into())) {
            return Err(problem("its default route does not lead to the bridge"));
        }
        Ok(())
    }

    /// The address of a container's interface, when it has one.
    pub fn address_of(&self, container_id: &str, ifname: &str) -> Option<Ipv4Addr> {
        self.alloc().of(&Owner { container_id: container_id.to_owned(), ifname: ifname.to_owned() })
    }

    /// Frees addresses, links and host ports of all containers but these (container id, interface). Returns the
    /// addresses that were freed.
    pub fn gc(&self, valid: &[(&str, &str)]) -> Result<Vec<Ipv4Addr>, Error> {
        let owners: Vec<_> = valid
            .iter()
            .map(|(id, ifname)| Owner { container_id: (*id).to_owned(), ifname: (*ifname).to_owned() })
            .collect();
        let links: HashSet<_> = valid.iter().map(|(id, ifname)| bridge::host_name(id, ifname)).collect();
        let names: HashSet<_> = owners.iter().map(owner_name).collect();
        self.table.close_ports(|owner| !names.contains(owner))?;
        let mut rtnl = Rtnl::open()?;
        for link in rtnl.links()? {
            if link.master == Some(self.index) && !links.contains(&link.name) {
                rtnl.delete_link(&link.name)?;
            }
        }
        self.guard.iter().try_for_each(|guard| guard.forget(|owner| !names.contains(owner)))?;
        let freed = self.alloc().gc(&owners)?;
        for addr in &freed {
            rtnl.delete_neighbour(self.index, (*addr).into())?;
        }
        Ok(freed)
    }

    /// Whether another pod could be given an interface.
    pub fn status(&self) -> Result<(), Error> {
        let alloc = self.alloc();
        if alloc.has_room() {
            return Ok(());
        }
        Err(Error::NoAddress { subnet: self.config.subnet.to_string(), used: alloc.taken().count() })
    }

    fn alloc(&self) -> MutexGuard<'_, Allocator> {
        // Records are files; the memory beside them is right after each step, also when a caller panicked.
        self.alloc.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the host forward packets and keeps the old value for the [`teardown`] of the last network. Returns the value
/// before.
pub fn forwarding(config: &Config) -> Result<String, Error> {
    const FORWARD: &str = "net.ipv4.ip_forward";
    let old = linux::sysctl::get(FORWARD).map_err(Error::io(format!("reading {FORWARD}")))?;
    if old != "1" {
        // Kept first: a crash between the two must not lose what was before.
        let path = old_forwarding(config)?;
        if !path.exists() {
            crate::files::make_dir(&config.settings_dir)
                .map_err(Error::io(format!("making {}", config.settings_dir.display())))?;
            crate::files::write(&path, &old).map_err(Error::io(format!("writing {}", path.display())))?;
        }
        bridge::setting(FORWARD, "1")?;
    }
    Ok(old)
}

/// Removes all that the network made: links, rules, records, settings. Idempotent.
pub fn teardown(config: &Config) -> Result<(), Error> {
    let table = Table { name: config.table.clone(), bridge: config.bridge.clone(), own: Vec::new() };
    table.remove()?;
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
    let path = old_forwarding(config)?;
    if let Ok(old) = fs::read_to_string(&path)
        && !rules::others_exist(&config.table)?
    {
        bridge::setting("net.ipv4.ip_forward", old.trim())?;
        fs::remove_file(&path).map_err(Error::io(format!("removing {}", path.display())))?;
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

fn gateway(config: &Config) -> Result<Ipv4Addr, Error> {
    let first = match config.subnet.nth(1) {
        Some(IpAddr::V4(first)) => first,
        _ => return Err(Error::config("subnet", format!("{} is not an IPv4 range of pods", config.subnet))),
    };
    let gateway = config.gateway.unwrap_or(first);
    if !config.subnet.contains(gateway.into()) {
        return Err(Error::config("gateway", format!("{gateway} is not in {}", config.subnet)));
    }
    Ok(gateway)
}

/// Binds the pods that are there to their ports. Where the kernel has no rules for bridges, routing at least refuses
/// what can't have come from the pod network.
fn guard(config: &Config, alloc: &Allocator) -> Result<Option<Guard>, Error> {
    let guard = Guard { table: config.table.clone() };
    let sources: Vec<_> = alloc.taken().map(|(addr, owner)| source(owner, addr)).collect();
    if guard.ensure(&sources)? {
        return Ok(Some(guard));
    }
    bridge::setting(&format!("net/ipv4/conf/{}/rp_filter", config.bridge), "1")?;
    Ok(None)
}

fn source(owner: &Owner, addr: Ipv4Addr) -> Source {
    Source { owner: owner_name(owner), host_name: bridge::host_name(&owner.container_id, &owner.ifname), addr }
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

/// Each network namespace has this setting for itself.
fn old_forwarding(config: &Config) -> Result<PathBuf, Error> {
    let namespace = fs::metadata("/proc/thread-self/ns/net").map_err(Error::io("looking at the network namespace"))?;
    Ok(config.settings_dir.join(format!("ip_forward.{}", namespace.ino())))
}

fn interface(name: &str, mac: &str, mtu: u32, sandbox: &str) -> Interface {
    Interface { name: name.to_owned(), mac: mac.to_owned(), mtu, sandbox: sandbox.to_owned() }
}

fn mac_text(link: &linux::netlink::Link) -> String {
    link.mac.map(|m| m.to_string()).unwrap_or_default()
}
