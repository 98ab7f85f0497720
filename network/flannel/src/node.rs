//! This host in the network: its backend's links, and the kernel in step with the leases that there are. Does I/O by
//! `kernel` and `packets`; what is wanted is decided in the backends. Caller: the daemon.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use linux::netlink::wireguard::PublicKey;
use linux::netlink::{Event, Item, Mac};
use linux::tun::Tun;
use meta::Prefix;

use crate::backend::{Backend, External, Wanted, hostgw, ipip, udp, vxlan, wireguard};
use crate::config::NetConf;
use crate::difference::Ours;
use crate::kernel::Kernel;
use crate::key::KeyPair;
use crate::lease::{Attributes, Lease, Subnets};
use crate::news::News;
use crate::packets::{self, Packets};

/// What can't be made here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kernel(#[from] linux::netlink::Error),
    #[error("this kernel has no TUN links, or /dev/net/tun is missing ({0}): choose the backend vxlan or host-gw")]
    Tun(io::Error),
    #[error("UDP {address}: {source}: is another flannel here?")]
    Socket { address: SocketAddrV4, source: io::Error },
    #[error("the backends udp and ipip need an IPv4 address on {0}")]
    NoAddress(String),
    #[error("the WireGuard key in {path}: {source}")]
    Key { path: PathBuf, source: io::Error },
}

/// What links of this host are known by.
#[derive(Clone, Debug)]
pub struct Own {
    /// Written on them; none: nothing is.
    pub tag: Option<String>,
    /// Tells links of several clusters of a host apart, where upstream has a fixed name: 0 has upstream's.
    pub number: u16,
    /// Where WireGuard's private key is.
    pub key_file: PathBuf,
}

/// The host before it has a lease: which links it has is a part of the lease.
pub struct Site {
    pub conf: NetConf,
    pub backend: Backend,
    pub external: External,
    kernel: Kernel,
    /// The hardware addresses of our VXLAN links, IPv4's and IPv6's.
    macs: [Option<Mac>; 2],
    own: Own,
    /// Where the backend is WireGuard.
    key: Option<KeyPair>,
}

/// The host with its lease.
pub struct Node {
    site: Site,
    own: Subnets,
    leases: BTreeMap<Subnets, Lease>,
    packets: Option<Packets>,
    /// Where WireGuard's peers were said to be last, by its links.
    endpoints: [HashMap<PublicKey, SocketAddr>; 2],
    /// Indexes of our links, as they were at the last look.
    links: Vec<u32>,
    /// What was complained of at the last look: a thing is told once.
    told: BTreeSet<String>,
}

impl Site {
    /// Of the calling thread's network namespace.
    pub fn open(conf: NetConf, backend: Backend, external: External, own: Own) -> Result<Site, Error> {
        let key = match &backend {
            Backend::Wireguard(_) => Some(key(&own.key_file)?),
            _ => None,
        };
        Ok(Site { conf, backend, external, kernel: Kernel::open()?, macs: [None, None], own, key })
    }

    /// What a former life of this cluster's host had with another backend is removed.
    pub fn clear(&mut self) -> Result<(), Error> {
        let Some(tag) = &self.own.tag else { return Ok(()) };
        Ok(self.kernel.leave_only(&self.backend.links(&self.conf, self.own.number), tag)?)
    }

    pub fn mtu(&self) -> u32 {
        self.backend.mtu(&self.external, &self.conf)
    }

    /// What the lease is to say. `before` is what it said when this host was here last: a link that is made anew gets the
    /// hardware address that others know.
    pub fn attributes(&mut self, before: Option<&Attributes>) -> Result<Attributes, Error> {
        let mut attributes = self.external.attributes(&self.conf, self.backend.lease_type());
        if let (Backend::Wireguard(options), Some(key)) = (&self.backend, &self.key) {
            attributes.data = self.conf.v4.map(|_| options.data(key.public, false));
            attributes.data6 = self.conf.v6.map(|_| options.data(key.public, true));
            return Ok(attributes);
        }
        let Backend::Vxlan(options) = self.backend.clone() else { return Ok(attributes) };
        for v6 in self.families() {
            let known = before.and_then(|a| vxlan::mac(if v6 { a.data6.as_ref() } else { a.data.as_ref() }));
            let there = self.kernel.link(&options.link(v6))?.and_then(|link| link.mac);
            let mac = &mut self.macs[usize::from(v6)];
            *mac = there.or(known).or(*mac);
            let data = self.vxlan(&options, v6)?.1.map(|mac| options.data(mac));
            if v6 { attributes.data6 = data } else { attributes.data = data }
        }
        Ok(attributes)
    }

