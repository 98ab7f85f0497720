//! Follows the configuration: ConfigMaps `coredns` and `coredns-custom` of `kube-system`. Does I/O.
//!
//! What can't be read does not come into force: what was before stays, and the fault is told in the log, by an Event at
//! the ConfigMap and in the metrics. Without a ConfigMap cluster DNS does what it does by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use client::{Cache, EventRecorder, EventType, Informer};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::chain::Live;
use crate::config::Config;
use crate::corefile::values::Fall;
use crate::corefile::{
    Corefile, Facts, Files, Forward, Kubernetes, Pages, Pods, Policy, Records, Server, To, Upstream,
};
use crate::http;
use crate::rights;
use crate::server::Shared;
use crate::wire::Name;
use crate::{cache, corefile};

const NAMESPACE: &str = "kube-system";
/// The ConfigMaps: the configuration, and what it imports.
pub const MAPS: [&str; 2] = [NAME, CUSTOM];
const NAME: &str = "coredns";
const CUSTOM: &str = "coredns-custom";
/// How long questions wait at the start for a configuration that nobody may be allowed to read.
const PATIENCE: Duration = Duration::from_secs(3);

/// What became of configurations.
#[derive(Debug, Default)]
pub struct Counts {
    pub reloads: AtomicU64,
    pub failed: AtomicU64,
}

/// What is in force without a ConfigMap.
pub fn plain(config: &Config, zone: &Name) -> Corefile {
    let reverse: Vec<Name> = ["in-addr.arpa", "ip6.arpa"].into_iter().filter_map(Name::parse).collect();
    let server = |address: &SocketAddr| To::Server(Upstream { address: *address, tls: false, tls_name: None });
    let to = match config.upstreams.is_empty() {
        true => vec![To::File(config.resolv_conf.clone())],
        false => config.upstreams.iter().map(server).collect(),
    };
    let mut forward = Forward::new(vec![Name::root()], to);
    // A server that was slow once is not worse than no server: nobody is passed over, and each has the whole time.
    (forward.policy, forward.max_fails, forward.read_timeout) = (Policy::Preferred, 0, Duration::from_secs(5));
    let zones = std::iter::once(zone.clone()).chain(reverse.clone()).collect();
    let server = Server {
        zones: vec![Name::root()],
        cache: Some(cache::Settings::plain()),
        kubernetes: Some(Kubernetes { zones, fall: Fall::of(reverse) }),
        forwards: vec![forward],
        ..Server::default()
    };
    Corefile { servers: vec![server], records: Some(Records::plain(config.ttl)), pages: Pages::default() }
}

/// Follows the ConfigMaps until `shutdown`.
pub async fn follow(config: Config, zone: Name, client: Client, shared: Arc<Shared>, shutdown: CancellationToken) {
    let wake = Arc::new(Notify::new());
    let inform = |name: &str| {
        let mark = wake.clone();
        let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let kept = config.last_known.as_ref().map(|dir| dir.join(name));
        let informer = Informer::new(Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE)).select(one);
        informer.keep_in(kept.as_deref()).on(move |_| mark.notify_one()).run(shutdown.clone()).0
    };
    let (own, custom) = (inform(NAME), inform(CUSTOM));
    let synced = async {
        own.synced().await;
        custom.synced().await;
    };
    let recorder = EventRecorder::new(client.clone(), "coredns");
    let mut follower = Follower { config, zone, shared, recorder, client, seen: Files::default(), pages: None };
    tokio::select! {
        () = shutdown.cancelled() => return,
        _ = tokio::time::timeout(PATIENCE, synced) => {}
    }
    loop {
        follower.look(&own, &custom, &shutdown).await;
        follower.shared.settle();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = wake.notified() => {}
        }
    }
}

struct Follower {
    config: Config,
    zone: Name,
    shared: Arc<Shared>,
    recorder: EventRecorder,
    client: Client,
    /// What was looked at last, whether it came into force or not.
    seen: Files,
    pages: Option<(Pages, CancellationToken)>,
}

