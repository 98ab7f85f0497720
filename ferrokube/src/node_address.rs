//! The addresses by which pods and others reach this host, and so those of the node; the first is that of the `kubernetes`
//! Service and in certificates: what the configuration says, else the best that the host has, else the one that the pod
//! network gives it. In a cluster of two families there is one of each. Pods reach no loopback but their own.
//! I/O: asks the kernel, reads the file of the node's range.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};

use linux::host_address::{self, Scene, Wanted};
use meta::{Prefix, Ranges};

use crate::config::{BRIDGE, Host};

/// The first, as the host is now.
pub fn of(host: &Host) -> IpAddr {
    let first = host.cluster.is_ipv6_first();
    said(host, first).unwrap_or_else(|| decide(host, &host_address::look(), first, None))
}

/// One of each family of the cluster, in its order, as the host is now.
pub fn all(host: &Host) -> Vec<IpAddr> {
    next(host, &[])
}

/// As the host is now, when they were `before`.
pub fn next(host: &Host, before: &[IpAddr]) -> Vec<IpAddr> {
    let looked = host_address::look();
    let one = |range: Prefix| {
        let v6 = range.is_ipv6();
        let before = before.iter().copied().find(|ip| ip.is_ipv6() == v6);
        said(host, v6).unwrap_or_else(|| decide(host, &looked, v6, before))
    };
    host.cluster.pod_cidr.iter().map(one).collect()
}

/// What a host lacks that has no address of its cluster's second family but its bridge's, in a sentence.
pub fn lacks(host: &Host, addresses: &[IpAddr]) -> Option<String> {
    let second = host.cluster.pod_cidr.second()?;
    let family = if second.is_ipv6() { "IPv6" } else { "IPv4" };
    addresses.iter().any(|ip| second.contains(*ip)).then(|| {
        format!(
            "this host has no {family} address: its pods reach each other by {family}, and nobody beyond; give the host \
             one, and they do"
        )
    })
}

fn said(host: &Host, v6: bool) -> Option<IpAddr> {
    host.node_ip?.family(v6)
}

/// A kernel that doesn't answer says nothing of the address that was.
fn decide(host: &Host, looked: &Result<Scene, impl Display>, v6: bool, before: Option<IpAddr>) -> IpAddr {
    match looked {
        Ok(scene) => {
            let own_ranges = host.cluster.pod_cidr.iter().chain(host.cluster.service_cidr.iter()).collect();
            let wanted = Wanted { family: Some(v6), own_ranges, own_links: Some(BRIDGE) };
            host_address::choose(scene, &wanted, before).unwrap_or_else(|| gateway(host, v6))
        }
        Err(error) => {
            tracing::warn!(%error, "the host's addresses are not known");
            before.unwrap_or_else(|| gateway(host, v6))
        }
    }
}

/// The bridge's address in the node's range: pods send all they send to it. The first node has the first range.
fn gateway(host: &Host, v6: bool) -> IpAddr {
    let decided = std::fs::read_to_string(host.node_range_file()).ok();
    let decided = decided.and_then(|ranges| ranges.trim().parse::<Ranges>().ok()).and_then(|share| share.family(v6));
    let range = decided.or(host.cluster.pod_cidr.family(v6));
    // Pods have such ranges, the smallest of 256 addresses.
    range.and_then(|range| range.nth(1)).unwrap_or(Ipv4Addr::LOCALHOST.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::host;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// As a host without any address has it.
    fn bare(host: &Host, v6: bool, before: Option<IpAddr>) -> String {
        decide(host, &Ok::<_, String>(Scene::default()), v6, before).to_string()
    }

    #[test]
    fn a_host_without_any_address_has_the_bridges_and_never_loopback() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut host = host(dir.path());
        assert_eq!(bare(&host, false, None), "10.42.0.1");
        std::fs::write(host.node_range_file(), "10.42.7.0/24\n").expect("written");
        assert_eq!(bare(&host, false, Some(ip("10.42.0.1"))), "10.42.7.1");
        host.cluster.pod_cidr = "10.42.0.0/16,fd42::/56".parse().expect("ranges");
        assert_eq!(bare(&host, true, None), "fd42::1");
        std::fs::write(host.node_range_file(), "10.42.7.0/24,fd42:0:0:7::/64\n").expect("written");
        assert_eq!((bare(&host, true, None), bare(&host, false, None)), ("fd42:0:0:7::1".into(), "10.42.7.1".into()));
    }

    /// It became the bridge's for a moment, in certificates and for the pods.
    #[test]
    fn a_host_that_could_not_be_looked_at_keeps_its_address() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        let before = ip("192.0.2.1");
        assert_eq!(decide(&host, &Err("torn"), false, Some(before)), before);
        assert_eq!(decide(&host, &Err("torn"), false, None), ip("10.42.0.1"));
    }

    #[test]
    fn what_the_configuration_says_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let told = ip("192.0.2.77");
        let host = Host { node_ip: Some(told.into()), ..host(dir.path()) };
        assert_eq!(next(&host, &[ip("192.0.2.1")]), [told]);
    }

    #[test]
    fn a_host_has_an_address_of_each_family_of_its_cluster_in_its_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut host = host(dir.path());
        host.node_ip = "192.0.2.1,2001:db8::1".parse().ok();
        for (pods, expected) in [
            ("10.42.0.0/16", vec!["192.0.2.1"]),
            ("10.42.0.0/16,fd42::/56", vec!["192.0.2.1", "2001:db8::1"]),
            ("fd42::/56,10.42.0.0/16", vec!["2001:db8::1", "192.0.2.1"]),
            ("fd42::/56", vec!["2001:db8::1"]),
        ] {
            host.cluster.pod_cidr = pods.parse().expect("ranges");
            assert_eq!(next(&host, &[]).iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
            assert_eq!(of(&host).to_string(), expected[0]);
        }
        host.node_ip = None;
        assert!(next(&host, &[])[0].is_ipv6());
    }

    #[test]
    fn a_host_without_an_address_of_the_second_family_is_told_what_it_lacks() {
        let mut host = host("/nowhere".as_ref());
        let says =
            |host: &Host, addresses: &[&str]| lacks(host, &addresses.iter().map(|text| ip(text)).collect::<Vec<_>>());
        assert_eq!(says(&host, &["10.42.0.1"]), None, "it has one family");
        host.cluster.pod_cidr = "10.42.0.0/16,fd42::/56".parse().expect("ranges");
        let said = says(&host, &["192.0.2.1", "fd42::1"]).expect("a sentence");
        assert!(said.starts_with("this host has no IPv6 address: its pods reach each other by IPv6"), "{said}");
        assert_eq!(says(&host, &["192.0.2.1", "2001:db8::1"]), None);
    }
}