    fn families(&self) -> Vec<bool> {
        let has = [(false, self.conf.v4.is_some()), (true, self.conf.v6.is_some())];
        has.into_iter().filter_map(|(v6, has)| has.then_some(v6)).collect()
    }

    /// The index and the hardware address of a family's link, made where it is missing.
    fn vxlan(&mut self, options: &vxlan::Options, v6: bool) -> Result<(u32, Option<Mac>), Error> {
        let (mtu, shape) = (self.mtu(), options.shape(&self.external, v6));
        let mac = &mut self.macs[usize::from(v6)];
        let link = self.kernel.vxlan(&options.link(v6), *mac, mtu, &shape, self.own.tag.as_deref())?;
        *mac = link.mac;
        Ok((link.index, link.mac))
    }

    pub fn with_lease(self, own: Subnets) -> Node {
        let (leases, links, told) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        Node { site: self, own, leases, packets: None, endpoints: Default::default(), links, told }
    }
}

fn key(path: &Path) -> Result<KeyPair, Error> {
    KeyPair::at(path).map_err(|source| Error::Key { path: path.to_owned(), source })
}

impl Node {
    pub fn mtu(&self) -> u32 {
        self.site.mtu()
    }

    /// By which link others reach this host.
    pub fn external(&self) -> &External {
        &self.site.external
    }

    /// Others reach this host by another link or address from now on; what they must be told comes back. What leads to
    /// them follows at the next look.
    pub fn moved(&mut self, external: External) -> Result<Attributes, Error> {
        if self.site.external.v4 != external.v4 {
            self.packets = None;
        }
        self.site.external = external;
        self.site.attributes(None)
    }

    pub fn hear(&mut self, news: News) {
        match news {
            News::All(leases) => self.leases = leases.into_iter().map(|lease| (lease.subnets, lease)).collect(),
            News::Set(lease) => drop(self.leases.insert(lease.subnets, lease)),
            News::Gone(subnets) => drop(self.leases.remove(&subnets)),
            News::Lost(_) | News::Turned(_) | News::Apart(_) => {}
        }
    }

    /// Makes the links. What leads to other hosts stays as a former life left it, until all leases are known.
    pub fn prepare(&mut self) -> Result<(), Error> {
        match self.site.backend.clone() {
            Backend::HostGw => Ok(()),
            Backend::Vxlan(options) => self.vxlan(&options).map(drop),
            // Peers stay as they were: it is not known yet who is gone.
            Backend::Wireguard(options) => self.wireguard(&options, false).map(drop),
            Backend::Ipip(options) => self.ipip(&options).map(drop),
            Backend::Udp(options) => self.udp(&options).map(drop),
        }
    }

    /// Takes back what it has: the network has another backend. Routes go with their links, or are replaced.
    pub fn leave(&mut self) -> Result<(), Error> {
        self.packets = None;
        for name in self.site.backend.links(&self.site.conf, self.site.own.number) {
            self.site.kernel.delete_link(&name)?;
        }
        Ok(())
    }

    /// Whether there is something of ours that the kernel tells nobody of.
    pub fn has_peers(&self) -> bool {
        matches!(self.site.backend, Backend::Wireguard(_))
    }

    /// Puts WireGuard's peers right.
    pub fn heal_peers(&mut self) -> Result<(), Error> {
        match self.site.backend.clone() {
            Backend::Wireguard(options) => self.wireguard(&options, true).map(drop),
            _ => Ok(()),
        }
    }

