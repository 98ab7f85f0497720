//! The etcd subnet manager: the network's configuration and every host's lease are keys of etcd, in upstream's layout. I/O
//! by [`client`]; which subnets a host takes is decided in `choice`. Caller: the daemon.
//!
//! ```text
//! PREFIX/config                    the network's configuration, written by an administrator
//! PREFIX/subnets/10.5.34.0-24      a host's lease, attached to a lease of etcd of 24 hours; without one it is a
//!                                  reservation of an administrator
//!
//! acquire    mine by public address ─► put again │ what I had, or a free one ─► put if absent, else from the start
//!            it lacks a family that the network has ─► one with both in its place, in one transaction
//! follow     list at revision r ─► watch from r + 1 ──► every change
//!                 ▲                     │ compacted, or the connection ended
//!                 └─────────────────────┘
//! renew      MARGIN before the end: a new lease of etcd, and the key put with it; failed: again in a minute
//! ```

pub mod client;
mod configuration;
pub mod login;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::etcd::{EventType, KeyValue, WatchResponse};

use self::client::{CallError, Client, Endpoints, FlagError, Watch};
use crate::choice::{self, Choice, Full, Held};
use crate::config::{ConfigError, NetConf};
use crate::lease::{Attributes, Lease, Subnets};
use crate::news::News;

/// How long a lease lives without being renewed; upstream's.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// After a renewal that failed.
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// How often a subnet is chosen that another host takes first.
const RACES: usize = 10;
/// The first wait after the watch has ended, doubled up to the last; upstream's.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Full(#[from] Full),
    #[error("etcd has no key {0}: put the network's configuration there, with the v3 API")]
    NoConfig(String),
    #[error("{RACES} subnets were taken by other hosts while this one chose: is another writing leases all the time?")]
    Races,
    #[error("flannel's network configuration: EnableIPv4: leases in etcd are named by their IPv4 subnet")]
    WithoutIpv4,
}

/// What `--etcd-prefix` and its siblings say.
#[derive(Clone, Debug)]
pub struct Options {
    pub endpoints: Endpoints,
    pub prefix: String,
    /// How long before its end a lease is renewed.
    pub renew_margin: Duration,
}

/// Leases in etcd.
#[derive(Clone)]
pub struct Registry {
    client: Client,
    endpoints: Endpoints,
    prefix: String,
    renew_margin: Duration,
}

/// This host's lease, and when it is to be renewed; never for a reservation.
#[derive(Clone, Debug)]
pub struct Acquired {
    pub lease: Lease,
    renew: Option<Instant>,
    /// What the lease says is not in etcd yet.
    unsaid: bool,
}

impl Acquired {
    fn new(lease: Lease, renew: Option<Instant>) -> Acquired {
        Acquired { lease, renew, unsaid: false }
    }

    /// It stays this host's, and says something else of it.
    pub fn now_says(&mut self, attributes: Attributes) {
        self.unsaid |= self.lease.attributes != attributes;
        self.lease.attributes = attributes;
    }
}

impl Registry {
    pub fn new(options: &Options) -> Result<Registry, FlagError> {
        let client = Client::new(&options.endpoints)?;
        let prefix = format!("/{}", options.prefix.trim_matches('/'));
        let (endpoints, renew_margin) = (options.endpoints.clone(), options.renew_margin);
        Ok(Registry { client, endpoints, prefix, renew_margin })
    }

    /// With new connections: those that left from an address which this host has no more say nothing, and don't end.
    pub fn reconnect(&mut self) -> Result<(), FlagError> {
        self.client = Client::new(&self.endpoints)?;
        Ok(())
    }

    fn key(&self, subnets: &Subnets) -> Bytes {
        format!("{}/subnets/{}", self.prefix, subnets.key()).into()
    }

    /// From the first lease's key to behind the last one's: "0" follows "/".
    fn keys(&self) -> (Bytes, Bytes) {
        (format!("{}/subnets/", self.prefix).into(), format!("{}/subnets0", self.prefix).into())
    }

    /// All leases, and the revision as of which they are all.
    async fn held(&self) -> Result<(Vec<Held>, i64), CallError> {
        let (from, to) = self.keys();
        let answer = self.client.range(from, to).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        Ok((answer.kvs.iter().filter_map(held).collect(), revision))
    }

    /// The lease that this host has already, if any: what it told of its devices is used again.
    pub async fn mine(&self, own: &Attributes) -> Result<Option<Attributes>, Error> {
        let all = self.held().await?.0.into_iter().map(|held| held.attributes);
        let mut mine = all.filter(|a| own.public_ip.is_some() && a.public_ip == own.public_ip);
        Ok(mine.next())
    }

