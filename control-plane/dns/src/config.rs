//! What the DNS server is told. Pure.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The server's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where questions are answered, by UDP and TCP.
    pub bind: Vec<SocketAddr>,
    /// The zone of the cluster, without a dot at the end.
    pub cluster_domain: String,
    /// Servers for all other names; empty: those of `resolv_conf`.
    pub upstreams: Vec<SocketAddr>,
    /// The host's resolver configuration.
    pub resolv_conf: PathBuf,
    /// Seconds that clients may keep answers about the cluster.
    pub ttl: u32,
    /// Threads for each UDP address; 0: one a core, at most four.
    pub workers: usize,
    /// The nftables table that keeps questions out of connection tracking; none: they are tracked.
    pub untracked_table: Option<String>,
    /// Where /health answers.
    pub health: Option<SocketAddr>,
    /// Where /ready answers.
    pub ready: Option<SocketAddr>,
    /// Where /metrics answers.
    pub metrics: Option<SocketAddr>,
    /// Where what is known of the API is kept, for a start without it; none: nowhere.
    pub last_known: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            bind: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            upstreams: Vec::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            ttl: 30,
            workers: 0,
            untracked_table: None,
            health: None,
            ready: None,
            metrics: None,
            last_known: None,
        }
    }
}