    /// Makes links and the kernel's tables as the leases want them, whatever they are now. False when something of it
    /// failed, which is told: it may succeed later.
    pub fn sync(&mut self) -> Result<bool, Error> {
        let (mut wanted, links) = match self.site.backend.clone() {
            Backend::HostGw => {
                let site = &self.site;
                (hostgw::wanted(&site.conf, &self.own, &site.external, self.leases.values()), Vec::new())
            }
            Backend::Vxlan(options) => self.vxlan(&options)?,
            Backend::Wireguard(options) => self.wireguard(&options, true)?,
            Backend::Ipip(options) => self.ipip(&options)?,
            Backend::Udp(options) => self.udp(&options)?,
        };
        self.site.kernel.lead(&mut wanted.routes);
        self.links.clone_from(&links);
        let networks =
            [self.site.conf.v4, self.site.conf.v6].into_iter().flatten().map(|range| range.network).collect();
        let ours = Ours { networks, own: self.own, links };
        let troubles = self.site.kernel.apply(&wanted, &ours)?;
        let good = troubles.is_empty();
        self.tell(wanted.complaints.into_iter().chain(troubles).collect());
        Ok(good)
    }

    fn tell(&mut self, complaints: BTreeSet<String>) {
        for news in complaints.difference(&self.told) {
            tracing::warn!("{news}");
        }
        self.told = complaints;
    }

    fn vxlan(&mut self, options: &vxlan::Options) -> Result<(Wanted, Vec<u32>), Error> {
        let mut indexes = [None, None];
        for v6 in self.site.families() {
            let (index, _) = self.site.vxlan(options, v6)?;
            let subnet = if v6 { self.own.v6 } else { self.own.v4 };
            if let Some(subnet) = subnet {
                // What this host sends to pods of others comes from here, so that answers come by the same way.
                self.site.kernel.address(index, Prefix::host(subnet.addr))?;
            }
            indexes[usize::from(v6)] = Some(index);
        }
        let near = if options.direct_routing { self.near() } else { BTreeSet::new() };
        let Site { conf, external, .. } = &self.site;
        let link = |v6: bool| indexes[usize::from(v6)];
        let leases = self.leases.values();
        let wanted = vxlan::wanted((conf, options), &self.own, external, leases, link, |host| near.contains(&host));
        Ok((wanted, indexes.into_iter().flatten().collect()))
    }

    /// The hosts that are on a link of this one.
    fn near(&mut self) -> BTreeSet<IpAddr> {
        let hosts = self.leases.values().flat_map(|l| [l.attributes.address(false), l.attributes.address(true)]);
        let kernel = &mut self.site.kernel;
        hosts.flatten().filter(|host| kernel.is_neighbour(*host)).collect()
    }

    fn ipip(&mut self, options: &ipip::Options) -> Result<(Wanted, Vec<u32>), Error> {
        let (mtu, site) = (self.site.mtu(), &mut self.site);
        let nowhere = || Error::NoAddress(site.external.name.clone());
        let local = site.external.v4.ok_or_else(nowhere)?;
        let index = site.kernel.ipip(mtu, local, site.own.tag.as_deref())?.index;
        if let Some(own) = self.own.v4 {
            site.kernel.address(index, Prefix::host(own.addr))?;
        }
        let near = if options.direct_routing { self.near() } else { BTreeSet::new() };
        let (Site { conf, external, .. }, leases) = (&self.site, self.leases.values());
        let is_near = |host| near.contains(&host);
        let wanted = ipip::wanted((conf, options), &self.own, external, leases, index, is_near);
        Ok((wanted, vec![index]))
    }

    /// `peers`: whom the links speak to is put right, too.
    fn wireguard(&mut self, options: &wireguard::Options, peers: bool) -> Result<(Wanted, Vec<u32>), Error> {
        let mtu = self.site.mtu();
        let Some(key) = self.site.key.clone() else { return Ok((Wanted::default(), Vec::new())) };
        let (mut devices, mut of_family) = (Vec::new(), [None, None]);
        for (link, port, families) in options.links(&self.site.conf) {
            let (name, tag) = (wireguard::link(link, self.site.own.number), self.site.own.tag.as_deref());
            let (made, device) = self.site.kernel.wireguard(&name, mtu, &key, port, tag)?;
            for v6 in families {
                of_family[usize::from(v6)] = Some(made.index);
                if let Some(subnet) = if v6 { self.own.v6 } else { self.own.v4 } {
                    self.site.kernel.address(made.index, Prefix::host(subnet.addr))?;
                }
            }
            devices.push((usize::from(link), made.index, device));
        }
        let Site { conf, external, .. } = &self.site;
        let (leases, index) = (self.leases.values(), |v6: bool| of_family[usize::from(v6)]);
        let (wanted, all) = wireguard::wanted((conf, options), &self.own, external, key.public, leases, index);
        let indexes = devices.iter().map(|(_, index, _)| *index).collect();
        if peers {
            for (link, index, device) in devices {
                self.site.kernel.peers(index, &all[link], &device.peers, &self.endpoints[link])?;
                self.endpoints[link] = wireguard::endpoints(&all[link]);
            }
        }
        Ok((wanted, indexes))
    }

