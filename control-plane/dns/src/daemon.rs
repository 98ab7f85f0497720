//! The loop of the DNS server: opens the sockets, and keeps the table as the API server's objects are. Does I/O.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use client::{Cache, Delta, Informer, Key};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use parking_lot::{Mutex, RwLock};
use serving::{Connections, Listener, Port};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::bind;
use crate::chain::Live;
use crate::config::Config;
use crate::corefile::{Pods, Records};
use crate::http;
use crate::records::{Contribution, of_service};
use crate::server::{Shared, Workers, serve_tcp};
use crate::settings;
use crate::table::{PodAddresses, Table};
use crate::wire::Name;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "service";
/// More threads than this for one address only wait for each other.
const MOST_WORKERS: usize = 4;

/// Why the server ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("DNS cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("cluster domain {0:?} is not a DNS name")]
    Domain(String),
    #[error("{0}")]
    Settings(String),
}

/// Serves until `shutdown`.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let domain = &config.cluster_domain;
    let zone = Name::parse(domain).filter(|z| z.as_bytes().len() > 1).ok_or_else(|| Error::Domain(domain.clone()))?;
    let own: Vec<IpAddr> = config.bind.iter().map(SocketAddr::ip).collect();
    let plain = settings::plain(&config, &zone.to_lowercase());
    let live = Live::new(plain, &zone.to_lowercase(), &config.bind).map_err(Error::Settings)?;
    let table = Table::new(zone.clone(), config.ttl, &own);
    let shared = Arc::new(Shared::new(table, live));
    let workers = listen(&config, &shared, &shutdown).await?;
    tokio::spawn(settings::follow(config.clone(), zone.clone(), client.clone(), shared.clone(), shutdown.clone()));
    let names = Names { client: client.clone(), zone, own, records: Records::plain(config.ttl), verified: None };
    follow(client, &shared, names, config.last_known.as_deref(), &shutdown).await;
    let stopped = tokio::task::spawn_blocking(move || workers.into_iter().for_each(Workers::stop)).await;
    if let Err(error) = stopped {
        tracing::warn!(%error, "a DNS worker ended badly");
    }
    Ok(())
}

async fn listen(config: &Config, shared: &Arc<Shared>, shutdown: &CancellationToken) -> Result<Vec<Workers>, Error> {
    http::serve(config, shared, shutdown).await?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
    let count = if config.workers == 0 { cores } else { config.workers };
    if let Some(table) = &config.untracked_table
        && let Err(error) = bind::untrack(table, &config.bind)
    {
        tracing::warn!(%error, "DNS questions are tracked as connections");
    }
    let mut workers = Vec::new();
    let connections = Connections::of(Port::DnsTcp);
    for address in &config.bind {
        let wrong = |source| Error::Bind { address: *address, source };
        let listener = Listener::bind_within(connections.clone(), *address).await.map_err(wrong)?;
        workers.push(Workers::start(*address, count, shared).map_err(wrong)?);
        serve_tcp(listener, *address, shared.clone(), shutdown.clone());
    }
    Ok(workers)
}

/// What changed since the loop last looked: informers mark it and wake the loop.
#[derive(Debug, Default)]
struct DirtySet {
    services: Mutex<BTreeSet<Key>>,
    namespaces: Mutex<Vec<(String, bool)>>,
    wake: Notify,
}

impl DirtySet {
    fn service(&self, key: Key) {
        self.services.lock().insert(key);
        self.wake.notify_one();
    }
}

struct Caches {
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    namespaces: Cache<Namespace>,
}

/// How names are made now.
struct Names {
    client: Client,
    zone: Name,
    own: Vec<IpAddr>,
    records: Records,
    /// The addresses of pods, while they are to be verified, and what ends looking at them.
    verified: Option<(Arc<RwLock<PodAddresses>>, DropGuard)>,
}

async fn follow(client: Client, shared: &Shared, mut names: Names, kept: Option<&Path>, shutdown: &CancellationToken) {
    let dirty = Arc::new(DirtySet::default());
    let caches = inform(client, &dirty, kept, shutdown);
    let synced = async {
        caches.services.synced().await;
        caches.slices.synced().await;
        caches.namespaces.synced().await;
    };
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = synced => {}
    }
    loop {
        let wanted = shared.live().records.clone();
        match wanted.filter(|wanted| *wanted != names.records) {
            Some(records) => names.rebuild(records, &caches, &dirty, shared, shutdown),
            None => names.update(&caches, &dirty, shared),
        }
        shared.table.write().set_synced();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = dirty.wake.notified() => {}
            () = shared.changed.notified() => {}
        }
    }
}

