//! I/O: the etcd daemon: a store, its listeners, and compaction by the clock. The configuration mirrors upstream's
//! flags. Callers: `ferrokube etcd`, and whoever embeds the store and serves it too.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use serving::tls::Policy;
use tokio_util::sync::CancellationToken;

use crate::engine::{Disk, Etcd, Options};
use crate::error::{Error, OpenError};
use crate::server::Server;
pub use crate::server::listen::{ListenError, TlsFiles};
use crate::server::listen::{Listener, bind, connections};

/// How old history is forgotten without anyone asking (`--auto-compaction-mode`, `--auto-compaction-retention`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoCompaction {
    #[default]
    Off,
    /// Keep what is younger than this.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

impl AutoCompaction {
    /// Reads the two flags: `periodic` with a duration (`1h`, `90m`, `300ms`; a bare number is hours) or `revision`
    /// with a number; retention `0` is off.
    pub fn parse(mode: &str, retention: &str) -> Result<AutoCompaction, String> {
        let bad = |what: &str| Err(format!("--auto-compaction-retention {retention:?}: {what}"));
        match mode {
            "revision" => match retention.parse() {
                Ok(0) => Ok(AutoCompaction::Off),
                Ok(keep) if keep > 0 => Ok(AutoCompaction::Revision(keep)),
                _ => bad("give a number of revisions, like 1000"),
            },
            "periodic" | "" => match retention.parse::<u64>() {
                Ok(0) => Ok(AutoCompaction::Off),
                Ok(hours) => Ok(AutoCompaction::Periodic(Duration::from_secs(hours * 3600))),
                Err(_) => match meta::duration::parse(retention) {
                    Ok(Duration::ZERO) => Ok(AutoCompaction::Off),
                    Ok(keep) => Ok(AutoCompaction::Periodic(keep)),
                    Err(_) => bad("give hours as a number, or a duration like 30m"),
                },
            },
            other => Err(format!("--auto-compaction-mode {other:?}: give periodic or revision")),
        }
    }
}

/// What upstream's flags say; field for flag, with upstream's defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// `--name`
    pub name: String,
    /// `--data-dir`
    pub data_dir: PathBuf,
    /// `--listen-client-urls`: `http://`, `https://` (needs a certificate), `unix://`, `unixs://`; port 0 chooses one.
    pub listen_client_urls: Vec<String>,
    /// `--advertise-client-urls`; empty: those listened on.
    pub advertise_client_urls: Vec<String>,
    /// `--initial-advertise-peer-urls`: only shown, as there are no peers.
    pub initial_advertise_peer_urls: Vec<String>,
    /// `--listen-metrics-urls`
    pub listen_metrics_urls: Vec<String>,
    /// `--cert-file`, `--key-file`, `--trusted-ca-file`, `--client-cert-auth`
    pub tls: TlsFiles,
    /// `--tls-min-version`, `--cipher-suites`
    pub tls_policy: Policy,
    /// `--quota-backend-bytes`; 0 is upstream's default of 2 GiB.
    pub quota_backend_bytes: u64,
    /// `--auto-compaction-mode`, `--auto-compaction-retention`
    pub auto_compaction: AutoCompaction,
    /// `--snapshot-count`: commands after which a checkpoint is written; 0 leaves it to the size of the log.
    pub snapshot_count: u64,
    /// `--max-request-bytes`
    pub max_request_bytes: usize,
    /// `--max-txn-ops`
    pub max_txn_ops: usize,
    /// `--watch-progress-notify-interval`
    pub watch_progress_notify_interval: Duration,
    /// `--unsafe-no-fsync`: what is acknowledged may be lost with the machine.
    pub unsafe_no_fsync: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: "default".into(),
            data_dir: "default.etcd".into(),
            listen_client_urls: vec!["http://localhost:2379".into()],
            advertise_client_urls: Vec::new(),
            initial_advertise_peer_urls: vec!["http://localhost:2380".into()],
            listen_metrics_urls: Vec::new(),
            tls: TlsFiles::default(),
            tls_policy: Policy::default(),
            quota_backend_bytes: 0,
            auto_compaction: AutoCompaction::Off,
            snapshot_count: 0,
            max_request_bytes: 3 << 19,
            max_txn_ops: 128,
            watch_progress_notify_interval: Duration::from_secs(600),
            unsafe_no_fsync: false,
        }
    }
}

impl Config {
    /// How the store itself is opened.
    pub fn options(&self) -> Options {
        let defaults = Options::new(&self.data_dir);
        Options {
            quota_bytes: if self.quota_backend_bytes == 0 { defaults.quota_bytes } else { self.quota_backend_bytes },
            max_request_bytes: self.max_request_bytes,
            max_txn_ops: self.max_txn_ops,
            checkpoint_commands: self.snapshot_count,
            disk: if self.unsafe_no_fsync { Disk::Unawaited } else { Disk::Awaited },
            ..defaults
        }
    }
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("opening the store was interrupted")]
    Interrupted,
}

/// A daemon that listens and is not served yet: connections wait.
pub struct Daemon {
    etcd: Etcd,
    server: Server,
    listeners: Vec<Listener>,
    auto_compaction: AutoCompaction,
}