    fn udp(&mut self, options: &udp::Options) -> Result<(Wanted, Vec<u32>), Error> {
        let (mtu, site) = (self.site.mtu(), &mut self.site);
        let (Some(range), Some(own)) = (site.conf.v4, self.own.v4) else { return Ok((Wanted::default(), Vec::new())) };
        let std::net::IpAddr::V4(address) = own.addr else { return Ok((Wanted::default(), Vec::new())) };
        // Somebody may have removed the link: then its file reads nothing any more.
        if let Some(packets) = &self.packets
            && site.kernel.link(packets.link())?.is_none()
        {
            self.packets = None;
        }
        let packets = match self.packets.take() {
            Some(packets) => packets,
            None => {
                let nowhere = || Error::NoAddress(site.external.name.clone());
                let local = SocketAddrV4::new(site.external.v4.ok_or_else(nowhere)?, options.port);
                let tun = Tun::open(udp::LINK, packets::queues()).map_err(Error::Tun)?;
                Packets::start(tun, local, own, address).map_err(|source| Error::Socket { address: local, source })?
            }
        };
        let link = site.kernel.ready(packets.link(), mtu)?;
        // What tells a pod that nothing is there comes in by this link from its own address.
        let setting = format!("net/ipv4/conf/{}/accept_local", link.name);
        if let Err(error) = linux::sysctl::set(&setting, "1") {
            tracing::warn!(%error, setting, "pods are not told what leads nowhere");
        }
        site.kernel.address(link.index, Prefix::host(own.addr))?;
        let (table, complaints) = udp::wanted((&site.conf, options), &self.own, self.leases.values());
        packets.set(table);
        self.packets = Some(packets);
        let routes = vec![linux::netlink::Route::link(range.network, link.index)];
        Ok((Wanted { routes, complaints, ..Wanted::default() }, Vec::new()))
    }

    /// Whether something of ours may be other than it was left. Pods come and go beside it all the time.
    pub fn matters(&self, event: &Event) -> bool {
        let (Event::Set(item) | Event::Gone(item)) = event else { return true };
        match item {
            // Routes go with their link in silence.
            Item::Link(link) => link.index == self.site.external.index || self.is_our_link(&link.name),
            Item::Route(route) => {
                // Within this host's own subnet they are of whoever connects the pods; udp has one to the whole network.
                let pods = self.own.each().any(|own| own.covers(&route.dst));
                !pods && self.networks().any(|network| network.covers(&route.dst))
            }
            Item::Neighbour(neighbour) => self.links.contains(&neighbour.index) && !neighbour.addr.is_multicast(),
            Item::Fdb(entry) => self.links.contains(&entry.index),
            Item::Address(address) => self.links.contains(&address.index),
            Item::Rule(_) => false,
        }
    }

    /// Whether this host may have another link or address now.
    pub fn may_have_moved(&self, event: &Event) -> bool {
        let (Event::Set(item) | Event::Gone(item)) = event else { return true };
        match item {
            Item::Link(link) => link.index == self.site.external.index,
            Item::Address(address) => address.global && !self.links.contains(&address.index),
            _ => false,
        }
    }

    fn is_our_link(&self, name: &str) -> bool {
        match &self.site.backend {
            Backend::Udp(_) => self.packets.as_ref().is_some_and(|packets| packets.link() == name),
            backend => backend.links(&self.site.conf, self.site.own.number).iter().any(|link| link == name),
        }
    }

    fn networks(&self) -> impl Iterator<Item = Prefix> {
        [self.site.conf.v4, self.site.conf.v6].into_iter().flatten().map(|range| range.network)
    }
}
