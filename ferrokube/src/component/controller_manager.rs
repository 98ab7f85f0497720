//! `ferrokube kube-controller-manager`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use super::election::{ELECTION, Election};
use super::extra::{Extra, Own, same};
use super::{DELEGATED, Ignored, LOGGING, SERVING, Serving, duration, parse, until_signal};
use crate::api::{Api, Identity};
use crate::signing::{TokenKey, read_ca_signer};

/// The Kubernetes controller manager
#[derive(Debug, Parser)]
#[command(name = "kube-controller-manager")]
struct Flags {
    /// How to reach the API server
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Addresses of pods
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    cluster_cidr: Vec<String>,
    /// Give each node a part of --cluster-cidr
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    allocate_node_cidrs: bool,
    /// Addresses of Services: never given to nodes
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    service_cluster_ip_range: Vec<String>,
    /// CA that is published to pods
    #[arg(long, value_name = "FILE")]
    root_ca_file: Option<PathBuf>,
    /// Key that signs tokens kept in Secrets
    #[arg(long, value_name = "FILE")]
    service_account_private_key_file: Option<PathBuf>,
    /// CA that signs certificate requests
    #[arg(long, value_name = "FILE", requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// Key of --cluster-signing-cert-file
    #[arg(long, value_name = "FILE", requires = "cluster_signing_cert_file")]
    cluster_signing_key_file: Option<PathBuf>,
    /// Longest validity of certificates that are signed
    #[arg(long, default_value = "8760h", value_parser = duration, value_name = "DURATION")]
    cluster_signing_duration: Duration,
    /// Prefix length of a node's range of pod addresses
    #[arg(long, value_name = "BITS")]
    node_cidr_mask_size: Option<u8>,
    /// The same for IPv4 [default: 24]
    #[arg(long, value_name = "BITS")]
    node_cidr_mask_size_ipv4: Option<u8>,
    /// The same for IPv6 [default: 64]
    #[arg(long, value_name = "BITS")]
    node_cidr_mask_size_ipv6: Option<u8>,
    /// How long a node may be silent before it counts as gone
    #[arg(long, default_value = "50s", value_parser = duration, value_name = "DURATION")]
    node_monitor_grace_period: Duration,
    /// The same for a node that is starting
    #[arg(long, default_value = "1m", value_parser = duration, value_name = "DURATION")]
    node_startup_grace_period: Duration,
    /// Nodes a second whose pods are evicted, of those that are gone from a zone that is well
    #[arg(long, default_value_t = 0.1, value_name = "RATE")]
    node_eviction_rate: f64,
    /// The same of a large zone of which many are gone; none are in a small one
    #[arg(long, default_value_t = 0.01, value_name = "RATE")]
    secondary_node_eviction_rate: f64,
    /// Nodes from which on a zone is large
    #[arg(long, default_value_t = 50, value_name = "N")]
    large_cluster_size_threshold: usize,
    /// Share of the nodes of a zone that are gone from which on it is not well
    #[arg(long, default_value_t = 0.55, value_name = "SHARE")]
    unhealthy_zone_threshold: f64,
    /// Ended pods that are kept before the oldest are removed; 0 keeps all
    #[arg(long, default_value_t = 12_500, value_name = "N")]
    terminated_pod_gc_threshold: usize,
    /// Most endpoints in an EndpointSlice
    #[arg(long, default_value_t = 100, value_name = "N")]
    max_endpoints_per_slice: usize,
    /// Most endpoints of a subset of Endpoints that are mirrored into EndpointSlices
    #[arg(long, default_value_t = 1000, value_name = "N")]
    mirroring_max_endpoints_per_subset: usize,
    /// Let each controller act as a service account of its own
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    use_service_account_credentials: bool,
    /// Controllers to run: * for those on by default, name, -name
    #[arg(long, value_delimiter = ',', default_value = "*", value_name = "NAME")]
    controllers: Vec<String>,
    /// Name of the cluster
    #[arg(long, default_value = "kubernetes", value_name = "NAME")]
    cluster_name: String,
    #[command(flatten)]
    election: Election,
    #[command(flatten)]
    serving: Serving,
}

const IGNORED: Ignored = Ignored {
    values: &["min-resync-period", "node-monitor-period"],
    switches: &["enable-garbage-collector", "configure-cloud-routes"],
};

/// What who leads is called.
const LEASE: &str = "kube-controller-manager";

const OWN: Own = &[
    ("kubeconfig", "it is in the same process as the API server"),
    ("cluster-cidr", "say --pod-cidr"),
    ("service-cluster-ip-range", "say --service-cidr"),
    ("cluster-name", "say --name"),
    ("use-service-account-credentials", "each controller has an account of its own"),
];

