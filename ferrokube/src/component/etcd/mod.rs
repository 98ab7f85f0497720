//! `ferrokube etcd`: the store alone, for any client of etcd v3. It takes the flags that static pods and test frameworks
//! pass; what would need another member is refused by name.

mod command_line;
mod elsewhere;
mod members;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use etcd::daemon::{AutoCompaction, Config, TlsFiles};
use serving::tls::Policy;

use self::elsewhere::{IGNORED, REFUSED};
use super::extra::{Extra, Own, same};
use super::{duration, names, parse_refusing, until_signal};
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
    #[arg(long, visible_alias = "listen-client-http-urls", value_delimiter = ',', value_name = "URL")]
    listen_metrics_urls: Vec<String>,
    #[command(flatten)]
    members: members::Members,
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
    /// Oldest TLS that is spoken: TLS1.2 or TLS1.3
    #[arg(long, default_value = "TLS1.2", value_name = "VERSION")]
    tls_min_version: String,
    /// Suites of TLS 1.2 [default: all that we have]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    cipher_suites: Vec<String>,
    /// Writes are refused above this many bytes; 0 is 2 GiB, and less than 0 no bound
    #[arg(long, default_value = "0", allow_hyphen_values = true, value_parser = quota, value_name = "BYTES")]
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
    #[arg(long, alias = "experimental-watch-progress-notify-interval", default_value = "10m", value_parser = duration,
          value_name = "DURATION")]
    watch_progress_notify_interval: Duration,
    /// Don't wait for the disk: what was acknowledged may be lost with the machine. For tests
    #[arg(long)]
    unsafe_no_fsync: bool,
}

fn quota(text: &str) -> Result<u64, String> {
    let bytes: i64 = text.parse().map_err(|_| format!("{text:?} is not a number of bytes"))?;
    // Without a bound, in the numbers that clients are told it by.
    Ok(u64::try_from(bytes).unwrap_or(i64::MAX.cast_unsigned()))
}

const OWN: Own = &[("data-dir", "it is in --data-dir of the cluster"), ("name", "it is the node's name")];

same!(SAME, set: Flags => Config {
    listen_client_urls, advertise_client_urls, listen_metrics_urls, quota_backend_bytes, snapshot_count,
    max_request_bytes, max_txn_ops, watch_progress_notify_interval, unsafe_no_fsync,
});

/// Flags that are set by hand.
const OTHERS: &[&str] = &[
    "cert_file",
    "key_file",
    "trusted_ca_file",
    "client_cert_auth",
    "tls_min_version",
    "cipher_suites",
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
    config.tls_policy = policy(&flags.tls_min_version, flags.cipher_suites)?;
    let compaction = AutoCompaction::parse(&flags.auto_compaction_mode, &flags.auto_compaction_retention);
    config.auto_compaction = compaction.map_err(Fault::usage)?;
    Ok(())
}

fn policy(min_version: &str, suites: Vec<String>) -> Result<Policy, Fault> {
    let only_13 = match min_version {
        "" | "TLS1.2" => false,
        "TLS1.3" => true,
        other => return Err(Fault::usage(format!("--tls-min-version {other}: give TLS1.2 or TLS1.3"))),
    };
    let mut policy = Policy { only_13, ..Policy::default() };
    policy.set_suites(suites).map_err(|why| Fault::usage(format!("--cipher-suites: {why}")))?;
    Ok(policy)
}

pub fn run(args: &[OsString]) -> Result<()> {
    let config = config(parse_refusing(&arguments(args), &[&IGNORED], REFUSED))?;
    until_signal(|shutdown| async move {
        etcd::daemon::serve(config, shutdown).await.map_err(|e| Fault::failed(e.to_string()).into())
    })
}

fn arguments(args: &[OsString]) -> Vec<OsString> {
    command_line::complete(args, &names::<Flags>(&[&IGNORED], REFUSED), |variable| std::env::var_os(variable))
}

fn config(flags: Flags) -> Result<Config, Fault> {
    let compaction = AutoCompaction::parse(&flags.auto_compaction_mode, &flags.auto_compaction_retention);
    let data_dir = flags.data_dir.unwrap_or_else(|| format!("{}.etcd", flags.name).into());
    let peer_urls = flags.members.peer_urls(&flags.name, data_dir.join("identity").exists()).map_err(Fault::usage)?;
    let defaults = Config::default();
    Ok(Config {
        data_dir,
        name: flags.name,
        listen_client_urls: flags.listen_client_urls,
        advertise_client_urls: flags.advertise_client_urls,
        initial_advertise_peer_urls: peer_urls.unwrap_or(defaults.initial_advertise_peer_urls),
        listen_metrics_urls: flags.listen_metrics_urls,
        tls: TlsFiles {
            cert: flags.cert_file,
            key: flags.key_file,
            trusted_ca: flags.trusted_ca_file,
            client_cert_auth: flags.client_cert_auth,
        },
        tls_policy: policy(&flags.tls_min_version, flags.cipher_suites)?,
        quota_backend_bytes: flags.quota_backend_bytes,
        auto_compaction: compaction.map_err(Fault::usage)?,
        snapshot_count: flags.snapshot_count,
        max_request_bytes: flags.max_request_bytes,
        max_txn_ops: flags.max_txn_ops,
        watch_progress_notify_interval: flags.watch_progress_notify_interval,
        unsafe_no_fsync: flags.unsafe_no_fsync,
    })
}

