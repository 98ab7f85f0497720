//! The cluster in one process: the table of components in start order, what they share, and how they stop.
//!
//! [`COMPONENTS`] names every part. Each gets what it needs from the [`Assembly`], speaks the API under an identity of
//! its own ([`identity`]) and leaves its task there. Called by `server`; `down` and `reset` use [`cleanup`].

mod addons;
pub mod cleanup;
mod control_plane;
pub mod cri;
mod dns_address;
mod identity;
mod node;
mod pod_network;
pub mod signing;
mod store;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Cluster;
use crate::pki::Pki;
use crate::progress::Steps;

pub use cleanup::{remove_kernel_objects, stop_pods};
pub use node::runtime_config;

/// Components stop one after the other, each within this time; a slower one is left to the kernel.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// One part of the cluster.
pub struct Component {
    /// Upstream's name.
    pub name: &'static str,
    /// What a person reads when it is done.
    pub step: &'static str,
    start: for<'a> fn(&'a mut Assembly) -> BoxFuture<'a, Result<()>>,
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
    Component { name: "dns", step: "Cluster DNS", start: |a| Box::pin(node::dns(a)) },
    Component { name: "kubelet", step: "kubelet", start: |a| Box::pin(node::kubelet(a)) },
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
    /// Starts every component, telling each step.
    pub async fn start(cluster: Cluster, steps: &mut Steps) -> Result<Assembly> {
        let node_ip = crate::preflight::node_ip(&cluster);
        let pki = Pki::ensure(&cluster, node_ip)?;
        crate::kubeconfig::write_admin(&cluster, &pki)?;
        steps.done("Certificates and keys");
        let mut assembly = Assembly {
            cluster: Arc::new(cluster),
            pki,
            node_ip,
            store: None,
            server: None,
            parts: Vec::new(),
            tasks: JoinSet::new(),
        };
        for component in COMPONENTS {
            (component.start)(&mut assembly).await.with_context(|| component.name)?;
            steps.done(component.step);
        }
        control_plane::ready(&assembly).await?;
        steps.done("Node is Ready, DNS answers");
        Ok(assembly)
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
        match self.tasks.join_next().await {
            Some(Ok((name, Ok(())))) => anyhow!("{name} ended"),
            Some(Ok((name, Err(error)))) => error.context(name),
            Some(Err(error)) => anyhow!("a component broke off: {error}"),
            None => std::future::pending().await,
        }
    }

    /// Stops pods first, while everything they may need still runs, then the components in reverse.
    pub async fn stop(mut self, pod_grace: Duration) {
        self.stop_part("kubelet").await;
        if let Err(error) = node::stop_pods(&self.cluster, pod_grace).await {
            tracing::warn!(%error, "pods were not stopped");
        }
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
