//! `ferrokube kube-apiserver`: our API server over any etcd cluster.

mod over;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use apiserver::audit::log::{Format, Mode};
use apiserver::config::{EndpointReconciler, KeyPair};
use clap::Parser;
use meta::Prefix;

pub use self::over::over;
use super::{Ignored, LOGGING, duration, parse, served, until_signal, warn};
use crate::fault::Fault;
use crate::pki::SERVICE_NAMES;

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
    /// Address that the kubernetes Service leads to [default: that of --bind-address, or of this host]
    #[arg(long, value_name = "IP")]
    advertise_address: Option<IpAddr>,
    /// Which API servers the kubernetes Service leads to: lease is those of the store that live, none leaves it alone
    #[arg(long, default_value = "lease", value_parser = reconciler, value_name = "TYPE")]
    endpoint_reconciler_type: EndpointReconciler,
    /// The server's certificate [default: apiserver.crt in --cert-dir, made there when there is none]
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// The server's key
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Where the certificate is when none is given, apiserver.crt with apiserver.key
    #[arg(long, default_value = "/var/run/kubernetes", value_name = "DIR")]
    cert_dir: PathBuf,
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
    /// Let machines in that come with a bootstrap token: a Secret of type bootstrap.kubernetes.io/token in kube-system
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    enable_bootstrap_token_auth: bool,
    /// Node, RBAC, AlwaysAllow, AlwaysDeny
    #[arg(long, value_delimiter = ',', default_value = "AlwaysAllow", value_name = "MODE")]
    authorization_mode: Vec<String>,
    /// Admission plugins to turn on besides the default ones
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins to turn off
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    disable_admission_plugins: Vec<String>,
    /// Versions of the API: that they are served, or not, must be so
    #[arg(long, value_delimiter = ',', value_name = "VERSION=BOOL")]
    runtime_config: Vec<String>,
    /// Configuration of admission plugins
    #[arg(long, value_name = "FILE")]
    admission_control_config_file: Option<PathBuf>,
    /// Which requests are logged, and how much of each
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    #[command(flatten)]
    audit_log: AuditLog,
    /// Issuer of service-account tokens
    #[arg(long, required = true, value_name = "URL")]
    service_account_issuer: String,
    /// Key that signs service-account tokens
    #[arg(long, required = true, value_name = "FILE")]
    service_account_signing_key_file: PathBuf,
    /// Keys that service-account tokens are checked with
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
    /// Where others find the keys that tokens are checked with
    #[arg(long, value_name = "URL")]
    service_account_jwks_uri: Option<String>,
    /// Let mounted tokens work for a year, and warn of programs that don't read new ones
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL")]
    service_account_extend_token_expiration: bool,
    /// Longest life of a service-account token; 0 is upstream's own limit
    #[arg(long, default_value = "0s", value_parser = token_life, value_name = "DURATION")]
    service_account_max_token_expiration: Duration,
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
    /// Which of a node's addresses its kubelet is asked at
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP",
        value_name = "TYPE"
    )]
    kubelet_preferred_address_types: Vec<String>,
    /// How long events are kept
    #[arg(long, default_value = "1h", value_parser = duration, value_name = "DURATION")]
    event_ttl: Duration,
    /// Requests that only read, at once
    #[arg(long, default_value_t = 400, value_name = "N")]
    max_requests_inflight: usize,
    /// Requests that write, at once
    #[arg(long, default_value_t = 200, value_name = "N")]
    max_mutating_requests_inflight: usize,
    /// Longest time that a request may take
    #[arg(long, default_value = "1m", value_parser = duration, value_name = "DURATION")]
    request_timeout: Duration,
    /// Shortest time after which a watch is ended that sets none, in seconds
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    min_request_timeout: u64,
    /// How long requests are taken after the signal to stop, while /readyz fails already
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "DURATION")]
    shutdown_delay_duration: Duration,
    /// How often old history is forgotten; 0 is never
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "DURATION")]
    etcd_compaction_interval: Duration,
    /// Which resources are encrypted in etcd, and how: an EncryptionConfiguration
    #[arg(long, value_name = "FILE")]
    encryption_provider_config: Option<PathBuf>,
    /// Follow changes of --encryption-provider-config
    #[arg(long, requires = "encryption_provider_config", num_args = 0..=1, default_value_t = false, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    encryption_provider_config_automatic_reload: bool,
}

/// The file of the audit log.
#[derive(Debug, clap::Args)]
struct AuditLog {
    /// Log requests to this file; "-" is standard output
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Days that an old audit log is kept; 0 is for ever
    #[arg(long, default_value_t = 0, value_name = "DAYS")]
    audit_log_maxage: u32,
    /// Old audit logs that are kept; 0 is all
    #[arg(long, default_value_t = 0, value_name = "N")]
    audit_log_maxbackup: u32,
    /// Megabytes at which an audit log is put aside; 0 is 100
    #[arg(long, default_value_t = 0, value_name = "MEGABYTES")]
    audit_log_maxsize: u64,
    /// json, or legacy for lines of text
    #[arg(long, default_value = "json", value_parser = audit_format, value_name = "FORMAT")]
    audit_log_format: Format,
    /// Pack old audit logs
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_name = "BOOL")]
    audit_log_compress: bool,
    /// blocking, blocking-strict (what can't be logged is refused), or batch
    #[arg(long, default_value = "blocking", value_parser = audit_mode, value_name = "MODE")]
    audit_log_mode: Mode,
}

