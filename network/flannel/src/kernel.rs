//! The kernel's side: links, addresses, routes, neighbours, forwarding entries. Does I/O by netlink, and decides nothing:
//! what is wanted comes from the backends, what is to change from `difference`. Caller: the daemon.

use std::net::IpAddr;

use linux::netlink::{Error, Fdb, Link, LinkKind, Mac, Neighbour, Route, Rtnl, Vxlan};
use meta::Prefix;

use crate::backend::Wanted;
use crate::difference::{Change, Ours, There, changes};

const EEXIST: i32 = 17;

/// Speaks to the kernel.
#[derive(Debug)]
pub struct Kernel {
    rtnl: Rtnl,
}

/// What could not be done, and why: the rest was.
pub type Troubles = Vec<String>;

impl Kernel {
    /// Of the calling thread's network namespace.
    pub fn open() -> Result<Kernel, Error> {
        Ok(Kernel { rtnl: Rtnl::open()? })
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
            return Err(taken(name, shape.id));
        }
        let good = there.filter(|link| link.kind == Some(LinkKind::Vxlan(shape.clone())));
        let good = good.filter(|link| mac.is_none() || link.mac == mac);
        let link = match good {
            Some(link) => link,
            None => {
                // Only a new one can be of another shape.
                self.rtnl.delete_link(name)?;
                self.rtnl.add_vxlan(name, mac, mtu, shape).map_err(|error| no_vxlan(error, name, shape.id))?;
                let link = self.needed(name)?;
                if let Some(tag) = tag {
                    self.rtnl.set_alias(link.index, tag)?;
                }
                link
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
    if error.is_unsupported() {
        return error.doing("this kernel has no VXLAN links (its module vxlan): choose the backend udp or host-gw");
    }
    // No link has the name, so one of another name has the number.
    if error.is_exists() { taken(name, vni) } else { error }
}

fn taken(name: &str, vni: u32) -> Error {
    let message = format!("another cluster or flannel of this host has it, or VNI {vni}: choose another VNI");
    Error::Refused { what: format!("adding link {name}"), errno: EEXIST, message: Some(message) }
}

/// Whether the kernel has VXLAN links: one is made for a moment, in a network of its own. I/O.
pub fn has_vxlan() -> bool {
    let made = linux::netns::NetNs::create().map_err(|error| error.to_string()).and_then(|ns| {
        let mut rtnl = Rtnl::open_in(&ns).map_err(|error| error.to_string())?;
        let shape = Vxlan { id: 1, port: 8472, ..Vxlan::default() };
        rtnl.add_vxlan("probe", None, 1450, &shape).map_err(|error| error.to_string())
    });
    if let Err(error) = &made {
        tracing::debug!(error, "no VXLAN links here");
    }
    made.is_ok()
}
