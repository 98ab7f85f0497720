//! The loop: a lease for this host, then the kernel in step with everybody's until the end. I/O.
//!
//! News of leases and of the kernel wake it; what has come within [`GATHER`] is one look. Nothing is taken back at the
//! end: packets go on while the daemon is restarted, and the lease is there for a day.
//!
//! ```text
//! join ──► lease ──► keep ── the kernel, leases, rules
//!  ▲                 │ │  ▲
//!  │           moved │ ▼  │    another link or address of this host: the lease says it, links and routes follow
//!  │                 │ move
//!  └──── leave ◄─────┘ turned  another backend: what the old one had is taken back, and all begins again; another
//!                              family besides: all begins again, and nothing is taken back
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use linux::netlink::{Monitor, Topic};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, External};
use crate::config::{ConfigError, NetConf, Turn};
use crate::external::{self, Families, Wish};
use crate::health::{self, Ready};
use crate::lease::Subnets;
use crate::manager::{self, Manager, Mine};
use crate::news::{News, QUEUE};
use crate::node::{self, Node, Own, Site};
use crate::rules::{Masquerade, Rules};
use crate::subnet_file;

/// Upstream's wait before what is missing at the start is looked for again.
const RETRY: Duration = Duration::from_secs(1);
/// Many leases at once, or our own changes that come back as news, are one look at the kernel.
const GATHER: Duration = Duration::from_millis(30);
/// Of WireGuard's peers the kernel tells no news: who deletes one by hand is found out by looking.
const GLANCE: Duration = Duration::from_secs(1);
/// Upstream's `--iptables-resync`.
pub const RESYNC: Duration = Duration::from_secs(5);

/// What the flags say.
pub struct Config {
    pub manager: manager::Options,
    /// By which link others reach this host; another wish is followed while it runs.
    pub interface: watch::Receiver<Wish>,
    /// `--subnet-file`
    pub subnet_file: PathBuf,
    /// `--ip-masq`
    pub masquerade: Masquerade,
    /// The name of our nftables table.
    pub table: String,
    /// `--iptables-resync`: how often that table is looked at.
    pub resync: Duration,
    /// `--healthz-ip`, `--healthz-port`
    pub health: Option<SocketAddr>,
    /// Whose links these are.
    pub own: Own,
    /// Where is told what is known of this host so far.
    pub told: watch::Sender<Told>,
}

/// What whoever connects pods needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The bytes of a packet on its way to another host; known before there is a lease.
    pub mtu: Option<u32>,
    /// This host's own.
    pub subnets: Option<Subnets>,
    /// In what the network's configuration is other than this host's, which can't follow.
    pub apart: Option<String>,
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
    let Config { manager, interface, subnet_file, masquerade, table, resync, own, told, .. } = config;
    let manager = Manager::open(manager)?;
    let life = Life { interface, subnet_file, masquerade, table, resync, own, told, ready };
    tokio::select! {
        result = life.run(manager) => result,
        () = shutdown.cancelled() => Ok(()),
    }
}

/// What is the same as long as it runs.
struct Life {
    interface: watch::Receiver<Wish>,
    subnet_file: PathBuf,
    masquerade: Masquerade,
    table: String,
    resync: Duration,
    own: Own,
    told: watch::Sender<Told>,
    ready: Ready,
}

/// What is kept in step, and what is known of it.
struct Kept<'c> {
    conf: &'c NetConf,
    node: Node,
    rules: Rules,
    monitor: AsyncFd<Monitor>,
    /// All leases have been told: before that, a route of a host that we have not heard of yet is not stale.
    known: bool,
    /// What the network is to be once this host has an address for it.
    waits: Option<Box<NetConf>>,
}

/// Why [`Life::keep`] returns.
enum End {
    /// Leases are told no more.
    Closed,
    /// Others reach this host by this now.
    Moved(External),
    /// The network has this backend now, or another family besides.
    Turned(Box<NetConf>),
}

