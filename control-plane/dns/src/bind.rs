//! Makes a node answer at the DNS Service's address, so that pods' questions end here. Does I/O by netlink.
//!
//! The address is a /32 (or /128) on a link that the node has anyway, such as the pod bridge: the kernel then takes
//! packets to it as its own. Connection tracking leaves those packets alone: each question would be remembered for
//! half a minute, and a busy node would run out of room for connections. `reset` removes both.

use std::net::{IpAddr, SocketAddr};

use linux::netlink::{Error, Rtnl};
use linux::nft::{Batch, Chain, Cmp, Expr, Family, Hook, Nft, PayloadBase, Policy, Reg, hook, priority, rule};
use meta::Prefix;

/// Gives the link the address; idempotent.
pub fn claim(link: &str, addr: IpAddr) -> Result<(), Error> {
    const ENODEV: i32 = 19;
    let mut rtnl = Rtnl::open()?;
    let what = || format!("putting the DNS address {addr} on link {link}");
    let found = rtnl.link(link)?.ok_or_else(|| Error::Refused { what: what(), errno: ENODEV, message: None })?;
    rtnl.put_address(found.index, Prefix::host(addr)).map_err(|e| e.doing(what()))
}

/// Takes the address off the link; idempotent.
pub fn release(link: &str, addr: IpAddr) -> Result<(), Error> {
    let mut rtnl = Rtnl::open()?;
    match rtnl.link(link)? {
        None => Ok(()),
        Some(found) => rtnl.delete_address(found.index, Prefix::host(addr)),
    }
}

/// Keeps questions to these addresses and their answers out of connection tracking, by a table of our own.
pub fn untrack(table: &str, addresses: &[SocketAddr]) -> Result<(), Error> {
    let mut nft = Nft::open()?;
    for family in [Family::Ip, Family::Ip6] {
        let v6 = family == Family::Ip6;
        let ours: Vec<_> = addresses.iter().filter(|a| a.is_ipv6() == v6 && !a.ip().is_unspecified()).collect();
        if ours.is_empty() {
            continue;
        }
        let mut batch = Batch::new(family, table);
        batch.add_table();
        batch.delete_table();
        batch.add_table();
        for (name, number) in [("prerouting", hook::PREROUTING), ("output", hook::OUTPUT)] {
            let hook = Hook { kind: "filter", number, priority: priority::RAW, policy: Policy::Accept };
            batch.add_chain(&Chain { name, hook: Some(hook) });
            for address in &ours {
                for protocol in [6, 17] {
                    let host = Prefix::host(address.ip());
                    let to = [rule::destination_in(host, true), port_is(protocol, 2, address.port())];
                    batch.add_rule(name, &[to.concat(), vec![Expr::Notrack]].concat(), None);
                    if number == hook::OUTPUT {
                        let from = [rule::source_in(host, true), port_is(protocol, 0, address.port())];
                        batch.add_rule(name, &[from.concat(), vec![Expr::Notrack]].concat(), None);
                    }
                }
            }
        }
        nft.commit(batch)?;
    }
    Ok(())
}

/// Removes the table of [`untrack`]; idempotent.
pub fn track_again(table: &str) -> Result<(), Error> {
    let mut nft = Nft::open()?;
    for family in [Family::Ip, Family::Ip6] {
        if nft.has_table(family, table)? {
            nft.remove_table(family, table)?;
        }
    }
    Ok(())
}

/// The packet is of this protocol and has this port, the source's at offset 0, the destination's at 2.
fn port_is(protocol: u8, offset: u32, port: u16) -> Vec<Expr> {
    let load = Expr::Payload { base: PayloadBase::Transport, offset, len: 2, dreg: Reg(0) };
    let compare = Expr::Cmp { sreg: Reg(0), op: Cmp::Eq, data: port.to_be_bytes().to_vec() };
    [rule::protocol_is(protocol), vec![load, compare]].concat()
}
