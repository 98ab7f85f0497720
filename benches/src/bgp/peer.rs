//! The other end of a speaker's sessions: tells prepared routes and marks those that it hears. Any number of them share
//! one thread, so that what they cost is small beside what is measured. I/O: sockets of the thread's network namespace.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bgp::attribute::{AsPath, Attributes, NextHop};
use bgp::family::Family;
use bgp::message::nlri::Nlri;
use bgp::message::open::Open;
use bgp::message::{Coding, Kind, Message, frame, pack, update};
use bgp::session::config::{Opening, RemoteAs};
use bgp::session::negotiated::judge;
use bgp::session::{Config, Negotiated};
use meta::Prefix;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

use super::speaker::{ADDRESS, HOLD_TIME, NUMBER, Neighbour};

const PORT: u16 = 179;
/// The first of the routes, /24 each, and how many a peer can mark.
const FIRST: u32 = 0x0100_0000;
const MOST: usize = 2_000_000;
/// What is read at once.
const BLOCK: usize = 256 << 10;

/// The nth route.
pub fn route(n: u32) -> Prefix {
    Prefix::new(Ipv4Addr::from(FIRST + (n << 8)), 24)
}

/// A session that is there.
pub struct Peer {
    to: OwnedWriteHalf,
    negotiated: Negotiated,
    me: Neighbour,
    heard: Arc<Heard>,
    reader: JoinHandle<()>,
}

/// What a peer hears.
#[derive(Default)]
pub struct Heard {
    /// Routes that it has.
    routes: AtomicUsize,
    /// Why its session is over.
    ended: OnceLock<String>,
}

impl Peer {
    /// Connects from the neighbour's address until the session is there. `only`: routes count whose path has this AS.
    pub async fn connect(me: Neighbour, only: Option<u32>) -> Result<Peer> {
        let mut last = None;
        for _ in 0..200 {
            match Peer::attempt(me, only).await {
                Ok(peer) => return Ok(peer),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(last.context("no attempt")?.context(format!("a session of {}", me.address)))
    }

    async fn attempt(me: Neighbour, only: Option<u32>) -> Result<Peer> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(me.address.into(), 0))?;
        let mut stream = socket.connect(SocketAddr::new(ADDRESS.into(), PORT)).await?;
        stream.set_nodelay(true)?;
        let mut config = Config::new(me.number, RemoteAs::Number(NUMBER), me.address);
        config.restart = None;
        config.hold_time = HOLD_TIME;
        stream.write_all(&Message::Open(config.open(Opening::First)).write()).await?;
        let mut buffer = Buffer::default();
        let (mut negotiated, mut answered, mut agreed) = (None, false, false);
        while !agreed || !answered {
            agreed |= buffer.each(false, |kind, body| match kind {
                Kind::Open => {
                    let his = Open::read(body).map_err(|error| anyhow!("{error:?}"))?;
                    negotiated = Some(judge(&config, &his).map_err(|error| anyhow!("{error:?}"))?);
                    Ok(false)
                }
                Kind::Keepalive => Ok(true),
                kind => bail!("{kind:?} before there is a session: {body:?}"),
            })?;
            if negotiated.is_some() && !answered {
                stream.write_all(&Message::Keepalive.write()).await?;
                answered = true;
            } else if !agreed {
                buffer.fill(&mut stream).await?;
            }
        }
        let negotiated = negotiated.context("no OPEN")?;
        let (from, to) = stream.into_split();
        let heard = Arc::new(Heard::default());
        let reader = tokio::spawn(read(from, buffer, negotiated.receive, only, heard.clone()));
        Ok(Peer { to, negotiated, me, heard, reader })
    }

