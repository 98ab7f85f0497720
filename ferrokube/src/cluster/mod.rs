//! A host's part of the cluster in one process: how components are started in order, what they share, and how they stop.
//!
//! Which components there are is said by the table `components::COMPONENTS`; here only what a row is ([`Component`]). Each
//! gets what it needs from the [`Assembly`], speaks the API under an identity of its own ([`crate::api`]) and leaves its
//! task there. Called by `server`; `down` and `reset` use [`cleanup`].

mod addons;
pub mod cleanup;
mod cluster_info;
pub mod control_plane;
mod families;
mod firewall;
pub mod flannel;
mod folder;
mod foreign;
mod images;
mod kubelet_config;
mod moving;
pub mod node;
mod nodes;
mod parts;
mod patience;
mod pod_network;
mod pods_door;
mod ready;
mod renewal;
pub mod store;
mod told;

use std::ffi::OsString;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::pod_network::PodNetwork;
use anyhow::{Context, Result, anyhow};
use apiserver::storage::Store;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::parts::{Parts, Restarts};
use self::patience::{LOOK, Patience, Signs, Word, cpu_time};
use crate::api::{Api, Identity};
use crate::balancer::Balancer;
use crate::config::{Foreign, Host, Network, Roles};
use crate::crash;
use crate::fault::{Fault, best_effort};
use crate::nodes::{self as nodes_of_host, close};
use crate::pki::Pki;
use crate::progress::{Progress, Steps};

pub use cleanup::{note_controllers, remove_kernel_objects, stop_pods};
pub use control_plane::settings as server_settings;
pub use node::{runtime_config, shutdown_grace};
pub use ready::dns as dns_answers;

/// After the grace of its pods a node has this long to end by itself.
const NODE_GRACE: Duration = Duration::from_secs(2);

/// Resolves when a component that was started does its work.
type Serving = BoxFuture<'static, Result<()>>;

/// What ending pods by groups takes beside their times.
const LEAVING_SLACK: Duration = Duration::from_secs(2);

/// One part of the cluster: a row of the table.
pub struct Component {
    /// Upstream's name; also what a link to the program is called that runs it alone.
    pub name: &'static str,
    /// What a person reads when it does its work.
    pub step: &'static str,
    /// Whose part it is: it is started on hosts that have the role.
    pub roles: Roles,
    /// It is started again by itself when it ends: its state is the API's, the kernel's or the runtime's. Without one of
    /// the others the whole daemon is.
    pub restarts: bool,
    /// The crate whose lines in the log are its own.
    pub writer: &'static str,
    /// Starts it beside the others of its host. What is answered resolves when it does its work.
    pub start: for<'a> fn(&'a mut Assembly) -> BoxFuture<'a, Result<Serving>>,
    /// Runs it and nothing else, until a signal, as these flags of upstream's say.
    pub alone: fn(&[OsString]) -> Result<()>,
}

/// What the components share, and what each left behind.
pub struct Assembly {
    pub host: Arc<Host>,
    pub pki: Pki,
    /// The addresses by which pods and others reach this host, one a family, as they change.
    pub node_ip: watch::Sender<Vec<IpAddr>>,
    /// The rows that this host starts.
    components: Vec<&'static Component>,
    /// The etcd of this process, if it has one.
    etcd: Option<etcd::Etcd>,
    store: Option<Arc<dyn Store>>,
    /// The keys of the cluster were made by this start.
    new_keys: bool,
    /// None until the runtime is started.
    network: Option<Arc<dyn PodNetwork>>,
    /// None until kube-apiserver is started here.
    api: Option<Api>,
    parts: Parts,
    restarts: Restarts,
    /// Of who has long work to do while the cluster starts.
    word: Word,
    /// The folder of images was imported: pods may need what is in it.
    images: client::Latch,
    /// The node is about to stop, and its pods have ended.
    leaving: (client::Latch, client::Latch),
}

/// Whether a host starts a row: it has the role, flannel is its pod network, and it isn't left to the cluster.
fn runs(host: &Host, component: &Component) -> bool {
    let connects = component.name != flannel::NAME || host.cluster.network() == Network::Flannel;
    host.roles().has(component.roles) && connects && !host.cluster.leaves(component.name)
}

