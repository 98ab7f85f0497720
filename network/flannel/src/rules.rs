//! `--ip-masq`: what pods send outside takes this host's address, in an nftables table of ours. I/O by netlink; the rules
//! are pure. Caller: the daemon.
//!
//! In the order of upstream's chain: what kube-proxy has marked is its own to masquerade; between pods every address
//! stays; what pods send elsewhere, groups aside, is masqueraded; and what others send to pods of other hosts by way of
//! this one, so that the answer comes back here. Where another masquerades what pods send, only the last is done. There are
//! no forward rules as upstream has them: this table drops nothing, and an accept here overrules no other table's drop.
//!
//! Rules that somebody changed are made anew ([`Rules::heal`]). The kernel counts transactions, so that a look costs one
//! small question as long as nobody has made any.

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

/// What takes this host's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masquerade {
    Nothing,
    /// Whatever pods send outside, and what others send to pods of other hosts.
    All,
    /// Only the latter: whoever connects the pods does the rest.
    ToOtherHosts,
}

/// The rules of a family with their comments.
fn rules(network: Prefix, own: Prefix, all: bool) -> Vec<(Vec<Expr>, &'static str)> {
    let groups = if network.is_ipv6() { GROUPS6 } else { GROUPS };
    let leave = || vec![Expr::Verdict(Verdict::Return)];
    let masquerade = || vec![Expr::Masquerade { flags: nat::RANDOM_FULLY }];
    let (from, to) = (rule::source_in, rule::destination_in);
    let mut rules = vec![(rule::all([rule::mark(KUBE_PROXY_MARK, true), leave()]), "kube-proxy's own")];
    if all {
        rules.extend([
            (rule::all([from(own, true), to(network, true), leave()]), "between pods"),
            (rule::all([from(network, true), to(own, true), leave()]), "between pods"),
            (rule::all([from(network, false), to(own, true), leave()]), "to pods of this host"),
            (
                rule::all([from(network, true), to(network, false), to(groups, false), masquerade()]),
                "from pods outside",
            ),
        ]);
    } else {
        rules.push((rule::all([to(own, true), leave()]), "to pods of this host"));
    }
    rules.push((rule::all([from(network, false), to(network, true), masquerade()]), "to pods of other hosts"));
    rules
}

/// The rules of this host.
pub struct Rules {
    table: String,
    masquerade: Masquerade,
    /// Of each family the network and this host's own subnet.
    families: [(Family, Option<(Prefix, Prefix)>); 2],
    /// As they were when they were looked at last: the kernel's count of transactions, and the rules' numbers.
    seen: Option<(u32, Vec<u64>)>,
}

impl Rules {
    pub fn new(table: &str, conf: &NetConf, own: &Subnets, masquerade: Masquerade) -> Rules {
        let both = |range: Option<Range>, own: Option<Prefix>| range.map(|range| range.network).zip(own);
        let families = [(Family::Ip, both(conf.v4, own.v4)), (Family::Ip6, both(conf.v6, own.v6))];
        Rules { table: table.to_owned(), masquerade, families, seen: None }
    }

    /// Whether there are any to look after.
    pub fn any(&self) -> bool {
        self.masquerade != Masquerade::Nothing
    }

    /// Makes the rules as they must be, or takes them away; idempotent.
    pub fn ensure(&mut self) -> Result<(), Error> {
        let (mut nft, mut made) = (Nft::open()?, 0);
        for (family, ranges) in self.families {
            let Some((network, own)) = ranges.filter(|_| self.any()) else {
                if nft.has_table(family, &self.table)? {
                    nft.remove_table(family, &self.table)?;
                }
                continue;
            };
            let mut batch = Batch::new(family, self.table.as_str());
            batch.add_table();
            let hook =
                Hook { kind: "nat", number: hook::POSTROUTING, priority: priority::SRCNAT, policy: Policy::Accept };
            batch.add_chain(&Chain { name: POSTROUTING, hook: Some(hook) });
            batch.flush_chain(POSTROUTING);
            for (exprs, comment) in rules(network, own, self.masquerade == Masquerade::All) {
                batch.add_rule(POSTROUTING, &exprs, Some(comment));
                made += 1;
            }
            nft.commit(batch)?;
        }
        let (generation, numbers) = (nft.generation()?, self.numbers(&mut nft)?);
        // Somebody may have been quick.
        self.seen = (numbers.len() == made).then_some((generation, numbers));
        Ok(())
    }

    /// Makes them anew when they are other than they were made. True when it did.
    pub fn heal(&mut self) -> Result<bool, Error> {
        let mut nft = Nft::open()?;
        let generation = nft.generation()?;
        if self.seen.as_ref().is_some_and(|(seen, _)| *seen == generation) {
            return Ok(false);
        }
        let numbers = self.numbers(&mut nft)?;
        if self.seen.as_ref().is_some_and(|(_, seen)| *seen == numbers) {
            self.seen = Some((generation, numbers));
            return Ok(false);
        }
        self.ensure()?;
        Ok(true)
    }

    /// The kernel's numbers of the rules that are there; none is given twice.
    fn numbers(&self, nft: &mut Nft) -> Result<Vec<u64>, Error> {
        let mut numbers = Vec::new();
        for (family, _) in self.families.iter().filter(|(_, ranges)| ranges.is_some()) {
            match nft.rules(*family, &self.table) {
                Ok(rules) => numbers.extend(rules.iter().map(|rule| rule.handle)),
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(numbers)
    }
}