impl Daemon {
    /// Binds the listeners, then opens the store: a port in use leaves no data directory behind.
    pub async fn start(config: Config) -> Result<Daemon, StartError> {
        let (mut listeners, connections) = (Vec::new(), connections());
        for url in &config.listen_client_urls {
            listeners.push(bind(url, &config.tls, &config.tls_policy, &connections).await?);
        }
        let clients = listeners.iter().map(|l| l.url.clone()).collect();
        for url in &config.listen_metrics_urls {
            listeners.push(bind(url, &config.tls, &config.tls_policy, &connections).await?);
        }
        let options = config.options();
        let open = tokio::task::spawn_blocking(move || Etcd::open(options));
        let etcd = open.await.map_err(|_| StartError::Interrupted)??;
        Ok(Daemon::assemble(etcd, config, listeners, clients))
    }

    /// The same around a store that is open already: in one process with its user.
    pub async fn around(etcd: Etcd, config: Config) -> Result<Daemon, StartError> {
        let (mut listeners, connections) = (Vec::new(), connections());
        for url in &config.listen_client_urls {
            listeners.push(bind(url, &config.tls, &config.tls_policy, &connections).await?);
        }
        let clients = listeners.iter().map(|l| l.url.clone()).collect();
        Ok(Daemon::assemble(etcd, config, listeners, clients))
    }

    fn assemble(etcd: Etcd, config: Config, listeners: Vec<Listener>, clients: Vec<String>) -> Daemon {
        let advertised = config.advertise_client_urls;
        let clients = if advertised.is_empty() { clients } else { advertised };
        etcd.publish(config.name, config.initial_advertise_peer_urls, clients);
        let server = Server::new(etcd.clone(), config.watch_progress_notify_interval);
        Daemon { etcd, server, listeners, auto_compaction: config.auto_compaction }
    }

    /// The store, for use in process.
    pub fn store(&self) -> &Etcd {
        &self.etcd
    }

    /// The URLs listened on, with the ports that were chosen.
    pub fn urls(&self) -> Vec<String> {
        self.listeners.iter().map(|l| l.url.clone()).collect()
    }

    /// Serves until `shutdown`; the store is left open.
    pub async fn serve(self, shutdown: CancellationToken) {
        for listener in &self.listeners {
            tracing::info!(url = %listener.url, "serving client traffic");
        }
        let serving = join_all(self.listeners.into_iter().map(|l| l.serve(self.server.clone(), shutdown.clone())));
        let compacting = auto_compact(self.etcd.clone(), self.auto_compaction);
        let ending = async {
            shutdown.cancelled().await;
            self.server.end();
            std::future::pending().await
        };
        tokio::select! {
            _ = serving => {}
            () = compacting => {}
            () = ending => {}
        }
    }
}

/// Runs etcd until `shutdown`, then closes the store in order.
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<(), StartError> {
    let daemon = Daemon::start(config).await?;
    let etcd = daemon.store().clone();
    daemon.serve(shutdown).await;
    let closed = tokio::task::spawn_blocking(move || etcd.close()).await;
    closed.map_err(|_| StartError::Interrupted)
}

/// How often revisions are counted off; upstream's interval.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// Longest interval of periodic compaction; upstream's.
const PERIODIC_INTERVAL: Duration = Duration::from_secs(3600);

/// Compacts by the clock; with nothing to do it never ends and never wakes.
async fn auto_compact(etcd: Etcd, mode: AutoCompaction) {
    let mut last = 0;
    match mode {
        AutoCompaction::Off => std::future::pending().await,
        AutoCompaction::Revision(keep) => loop {
            tokio::time::sleep(REVISION_INTERVAL).await;
            compact(&etcd, etcd.revision() - keep, &mut last).await;
        },
        AutoCompaction::Periodic(keep) => {
            // Revisions seen at each interval within the retention, oldest first.
            let interval = keep.min(PERIODIC_INTERVAL);
            let steps = keep.as_secs().div_ceil(interval.as_secs().max(1)).max(1) as usize;
            let mut seen = std::collections::VecDeque::from([etcd.revision()]);
            loop {
                tokio::time::sleep(interval).await;
                seen.push_back(etcd.revision());
                if seen.len() > steps
                    && let Some(revision) = seen.pop_front()
                {
                    compact(&etcd, revision, &mut last).await;
                }
            }
        }
    }
}

/// The leader decides; others see it in the log.
async fn compact(etcd: &Etcd, revision: i64, last: &mut i64) {
    if revision <= *last || revision <= 1 || !etcd.leadership().leads() {
        return;
    }
    match etcd.compact(revision, false).await {
        // Someone else went further already.
        Ok(_) | Err(Error::Compacted { .. }) => *last = revision,
        Err(e) => tracing::warn!(revision, error = %e, "automatic compaction failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_flags() {
        let hours = |h: u64| AutoCompaction::Periodic(Duration::from_secs(h * 3600));
        assert_eq!(AutoCompaction::parse("periodic", "0"), Ok(AutoCompaction::Off));
        assert_eq!(AutoCompaction::parse("periodic", "8"), Ok(hours(8)));
        assert_eq!(AutoCompaction::parse("", "1h30m"), Ok(AutoCompaction::Periodic(Duration::from_secs(5400))));
        assert_eq!(AutoCompaction::parse("revision", "1000"), Ok(AutoCompaction::Revision(1000)));
        let refused = AutoCompaction::parse("revision", "1h").expect_err("no number");
        assert!(refused.contains("--auto-compaction-retention"), "{refused}");
        assert!(AutoCompaction::parse("weekly", "1").is_err() && AutoCompaction::parse("periodic", "1d").is_err());
    }
}