#[cfg(test)]
mod tests {
    use super::super::read_refusing;
    use super::*;

    fn read(lines: &str) -> Result<(Config, Vec<String>), String> {
        let args: Vec<OsString> = ["etcd"].into_iter().chain(lines.split_whitespace()).map(OsString::from).collect();
        let (flags, ignored) =
            read_refusing(&arguments(&args), &[&IGNORED], REFUSED).map_err(|error| error.to_string())?;
        Ok((config(flags).map_err(|fault| fault.sentence)?, ignored))
    }

    #[test]
    fn etcd_takes_what_envtest_and_kubernetes_own_tests_pass() {
        let (config, ignored) = read(
            "--listen-peer-urls=http://127.0.0.1:40001 --data-dir=/tmp/d --unsafe-no-fsync=true
             --advertise-client-urls=http://127.0.0.1:40002 --listen-client-urls=http://127.0.0.1:40002",
        )
        .expect("taken");
        assert!(config.unsafe_no_fsync && config.data_dir.ends_with("d"));
        assert_eq!(
            (config.listen_client_urls, ignored),
            (config.advertise_client_urls, vec!["--listen-peer-urls".to_owned()])
        );
        let line = "-log-level warn --listen-peer-urls http://127.0.0.1:0 --quota-backend-bytes 8589934592";
        assert_eq!(read(line).expect("taken").0.quota_backend_bytes, 8 << 30);
        assert!(read("--quota-backend-bytes=-1").expect("taken").0.quota_backend_bytes > 1 << 60);
    }

    #[test]
    fn etcd_takes_the_static_pod_that_kubeadm_writes() {
        let said = "--advertise-client-urls=https://192.0.2.1:2379 --cert-file=/p/server.crt --client-cert-auth=true
            --data-dir=/var/lib/etcd --feature-gates=InitialCorruptCheck=true --initial-advertise-peer-urls=https://192.0.2.1:2380
            --initial-cluster=node=https://192.0.2.1:2380 --key-file=/p/server.key
            --listen-client-urls=https://127.0.0.1:2379,https://192.0.2.1:2379 --listen-metrics-urls=http://127.0.0.1:2381
            --listen-peer-urls=https://192.0.2.1:2380 --name=node --peer-cert-file=/p/peer.crt --peer-client-cert-auth=true
            --peer-key-file=/p/peer.key --peer-trusted-ca-file=/p/ca.crt --snapshot-count=10000 --trusted-ca-file=/p/ca.crt
            --watch-progress-notify-interval=5s";
        for said in [
            said,
            &said.replace("--watch", "--experimental-watch"),
            &said.replace("--feature-gates=InitialCorruptCheck", "--experimental-initial-corrupt-check"),
        ] {
            let (config, ignored) = read(said).expect("taken");
            assert!(config.tls.client_cert_auth && config.listen_client_urls.len() == 2);
            assert_eq!(config.initial_advertise_peer_urls, ["https://192.0.2.1:2380"]);
            assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
            assert_eq!(ignored.len(), 6, "{ignored:?}");
        }
    }

    #[test]
    fn what_a_cluster_of_one_can_not_be_is_refused_by_name() {
        for (line, says) in [
            ("--initial-cluster=default=http://a:2380,b=http://b:2380", "--initial-cluster names b"),
            (
                "--initial-cluster-state=existing --data-dir=/nowhere",
                "--initial-cluster-state existing: there is no data",
            ),
            ("--discovery=https://d/x", "--discovery https://d/x can't be had here: this etcd is a cluster of one"),
            ("--auto-tls", "--auto-tls can't be had here: give --cert-file and --key-file"),
            ("--auth-token=jwt,x=y", "--auth-token jwt,x=y can't be had here: there are no users"),
            (
                "--config-file=/etc/etcd.yaml",
                "--config-file /etc/etcd.yaml can't be had here: give its settings as flags",
            ),
            ("--tls-min-version=TLS1.0", "--tls-min-version TLS1.0: give TLS1.2 or TLS1.3"),
            ("--no-such-flag=1", "--no-such-flag"),
        ] {
            let said = read(line).err().unwrap_or_default();
            assert!(said.contains(says), "{line}: {said}");
        }
        assert!(read("--auto-tls=false --cors=* --auth-token=simple --wal-dir=").is_ok());
    }
}