    /// Takes a lease for this host.
    pub async fn acquire(
        &self,
        conf: &NetConf,
        own: &Attributes,
        previous: Option<Subnets>,
    ) -> Result<Acquired, Error> {
        for _ in 0..RACES {
            let (held, _) = self.held().await?;
            let choice = choice::choose(conf, &held, own, previous, |n| rand::random_range(0..n))?;
            let (subnets, from, reserved) = match choice {
                Choice::Keep { subnets, reserved } => {
                    let lease = Lease { subnets, attributes: own.clone() };
                    let renew = self.write(&lease, reserved).await?;
                    tracing::info!(%subnets, reserved, "this host keeps its lease");
                    return Ok(Acquired::new(lease, renew));
                }
                Choice::Drop(subnets) => {
                    tracing::info!(%subnets, "this host's lease does not fit the network any more, and is given up");
                    self.client.delete(self.key(&subnets)).await?;
                    continue;
                }
                Choice::Make(subnets) => (subnets, None, false),
                Choice::Grow { from, to, reserved } => {
                    tracing::info!(%from, %to, "the network has another family, of which this host takes a subnet besides");
                    (to, held.into_iter().find(|held| held.subnets == from), reserved)
                }
            };
            let lease = Lease { subnets, attributes: own.clone() };
            if let Some(renew) = self.make(&lease, from.as_ref(), reserved).await? {
                tracing::info!(%subnets, "this host has a lease");
                return Ok(Acquired::new(lease, renew));
            }
        }
        Err(Error::Races)
    }

    /// Puts a lease that is not there yet, in the place of one that this host has; answers when it must be renewed. None:
    /// another host was first.
    async fn make(
        &self,
        lease: &Lease,
        from: Option<&Held>,
        reserved: bool,
    ) -> Result<Option<Option<Instant>>, CallError> {
        let (id, seconds) = if reserved { (0, 0) } else { self.client.grant(TTL.as_secs() as i64).await? };
        let (key, value) = (self.key(&lease.subnets), lease.attributes.to_json().into());
        let made = match from {
            None => self.client.create(key, value, id).await,
            Some(held) => self.client.rename((self.key(&held.subnets), held.revision), key, value, id).await,
        };
        if reserved {
            // Without an answer it is there or not: the next look finds it as ours.
            return Ok(made?.then_some(None));
        }
        let made = match made {
            Ok(true) => true,
            other => self.came_about(&lease.subnets, id).await || other?,
        };
        Ok(made.then(|| Some(self.renewal(seconds))))
    }

    /// Puts a lease that is this host's; answers when it must be renewed.
    async fn write(&self, lease: &Lease, reserved: bool) -> Result<Option<Instant>, CallError> {
        let (key, value) = (self.key(&lease.subnets), lease.attributes.to_json().into());
        if reserved {
            self.client.put(key, value, 0).await?;
            return Ok(None);
        }
        let (id, seconds) = self.client.grant(TTL.as_secs() as i64).await?;
        match self.client.put(key, value, id).await {
            Err(error) if !self.came_about(&lease.subnets, id).await => Err(error),
            _ => Ok(Some(self.renewal(seconds))),
        }
    }

    /// Whether a key hangs on this lease of etcd, though the answer says that it was not put: a call that is made again at the
    /// next endpoint may have worked at the first, and then fails for that. Only a lease without a key is given back: with
    /// it the key would go. Where that can't be known it is left to its end.
    async fn came_about(&self, subnets: &Subnets, lease: i64) -> bool {
        match self.client.range(self.key(subnets), Bytes::new()).await {
            Ok(answer) if answer.kvs.iter().any(|kv| kv.lease == lease) => return true,
            Ok(_) => self.forget(lease).await,
            Err(error) => tracing::debug!(%error, lease, "a lease of etcd that may have a key is left to its end"),
        }
        false
    }

    async fn forget(&self, lease: i64) {
        if let Err(error) = self.client.revoke(lease).await {
            tracing::debug!(%error, "a lease of etcd without keys is left to its end");
        }
    }

    fn renewal(&self, seconds: i64) -> Instant {
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        Instant::now() + life.saturating_sub(self.renew_margin)
    }

