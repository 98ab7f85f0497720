//! Keeps the registry in step with the stored definitions: settles their status, serves what is established, and
//! empties what is being deleted.
//! I/O: waits on tokio's channels and clock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use jiff::Timestamp;
use object::meta_text;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::convert::{self, Version};
use super::names::{Conflict, Names};
use super::outline::Outline;
use super::source::{Source, Work};
use super::status;
use super::{GROUP, PLURAL};
use crate::cache::{Cache, Entry, EventType, Scope, Watcher};
use crate::registry::convert::{Conversion, Nop};
use crate::registry::options::{DeleteOptions, Propagation};
use crate::registry::own::{own_call, own_options};
use crate::registry::update::{Change, Origin, Part};
use crate::registry::verbs::Verbs;
use crate::registry::{Registry, Served, Stored, header_spec_of_all};

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The controller's memory, by name of the definition.
pub struct Controller {
    verbs: Arc<Verbs>,
    work: Arc<Work>,
    known: HashMap<String, Known>,
    names: Names,
    /// Definitions (by uid) whose objects are being deleted.
    emptying: HashSet<String>,
    shutdown: CancellationToken,
}

/// What was last seen of a definition.
struct Known {
    revision: i64,
    serving: Option<Serving>,
}

/// What is served of a definition.
struct Serving {
    fingerprint: u64,
    /// In the order of the versions.
    sources: Vec<Arc<Source>>,
}

impl Controller {
    pub fn new(verbs: Arc<Verbs>, work: Arc<Work>, shutdown: CancellationToken) -> Controller {
        let (known, names, emptying) = (HashMap::new(), Names::default(), HashSet::new());
        Controller { verbs, work, known, names, emptying, shutdown }
    }

    /// Serves what is stored, then follows. The first half is done before the server takes requests.
    pub async fn start(mut self) {
        let Some(cache) = self.verbs.objects.registry.load().cache(GROUP, PLURAL) else { return };
        let watcher = self.load(&cache).await;
        tokio::spawn(self.follow(cache, watcher));
    }

    async fn load(&mut self, cache: &Arc<Cache>) -> Watcher {
        let (snapshot, watcher) = cache.snapshot_and_watch(Scope::All);
        let (mut there, mut new) = (HashSet::new(), Vec::new());
        for entry in snapshot.range(&cache.prefix, &Bytes::new()) {
            there.insert(entry.name());
            if self.is_news(entry)
                && let Some(outline) = self.outline(entry)
            {
                // Names that were given are held before anybody asks for one.
                self.names.put(&outline.crd, false);
                new.push((entry.revision, outline));
            }
        }
        let gone: Vec<String> = self.known.keys().filter(|name| !there.contains(name.as_str())).cloned().collect();
        for name in gone {
            self.gone(&name).await;
        }
        for (revision, outline) in new {
            self.changed(revision, outline).await;
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
                Some(event) if event.event == EventType::Deleted => self.gone(event.entry.name()).await,
                Some(event) => {
                    if self.is_news(&event.entry)
                        && let Some(outline) = self.outline(&event.entry)
                    {
                        self.changed(event.entry.revision, outline).await;
                    }
                }
                None => watcher = self.load(&cache).await,
            }
        }
    }

    fn is_news(&self, entry: &Entry) -> bool {
        self.known.get(entry.name()).is_none_or(|known| known.revision < entry.revision)
    }

    fn outline(&self, entry: &Entry) -> Option<Outline> {
        self.work.outlines.fetch_add(1, Ordering::Relaxed);
        Outline::of(entry)
    }

    /// A definition is new or another; it may have given up a name that others of its group wait for.
    async fn changed(&mut self, revision: i64, outline: Outline) {
        let group = outline.group().to_owned();
        if self.settle(revision, outline).await {
            self.settle_waiting(&group).await;
        }
    }

    async fn settle_waiting(&mut self, group: &str) {
        let mut waiting = self.names.waiting(group);
        while let Some(name) = waiting.pop() {
            let entry =
                self.verbs.objects.registry.load().cache(GROUP, PLURAL).and_then(|cache| cache.lookup("", &name));
            let Some((entry, outline)) = entry.and_then(|entry| self.outline(&entry).map(|outline| (entry, outline)))
            else {
                continue;
            };
            if self.settle(entry.revision, outline).await {
                waiting = self.names.waiting(group);
            }
        }
    }

    /// Gives a definition its status and serves it; whether it gave up a name.
    async fn settle(&mut self, revision: i64, mut outline: Outline) -> bool {
        let name = outline.name().to_owned();
        let now = meta::time::format(Timestamp::now());
        let conflict = self.names.conflict(&outline.crd);
        let settled = status::settled(&outline.crd, conflict.as_ref(), &now);
        let unwritten = settled != outline.crd["status"];
        outline.crd["status"] = settled;
        let freed = self.names.put(&outline.crd, conflict.is_some());
        self.serve(revision, &outline).await;
        if unwritten {
            // After it is served: who sees that it is established may use it.
            self.write_status(&name, conflict.as_ref(), &now).await;
        }
        let crd = &outline.crd;
        let held = crd["metadata"]["finalizers"].as_array().is_some_and(|list| list.iter().any(|f| f == FINALIZER));
        if is_deleting(crd) && held && self.emptying.insert(meta_text(crd, "uid").to_owned()) {
            tokio::spawn(empty(self.verbs.clone(), crd.clone(), self.shutdown.clone()));
        }
        freed
    }

    async fn write_status(&self, name: &str, conflict: Option<&Conflict>, now: &str) {
        let make = |old: &Value| {
            let mut new = old.clone();
            new["status"] = status::settled(old, conflict, now);
            Ok(new)
        };
        if let Err(error) = amend(&self.verbs, name, "status", make).await {
            tracing::warn!(%error, name, "the status of a definition could not be written");
        }
    }

    /// Serves a definition as it is now, if it is established and not served so.
    async fn serve(&mut self, revision: i64, outline: &Outline) {
        let print = fingerprint(&outline.crd);
        let known = self.known.entry(outline.name().to_owned()).or_insert(Known { revision, serving: None });
        known.revision = revision;
        if let Some(serving) = known.serving.as_ref().filter(|serving| serving.fingerprint == print) {
            for (index, source) in serving.sources.iter().enumerate() {
                source.move_to(outline.schema(index));
            }
        } else if status::is_true(&outline.crd, "Established")
            && let Some(sources) = publish(&self.verbs, &self.work, outline, print).await
        {
            known.serving = Some(Serving { fingerprint: print, sources });
        }
    }

    async fn gone(&mut self, name: &str) {
        self.known.remove(name);
        self.names.remove(name);
        let Some((plural, group)) = name.split_once('.') else { return };
        let mut prefix = None;
        self.verbs.objects.registry.rcu(|registry| {
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
            self.verbs.objects.hub.remove(&prefix);
        }
        self.settle_waiting(group).await;
    }
}

