//! The cluster in one process: the table of components in start order, what they share, and how they stop.
//!
//! [`COMPONENTS`] names every part. Each gets what it needs from the [`Assembly`], speaks the API under an identity of
//! its own ([`identity`]) and leaves its task there. Called by `server`; `down` and `reset` use [`cleanup`].

mod addons;
pub mod cleanup;
mod control_plane;
pub mod cri;
mod identity;
mod node;
mod pod_network;
mod ready;
mod renewal;
pub mod signing;
mod store;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Cluster;
use crate::pki::Pki;
use crate::progress::Steps;

pub use addons::put;
pub use cleanup::{remove_kernel_objects, stop_pods};
pub use node::runtime_config;
pub use pod_network::{firewall_advice, port_mapping};

/// Components stop one after the other, each within this time; a slower one is left to the kernel.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A start that takes longer has failed.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Resolves when a component that was started does its work.
type Serving = BoxFuture<'static, Result<()>>;

/// One part of the cluster.
pub struct Component {
    /// Upstream's name.
    pub name: &'static str,
    /// What a person reads when it does its work.
    pub step: &'static str,
    start: for<'a> fn(&'a mut Assembly) -> BoxFuture<'a, Result<Serving>>,
}

/// Every component, in start order; they stop in the reverse order.
pub const COMPONENTS: &[Component] = &[
    Component { name: "etcd", step: "etcd", start: |a| Box::pin(control_plane::etcd(a)) },
    Component { name: "kube-apiserver", step: "kube-apiserver", start: |a| Box::pin(control_plane::apiserver(a)) },
    Component {
        name: "kube-controller-manager",
        step: "kube-controller-manager",
        start: |a| Box::pin(control_plane::controller_manager(a)),
    },
    Component { name: "kube-scheduler", step: "kube-scheduler", start: |a| Box::pin(control_plane::scheduler(a)) },
    Component { name: "runtime", step: "Container runtime and pod network", start: |a| Box::pin(node::runtime(a)) },
    Component { name: "kube-proxy", step: "kube-proxy", start: |a| Box::pin(node::proxy(a)) },
    Component { name: "dns", step: "Cluster DNS answers", start: |a| Box::pin(node::dns(a)) },
    Component { name: "kubelet", step: "kubelet: the node is Ready", start: |a| Box::pin(node::kubelet(a)) },
];

/// What the components share, and what each left behind.
pub struct Assembly {
    pub cluster: Arc<Cluster>,
    pub pki: Pki,
    /// The address by which pods and others reach this host.
    pub node_ip: Ipv4Addr,
    store: Option<etcd::Etcd>,
    server: Option<apiserver::Server>,
    parts: Vec<(&'static str, CancellationToken)>,
    tasks: JoinSet<(&'static str, Result<()>)>,
}

impl Assembly {
    /// Starts every component and waits until each does its work, telling how long that took. A start that fails
    /// leaves no component running.
    pub async fn start(cluster: Cluster, steps: Steps) -> Result<Assembly> {
        let began = Instant::now();
        let node_ip = crate::preflight::node_ip(&cluster);
        let pki = Pki::ensure(&cluster, node_ip)?;
        crate::kubeconfig::write_admin(&cluster, &pki)?;
        steps.done("Certificates and keys", began);
        let mut assembly = Assembly {
            cluster: Arc::new(cluster),
            pki,
            node_ip,
            store: None,
            server: None,
            parts: Vec::new(),
            tasks: JoinSet::new(),
        };
        match assembly.start_all(steps).await {
            Ok(()) => {
                let (cluster, node_ip) = (assembly.cluster.clone(), assembly.node_ip);
                assembly.run("certificates", |stop| renewal::run(cluster, node_ip, stop));
                Ok(assembly)
            }
            Err(error) => {
                assembly.stop_parts().await;
                Err(error)
            }
        }
    }

    async fn start_all(&mut self, steps: Steps) -> Result<()> {
        let mut waiting = JoinSet::new();
        for component in COMPONENTS {
            let began = Instant::now();
            let serving = (component.start)(self).await.with_context(|| component.name)?;
            waiting.spawn(async move {
                serving.await.with_context(|| component.name)?;
                steps.done(component.step, began);
                anyhow::Ok(component.name)
            });
        }
        let mut missing: Vec<_> = COMPONENTS.iter().map(|c| c.name).collect();
        let late = tokio::time::sleep(START_PATIENCE);
        tokio::pin!(late);
        loop {
            tokio::select! {
                one = waiting.join_next() => match one {
                    Some(serves) => {
                        let name: &str = serves.context("a start broke off")??;
                        missing.retain(|other| *other != name);
                    }
                    None => return Ok(()),
                },
                error = self.failed() => return Err(error),
                () = &mut late => return Err(ready::too_late(self, &missing, START_PATIENCE).await.into()),
            }
        }
    }

    /// Runs a component until its token is cancelled or it fails.
    fn run<F>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = run(stop.clone());
        self.parts.push((name, stop));
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// A token for a part whose task runs elsewhere.
    fn part(&mut self, name: &'static str) -> CancellationToken {
        let stop = CancellationToken::new();
        self.parts.push((name, stop.clone()));
        stop
    }

    fn server(&self) -> Result<&apiserver::Server> {
        self.server.as_ref().ok_or_else(|| anyhow!("kube-apiserver is not started"))
    }

    /// A client as this user of the API.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<kube::Client> {
        Ok(identity::client(self.server()?, user, groups))
    }

    /// Returns when a component has ended by itself: the cluster can't go on without it.
    pub async fn failed(&mut self) -> anyhow::Error {
        let (name, ended) = match self.tasks.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => return anyhow!("a component broke off: {error}"),
            None => std::future::pending().await,
        };
        self.parts.retain(|(other, _)| *other != name);
        match ended {
            Ok(()) => anyhow!("{name} ended"),
            Err(error) => error.context(name),
        }
    }

    /// Stops pods first, while everything they may need still runs, then the components in reverse.
    pub async fn stop(mut self, pod_grace: Duration) {
        self.stop_part("kubelet").await;
        if let Err(error) = node::stop_pods(&self.cluster, pod_grace).await {
            tracing::warn!(%error, "pods were not stopped");
        }
        self.stop_parts().await;
    }

    /// Stops the components and leaves the pods as they are.
    pub async fn stop_parts(&mut self) {
        while let Some((name, _)) = self.parts.last() {
            let name = *name;
            self.stop_part(name).await;
        }
        if let Some(store) = self.store.take() {
            store.close();
        }
    }

    async fn stop_part(&mut self, name: &'static str) {
        let Some(at) = self.parts.iter().position(|(n, _)| *n == name) else { return };
        let (_, stop) = self.parts.remove(at);
        stop.cancel();
        let ended = async {
            while let Some(done) = self.tasks.join_next().await {
                if done.is_ok_and(|(n, _)| n == name) {
                    break;
                }
            }
        };
        if tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
            tracing::warn!(component = name, "did not stop in time");
        }
    }
}
