//! The addresses by which pods and others reach this host, and so those of the node; the first is that of the `kubernetes`
//! Service and in certificates: what the configuration says, else the best that the host has, else the one that the pod
//! network gives it. In a cluster of two families there is one of IPv6 behind it. Pods reach no loopback but their own.
//! I/O: asks the kernel, reads the file of the node's range.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux::host_address::{self, Scene, Wanted};
use meta::Ranges;

use crate::config::{BRIDGE, Host};

/// The first, as the host is now.
pub fn of(host: &Host) -> Ipv4Addr {
    host.node_ip.map_or_else(|| decide(host, &host_address::look(), None), |said| said.v4)
}

/// One of each family, as the host is now.
pub fn all(host: &Host) -> Vec<IpAddr> {
    next(host, &[])
}

/// As the host is now, when they were `before`.
pub fn next(host: &Host, before: &[IpAddr]) -> Vec<IpAddr> {
    let looked = host_address::look();
    let said6 = host.node_ip.and_then(|said| said.v6);
    let v4 = before.iter().find_map(|ip| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None });
    let v6 = before.iter().find_map(|ip| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None });
    let first = host.node_ip.map_or_else(|| decide(host, &looked, v4), |said| said.v4);
    let second = host.cluster.has_ipv6().then(|| said6.unwrap_or_else(|| decide6(host, &looked, v6)));
    [IpAddr::V4(first)].into_iter().chain(second.map(IpAddr::V6)).collect()
}

/// A kernel that doesn't answer says nothing of the address that was.
fn decide(host: &Host, looked: &Result<Scene, impl Display>, before: Option<Ipv4Addr>) -> Ipv4Addr {
    match looked {
        Ok(scene) => choose(host, scene, before),
        Err(error) => {
            tracing::warn!(%error, "the host's addresses are not known");
            before.unwrap_or_else(|| gateway(host))
        }
    }
}

fn decide6(host: &Host, looked: &Result<Scene, impl Display>, before: Option<Ipv6Addr>) -> Ipv6Addr {
    let Ok(scene) = looked else { return before.unwrap_or_else(|| gateway6(host)) };
    match host_address::choose(scene, &wanted(host, true), before.map(IpAddr::V6)) {
        Some(IpAddr::V6(ip)) => ip,
        _ => gateway6(host),
    }
}

fn choose(host: &Host, scene: &Scene, before: Option<Ipv4Addr>) -> Ipv4Addr {
    match host_address::choose(scene, &wanted(host, false), before.map(IpAddr::V4)) {
        Some(IpAddr::V4(ip)) => ip,
        _ => gateway(host),
    }
}

fn wanted(host: &Host, v6: bool) -> Wanted {
    let own_ranges = host.cluster.pod_cidr.iter().chain(host.cluster.service_cidr.iter()).collect();
    Wanted { family: Some(v6), own_ranges, own_links: Some(BRIDGE) }
}

/// The bridge's address in the node's range: pods send all they send to it. The first node has the first range.
fn bridges(host: &Host, v6: bool) -> Option<IpAddr> {
    let decided = std::fs::read_to_string(host.node_range_file()).ok();
    let decided = decided.and_then(|ranges| ranges.trim().parse::<Ranges>().ok()).and_then(|share| share.family(v6));
    decided.or(host.cluster.pod_cidr.family(v6))?.nth(1)
}

fn gateway(host: &Host) -> Ipv4Addr {
    match bridges(host, false) {
        Some(IpAddr::V4(first)) => first,
        // Pods have IPv4 ranges, the smallest of 256 addresses.
        _ => Ipv4Addr::LOCALHOST,
    }
}

fn gateway6(host: &Host) -> Ipv6Addr {
    match bridges(host, true) {
        Some(IpAddr::V6(first)) => first,
        // It is asked of clusters that have such ranges.
        _ => Ipv6Addr::LOCALHOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::host;

    #[test]
    fn a_host_of_ipv6_or_without_any_address_has_the_bridges_and_never_loopback() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        let first = Ipv4Addr::new(10, 42, 0, 1);
        assert_eq!(choose(&host, &Scene::default(), None), first);
        std::fs::write(host.node_range_file(), "10.42.7.0/24\n").expect("written");
        assert_eq!(choose(&host, &Scene::default(), Some(first)), Ipv4Addr::new(10, 42, 7, 1));
    }

    /// It became the bridge's for a moment, in certificates and for the pods.
    #[test]
    fn a_host_that_could_not_be_looked_at_keeps_its_address() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        let before = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(decide(&host, &Err("torn"), Some(before)), before);
        assert_eq!(decide(&host, &Err("torn"), None), Ipv4Addr::new(10, 42, 0, 1));
    }

    #[test]
    fn what_the_configuration_says_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let told = Ipv4Addr::new(192, 0, 2, 77);
        let host = Host { node_ip: Some(told.into()), ..host(dir.path()) };
        assert_eq!(next(&host, &[Ipv4Addr::new(192, 0, 2, 1).into()]), [told]);
    }

    #[test]
    fn a_cluster_of_two_families_has_an_address_of_each() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut host = host(dir.path());
        assert_eq!(next(&host, &[]).len(), 1);
        host.cluster.pod_cidr = "10.42.0.0/16,fd42::/56".parse().expect("ranges");
        assert!(next(&host, &[])[1].is_ipv6());
        host.node_ip = "192.0.2.1,2001:db8::1".parse().ok();
        assert_eq!(next(&host, &[]).iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1", "2001:db8::1"]);
        host.node_ip = None;
        let bare = |host: &Host| decide6(host, &Ok::<_, String>(Scene::default()), None).to_string();
        assert_eq!(bare(&host), "fd42::1");
        std::fs::write(host.node_range_file(), "10.42.7.0/24,fd42:0:0:7::/64\n").expect("written");
        assert_eq!((bare(&host), gateway(&host)), ("fd42:0:0:7::1".to_owned(), Ipv4Addr::new(10, 42, 7, 1)));
    }
}
