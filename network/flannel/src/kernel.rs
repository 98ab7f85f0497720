//! The kernel's side: links, addresses, routes, neighbours, forwarding entries. Does I/O by netlink, and decides nothing:
//! what is wanted comes from the backends, what is to change from `difference`. Caller: the daemon.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use linux::netlink::wireguard::{Device, Peer, PublicKey, WIREGUARD, WireGuard};
use linux::netlink::{Error, Fdb, Link, LinkKind, Mac, Neighbour, Route, Rtnl, Vxlan};
use meta::Prefix;

use crate::backend::{Wanted, ipip, vxlan, wireguard};
use crate::difference::{Change, Ours, There, changes};
use crate::key::KeyPair;

const EEXIST: i32 = 17;
const EADDRINUSE: i32 = 98;

/// Speaks to the kernel.
#[derive(Debug)]
pub struct Kernel {
    rtnl: Rtnl,
    /// Once there is a link of its kind.
    wireguard: Option<WireGuard>,
}

/// What could not be done, and why: the rest was.
pub type Troubles = Vec<String>;

impl Kernel {
    /// Of the calling thread's network namespace.
    pub fn open() -> Result<Kernel, Error> {
        Ok(Kernel { rtnl: Rtnl::open()?, wireguard: None })
    }

    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        self.rtnl.link(name)
    }

    /// The VXLAN link of this name and shape: the one that is there when it is such, else a new one with this hardware
    /// address, if one is asked for. `tag` is written on it: a link of this name that has another is somebody else's.
    pub fn vxlan(
        &mut self,
        name: &str,
        mac: Option<Mac>,
        mtu: u32,
        shape: &Vxlan,
        tag: Option<&str>,
    ) -> Result<Link, Error> {
        let there = self.rtnl.link(name)?;
        if there.as_ref().is_some_and(|link| link.alias.as_deref() != tag) {
            return Err(taken(name, &vni_taken(shape.id)));
        }
        let good = there.filter(|link| link.kind == Some(LinkKind::Vxlan(shape.clone())));
        let good = good.filter(|link| mac.is_none() || link.mac == mac);
        let link = match good {
            Some(link) => link,
            None => {
                // Only a new one can be of another shape.
                self.rtnl.delete_link(name)?;
                self.rtnl.add_vxlan(name, mac, mtu, shape).map_err(|error| no_vxlan(error, name, shape.id))?;
                self.tagged(name, tag)?
            }
        };
        self.usable(&link, mtu)?;
        // The driver says that it fills in checksums, and leaves those of packets that are translated on their way out
        // (a Service asked by this host) unfilled: the other end drops them.
        if let Err(error) = linux::ethtool::set_transmit_checksums(name, false) {
            tracing::warn!(link = name, %error, "checksums are left to the link's driver");
        }
        Ok(link)
    }

    /// The IPIP link of this host, that leaves from this address.
    pub fn ipip(&mut self, mtu: u32, local: Ipv4Addr, tag: Option<&str>) -> Result<Link, Error> {
        let (name, shape) = (ipip::LINK, ipip::shape(local));
        let link = self.ours(name, LinkKind::Ipip(shape.clone()), tag, IPIP_TAKEN, |rtnl| {
            rtnl.add_ipip(name, mtu, &shape).map_err(|error| match error.is_exists() {
                true => taken(name, IPIP_TAKEN),
                false => lacking(error, ipip::TYPE),
            })
        })?;
        self.usable(&link, mtu)?;
        Ok(link)
    }

    /// The WireGuard link of this name, with this key on this port, and whom it speaks to.
    pub fn wireguard(
        &mut self,
        name: &str,
        mtu: u32,
        key: &KeyPair,
        port: u16,
        tag: Option<&str>,
    ) -> Result<(Link, Device), Error> {
        let link = self.ours(name, LinkKind::Other(WIREGUARD.to_owned()), tag, WIREGUARD_TAKEN, |rtnl| {
            rtnl.add_wireguard(name, mtu).map_err(|error| lacking(error, wireguard::TYPE))
        })?;
        let mut device = self.device(link.index)?;
        if (device.key, device.port) != (Some(key.public), port) {
            self.speaks()?.set(link.index, &key.secret, port).map_err(|error| port_taken(error, port))?;
            device = self.device(link.index)?;
        }
        self.usable(&link, mtu).map_err(|error| port_taken(error, port))?;
        Ok((link, device))
    }

    pub fn device(&mut self, index: u32) -> Result<Device, Error> {
        self.speaks()?.device(index)
    }

    fn speaks(&mut self) -> Result<&mut WireGuard, Error> {
        let open = match self.wireguard.take() {
            Some(open) => open,
            None => WireGuard::open()?,
        };
        Ok(self.wireguard.insert(open))
    }

    /// Has a link speak to these and no others.
    pub fn peers(
        &mut self,
        index: u32,
        wanted: &[Peer],
        there: &[Peer],
        told: &HashMap<PublicKey, SocketAddr>,
    ) -> Result<(), Error> {
        let changes = wireguard::changes(wanted, there, told);
        if changes.is_empty() {
            return Ok(());
        }
        tracing::debug!(link = index, ?changes, "WireGuard is told");
        self.speaks()?.change(index, &changes)
    }

    /// The link of this name, made anew where it is of another kind. One without our tag is somebody's.
    fn ours(
        &mut self,
        name: &str,
        kind: LinkKind,
        tag: Option<&str>,
        why_taken: &str,
        add: impl FnOnce(&mut Rtnl) -> Result<(), Error>,
    ) -> Result<Link, Error> {
        let there = self.rtnl.link(name)?;
        if there.as_ref().is_some_and(|link| link.alias.as_deref() != tag) {
            return Err(taken(name, why_taken));
        }
        if let Some(link) = there.filter(|link| link.kind == Some(kind)) {
            return Ok(link);
        }
        self.rtnl.delete_link(name)?;
        add(&mut self.rtnl)?;
        self.tagged(name, tag)
    }

    /// Writes on a new link whose it is.
    fn tagged(&mut self, name: &str, tag: Option<&str>) -> Result<Link, Error> {
        let link = self.needed(name)?;
        if let Some(tag) = tag {
            self.rtnl.set_alias(link.index, tag)?;
        }
        Ok(link)
    }

    /// Removes what another backend left: links of backends with this tag that have none of these names. What led by them
    /// goes with them.
    pub fn leave_only(&mut self, names: &[String], tag: &str) -> Result<(), Error> {
        for link in self.rtnl.links()? {
            let ours = link.is_tunnel() && link.alias.as_deref() == Some(tag);
            if ours && !names.contains(&link.name) {
                tracing::info!(link = link.name, "a link of another backend is removed");
                self.rtnl.delete_link(&link.name)?;
            }
        }
        Ok(())
    }

    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        self.rtnl.delete_link(name)
    }

    /// A link whose maker is there, made ready.
    pub fn ready(&mut self, name: &str, mtu: u32) -> Result<Link, Error> {
        let link = self.needed(name)?;
        self.usable(&link, mtu)?;
        Ok(link)
    }

    /// What is so already is not said again: each change is news to us, too.
    fn usable(&mut self, link: &Link, mtu: u32) -> Result<(), Error> {
        if link.mtu != mtu {
            self.rtnl.set_mtu(link.index, mtu)?;
        }
        if !link.up {
            self.rtnl.set_up(link.index, true)?;
        }
        Ok(())
    }

    fn needed(&mut self, name: &str) -> Result<Link, Error> {
        let gone = || Error::Malformed { what: format!("looking for link {name}"), detail: "there is none any more" };
        self.rtnl.link(name)?.ok_or_else(gone)
    }

    /// The link has this address of its family, and none that it had before.
    pub fn address(&mut self, index: u32, address: Prefix) -> Result<(), Error> {
        let all = self.rtnl.addresses(Some(index))?;
        let family = all.iter().filter(|a| a.prefix.is_ipv6() == address.is_ipv6() && a.global);
        for other in family.clone().filter(|a| a.prefix != address) {
            self.rtnl.delete_address(index, other.prefix)?;
        }
        if family.clone().any(|a| a.prefix == address) {
            return Ok(());
        }
        self.rtnl.put_address(index, address)
    }

    /// Whether an address is on a link of this host: no router is between.
    pub fn is_neighbour(&mut self, address: IpAddr) -> bool {
        self.link_of(address).is_some()
    }

    /// The link that a neighbour is on.
    fn link_of(&mut self, address: IpAddr) -> Option<u32> {
        let route = self.rtnl.route_to(address).ok().flatten()?;
        route.index().filter(|_| route.gateway().is_none())
    }

    /// Has routes to neighbours leave by the link that each is on: a host may have several, one to nodes in namespaces of
    /// it among them. What is on a link of ours whatever the kernel's routes say stays there: by a default route without a
    /// router (PPP, a tunnel) everybody looks like a neighbour.
    pub fn lead(&mut self, routes: &mut [Route]) {
        for route in routes {
            let gateway = route.gateway();
            let ([hop], Some(gateway)) = (&mut route.next_hops[..], gateway) else { continue };
            if !hop.onlink {
                hop.index = self.link_of(gateway).or(hop.index);
            }
        }
    }

    /// Makes what is wanted so, and takes away what is ours besides. What the kernel refuses is told, and the rest done.
    pub fn apply(&mut self, wanted: &Wanted, ours: &Ours) -> Result<Troubles, Error> {
        let links = !ours.links.is_empty();
        let neighbours: Vec<Neighbour> = if links { self.rtnl.neighbours()? } else { Vec::new() };
        let fdb: Vec<Fdb> = if links { self.rtnl.fdb()? } else { Vec::new() };
        let there = There { routes: self.rtnl.routes()?, neighbours, fdb };
        let mut troubles = Vec::new();
        for change in changes(wanted, &there, ours) {
            tracing::debug!(?change, "the kernel is told");
            if let Err(error) = self.change(&change) {
                troubles.push(trouble(&change, &error));
            }
        }
        Ok(troubles)
    }

    fn change(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::PutNeighbour(neighbour) => self.rtnl.put_neighbour(neighbour),
            Change::PutFdb(entry) => self.rtnl.put_fdb(entry),
            Change::PutRoute(route) => self.rtnl.put_route(route),
            Change::DeleteRoute(route) => self.rtnl.delete_route(route),
            Change::DeleteFdb(entry) => self.rtnl.delete_fdb(entry),
            Change::DeleteNeighbour(neighbour) => self.rtnl.delete_neighbour(neighbour.index, neighbour.addr),
        }
    }
}

