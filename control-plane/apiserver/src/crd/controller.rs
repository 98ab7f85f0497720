//! Keeps the registry in step with the stored definitions: settles their status, serves what is established, and
//! empties what is being deleted.
//! I/O: waits on tokio's channels and clock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::convert::{self, Version};
use super::status;
use super::{GROUP, PLURAL};
use crate::bootstrap::{own_call, own_options};
use crate::cache::{Cache, EventType, Scope, Watcher};
use crate::registry::options::{DeleteOptions, Propagation};
use crate::registry::update::{Change, Origin, Part};
use crate::registry::write::meta_text;
use crate::registry::{Registry, Served, Stored, header_spec_of_all};
use crate::server::Core;

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The controller's memory: what it serves, by name of the definition.
pub struct Controller {
    core: Arc<Core>,
    /// Generation of the definition that is being served.
    serving: HashMap<String, (i64, bool)>,
    /// Definitions (by uid) whose objects are being deleted.
    emptying: HashSet<String>,
    shutdown: CancellationToken,
}

impl Controller {
    pub fn new(core: Arc<Core>, shutdown: CancellationToken) -> Controller {
        Controller { core, serving: HashMap::new(), emptying: HashSet::new(), shutdown }
    }

    /// Serves what is stored, then follows. The first half is done before the server takes requests.
    pub async fn start(mut self) {
        let Some(cache) = self.core.registry.load().cache(GROUP, PLURAL) else { return };
        let watcher = self.load(&cache).await;
        tokio::spawn(self.follow(cache, watcher));
    }

    async fn load(&mut self, cache: &Arc<Cache>) -> Watcher {
        let (snapshot, watcher) = cache.snapshot_and_watch(Scope::All);
        let all: Vec<Value> = snapshot.range(&cache.prefix, &Bytes::new()).map(|entry| entry.object()).collect();
        for crd in &all {
            self.changed(crd).await;
        }
        let known: Vec<String> = self.serving.keys().cloned().collect();
        for name in known {
            if !all.iter().any(|crd| meta_text(crd, "name") == name) {
                self.gone(&name);
            }
        }
        watcher
    }

    async fn follow(mut self, cache: Arc<Cache>, mut watcher: Watcher) {
        let shutdown = self.shutdown.clone();
        loop {
            let event = tokio::select! {
                event = watcher.next() => event,
                _ = shutdown.cancelled() => return,
            };
            match event {
                Some(event) if event.event == EventType::Deleted => self.gone(event.entry.name()),
                Some(event) => self.changed(&event.entry.object()).await,
                None => watcher = self.load(&cache).await,
            }
        }
    }

    async fn changed(&mut self, crd: &Value) {
        let name = meta_text(crd, "name").to_owned();
        let others = self.core.objects(GROUP, PLURAL, "");
        let now = meta::time::format(Timestamp::now());
        let settled = status::settled(crd, &others, &now);
        if settled["status"] != crd["status"] {
            self.write_status(&name, &others, &now).await;
        }
        let generation = crd["metadata"]["generation"].as_i64().unwrap_or(0);
        let deleting = crd["metadata"]["deletionTimestamp"].is_string();
        if status::is_true(&settled, "Established") && self.serving.get(&name) != Some(&(generation, deleting)) {
            self.serve(&settled, generation, deleting).await;
            self.serving.insert(name.clone(), (generation, deleting));
        }
        let held = crd["metadata"]["finalizers"].as_array().is_some_and(|list| list.iter().any(|f| f == FINALIZER));
        if deleting && held && self.emptying.insert(meta_text(crd, "uid").to_owned()) {
            tokio::spawn(empty(self.core.clone(), crd.clone(), self.shutdown.clone()));
        }
    }

    async fn write_status(&self, name: &str, others: &[Value], now: &str) {
        let make = |old: &Value| Ok(status::settled(old, others, now));
        if let Err(error) = amend(&self.core, name, "status", make).await {
            tracing::warn!(%error, name, "the status of a definition could not be written");
        }
    }