impl Assembly {
    /// Starts the components of this host's roles and waits until each does its work, telling how long that took. A
    /// start that fails leaves no component running.
    pub async fn start(host: Host, all: &'static [Component], steps: Steps) -> Result<Assembly> {
        let began = Instant::now();
        // A host without another address has the one on its nodes' link.
        nodes_of_host::link(&host, || crate::node_address::all(&host)).context("the link between nodes")?;
        let addresses = crate::node_address::all(&host);
        let new_keys = !Pki::of(&host).ca().exists();
        let pki = Pki::ensure(&host, &addresses)?;
        if host.roles().has(Roles::CONTROL_PLANE) {
            crate::kubeconfig::write_admin(&host, &pki)?;
            crate::hardening::write(&host)?;
        }
        steps.done("Certificates and keys", began);
        if let Some(sentence) = crate::node_address::lacks(&host, &addresses).filter(|_| host.roles().has(Roles::NODE))
        {
            tracing::info!("{sentence}");
            steps.report(&Progress::Note { sentence });
        }
        let mut assembly = Assembly {
            components: all.iter().filter(|component| runs(&host, component)).collect(),
            api: host.options.credentials.as_deref().map(Api::at),
            host: Arc::new(host),
            pki,
            node_ip: watch::Sender::new(addresses),
            etcd: None,
            store: None,
            new_keys,
            network: None,
            parts: Parts::default(),
            restarts: Restarts::default(),
            word: Word::default(),
            images: client::Latch::default(),
            leaving: Default::default(),
        };
        let started = async {
            let known = assembly.find_servers().await?;
            assembly.leave_to_cluster(known, all, steps).await?;
            assembly.open_firewall().await?;
            assembly.start_all(steps).await?;
            assembly.look_after_host().await
        };
        match started.await {
            Ok(()) => Ok(assembly),
            Err(error) => {
                assembly.stop_parts().await;
                Err(error)
            }
        }
    }

    /// What goes on beside the components, once all are there.
    async fn look_after_host(&mut self) -> Result<()> {
        if self.host.roles().has(Roles::NODE) {
            let (host, node) = (self.host.clone(), self.client(&self.node()).await?);
            self.parts.run("firewall", |stop| firewall::run(host, node, stop));
            let (config, node) = (node::announcer(&self.host), self.client(&self.node()).await?);
            self.parts.run(node::ANNOUNCER, |stop| async move {
                announcer::run(config, node, stop).await;
                Ok(())
            });
        }
        if self.host.has_joined() && self.host.cluster.foreign.is_none() {
            let (host, node) = (self.host.clone(), self.client(&self.node()).await?);
            self.parts.run("families", |stop| families::run(host, node, stop));
        }
        let (host, node_ip, api) = (self.host.clone(), self.node_ip.clone(), self.api()?.clone());
        self.parts.run("address", |stop| moving::run(host, node_ip, api, stop));
        let (host, node_ip, node) = (self.host.clone(), self.node_ip.clone(), self.client(&self.node()).await?);
        self.parts.run("certificates", |stop| renewal::run(host, node, node_ip, stop));
        if self.host.roles().has(Roles::CONTROL_PLANE) {
            let (host, admin) = (self.host.clone(), self.client(&Identity::Admin).await?);
            self.parts.run("folder", |stop| folder::run(host, admin, stop));
            let (host, admin, node_ip) =
                (self.host.clone(), self.client(&Identity::Admin).await?, self.node_ip.subscribe());
            self.parts.run("cluster-info", |stop| cluster_info::run(host, admin, node_ip, stop));
        }
        Ok(())
    }

    /// A node alone reaches the API servers by one port, before anything asks for one. It learns which there are once the
    /// answer is set: it may not everywhere.
    async fn find_servers(&mut self) -> Result<client::Latch> {
        let learns = client::Latch::default();
        if self.host.has_joined() {
            let balancer = Balancer::open(&self.host).await?;
            let (node, wait) = (self.client(&self.node()).await?, learns.clone());
            self.parts.run("api-servers", |stop| balancer.run(node, wait, stop));
        }
        Ok(learns)
    }

