//! `--ip-masq`: what pods send outside takes this host's address, in an nftables table of ours. I/O by netlink; the rules
//! are pure. Caller: the daemon.
//!
//! In the order of upstream's chain: what kube-proxy has marked is its own to masquerade; between pods every address
//! stays; what pods send elsewhere, groups aside, is masqueraded; and what others send to pods of other hosts by way of
//! this one, so that the answer comes back here. There are no forward rules as upstream has them: this table drops
//! nothing, and an accept here overrules no other table's drop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux::netlink::Error;
use linux::nft::{Batch, Chain, Expr, Family, Hook, Nft, Policy, Verdict, hook, nat, priority, rule};
use meta::Prefix;

use crate::config::{NetConf, Range};
use crate::lease::Subnets;

const POSTROUTING: &str = "flannel-postrouting";
/// Kube-proxy's mark of what it masquerades.
const KUBE_PROXY_MARK: u32 = 0x4000;
const GROUPS: Prefix = Prefix { addr: IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), len: 4 };
const GROUPS6: Prefix = Prefix { addr: IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), len: 8 };

/// The rules of a family with their comments.
fn rules(network: Prefix, own: Prefix) -> Vec<(Vec<Expr>, &'static str)> {
    let groups = if network.is_ipv6() { GROUPS6 } else { GROUPS };
    let leave = || vec![Expr::Verdict(Verdict::Return)];
    let masquerade = || vec![Expr::Masquerade { flags: nat::RANDOM_FULLY }];
    let (from, to) = (rule::source_in, rule::destination_in);
    vec![
        (rule::all([rule::mark(KUBE_PROXY_MARK, true), leave()]), "kube-proxy's own"),
        (rule::all([from(own, true), to(network, true), leave()]), "between pods"),
        (rule::all([from(network, true), to(own, true), leave()]), "between pods"),
        (rule::all([from(network, false), to(own, true), leave()]), "to pods of this host"),
        (rule::all([from(network, true), to(network, false), to(groups, false), masquerade()]), "from pods outside"),
        (rule::all([from(network, false), to(network, true), masquerade()]), "to pods of other hosts"),
    ]
}

fn families(conf: &NetConf, own: &Subnets) -> [(Family, Option<(Prefix, Prefix)>); 2] {
    let both = |range: Option<Range>, own: Option<Prefix>| range.map(|range| range.network).zip(own);
    [(Family::Ip, both(conf.v4, own.v4)), (Family::Ip6, both(conf.v6, own.v6))]
}

/// Makes the rules as they must be, or takes them away; idempotent.
pub fn ensure(table: &str, conf: &NetConf, own: &Subnets, masquerade: bool) -> Result<(), Error> {
    let mut nft = Nft::open()?;
    for (family, ranges) in families(conf, own) {
        let Some((network, own)) = ranges.filter(|_| masquerade) else {
            if nft.has_table(family, table)? {
                nft.remove_table(family, table)?;
            }
            continue;
        };
        let mut batch = Batch::new(family, table);
        batch.add_table();
        let hook = Hook { kind: "nat", number: hook::POSTROUTING, priority: priority::SRCNAT, policy: Policy::Accept };
        batch.add_chain(&Chain { name: POSTROUTING, hook: Some(hook) });
        batch.flush_chain(POSTROUTING);
        for (exprs, comment) in rules(network, own) {
            batch.add_rule(POSTROUTING, &exprs, Some(comment));
        }
        nft.commit(batch)?;
    }
    Ok(())
}