    async fn serve(&self, crd: &Value, generation: i64, deleting: bool) {
        let versions = convert::versions(crd, &self.core.config.etcd_prefix);
        let Some(storage) = versions.iter().find(|version| version.storage).map(|version| version.kind.clone()) else {
            return;
        };
        let Some(prefix) = storage.storage.as_ref().map(|s| Bytes::from(format!("{}/", s.prefix))) else { return };
        let header = header_spec_of_all(versions.iter().map(|version| &version.kind));
        let cache = self.core.hub.add(prefix, header, convert::reader(&storage, &versions)).await;
        let (group, plural) = (storage.group.clone(), storage.plural.clone());
        let fingerprint = fingerprint(crd, generation);
        self.core.registry.rcu(|registry| {
            let mut new = Registry::clone(registry);
            new.remove_custom(&group, &plural);
            for version in versions.iter().filter(|version| version.served) {
                let store = Stored { cache: cache.clone(), kind: storage.clone() };
                new.insert(served(version, store, fingerprint, deleting));
            }
            new
        });
    }

    fn gone(&mut self, name: &str) {
        self.serving.remove(name);
        let Some((plural, group)) = name.split_once('.') else { return };
        let mut prefix = None;
        self.core.registry.rcu(|registry| {
            let mut new = Registry::clone(registry);
            prefix = new
                .any(group, plural)
                .filter(|s| s.custom)
                .and_then(|s| s.store.as_ref())
                .map(|s| s.cache.prefix.clone());
            new.remove_custom(group, plural);
            new
        });
        if let Some(prefix) = prefix {
            self.core.hub.remove(&prefix);
        }
    }
}

fn served(version: &Version, store: Stored, generation: u64, terminating: bool) -> Served {
    Served {
        kind: version.kind.clone(),
        store: Some(store),
        custom: true,
        message: None,
        generation,
        terminating,
        deprecation: version.deprecation.clone(),
    }
}

/// Tells definitions apart even when one is deleted and another made under its name.
fn fingerprint(crd: &Value, generation: i64) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    (meta_text(crd, "uid"), generation, crd["spec"].to_string()).hash(&mut hasher);
    hasher.finish()
}

async fn amend(
    core: &Core,
    name: &str,
    subresource: &str,
    make: impl FnMut(&Value) -> Result<Value, meta::Status> + Send,
) -> Result<(), meta::Status> {
    let registry = core.registry.load_full();
    let Some(served) = registry.any(GROUP, PLURAL) else { return Ok(()) };
    let options = own_options();
    let part = match served.kind.subresource(subresource) {
        Some(sub) => Part::Sub(sub),
        None => Part::Main,
    };
    let change = Change { part, subresource, name, options: &options, retry: true, origin: Origin::Whole };
    core.change(&own_call("", name), served, &change, make).await.map(drop)
}

/// Deletes every object of a definition, waits until the last is gone, then lets the definition go.
async fn empty(core: Arc<Core>, crd: Value, shutdown: CancellationToken) {
    let (group, plural) = (
        crd["spec"]["group"].as_str().unwrap_or_default(),
        crd["spec"]["names"]["plural"].as_str().unwrap_or_default(),
    );
    let served = core.registry.load().any(group, plural).filter(|served| served.custom).cloned();
    if let Some((served, cache)) =
        served.and_then(|s| s.store.as_ref().map(|store| store.cache.clone()).map(|c| (s, c)))
    {
        let (snapshot, mut watcher) = cache.snapshot_and_watch(Scope::All);
        let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        for entry in snapshot.range(&cache.prefix, &Bytes::new()) {
            let call = own_call(entry.namespace(), entry.name());
            if let Err(error) = core.delete_named(&call, &served, entry.name(), &options).await
                && error.reason != meta::Reason::NotFound
            {
                tracing::warn!(%error, group, plural, "an object of a deleted definition could not be deleted");
            }
        }
        while !cache.is_empty() {
            tokio::select! {
                event = watcher.next() => if event.is_none() { return },
                _ = shutdown.cancelled() => return,
            }
        }
    }
    let name = meta_text(&crd, "name");
    let make = |old: &Value| {
        let mut new = old.clone();
        if let Some(list) = new["metadata"]["finalizers"].as_array_mut() {
            list.retain(|finalizer| finalizer != FINALIZER);
        }
        Ok(new)
    };
    match amend(&core, name, "", make).await {
        Ok(()) => {}
        Err(error) if error.reason == meta::Reason::NotFound => {}
        Err(error) => tracing::warn!(%error, name, "a deleted definition could not be let go"),
    }
}
