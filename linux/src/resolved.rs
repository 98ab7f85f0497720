//! Where systemd-resolved listens, and where it keeps the servers that it asks itself. A host's resolver configuration
//! often names its stub alone, an address of loopback that means something else in a pod. Callers: cluster DNS, which
//! asks the servers behind the stub, and the kubelet, which gives them to pods.

use std::net::{IpAddr, Ipv4Addr};

/// A resolver configuration with the real servers.
pub const FILE: &str = "/run/systemd/resolve/resolv.conf";

const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// Whether resolved listens there.
pub fn is_stub(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if STUBS.contains(v4))
}
