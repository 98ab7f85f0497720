//! The address by which pods and others reach this host, and so that of the node, of the `kubernetes` Service and in
//! certificates: what the configuration says, else the best that the host has, else the one that the pod network gives
//! it. Pods reach no loopback but their own. I/O: asks the kernel, reads the file of the node's range.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};

use linux::host_address::{self, Scene, Wanted};
use meta::Prefix;

use crate::config::{BRIDGE, Host};

/// As the host is now.
pub fn of(host: &Host) -> Ipv4Addr {
    next(host, None)
}

/// As the host is now, when it was `before`.
pub fn next(host: &Host, before: Option<Ipv4Addr>) -> Ipv4Addr {
    if let Some(ip) = host.node_ip {
        return ip;
    }
    decide(host, host_address::look(), before)
}

/// A kernel that doesn't answer says nothing of the address that was.
fn decide(host: &Host, looked: Result<Scene, impl Display>, before: Option<Ipv4Addr>) -> Ipv4Addr {
    match looked {
        Ok(scene) => choose(host, &scene, before),
        Err(error) => {
            tracing::warn!(%error, "the host's addresses are not known");
            before.unwrap_or_else(|| gateway(host))
        }
    }
}

fn choose(host: &Host, scene: &Scene, before: Option<Ipv4Addr>) -> Ipv4Addr {
    match host_address::choose(scene, &wanted(host), before.map(IpAddr::V4)) {
        Some(IpAddr::V4(ip)) => ip,
        _ => gateway(host),
    }
}

/// Pods have IPv4 addresses alone.
fn wanted(host: &Host) -> Wanted {
    let own_ranges = vec![host.cluster.pod_cidr, host.cluster.service_cidr];
    Wanted { only_ipv4: true, own_ranges, own_links: Some(BRIDGE) }
}

/// The bridge's address in the node's range: pods send all they send to it. The first node has the first range.
fn gateway(host: &Host) -> Ipv4Addr {
    let decided = std::fs::read_to_string(host.node_range_file()).ok();
    let range = decided.and_then(|range| range.trim().parse::<Prefix>().ok()).unwrap_or(host.cluster.pod_cidr);
    match range.nth(1) {
        Some(IpAddr::V4(first)) => first,
        // Pods have IPv4 ranges, the smallest of 256 addresses.
        _ => Ipv4Addr::LOCALHOST,
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
        assert_eq!(decide(&host, Err("torn"), Some(before)), before);
        assert_eq!(decide(&host, Err("torn"), None), Ipv4Addr::new(10, 42, 0, 1));
    }

    #[test]
    fn what_the_configuration_says_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let told = Ipv4Addr::new(192, 0, 2, 77);
        let host = Host { node_ip: Some(told), ..host(dir.path()) };
        assert_eq!(next(&host, Some(Ipv4Addr::new(192, 0, 2, 1))), told);
    }
}
