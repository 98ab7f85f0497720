//! `ferrokube kube-apiserver`: our API server over any etcd cluster.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use apiserver::config::KeyPair;
use clap::Parser;

use super::{parse, until_signal};
use crate::fault::Fault;

/// The Kubernetes API server
#[derive(Debug, Parser)]
#[command(name = "kube-apiserver")]
struct Flags {
    /// URLs of the etcd cluster
    #[arg(long, required = true, value_delimiter = ',', value_name = "URL")]
    etcd_servers: Vec<String>,
    /// CA of the etcd servers
    #[arg(long, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// Certificate to show to etcd
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    /// Key of --etcd-certfile
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
    /// Prefix of every key in etcd
    #[arg(long, default_value = "/registry", value_name = "PREFIX")]
    etcd_prefix: String,
    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    bind_address: IpAddr,
    /// Port to listen on
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    secure_port: u16,
    /// Address that the kubernetes Service leads to
    #[arg(long, value_name = "IP")]
    advertise_address: Option<IpAddr>,
    /// The server's certificate
    #[arg(long, value_name = "FILE", required = true)]
    tls_cert_file: PathBuf,
    /// The server's key
    #[arg(long, value_name = "FILE", required = true)]
    tls_private_key_file: PathBuf,
    /// CA whose client certificates are identities
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// CA of front proxies
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Names that front proxies may have
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    requestheader_allowed_names: Vec<String>,
    /// Let callers in who don't say who they are
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    anonymous_auth: bool,
    /// Node, RBAC, AlwaysAllow, AlwaysDeny
    #[arg(long, value_delimiter = ',', default_value = "AlwaysAllow", value_name = "MODE")]
    authorization_mode: Vec<String>,
    /// Admission plugins to turn on besides the default ones
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins to turn off
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    disable_admission_plugins: Vec<String>,
    /// Issuer of service-account tokens
    #[arg(long, required = true, value_name = "URL")]
    service_account_issuer: String,
    /// Key that signs service-account tokens
    #[arg(long, required = true, value_name = "FILE")]
    service_account_signing_key_file: PathBuf,
    /// Keys that service-account tokens are checked with
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
    /// Audiences of tokens for this server [default: the issuer]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    api_audiences: Vec<String>,
    /// Addresses of Services
    #[arg(long, default_value = "10.0.0.0/24", value_name = "CIDR")]
    service_cluster_ip_range: String,
    /// Ports that node ports are taken from
    #[arg(long, default_value = "30000-32767", value_parser = port_range, value_name = "FROM-TO")]
    service_node_port_range: (u16, u16),
    /// Certificate to show to kubelets
    #[arg(long, value_name = "FILE", requires = "kubelet_client_key")]
    kubelet_client_certificate: Option<PathBuf>,
    /// Key of --kubelet-client-certificate
    #[arg(long, value_name = "FILE", requires = "kubelet_client_certificate")]
    kubelet_client_key: Option<PathBuf>,
    /// CA of kubelets
    #[arg(long, value_name = "FILE")]
    kubelet_certificate_authority: Option<PathBuf>,
    /// How long events are kept, in seconds
    #[arg(long, default_value = "1h", value_parser = duration, value_name = "DURATION")]
    event_ttl: Duration,
    /// Requests that only read, at once
    #[arg(long, default_value_t = 400, value_name = "N")]
    max_requests_inflight: usize,
    /// Requests that write, at once
    #[arg(long, default_value_t = 200, value_name = "N")]
    max_mutating_requests_inflight: usize,
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("{text:?} is no range of ports: write it like 30000-32767");
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let range = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
    if range.0 == 0 || range.0 > range.1 { Err(wrong()) } else { Ok(range) }
}

/// Go's durations, as upstream's flags take them: `90s`, `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let nanos = meta::duration::parse_nanos(text)?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("{text:?} is less than nothing"))
}

fn pair(cert: Option<PathBuf>, key: Option<PathBuf>) -> Option<KeyPair> {
    let (cert_file, key_file) = cert.zip(key)?;
    Some(KeyPair { cert_file, key_file })
}

pub fn run(args: &[OsString]) -> Result<()> {
    let flags: Flags = parse(args);
    let remote = apiserver::storage::remote::Config {
        endpoints: flags.etcd_servers,
        ca_file: flags.etcd_cafile,
        client: pair(flags.etcd_certfile, flags.etcd_keyfile),
    };
    let mut keys = flags.service_account_key_file;
    if keys.is_empty() {
        keys.push(flags.service_account_signing_key_file.clone());
    }
    let config = apiserver::Config {
        bind_address: flags.bind_address,
        secure_port: flags.secure_port,
        advertise_address: flags.advertise_address,
        tls: pair(Some(flags.tls_cert_file), Some(flags.tls_private_key_file)),
        client_ca_file: flags.client_ca_file,
        requestheader_client_ca_file: flags.requestheader_client_ca_file,
        requestheader_allowed_names: flags.requestheader_allowed_names,
        anonymous_auth: flags.anonymous_auth,
        authorization_mode: flags.authorization_mode,
        enable_admission_plugins: flags.enable_admission_plugins,
        disable_admission_plugins: flags.disable_admission_plugins,
        service_account_issuer: flags.service_account_issuer,
        service_account_signing_key_file: Some(flags.service_account_signing_key_file),
        service_account_key_files: keys,
        api_audiences: flags.api_audiences,
        service_cluster_ip_range: flags.service_cluster_ip_range,
        service_node_port_range: flags.service_node_port_range,
        event_ttl: flags.event_ttl,
        kubelet_client: pair(flags.kubelet_client_certificate, flags.kubelet_client_key),
        kubelet_certificate_authority: flags.kubelet_certificate_authority,
        max_requests_inflight: flags.max_requests_inflight,
        max_mutating_requests_inflight: flags.max_mutating_requests_inflight,
        etcd_prefix: flags.etcd_prefix,
        ..apiserver::Config::default()
    };
    until_signal(|shutdown| async move {
        let store = apiserver::storage::remote::connect(remote).await.map_err(|e| Fault::failed(e.to_string()))?;
        apiserver::daemon::run(config, Arc::new(store), shutdown).await.map_err(|e| Fault::failed(e.to_string()))?;
        Ok(())
    })
}
