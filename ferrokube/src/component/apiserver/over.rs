//! `--kube-apiserver-arg`: what is given besides, over what the cluster sets. Called when a cluster is started.

use std::time::Duration;

use anyhow::Result;
use apiserver::Config;
use apiserver::audit::log::Options;

use super::super::LOGGING;
use super::super::extra::{Extra, Own, same};
use super::super::{served, warn};
use super::{AuditLog, Flags, IGNORED, pair};

const OWN: Own = &[
    ("secure-port", "say --api-port"),
    ("bind-address", "say --bind-address"),
    ("service-cluster-ip-range", "say --service-cidr"),
    ("advertise-address", "it is the node's; say nodeIP in --config"),
    ("etcd-servers", "say --etcd-servers"),
    ("etcd-cafile", "say --etcd-cafile"),
    ("etcd-certfile", "say --etcd-certfile"),
    ("etcd-keyfile", "say --etcd-keyfile"),
    ("endpoint-reconciler-type", "it follows from --etcd-servers"),
    ("cert-dir", "the certificate is the cluster's; see --tls-san"),
];

same!(SAME, set: Flags => Config {
    client_ca_file, requestheader_client_ca_file, requestheader_allowed_names, anonymous_auth,
    enable_bootstrap_token_auth, authorization_mode, admission_control_config_file,
    audit_policy_file, service_account_issuer, service_account_jwks_uri, service_account_extend_token_expiration,
    api_audiences, service_node_port_range, event_ttl, kubelet_certificate_authority, max_requests_inflight,
    max_mutating_requests_inflight, kubelet_preferred_address_types, request_timeout, etcd_compaction_interval,
    encryption_provider_config, encryption_provider_config_automatic_reload,
});

/// Flags that are set by hand.
const OTHERS: &[&str] = &[
    "disable_admission_plugins",
    "enable_admission_plugins",
    "runtime_config",
    "tls_cert_file",
    "tls_private_key_file",
    "service_account_signing_key_file",
    "service_account_key_file",
    "service_account_max_token_expiration",
    "kubelet_client_certificate",
    "kubelet_client_key",
    "min_request_timeout",
    "shutdown_delay_duration",
    "etcd_prefix",
];

const AUDIT: &[&str] = &[
    "audit_log_path",
    "audit_log_maxage",
    "audit_log_maxbackup",
    "audit_log_maxsize",
    "audit_log_format",
    "audit_log_compress",
    "audit_log_mode",
];

/// Sets what is given besides over what the cluster sets.
pub fn over(config: &mut Config, args: &[String]) -> Result<()> {
    let ignored = [&IGNORED, &LOGGING];
    let Some(extra) = Extra::<Flags>::read("--kube-apiserver-arg", args, OWN, &ignored)? else { return Ok(()) };
    extra.only(&[SAME, OTHERS, AUDIT], &ignored)?;
    served::enabled(&extra.flags.enable_admission_plugins)?;
    let (disabled, mut without_effect) = served::disabled(extra.flags.disable_admission_plugins.clone())?;
    without_effect.extend(served::versions(&extra.flags.runtime_config)?);
    warn("kube-apiserver", &without_effect);
    set(&extra, config);
    if extra.given("disable_admission_plugins") {
        config.disable_admission_plugins = disabled;
    }
    if AUDIT.iter().any(|field| extra.given(field)) {
        config.audit_log = audit_log(&extra, config.audit_log.take());
    }
    let given = |field: &str| extra.given(field);
    let signing = given("service_account_signing_key_file");
    let (etcd_prefix, short_requests) = (given("etcd_prefix"), given("min_request_timeout"));
    let (longest, delayed) = (given("service_account_max_token_expiration"), given("shutdown_delay_duration"));
    let flags = extra.flags;
    if let Some(files) = pair(flags.tls_cert_file, flags.tls_private_key_file) {
        config.tls = Some(files);
    }
    if let Some(files) = pair(flags.kubelet_client_certificate, flags.kubelet_client_key) {
        config.kubelet_client = Some(files);
    }
    if signing {
        config.service_account_signing_key_file = Some(flags.service_account_signing_key_file);
    }
    // Those of a hardened cluster stay on.
    config.enable_admission_plugins.extend(flags.enable_admission_plugins);
    // Tokens that were signed before stay good.
    config.service_account_key_files.extend(flags.service_account_key_file);
    if longest {
        let life = flags.service_account_max_token_expiration;
        config.service_account_max_token_expiration = Some(life).filter(|life| !life.is_zero());
    }
    if short_requests {
        config.min_request_timeout = Duration::from_secs(flags.min_request_timeout);
    }
    if delayed {
        config.shutdown_delay = flags.shutdown_delay_duration;
    }
    if etcd_prefix {
        config.etcd_prefix = format!("/{}", flags.etcd_prefix.trim_matches('/'));
    }
    Ok(())
}

/// The log that is meant: the given one, or the cluster's with what is given of it.
fn audit_log(extra: &Extra<Flags>, base: Option<Options>) -> Option<Options> {
    let told: &AuditLog = &extra.flags.audit_log;
    let path = told.audit_log_path.clone().or_else(|| base.as_ref().map(|log| log.path.clone()))?;
    let mut log = base.unwrap_or(Options {
        path: path.clone(),
        max_age: told.audit_log_maxage,
        max_backup: told.audit_log_maxbackup,
        max_size: told.audit_log_maxsize,
        format: told.audit_log_format,
        compress: told.audit_log_compress,
        mode: told.audit_log_mode,
    });
    log.path = path;
    if extra.given("audit_log_maxage") {
        log.max_age = told.audit_log_maxage;
    }
    if extra.given("audit_log_maxbackup") {
        log.max_backup = told.audit_log_maxbackup;
    }
    if extra.given("audit_log_maxsize") {
        log.max_size = told.audit_log_maxsize;
    }
    if extra.given("audit_log_format") {
        log.format = told.audit_log_format;
    }
    if extra.given("audit_log_compress") {
        log.compress = told.audit_log_compress;
    }
    if extra.given("audit_log_mode") {
        log.mode = told.audit_log_mode;
    }
    Some(log)
}