impl Follower {
    async fn look(&mut self, own: &Cache<ConfigMap>, custom: &Cache<ConfigMap>, shutdown: &CancellationToken) {
        let data = |cache: &Cache<ConfigMap>, name| {
            cache.get_in(NAMESPACE, name).and_then(|map| map.data.clone()).unwrap_or_default()
        };
        let files = Files { own: data(own, NAME), custom: data(custom, CUSTOM) };
        if files == self.seen {
            return;
        }
        self.seen = files.clone();
        let shared = self.shared.clone();
        let counts = &shared.counts;
        match self.apply(files, shutdown).await {
            Ok(blocks) => {
                counts.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(blocks, "the configuration of cluster DNS is in force");
                let verified = shared.live().records.as_ref().is_some_and(|records| records.pods == Pods::Verified);
                if verified && rights::is_forbidden(&self.client).await {
                    tracing::error!("{}", rights::NOT_VERIFIED);
                    self.warn(own, "PodsNotVerified", rights::NOT_VERIFIED);
                }
            }
            Err(reason) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%reason, "the configuration of cluster DNS can't be used: the former one stays");
                self.warn(own, "InvalidCorefile", &reason);
            }
        }
    }

    /// Tells something at the ConfigMap.
    fn warn(&self, own: &Cache<ConfigMap>, reason: &str, note: &str) {
        if let Some(map) = own.get_in(NAMESPACE, NAME) {
            self.recorder.event(&client::reference(map.as_ref()), EventType::Warning, reason, note);
        }
    }

    /// Brings a configuration into force; how many blocks it has.
    async fn apply(&mut self, files: Files, shutdown: &CancellationToken) -> Result<usize, String> {
        let (config, zone) = (self.config.clone(), self.zone.clone());
        // Files of the node are read, and expressions compiled.
        let built = tokio::task::spawn_blocking(move || build(&files, &config, &zone)).await;
        let (live, pages) = built.map_err(|error| error.to_string())??;
        if self.pages.as_ref().is_none_or(|(open, _)| *open != pages) {
            // What is open at the same address now would keep it.
            let before = self.pages.take();
            if let Some((_, stop)) = &before {
                stop.cancel();
            }
            match self.open(&pages, shutdown).await {
                Ok(stop) => self.pages = Some((pages, stop)),
                Err(reason) => {
                    if let Some((former, _)) = before {
                        let again = self.open(&former, shutdown).await;
                        self.pages = again.ok().map(|stop| (former, stop));
                    }
                    return Err(reason);
                }
            }
        }
        let blocks = live.servers().len();
        self.shared.set(live);
        Ok(blocks)
    }

    /// Opens pages; what ends them comes back. Those that were there before take a moment to go.
    async fn open(&self, pages: &Pages, shutdown: &CancellationToken) -> Result<CancellationToken, String> {
        const TRIES: u32 = 20;
        const MOMENT: Duration = Duration::from_millis(50);
        let mut last = String::new();
        for _ in 0..TRIES {
            let stop = shutdown.child_token();
            match http::open(pages, &self.config, &self.shared, &stop).await {
                Ok(()) => return Ok(stop),
                Err(error) => last = error.to_string(),
            }
            stop.cancel();
            tokio::time::sleep(MOMENT).await;
        }
        Err(last)
    }
}

/// Reads and prepares a configuration.
fn build(files: &Files, config: &Config, zone: &Name) -> Result<(Live, Pages), String> {
    let zone = zone.to_lowercase();
    let read = match files.corefile() {
        None => plain(config, &zone),
        Some(_) => {
            let port = config.bind.first().map_or(53, SocketAddr::port);
            let facts = Facts { port, domain: zone.clone() };
            corefile::parse(files, &facts).map_err(|wrong| wrong.to_string())?
        }
    };
    let pages = read.pages.clone();
    Ok((Live::new(read, &zone, &config.bind)?, pages))
}