impl AuditLog {
    fn options(self) -> Option<apiserver::audit::log::Options> {
        Some(apiserver::audit::log::Options {
            path: self.audit_log_path?,
            max_age: self.audit_log_maxage,
            max_backup: self.audit_log_maxbackup,
            max_size: self.audit_log_maxsize,
            format: self.audit_log_format,
            compress: self.audit_log_compress,
            mode: self.audit_log_mode,
        })
    }
}

fn audit_format(text: &str) -> Result<Format, String> {
    match text {
        "json" => Ok(Format::Json),
        "legacy" => Ok(Format::Legacy),
        _ => Err(format!("invalid audit log format {text}, allowed formats are \"json,legacy\"")),
    }
}

fn audit_mode(text: &str) -> Result<Mode, String> {
    match text {
        "batch" => Ok(Mode::Batch),
        "blocking" => Ok(Mode::Blocking),
        "blocking-strict" => Ok(Mode::BlockingStrict),
        _ => Err(format!("invalid audit log mode {text}, allowed modes are \"batch,blocking,blocking-strict\"")),
    }
}

const IGNORED: Ignored = Ignored {
    values: &[
        "audit-log-batch-buffer-size",
        "audit-log-batch-max-size",
        "audit-log-batch-max-wait",
        "audit-log-batch-throttle-burst",
        "audit-log-batch-throttle-qps",
        "audit-log-truncate-max-batch-size",
        "audit-log-truncate-max-event-size",
        "audit-log-version",
        "default-watch-cache-size",
        "delete-collection-workers",
        "etcd-count-metric-poll-period",
        "etcd-db-metric-poll-interval",
        "goaway-chance",
        "http2-max-streams-per-connection",
        "lease-reuse-duration-seconds",
        "livez-grace-period",
        "proxy-client-cert-file",
        "proxy-client-key-file",
        "requestheader-extra-headers-prefix",
        "requestheader-group-headers",
        "requestheader-uid-headers",
        "requestheader-username-headers",
        "storage-backend",
        "storage-media-type",
        "watch-cache-sizes",
    ],
    switches: &[
        "allow-privileged",
        "audit-log-batch-throttle-enable",
        "audit-log-truncate-enabled",
        "enable-aggregator-routing",
        "enable-garbage-collector",
        "enable-logs-handler",
        "enable-priority-and-fairness",
        "service-account-lookup",
        "watch-cache",
    ],
};

fn reconciler(text: &str) -> Result<EndpointReconciler, String> {
    match text {
        "lease" => Ok(EndpointReconciler::Lease),
        "none" => Ok(EndpointReconciler::None),
        _ => {
            Err("say lease or none: a number of servers, as master-count wants it, tells nobody which of them live"
                .into())
        }
    }
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("{text:?} is no range of ports: write it like 30000-32767");
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let range = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
    if range.0 == 0 || range.0 > range.1 { Err(wrong()) } else { Ok(range) }
}

/// Upstream's bounds of --service-account-max-token-expiration.
const TOKEN_LIFE: (u64, u64) = (3600, 1 << 32);

fn token_life(text: &str) -> Result<Duration, String> {
    let life = duration(text)?;
    match life.is_zero() || (TOKEN_LIFE.0..=TOKEN_LIFE.1).contains(&life.as_secs()) {
        true => Ok(life),
        false => Err("the service-account-max-token-expiration must be between 1 hour and 2^32 seconds".to_owned()),
    }
}

/// Where clients inside the cluster are led: upstream's rule.
fn advertised(told: Option<IpAddr>, bound: IpAddr, host: impl FnOnce() -> Option<IpAddr>) -> Option<IpAddr> {
    told.or_else(|| if bound.is_unspecified() { host() } else { Some(bound) })
}

/// The best address of this host.
fn of_host() -> Option<IpAddr> {
    let scene =
        linux::host_address::look().inspect_err(|error| tracing::warn!(%error, "this host's addresses")).ok()?;
    linux::host_address::choose(&scene, &Default::default(), None)
}

fn pair(cert: Option<PathBuf>, key: Option<PathBuf>) -> Option<KeyPair> {
    let (cert_file, key_file) = cert.zip(key)?;
    Some(KeyPair { cert_file, key_file })
}

/// What a certificate that signs itself says where the server is reached: as upstream's, and for each range of Services.
fn own_addresses(advertised: Option<IpAddr>, services: &str) -> Vec<IpAddr> {
    let ranges = services.split(',').filter_map(|range| range.trim().parse::<Prefix>().ok());
    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    loopback.into_iter().chain(advertised).chain(ranges.filter_map(|range| range.network().nth(1))).collect()
}

