//! `ferrokube etcd`: the store alone, for any client of etcd v3.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use etcd::daemon::{AutoCompaction, Config, TlsFiles};

use super::extra::{Extra, Own, same};
use super::{Ignored, duration, parse, until_signal};
use crate::fault::Fault;

/// A consistent key-value store (etcd v3)
#[derive(Debug, Parser)]
#[command(name = "etcd")]
struct Flags {
    /// Name of this member
    #[arg(long, default_value = "default", value_name = "NAME")]
    name: String,
    /// Where the data is [default: NAME.etcd]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// URLs to listen on
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2379", value_name = "URL")]
    listen_client_urls: Vec<String>,
    /// URLs to tell clients [default: those listened on]
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    advertise_client_urls: Vec<String>,
    /// URLs where /metrics and /health answer besides
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    listen_metrics_urls: Vec<String>,
    /// The server's certificate
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// The server's key
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// CA that client certificates are checked with
    #[arg(long, value_name = "FILE")]
    trusted_ca_file: Option<PathBuf>,
    /// Refuse clients without a certificate
    #[arg(long)]
    client_cert_auth: bool,
    /// Writes are refused above this many bytes; 0 is 2 GiB
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    quota_backend_bytes: u64,
    /// periodic or revision
    #[arg(long, default_value = "periodic", value_name = "MODE")]
    auto_compaction_mode: String,
    /// How much history is kept: a duration or a number of revisions; 0 keeps all
    #[arg(long, default_value = "0", value_name = "AMOUNT")]
    auto_compaction_retention: String,
    /// Commands after which a checkpoint is written; 0 leaves it to the size of the log
    #[arg(long, default_value_t = 0, value_name = "N")]
    snapshot_count: u64,
    /// Largest request
    #[arg(long, default_value_t = 1_572_864, value_name = "BYTES")]
    max_request_bytes: usize,
    /// Most operations in a transaction
    #[arg(long, default_value_t = 128, value_name = "N")]
    max_txn_ops: usize,
    /// How often an idle watch is told the revision
    #[arg(long, default_value = "10m", value_parser = duration, value_name = "DURATION")]
    watch_progress_notify_interval: Duration,
}

const IGNORED: Ignored = Ignored {
    values: &[
        "backend-batch-interval",
        "backend-batch-limit",
        "election-timeout",
        "heartbeat-interval",
        "log-level",
        "log-outputs",
        "logger",
        "max-snapshots",
        "max-wals",
    ],
    switches: &[],
};

const OWN: Own = &[("data-dir", "it is in --data-dir of the cluster"), ("name", "it is the node's name")];

same!(SAME, set: Flags => Config {
    listen_client_urls, advertise_client_urls, listen_metrics_urls, quota_backend_bytes, snapshot_count,
    max_request_bytes, max_txn_ops, watch_progress_notify_interval,
});

/// Flags that are set by hand.
const OTHERS: &[&str] = &[
    "cert_file",
    "key_file",
    "trusted_ca_file",
    "client_cert_auth",
    "auto_compaction_mode",
    "auto_compaction_retention",
];

/// Sets what is given besides (`--etcd-arg`) over what the cluster sets.
pub fn over(config: &mut Config, args: &[String]) -> Result<(), Fault> {
    let Some(extra) = Extra::<Flags>::read("--etcd-arg", args, OWN, &[&IGNORED])? else { return Ok(()) };
    extra.only(&[SAME, OTHERS], &[&IGNORED])?;
    let open = extra.flags.listen_client_urls.iter().find(|url| !url.starts_with("https://"));
    if let Some(url) = open.filter(|_| extra.given("listen_client_urls")) {
        let sentence = format!(
            "--etcd-arg listen-client-urls={url}: whoever reaches it would have all of the cluster without a \
             certificate: say https://"
        );
        return Err(Fault::usage(sentence));
    }
    set(&extra, config);
    let flags = extra.flags;
    config.tls.cert = flags.cert_file.or(config.tls.cert.take());
    config.tls.key = flags.key_file.or(config.tls.key.take());
    config.tls.trusted_ca = flags.trusted_ca_file.or(config.tls.trusted_ca.take());
    config.tls.client_cert_auth |= flags.client_cert_auth;
    let compaction = AutoCompaction::parse(&flags.auto_compaction_mode, &flags.auto_compaction_retention);
    config.auto_compaction = compaction.map_err(Fault::usage)?;
    Ok(())
}

pub fn run(args: &[OsString]) -> Result<()> {
    let flags: Flags = parse(args, &[&IGNORED]);
    let compaction = AutoCompaction::parse(&flags.auto_compaction_mode, &flags.auto_compaction_retention);
    let config = Config {
        data_dir: flags.data_dir.unwrap_or_else(|| format!("{}.etcd", flags.name).into()),
        name: flags.name,
        listen_client_urls: flags.listen_client_urls,
        advertise_client_urls: flags.advertise_client_urls,
        listen_metrics_urls: flags.listen_metrics_urls,
        tls: TlsFiles {
            cert: flags.cert_file,
            key: flags.key_file,
            trusted_ca: flags.trusted_ca_file,
            client_cert_auth: flags.client_cert_auth,
        },
        quota_backend_bytes: flags.quota_backend_bytes,
        auto_compaction: compaction.map_err(Fault::usage)?,
        snapshot_count: flags.snapshot_count,
        max_request_bytes: flags.max_request_bytes,
        max_txn_ops: flags.max_txn_ops,
        watch_progress_notify_interval: flags.watch_progress_notify_interval,
        ..Config::default()
    };
    until_signal(|shutdown| async move {
        etcd::daemon::serve(config, shutdown).await.map_err(|e| Fault::failed(e.to_string()).into())
    })
}
