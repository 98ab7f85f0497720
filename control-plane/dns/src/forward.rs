//! Asks upstreams for what is not about the cluster: one `forward` of the configuration. Does I/O.
//!
//! A silent upstream is not waited for long: the next is asked beside it, and the first good answer wins.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use linux::resolved;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::corefile::values::is_below;
use crate::corefile::{Forward, Policy, To, Upstream as Server};
use crate::resolv;
use crate::upstream::Upstream;
use crate::wire::{Question, code};

/// How long an upstream may be silent before the next one is asked too.
const HEDGE: Duration = Duration::from_millis(350);
/// The resolver configuration is looked at again when a question needs it and this much time has gone.
const RESOLV_CHECK: Duration = Duration::from_secs(5);

/// What became of a question.
#[derive(Debug)]
pub enum Forwarded {
    Answer(Vec<u8>),
    /// Nobody answered.
    Failed,
    /// As many questions as may be are under way.
    Refused,
}

/// Asks the servers of one `forward`.
#[derive(Debug)]
pub struct Forwarder {
    pub settings: Arc<Forward>,
    own: Vec<SocketAddr>,
    tls: Option<Arc<ClientConfig>>,
    servers: Mutex<Servers>,
    concurrent: Option<Semaphore>,
    /// Whose turn it is; or who answered last and is asked first.
    turn: AtomicUsize,
    pub asked: AtomicU64,
    pub failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Servers {
    list: Arc<[Arc<Upstream>]>,
    checked: Option<Instant>,
    /// When the files were last changed; none before the first look.
    changed: Option<Vec<Option<SystemTime>>>,
}

impl Forwarder {
    /// `own`: addresses of this server, which never asks itself. Reads the files of TLS; what is wrong with them is told.
    pub fn new(settings: Forward, own: Vec<SocketAddr>) -> Result<Self, String> {
        let by_tls = |to: &To| matches!(to, To::Server(Server { tls: true, .. }));
        let tls = match settings.to.iter().any(by_tls) {
            true => Some(client_config(&settings).map_err(|error| format!("forward: tls: {error}"))?),
            false => None,
        };
        let concurrent = settings.max_concurrent.map(|most| Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let forwarder = Forwarder {
            settings: Arc::new(settings),
            own,
            tls,
            servers: Mutex::default(),
            concurrent,
            turn: AtomicUsize::new(0),
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        forwarder.servers();
        Ok(forwarder)
    }

    /// Whether it is for this name.
    pub fn is_for(&self, name: &[u8]) -> bool {
        let in_one = |zones: &[crate::wire::Name]| zones.iter().any(|zone| is_below(name, zone.as_bytes()));
        in_one(&self.settings.from) && !in_one(&self.settings.except)
    }

    /// The answer to a question.
    pub async fn ask(&self, question: &Question) -> Forwarded {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let _permit = match self.concurrent.as_ref().map(Semaphore::try_acquire) {
            Some(Err(_)) => return Forwarded::Refused,
            permit => permit,
        };
        match self.ask_all(question).await {
            Some(response) => Forwarded::Answer(response),
            None => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                Forwarded::Failed
            }
        }
    }

    /// Asks the servers one after another, each beside those that are still silent.
    async fn ask_all(&self, question: &Question) -> Option<Vec<u8>> {
        let servers = self.servers();
        let mut next = self.order(&servers).into_iter();
        let mut asked: JoinSet<(usize, Option<Vec<u8>>)> = JoinSet::new();
        let mut silent: Vec<(usize, Instant)> = Vec::new();
        let mut poor = None;
        loop {
            if let Some(i) = next.next() {
                let (server, question, settings) = (servers[i].clone(), *question, self.settings.clone());
                silent.push((i, Instant::now()));
                asked.spawn(async move { (i, server.ask(&question, &settings).await.ok()) });
            } else if asked.is_empty() {
                return poor;
            }
            let hedge = tokio::time::sleep(HEDGE);
            tokio::pin!(hedge);
            tokio::select! {
                done = asked.join_next() => match done {
                    Some(Ok((i, response))) => {
                        silent.retain(|(other, _)| *other != i);
                        match response {
                            Some(response) if self.is_good(&response) => {
                                if self.settings.policy == Policy::Preferred {
                                    self.turn.store(i, Ordering::Relaxed);
                                }
                                self.look_after(&servers, &silent);
                                return Some(response);
                            }
                            Some(response) => poor = Some(response),
                            None => {}
                        }
                    }
                    Some(Err(_)) => {}
                    None => return poor,
                },
                () = &mut hedge => {}
            }
        }
    }

    /// Whether nobody else need be asked.
    fn is_good(&self, response: &[u8]) -> bool {
        let code = response[3] & 0xf;
        matches!(code, code::NOERROR | code::NXDOMAIN) && !self.settings.failover.contains(&code)
    }

    /// Those who were silent while another answered may be gone: nobody waits to learn it.
    fn look_after(&self, servers: &[Arc<Upstream>], silent: &[(usize, Instant)]) {
        let long = silent.iter().filter(|(_, since)| since.elapsed() >= HEDGE);
        long.for_each(|(i, _)| servers[*i].look_after(&self.settings));
    }

    /// Who is asked, in order: those who are well; when nobody is, anybody, for the checks themselves may be at fault.
    fn order(&self, servers: &[Arc<Upstream>]) -> Vec<usize> {
        let turn = match self.settings.policy {
            Policy::Preferred => self.turn.load(Ordering::Relaxed),
            Policy::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed),
            Policy::Sequential => 0,
            Policy::Random => rand::random::<u32>() as usize,
        };
        let count = servers.len();
        let all: Vec<usize> = (0..count).map(|i| (turn % count + i) % count).collect();
        let well: Vec<usize> = all.iter().copied().filter(|i| !servers[*i].is_down(&self.settings)).collect();
        match well.is_empty() {
            true if self.settings.fail_fast => Vec::new(),
            true => all,
            false => well,
        }
    }

