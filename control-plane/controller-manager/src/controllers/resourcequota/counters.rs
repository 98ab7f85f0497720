//! How many objects of a kind each namespace has, for quotas of `count/<resource>`: one metadata watch for each kind
//! that some quota counts, started when the first one does. I/O: discovery and watches, as the manager's identity.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta};
use kube::core::PartialObjectMeta;
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource as _, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Watches end after this long and go on from where they were; kube allows less than 295 s.
const WATCH_SECONDS: u32 = 290;

type Changed = Arc<Mutex<dyn Fn(&str) + Send>>;
/// Names by namespace.
type Names = HashMap<String, HashSet<String>>;

#[derive(Clone)]
struct Counter {
    names: Arc<Mutex<Names>>,
    synced: watch::Receiver<bool>,
}

/// The running counters. Cheap to clone.
#[derive(Clone)]
pub struct Counters {
    client: kube::Client,
    shutdown: CancellationToken,
    running: Arc<Mutex<HashMap<String, Counter>>>,
    /// Called with a namespace whose number of something changed.
    changed: Changed,
}

impl Counters {
    pub fn new(client: kube::Client, shutdown: CancellationToken, changed: impl Fn(&str) + Send + 'static) -> Counters {
        Counters { client, shutdown, running: Arc::default(), changed: Arc::new(Mutex::new(changed)) }
    }

    /// The number of objects of `resource` (`deployments.apps`) in a namespace; None when it is not served.
    pub async fn count(&self, resource: &str, namespace: &str) -> Option<usize> {
        let mut counter = self.counter(resource).await?;
        counter.synced.wait_for(|done| *done).await.ok()?;
        let names = counter.names.lock();
        Some(names.get(namespace).map_or(0, HashSet::len))
    }

    async fn counter(&self, resource: &str) -> Option<Counter> {
        if let Some(counter) = self.running.lock().get(resource) {
            return Some(counter.clone());
        }
        let served = self.discover(resource).await?;
        let mut running = self.running.lock();
        let counter = running.entry(resource.to_owned()).or_insert_with(|| self.start(served));
        Some(counter.clone())
    }

    async fn discover(&self, resource: &str) -> Option<ApiResource> {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let discovery = match Discovery::new(self.client.clone()).run_aggregated().await {
            Ok(discovery) => discovery,
            Err(error) => {
                tracing::debug!(%error, resource, "discovery failed, trying again");
                return None;
            }
        };
        let found = discovery.get(group)?.resources_by_stability().into_iter().find(|(r, can)| {
            let watched = [verbs::LIST, verbs::WATCH].iter().all(|v| can.supports_operation(v));
            r.plural == plural && can.scope == Scope::Namespaced && watched
        });
        found.map(|(resource, _)| resource)
    }

    fn start(&self, resource: ApiResource) -> Counter {
        let (done, synced) = watch::channel(false);
        let counter = Counter { names: Arc::default(), synced };
        let (this, names, shutdown) = (self.clone(), counter.names.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = this.watch(&resource, &names, &done) => {}
            }
        });
        counter
    }

    async fn watch(&self, resource: &ApiResource, names: &Mutex<Names>, done: &watch::Sender<bool>) {
        let api: Api<client::Item<PartialObjectMeta<DynamicObject>>> = Api::all_with(self.client.clone(), resource);
        let stream = watcher(api, watcher::Config::default().timeout(WATCH_SECONDS)).default_backoff();
        futures::pin_mut!(stream);
        let mut listing = Names::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init) => listing.clear(),
                Ok(watcher::Event::InitApply(object)) => drop(enter(&mut listing, object.meta())),
                Ok(watcher::Event::InitDone) => {
                    let before = std::mem::replace(&mut *names.lock(), std::mem::take(&mut listing));
                    let known: HashSet<String> = before.into_keys().chain(names.lock().keys().cloned()).collect();
                    if !done.send_replace(true) {
                        // Whoever asked first is waiting and needs no waking.
                        continue;
                    }
                    known.iter().for_each(|namespace| self.tell(namespace));
                }
                Ok(watcher::Event::Apply(object)) => {
                    let new = enter(&mut names.lock(), object.meta());
                    new.into_iter().for_each(|namespace| self.tell(&namespace));
                }
                Ok(watcher::Event::Delete(object)) => {
                    let namespace = object.namespace().unwrap_or_default();
                    let name = object.name_any();
                    leave(&mut names.lock(), &namespace, &name);
                    self.tell(&namespace);
                }
                Err(error) => tracing::debug!(%error, resource = resource.plural, "watch failed, trying again"),
            }
        }
    }

    fn tell(&self, namespace: &str) {
        (self.changed.lock())(namespace);
    }
}

/// Notes an object; its namespace when it was not known before.
fn enter(names: &mut Names, object: &ObjectMeta) -> Option<String> {
    let namespace = object.namespace.clone().unwrap_or_default();
    let of_namespace = names.entry(namespace.clone()).or_default();
    of_namespace.insert(object.name.clone().unwrap_or_default()).then_some(namespace)
}

fn leave(names: &mut Names, namespace: &str, name: &str) {
    if let Some(of_namespace) = names.get_mut(namespace) {
        of_namespace.remove(name);
        if of_namespace.is_empty() {
            names.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_counts_once_and_empty_namespaces_go() {
        let mut names = Names::new();
        let object = |name: &str| ObjectMeta {
            namespace: Some("ns".to_owned()),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        assert_eq!(enter(&mut names, &object("a")), Some("ns".to_owned()));
        assert_eq!(enter(&mut names, &object("a")), None);
        assert_eq!(names["ns"].len(), 1);
        leave(&mut names, "ns", "a");
        assert!(names.is_empty());
    }
}
