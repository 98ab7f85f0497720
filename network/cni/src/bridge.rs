//! Links of the bridge network: the bridge itself, and the pair that joins a pod to it. Does I/O by netlink.
//!
//! Pods have addresses of a subnet but no route to it: all they send goes to the bridge's own address, so that
//! the host routes it, translates Services and applies policy, also between two pods of one node. Hardware
//! addresses are made from IP addresses, so neighbours are known without asking.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::Path;

use linux::netlink::{self, Link, LinkKind, Mac, Neighbour, NewVeth, Route, Rtnl};
use linux::netns::NetNs;
use meta::Prefix;

use crate::Error;

/// What a bridge shall be.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    pub name: String,
    /// The bridge's own address, with the length of the subnet; none: the host has no part in the network.
    pub gateway: Option<Prefix>,
    pub mtu: u32,
    pub hairpin: bool,
    pub promiscuous: bool,
}

/// What joins a pod.
#[derive(Debug)]
pub(crate) struct Attach<'a> {
    pub host_name: &'a str,
    pub ifname: &'a str,
    pub address: Prefix,
    pub netns: &'a NetNs,
    /// Routes besides the one to the gateway; the gateway is their next hop.
    pub routes: &'a [Prefix],
}

impl Bridge {
    /// Makes the bridge, or takes the one that is there and makes it so. Its index comes back.
    pub(crate) fn ensure(&self) -> Result<u32, Error> {
        let mut rtnl = Rtnl::open()?;
        let mac = match self.gateway {
            Some(Prefix { addr: IpAddr::V4(gateway), .. }) => mac_of(gateway),
            _ => mac_of(Ipv4Addr::from_bits(hash(&self.name) as u32)),
        };
        match rtnl.add_bridge(&self.name, mac, self.mtu) {
            Err(e) if !e.is_exists() => return Err(e.into()),
            _ => {}
        }
        let link = rtnl.link(&self.name)?.ok_or_else(|| self.foreign("it went away while being made"))?;
        if link.kind != Some(LinkKind::Bridge) {
            return Err(self.foreign("it is not a bridge; give the network another bridge name"));
        }
        if link.mtu != self.mtu {
            rtnl.set_mtu(link.index, self.mtu)?;
        }
        if let Some(gateway) = self.gateway {
            // Single addresses beside it are fine: node-local DNS puts the Service's there.
            let others = rtnl.addresses(Some(link.index))?;
            let is_other = |p: &Prefix| p.addr.is_ipv4() && p.len < 32 && *p != gateway;
            if let Some(other) = others.iter().find(|a| is_other(&a.prefix)) {
                return Err(self.foreign(&format!("it has the address {} and not {gateway}", other.prefix)));
            }
            rtnl.put_address(link.index, gateway)?;
        }
        if self.promiscuous {
            rtnl.set_promiscuous(link.index, true)?;
        }
        rtnl.set_up(link.index, true)?;
        // Pods send everything to the bridge, so "there is a shorter way" would be said of each packet.
        setting(&format!("net/ipv4/conf/{}/send_redirects", self.name), "0")?;
        // Pods are no routers of ours: nothing that they say changes the host's ways.
        setting(&format!("net/ipv4/conf/{}/accept_redirects", self.name), "0")?;
        quiet(&self.name);
        Ok(link.index)
    }

    fn foreign(&self, problem: &str) -> Error {
        Error::Foreign { link: self.name.clone(), problem: problem.to_owned() }
    }

    /// Joins a pod. Whatever was made is removed when a step fails.
    pub(crate) fn attach(&self, index: u32, attach: &Attach<'_>) -> Result<(Link, Link), Error> {
        let mut rtnl = Rtnl::open()?;
        let made = self.attach_steps(&mut rtnl, index, attach);
        if made.is_err() {
            let _ = rtnl.delete_link(attach.host_name);
        }
        made
    }

    fn attach_steps(&self, rtnl: &mut Rtnl, index: u32, attach: &Attach<'_>) -> Result<(Link, Link), Error> {
        let IpAddr::V4(addr) = attach.address.addr else {
            return Err(Error::config("ipam", "an IPv6 address for the bridge network"));
        };
        let veth = NewVeth {
            name: attach.host_name,
            mac: None,
            master: Some(index),
            mtu: self.mtu,
            peer_name: attach.ifname,
            peer_mac: Some(mac_of(addr)),
            peer_ns: Some(attach.netns.as_fd()),
        };
        match rtnl.add_veth(&veth) {
            // What a crash in the middle of an earlier attempt left: the name is made from the container's id.
            Err(e) if e.is_exists() && rtnl.link(attach.host_name)?.is_some() => {
                rtnl.delete_link(attach.host_name)?;
                rtnl.add_veth(&veth)?;
            }
            answer => answer?,
        }
        let host = rtnl.link(attach.host_name)?.ok_or_else(|| self.foreign("the new port went away"))?;
        quiet(attach.host_name);
        if self.hairpin {
            rtnl.set_hairpin(host.index, true)?;
        }
        if self.gateway.is_some() {
            rtnl.put_neighbour(&Neighbour::permanent(index, addr, mac_of(addr)))?;
        }
        let pod = self.configure_pod(&mut Rtnl::open_in(attach.netns)?, attach)?;
        Ok((host, pod))
    }

