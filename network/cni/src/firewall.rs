//! Finds out whether the host's own firewall would drop what pods send, and says so in a sentence. Does I/O.
//!
//! Tables of others are looked at and never changed: a drop in any of them is final, so no rule of ours could let
//! packets through. What is seen: base chains of nftables (so also of today's iptables, ufw and firewalld) at the
//! forward and input hooks, whose policy is drop or whose last rule refuses everything.

use linux::netlink::message::{attr, attrs, text};
use linux::netlink::{Error, Prefix};
use linux::nft::{ChainInfo, Family, Nft, Policy, RuleInfo, hook};

/// What others' firewalls would do to pods: a sentence for each thing, with what to do; none when all is well.
/// `bridge` and `subnet` are those of the pod network.
pub fn diagnose(bridge: &str, subnet: Prefix) -> Result<Vec<String>, Error> {
    let mut nft = Nft::open()?;
    let mut told = Vec::new();
    for chain in nft.chains()?.iter().filter(|c| sees_pods(c)) {
        let rules = nft.rules(chain.family, &chain.table)?;
        let last = rules.iter().rfind(|r| r.chain == chain.name);
        let drops = chain.policy == Some(Policy::Drop) || last.is_some_and(refuses_everything);
        // A table that names the bridge or the pods' addresses has been taught about us.
        if drops && !rules.iter().any(|r| names(r, bridge, subnet)) {
            told.push(advice(chain, bridge));
        }
    }
    Ok(told)
}

/// A filter where packets of pods pass.
fn sees_pods(chain: &ChainInfo) -> bool {
    matches!(chain.hook, Some(hook::FORWARD | hook::INPUT)) && matches!(chain.family, Family::Ip | Family::Inet)
}

/// A rule without a condition that ends the packet.
fn refuses_everything(rule: &RuleInfo) -> bool {
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    let mut refuses = false;
    for (_, expr) in attrs(&rule.exprs) {
        match attr(expr, NAME).map(text).as_deref() {
            Some("counter" | "log" | "limit") => {}
            Some("reject") => refuses = true,
            // An immediate verdict holds its code in network order: drop is 0, everything else is not.
            Some("immediate") => refuses |= attr(expr, DATA).is_some_and(is_drop),
            _ => return false,
        }
    }
    refuses
}

fn is_drop(immediate: &[u8]) -> bool {
    const IMMEDIATE_DATA: u16 = 2;
    const DATA_VERDICT: u16 = 2;
    const VERDICT_CODE: u16 = 1;
    let verdict = attr(immediate, IMMEDIATE_DATA).and_then(|d| attr(d, DATA_VERDICT));
    verdict.and_then(|v| attr(v, VERDICT_CODE)) == Some(&[0; 4])
}

/// Whether a rule compares with the bridge's name or the pods' network.
fn names(rule: &RuleInfo, bridge: &str, subnet: Prefix) -> bool {
    let network = match subnet.network().addr {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let holds = |part: &[u8]| rule.exprs.windows(part.len()).any(|w| w == part);
    holds(bridge.as_bytes()) || holds(&network)
}

fn advice(chain: &ChainInfo, bridge: &str) -> String {
    let place = format!("{} {} {}", chain.family.name(), chain.table, chain.name);
    if chain.hook == Some(hook::FORWARD) {
        format!(
            "the host's firewall drops forwarded packets (nftables chain {place}), so pods reach \
             neither each other's Services nor the outside: allow them, for example with `nft insert rule {place} \
             iifname {bridge} accept` and `nft insert rule {place} oifname {bridge} accept`, with ufw `ufw route allow \
             in on {bridge}` and `ufw route allow out on {bridge}`, with firewalld `firewall-cmd --zone=trusted \
             --add-interface={bridge}`"
        )
    } else {
        format!(
            "the host's firewall drops incoming packets (nftables chain {place}), so pods reach \
             neither DNS nor the API server on this node: allow them, for example with `nft insert rule {place} \
             iifname {bridge} accept`, with ufw `ufw allow in on {bridge}`, with firewalld `firewall-cmd \
             --zone=trusted --add-interface={bridge}`"
        )
    }
}
