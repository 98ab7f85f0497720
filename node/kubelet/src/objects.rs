//! ConfigMaps and Secrets that pods of this node refer to, each watched by name while a pod needs it (a kubelet may not
//! list more than that). Does I/O: watches the API. The loop is told when one changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Cache, Informer, informer::Watched};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::runtime::watcher;
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::env::Sources;

/// How long a first list may take before the object is asked for directly, which says what is wrong.
const FIRST_LIST: Duration = Duration::from_secs(2);

/// A pod (by UID) that refers to what changed should look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub pods: Vec<String>,
}

struct Entry<K: 'static> {
    cache: Cache<K>,
    stop: CancellationToken,
    pods: Arc<Mutex<BTreeSet<String>>>,
}

type Key = (String, String);

struct Watches<K: 'static> {
    client: kube::Client,
    entries: Mutex<BTreeMap<Key, Entry<K>>>,
    changed: UnboundedSender<Changed>,
}

impl<K> Watches<K>
where
    K: Watched + kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    fn cache(&self, pod: &str, key: &Key) -> Cache<K> {
        let mut entries = self.entries.lock();
        let entry = entries.entry(key.clone()).or_insert_with(|| {
            let api: Api<K> = Api::namespaced(self.client.clone(), &key.0);
            let stop = CancellationToken::new();
            let pods: Arc<Mutex<BTreeSet<String>>> = Arc::default();
            let (told, changed) = (pods.clone(), self.changed.clone());
            let config = watcher::Config::default().fields(&format!("metadata.name={}", key.1));
            let (cache, _) = Informer::new(api)
                .select(config)
                .on(move |_| {
                    let pods: Vec<String> = told.lock().iter().cloned().collect();
                    let _ = changed.send(Changed { pods });
                })
                .run(stop.clone());
            Entry { cache, stop, pods }
        });
        entry.pods.lock().insert(pod.to_owned());
        entry.cache.clone()
    }

    async fn get(&self, pod: &str, key: &Key) -> Result<Option<Arc<K>>, String> {
        let cache = self.cache(pod, key);
        if tokio::time::timeout(FIRST_LIST, cache.synced()).await.is_ok() && cache.is_synced() {
            return Ok(cache.get_in(&key.0, &key.1));
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.0);
        api.get_opt(&key.1).await.map(|found| found.map(Arc::new)).map_err(|e| crate::api::message(&e))
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

/// Watched objects of all pods.
pub struct Objects {
    maps: Watches<ConfigMap>,
    secrets: Watches<Secret>,
}

impl Objects {
    pub fn new(client: kube::Client, changed: UnboundedSender<Changed>) -> Objects {
        let entries = || Mutex::new(BTreeMap::new());
        Objects {
            maps: Watches { client: client.clone(), entries: entries(), changed: changed.clone() },
            secrets: Watches { client, entries: Mutex::new(BTreeMap::new()), changed },
        }
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
            let found = self.maps.get(pod, &(namespace.to_owned(), name.clone())).await?;
            Ok::<_, String>(found.map(|o| (name, o)))
        };
        let one_secret = |name: String| async move {
            let found = self.secrets.get(pod, &(namespace.to_owned(), name.clone())).await?;
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
    }
}

fn unique(names: Vec<String>) -> BTreeSet<String> {
    names.into_iter().filter(|n| !n.is_empty()).collect()
}