fn trouble(change: &Change, error: &Error) -> String {
    match change {
        Change::PutRoute(route) if error.is_unreachable() => {
            let gateway = route.gateway().map_or_else(String::new, |ip| format!(" {ip}"));
            format!("the host{gateway} of {} is on no link of this one: routes alone don't lead there", route.dst)
        }
        _ => error.to_string(),
    }
}

fn no_vxlan(error: Error, name: &str, vni: u32) -> Error {
    // No link has the name, so one of another name has the number.
    if error.is_exists() { taken(name, &vni_taken(vni)) } else { lacking(error, vxlan::TYPE) }
}

fn vni_taken(vni: u32) -> String {
    format!("another cluster or flannel of this host has it, or VNI {vni}: choose another VNI")
}

const IPIP_TAKEN: &str =
    "another cluster, flannel or tunnel of this host has it, and there is one from an address: choose another backend";
const WIREGUARD_TAKEN: &str = "another cluster or flannel of this host has it: choose another backend";

fn taken(name: &str, why: &str) -> Error {
    Error::Refused { what: format!("adding link {name}"), errno: EEXIST, message: Some(why.to_owned()) }
}

fn port_taken(error: Error, port: u16) -> Error {
    if error.errno() != EADDRINUSE {
        return error;
    }
    error.doing(format!("UDP port {port} of WireGuard: another program of this host has it: choose another ListenPort"))
}

