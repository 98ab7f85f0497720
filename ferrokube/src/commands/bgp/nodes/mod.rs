//! `route-reflector` with clients from a cluster: every node's address is a neighbour's, as Calico has them. Here are the
//! flags, and what both places have in common.
//!
//! ```text
//!  API server:  Node objects, Calico's annotations  ── api ───┐
//!                                                            ├──► node: nodes ──► Found ──► bgpd, which has sessions
//!  Calico's etcd: /calico/resources/v3/…/nodes/NAME ── etcd ──┘
//! ```
//!
//! - [`node`]: what a node says of itself, and who follows of all of them; pure
//! - [`api`], [`etcd`]: where nodes are read and watched
//! - [`hold`]: a list that is empty all at once does not count at once; pure
//!
//! A place that is away changes nothing: sessions go on with those who were known. I/O: logs. Called by
//! `ferrokube route-reflector`.

pub mod api;
pub mod etcd;
mod hold;
pub mod node;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use bgpd::Place;
use bgpd::config::found::Found;
use clap::Args;
use flannel::{Endpoints, EtcdClient, Secret};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::hold::{HELD, Hold, Step};
use self::node::Node;
use crate::fault::Fault;

/// Where nodes are read.
#[derive(Debug, Args)]
pub struct Flags {
    /// Nodes of this cluster are neighbors: by Calico's annotations, or else their InternalIP
    #[arg(long, value_name = "FILE", conflicts_with = "etcd_endpoints")]
    kubeconfig: Option<PathBuf>,
    /// Nodes of Calico's datastore in this etcd are neighbors
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    etcd_endpoints: Vec<String>,
    /// CA of etcd's certificate
    #[arg(long, value_name = "FILE", requires = "etcd_endpoints")]
    etcd_cafile: Option<PathBuf>,
    /// Certificate by which etcd knows us
    #[arg(long, value_name = "FILE", requires = "etcd_endpoints")]
    etcd_certfile: Option<PathBuf>,
    /// Key of --etcd-certfile
    #[arg(long, value_name = "FILE", requires = "etcd_endpoints")]
    etcd_keyfile: Option<PathBuf>,
    /// User of etcd
    #[arg(long, value_name = "NAME", requires = "etcd_endpoints")]
    etcd_username: Option<String>,
    /// First line of this file: his password
    #[arg(long, value_name = "FILE", requires = "etcd_username")]
    etcd_password_file: Option<PathBuf>,
    /// Group of the file whose fields these neighbors have: password, filters, families, …
    #[arg(long, value_name = "NAME")]
    node_group: Option<String>,
}

impl Flags {
    /// Begins to watch, where a place is named.
    pub async fn start(self, stop: CancellationToken) -> Result<Option<Place>> {
        let (teller, all) = Teller::new();
        if let Some(file) = &self.kubeconfig {
            let client = client::from_kubeconfig(file).await.map_err(|error| Fault::usage(error.to_string()))?;
            tokio::spawn(api::follow(client, teller, stop));
        } else if !self.etcd_endpoints.is_empty() {
            let client = EtcdClient::new(&self.endpoints()?).map_err(|error| Fault::usage(error.to_string()))?;
            tokio::spawn(etcd::follow(client, teller, stop));
        } else if self.node_group.is_some() {
            return Err(Fault::usage("--node-group goes with --kubeconfig or --etcd-endpoints").into());
        } else {
            return Ok(None);
        }
        Ok(Some(Place { group: self.node_group, all }))
    }

    fn endpoints(&self) -> Result<Endpoints> {
        let password = match &self.etcd_password_file {
            Some(file) => bgpd::config::first_line(file)
                .map_err(|why| Fault::usage(format!("--etcd-password-file {}: {why}", file.display())))?,
            None => String::new(),
        };
        Ok(Endpoints {
            urls: self.etcd_endpoints.clone(),
            ca_file: self.etcd_cafile.clone(),
            cert_file: self.etcd_certfile.clone(),
            key_file: self.etcd_keyfile.clone(),
            username: self.etcd_username.clone().unwrap_or_default(),
            password: Secret(password),
        })
    }
}

/// What has been read of each node, by its name: the node, or why there is none.
pub type Nodes = BTreeMap<String, Result<Node, String>>;

/// Tells the daemon who is there, and the log, once, who is not and why.
pub struct Teller {
    to: watch::Sender<Option<Arc<[Found]>>>,
    told: BTreeMap<String, String>,
    hold: Hold,
}

impl Teller {
    pub fn new() -> (Teller, watch::Receiver<Option<Arc<[Found]>>>) {
        let (to, all) = watch::channel(None);
        (Teller { to, told: BTreeMap::new(), hold: Hold::default() }, all)
    }

    /// Of all nodes; one without an AS of its own has this one, or the speaker's where it is not said.
    pub fn tell(&mut self, nodes: &Nodes, number: Option<u32>) {
        let before = self.to.borrow().clone().unwrap_or_default();
        let (found, problems) = node::found(nodes, number, &before);
        for (name, problem) in &problems {
            if self.told.get(name) != Some(problem) {
                tracing::warn!(node = name, "a node is no neighbor: {problem}");
            }
        }
        self.told = problems;
        let minutes = HELD.as_secs() / 60;
        match self.hold.step(before.len(), found.len(), Instant::now()) {
            Step::Tell => {}
            Step::Back => tracing::info!("there are nodes again"),
            Step::Begin => {
                tracing::error!(
                    "no node is left of those who were the {} neighbors: their sessions go on for {minutes} minutes; see \
                     whether --kubeconfig or --etcd-endpoints names the right cluster, and whether it has its data; where all \
                     are meant to go, a restart makes it so at once",
                    before.len()
                );
                return;
            }
            Step::Wait => return,
            Step::Over => tracing::error!("no node has come back in {minutes} minutes: none is a neighbor any more"),
        }
        self.to.send_if_modified(|told| {
            let differs = told.as_deref() != Some(&found[..]);
            if differs {
                *told = Some(found.into());
            }
            differs
        });
    }

    /// Waits until all are to be told once more, though nothing has changed.
    pub async fn due(&self) {
        match self.hold.due() {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Waits until nobody listens.
    pub async fn closed(&self) {
        self.to.closed().await;
    }
}
