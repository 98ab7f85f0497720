//! The door of an API server that listens on loopback: the address by which its pods reach it all the same is this host's,
//! and a host answers at its addresses whatever link a packet comes in by. So a rule of ours leaves in what comes from
//! pods, from the host's further nodes and from the host itself, also when it came by the `kubernetes` Service. I/O:
//! nftables. Callers: the start of the API server, and `reset`.

use std::net::IpAddr;

use anyhow::{Context, Result};
use linux::nft::{Batch, Chain, Expr, Family, Hook, Meta, Nft, Policy, Verdict, hook, rule};
use meta::Prefix;

use crate::config::Host;
use crate::nodes::underlay;

const INPUT: &str = "input";
/// As firewalls of hosts have it.
const FILTER: i32 = 0;

fn table(host: &Host) -> String {
    format!("{}-api", host.tag())
}

/// Lets in whom the address is for, or takes the rule away where there is no such address.
pub fn keep(host: &Host, address: Option<IpAddr>) -> Result<()> {
    let Some(address) = address else { return open(host) };
    let table = table(host);
    let family = if address.is_ipv6() { Family::Ip6 } else { Family::Ip };
    let mut batch = Batch::new(family, &table);
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    let hook = Hook { kind: "filter", number: hook::INPUT, priority: FILTER, policy: Policy::Accept };
    batch.add_chain(&Chain { name: INPUT, hook: Some(hook) });
    let elsewhere = [&*host.bridge(), &*underlay::bridge(host), "lo"]
        .map(|link| rule::interface_is(Meta::IifName, link, false))
        .concat();
    let to = rule::destination_in(Prefix::host(address), true);
    let exprs = rule::all([elsewhere, to, vec![Expr::Verdict(Verdict::Drop)]]);
    batch.add_rule(INPUT, &exprs, Some("the API server is for this host, its nodes and pods"));
    Nft::open().and_then(|mut nft| nft.commit(batch)).context("closing the API server's address to others")
}

/// Takes the rule away; idempotent.
pub fn open(host: &Host) -> Result<()> {
    let table = table(host);
    let mut nft = Nft::open()?;
    for family in [Family::Ip, Family::Ip6] {
        if nft.has_table(family, &table)? {
            nft.remove_table(family, &table)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Duration;

    use linux::netlink::{NewVeth, Route, Rtnl};
    use linux::netns::NetNs;

    use super::*;

    const API: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 43, 255, 255));

    /// Another host, or a pod, behind a link of this one, that sends packets to the API's address that way.
    fn behind(host: &NetNs, link: &str, net: u8) -> NetNs {
        let there = NetNs::create().expect("a namespace");
        let mut here = Rtnl::open_in(host).expect("netlink");
        let veth = NewVeth {
            name: link,
            mac: None,
            master: None,
            mtu: 1500,
            peer_name: "eth0",
            peer_mac: None,
            peer_ns: Some(there.as_fd()),
        };
        here.add_veth(&veth).expect("a link");
        let mut far = Rtnl::open_in(&there).expect("netlink");
        for (rtnl, name, end) in [(&mut here, link, 1), (&mut far, "eth0", 2)] {
            let index = rtnl.link(name).expect("asked").expect("a link").index;
            rtnl.set_up(index, true).expect("up");
            rtnl.put_address(index, Prefix::new([192, 168, net, end], 24)).expect("an address");
        }
        let index = far.link("eth0").expect("asked").expect("a link").index;
        let by = Route::via(Prefix::host(API), IpAddr::from([192, 168, net, 1]), index);
        far.put_route(&by).expect("a route");
        there
    }

    /// With `--bind-address 127.0.0.1` whoever had a route to the Services' last address reached the API server.
    #[test]
    fn neighbours_do_not_reach_an_api_server_on_loopback() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let config = crate::config::tests::host("/nowhere".as_ref());
        let host = NetNs::create().expect("a namespace");
        let (pod, neighbour) = (behind(&host, &config.bridge(), 7), behind(&host, "uplink", 8));
        let on_host = |act: &(dyn Fn() -> Result<()> + Sync)| host.run(act).expect("there").expect("done");
        let _listener = host.run(|| {
            let mut rtnl = Rtnl::open().expect("netlink");
            let lo = rtnl.link("lo").expect("asked").expect("a link").index;
            rtnl.set_up(lo, true).expect("up");
            rtnl.put_address(lo, Prefix::host(API)).expect("an address");
            TcpListener::bind((API, 6443)).expect("a listener")
        });
        let reaches = |from: &NetNs, patience: u64| {
            let to = (API, 6443).into();
            from.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(patience)).is_ok()).expect("there")
        };
        assert!(reaches(&neighbour, 5000), "nothing keeps it out");
        on_host(&|| keep(&config, Some(API)));
        assert!(!reaches(&neighbour, 500) && reaches(&pod, 5000) && reaches(&host, 5000));
        on_host(&|| keep(&config, None));
        on_host(&|| open(&config));
        assert!(reaches(&neighbour, 5000), "the rule is gone");
    }
}
