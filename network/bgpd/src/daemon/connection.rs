//! One TCP connection: a task that connects, one that reads, one that writes. They know nothing of BGP but that messages
//! are not cut in two. Does I/O: sockets. Made by the loop; they tell it [`Event`]s.
//!
//! ```text
//!  socket ──64 KiB at most, two ahead──► the loop ──messages, 64──► writer ──► socket
//!                                             └──updates, one ahead──┘ tells when it has taken them: room for more
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bgp::session::config::{AoKey, Authentication};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::{AHEAD, CHUNK, Event, Which};
use super::keys::Place;
use super::signed;
use crate::config::Peering;
use crate::config::peering::is_of_link;

/// Messages beside updates that wait: keepalives of half an hour. Who does not take them is given up before.
const MESSAGES: usize = 64;
/// After its end a connection gets this long to take what was sent last.
const LINGER: Duration = Duration::from_secs(2);

/// What is asked of the socket of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// From which address.
    pub source: Option<IpAddr>,
    /// By which link.
    pub interface: Option<String>,
    /// By that link, or by those of a VRF.
    pub device: Option<String>,
    /// Signed with this.
    pub authentication: Option<Authentication>,
    /// How many links its packets may cross.
    pub ttl: Option<u8>,
    /// With how much left packets must come (RFC 5082).
    pub min_ttl: Option<u8>,
}

impl Options {
    /// What has to be there before a connection is begun, and what is asked of one that came.
    ///
    /// # Errors
    /// What the kernel refused, in words.
    pub fn apply(&self, socket: &impl AsFd, v6: bool) -> io::Result<()> {
        let told = |what: &str, done: io::Result<()>| {
            done.map_err(|error| io::Error::new(error.kind(), format!("{what}: {error}")))
        };
        if let Some(ttl) = self.ttl {
            told("TTL", linux::tcp::ttl(socket, v6, ttl))?;
        }
        if let Some(ttl) = self.min_ttl {
            told("ttl-security", linux::tcp::min_ttl(socket, v6, ttl))?;
        }
        Ok(())
    }

    /// Of a connection that came, nothing is heard by another link than this. One between addresses of a link is by it
    /// anyway.
    ///
    /// # Errors
    /// What the kernel refused, in words.
    pub fn keep_to_link(&self, socket: &impl AsFd, from: IpAddr) -> io::Result<()> {
        let Some(interface) = self.interface.as_ref().filter(|_| !is_of_link(from)) else { return Ok(()) };
        let bound = linux::tcp::bind_to_device(socket, interface);
        bound.map_err(|error| io::Error::new(error.kind(), format!("interface {interface}: {error}")))
    }
}

/// The loop's side of a connection. When it is dropped the connection is closed, once what was sent is out.
#[derive(Debug)]
pub struct Link {
    /// Which it is.
    pub which: Which,
    /// Our end.
    pub local: SocketAddr,
    /// The other.
    pub remote: SocketAddr,
    /// The beginning of a message whose end has not come.
    pub rest: Vec<u8>,
    /// The socket once more, for other keys.
    socket: Option<OwnedFd>,
    messages: mpsc::Sender<Vec<u8>>,
    updates: mpsc::Sender<Vec<u8>>,
    _closing: tokio_util::sync::DropGuard,
}

impl Link {
    /// Sends messages that are no updates.
    pub fn send(&self, message: Vec<u8>) -> bool {
        self.messages.try_send(message).is_ok()
    }

    /// It signs by other keys from now on, of those who have some.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn roll_over(&self, ranges: &[Place], before: &[AoKey], after: &[AoKey]) -> io::Result<()> {
        match &self.socket {
            Some(socket) => signed::roll_over(socket, self.remote.ip(), ranges, before, after),
            None => Ok(()),
        }
    }

    /// A place for updates, where there is one: who has none is told [`Event::Room`] when there is.
    pub fn room(&self) -> Option<mpsc::Permit<'_, Vec<u8>>> {
        self.updates.try_reserve().ok()
    }
}

/// Tasks of connections, and where they tell what happens.
#[derive(Clone, Debug)]
pub struct Tasks {
    /// To the loop.
    pub events: mpsc::Sender<Event>,
    /// All of them: the end waits for them.
    pub tracker: TaskTracker,
}

impl Tasks {
    /// Begins a connection; what comes of it is an event. Dropping the guard gives it up.
    pub fn connect(&self, which: Which, to: SocketAddr, options: Options) -> tokio_util::sync::DropGuard {
        let (events, given_up) = (self.events.clone(), CancellationToken::new());
        let guard = given_up.clone().drop_guard();
        self.tracker.spawn(async move {
            let event = tokio::select! {
                () = given_up.cancelled() => return,
                connected = connect(to, &options) => match connected {
                    Ok(stream) => Event::Connected(which, stream),
                    Err(error) => Event::NotConnected(which, error),
                },
            };
            let _ = events.send(event).await;
        });
        guard
    }

