//! Where leases are: in etcd, or in annotations of nodes. I/O by either. Caller: the daemon.

use tokio::sync::{mpsc, watch};

use crate::config::NetConf;
use crate::etcd::{self, Acquired, Registry};
use crate::lease::{Attributes, Lease, Subnets};
use crate::news::News;
use crate::nodes::{self, Nodes};

/// What the flags say of it.
pub enum Options {
    Etcd(etcd::Options),
    /// `--kube-subnet-mgr`
    Nodes(nodes::Options),
}

/// See the module's head.
pub enum Manager {
    Etcd(Registry),
    Nodes(Nodes),
}

/// This host's lease.
pub enum Mine {
    Etcd(Acquired),
    Node(Lease),
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Flag(#[from] etcd::client::FlagError),
    #[error(transparent)]
    Etcd(#[from] etcd::Error),
    #[error(transparent)]
    Nodes(#[from] nodes::Error),
}

impl Error {
    /// Whether waiting may help: the other end may come back, or do what it has to do first.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Error::Etcd(etcd::Error::Call(_)) | Error::Nodes(nodes::Error::Node(_) | nodes::Error::Patch { .. })
        )
    }

    /// Whether each start waits so: a node comes a moment after its host.
    pub fn is_usual(&self) -> bool {
        matches!(self, Error::Nodes(nodes::Error::Node(_)))
    }
}

impl Mine {
    pub fn subnets(&self) -> Subnets {
        match self {
            Mine::Etcd(acquired) => acquired.lease.subnets,
            Mine::Node(lease) => lease.subnets,
        }
    }

    /// Others must know other things of this host: whoever follows tells them.
    pub fn now_says(&mut self, attributes: Attributes) {
        match self {
            Mine::Etcd(acquired) => acquired.now_says(attributes),
            Mine::Node(lease) => lease.attributes = attributes,
        }
    }
}

impl Manager {
    pub fn open(options: Options) -> Result<Manager, Error> {
        Ok(match options {
            Options::Etcd(options) => Manager::Etcd(Registry::new(&options)?),
            Options::Nodes(options) => Manager::Nodes(Nodes::start(options)),
        })
    }

    /// The network's configuration.
    pub async fn config(&self) -> Result<NetConf, Error> {
        Ok(match self {
            Manager::Etcd(registry) => registry.config().await?,
            Manager::Nodes(nodes) => nodes.config().await?,
        })
    }

    /// The part of the configuration that this host has subnets for: leases in etcd are of the whole of it.
    pub async fn fitting(&self, conf: &NetConf) -> NetConf {
        match self {
            Manager::Etcd(_) => conf.clone(),
            Manager::Nodes(nodes) => nodes.fitting(conf).await,
        }
    }

    /// What this host told when it was here last.
    pub async fn mine(&self, own: &Attributes) -> Result<Option<Attributes>, Error> {
        Ok(match self {
            Manager::Etcd(registry) => registry.mine(own).await?,
            Manager::Nodes(nodes) => nodes.mine().await,
        })
    }

    pub async fn acquire(&self, conf: &NetConf, own: &Attributes, previous: Option<Subnets>) -> Result<Mine, Error> {
        Ok(match self {
            Manager::Etcd(registry) => Mine::Etcd(registry.acquire(conf, own, previous).await?),
            Manager::Nodes(nodes) => Mine::Node(nodes.acquire(conf, own).await?),
        })
    }

    /// This host has moved: connections may lead nowhere.
    pub fn reconnect(&mut self) -> Result<(), Error> {
        match self {
            Manager::Etcd(registry) => Ok(registry.reconnect()?),
            Manager::Nodes(_) => Ok(()),
        }
    }

    /// Changes when it is worthwhile to ask again before its time.
    pub fn changes(&self) -> Option<watch::Receiver<u64>> {
        match self {
            Manager::Etcd(_) => None,
            Manager::Nodes(nodes) => Some(nodes.changes()),
        }
    }

    /// Tells of leases until nobody listens, or this host's is gone. `conf` is what of the `whole` configuration fits.
    pub async fn follow(&self, (whole, conf): (&NetConf, &NetConf), mine: &mut Mine, news: mpsc::Sender<News>) {
        match (self, mine) {
            (Manager::Etcd(registry), Mine::Etcd(acquired)) => tokio::select! {
                () = registry.follow(acquired, news.clone()) => {}
                () = registry.follow_config(conf, &news) => {}
            },
            (Manager::Nodes(nodes), Mine::Node(lease)) => nodes.follow((whole, conf), lease, news).await,
            (_, _) => {}
        }
    }
}

/// Writes the network's configuration into etcd where there is none yet, or a second family that it has by now: what else an
/// administrator wrote there stays.
pub async fn publish(options: &etcd::Options, conf: &str) -> Result<(), Error> {
    Ok(Registry::new(options)?.publish(conf).await?)
}