    /// Tells of all leases, then of every change; renews this host's. Ends when nobody listens, or the lease is gone.
    pub async fn follow(&self, mine: &mut Acquired, news: mpsc::Sender<News>) {
        let own_key = self.key(&mine.lease.subnets);
        let mut retry = FIRST_RETRY;
        let mut since = None;
        loop {
            let watched = match self.say(mine).await {
                Ok(()) => self.watch_once(mine, &own_key, &mut since, &news, &mut retry).await,
                Err(error) => Err(error),
            };
            match watched {
                Ok(Ended::Closed) => return,
                Ok(Ended::Compacted) => since = None,
                Err(error) => {
                    tracing::warn!(%error, "leases of other hosts are not heard of; packets go on as before");
                    tokio::select! {
                        () = tokio::time::sleep(retry) => {}
                        () = news.closed() => return,
                    }
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
            self.renew_if_due(mine).await;
        }
    }

    /// Puts what the lease says now, if that is not done yet: nobody else has it, whatever address it says.
    async fn say(&self, mine: &mut Acquired) -> Result<(), CallError> {
        if mine.unsaid {
            mine.renew = self.write(&mine.lease, mine.renew.is_none()).await?;
            mine.unsaid = false;
            tracing::info!(subnets = %mine.lease.subnets, "others are told where this host is now");
        }
        Ok(())
    }

    async fn watch_once(
        &self,
        mine: &mut Acquired,
        own_key: &Bytes,
        since: &mut Option<i64>,
        news: &mpsc::Sender<News>,
        retry: &mut Duration,
    ) -> Result<Ended, CallError> {
        let from = match *since {
            Some(revision) => revision,
            None => {
                let (held, revision) = self.held().await?;
                let Some(told) = told(held, &mine.lease) else { return Ok(self.lost(news, mine).await) };
                if news.send(News::All(told)).await.is_err() {
                    return Ok(Ended::Closed);
                }
                revision + 1
            }
        };
        *since = Some(from);
        let (key, end) = self.keys();
        let mut watch = self.client.watch(key, end, from).await?;
        loop {
            let answer = tokio::select! {
                answer = next(&mut watch) => answer?,
                () = due(mine.renew) => {
                    self.renew_if_due(mine).await;
                    continue;
                }
                () = news.closed() => return Ok(Ended::Closed),
            };
            *retry = FIRST_RETRY;
            if answer.canceled && answer.compact_revision > 0 {
                tracing::info!(from, "what happened since was compacted: leases are listed again");
                return Ok(Ended::Compacted);
            }
            if answer.canceled {
                // It may be a token that etcd has forgotten: a list asks for a new one.
                *since = None;
                return Err(CallError(format!("the watch was cancelled: {}", answer.cancel_reason)));
            }
            for event in &answer.events {
                let Some(kv) = &event.kv else { continue };
                let gone = event.r#type == EventType::Delete as i32;
                if gone && kv.key == *own_key {
                    return Ok(self.lost(news, mine).await);
                }
                let Some(event) = changed(kv, gone) else { continue };
                if matches!(&event, News::Set(lease) if is_taken(lease, &mine.lease)) {
                    return Ok(self.lost(news, mine).await);
                }
                if news.send(event).await.is_err() {
                    return Ok(Ended::Closed);
                }
            }
            if let Some(header) = &answer.header
                && !answer.events.is_empty()
            {
                *since = Some(header.revision + 1);
            }
        }
    }

    async fn lost(&self, news: &mpsc::Sender<News>, mine: &Acquired) -> Ended {
        let _ = news.send(News::Lost(mine.lease.subnets)).await;
        Ended::Closed
    }

    async fn renew_if_due(&self, mine: &mut Acquired) {
        if mine.renew.is_none_or(|at| Instant::now() < at) {
            return;
        }
        match self.write(&mine.lease, false).await {
            Ok(renew) => {
                tracing::info!(subnets = %mine.lease.subnets, "the lease is renewed");
                mine.renew = renew;
            }
            Err(error) => {
                tracing::warn!(%error, "the lease could not be renewed; again in a minute");
                mine.renew = Some(Instant::now() + RENEW_AGAIN);
            }
        }
    }
}

/// Why a watch ended that did not fail.
enum Ended {
    /// Nobody listens any more.
    Closed,
    /// Changes are missing.
    Compacted,
}

async fn next(watch: &mut Watch) -> Result<WatchResponse, CallError> {
    watch.next().await?.ok_or_else(|| CallError("the server ended the watch".to_owned()))
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A key as a lease. What is none, somebody else's garbage among leases, is told and left alone.
fn held(kv: &KeyValue) -> Option<Held> {
    let subnets = Subnets::of_key(std::str::from_utf8(&kv.key).ok()?)?;
    match Attributes::parse(&kv.value) {
        Ok(attributes) => Some(Held { subnets, attributes, reserved: kv.lease == 0, revision: kv.mod_revision }),
        Err(problem) => {
            tracing::warn!(%subnets, problem, "a lease that can't be read is passed over");
            None
        }
    }
}

/// All leases; none when this host's is not among them: then it has been taken away.
fn told(held: Vec<Held>, mine: &Lease) -> Option<Vec<Lease>> {
    let all = held.into_iter().map(|held| Lease { subnets: held.subnets, attributes: held.attributes });
    let all: Vec<Lease> = all.collect();
    let is_there = all.iter().any(|lease| lease.subnets == mine.subnets && !is_taken(lease, mine));
    is_there.then_some(all)
}

/// Another host says that it has this one's subnets.
fn is_taken(lease: &Lease, mine: &Lease) -> bool {
    lease.subnets == mine.subnets && lease.attributes.public_ip != mine.attributes.public_ip
}

pub fn changed(kv: &KeyValue, gone: bool) -> Option<News> {
    if gone {
        return Some(News::Gone(Subnets::of_key(std::str::from_utf8(&kv.key).ok()?)?));
    }
    held(kv).map(|held| News::Set(Lease { subnets: held.subnets, attributes: held.attributes }))
}