/// The sentence of a backend whose links the kernel does not have.
fn lack(backend_type: &str) -> Option<&'static str> {
    match backend_type {
        vxlan::TYPE => Some("this kernel has no VXLAN links (its module vxlan): choose the backend udp or host-gw"),
        wireguard::TYPE => Some(
            "this kernel has no WireGuard links (its module wireguard, of Linux 5.6 and newer): load it, or choose the \
             backend vxlan, host-gw or udp",
        ),
        ipip::TYPE => Some(
            "this kernel has no IPIP links (its module ipip): load it, or choose the backend vxlan, host-gw or udp",
        ),
        _ => None,
    }
}

fn lacking(error: Error, backend_type: &str) -> Error {
    match lack(backend_type) {
        Some(sentence) if error.is_unsupported() => error.doing(sentence),
        _ => error,
    }
}

/// What the kernel lacks for a backend, in a sentence with the cure: a link is made for a moment, in a network of its own.
/// None where it has it, or that can't be tried. I/O.
pub fn lacks(backend_type: &str) -> Option<&'static str> {
    let sentence = lack(backend_type)?;
    match probe(backend_type) {
        Err(error) if error.is_unsupported() => Some(sentence),
        Err(error) => {
            tracing::debug!(%error, backend_type, "what the kernel has could not be tried");
            None
        }
        Ok(()) => None,
    }
}

/// Whether the kernel has VXLAN links, tried in the same way. I/O.
pub fn has_vxlan() -> bool {
    probe(vxlan::TYPE).inspect_err(|error| tracing::debug!(%error, "no VXLAN links here")).is_ok()
}

fn probe(backend_type: &str) -> Result<(), Error> {
    const NAME: &str = "probe";
    let ns = linux::netns::NetNs::create();
    let ns = ns.map_err(|source| Error::Io { what: "making a network namespace".to_owned(), source })?;
    let mut rtnl = Rtnl::open_in(&ns)?;
    match backend_type {
        wireguard::TYPE => rtnl.add_wireguard(NAME, 1420),
        ipip::TYPE => rtnl.add_ipip(NAME, 1480, &ipip::shape(Ipv4Addr::LOCALHOST)),
        _ => rtnl.add_vxlan(NAME, None, 1450, &Vxlan { id: 1, port: 8472, ..Vxlan::default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wherever it runs: either there is such a link, or one sentence with the cure.
    #[test]
    fn what_a_kernel_lacks_is_one_sentence_with_the_cure() {
        for backend in [vxlan::TYPE, wireguard::TYPE, ipip::TYPE] {
            match (probe(backend), lacks(backend)) {
                (Ok(()), lacks) => assert_eq!(lacks, None, "{backend}"),
                (Err(error), Some(sentence)) => {
                    assert!(sentence.contains(&format!("its module {backend}")) && sentence.contains("choose"));
                    let said = lacking(error, backend).to_string();
                    assert!(said.starts_with(sentence), "{said}");
                }
                (Err(error), None) => assert!(!error.is_unsupported(), "{backend}: {error}"),
            }
        }
        assert_eq!((lacks("host-gw"), lacks("udp")), (None, None));
    }
}