/// Makes kinds of a definition and serves them; where their schemas come from.
async fn publish(verbs: &Verbs, work: &Arc<Work>, outline: &Outline, fingerprint: u64) -> Option<Vec<Arc<Source>>> {
    let versions = convert::versions(outline, &verbs.objects.root, work);
    let storage = versions.iter().find(|version| version.storage)?.kind.clone();
    let prefix = Bytes::from(format!("{}/", storage.storage.as_ref()?.prefix));
    let header = header_spec_of_all(versions.iter().map(|version| &version.kind));
    let cache = verbs.objects.hub.add(prefix, header, convert::reader(&storage, &versions)).await;
    let (group, plural) = (storage.group.clone(), storage.plural.clone());
    let deleting = is_deleting(&outline.crd);
    verbs.objects.registry.rcu(|registry| {
        let mut new = Registry::clone(registry);
        new.remove_custom(&group, &plural);
        for version in versions.iter().filter(|version| version.served) {
            let store = Stored { cache: cache.clone(), kind: storage.clone() };
            let conversion = Conversion::new(Arc::new(Nop), &new.conversions);
            new.insert(served(version, store, conversion, fingerprint, deleting));
        }
        new
    });
    Some(versions.into_iter().map(|version| version.source).collect())
}

fn is_deleting(crd: &Value) -> bool {
    crd["metadata"]["deletionTimestamp"].is_string()
}

fn served(version: &Version, store: Stored, conversion: Conversion, generation: u64, terminating: bool) -> Served {
    Served {
        kind: version.kind.clone(),
        store: Some(store),
        custom: true,
        message: None,
        generation,
        terminating,
        deprecation: version.deprecation.clone(),
        source: Some(version.source.clone()),
        conversion: Some(conversion),
    }
}

/// Tells definitions apart even when one is deleted and another made under its name. The generation stands for the
/// schemas, which are long.
fn fingerprint(crd: &Value) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    let generation = crd["metadata"]["generation"].as_i64();
    let names = [&crd["spec"], &crd["status"]["acceptedNames"]].map(Value::to_string);
    (meta_text(crd, "uid"), generation, is_deleting(crd), names).hash(&mut hasher);
    hasher.finish()
}

async fn amend(
    verbs: &Verbs,
    name: &str,
    subresource: &str,
    make: impl FnMut(&Value) -> Result<Value, meta::Status> + Send,
) -> Result<(), meta::Status> {
    let registry = verbs.objects.registry.load_full();
    let Some(served) = registry.any(GROUP, PLURAL) else { return Ok(()) };
    let options = own_options();
    let part = match served.kind.subresource(subresource) {
        Some(sub) => Part::Sub(sub),
        None => Part::Main,
    };
    let change = Change { part, subresource, name, options: &options, retry: true, origin: Origin::Whole };
    verbs.change(&own_call("", name), served, &change, make).await.map(drop)
}

/// Deletes every object of a definition, waits until the last is gone, then lets the definition go.
async fn empty(verbs: Arc<Verbs>, crd: Value, shutdown: CancellationToken) {
    let (group, plural) = (
        crd["spec"]["group"].as_str().unwrap_or_default(),
        crd["spec"]["names"]["plural"].as_str().unwrap_or_default(),
    );
    let served = verbs.objects.registry.load().any(group, plural).filter(|served| served.custom).cloned();
    if let Some((served, cache)) =
        served.and_then(|s| s.store.as_ref().map(|store| store.cache.clone()).map(|c| (s, c)))
    {
        let (snapshot, mut watcher) = cache.snapshot_and_watch(Scope::All);
        let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        for entry in snapshot.range(&cache.prefix, &Bytes::new()) {
            let call = own_call(entry.namespace(), entry.name());
            if let Err(error) = verbs.delete_named(&call, &served, entry.name(), &options).await
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
    match amend(&verbs, name, "", make).await {
        Ok(()) => {}
        Err(error) if error.reason == meta::Reason::NotFound => {}
        Err(error) => tracing::warn!(%error, name, "a deleted definition could not be let go"),
    }
}
