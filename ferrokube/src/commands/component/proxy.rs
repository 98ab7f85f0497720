//! `ferrokube kube-proxy`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use cni::Prefix;

use super::{Ignored, LOGGING, connect, duration, parse, until_signal};
use crate::fault::Fault;

/// The Kubernetes network proxy
#[derive(Debug, Parser)]
#[command(name = "kube-proxy")]
struct Flags {
    /// How to reach the API server
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Name of the Node that this host is [default: the host's name]
    #[arg(long, value_name = "NAME")]
    hostname_override: Option<String>,
    /// Only nftables is done
    #[arg(long, default_value = "nftables", value_name = "MODE")]
    proxy_mode: String,
    /// Addresses of pods
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    cluster_cidr: Vec<Prefix>,
    /// Addresses that node ports answer on [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    nodeport_addresses: Vec<Prefix>,
    /// Translate the source of everything that is sent to a Service
    #[arg(long)]
    masquerade_all: bool,
    /// Where /healthz answers
    #[arg(long, default_value = "0.0.0.0:10256", value_name = "IP:PORT")]
    healthz_bind_address: SocketAddr,
    /// Where /metrics answers
    #[arg(long, default_value = "127.0.0.1:10249", value_name = "IP:PORT")]
    metrics_bind_address: SocketAddr,
    /// Changes within this time are applied together
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "DURATION")]
    nftables_min_sync_period: Duration,
    /// Remove our rules and end
    #[arg(long)]
    cleanup: bool,
}

const IGNORED: Ignored = Ignored {
    values: &[
        "config-sync-period",
        "conntrack-max-per-core",
        "conntrack-min",
        "conntrack-tcp-timeout-close-wait",
        "conntrack-tcp-timeout-established",
        "kube-api-burst",
        "kube-api-content-type",
        "kube-api-qps",
        "oom-score-adj",
    ],
    switches: &["bind-address-hard-fail"],
};

pub fn run(args: &[OsString]) -> Result<()> {
    let flags: Flags = parse(args, &[&IGNORED, &LOGGING]);
    if flags.proxy_mode != "nftables" {
        let sentence = format!("--proxy-mode {}: only nftables is done", flags.proxy_mode);
        return Err(Fault::usage(sentence).into());
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let config = proxy::Config {
        hostname_override: flags.hostname_override.unwrap_or_else(|| host.trim().to_lowercase()),
        cluster_cidr: flags.cluster_cidr,
        nodeport_addresses: flags.nodeport_addresses,
        masquerade_all: flags.masquerade_all,
        healthz_bind_address: Some(flags.healthz_bind_address),
        metrics_bind_address: Some(flags.metrics_bind_address),
        min_sync_period: flags.nftables_min_sync_period,
        ..proxy::Config::default()
    };
    if flags.cleanup {
        return proxy::remove(&config.table).map_err(Into::into);
    }
    until_signal(|shutdown| async move {
        let client = connect(&flags.kubeconfig).await?;
        proxy::run(config, client, shutdown).await?;
        Ok(())
    })
}
