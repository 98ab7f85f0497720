//! `ferrokube kube-dns`: cluster DNS alone, with the flags of upstream's server of that name.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use super::{parse, until_signal};
use crate::api::{Api, Identity};
use crate::fault::Fault;

/// The cluster's DNS server
#[derive(Debug, Parser)]
#[command(name = "kube-dns")]
struct Flags {
    /// How to reach the API server
    #[arg(long, visible_alias = "kubeconfig", value_name = "FILE")]
    kubecfg_file: PathBuf,
    /// Zone of the cluster
    #[arg(long, default_value = "cluster.local.", value_name = "NAME")]
    domain: String,
    /// Address to answer on
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    dns_bind_address: IpAddr,
    /// Port to answer on, by UDP and TCP
    #[arg(long, default_value_t = 53, value_name = "PORT")]
    dns_port: u16,
    /// Servers of all other names [default: those of /etc/resolv.conf]
    #[arg(long, value_delimiter = ',', value_name = "IP[:PORT]", value_parser = nameserver)]
    nameservers: Vec<SocketAddr>,
    /// Port of /health on loopback; 0 turns it off
    #[arg(long, default_value_t = 8081, value_name = "PORT")]
    healthz_port: u16,
}

fn nameserver(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)).or_else(|_| text.parse());
    address.map_err(|_| format!("{text:?} is no address: write it like 10.0.0.2 or 10.0.0.2:5353"))
}

pub fn run(args: &[OsString]) -> Result<()> {
    let flags: Flags = parse(args, &[]);
    let config = dns::Config {
        bind: vec![SocketAddr::new(flags.dns_bind_address, flags.dns_port)],
        cluster_domain: flags.domain.trim_end_matches('.').to_owned(),
        upstreams: flags.nameservers,
        health: (flags.healthz_port != 0).then(|| SocketAddr::from(([127, 0, 0, 1], flags.healthz_port))),
        ..dns::Config::default()
    };
    until_signal(|shutdown| async move {
        let client = Api::at(&flags.kubecfg_file).client(&Identity::Dns).await?;
        dns::run(config, client, shutdown).await.map_err(|e| Fault::failed(e.to_string()).into())
    })
}
