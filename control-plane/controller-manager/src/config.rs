//! The configuration of the controller manager: plain data, upstream's defaults, and the two things that only the
//! caller has: clients with the identity of each controller, and the keys that sign.

use std::sync::Arc;
use std::time::Duration;

/// Signs legacy service account tokens (the ones kept in Secrets). The key stays with the caller.
pub trait TokenSigner: Send + Sync {
    /// A JWT for the account, bound to the secret by upstream's claims (`kubernetes.io/serviceaccount/...`).
    fn sign(&self, claims: &serde_json::Value) -> Result<String, String>;
}

/// Signs certificate requests for the built-in signer names.
pub trait CertificateSigner: Send + Sync {
    /// PEM certificate (chain) for the PEM request, or why not.
    fn sign(&self, request: &SignRequest<'_>) -> Result<String, SignError>;
}

/// Why there is no certificate, in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignError {
    /// The request itself can't be signed, now or later.
    Request(String),
    /// The signer can't sign now.
    Signer(String),
}

/// What a certificate is asked for, already approved and checked.
#[derive(Debug)]
pub struct SignRequest<'a> {
    /// PEM, PKCS#10.
    pub request: &'a [u8],
    /// As in the API: `digital signature`, `client auth`, ...
    pub usages: &'a [String],
    pub expiration: Duration,
}

/// Gives each controller a client of its own identity (`system:serviceaccount:kube-system:<account>`).
pub type ControllerClients = Arc<dyn Fn(&str) -> kube::Client + Send + Sync>;

/// How the controller manager runs. Field names follow upstream's flags.
#[derive(Clone)]
pub struct Config {
    pub cluster_name: String,
    /// One CIDR, or two of different families: `--cluster-cidr`.
    pub cluster_cidrs: Vec<String>,
    /// Never given to nodes: `--service-cluster-ip-range`.
    pub service_cidrs: Vec<String>,
    pub allocate_node_cidrs: bool,
    /// Prefix length of a node's IPv4 range; 24 by default.
    pub node_cidr_mask_size_ipv4: u8,
    /// Prefix length of a node's IPv6 range; 64 by default.
    pub node_cidr_mask_size_ipv6: u8,
    /// PEM bundle published as `kube-root-ca.crt`; no publisher without it.
    pub root_ca: Option<String>,
    pub token_signer: Option<Arc<dyn TokenSigner>>,
    pub certificate_signer: Option<Arc<dyn CertificateSigner>>,
    /// `*` for what is on by default, `name`, `-name`: `--controllers`.
    pub controllers: Vec<String>,
    /// None: every controller works with the client of the manager itself.
    pub controller_clients: Option<ControllerClients>,
    /// `--leader-elect`: None runs at once, for a single replica.
    pub leader_election: Option<client::lease::Candidate>,
    /// Where health and metrics are served: `--bind-address`, `--secure-port`; None is nowhere.
    pub serving: Option<client::pages::Config>,
    pub concurrency: Concurrency,
    pub node_monitor_grace_period: Duration,
    pub node_startup_grace_period: Duration,
    /// Nodes a second that pods are evicted from when their node is gone: `--node-eviction-rate`.
    pub node_eviction_rate: f64,
    pub secondary_node_eviction_rate: f64,
    pub large_cluster_size_threshold: usize,
    /// A zone is unhealthy from this share of its nodes on: `--unhealthy-zone-threshold`.
    pub unhealthy_zone_threshold: f64,
    pub terminated_pod_gc_threshold: usize,
    pub max_endpoints_per_slice: usize,
    pub mirroring_max_endpoints_per_subset: usize,
    /// Longest life of a signed certificate: `--cluster-signing-duration`.
    pub cluster_signing_duration: Duration,
    /// The accounts `default` that are made mount no token unless a pod asks for it: the CIS benchmark's 5.1.5. Upstream
    /// has no such switch.
    pub default_accounts_without_tokens: bool,
    /// A machine that joins with a bootstrap token can't have the name of a node that is there. Upstream gives it to
    /// whoever asks.
    pub keep_node_names: bool,
    /// Protocols and ports that are the nodes' own: no load balancer's Service is reached there.
    pub reserved_node_ports: Vec<(String, i32)>,
    /// Addresses that Services of type LoadBalancer are given, each announced by one node; empty: they have the nodes' own.
    pub load_balancer_pool: Vec<meta::Span>,
    /// Set when every controller has seen what there is.
    pub ready: client::Latch,
}

/// Workers per controller: the `--concurrent-*-syncs` flags.
#[derive(Debug, Clone)]
pub struct Concurrency {
    pub deployment: usize,
    pub replicaset: usize,
    pub replicationcontroller: usize,
    pub statefulset: usize,
    pub daemonset: usize,
    pub job: usize,
    pub cronjob: usize,
    pub endpoints: usize,
    pub endpointslice: usize,
    pub endpointslice_mirroring: usize,
    pub namespace: usize,
    pub garbage_collector: usize,
    pub serviceaccount_token: usize,
    pub ttl_after_finished: usize,
    pub resourcequota: usize,
}

impl Default for Concurrency {
    fn default() -> Self {
        Concurrency {
            deployment: 5,
            replicaset: 5,
            replicationcontroller: 5,
            statefulset: 5,
            daemonset: 2,
            job: 5,
            cronjob: 5,
            endpoints: 5,
            endpointslice: 5,
            endpointslice_mirroring: 5,
            namespace: 10,
            garbage_collector: 20,
            serviceaccount_token: 5,
            ttl_after_finished: 5,
            resourcequota: 5,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            cluster_name: "kubernetes".into(),
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            allocate_node_cidrs: false,
            node_cidr_mask_size_ipv4: 24,
            node_cidr_mask_size_ipv6: 64,
            root_ca: None,
            token_signer: None,
            certificate_signer: None,
            controllers: vec!["*".into()],
            controller_clients: None,
            leader_election: None,
            serving: None,
            concurrency: Concurrency::default(),
            node_monitor_grace_period: Duration::from_secs(50),
            node_startup_grace_period: Duration::from_secs(60),
            node_eviction_rate: 0.1,
            secondary_node_eviction_rate: 0.01,
            large_cluster_size_threshold: 50,
            unhealthy_zone_threshold: 0.55,
            terminated_pod_gc_threshold: 12_500,
            max_endpoints_per_slice: 100,
            mirroring_max_endpoints_per_subset: 1000,
            cluster_signing_duration: Duration::from_secs(365 * 24 * 3600),
            default_accounts_without_tokens: false,
            keep_node_names: false,
            reserved_node_ports: Vec::new(),
            load_balancer_pool: Vec::new(),
            ready: client::Latch::default(),
        }
    }
}