    /// Takes a connection, of a neighbour of whom this is wanted.
    ///
    /// # Errors
    /// It is gone already.
    pub fn take(&self, which: Which, stream: TcpStream, peering: &Peering) -> io::Result<Link> {
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        let changes = matches!(peering.authentication(), Some(Authentication::Ao(_)));
        let socket = changes.then(|| stream.as_fd().try_clone_to_owned()).transpose()?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let (messages, to_write) = mpsc::channel(MESSAGES);
        let (updates, updates_to_write) = mpsc::channel(1);
        let closing = CancellationToken::new();
        let reader = Reader { which, read, events: self.events.clone(), closing: closing.clone() };
        let writer = Writer {
            which,
            write,
            events: self.events.clone(),
            messages: to_write,
            updates: updates_to_write,
            send_hold: peering.send_hold,
            closing: closing.clone(),
        };
        self.tracker.spawn(reader.run());
        self.tracker.spawn(writer.run());
        Ok(Link { which, local, remote, rest: Vec::new(), socket, messages, updates, _closing: closing.drop_guard() })
    }

    /// Says something over a connection that is not taken, and closes it.
    pub fn refuse(&self, stream: TcpStream, message: Vec<u8>) {
        self.tracker.spawn(async move {
            let (mut read, mut write) = stream.into_split();
            let _ = timeout(LINGER, write.write_all(&message)).await;
            drop(write);
            drain(&mut read).await;
        });
    }
}

async fn connect(to: SocketAddr, options: &Options) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(device) = &options.device {
        let bound = linux::tcp::bind_to_device(&socket, device);
        let kind = if options.interface.is_some() { "interface" } else { "vrf" };
        bound.map_err(|error| io::Error::new(error.kind(), format!("{kind} {device}: {error}")))?;
    }
    if let Some(source) = options.source {
        let bound = socket.bind(SocketAddr::new(source, 0));
        bound.map_err(|error| io::Error::new(error.kind(), format!("source-address {source}: {error}")))?;
    }
    if let Some(authentication) = &options.authentication {
        signed::begin(&socket, to.ip(), authentication)?;
    }
    options.apply(&socket, to.is_ipv6())?;
    socket.connect(to).await
}

struct Reader {
    which: Which,
    read: OwnedReadHalf,
    events: mpsc::Sender<Event>,
    closing: CancellationToken,
}

impl Reader {
    async fn run(mut self) {
        let ahead = Arc::new(Semaphore::new(AHEAD));
        let lost = tokio::select! {
            () = self.closing.cancelled() => None,
            lost = self.read(ahead) => Some(lost),
        };
        match lost {
            Some(error) => {
                let _ = self.events.send(Event::Lost(self.which, error)).await;
            }
            // What is left unread when a socket closes makes the kernel reset it, and what was sent last is lost.
            None => drain(&mut self.read).await,
        }
    }

    /// Until the end of it.
    async fn read(&self, ahead: Arc<Semaphore>) -> Option<io::Error> {
        loop {
            let permit = Arc::clone(&ahead).acquire_owned().await.ok()?;
            // Room for bytes is made when there are some: most connections are silent most of the time.
            if let Err(error) = self.read.readable().await {
                return Some(error);
            }
            let mut chunk = Vec::with_capacity(CHUNK);
            match self.read.try_read_buf(&mut chunk) {
                Ok(0) => return None,
                Ok(_) => self.events.send(Event::Heard(self.which, chunk, permit)).await.ok()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Some(error),
            }
        }
    }
}

async fn drain(read: &mut OwnedReadHalf) {
    let end = Instant::now() + LINGER;
    let mut nothing = [0; 4096];
    while let Ok(Ok(())) = timeout_at(end, read.readable()).await {
        match read.try_read(&mut nothing) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

struct Writer {
    which: Which,
    write: OwnedWriteHalf,
    events: mpsc::Sender<Event>,
    messages: mpsc::Receiver<Vec<u8>>,
    updates: mpsc::Receiver<Vec<u8>>,
    send_hold: Duration,
    closing: CancellationToken,
}

impl Writer {
    async fn run(mut self) {
        loop {
            // Both end when the loop has closed the connection; what was sent before still goes out.
            let (bytes, update) = tokio::select! {
                biased;
                Some(message) = self.messages.recv() => (message, false),
                Some(updates) = self.updates.recv() => (updates, true),
                else => return,
            };
            if update && self.events.send(Event::Room(self.which)).await.is_err() {
                return;
            }
            if !self.out(&bytes).await {
                return;
            }
        }
    }

    /// Whether it went out.
    async fn out(&mut self, mut bytes: &[u8]) -> bool {
        let mut told = false;
        while !bytes.is_empty() {
            let patience = if self.closing.is_cancelled() { LINGER } else { self.send_hold };
            let written = tokio::select! {
                written = timeout(patience, self.write.write(bytes)) => written,
                // From now on there is less of it.
                () = self.closing.cancelled(), if !self.closing.is_cancelled() => continue,
            };
            match written {
                Ok(Ok(count)) if count > 0 => bytes = bytes.get(count..).unwrap_or_default(),
                // The reader tells of what is broken.
                Ok(_) => return false,
                Err(_) if self.closing.is_cancelled() || told => return false,
                Err(_) => {
                    told = true;
                    if self.events.send(Event::Stuck(self.which)).await.is_err() {
                        return false;
                    }
                }
            }
        }
        true
    }
}
