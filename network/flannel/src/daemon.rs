//! The loop: a lease for this host, then the kernel in step with everybody's until the end. I/O.
//!
//! News of leases and of the kernel wake it; what has come within [`GATHER`] is one look. Nothing is taken back at the
//! end: packets go on while the daemon is restarted, and the lease is there for a day.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use linux::netlink::{Monitor, Topic};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, External};
use crate::config::{ConfigError, NetConf};
use crate::external::{self, Families, Wish};
use crate::health::{self, Ready};
use crate::lease::Subnets;
use crate::manager::{self, Manager, Mine};
use crate::news::{News, QUEUE};
use crate::node::{self, Node, Site};
use crate::{rules, subnet_file};

/// Upstream's wait before what is missing at the start is looked for again.
const RETRY: Duration = Duration::from_secs(1);
/// Many leases at once, or our own changes that come back as news, are one look at the kernel.
const GATHER: Duration = Duration::from_millis(30);

/// What the flags say.
pub struct Config {
    pub manager: manager::Options,
    pub interface: Wish,
    /// `--subnet-file`
    pub subnet_file: PathBuf,
    /// `--ip-masq`
    pub ip_masq: bool,
    /// The name of our nftables table.
    pub table: String,
    /// `--healthz-ip`, `--healthz-port`
    pub health: Option<SocketAddr>,
}