    /// The servers now: files are read again when they have changed.
    pub fn servers(&self) -> Arc<[Arc<Upstream>]> {
        let mut servers = self.servers.lock();
        let files: Vec<&PathBuf> =
            self.settings.to.iter().filter_map(|to| if let To::File(path) = to { Some(path) } else { None }).collect();
        let fresh = |at: Instant| files.is_empty() || at.elapsed() < RESOLV_CHECK;
        if servers.checked.is_some_and(fresh) {
            return servers.list.clone();
        }
        servers.checked = Some(Instant::now());
        let modified = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        let mut changed: Vec<_> = files.iter().map(|path| modified(path)).collect();
        changed.push(modified(Path::new(resolved::FILE)));
        if servers.changed.as_ref() != Some(&changed) {
            servers.changed = Some(changed);
            servers.list = self.read(&servers.list);
        }
        servers.list.clone()
    }

    /// The servers as configured; those that are known keep what is known of them.
    fn read(&self, known: &[Arc<Upstream>]) -> Arc<[Arc<Upstream>]> {
        let mut list: Vec<Server> = Vec::new();
        for to in &self.settings.to {
            match to {
                To::Server(server) => list.push(server.clone()),
                To::File(path) => list.extend(self.read_file(path)),
            }
        }
        list.into_iter()
            .map(|mut server| {
                if server.tls && server.tls_name.is_none() {
                    server.tls_name = self.settings.tls_name.clone();
                }
                let same = known.iter().find(|upstream| upstream.server == server).cloned();
                let tls = self.tls.clone().filter(|_| server.tls);
                same.unwrap_or_else(|| Arc::new(Upstream::new(server, tls)))
            })
            .collect()
    }

    fn read_file(&self, path: &Path) -> impl Iterator<Item = Server> + use<> {
        let conf = read(path).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "the resolver configuration can't be read");
            String::new()
        });
        let real = read(Path::new(resolved::FILE)).ok();
        let found = resolv::upstreams(&conf, real.as_deref(), &self.own);
        found.notes.iter().for_each(|note| tracing::warn!(file = %path.display(), "{note}"));
        found.servers.into_iter().map(|address| Server { address, tls: false, tls_name: None })
    }
}

/// What connections by TLS are made with.
fn client_config(settings: &Forward) -> Result<Arc<ClientConfig>, String> {
    let roots = match &settings.tls.ca {
        Some(path) => serving::tls::roots(path).map_err(|e| e.to_string())?,
        None => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let pair = match &settings.tls.pair {
        None => None,
        Some((cert, key)) => {
            let files = serving::tls::Files { cert: cert.clone(), key: key.clone() };
            Some(serving::tls::CertKeyPair::load(files).map_err(|e| e.to_string())?)
        }
    };
    serving::tls::client(Some(roots), pair).map(Arc::new).map_err(|e| e.to_string())
}

/// A resolver configuration, as far as one can be long.
fn read(path: &Path) -> std::io::Result<String> {
    /// A few lines: far above any real one.
    const MOST_BYTES: u64 = 64 << 10;
    crate::files::read(path, MOST_BYTES)
}