fn inform(client: Client, dirty: &Arc<DirtySet>, kept: Option<&Path>, shutdown: &CancellationToken) -> Caches {
    let mark = dirty.clone();
    let (services, _) = Informer::new(Api::<Service>::all(client.clone()))
        .keep_in(kept)
        .on(move |delta| mark.service(Key::of(&**delta.object())))
        .run(shutdown.clone());
    let mark = dirty.clone();
    let (slices, _) = Informer::new(Api::<EndpointSlice>::all(client.clone()))
        .keep_in(kept)
        .index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect())
        .on(move |delta| {
            if let Delta::Updated { old, .. } = delta
                && let Some(key) = service_of(old)
            {
                mark.service(key);
            }
            if let Some(key) = service_of(delta.object()) {
                mark.service(key);
            }
        })
        .run(shutdown.clone());
    let mark = dirty.clone();
    let (namespaces, _) = Informer::new(Api::<Namespace>::all(client))
        .keep_in(kept)
        .on(move |delta| {
            let name = delta.object().metadata.name.clone().unwrap_or_default();
            mark.namespaces.lock().push((name, !matches!(delta, Delta::Deleted(_))));
            mark.wake.notify_one();
        })
        .run(shutdown.clone());
    Caches { services, slices, namespaces }
}

/// The Service that a slice belongs to.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

impl Names {
    /// Makes all names anew, in another way.
    fn rebuild(
        &mut self,
        records: Records,
        caches: &Caches,
        dirty: &DirtySet,
        shared: &Shared,
        shutdown: &CancellationToken,
    ) {
        if records.pods != Pods::Verified {
            self.verified = None;
        } else if self.verified.is_none() {
            let stop = shutdown.child_token();
            self.verified = Some((verify(self.client.clone(), &stop), stop.drop_guard()));
        }
        self.records = records;
        let mut table = Table::new(self.zone.clone(), self.records.ttl, &self.own);
        let verified = self.verified.as_ref().map(|(pods, _)| pods.clone()).unwrap_or_default();
        table.set_pods(self.records.pods, verified);
        dirty.namespaces.lock().clear();
        dirty.services.lock().clear();
        for namespace in caches.namespaces.list() {
            self.set_namespace(&mut table, namespace.metadata.name.as_deref().unwrap_or_default(), true);
        }
        for service in caches.services.list() {
            let key = Key::of(&*service);
            let contribution = self.contribution(&key, caches);
            table.set(&key, contribution, serial());
        }
        table.set_synced();
        *shared.table.write() = table;
    }

    /// Brings what has changed into the table. Names are built before the table is locked.
    fn update(&self, caches: &Caches, dirty: &DirtySet, shared: &Shared) {
        let namespaces = std::mem::take(&mut *dirty.namespaces.lock());
        let keys = std::mem::take(&mut *dirty.services.lock());
        let built: Vec<_> = keys
            .into_iter()
            .map(|key| {
                let contribution = self.contribution(&key, caches);
                (key, contribution)
            })
            .collect();
        let mut table = shared.table.write();
        for (name, there) in namespaces {
            self.set_namespace(&mut table, &name, there);
        }
        let serial = serial();
        for (key, contribution) in built {
            table.set(&key, contribution, serial);
        }
    }

    fn set_namespace(&self, table: &mut Table, name: &str, there: bool) {
        let shown = self.records.namespaces.as_ref().is_none_or(|some| some.contains(name));
        table.set_namespace(name, there && shown);
    }

    /// What a Service has; nothing when there is none.
    fn contribution(&self, key: &Key, caches: &Caches) -> Contribution {
        let Some(service) = caches.services.get(key) else { return Contribution::default() };
        let slices = caches.slices.by(BY_SERVICE, &key.to_string());
        let slices: Vec<&EndpointSlice> = slices.iter().map(|s| &**s).collect();
        of_service(&service, &slices, &self.zone, &self.records)
    }
}

/// The number of the zone's version.
fn serial() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs() as u32)
}

/// Follows the addresses of all pods.
fn verify(client: Client, stop: &CancellationToken) -> Arc<RwLock<PodAddresses>> {
    let pods = Arc::new(RwLock::new(PodAddresses::default()));
    let marked = pods.clone();
    let (cache, _) = Informer::new(Api::<Pod>::all(client))
        .on(move |delta| {
            let mut pods = marked.write();
            let (old, new) = match delta {
                Delta::Added(pod) => (None, Some(pod)),
                Delta::Updated { old, new } => (Some(old), Some(new)),
                Delta::Deleted(pod) => (Some(pod), None),
            };
            old.into_iter().for_each(|pod| addresses(pod).for_each(|(n, a)| pods.remove(n, a)));
            new.into_iter().for_each(|pod| addresses(pod).for_each(|(n, a)| pods.add(n, a)));
        })
        .run(stop.clone());
    let (known, stop) = (pods.clone(), stop.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = cache.synced() => known.write().synced = true,
        }
    });
    pods
}

/// The namespace and the addresses of a pod.
fn addresses(pod: &Pod) -> impl Iterator<Item = (&str, IpAddr)> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let all = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    all.filter_map(|ip| ip.ip.parse().ok()).map(move |ip| (namespace, ip))
}