impl Life {
    async fn run(mut self, mut manager: Manager) -> Result<(), Error> {
        let mut conf = network(&manager).await?;
        while let Some(next) = self.live(&mut manager, &conf).await? {
            conf = next;
        }
        Ok(())
    }

    /// With one configuration, until the end or the next one.
    async fn live(&mut self, manager: &mut Manager, whole: &NetConf) -> Result<Option<NetConf>, Error> {
        let conf = &manager.fitting(whole).await;
        let (node, mut mine) = self.join(manager, conf).await?;
        // Before leases are listed: what changes from here on is heard of.
        let monitor = Monitor::open(&[Topic::Links, Topic::Addresses, Topic::Routes, Topic::Neighbours])?;
        // The successor is unsafe; what it asks for holds here: the descriptor is owned and never changes.
        #[allow(deprecated)]
        let monitor = AsyncFd::with_interest(monitor, Interest::READABLE).map_err(Error::Monitor)?;
        let rules = Rules::new(&self.table, conf, &mine.subnets(), self.masquerade);
        let mut kept = Kept { conf, node, rules, monitor, known: false, waits: None };
        kept.node.prepare()?;
        kept.rules.ensure()?;
        self.tell(conf, &kept.node, mine.subnets())?;
        self.ready.store(true, Ordering::Relaxed);
        tracing::info!(subnets = %mine.subnets(), "flannel is ready");
        loop {
            let (sender, news) = mpsc::channel(QUEUE);
            let (back, end) = {
                let mut keep = pin!(self.keep(kept, news));
                tokio::select! {
                    ended = &mut keep => ended?,
                    // It has told why, or has nothing to tell any more.
                    () = manager.follow((whole, conf), &mut mine, sender) => keep.await?,
                }
            };
            kept = back;
            match end {
                End::Closed => return Ok(None),
                End::Turned(next) if conf.turn(&next) == Turn::Family => {
                    tracing::info!(
                        v4 = next.v4.is_some(),
                        v6 = next.v6.is_some(),
                        "the network has another family besides"
                    );
                    return Ok(Some(*next));
                }
                End::Turned(next) => {
                    tracing::info!(from = conf.backend_type, to = next.backend_type, "the network has another backend");
                    kept.node.leave()?;
                    return Ok(Some(*next));
                }
                End::Moved(external) => {
                    tracing::info!(link = external.name, v4 = ?external.public_v4, v6 = ?external.public_v6, "this host has moved");
                    mine.now_says(kept.node.moved(external)?);
                    manager.reconnect()?;
                    self.tell(conf, &kept.node, mine.subnets())?;
                }
            }
        }
    }

    /// Tells programs of this host what it has.
    fn tell(&self, conf: &NetConf, node: &Node, subnets: Subnets) -> Result<(), Error> {
        let text = subnet_file::text(conf, &subnets, node.mtu(), self.masquerade == Masquerade::All);
        let wrong = |source| Error::SubnetFile { path: self.subnet_file.clone(), source };
        subnet_file::write(&self.subnet_file, &text).map_err(wrong)?;
        self.told.send_modify(|told| (told.mtu, told.subnets) = (Some(node.mtu()), Some(subnets)));
        Ok(())
    }

