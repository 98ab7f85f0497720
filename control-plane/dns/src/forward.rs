//! Asks upstreams for what is not about the cluster. Does I/O.
//!
//! Equal questions wait for one answer, so a question that comes back to us in a circle waits for itself and ends with
//! the deadline. A silent upstream is not waited for long: the next is asked beside it, and the first good answer wins.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use linux::resolved;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cache::{self, Cache};
use crate::resolv;
use crate::wire::{self, HEADER, MOST_UDP, Question, code, flag, kind};

/// Clients wait five seconds and ask again; an answer after that is for nobody.
const DEADLINE: Duration = Duration::from_millis(4500);
/// How long an upstream may be silent before the next one is asked too.
const HEDGE: Duration = Duration::from_millis(350);
/// UDP gets lost: the same question again.
const RESEND: Duration = Duration::from_millis(1200);
/// Questions under way at once, as upstream's configuration for cluster DNS has it; each costs a socket.
const MOST_WAITING: usize = 1000;
/// The resolver configuration is looked at again when a question needs it and this much time has gone.
const RESOLV_CHECK: Duration = Duration::from_secs(5);

/// An upstream's answer, without OPT, and where its times to live are.
pub type Resolved = Arc<(Vec<u8>, Vec<u16>)>;

/// Where the answer to a question under way will be.
type Waiting = watch::Receiver<Option<Resolved>>;

/// Asks upstreams and remembers.
#[derive(Debug)]
pub struct Forwarder {
    pub cache: Mutex<Cache>,
    source: Source,
    servers: Mutex<Servers>,
    waiting: Mutex<HashMap<Box<[u8]>, Waiting>>,
    slots: Arc<Semaphore>,
    /// The server that answered last is asked first.
    preferred: AtomicUsize,
    started: Instant,
    pub asked: AtomicU64,
    pub failed: AtomicU64,
}

/// Where the list of servers comes from.
#[derive(Debug)]
enum Source {
    Given,
    File { path: PathBuf, own: Vec<SocketAddr> },
}

#[derive(Debug, Default)]
struct Servers {
    list: Arc<[SocketAddr]>,
    checked: Option<Instant>,
    /// When the two files were last changed; none before the first look.
    changed: Option<[Option<SystemTime>; 2]>,
}

