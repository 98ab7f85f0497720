//! Where leases are: in etcd, or in annotations of nodes. I/O by either. Caller: the daemon.

use tokio::sync::mpsc;

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
}

impl Mine {
    pub fn subnets(&self) -> Subnets {
        match self {
            Mine::Etcd(acquired) => acquired.lease.subnets,
            Mine::Node(lease) => lease.subnets,
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
            Manager::Nodes(nodes) => nodes.config()?,
        })
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

    /// Tells of leases until nobody listens, or this host's is gone.
    pub async fn follow(&self, conf: &NetConf, mine: Mine, news: mpsc::Sender<News>) {
        match (self, mine) {
            (Manager::Etcd(registry), Mine::Etcd(acquired)) => registry.follow(acquired, news).await,
            (Manager::Nodes(nodes), Mine::Node(lease)) => nodes.follow(conf, lease, news).await,
            (_, _) => {}
        }
    }
}
