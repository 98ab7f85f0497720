//! The cluster in one process: the table of components in start order, what they share, and how they stop.
//!
//! [`COMPONENTS`] names every part. Each gets what it needs from the [`Assembly`], speaks the API under an identity of
//! its own ([`identity`]) and leaves its task there. Called by `server`; `down` and `reset` use [`cleanup`].

mod addons;
pub mod cleanup;
mod control_plane;
pub mod cri;
mod firewall;
mod folder;
mod identity;
mod images;
mod moving;
mod node;
mod parts;
mod patience;
mod pod_network;
mod pods_door;
mod ready;
mod renewal;
pub mod signing;
mod store;
mod told;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::parts::{Parts, Restarts};
use self::patience::{LOOK, Patience, Signs, Word, cpu_time};
use crate::config::Cluster;
use crate::crash;
use crate::fault::Fault;
use crate::pki::Pki;
use crate::progress::Steps;

pub use addons::put;
pub use cleanup::{note_controllers, remove_kernel_objects, stop_pods};
pub use control_plane::settings as server_settings;
pub use node::{cgroup_root, runtime_config};

/// Resolves when a component that was started does its work.
type Serving = BoxFuture<'static, Result<()>>;

/// One part of the cluster.
pub struct Component {
    /// Upstream's name.
    pub name: &'static str,
    /// What a person reads when it does its work.
    pub step: &'static str,
    /// It is started again alone when it ends by itself: its state is the API's, the kernel's or the runtime's. Without
    /// one of the others the whole daemon is.
    alone: bool,
    start: for<'a> fn(&'a mut Assembly) -> BoxFuture<'a, Result<Serving>>,
}

/// Every component, in start order; they stop in the reverse order.
pub const COMPONENTS: &[Component] = &[
    Component { name: "etcd", step: "etcd", alone: false, start: |a| Box::pin(control_plane::etcd(a)) },
    Component {
        name: "kube-apiserver",
        step: "kube-apiserver",
        alone: false,
        start: |a| Box::pin(control_plane::apiserver(a)),
    },
    Component {
        name: "kube-controller-manager",
        step: "kube-controller-manager",
        alone: true,
        start: |a| Box::pin(control_plane::controller_manager(a)),
    },
    Component {
        name: "kube-scheduler",
        step: "kube-scheduler",
        alone: true,
        start: |a| Box::pin(control_plane::scheduler(a)),
    },
    Component {
        name: "runtime",
        step: "Container runtime and pod network",
        alone: false,
        start: |a| Box::pin(node::runtime(a)),
    },
    Component { name: "kube-proxy", step: "kube-proxy", alone: true, start: |a| Box::pin(node::proxy(a)) },
    Component { name: "dns", step: "Cluster DNS answers", alone: true, start: |a| Box::pin(node::dns(a)) },
    Component {
        name: "kubelet",
        step: "kubelet: the node is Ready",
        alone: true,
        start: |a| Box::pin(node::kubelet(a)),
    },
];

/// What the components share, and what each left behind.
pub struct Assembly {
    pub cluster: Arc<Cluster>,
    pub pki: Pki,
    /// The address by which pods and others reach this host, as it changes.
    pub node_ip: watch::Sender<Vec<IpAddr>>,
    store: Option<etcd::Etcd>,
    server: Option<apiserver::Server>,
    parts: Parts,
    restarts: Restarts,
    /// Of who has long work to do while the cluster starts.
    word: Word,
    /// The folder of images was imported: pods may need what is in it.
    images: client::Latch,
}