    /// What a cluster whose control plane isn't ours does by itself is left to it, and told.
    async fn leave_to_cluster(&mut self, learns: client::Latch, all: &'static [Component], steps: Steps) -> Result<()> {
        let Some(mut foreign) = self.host.cluster.foreign.clone() else {
            learns.set();
            return Ok(());
        };
        let mut host = self.learn_of(&mut foreign).await?;
        match foreign::ask(self.client(&self.node()).await?, &host.cluster).await {
            Ok(left) => foreign.left = left,
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the cluster does not say what its nodes may: it is as it was last"
            ),
        }
        let before = host.cluster.foreign.replace(foreign);
        let ran = |name: &str| before.as_ref().is_some_and(|before| !before.left.iter().any(|left| left == name));
        // What a former start made here would go on leading packets, and nobody would change it any more.
        if ran("kube-proxy") && host.cluster.leaves("kube-proxy") {
            proxy::remove(&node::proxy_table(&host)).context("the rules of a kube-proxy that ran here before")?;
        }
        if ran("kube-dns") && host.cluster.leaves("kube-dns") {
            dns::track_again(&node::dns_table(&host)).context("the rules of a DNS that ran here before")?;
            let released =
                host.cluster.tenth_of_services().into_iter().try_for_each(|ip| dns::release(node::DNS_LINK, ip));
            released.context("the address of a DNS that ran here before")?;
        }
        if before != host.cluster.foreign {
            host.save()?;
        }
        let kubelets = kubelet_config::told(&host);
        // Whoever may not read EndpointSlices has the servers that it was given.
        if !host.cluster.leaves("kube-proxy") {
            learns.set();
        }
        for sentence in foreign::told(&host.cluster).into_iter().chain(kubelets) {
            tracing::info!("{sentence}");
            steps.report(&Progress::Note { sentence });
        }
        self.components = all.iter().filter(|component| runs(&host, component)).collect();
        self.host = Arc::new(host);
        Ok(())
    }

    /// The host with what such a cluster says by now of its families and to its kubelets.
    async fn learn_of(&self, foreign: &mut Foreign) -> Result<Host> {
        let node = self.client(&self.node()).await?;
        let (cluster, looked) = tokio::join!(
            families::at_start(&self.host, node.clone()),
            kubelet_config::look(&self.host, node.clone(), foreign)
        );
        if let Err(error) = looked {
            let error = format!("{error:#}");
            tracing::warn!(error, "what the cluster says to its kubelets (kubelet-config) is as it was last");
        }
        let host = Host { cluster, ..(*self.host).clone() };
        if host.cluster.pod_cidr != self.host.cluster.pod_cidr {
            self.node_ip.send_replace(crate::node_address::all(&host));
        }
        Ok(host)
    }

    /// Where it is asked for, before the first pod sends anything.
    async fn open_firewall(&self) -> Result<()> {
        if !self.host.open_firewall || !self.host.roles().has(Roles::NODE) {
            return Ok(());
        }
        let host = self.host.clone();
        let closed = tokio::task::spawn_blocking(move || firewall::look(&host)).await??;
        if closed.is_empty() { Ok(()) } else { Err(Fault::failed(closed.join("; and ")).into()) }
    }

    async fn start_all(&mut self, steps: Steps) -> Result<()> {
        let mut waiting = JoinSet::new();
        for component in self.components.clone() {
            let began = Instant::now();
            let serving = (component.start)(self).await.with_context(|| component.name)?;
            self.restarts.started(component.name, began);
            waiting.spawn(async move {
                serving.await.with_context(|| component.name)?;
                steps.done(component.step, began);
                anyhow::Ok(component.name)
            });
        }
        let nodes = match self.host.roles().has(Roles::CONTROL_PLANE) {
            true => nodes::start(self, steps).await?,
            false => ready::already(),
        };
        let mut missing: Vec<_> = self.components.iter().map(|c| c.name).collect();
        let mut patience = Patience::new(self.signs(missing.len(), None), Instant::now());
        if ready::goes_on_alone(&self.host) || self.host.cluster.foreign.is_some() {
            patience = patience.alone();
        }
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                one = waiting.join_next() => match one {
                    Some(serves) => {
                        let name: &str = serves.context("a start broke off")??;
                        missing.retain(|other| *other != name);
                    }
                    None => return nodes.await,
                },
                (name, error) = self.parts.ended() => return Err(error.context(name)),
                _ = look.tick() => {
                    let node = tokio::time::timeout(LOOK, ready::node_says(self)).await.ok().flatten();
                    let signs = self.signs(missing.len(), node);
                    if let Some(quiet) = patience.lost(signs, Instant::now()) {
                        return ready::late(self, steps, &missing, quiet).await;
                    }
                }
            }
        }
    }

    fn signs(&self, missing: usize, node: Option<String>) -> Signs {
        Signs { missing, words: vec![node, self.word.said()], cpu: cpu_time() }
    }

    /// The address by which pods and others reach this host, as it is now.
    pub fn node_ip(&self) -> IpAddr {
        moving::first(&self.node_ip.borrow())
    }

    /// The API server, once it can be asked.
    pub fn api(&self) -> Result<&Api> {
        self.api.as_ref().ok_or_else(|| anyhow!("kube-apiserver is not started"))
    }

    /// A client as this user of the API.
    pub async fn client(&self, who: &Identity) -> Result<kube::Client> {
        self.api()?.client(who).await
    }

    /// Who this node's kubelet is, and what else acts for the node.
    fn node(&self) -> Identity {
        Identity::Node(self.host.node_name.clone())
    }

    fn component(&self, name: &str) -> Option<&'static Component> {
        self.components.iter().find(|component| component.name == name).copied()
    }

    /// Starts components anew that end by themselves. Returns when one has that the others can't go on without.
    pub async fn tend(&mut self) -> anyhow::Error {
        loop {
            tokio::select! {
                (name, error) = self.parts.ended() => match self.component(name) {
                    Some(component) if component.restarts => self.ended(name, &error),
                    _ => return error.context(name),
                },
                name = self.restarts.next() => self.start_again(name).await,
            }
        }
    }

    fn ended(&mut self, name: &'static str, error: &anyhow::Error) {
        let pause = self.restarts.ended(name, Instant::now());
        tracing::error!(component = name, error = format!("{error:#}"), again_after = ?pause, "ended");
        // A panic has told more of itself.
        if !error.is::<parts::Panicked>() {
            crash::queue_note(name, format!("{error:#}"));
        }
    }

    async fn start_again(&mut self, name: &'static str) {
        let Some(component) = self.component(name) else { return };
        telemetry::process::count_restart(name);
        self.restarts.started(name, Instant::now());
        match (component.start)(self).await {
            Ok(_) => tracing::info!(component = name, "started again"),
            Err(error) => {
                self.parts.stop(name).await;
                self.ended(name, &error);
            }
        }
    }

    /// Stops pods first, while everything they may need still runs, then the components in reverse.
    pub async fn stop(mut self, pod_grace: Duration) {
        self.parts.stop(nodes::PART).await;
        self.leave_addresses().await;
        let (host, patience) = (self.host.clone(), pod_grace + NODE_GRACE);
        let nodes = tokio::task::spawn_blocking(move || close(&host, patience));
        let graceful = node::shutdown_grace(&self.host);
        if !graceful.is_zero() {
            self.leaving.0.set();
            let left = tokio::time::timeout(graceful + LEAVING_SLACK, self.leaving.1.wait()).await;
            best_effort("a graceful end of pods", left);
        }
        self.parts.stop("kubelet").await;
        if let Err(error) = node::stop_pods(&self.host, pod_grace).await {
            tracing::warn!(%error, "pods were not stopped");
        }
        if let Err(error) = nodes.await.map_err(anyhow::Error::from).flatten() {
            tracing::warn!(error = format!("{error:#}"), "nodes were not stopped");
        }
        self.stop_parts().await;
    }

    /// Other nodes take over what this one announces, while it is still there to lead packets on.
    async fn leave_addresses(&mut self) {
        self.parts.stop(node::ANNOUNCER).await;
        if self.host.roles().has(Roles::NODE)
            && let Ok(node) = self.client(&self.node()).await
        {
            announcer::leave(&node, &self.host.node_name).await;
        }
    }

    /// Stops the components and leaves the pods as they are.
    pub async fn stop_parts(&mut self) {
        self.parts.stop_all().await;
        self.store = None;
        if let Some(etcd) = self.etcd.take() {
            etcd.close();
        }
    }
}