    /// Makes this host's links and takes its lease.
    async fn join(&self, manager: &Manager, conf: &NetConf) -> Result<(Node, Mine), Error> {
        let backend = Backend::of(conf)?;
        let external = self.external(conf)?;
        tracing::info!(link = external.name, v4 = ?external.public_v4, v6 = ?external.public_v6, "others reach this host by it");
        let mut site = Site::open(conf.clone(), backend, external, self.own.clone())?;
        site.clear()?;
        self.told.send_modify(|told| told.mtu = Some(site.mtu()));
        let own = site.external.attributes(conf, site.backend.lease_type());
        let (mut told, mut changes) = (String::new(), manager.changes());
        let acquired = loop {
            if let Some(changes) = &mut changes {
                changes.borrow_and_update();
            }
            let acquired = async {
                let before = manager.mine(&own).await?;
                let attributes = site.attributes(before.as_ref())?;
                let previous = subnet_file::read(&self.subnet_file);
                Ok::<_, Error>(manager.acquire(conf, &attributes, previous).await?)
            };
            match acquired.await {
                Ok(acquired) => break acquired,
                // What is away may come back; a full network or a kernel that lacks something needs a person.
                Err(Error::Lease(error)) if error.may_pass() => {
                    waits_for(&mut told, &error);
                    let sooner = async {
                        match &mut changes {
                            Some(changes) => changed(changes).await,
                            None => std::future::pending().await,
                        }
                    };
                    // An end of the wait, either way.
                    let _ = tokio::time::timeout(RETRY, sooner).await;
                }
                Err(error) => return Err(error),
            }
        };
        // Where somebody else's pods are: ours see to it themselves.
        if self.own.tag.is_none() && linux::sysctl::get("net.ipv4.ip_forward").is_ok_and(|value| value == "0") {
            tracing::warn!(
                "this host forwards no packets: pods reach others once `sysctl -w net.ipv4.ip_forward=1` is said"
            );
        }
        Ok((site.with_lease(acquired.subnets()), acquired))
    }

    /// The network's configuration is other than what this host can follow, or the same again.
    fn apart(&self, why: Option<String>) {
        if let Some(why) = why.as_ref().filter(|_| self.told.borrow().apart != why) {
            tracing::warn!("this host keeps the network that it has: {why}");
        }
        self.told.send_if_modified(|told| std::mem::replace(&mut told.apart, why.clone()) != why);
    }

    /// What comes of news of the network's configuration.
    fn configured(&self, kept: &mut Kept<'_>, told: News) -> Option<End> {
        match told {
            News::Turned(next) if self.can_turn(&next) => return Some(End::Turned(next)),
            News::Turned(next) => kept.waits = Some(next),
            News::Apart(why) => {
                kept.waits = None;
                self.apart(why);
            }
            _ => {}
        }
        None
    }

    /// What comes of another link or address of this host: it may have what the network was waiting for.
    fn moved(&self, kept: &mut Kept<'_>) -> Option<End> {
        let next = kept.waits.take_if(|next| self.external(next).is_ok());
        next.map(End::Turned).or_else(|| self.elsewhere(kept).map(End::Moved))
    }

    /// Whether this host has an address of each family of a network; it keeps what it has until then, and says so.
    fn can_turn(&self, next: &NetConf) -> bool {
        match self.external(next) {
            Ok(_) => true,
            Err(error) => {
                self.apart(Some(error.to_string()));
                false
            }
        }
    }

    fn external(&self, conf: &NetConf) -> Result<External, Error> {
        let (families, wish) =
            (Families { v4: conf.v4.is_some(), v6: conf.v6.is_some() }, self.interface.borrow().clone());
        let scene = external::look(&wish)?;
        external::choose(&scene, &wish, families).map_err(Error::Interface)
    }

    /// Another way by which others reach this host, if there is one.
    fn elsewhere(&self, kept: &Kept<'_>) -> Option<External> {
        match self.external(kept.conf) {
            Ok(external) => (external != *kept.node.external()).then_some(external),
            // It had one, and may have it again.
            Err(error) => {
                tracing::info!(%error, "others are told what they were told before");
                None
            }
        }
    }