    /// The bytes that tell these routes, so many with the same attributes; the end of the AS path is that of all.
    pub fn told(&self, routes: std::ops::Range<u32>, each: usize, end: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let all: Vec<Nlri> = routes.map(|n| Nlri::from(route(n))).collect();
        for (set, some) in (0u32..).zip(all.chunks(each.max(1))) {
            let own = (self.me.number != NUMBER).then_some(self.me.number);
            let path: Vec<u32> = own.into_iter().chain([100_000 + set]).chain(end.iter().copied()).collect();
            let mut attributes = Attributes::local(NextHop::V4(self.me.address));
            attributes.as_path = AsPath::sequence(&path);
            attributes.local_preference = own.is_none().then_some(100);
            pack::announce(&self.negotiated.send, Family::Ipv4Unicast, &attributes, some, &mut bytes)
                .expect("attributes that fit into a message");
        }
        bytes
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).await.with_context(|| format!("{} is told nothing more", self.me.address))
    }

    /// Routes that it has heard and that were not taken back. Fails when its session is over.
    pub fn routes(&self) -> Result<usize> {
        if let Some(why) = self.heard.ended.get() {
            bail!("the session of {} ended: {why}", self.me.address);
        }
        Ok(self.heard.routes.load(Ordering::Relaxed))
    }

    /// Closes the connection.
    pub fn cut(self) {
        self.reader.abort();
    }
}

async fn read(mut from: OwnedReadHalf, mut buffer: Buffer, coding: Coding, only: Option<u32>, heard: Arc<Heard>) {
    let mut marks = Marks { has: vec![0; MOST / 64], count: 0 };
    let mut take = async || -> Result<()> {
        loop {
            buffer.each(true, |kind, body| {
                if kind == Kind::Notification {
                    bail!("NOTIFICATION {body:?}");
                }
                if kind == Kind::Update {
                    let update = update::read(body, &coding).map_err(|error| anyhow!("{error:?}"))?;
                    update.withdrawn().flat_map(|list| list.iter()).for_each(|nlri| marks.set(nlri.prefix, false));
                    let counts = only.is_none_or(|number| update.attributes.as_path.count(number) > 0);
                    update
                        .announced()
                        .flat_map(|(_, list)| list.iter())
                        .for_each(|nlri| marks.set(nlri.prefix, counts));
                }
                Ok(false)
            })?;
            heard.routes.store(marks.count, Ordering::Relaxed);
            buffer.fill(&mut from).await?;
        }
    };
    let ended = take().await;
    let _ = heard.ended.set(ended.err().map_or_else(String::new, |error| error.to_string()));
}

/// Which of the routes there are.
struct Marks {
    has: Vec<u64>,
    count: usize,
}

impl Marks {
    fn set(&mut self, prefix: Prefix, there: bool) {
        let IpAddr::V4(address) = prefix.addr else { return };
        let n = (u32::from(address).wrapping_sub(FIRST) >> 8) as usize;
        let Some(word) = self.has.get_mut(n / 64) else { return };
        let bit = 1 << (n % 64);
        if there != (*word & bit != 0) {
            *word ^= bit;
            self.count = if there { self.count + 1 } else { self.count - 1 };
        }
    }
}

/// What has come and was not looked at.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    async fn fill(&mut self, from: &mut (impl AsyncReadExt + Unpin)) -> Result<()> {
        let there = self.bytes.len();
        self.bytes.resize(there + BLOCK, 0);
        let came = from.read(&mut self.bytes[there..]).await?;
        self.bytes.truncate(there + came);
        if came == 0 {
            bail!("the speaker closed the connection");
        }
        Ok(())
    }

    /// Takes the messages that are whole; stops behind the first of which `see` says so.
    fn each(&mut self, extended: bool, mut see: impl FnMut(Kind, &[u8]) -> Result<bool>) -> Result<bool> {
        let (mut at, mut stop) = (0, false);
        while !stop && let Some((message, taken)) = frame(&self.bytes[at..], extended).map_err(|e| anyhow!("{e:?}"))? {
            stop = see(message.kind, message.body)?;
            at += taken;
        }
        self.bytes.drain(..at);
        Ok(stop)
    }
}
