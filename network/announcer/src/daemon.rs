//! The loop: hears what this node is to announce, what its links are and what others claim, and keeps ports so. Does I/O.
//!
//! Timers run only while something is being announced anew, in doubt, or to be tried again, and for signs of this node as long
//! as the cluster has anything to announce.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use client::{Cache, Delta, EventRecorder, EventType, Informer, Key};
use facts::announcing::{self, NETWORKS};
use facts::nodes::LEASES;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use linux::clock::since_boot;
use linux::host_address::{self, Scene};
use linux::netlink::Monitor;
use linux::netns::NetNs;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::doubt::{Answer, Doubts};
use crate::frame::Claim;
use crate::links::{self, Place};
use crate::port::Port;
use crate::pulse::Pulse;

/// What kube-proxy's informer leaves out, too: Services that have no addresses.
const SELECTOR: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
/// The waits between announcements of an address that was taken over: one may be lost, and some listen to no second one
/// within a second (RFC 5227 has two, RFC 4861 three).
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// A change of links is a handful of changes: they are looked at this long after the first.
const SETTLE: Duration = Duration::from_millis(100);
/// What failed here is tried again after this long.
const RETRY: Duration = Duration::from_secs(2);
/// An API server that doesn't say within this time whether an address is ours says nothing.
const PATIENCE: Duration = Duration::from_secs(3);
/// Claims of others that wait to be looked at.
const CLAIMS: usize = 64;
/// Who leaves waits no longer for the API server to hear of it.
const LEAVING: Duration = Duration::from_secs(1);

/// Runs until `shutdown`. What fails is tried again: it never ends by itself.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) {
    let (daemon, news) = start(config, client, &shutdown);
    let synced = async { tokio::join!(daemon.services.synced(), daemon.nodes.synced()) };
    tokio::select! {
        _ = synced => {}
        () = shutdown.cancelled() => return,
    }
    daemon.follow(&news, shutdown).await;
}

/// Tells that this node announces nothing any more, for it is about to stop: another takes its place at once, not when this
/// one has been silent for long.
pub async fn leave(client: &Client, node: &str) {
    let done = tokio::time::timeout(LEAVING, tell(client, node, None)).await;
    if !matches!(done, Ok(Ok(()))) {
        tracing::info!("who announces addresses of load balancers is told by this node's silence");
    }
}