    /// Inside the pod: address, routes, the gateway's hardware address, loopback.
    fn configure_pod(&self, rtnl: &mut Rtnl, attach: &Attach<'_>) -> Result<Link, Error> {
        let eth0 = rtnl.link(attach.ifname)?.ok_or_else(|| self.foreign("the pod's interface went away"))?;
        attach
            .netns
            .run(|| deaf_to_neighbours(attach.ifname))
            .map_err(Error::io("entering the pod's network namespace"))??;
        match self.gateway {
            None => {
                rtnl.put_address(eth0.index, attach.address)?;
                rtnl.set_up(eth0.index, true)?;
            }
            Some(gateway) => {
                rtnl.put_address_without_route(eth0.index, attach.address)?;
                rtnl.set_up(eth0.index, true)?;
                rtnl.put_route(&Route::link(Prefix::host(gateway.addr), eth0.index))?;
                if let IpAddr::V4(v4) = gateway.addr {
                    rtnl.put_neighbour(&Neighbour::permanent(eth0.index, gateway.addr, mac_of(v4)))?;
                }
                rtnl.put_route(&Route::via(attach.address.network(), gateway.addr, eth0.index))?;
                for dst in attach.routes {
                    rtnl.put_route(&Route::via(*dst, gateway.addr, eth0.index))?;
                }
            }
        }
        loopback_up(rtnl)?;
        Ok(Link { up: true, ..eth0 })
    }

    /// Takes a pod off: its pair of links goes, in whichever namespace the far end is.
    pub(crate) fn detach(&self, host_name: &str, addrs: &[Ipv4Addr]) -> Result<(), Error> {
        let mut rtnl = Rtnl::open()?;
        rtnl.delete_link(host_name)?;
        if let Some(bridge) = rtnl.link(&self.name)? {
            for addr in addrs {
                rtnl.delete_neighbour(bridge.index, (*addr).into())?;
            }
        }
        Ok(())
    }
}

/// Brings a namespace's loopback interface up.
pub(crate) fn loopback_up(rtnl: &mut Rtnl) -> Result<(), netlink::Error> {
    match rtnl.link("lo")? {
        Some(lo) if !lo.up => rtnl.set_up(lo.index, true),
        _ => Ok(()),
    }
}

/// The name of the host's end for a container's interface: the same each time, so it is found after a crash.
pub(crate) fn host_name(container_id: &str, ifname: &str) -> String {
    format!("veth{:011x}", hash(&format!("{container_id}/{ifname}")) & 0xfff_ffff_ffff)
}

/// Whether a link may be a host's end that was named here.
pub(crate) fn is_host_name(name: &str) -> bool {
    name.len() == 15 && name.strip_prefix("veth").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_hexdigit()))
}

/// A locally administered hardware address made from an IPv4 address.
pub(crate) fn mac_of(addr: Ipv4Addr) -> Mac {
    let [a, b, c, d] = addr.octets();
    Mac([0x0a, 0x58, a, b, c, d])
}

/// FNV-1a: names must be the same in every build, so no hasher of the standard library.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The MTU of the link that packets leave the host by; 1500 when there is none.
pub(crate) fn uplink_mtu() -> Result<u32, Error> {
    const ETHERNET: u32 = 1500;
    let mut rtnl = Rtnl::open()?;
    let Some(index) = rtnl.default_route()?.and_then(|r| r.index()) else { return Ok(ETHERNET) };
    Ok(rtnl.link_by_index(index)?.map_or(ETHERNET, |link| link.mtu))
}

pub(crate) fn open_netns(path: &Path) -> Result<NetNs, Error> {
    NetNs::open(path).map_err(Error::io(format!("opening network namespace {}", path.display())))
}

/// Keeps a pod from taking addresses and routes from its neighbours: from router advertisements, which would lead all
/// its IPv6 to whoever sends them (CVE-2020-10749), and from redirects, which anyone can write in the gateway's name.
/// Without an address of its own there is no IPv6 on the interface at all. Called inside, before it is up.
fn deaf_to_neighbours(ifname: &str) -> Result<(), Error> {
    for of in ["all", ifname] {
        setting(&format!("net/ipv4/conf/{of}/accept_redirects"), "0")?;
    }
    // A kernel without IPv6 has no such settings.
    if linux::sysctl::get(&format!("net/ipv6/conf/{ifname}/accept_ra")).is_ok() {
        for (name, value) in [("accept_ra", "0"), ("accept_redirects", "0"), ("disable_ipv6", "1")] {
            setting(&format!("net/ipv6/conf/{ifname}/{name}"), value)?;
        }
    }
    Ok(())
}

/// Keeps IPv6 off the host's side of an IPv4 network: no multicast chatter for each pod that starts. A kernel
/// without IPv6 has no such setting.
fn quiet(link: &str) {
    let _ = linux::sysctl::set(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1");
}

/// Sets a kernel setting and returns the old value.
pub(crate) fn setting(name: &str, value: &str) -> Result<String, Error> {
    linux::sysctl::set(name, value).map_err(Error::io(format!("setting {name} to {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_stay_the_same() {
        let name = host_name("4f3a", "eth0");
        assert_eq!(name.len(), 15);
        assert_eq!(name, host_name("4f3a", "eth0"));
        assert!(is_host_name(&name) && !is_host_name("veth-of-docker1"));
        assert_ne!(name, host_name("4f3a", "eth1"));
    }
}
