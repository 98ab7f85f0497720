//! What the server is told at start: upstream's flags as plain data. Flag parsing is the binary's business.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Key and certificate files in PEM.
#[derive(Debug, Clone, Default)]
pub struct KeyPair {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

/// Whom the `kubernetes` Service leads to: `--endpoint-reconciler-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointReconciler {
    /// This server: it has the store for itself.
    Sole,
    /// All servers of the store that live: upstream's `lease`.
    Lease,
    /// It is somebody else's to say.
    None,
}

/// See each field's flag.
#[derive(Debug, Clone)]
pub struct Config {
    /// `--bind-address`
    pub bind_address: IpAddr,
    /// Another address to listen on at the same port: pods can't reach a server on loopback.
    pub also_bind: Option<IpAddr>,
    /// `--secure-port`; 0 takes a free one.
    pub secure_port: u16,
    /// `--advertise-address`: what the `kubernetes` Service leads to. Unset: the bind address, or loopback.
    pub advertise_address: Option<IpAddr>,
    /// `--endpoint-reconciler-type`
    pub endpoint_reconciler: EndpointReconciler,
    /// `--tls-cert-file`, `--tls-private-key-file`. Without them the listener speaks plain HTTP (tests only).
    pub tls: Option<KeyPair>,
    /// `--client-ca-file`: whose client certificates are identities.
    pub client_ca_file: Option<PathBuf>,
    /// `--requestheader-client-ca-file`: whose certificates front proxies show, told to extension API servers.
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// `--requestheader-allowed-names`
    pub requestheader_allowed_names: Vec<String>,
    /// `--anonymous-auth`
    pub anonymous_auth: bool,
    /// `--enable-bootstrap-token-auth`
    pub enable_bootstrap_token_auth: bool,
    /// `--authorization-mode`
    pub authorization_mode: Vec<String>,
    /// `--enable-admission-plugins`
    pub enable_admission_plugins: Vec<String>,
    /// `--disable-admission-plugins`
    pub disable_admission_plugins: Vec<String>,
    /// `--admission-control-config-file`
    pub admission_control_config_file: Option<PathBuf>,
    /// `--audit-policy-file`
    pub audit_policy_file: Option<PathBuf>,
    /// `--audit-log-path` and its siblings; unset, nothing is logged.
    pub audit_log: Option<crate::audit::log::Options>,
    /// `--service-account-issuer`
    pub service_account_issuer: String,
    /// `--service-account-signing-key-file`: private key, PEM.
    pub service_account_signing_key_file: Option<PathBuf>,
    /// `--service-account-key-file`: public (or private) keys that tokens are checked with.
    pub service_account_key_files: Vec<PathBuf>,
    /// `--service-account-jwks-uri`
    pub service_account_jwks_uri: Option<String>,
    /// `--service-account-extend-token-expiration`: mounted tokens work for a year, with warnings when they are old.
    pub service_account_extend_token_expiration: bool,
    /// `--service-account-max-token-expiration`: longer lives are shortened to it.
    pub service_account_max_token_expiration: Option<Duration>,
    /// `--api-audiences`; empty means the issuer.
    pub api_audiences: Vec<String>,
    /// `--service-cluster-ip-range`
    pub service_cluster_ip_range: String,
    /// `--service-node-port-range`, both ends included.
    pub service_node_port_range: (u16, u16),
    /// `--event-ttl`: how long objects live whose kind expires.
    pub event_ttl: Duration,
    /// `--kubelet-client-certificate`, `--kubelet-client-key`
    pub kubelet_client: Option<KeyPair>,
    /// `--kubelet-certificate-authority`
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// `--kubelet-preferred-address-types`
    pub kubelet_preferred_address_types: Vec<String>,
    /// `--max-requests-inflight`
    pub max_requests_inflight: usize,
    /// `--max-mutating-requests-inflight`
    pub max_mutating_requests_inflight: usize,
    /// `--request-timeout`
    pub request_timeout: Duration,
    /// `--min-request-timeout`: a watch that sets no timeout ends after this time at the earliest, twice it at the latest.
    pub min_request_timeout: Duration,
    /// `--shutdown-delay-duration`: how long requests are still taken while /readyz fails already.
    pub shutdown_delay: Duration,
    /// `--etcd-prefix`
    pub etcd_prefix: String,
    /// `--etcd-compaction-interval`; zero turns compaction off.
    pub etcd_compaction_interval: Duration,
    /// `--encryption-provider-config`: which resources are encrypted in the store, and how.
    pub encryption_provider_config: Option<PathBuf>,
    /// `--encryption-provider-config-automatic-reload`: the file may change.
    pub encryption_provider_config_automatic_reload: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            also_bind: None,
            secure_port: 6443,
            advertise_address: None,
            endpoint_reconciler: EndpointReconciler::Sole,
            tls: None,
            client_ca_file: None,
            requestheader_client_ca_file: None,
            requestheader_allowed_names: Vec::new(),
            anonymous_auth: true,
            enable_bootstrap_token_auth: false,
            authorization_mode: vec!["Node".to_owned(), "RBAC".to_owned()],
            enable_admission_plugins: vec!["NodeRestriction".to_owned()],
            disable_admission_plugins: Vec::new(),
            admission_control_config_file: None,
            audit_policy_file: None,
            audit_log: None,
            service_account_issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            service_account_signing_key_file: None,
            service_account_key_files: Vec::new(),
            service_account_jwks_uri: None,
            service_account_extend_token_expiration: true,
            service_account_max_token_expiration: None,
            api_audiences: Vec::new(),
            service_cluster_ip_range: "10.96.0.0/12".to_owned(),
            service_node_port_range: (30000, 32767),
            event_ttl: Duration::from_secs(3600),
            kubelet_client: None,
            kubelet_certificate_authority: None,
            kubelet_preferred_address_types: ["InternalIP", "ExternalIP", "Hostname"].map(str::to_owned).to_vec(),
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            request_timeout: Duration::from_secs(60),
            min_request_timeout: Duration::from_secs(1800),
            shutdown_delay: Duration::ZERO,
            etcd_prefix: "/registry".to_owned(),
            etcd_compaction_interval: Duration::from_secs(300),
            encryption_provider_config: None,
            encryption_provider_config_automatic_reload: false,
        }
    }
}

impl Config {
    /// Audiences of tokens that this server accepts for itself.
    pub fn audiences(&self) -> &[String] {
        if self.api_audiences.is_empty() {
            return std::slice::from_ref(&self.service_account_issuer);
        }
        &self.api_audiences
    }
}