impl Assembly {
    /// Starts every component and waits until each does its work, telling how long that took. A start that fails
    /// leaves no component running.
    pub async fn start(cluster: Cluster, steps: Steps) -> Result<Assembly> {
        let began = Instant::now();
        let node_ip = crate::node_address::of(&cluster);
        let pki = Pki::ensure(&cluster, node_ip)?;
        crate::kubeconfig::write_admin(&cluster, &pki)?;
        crate::hardening::write(&cluster)?;
        steps.done("Certificates and keys", began);
        let mut assembly = Assembly {
            cluster: Arc::new(cluster),
            pki,
            node_ip: watch::Sender::new(vec![IpAddr::V4(node_ip)]),
            store: None,
            server: None,
            parts: Parts::default(),
            restarts: Restarts::default(),
            word: Word::default(),
            images: client::Latch::default(),
        };
        let started = match assembly.open_firewall().await {
            Ok(()) => assembly.start_all(steps).await,
            refused => refused,
        };
        match started {
            Ok(()) => {
                let watched = (assembly.cluster.clone(), assembly.node_client()?);
                assembly.parts.run("firewall", |stop| firewall::run(watched.0, watched.1, stop));
                let (cluster, node_ip) = (assembly.cluster.clone(), assembly.node_ip.clone());
                let admin = assembly.client("kubernetes-admin", &["system:masters"])?;
                let applied = cluster.clone();
                assembly.parts.run("folder", |stop| folder::run(applied, admin, stop));
                assembly.parts.run("certificates", |stop| renewal::run(cluster, node_ip, stop));
                let (cluster, node_ip) = (assembly.cluster.clone(), assembly.node_ip.clone());
                let server = assembly.server()?.clone();
                assembly.parts.run("address", |stop| moving::run(cluster, node_ip, server, stop));
                Ok(assembly)
            }
            Err(error) => {
                assembly.stop_parts().await;
                Err(error)
            }
        }
    }

    /// Where it is asked for, before the first pod sends anything.
    async fn open_firewall(&self) -> Result<()> {
        if !self.cluster.open_firewall {
            return Ok(());
        }
        let cluster = self.cluster.clone();
        let closed = tokio::task::spawn_blocking(move || firewall::look(&cluster)).await??;
        if closed.is_empty() { Ok(()) } else { Err(Fault::failed(closed.join("; and ")).into()) }
    }

    async fn start_all(&mut self, steps: Steps) -> Result<()> {
        let mut waiting = JoinSet::new();
        for component in COMPONENTS {
            let began = Instant::now();
            let serving = (component.start)(self).await.with_context(|| component.name)?;
            self.restarts.started(component.name, began);
            waiting.spawn(async move {
                serving.await.with_context(|| component.name)?;
                steps.done(component.step, began);
                anyhow::Ok(component.name)
            });
        }
        let mut missing: Vec<_> = COMPONENTS.iter().map(|c| c.name).collect();
        let mut patience = Patience::new(self.signs(missing.len(), None), Instant::now());
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                one = waiting.join_next() => match one {
                    Some(serves) => {
                        let name: &str = serves.context("a start broke off")??;
                        missing.retain(|other| *other != name);
                    }
                    None => return Ok(()),
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
    pub fn node_ip(&self) -> Ipv4Addr {
        moving::first(&self.node_ip)
    }

    pub fn server(&self) -> Result<&apiserver::Server> {
        self.server.as_ref().ok_or_else(|| anyhow!("kube-apiserver is not started"))
    }

    /// A client as this user of the API.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<kube::Client> {
        Ok(identity::client(self.server()?, user, groups))
    }

    /// A client as this node's kubelet.
    fn node_client(&self) -> Result<kube::Client> {
        self.client(&format!("system:node:{}", self.cluster.node_name), &["system:nodes"])
    }

    /// Starts components anew that end by themselves. Returns when one has that the others can't go on without.
    pub async fn tend(&mut self) -> anyhow::Error {
        loop {
            tokio::select! {
                (name, error) = self.parts.ended() => match COMPONENTS.iter().find(|c| c.name == name && c.alone) {
                    Some(_) => self.ended(name, &error),
                    None => return error.context(name),
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
            crash::tell(name, format!("{error:#}"));
        }
    }

    async fn start_again(&mut self, name: &'static str) {
        let Some(component) = COMPONENTS.iter().find(|c| c.name == name) else { return };
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
        self.parts.stop("kubelet").await;
        if let Err(error) = node::stop_pods(&self.cluster, pod_grace).await {
            tracing::warn!(%error, "pods were not stopped");
        }
        self.stop_parts().await;
    }

    /// Stops the components and leaves the pods as they are.
    pub async fn stop_parts(&mut self) {
        self.parts.stop_all().await;
        if let Some(store) = self.store.take() {
            store.close();
        }
    }
}
