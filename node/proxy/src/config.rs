//! What the proxy is told: upstream's flags as plain data. Pure.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use meta::Prefix;
use rustc_hash::FxHashSet;

use crate::service::VirtualServer;

/// The proxy's configuration; the fields are upstream's flags of the same names where there is one.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Node object that stands for this host.
    pub hostname_override: String,
    /// The name of our nftables tables, in the families ip and ip6.
    pub table: String,
    /// Pod addresses, for `detect_local` by cluster range.
    pub cluster_cidr: Vec<Prefix>,
    pub detect_local: LocalDetector,
    /// Translate the source of everything sent to a Service address.
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for masquerading, 0 to 31.
    pub iptables_masquerade_bit: u8,
    /// Addresses that answer on node ports; empty: all of the host.
    pub nodeport_addresses: Vec<Prefix>,
    /// Node ports answer on 127.0.0.1 too.
    pub iptables_localhost_nodeports: bool,
    /// Service addresses that something on this node serves itself: node-local DNS.
    pub node_local: Vec<IpAddr>,
    /// Changes within this time are applied together. The first is applied at once.
    pub min_sync_period: Duration,
    /// Where /healthz answers; none: nowhere.
    pub healthz_bind_address: Option<SocketAddr>,
    /// Where /metrics answers; none: nowhere.
    pub metrics_bind_address: Option<SocketAddr>,
    /// The network namespace to work in; none: the process's own.
    pub netns: Option<PathBuf>,
    /// Where what is known of the API is kept, for a start without it; none: nowhere.
    pub last_known: Option<PathBuf>,
    /// Set when the rules are in the kernel for the first time.
    pub ready: client::Latch,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            hostname_override: String::new(),
            table: "kube-proxy".to_owned(),
            cluster_cidr: Vec::new(),
            detect_local: LocalDetector::ClusterCidr,
            masquerade_all: false,
            iptables_masquerade_bit: 14,
            nodeport_addresses: Vec::new(),
            iptables_localhost_nodeports: true,
            node_local: Vec::new(),
            min_sync_period: Duration::ZERO,
            healthz_bind_address: Some(SocketAddr::from(([0, 0, 0, 0], 10256))),
            metrics_bind_address: Some(SocketAddr::from(([127, 0, 0, 1], 10249))),
            netns: None,
            last_known: None,
            ready: client::Latch::default(),
        }
    }
}

/// How a packet of a pod of this node is told from others (`--detect-local-mode`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalDetector {
    /// Its source is in `cluster_cidr`.
    #[default]
    ClusterCidr,
    /// Its source is in the Node's podCIDRs.
    NodeCidr,
    /// It came in by this bridge.
    BridgeInterface(String),
}

/// What rendering depends on besides the objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub node: Node,
    /// Addresses that are served on the node, without us.
    pub node_local: Vec<IpAddr>,
    /// Ports of the node's own addresses that are held for load balancers' Services.
    pub held: FxHashSet<VirtualServer>,
}

/// What matters of the Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub zone: Option<String>,
    /// Its own, for those within and those outside.
    pub addresses: Vec<IpAddr>,
}
