//! One server that is asked: a question and its answer by UDP, TCP or TLS, and whether it is well. Does I/O.
//!
//! A server that fails is looked at again and again until it answers; one that answers is not looked at.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::corefile::{Forward, Upstream as Server};
use crate::wire::{self, HEADER, MOST_UDP, Question, flag, kind};

/// UDP gets lost: the same question again.
const RESEND: Duration = Duration::from_millis(1200);
/// Connections kept to one server, whatever is asked for: each costs a descriptor.
const MOST_IDLE: usize = 64;

/// A server and what is known of it.
#[derive(Debug)]
pub struct Upstream {
    pub server: Server,
    tls: Option<Arc<ClientConfig>>,
    idle: Mutex<Vec<(Instant, Stream)>>,
    /// Health checks that failed since it last answered.
    fails: AtomicU32,
    checking: AtomicBool,
    pub checks_failed: AtomicU64,
}

impl Upstream {
    pub fn new(server: Server, tls: Option<Arc<ClientConfig>>) -> Self {
        Upstream {
            server,
            tls,
            idle: Mutex::default(),
            fails: AtomicU32::new(0),
            checking: AtomicBool::new(false),
            checks_failed: AtomicU64::new(0),
        }
    }

    /// Whether so many health checks have failed that it is passed over.
    pub fn is_down(&self, settings: &Forward) -> bool {
        settings.max_fails > 0 && self.fails.load(Ordering::Relaxed) >= settings.max_fails
    }

    /// Asks; who does not answer is looked at until they do.
    pub async fn ask(self: &Arc<Self>, question: &Question, settings: &Arc<Forward>) -> std::io::Result<Vec<u8>> {
        let asked = tokio::time::timeout(settings.read_timeout, self.exchange(question, settings)).await;
        let answer = asked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        match &answer {
            Ok(_) => self.fails.store(0, Ordering::Relaxed),
            Err(_) => self.look_after(settings),
        }
        answer
    }

    /// One question: by UDP, and by TCP when the answer is too long for that.
    async fn exchange(&self, question: &Question, settings: &Forward) -> std::io::Result<Vec<u8>> {
        let id: u16 = rand::random();
        let query = query(id, question, flag::RD);
        if self.server.tls || settings.force_tcp {
            return self.by_stream(id, &query, question, settings).await;
        }
        let response = by_udp(self.server.address, id, &query, question).await?;
        if response[2] & flag::TC == 0 {
            return Ok(response);
        }
        match self.by_stream(id, &query, question, settings).await {
            Ok(whole) => Ok(whole),
            Err(_) => Ok(response), // the client may have more luck with TCP than we have
        }
    }

    /// By a connection that is there, or a new one when it fails: the server may have closed it meanwhile.
    async fn by_stream(
        &self,
        id: u16,
        query: &[u8],
        question: &Question,
        settings: &Forward,
    ) -> std::io::Result<Vec<u8>> {
        let kept = {
            let mut idle = self.idle.lock();
            idle.retain(|(since, _)| since.elapsed() < settings.expire);
            idle.pop()
        };
        let old = match kept {
            Some((_, mut stream)) => stream.converse(query).await.ok().map(|answer| (stream, answer)),
            None => None,
        };
        let (stream, response) = match old {
            Some(found) => found,
            None => {
                let mut stream = self.connect().await?;
                let answer = stream.converse(query).await?;
                (stream, answer)
            }
        };
        if !is_answer(&response, id, question) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut idle = self.idle.lock();
        if idle.len() < settings.most_idle.min(MOST_IDLE) {
            idle.push((Instant::now(), stream));
        }
        Ok(response)
    }

    async fn connect(&self) -> std::io::Result<Stream> {
        let stream = TcpStream::connect(self.server.address).await?;
        let Some(config) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let name = match &self.server.tls_name {
            Some(name) => ServerName::try_from(name.clone()).map_err(std::io::Error::other)?,
            None => ServerName::from(self.server.address.ip()),
        };
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    /// Looks at the server until it answers, or until nobody asks it any more.
    pub fn look_after(self: &Arc<Self>, settings: &Arc<Forward>) {
        if settings.max_fails == 0 || self.checking.swap(true, Ordering::Relaxed) {
            return;
        }
        let (this, settings) = (Arc::downgrade(self), settings.clone());
        tokio::spawn(async move {
            loop {
                let Some(server) = this.upgrade() else { return };
                if server.check(&settings).await {
                    server.fails.store(0, Ordering::Relaxed);
                    server.checking.store(false, Ordering::Relaxed);
                    return;
                }
                let failed = server.fails.load(Ordering::Relaxed).saturating_add(1);
                server.fails.store(failed, Ordering::Relaxed);
                server.checks_failed.fetch_add(1, Ordering::Relaxed);
                drop(server);
                tokio::time::sleep(settings.check_every).await;
            }
        });
    }

    /// Whether it answers at all, whatever it says.
    async fn check(&self, settings: &Forward) -> bool {
        const PATIENCE: Duration = Duration::from_secs(1);
        let recursion = if settings.check_recursion { flag::RD } else { 0 };
        let mut message = vec![0, 0, recursion, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(settings.check_name.as_bytes());
        message.extend_from_slice(&[0, kind::NS as u8, 0, kind::IN as u8]);
        let Ok(question) = Question::parse(&message) else { return true };
        let id: u16 = rand::random();
        let query = query(id, &question, recursion);
        let asked = async {
            match self.server.tls || settings.force_tcp {
                true => self.by_stream(id, &query, &question, settings).await,
                false => by_udp(self.server.address, id, &query, &question).await,
            }
        };
        matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(_)))
    }
}

/// A connection to a server.
#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    async fn converse(&mut self, query: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Stream::Plain(stream) => converse(stream, query).await,
            Stream::Tls(stream) => converse(stream, query).await,
        }
    }
}

async fn converse(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.write_all(&framed).await?;
    stream.flush().await?;
    let len = stream.read_u16().await?;
    let mut response = vec![0; usize::from(len)];
    stream.read_exact(&mut response).await?;
    Ok(response)
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

/// The question as we ask it: in small letters, with our size.
fn query(id: u16, question: &Question, recursion: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + question.name().len() + 15);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[recursion, question.flags.1 & flag::CD, 0, 1, 0, 0, 0, 0, 0, 1]);
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