async fn tell(client: &Client, node: &str, networks: Option<&str>) -> Result<(), kube::Error> {
    let patch = json!({"metadata": {"annotations": {NETWORKS: networks}}});
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// A sign of this node, in its Lease: any text that is another than the last one.
async fn sign(client: &Client, node: &str) -> Result<(), kube::Error> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let patch = json!({"metadata": {"annotations": {announcing::SIGN: now.to_string()}}});
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    leases.patch_metadata(node, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Does something in the namespace of the configuration.
pub fn inside<T: Send>(config: &Config, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    match &config.netns {
        None => Ok(work()),
        Some(path) => NetNs::open(path)?.run(work),
    }
}

/// What informers tell the loop.
#[derive(Debug, Default)]
struct News {
    /// Services that this node announces, or did. Bounded by those that there are.
    services: Mutex<BTreeSet<Key>>,
    /// All that somebody announces. Bounded the same.
    announced: Mutex<BTreeSet<Key>>,
    wake: Notify,
}

struct Daemon {
    config: Config,
    client: Client,
    services: Cache<Service>,
    nodes: Cache<Node>,
    recorder: EventRecorder,
    /// What each Service has this node announce.
    wanted: BTreeMap<Key, Vec<IpAddr>>,
    scene: Scene,
    ports: BTreeMap<(u32, bool), Port>,
    /// Where each address is announced now.
    placed: BTreeMap<IpAddr, Place>,
    /// Announcements that are to be said again: when, and which of [`AGAIN`] comes next.
    again: BTreeMap<IpAddr, (Instant, usize)>,
    /// Addresses that no link leads to: told once.
    nowhere: BTreeSet<IpAddr>,
    doubts: Doubts,
    claims: (mpsc::Sender<Claim>, mpsc::Receiver<Claim>),
    /// Questions to the API server that are under way, and what is told to it.
    asked: JoinSet<Done>,
    /// Links are to be looked at then.
    look: Option<Instant>,
    /// Ports could not be opened, or the node was not told.
    retry: Option<Instant>,
    telling: bool,
    /// The version of the Node that was told its networks: the next one shows them.
    told: Option<String>,
    pulse: Pulse,
}

/// What the API server was asked for.
enum Done {
    Answered(IpAddr, Answer),
    /// The node's networks; false: it did not take them.
    Told(bool),
    /// That this node is there.
    Signed,
}

fn start(config: Config, client: Client, shutdown: &CancellationToken) -> (Daemon, Arc<News>) {
    let news = Arc::new(News::default());
    let (mark, node) = (news.clone(), config.node.clone());
    let (services, _) = Informer::new(Api::<Service>::all(client.clone()))
        .select(watcher::Config::default().labels(SELECTOR))
        .on(move |delta| {
            let has = |service: &Service| !announcing::of_node(service, &node).is_empty();
            let had = matches!(delta, Delta::Updated { old, .. } if has(old));
            let key = Key::of(&**delta.object());
            let is_announced = !matches!(delta, Delta::Deleted(_)) && announcing::said(delta.object()).is_some();
            let changed = match is_announced {
                true => mark.announced.lock().insert(key),
                false => mark.announced.lock().remove(&key),
            };
            if changed {
                mark.wake.notify_one();
            }
            if had || has(delta.object()) {
                mark.services.lock().insert(Key::of(&**delta.object()));
                mark.wake.notify_one();
            }
        })
        .run(shutdown.clone());
    let mark = news.clone();
    let mine = watcher::Config::default().fields(&format!("metadata.name={}", config.node));
    let (nodes, _) = Informer::new(Api::<Node>::all(client.clone()))
        .select(mine)
        .on(move |_| mark.wake.notify_one())
        .run(shutdown.clone());
    let recorder = EventRecorder::new(client.clone(), "announcer").on_host(&config.node);
    let daemon = Daemon {
        config,
        client,
        services,
        nodes,
        recorder,
        wanted: BTreeMap::new(),
        scene: Scene::default(),
        ports: BTreeMap::new(),
        placed: BTreeMap::new(),
        again: BTreeMap::new(),
        nowhere: BTreeSet::new(),
        doubts: Doubts::default(),
        claims: mpsc::channel(CLAIMS),
        asked: JoinSet::new(),
        look: None,
        retry: None,
        telling: false,
        told: None,
        pulse: Pulse::new(PATIENCE),
    };
    (daemon, news)
}

impl Daemon {
    async fn follow(mut self, news: &News, shutdown: CancellationToken) {
        // First the ears: what changes while it is looked would not be heard of.
        let changes = Changes::open(&self.config);
        self.look = Some(Instant::now());
        loop {
            self.look_if_due().await;
            let dirty = std::mem::take(&mut *news.services.lock());
            dirty.into_iter().for_each(|key| self.take(key));
            self.give_sign(!news.announced.lock().is_empty());
            self.arrange();
            self.tell_networks();
            let due = self.due();
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = news.wake.notified() => {}
                () = changes.next() => self.look = self.look.or(Some(Instant::now() + SETTLE)),
                Some(claim) = self.claims.1.recv() => self.claimed(claim),
                Some(done) = self.asked.join_next() => self.done(done),
                () = timer => {}
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let again = self.again.values().map(|(at, _)| *at).min();
        let sign = self.pulse.next(since_boot()).map(|wait| Instant::now() + wait);
        [self.look, self.retry, again, sign, self.doubts.next().map(Instant::from_std)].into_iter().flatten().min()
    }

    async fn look_if_due(&mut self) {
        let now = Instant::now();
        if self.retry.is_some_and(|at| at <= now) {
            self.retry = None;
        }
        if self.look.is_none_or(|at| at > now) {
            return;
        }
        self.look = None;
        let config = self.config.clone();
        let looked = tokio::task::spawn_blocking(move || inside(&config, host_address::look)).await;
        match looked.map_err(io::Error::other).flatten().map_err(|e| e.to_string()) {
            Ok(Ok(scene)) => self.scene = scene,
            Ok(Err(error)) => self.not_looked(&error.to_string()),
            Err(error) => self.not_looked(&error),
        }
    }

    fn not_looked(&mut self, error: &str) {
        tracing::warn!(error, "this host's links");
        self.look = Some(Instant::now() + RETRY);
    }

    /// What a Service says now.
    fn take(&mut self, key: Key) {
        let service = self.services.get(&key);
        let addresses = service.map(|service| announcing::of_node(&service, &self.config.node)).unwrap_or_default();
        match addresses.is_empty() {
            true => drop(self.wanted.remove(&key)),
            false => drop(self.wanted.insert(key, addresses)),
        }
    }

    /// Has each address announced where it is to be, and no other.
    fn arrange(&mut self) {
        let now = Instant::now();
        let wanted: BTreeSet<IpAddr> = self.wanted.values().flatten().copied().collect();
        self.doubts.keep(|addr| wanted.contains(addr));
        for addr in self.doubts.due(now.into_std()) {
            self.ask(addr);
        }
        self.nowhere.retain(|addr| wanted.contains(addr));
        let mut placed = BTreeMap::new();
        for addr in wanted {
            match links::place(addr, &self.scene, &self.config.own_ranges) {
                Some(_) if self.doubts.is_silent(addr) => {}
                Some(place) => {
                    self.nowhere.remove(&addr);
                    placed.insert(addr, place);
                }
                None => self.leads_nowhere(addr),
            }
        }
        self.keep_ports(&mut placed);
        for (addr, place) in &placed {
            if self.placed.get(addr) != Some(place) {
                tracing::info!(address = %addr, link = place.index, "announcing");
                self.again.insert(*addr, (now, 0));
            }
        }
        for addr in self.placed.keys().filter(|addr| !placed.contains_key(addr)) {
            tracing::info!(address = %addr, "not announcing any more");
        }
        self.again.retain(|addr, _| placed.contains_key(addr));
        self.placed = placed;
        self.announce(now);
    }

    /// Opens, changes and closes ports. Addresses whose port can't be opened are taken out.
    fn keep_ports(&mut self, placed: &mut BTreeMap<IpAddr, Place>) {
        let mut by_port: BTreeMap<(u32, bool), (Place, BTreeSet<IpAddr>)> = BTreeMap::new();
        for (addr, place) in placed.iter() {
            let port = by_port.entry((place.index, addr.is_ipv6())).or_insert((*place, BTreeSet::new()));
            port.1.insert(*addr);
        }
        self.ports
            .retain(|at, port| by_port.get(at).is_some_and(|(place, _)| *place == port.place()) && !port.is_over());
        for (at, (place, addresses)) in by_port {
            if !self.ports.contains_key(&at) {
                match Port::open(&self.config, place, at.1, self.claims.0.clone()) {
                    Ok(port) => drop(self.ports.insert(at, port)),
                    Err(error) => {
                        tracing::warn!(%error, link = place.index, "listening on a link, trying again");
                        self.retry.get_or_insert(Instant::now() + RETRY);
                    }
                }
            }
            match self.ports.get_mut(&at) {
                Some(port) => port.set(addresses),
                None => placed.retain(|addr, _| !addresses.contains(addr)),
            }
        }
    }

    /// Says what is due to be said.
    fn announce(&mut self, now: Instant) {
        for (addr, (at, nth)) in &mut self.again {
            if *at > now {
                continue;
            }
            let port = self.placed.get(addr).and_then(|place| self.ports.get(&(place.index, addr.is_ipv6())));
            if let Some(port) = port {
                port.announce(*addr);
            }
            // After the last one it is out of the table.
            *at = now + AGAIN.get(*nth).copied().unwrap_or_default();
            *nth += 1;
        }
        self.again.retain(|_, (_, nth)| *nth <= AGAIN.len());
    }

    fn service_of(&self, addr: IpAddr) -> Option<&Key> {
        self.wanted.iter().find(|(_, addresses)| addresses.contains(&addr)).map(|(key, _)| key)
    }

    fn warn(&self, addr: IpAddr, reason: &str, note: &str) {
        tracing::warn!(address = %addr, "{note}");
        if let Some(service) = self.service_of(addr).and_then(|key| self.services.get(key)) {
            self.recorder.event(&client::reference(&*service), EventType::Warning, reason, note);
        }
    }

    fn leads_nowhere(&mut self, addr: IpAddr) {
        if self.nowhere.insert(addr) {
            let note = format!("{addr} is not announced: no link of the node {} leads to others", self.config.node);
            self.warn(addr, "NotAnnounced", &note);
        }
    }

    /// Says that this node is there: the one who elects has nothing else to know it by for most of a minute. A process that
    /// was stopped for long asks first whether its addresses are still its own.
    fn give_sign(&mut self, has_addresses: bool) {
        let beat = self.pulse.beat(has_addresses, since_boot());
        if beat.stalled {
            self.stood_still();
        }
        if !beat.sign {
            return;
        }
        let (client, node) = (self.client.clone(), self.config.node.clone());
        self.asked.spawn(async move {
            let signed = tokio::time::timeout(PATIENCE, sign(&client, &node)).await;
            if !matches!(signed, Ok(Ok(()))) {
                tracing::debug!(?signed, "no sign of this node was given, trying again");
            }
            Done::Signed
        });
    }

    fn stood_still(&mut self) {
        tracing::info!("this process stood still: asking whether its addresses are still its own");
        let now = Instant::now().into_std();
        for addr in self.placed.keys().copied().collect::<Vec<_>>() {
            if self.doubts.claimed(addr, now) {
                self.ask(addr);
            }
        }
    }

    fn signed(&mut self) {
        if self.pulse.given(since_boot()) {
            self.stood_still();
        }
    }

    /// Another station says that an address of ours is its own.
    fn claimed(&mut self, claim: Claim) {
        let ours = self.placed.contains_key(&claim.addr) && !links::is_own(claim.mac, &self.scene);
        if ours && self.doubts.claimed(claim.addr, Instant::now().into_std()) {
            tracing::info!(address = %claim.addr, mac = %claim.mac, "another station announces it: asking whether it is ours");
            self.ask(claim.addr);
        }
    }

    fn ask(&mut self, addr: IpAddr) {
        let Some(key) = self.service_of(addr).cloned() else { return };
        let (client, node) = (self.client.clone(), self.config.node.clone());
        self.asked.spawn(async move {
            let services: Api<Service> = Api::namespaced(client, &key.namespace);
            let answer = match tokio::time::timeout(PATIENCE, services.get(&key.name)).await {
                Ok(Ok(service)) if announcing::of_node(&service, &node).contains(&addr) => Answer::Ours,
                _ => Answer::NotKnown,
            };
            Done::Answered(addr, answer)
        });
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = Instant::now();
        match done {
            Ok(Done::Answered(addr, answer)) => {
                if self.doubts.answered(addr, answer, now.into_std()) {
                    let node = &self.config.node;
                    let note =
                        format!("another station of the network answers for {addr}, which the node {node} announces");
                    self.warn(addr, "AddressConflict", &note);
                }
            }
            Ok(Done::Told(taken)) => {
                self.telling = false;
                if !taken {
                    self.told = None;
                    self.retry.get_or_insert(now + RETRY);
                }
            }
            Ok(Done::Signed) => self.signed(),
            Err(error) => {
                tracing::warn!(%error, "asking the API server broke off");
                (self.telling, self.told) = (false, None);
                self.signed();
            }
        }
    }

    /// The Node says which networks this host is on; whoever takes that away finds it there again.
    fn tell_networks(&mut self) {
        let Some(node) = self.nodes.get_in("", &self.config.node) else { return };
        let networks = announcing::networks_text(&links::networks(&self.scene, &self.config.own_ranges));
        let said = node.metadata.annotations.as_ref().and_then(|all| all.get(NETWORKS));
        let version = node.metadata.resource_version.clone();
        if self.telling
            || self.retry.is_some()
            || self.look.is_some()
            || said == Some(&networks)
            || self.told == version
        {
            return;
        }
        (self.telling, self.told) = (true, version);
        let (client, name) = (self.client.clone(), self.config.node.clone());
        self.asked.spawn(async move {
            let told = tokio::time::timeout(PATIENCE, tell(&client, &name, Some(&networks))).await;
            if let Ok(Err(error)) = &told {
                tracing::debug!(%error, "the node was not told its networks, trying again");
            }
            Done::Told(matches!(told, Ok(Ok(()))))
        });
    }
}

/// Changes of the host's links and addresses.
struct Changes(Option<AsyncFd<Monitor>>);

/// A kernel that tells nothing is asked this often.
const BLIND: Duration = Duration::from_secs(10);

impl Changes {
    fn open(config: &Config) -> Changes {
        let opened = inside(config, || Monitor::open(&host_address::TOPICS).map_err(io::Error::other)).flatten();
        // The successor is unsafe; what it asks for holds here: the descriptor is owned and never changes.
        #[allow(deprecated)]
        let opened = opened.and_then(|monitor| AsyncFd::with_interest(monitor, Interest::READABLE));
        Changes(opened.inspect_err(|error| tracing::warn!(%error, "changes of links are looked for")).ok())
    }

    /// Returns when something has changed that may matter. May be dropped and called again.
    async fn next(&self) {
        let Some(fd) = &self.0 else { return tokio::time::sleep(BLIND).await };
        loop {
            let Ok(mut ready) = fd.readable().await else { return tokio::time::sleep(BLIND).await };
            ready.clear_ready();
            let mut matters = false;
            match fd.get_ref().drain(|event| matters |= host_address::matters(&event)) {
                Ok(()) if !matters => {}
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "changes of links");
                    return tokio::time::sleep(BLIND).await;
                }
            }
        }
    }
}
