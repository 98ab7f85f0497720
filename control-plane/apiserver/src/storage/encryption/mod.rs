//! Values encrypted in the store: a store in front of another one that turns what the resources of
//! `--encryption-provider-config` write into upstream's form and back. Nothing else knows of it: caches, watches,
//! lists and guards see plain values and the same revisions. The daemon wraps its store in it.
//!
//! A value that can't be decrypted is handed on as it is: no object's bytes, so it is treated like any other value that
//! can't be read, and the others are served. I/O: reads the configuration again when it may change.

mod cipher;
mod config;
mod counts;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

pub use self::cipher::ENCRYPTED;
pub use self::config::Resources;
use self::counts::Counts;
use super::{
    KeyValue, RangeRequest, RangeResponse, Store, StoreError, StoreEvent, StoreStatus, Txn, TxnOutcome, WatchStream,
    Write,
};

/// How often a configuration that may change is read again, as upstream does.
const RELOAD_EVERY: Duration = Duration::from_secs(60);
/// A configuration names resources and keys: far above any real one.
const MOST_CONFIG_BYTES: u64 = 1 << 20;

/// A store that keeps its values encrypted in another one. Cloning shares the configuration.
#[derive(Clone)]
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    sealing: Sealing,
}

impl EncryptedStore {
    /// A store as the file says; `root` is what all keys of resources begin with (`--etcd-prefix`).
    pub fn open(inner: Arc<dyn Store>, file: &Path, root: &str) -> Result<EncryptedStore, String> {
        let resources = Resources::parse(&read(file)?)?;
        let resources = Arc::new(ArcSwap::from_pointee(resources));
        Ok(EncryptedStore { inner, sealing: Sealing { resources, root: root.to_owned(), counts: Arc::default() } })
    }

    /// Counts what it does from now on.
    pub fn measure(&self, registry: &telemetry::Registry) {
        self.sealing.counts.get_or_init(|| Counts::declare(registry));
    }

    /// Takes the configuration as it is now; the one before stays when it is wrong.
    pub fn reload(&self, file: &Path) -> Result<(), String> {
        self.sealing.resources.store(Arc::new(Resources::parse(&read(file)?)?));
        Ok(())
    }

    /// Follows changes of the file until shutdown.
    pub async fn follow(self, file: PathBuf, shutdown: CancellationToken) {
        let mut last = read(&file).ok();
        loop {
            tokio::select! {
                () = tokio::time::sleep(RELOAD_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
            let now = read(&file).ok();
            if now == last {
                continue;
            }
            let reloaded = self.reload(&file);
            if let Some(counts) = self.sealing.counts.get() {
                counts.reloaded(reloaded.is_ok());
            }
            match reloaded {
                Ok(()) => tracing::info!(file = %file.display(), "the encryption configuration was loaded again"),
                Err(error) => {
                    tracing::error!(file = %file.display(), error, "the encryption configuration is wrong; the one before stays");
                }
            }
            last = now;
        }
    }
}

/// What turns values into stored ones and back. Cloning shares it.
#[derive(Clone)]
struct Sealing {
    resources: Arc<ArcSwap<Resources>>,
    /// Prefix of all keys, without a slash at its end.
    root: String,
    /// Set once the server has metrics.
    counts: Arc<OnceLock<Counts>>,
}

impl Sealing {
    fn encrypted(&self, mut txn: Txn) -> Result<Txn, StoreError> {
        let resources = self.resources.load();
        for write in &mut txn.writes {
            if let Write::Put { key, value, .. } = write {
                let providers = resources.of(&self.root, key);
                let sealed = providers.encrypt(value, key);
                if let Some(counts) = self.counts.get() {
                    counts.sealed(&self.root, key, providers, sealed.is_ok());
                }
                *value = sealed.map_err(|problem| {
                    StoreError::Fault(format!("{} can't be encrypted: {problem}", String::from_utf8_lossy(key)))
                })?;
            }
        }
        Ok(txn)
    }

    /// The values of stored keys in the clear.
    fn decrypted(&self, all: impl Iterator<Item = KeyValue>) -> Vec<KeyValue> {
        let resources = self.resources.load();
        all.map(|kv| self.plain(&resources, kv)).collect()
    }

    fn plain(&self, resources: &Resources, mut kv: KeyValue) -> KeyValue {
        let providers = resources.of(&self.root, &kv.key);
        let opened = providers.decrypt(&kv.value, &kv.key);
        if let Some(counts) = self.counts.get() {
            counts.opened(&self.root, &kv, providers, opened.is_ok());
        }
        match opened {
            Ok(plain) => kv.value = plain,
            Err(problem) => {
                // Whoever can't read the value tells it, once.
                tracing::debug!(key = %String::from_utf8_lossy(&kv.key), problem, "a stored value can't be decrypted");
            }
        }
        kv
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let open = std::fs::File::open(file).and_then(|file| file.take(MOST_CONFIG_BYTES + 1).read_to_end(&mut bytes));
    open.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_CONFIG_BYTES {
        return Err(format!("it is larger than {MOST_CONFIG_BYTES} bytes"));
    }
    Ok(bytes)
}

#[async_trait]
impl Store for EncryptedStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let without_values = request.keys_only || request.count_only;
        let mut answer = self.inner.range(request).await?;
        if !without_values {
            answer.kvs = self.sealing.decrypted(answer.kvs.into_iter());
        }
        Ok(answer)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let outcome = self.inner.txn(self.sealing.encrypted(txn)?).await?;
        let TxnOutcome::Conflict { revision, current } = outcome else { return Ok(outcome) };
        let (sealing, resources) = (&self.sealing, self.sealing.resources.load());
        let current = current.into_iter().map(|kv| kv.map(|kv| sealing.plain(&resources, kv))).collect();
        Ok(TxnOutcome::Conflict { revision, current })
    }

    async fn watch(&self, key: Bytes, end: Bytes, start_revision: i64) -> Result<WatchStream, StoreError> {
        let watch = self.inner.watch(key, end, start_revision).await?;
        let sealing = self.sealing.clone();
        let plain = watch.map(move |batch| {
            let mut batch = batch?;
            let resources = sealing.resources.load();
            let event = |event| match event {
                StoreEvent::Put(kv) => StoreEvent::Put(sealing.plain(&resources, kv)),
                gone => gone,
            };
            batch.events = batch.events.into_iter().map(event).collect();
            Ok(batch)
        });
        Ok(plain.boxed())
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.inner.request_progress().await
    }

    async fn grant_lease(&self, ttl_seconds: i64) -> Result<i64, StoreError> {
        self.inner.grant_lease(ttl_seconds).await
    }

    async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn revision(&self) -> Result<i64, StoreError> {
        self.inner.revision().await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.inner.status().await
    }

    async fn is_stale(&self, key: Bytes) -> Result<bool, StoreError> {
        let (_, stored) = self.inner.get(key.clone()).await?;
        Ok(stored.is_some_and(|kv| self.sealing.resources.load().of(&self.sealing.root, &key).is_stale(&kv.value)))
    }
}