/// Why it ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Interface(String),
    #[error(transparent)]
    Lease(#[from] manager::Error),
    #[error(transparent)]
    Node(#[from] node::Error),
    #[error(transparent)]
    Kernel(#[from] linux::netlink::Error),
    #[error("--healthz-port: {address}: {source}: choose another port")]
    Health { address: SocketAddr, source: std::io::Error },
    #[error("--subnet-file {path}: {source}")]
    SubnetFile { path: PathBuf, source: std::io::Error },
    #[error("the lease of {0} was taken from this host")]
    Lost(Subnets),
    #[error("hearing of changes of the network: {0}")]
    Monitor(std::io::Error),
}

/// Runs until `shutdown`, or until this host's lease is taken away.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let ready = Ready::default();
    if let Some(address) = config.health {
        let served = health::serve(address, ready.clone(), shutdown.clone()).await;
        served.map_err(|source| Error::Health { address, source })?;
    }
    let Config { manager, interface, subnet_file, ip_masq, table, .. } = config;
    let manager = Manager::open(manager)?;
    let work = async {
        let conf = network(&manager).await?;
        let (mut node, mine) = join(&interface, &subnet_file, &manager, &conf).await?;
        // Before leases are listed: what changes from here on is heard of.
        let monitor = Monitor::open(&[Topic::Links, Topic::Routes, Topic::Neighbours])?;
        let (sender, news) = mpsc::channel(QUEUE);
        let own = mine.subnets();
        let following = manager.follow(&conf, mine, sender);
        let file = subnet_file::text(&conf, &own, node.mtu(), ip_masq);
        node.prepare()?;
        rules::ensure(&table, &conf, &own, ip_masq)?;
        let wrong = |source| Error::SubnetFile { path: subnet_file.clone(), source };
        subnet_file::write(&subnet_file, &file).map_err(wrong)?;
        ready.store(true, Ordering::Relaxed);
        tracing::info!(subnets = %own, "flannel is ready");
        let (result, ()) = tokio::join!(keep(node, monitor, news), following);
        result
    };
    tokio::select! {
        result = work => result,
        () = shutdown.cancelled() => Ok(()),
    }
}

/// Waits for the network's configuration, and tells once what it waits for.
async fn network(manager: &Manager) -> Result<NetConf, Error> {
    let mut told = String::new();
    loop {
        match manager.config().await {
            Ok(conf) => return Ok(conf),
            Err(error) => wait(&mut told, error.to_string()).await,
        }
    }
}

async fn wait(told: &mut String, why: String) {
    if *told != why {
        tracing::warn!("waiting: {why}");
        *told = why;
    }
    tokio::time::sleep(RETRY).await;
}

/// Makes this host's links and takes its lease.
async fn join(wish: &Wish, file: &Path, manager: &Manager, conf: &NetConf) -> Result<(Node, Mine), Error> {
    let backend = Backend::of(conf)?;
    let external = external_link(wish, conf)?;
    tracing::info!(link = external.name, v4 = ?external.public_v4, v6 = ?external.public_v6, "others reach this host by it");
    if linux::sysctl::get("net.ipv4.ip_forward").is_ok_and(|value| value == "0") {
        tracing::warn!(
            "this host forwards no packets: pods reach others once `sysctl -w net.ipv4.ip_forward=1` is said"
        );
    }
    let mut site = Site::open(conf.clone(), backend, external)?;
    let own = site.external.attributes(conf, site.backend.lease_type());
    let mut told = String::new();
    let acquired = loop {
        let acquired = async {
            let before = manager.mine(&own).await?;
            let attributes = site.attributes(before.as_ref())?;
            let previous = subnet_file::read(file);
            Ok::<_, Error>(manager.acquire(conf, &attributes, previous).await?)
        };
        match acquired.await {
            Ok(acquired) => break acquired,
            // What is away may come back; a full network or a kernel that lacks something needs a person.
            Err(Error::Lease(error)) if error.may_pass() => wait(&mut told, error.to_string()).await,
            Err(error) => return Err(error),
        }
    };
    Ok((site.with_lease(acquired.subnets()), acquired))
}

fn external_link(wish: &Wish, conf: &NetConf) -> Result<External, Error> {
    let families = Families { v4: conf.v4.is_some(), v6: conf.v6.is_some() };
    let scene = external::look(wish)?;
    external::choose(&scene, wish, families).map_err(Error::Interface)
}

/// Keeps the kernel in step.
async fn keep(mut node: Node, monitor: Monitor, mut news: mpsc::Receiver<News>) -> Result<(), Error> {
    // The successor is unsafe; what it asks for holds here: the descriptor is owned and never changes.
    #[allow(deprecated)]
    let monitor = AsyncFd::with_interest(monitor, Interest::READABLE).map_err(Error::Monitor)?;
    // Nothing is known until all leases are: a route of a host that we have not heard of yet is not stale.
    let mut known = false;
    let mut retry = None;
    loop {
        let dirty = tokio::select! {
            told = news.recv() => match told {
                Some(News::Lost(subnets)) => return Err(Error::Lost(subnets)),
                Some(told) => {
                    known |= matches!(told, News::All(_));
                    node.hear(told);
                    true
                }
                None => return Ok(()),
            },
            heard = changes(&monitor, &node) => heard?,
            () = after(retry) => true,
        };
        if !dirty || !known {
            continue;
        }
        tokio::time::sleep(GATHER).await;
        while let Ok(told) = news.try_recv() {
            match told {
                News::Lost(subnets) => return Err(Error::Lost(subnets)),
                told => node.hear(told),
            }
        }
        let (back, synced) = blocking(node).await;
        node = back;
        retry = match synced {
            Ok(true) => None,
            Ok(false) => Some(RETRY),
            Err(error) => {
                tracing::warn!(%error, "the kernel is not in step; again in a second");
                Some(RETRY)
            }
        };
    }
}

/// Talks to the kernel on a thread for that: it is quick, and still blocks.
async fn blocking(mut node: Node) -> (Node, Result<bool, node::Error>) {
    let work = move || {
        let synced = node.sync();
        (node, synced)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn changes(monitor: &AsyncFd<Monitor>, node: &Node) -> Result<bool, Error> {
    let mut ready = monitor.readable().await.map_err(Error::Monitor)?;
    ready.clear_ready();
    let mut matters = false;
    monitor.get_ref().drain(|event| matters |= node.matters(&event))?;
    Ok(matters)
}

async fn after(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