/// The pair that is in `--cert-dir`, or one that signs itself and is kept there, as upstream does.
fn own_certificate(flags: &Flags) -> Result<KeyPair> {
    let advertised = advertised(flags.advertise_address, flags.bind_address, of_host);
    let addresses = own_addresses(advertised, &flags.service_cluster_ip_range);
    let files = crate::pki::self_signed(&flags.cert_dir, "apiserver", &SERVICE_NAMES, &addresses)?;
    Ok(KeyPair { cert_file: files.cert, key_file: files.key })
}

pub fn run(args: &[OsString]) -> Result<()> {
    let flags: Flags = parse(args, &[&IGNORED, &LOGGING]);
    served::enabled(&flags.enable_admission_plugins)?;
    let (disabled, mut without_effect) = served::disabled(flags.disable_admission_plugins.clone())?;
    without_effect.extend(served::versions(&flags.runtime_config)?);
    warn("kube-apiserver", &without_effect);
    let serving = match pair(flags.tls_cert_file.clone(), flags.tls_private_key_file.clone()) {
        Some(given) => given,
        None => own_certificate(&flags)?,
    };
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
        also_bind: None,
        secure_port: flags.secure_port,
        advertise_address: advertised(flags.advertise_address, flags.bind_address, of_host),
        endpoint_reconciler: flags.endpoint_reconciler_type,
        tls: Some(serving),
        client_ca_file: flags.client_ca_file,
        requestheader_client_ca_file: flags.requestheader_client_ca_file,
        requestheader_allowed_names: flags.requestheader_allowed_names,
        anonymous_auth: flags.anonymous_auth,
        enable_bootstrap_token_auth: flags.enable_bootstrap_token_auth,
        authorization_mode: flags.authorization_mode,
        enable_admission_plugins: flags.enable_admission_plugins,
        disable_admission_plugins: disabled,
        admission_control_config_file: flags.admission_control_config_file,
        audit_policy_file: flags.audit_policy_file,
        audit_log: flags.audit_log.options(),
        service_account_issuer: flags.service_account_issuer,
        service_account_signing_key_file: Some(flags.service_account_signing_key_file),
        service_account_key_files: keys,
        service_account_jwks_uri: flags.service_account_jwks_uri,
        service_account_extend_token_expiration: flags.service_account_extend_token_expiration,
        service_account_max_token_expiration: Some(flags.service_account_max_token_expiration)
            .filter(|life| !life.is_zero()),
        api_audiences: flags.api_audiences,
        service_cluster_ip_range: flags.service_cluster_ip_range,
        service_node_port_range: flags.service_node_port_range,
        event_ttl: flags.event_ttl,
        kubelet_client: pair(flags.kubelet_client_certificate, flags.kubelet_client_key),
        kubelet_certificate_authority: flags.kubelet_certificate_authority,
        max_requests_inflight: flags.max_requests_inflight,
        max_mutating_requests_inflight: flags.max_mutating_requests_inflight,
        kubelet_preferred_address_types: flags.kubelet_preferred_address_types,
        request_timeout: flags.request_timeout,
        min_request_timeout: Duration::from_secs(flags.min_request_timeout),
        shutdown_delay: flags.shutdown_delay_duration,
        etcd_compaction_interval: flags.etcd_compaction_interval,
        encryption_provider_config: flags.encryption_provider_config,
        encryption_provider_config_automatic_reload: flags.encryption_provider_config_automatic_reload,
        etcd_prefix: format!("/{}", flags.etcd_prefix.trim_matches('/')),
    };
    until_signal(|shutdown| async move {
        let store = apiserver::storage::remote::connect(remote).await.map_err(|e| Fault::failed(e.to_string()))?;
        apiserver::daemon::run(config, Arc::new(store), shutdown).await.map_err(|e| Fault::failed(e.to_string()))?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_advertised_nothing() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (host, none) = (|| Some("192.0.2.1".parse().expect("an address")), || None);
        assert_eq!(advertised(None, ip("0.0.0.0"), host), Some(ip("192.0.2.1")));
        assert_eq!(advertised(None, ip("::"), none), None);
        assert_eq!(advertised(None, ip("127.0.0.1"), host), Some(ip("127.0.0.1")));
        assert_eq!(advertised(Some(ip("192.0.2.9")), ip("0.0.0.0"), host), Some(ip("192.0.2.9")));
    }

    #[test]
    fn a_certificate_that_signs_itself_names_where_the_server_is_reached_in_both_families() {
        let said = |advertised: Option<&str>, services| {
            let advertised = advertised.map(|text| text.parse().expect("an address"));
            own_addresses(advertised, services).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let both = "10.96.0.0/12, fd00:10:96::/108";
        assert_eq!(said(Some("192.0.2.9"), both), "127.0.0.1 ::1 192.0.2.9 10.96.0.1 fd00:10:96::1");
        assert_eq!(said(None, "10.96.0.0/12"), "127.0.0.1 ::1 10.96.0.1");
    }
}
