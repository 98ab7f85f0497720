//! Links of the bridge network: the bridge itself, and the pair that joins a pod to it. Does I/O by netlink.
//!
//! Pods have addresses of a subnet, or of one of each family, but no route to it: all they send goes to the bridge's own
//! address, so that the host routes it, translates Services and applies policy, also between two pods of one node.
//! Hardware addresses are made from the first IP address, so neighbours are known without asking.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::Path;

use linux::netlink::{self, Link, LinkAddress, LinkKind, Mac, Neighbour, NewVeth, Route, Rtnl};
use linux::netns::NetNs;
use meta::Prefix;

use crate::Error;

/// What a bridge shall be.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    pub name: String,
    /// The bridge's own addresses, one a family, with the lengths of the subnets; none: the host has no part in the network.
    pub gateways: Vec<Prefix>,
    pub mtu: u32,
    pub hairpin: bool,
    pub promiscuous: bool,
}

/// What joins a pod.
#[derive(Debug)]
pub(crate) struct Attach<'a> {
    pub host_name: &'a str,
    pub ifname: &'a str,
    /// One a family, the first of them the one that the hardware address is made from.
    pub addresses: &'a [Prefix],
    pub netns: &'a NetNs,
    /// Routes besides those to the gateways; the gateway of their family is their next hop.
    pub routes: &'a [Prefix],
}

impl Bridge {
    /// Makes the bridge, or takes the one that is there and makes it so. Its index comes back.
    pub(crate) fn ensure(&self) -> Result<u32, Error> {
        let mut rtnl = Rtnl::open()?;
        let mac = match self.gateways.first() {
            Some(gateway) => mac_of(gateway.addr),
            None => mac_of(Ipv4Addr::from_bits(hash(&self.name) as u32).into()),
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
        if self.has_ipv6() {
            speak_ipv6(&self.name)?;
        } else {
            quiet(&self.name);
        }
        let others = rtnl.addresses(Some(link.index))?;
        for gateway in &self.gateways {
            // Single addresses beside it are fine: node-local DNS puts the Service's there. So are the kernel's own.
            let is_other = |a: &&LinkAddress| {
                let p = a.prefix;
                a.global && p.is_ipv6() == gateway.is_ipv6() && p.len < p.width() && p != *gateway
            };
            if let Some(other) = others.iter().find(is_other) {
                return Err(self.foreign(&format!("it has the address {} and not {gateway}", other.prefix)));
            }
            rtnl.put_address(link.index, *gateway)?;
        }
        if self.promiscuous {
            rtnl.set_promiscuous(link.index, true)?;
        }
        rtnl.set_up(link.index, true)?;
        // Pods send everything to the bridge, so "there is a shorter way" would be said of each packet.
        setting(&format!("net/ipv4/conf/{}/send_redirects", self.name), "0")?;
        // Pods are no routers of ours: nothing that they say changes the host's ways.
        setting(&format!("net/ipv4/conf/{}/accept_redirects", self.name), "0")?;
        Ok(link.index)
    }

    fn has_ipv6(&self) -> bool {
        self.gateways.iter().any(Prefix::is_ipv6)
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
        let first = attach.addresses.first().ok_or_else(|| Error::config("ipam", "it gave no address"))?;
        let mac = mac_of(first.addr);
        let veth = NewVeth {
            name: attach.host_name,
            mac: None,
            master: Some(index),
            mtu: self.mtu,
            peer_name: attach.ifname,
            peer_mac: Some(mac),
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
        if !self.gateways.is_empty() {
            for address in attach.addresses {
                rtnl.put_neighbour(&Neighbour::permanent(index, address.addr, mac))?;
            }
        }
        let pod = self.configure_pod(&mut Rtnl::open_in(attach.netns)?, attach)?;
        Ok((host, pod))
    }

    /// Inside the pod: addresses, routes, the gateway's hardware address, loopback.
    fn configure_pod(&self, rtnl: &mut Rtnl, attach: &Attach<'_>) -> Result<Link, Error> {
        let eth0 = rtnl.link(attach.ifname)?.ok_or_else(|| self.foreign("the pod's interface went away"))?;
        let v6 = attach.addresses.iter().any(Prefix::is_ipv6);
        attach
            .netns
            .run(|| deaf_to_neighbours(attach.ifname, v6))
            .map_err(Error::io("entering the pod's network namespace"))??;
        for address in attach.addresses {
            match self.gateways.is_empty() {
                true => rtnl.put_address(eth0.index, *address)?,
                false => rtnl.put_address_without_route(eth0.index, *address)?,
            }
        }
        rtnl.set_up(eth0.index, true)?;
        for gateway in &self.gateways {
            rtnl.put_route(&Route::link(Prefix::host(gateway.addr), eth0.index))?;
            rtnl.put_neighbour(&Neighbour::permanent(eth0.index, gateway.addr, mac_of(self.gateways[0].addr)))?;
            let own = attach.addresses.iter().map(Prefix::network);
            for dst in own.chain(attach.routes.iter().copied()).filter(|dst| dst.is_ipv6() == gateway.is_ipv6()) {
                rtnl.put_route(&Route::via(dst, gateway.addr, eth0.index))?;
            }
        }
        loopback_up(rtnl)?;
        Ok(Link { up: true, ..eth0 })
    }

    /// Takes a pod off: its pair of links goes, in whichever namespace the far end is.
    pub(crate) fn detach(&self, host_name: &str, addrs: &[IpAddr]) -> Result<(), Error> {
        let mut rtnl = Rtnl::open()?;
        rtnl.delete_link(host_name)?;
        if let Some(bridge) = rtnl.link(&self.name)? {
            for addr in addrs {
                rtnl.delete_neighbour(bridge.index, *addr)?;
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

/// A locally administered hardware address made from an IP address: of IPv6 the end, in which addresses of a node differ.
pub(crate) fn mac_of(addr: IpAddr) -> Mac {
    let [a, b, c, d] = match addr {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => (v6.to_bits() as u32).to_be_bytes(),
    };
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
/// Where pods have no IPv6 there is none on the interface at all. Called inside, before it is up.
fn deaf_to_neighbours(ifname: &str, v6: bool) -> Result<(), Error> {
    for of in ["all", ifname] {
        setting(&format!("net/ipv4/conf/{of}/accept_redirects"), "0")?;
    }
    // A kernel without IPv6 has no such settings.
    if linux::sysctl::get(&format!("net/ipv6/conf/{ifname}/accept_ra")).is_ok() {
        let disabled = if v6 { "0" } else { "1" };
        for (name, value) in [("accept_ra", "0"), ("accept_redirects", "0"), ("disable_ipv6", disabled)] {
            setting(&format!("net/ipv6/conf/{ifname}/{name}"), value)?;
        }
    }
    Ok(())
}

/// Lets the bridge have an IPv6 address, and nobody on it lead the host astray.
fn speak_ipv6(link: &str) -> Result<(), Error> {
    let of = |name: &str| format!("net/ipv6/conf/{link}/{name}");
    if linux::sysctl::get(&of("disable_ipv6")).is_err() {
        return Err(Error::config("subnets", "this kernel has no IPv6: give the pods a range of IPv4 alone"));
    }
    for (name, value) in [("accept_ra", "0"), ("accept_redirects", "0"), ("disable_ipv6", "0")] {
        setting(&of(name), value)?;
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
