//! ConfigMaps and Secrets that pods of this node refer to, each watched by name while a pod needs it (a kubelet may not
//! list more than that), and ClusterTrustBundles by name or signer. Does I/O: watches the API. The loop is told when one
//! changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Informer, informer::Watched};
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::ListParams;
use kube::runtime::watcher;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::messages::{Mailbox, Message};
use crate::pod::env::Sources;

/// How long a first list may take before the object is asked for directly, which says what is wrong.
const FIRST_LIST: Duration = Duration::from_secs(2);

struct Entry<K: 'static> {
    cache: Cache<K>,
    stop: CancellationToken,
    pods: Arc<Mutex<BTreeSet<String>>>,
}

/// Namespace (empty for kinds that have none) and the field selector of what is watched.
type Key = (String, String);

struct Watches<K: 'static> {
    client: kube::Client,
    /// Where the kind lives in a namespace.
    api: fn(kube::Client, &str) -> Api<K>,
    entries: Mutex<BTreeMap<Key, Entry<K>>>,
    changed: Mailbox,
}

impl<K> Watches<K>
where
    K: Watched + kube::Resource<DynamicType = ()>,
{
    fn new(client: kube::Client, changed: Mailbox, api: fn(kube::Client, &str) -> Api<K>) -> Watches<K> {
        Watches { client, api, entries: Mutex::default(), changed }
    }

    fn api(&self, namespace: &str) -> Api<K> {
        (self.api)(self.client.clone(), namespace)
    }

    fn cache(&self, pod: &str, key: &Key) -> Cache<K> {
        let mut entries = self.entries.lock();
        let entry = entries.entry(key.clone()).or_insert_with(|| {
            let stop = CancellationToken::new();
            let pods: Arc<Mutex<BTreeSet<String>>> = Arc::default();
            let (told, changed) = (pods.clone(), self.changed.clone());
            let config = watcher::Config::default().fields(&key.1);
            let (cache, _) = Informer::new(self.api(&key.0))
                .select(config)
                .on(move |_| {
                    let pods: Vec<String> = told.lock().iter().cloned().collect();
                    changed.send(Message::Changed { pods });
                })
                .run(stop.clone());
            Entry { cache, stop, pods }
        });
        entry.pods.lock().insert(pod.to_owned());
        entry.cache.clone()
    }

    /// The watched cache, unless its first list does not come.
    async fn synced(&self, pod: &str, key: &Key) -> Option<Cache<K>> {
        let cache = self.cache(pod, key);
        let done = tokio::time::timeout(FIRST_LIST, cache.synced()).await.is_ok() && cache.is_synced();
        done.then_some(cache)
    }

    async fn get(&self, pod: &str, namespace: &str, name: &str) -> Result<Option<Arc<K>>, String> {
        let key = (namespace.to_owned(), format!("metadata.name={name}"));
        if let Some(cache) = self.synced(pod, &key).await {
            return Ok(cache.get_in(namespace, name));
        }
        let found = self.api(namespace).get_opt(name).await;
        found.map(|found| found.map(Arc::new)).map_err(|e| crate::api::message(&e))
    }

    /// Everything that the key selects.
    async fn list(&self, pod: &str, key: &Key) -> Result<Vec<Arc<K>>, String> {
        if let Some(cache) = self.synced(pod, key).await {
            return Ok(cache.list());
        }
        let found = self.api(&key.0).list(&ListParams::default().fields(&key.1)).await;
        found.map(|found| found.items.into_iter().map(Arc::new).collect()).map_err(|e| crate::api::message(&e))
    }

    fn forget(&self, pod: &str) {
        self.entries.lock().retain(|_, entry| {
            let mut pods = entry.pods.lock();
            pods.remove(pod);
            if pods.is_empty() {
                entry.stop.cancel();
            }
            !pods.is_empty()
        });
    }
}

/// ClusterTrustBundles by the field selector that was asked for.
pub type Bundles = BTreeMap<String, Vec<Arc<ClusterTrustBundle>>>;

/// Watched objects of all pods.
pub struct Objects {
    maps: Watches<ConfigMap>,
    secrets: Watches<Secret>,
    bundles: Watches<ClusterTrustBundle>,
}

impl Objects {
    pub fn new(client: kube::Client, changed: Mailbox) -> Objects {
        Objects {
            maps: Watches::new(client.clone(), changed.clone(), Api::namespaced),
            secrets: Watches::new(client.clone(), changed.clone(), Api::namespaced),
            bundles: Watches::new(client, changed, |client, _| Api::all(client)),
        }
    }

    /// What each of the field selectors finds among ClusterTrustBundles, all at once.
    pub async fn bundles(&self, pod: &str, selectors: Vec<String>) -> Result<Bundles, String> {
        let one = |selector: String| async move {
            let found = self.bundles.list(pod, &(String::new(), selector.clone())).await?;
            Ok::<_, String>((selector, found))
        };
        Ok(futures::future::try_join_all(unique(selectors).into_iter().map(one)).await?.into_iter().collect())
    }

    /// The named objects, all at once; the ones that do not exist are left out.
    pub async fn sources(
        &self,
        pod: &str,
        namespace: &str,
        maps: Vec<String>,
        secrets: Vec<String>,
    ) -> Result<Sources, String> {
        let one_map = |name: String| async move {
            let found = self.maps.get(pod, namespace, &name).await?;
            Ok::<_, String>(found.map(|o| (name, o)))
        };
        let one_secret = |name: String| async move {
            let found = self.secrets.get(pod, namespace, &name).await?;
            Ok::<_, String>(found.map(|o| (name, o)))
        };
        let (maps, secrets) = futures::try_join!(
            futures::future::try_join_all(unique(maps).into_iter().map(one_map)),
            futures::future::try_join_all(unique(secrets).into_iter().map(one_secret)),
        )?;
        Ok(Sources {
            config_maps: maps.into_iter().flatten().collect(),
            secrets: secrets.into_iter().flatten().collect(),
        })
    }

    /// The pod needs nothing any more.
    pub fn forget(&self, pod: &str) {
        self.maps.forget(pod);
        self.secrets.forget(pod);
        self.bundles.forget(pod);
    }
}

fn unique(names: Vec<String>) -> BTreeSet<String> {
    names.into_iter().filter(|n| !n.is_empty()).collect()
}