impl Forwarder {
    /// With given servers, or those of a resolver configuration without our own addresses.
    pub fn new(given: &[SocketAddr], resolv_conf: PathBuf, own: Vec<SocketAddr>) -> Self {
        let source = if given.is_empty() { Source::File { path: resolv_conf, own } } else { Source::Given };
        Forwarder {
            cache: Mutex::default(),
            source,
            servers: Mutex::new(Servers { list: given.into(), ..Servers::default() }),
            waiting: Mutex::default(),
            slots: Arc::new(Semaphore::new(MOST_WAITING)),
            preferred: AtomicUsize::new(0),
            started: Instant::now(),
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// The cache's clock.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// A place among those who wait; none when there are too many.
    pub fn slot(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// The answer to a question; none when nobody gives one.
    pub async fn resolve(self: &Arc<Self>, question: &Question) -> Option<Resolved> {
        let (key, len) = cache::key(question);
        let key: Box<[u8]> = key[..len].into();
        let mut receiver = {
            let mut waiting = self.waiting.lock();
            match waiting.get(&key) {
                Some(receiver) => receiver.clone(),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    waiting.insert(key.clone(), receiver.clone());
                    let (this, question) = (self.clone(), *question);
                    tokio::spawn(async move {
                        let answer = this.ask(&question).await;
                        this.waiting.lock().remove(&key);
                        let _ = sender.send(answer);
                    });
                    receiver
                }
            }
        };
        // An error means that the asking task ended: without an answer, or the value is there.
        let _ = receiver.wait_for(Option::is_some).await;
        receiver.borrow().clone()
    }

    async fn ask(&self, question: &Question) -> Option<Resolved> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::time::timeout(DEADLINE, self.ask_all(question)).await.ok().flatten();
        let Some(response) = answer else {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.cache.lock().insert(question, &response, self.now());
        cache::without_opt(&response).map(Arc::new)
    }

    /// Asks the servers one after another, each beside those that are still silent.
    async fn ask_all(&self, question: &Question) -> Option<Vec<u8>> {
        let servers = self.servers();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut next = (0..servers.len()).map(|i| (first + i) % servers.len());
        let mut asked: JoinSet<(usize, Option<Vec<u8>>)> = JoinSet::new();
        let mut poor = None;
        loop {
            if let Some(i) = next.next() {
                let (server, question) = (servers[i], *question);
                asked.spawn(async move { (i, exchange(server, &question).await.ok()) });
            } else if asked.is_empty() {
                return poor;
            }
            let hedge = tokio::time::sleep(HEDGE);
            tokio::pin!(hedge);
            tokio::select! {
                done = asked.join_next() => match done {
                    Some(Ok((i, Some(response)))) => {
                        let good = matches!(response[3] & 0xf, code::NOERROR | code::NXDOMAIN);
                        if good {
                            self.preferred.store(i, Ordering::Relaxed);
                            return Some(response);
                        }
                        poor = Some(response);
                    }
                    Some(_) => {}
                    None => return poor,
                },
                () = &mut hedge => {}
            }
        }
    }

    /// The servers now: the file is read again when it has changed.
    fn servers(&self) -> Arc<[SocketAddr]> {
        let mut servers = self.servers.lock();
        let Source::File { path, own } = &self.source else { return servers.list.clone() };
        if servers.checked.is_none_or(|at| at.elapsed() > RESOLV_CHECK) {
            servers.checked = Some(Instant::now());
            let changed = [path.as_path(), Path::new(resolved::FILE)]
                .map(|p| std::fs::metadata(p).and_then(|m| m.modified()).ok());
            if servers.changed != Some(changed) {
                servers.changed = Some(changed);
                let conf = read(path).unwrap_or_else(|error| {
                    tracing::warn!(file = %path.display(), %error, "the resolver configuration can't be read");
                    String::new()
                });
                let real = read(Path::new(resolved::FILE)).ok();
                let found = resolv::upstreams(&conf, real.as_deref(), own);
                found.notes.iter().for_each(|note| tracing::warn!(file = %path.display(), "{note}"));
                servers.list = found.servers.into();
            }
        }
        servers.list.clone()
    }
}

/// A resolver configuration, as far as one can be long.
fn read(path: &Path) -> std::io::Result<String> {
    /// A few lines: far above any real one.
    const MOST_BYTES: u64 = 64 << 10;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(std::fs::File::open(path)?, MOST_BYTES), &mut text)?;
    Ok(text)
}

/// One question to one server: by UDP, and by TCP when the answer is too long for that.
async fn exchange(server: SocketAddr, question: &Question) -> std::io::Result<Vec<u8>> {
    let id: u16 = rand::random();
    let query = query(id, question);
    let response = by_udp(server, id, &query, question).await?;
    if response[2] & flag::TC == 0 {
        return Ok(response);
    }
    match by_tcp(server, id, &query, question).await {
        Ok(whole) => Ok(whole),
        Err(_) => Ok(response), // the client may have more luck with TCP than we have
    }
}

async fn by_udp(server: SocketAddr, id: u16, query: &[u8], question: &Question) -> std::io::Result<Vec<u8>> {
    // A socket for each question: its random port is what keeps forged answers out.
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let mut buffer = vec![0; usize::from(MOST_UDP) * 4];
    loop {
        socket.send(query).await?;
        let wait = tokio::time::timeout(RESEND, async {
            loop {
                let read = socket.recv(&mut buffer).await?;
                if is_answer(&buffer[..read], id, question) {
                    return Ok::<_, std::io::Error>(read);
                }
            }
        });
        if let Ok(read) = wait.await {
            buffer.truncate(read?);
            return Ok(buffer);
        }
    }
}

async fn by_tcp(server: SocketAddr, id: u16, query: &[u8], question: &Question) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.write_all(&framed).await?;
    let len = stream.read_u16().await?;
    let mut response = vec![0; usize::from(len)];
    stream.read_exact(&mut response).await?;
    if is_answer(&response, id, question) { Ok(response) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

/// The question as we ask it: in small letters, recursion desired, with our size.
fn query(id: u16, question: &Question) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + question.name().len() + 15);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[flag::RD, question.flags.1 & flag::CD, 0, 1, 0, 0, 0, 0, 0, 1]);
    out.extend_from_slice(question.name());
    out.extend_from_slice(&question.kind.to_be_bytes());
    out.extend_from_slice(&question.class.to_be_bytes());
    let size = MOST_UDP.to_be_bytes();
    let secure = if question.edns.is_some_and(|e| e.secure) { 0x80 } else { 0 };
    out.extend_from_slice(&[0, 0, kind::OPT as u8, size[0], size[1], 0, 0, secure, 0, 0, 0]);
    out
}

/// Whether a message answers this question and no other.
fn is_answer(message: &[u8], id: u16, question: &Question) -> bool {
    let name = question.name();
    let end = HEADER + name.len();
    message.len() >= end + 4
        && message[..2] == id.to_be_bytes()
        && message[2] & flag::QR != 0
        && wire::u16_at(message, 4) == Some(1)
        && message[HEADER..end].eq_ignore_ascii_case(name)
        && wire::u16_at(message, end) == Some(question.kind)
        && wire::u16_at(message, end + 2) == Some(question.class)
        && wire::records(message).is_some()
}
