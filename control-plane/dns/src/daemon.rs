//! The loop of the DNS server: opens the sockets, and keeps the table as the API server's objects are. Does I/O.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use client::{Cache, Delta, Informer, Key};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use parking_lot::{Mutex, RwLock};
use serving::{Connections, Listener, Port};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::bind;
use crate::config::Config;
use crate::forward::Forwarder;
use crate::http;
use crate::records::of_service;
use crate::server::{Shared, Workers, serve_tcp};
use crate::table::Table;
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
}

/// Serves until `shutdown`.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let domain = &config.cluster_domain;
    let zone = Name::parse(domain).filter(|z| z.as_bytes().len() > 1).ok_or_else(|| Error::Domain(domain.clone()))?;
    let own: Vec<IpAddr> = config.bind.iter().map(SocketAddr::ip).collect();
    let forwarder = Forwarder::new(&config.upstreams, config.resolv_conf.clone(), config.bind.clone());
    let shared = Arc::new(Shared {
        table: Arc::new(RwLock::new(Table::new(zone.clone(), config.ttl, &own))),
        forwarder: Arc::new(forwarder),
        questions: AtomicU64::new(0),
        hits: AtomicU64::new(0),
    });
    let workers = listen(&config, &shared, &shutdown).await?;
    follow(client, &shared, &zone, config.ttl, &shutdown).await;
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
        serve_tcp(listener, shared.clone(), shutdown.clone());
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

async fn follow(client: Client, shared: &Shared, zone: &Name, ttl: u32, shutdown: &CancellationToken) {
    let dirty = Arc::new(DirtySet::default());
    let caches = inform(client, &dirty, shutdown);
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
        update(&caches, &dirty, shared, zone, ttl);
        shared.table.write().set_synced();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = dirty.wake.notified() => {}
        }
    }
}

fn inform(client: Client, dirty: &Arc<DirtySet>, shutdown: &CancellationToken) -> Caches {
    let mark = dirty.clone();
    let (services, _) = Informer::new(Api::<Service>::all(client.clone()))
        .on(move |delta| mark.service(Key::of(&**delta.object())))
        .run(shutdown.clone());
    let mark = dirty.clone();
    let (slices, _) = Informer::new(Api::<EndpointSlice>::all(client.clone()))
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

/// Brings what has changed into the table. Names are built before the table is locked.
fn update(caches: &Caches, dirty: &DirtySet, shared: &Shared, zone: &Name, ttl: u32) {
    let namespaces = std::mem::take(&mut *dirty.namespaces.lock());
    let keys = std::mem::take(&mut *dirty.services.lock());
    let serial = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs() as u32);
    let built: Vec<_> = keys
        .into_iter()
        .map(|key| {
            let contribution = caches.services.get(&key).map(|service| {
                let slices = caches.slices.by(BY_SERVICE, &key.to_string());
                let slices: Vec<&EndpointSlice> = slices.iter().map(|s| &**s).collect();
                of_service(&service, &slices, zone, ttl)
            });
            (key, contribution.unwrap_or_default())
        })
        .collect();
    let mut table = shared.table.write();
    for (name, there) in namespaces {
        table.set_namespace(&name, there);
    }
    for (key, contribution) in built {
        table.set(&key, contribution, serial);
    }
}