same!(SAME, set: Flags => controller_manager::Config {
    allocate_node_cidrs, controllers, node_monitor_grace_period, node_startup_grace_period,
    node_eviction_rate, secondary_node_eviction_rate, large_cluster_size_threshold, unhealthy_zone_threshold,
    terminated_pod_gc_threshold, max_endpoints_per_slice, mirroring_max_endpoints_per_subset,
    cluster_signing_duration,
});

/// Flags that are set by hand.
const OTHERS: &[&str] = &[
    "root_ca_file",
    "service_account_private_key_file",
    "cluster_signing_cert_file",
    "cluster_signing_key_file",
    "node_cidr_mask_size",
    "node_cidr_mask_size_ipv4",
    "node_cidr_mask_size_ipv6",
];

/// Sets what is given besides (`--kube-controller-manager-arg`) over what the cluster sets.
pub fn over(config: &mut controller_manager::Config, args: &[String]) -> Result<()> {
    let ignored = [&IGNORED, &DELEGATED, &LOGGING];
    let extra = Extra::<Flags>::read("--kube-controller-manager-arg", args, OWN, &ignored)?;
    let Some(extra) = extra else { return Ok(()) };
    extra.only(&[SAME, OTHERS, SERVING, ELECTION], &ignored)?;
    set(&extra, config);
    let flags = &extra.flags;
    if let Some(path) = &flags.root_ca_file {
        config.root_ca = Some(std::fs::read_to_string(path).with_context(|| path.display().to_string())?);
    }
    if let Some(path) = &flags.service_account_private_key_file {
        config.token_signer = Some(Arc::new(TokenKey::read(path)?));
    }
    if let Some((cert, key)) = flags.cluster_signing_cert_file.as_ref().zip(flags.cluster_signing_key_file.as_ref()) {
        config.certificate_signer = Some(Arc::new(read_ca_signer(cert, key)?));
    }
    let mask = flags.node_cidr_mask_size;
    config.node_cidr_mask_size_ipv4 =
        flags.node_cidr_mask_size_ipv4.or(mask).unwrap_or(config.node_cidr_mask_size_ipv4);
    config.node_cidr_mask_size_ipv6 =
        flags.node_cidr_mask_size_ipv6.or(mask).unwrap_or(config.node_cidr_mask_size_ipv6);
    flags.election.over(|field| extra.given(field), LEASE, &mut config.leader_election)?;
    flags.serving.over(|field| extra.given(field), &mut config.serving);
    Ok(())
}

pub fn run(args: &[OsString]) -> Result<()> {
    let flags: Flags = parse(args, &[&IGNORED, &DELEGATED, &LOGGING]);
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    let root_ca = flags.root_ca_file.as_ref().map(read).transpose()?;
    let token_signer = flags.service_account_private_key_file.as_ref().map(|p| TokenKey::read(p)).transpose()?;
    let signing = flags.cluster_signing_cert_file.as_ref().zip(flags.cluster_signing_key_file.as_ref());
    let certificate_signer = signing.map(|(cert, key)| read_ca_signer(cert, key)).transpose()?;
    let mut config = controller_manager::Config {
        cluster_name: flags.cluster_name,
        cluster_cidrs: flags.cluster_cidr,
        service_cidrs: flags.service_cluster_ip_range,
        allocate_node_cidrs: flags.allocate_node_cidrs,
        root_ca,
        token_signer: token_signer.map(|key| Arc::new(key) as _),
        certificate_signer: certificate_signer.map(|ca| Arc::new(ca) as _),
        controllers: flags.controllers,
        leader_election: flags.election.candidate(LEASE)?,
        serving: flags.serving.config("kube-controller-manager", 10257)?,
        node_monitor_grace_period: flags.node_monitor_grace_period,
        node_startup_grace_period: flags.node_startup_grace_period,
        node_eviction_rate: flags.node_eviction_rate,
        secondary_node_eviction_rate: flags.secondary_node_eviction_rate,
        large_cluster_size_threshold: flags.large_cluster_size_threshold,
        unhealthy_zone_threshold: flags.unhealthy_zone_threshold,
        terminated_pod_gc_threshold: flags.terminated_pod_gc_threshold,
        max_endpoints_per_slice: flags.max_endpoints_per_slice,
        mirroring_max_endpoints_per_subset: flags.mirroring_max_endpoints_per_subset,
        cluster_signing_duration: flags.cluster_signing_duration,
        node_cidr_mask_size_ipv4: flags.node_cidr_mask_size_ipv4.or(flags.node_cidr_mask_size).unwrap_or(24),
        node_cidr_mask_size_ipv6: flags.node_cidr_mask_size_ipv6.or(flags.node_cidr_mask_size).unwrap_or(64),
        ..controller_manager::Config::default()
    };
    until_signal(move |shutdown| async move {
        let api = Api::at(&flags.kubeconfig);
        let client = api.client(&Identity::ControllerManager).await?;
        if flags.use_service_account_credentials {
            config.controller_clients = Some(api.controller_clients().await?);
        }
        controller_manager::daemon::run(config, client, shutdown).await?;
        Ok(())
    })
}
