//! The cluster DNS address on the node itself: pods ask the Service's address and are answered here, so that no query
//! crosses NAT. It stands on the loopback link as a /32, found again by its value. I/O: netlink.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use linux::netlink::{Prefix, Rtnl};

const LINK: &str = "lo";

/// Puts the address there; content when it is there already.
pub fn ensure(address: Ipv4Addr) -> Result<()> {
    let (mut rtnl, index) = open()?;
    if has(&mut rtnl, index, address)? {
        return Ok(());
    }
    rtnl.add_address(index, Prefix::host(address)).with_context(|| format!("adding {address} to {LINK}"))
}

/// Takes the address away; content when it isn't there.
pub fn remove(address: Ipv4Addr) -> Result<()> {
    let (mut rtnl, index) = open()?;
    if !has(&mut rtnl, index, address)? {
        return Ok(());
    }
    rtnl.delete_address(index, Prefix::host(address)).with_context(|| format!("removing {address} from {LINK}"))
}

fn open() -> Result<(Rtnl, u32)> {
    let mut rtnl = Rtnl::open()?;
    let link = rtnl.link(LINK)?.with_context(|| format!("there is no link {LINK}"))?;
    Ok((rtnl, link.index))
}

fn has(rtnl: &mut Rtnl, index: u32, address: Ipv4Addr) -> Result<bool> {
    Ok(rtnl.addresses(Some(index))?.iter().any(|a| a.prefix == Prefix::host(address)))
}