    /// Keeps the kernel in step.
    async fn keep<'c>(&mut self, mut kept: Kept<'c>, mut news: mpsc::Receiver<News>) -> Result<(Kept<'c>, End), Error> {
        // After a move nothing is as it was.
        let mut retry = kept.known.then(Instant::now);
        let (mut look, mut glance) = (Instant::now() + self.resync, Instant::now() + GLANCE);
        loop {
            let heard = tokio::select! {
                told = news.recv() => match told {
                    Some(told @ (News::Turned(_) | News::Apart(_))) => match self.configured(&mut kept, told) {
                        Some(end) => return Ok((kept, end)),
                        None => continue,
                    },
                    Some(told) => kept.hear(told)?,
                    None => return Ok((kept, End::Closed)),
                },
                () = tokio::time::sleep_until(glance), if kept.known && kept.node.has_peers() => {
                    glance = Instant::now() + GLANCE;
                    let healed;
                    (kept.node, healed) = blocking(kept.node, Node::heal_peers).await;
                    match healed {
                        Ok(()) => continue,
                        // A link is gone, perhaps: then news of it come, too.
                        Err(error) => tracing::debug!(%error, "WireGuard's peers could not be looked at"),
                    }
                    Heard { kernel: true, ..Heard::default() }
                }
                heard = changes(&kept.monitor, &kept.node) => heard?,
                () = changed(&mut self.interface) => Heard { place: true, ..Heard::default() },
                () = at(retry) => Heard { kernel: true, ..Heard::default() },
                () = tokio::time::sleep_until(look), if kept.rules.any() => {
                    look = Instant::now() + self.resync;
                    kept.heal_rules();
                    continue;
                }
            };
            let matters = heard.place || heard.kernel && kept.known;
            if !matters {
                continue;
            }
            tokio::time::sleep(GATHER).await;
            while let Ok(told) = news.try_recv() {
                match told {
                    told @ (News::Turned(_) | News::Apart(_)) => {
                        if let Some(end) = self.configured(&mut kept, told) {
                            return Ok((kept, end));
                        }
                    }
                    told => drop(kept.hear(told)?),
                }
            }
            if heard.place
                && let Some(end) = self.moved(&mut kept)
            {
                return Ok((kept, end));
            }
            if !kept.known {
                continue;
            }
            let (node, synced) = blocking(kept.node, Node::sync).await;
            kept.node = node;
            retry = match synced {
                Ok(true) => None,
                Ok(false) => Some(Instant::now() + RETRY),
                Err(error) => {
                    tracing::warn!(%error, "the kernel is not in step; again in a second");
                    Some(Instant::now() + RETRY)
                }
            };
        }
    }
}

/// What may be other than before.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// Leases, or what is ours in the kernel.
    kernel: bool,
    /// The link or the address by which others reach this host.
    place: bool,
}

impl Kept<'_> {
    fn hear(&mut self, told: News) -> Result<Heard, Error> {
        if let News::Lost(subnets) = told {
            return Err(Error::Lost(subnets));
        }
        self.known |= matches!(told, News::All(_));
        self.node.hear(told);
        Ok(Heard { kernel: true, place: false })
    }

    fn heal_rules(&mut self) {
        match self.rules.heal() {
            Ok(false) => {}
            Ok(true) => tracing::warn!("somebody has changed flannel's nftables rules: they are made anew"),
            Err(error) => tracing::warn!(%error, "flannel's nftables rules could not be looked at"),
        }
    }
}

/// Waits for the network's configuration, and tells once what it waits for.
async fn network(manager: &Manager) -> Result<NetConf, Error> {
    let mut told = String::new();
    loop {
        match manager.config().await {
            Ok(conf) => return Ok(conf),
            Err(error) => waits_for(&mut told, &error),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn waits_for(told: &mut String, error: &manager::Error) {
    let why = error.to_string();
    if *told == why {
        return;
    }
    if error.is_usual() {
        tracing::info!("waiting: {why}");
    } else {
        tracing::warn!("waiting: {why}");
    }
    *told = why;
}

/// Talks to the kernel on a thread for that: it is quick, and still blocks.
async fn blocking<T: Send + 'static>(mut node: Node, work: fn(&mut Node) -> T) -> (Node, T) {
    let work = move || {
        let done = work(&mut node);
        (node, done)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn changes(monitor: &AsyncFd<Monitor>, node: &Node) -> Result<Heard, Error> {
    let mut ready = monitor.readable().await.map_err(Error::Monitor)?;
    ready.clear_ready();
    let mut heard = Heard::default();
    monitor.get_ref().drain(|event| {
        heard.kernel |= node.matters(&event);
        heard.place |= node.may_have_moved(&event);
    })?;
    Ok(heard)
}

/// Returns when something else is said; never where nobody says anything any more.
async fn changed<T>(said: &mut watch::Receiver<T>) {
    if said.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
