//! Puts the DNS Service's address on a link of this node, so that pods' questions end here. Does I/O by netlink.
//!
//! The address is a /32 (or /128) on a link that the node has anyway, such as the pod bridge: the kernel then takes
//! packets to it as its own. `reset` removes it with the link, or by [`release`].

use std::net::IpAddr;

use linux::netlink::{Error, Prefix, Rtnl};

/// Gives the link the address; content when it has it.
pub fn claim(link: &str, addr: IpAddr) -> Result<(), Error> {
    const ENODEV: i32 = 19;
    let mut rtnl = Rtnl::open()?;
    let what = || format!("putting the DNS address {addr} on link {link}");
    let found = rtnl.link(link)?.ok_or_else(|| Error::Refused { what: what(), errno: ENODEV, message: None })?;
    rtnl.add_address(found.index, Prefix::host(addr)).map_err(|e| e.doing(what()))
}

/// Takes the address off the link; content when link or address are gone.
pub fn release(link: &str, addr: IpAddr) -> Result<(), Error> {
    let mut rtnl = Rtnl::open()?;
    match rtnl.link(link)? {
        None => Ok(()),
        Some(found) => rtnl.delete_address(found.index, Prefix::host(addr)),
    }
}
