//! The packets of the backend udp: for each queue of the TUN link two threads, one for what this host's pods send and one
//! for what comes in. Each has its buffers for its life, and takes whatever is there at once; nothing is allocated for a
//! packet. What becomes of packets is decided in [`outbound`] and [`inbound`], purely. I/O: the TUN link and sockets.
//! Caller: the daemon.
//!
//! ```text
//! pod ─ bridge ─► flannel0 ─read─► TTL, table, cut ─send─► UDP 8285 of the other host
//! pod ◄ bridge ◄─ flannel0 ◄write─ joined, TTL, is it ours ◄recv─ UDP 8285 of this one
//! ```

mod inbound;
mod outbound;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use linux::datagrams::{self, Inbox};
use linux::sockets::Waker;
use linux::tun::Tun;
use meta::Prefix;
use parking_lot::RwLock;

pub use self::inbound::Joiner;
pub use self::outbound::Gatherer;
use self::outbound::SLOT;
use crate::backend::udp::Table;
use crate::packet;

/// Queues of the link: the packets of a flow stay in one.
pub fn queues() -> usize {
    /// More only wait for each other.
    const MOST: usize = 4;
    std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST))
}

/// Packets that are read before the first is sent.
const READS: usize = 16;
/// Messages that are taken before the first is written.
const MESSAGES: usize = 16;
/// A packet that can't be sent for so long is lost, as on any link.
const SEND_PATIENCE: Duration = Duration::from_millis(100);

/// Running threads; they end when it is dropped.
pub struct Packets {
    table: Arc<RwLock<Table>>,
    name: String,
    waker: Waker,
    threads: Vec<JoinHandle<()>>,
}

/// What both threads of a queue have.
struct Loop {
    table: Arc<RwLock<Table>>,
    tun: Arc<Tun>,
    /// What comes in.
    socket: Arc<UdpSocket>,
    /// By which it sends: its own port tells the other host to use another thread for it.
    sender: UdpSocket,
    waker: Waker,
    own: Prefix,
    /// The address of the link.
    address: Ipv4Addr,
}

impl Packets {
    /// `own` is this host's subnet: nothing else comes in here.
    pub fn start(tuns: Vec<Tun>, local: SocketAddrV4, own: Prefix, address: Ipv4Addr) -> io::Result<Packets> {
        let name = tuns.first().map(|tun| tun.name().to_owned()).unwrap_or_default();
        let mut packets = Packets { table: Arc::default(), name, waker: Waker::new()?, threads: Vec::new() };
        for (n, tun) in tuns.into_iter().enumerate() {
            let (tun, socket) = (Arc::new(tun), Arc::new(datagrams::bind(local)?));
            for (name, run) in [("flannel-out", Loop::outbound as fn(&Loop)), ("flannel-in", Loop::inbound)] {
                let sender = match n {
                    0 => socket.try_clone()?,
                    _ => datagrams::bind(SocketAddrV4::new(*local.ip(), 0))?,
                };
                sender.set_write_timeout(Some(SEND_PATIENCE))?;
                let looped = Loop {
                    table: packets.table.clone(),
                    tun: tun.clone(),
                    socket: socket.clone(),
                    sender,
                    waker: packets.waker.clone(),
                    own,
                    address,
                };
                packets.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&looped))?);
            }
        }
        Ok(packets)
    }

    /// From now on packets go by this.
    pub fn set(&self, table: Table) {
        *self.table.write() = table;
    }

    /// The name of the link.
    pub fn link(&self) -> &str {
        &self.name
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.waker.wake();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Loop {
    /// From pods to other hosts. A packet that can't be sent is lost, as on any link.
    fn outbound(&self) {
        let mut gatherer = Gatherer::new(READS);
        let mut message = [0; packet::MESSAGE];
        self.each("flannel's link", self.tun.as_fd(), |looped| {
            let mut failed = None;
            let mut read = 0;
            while read < READS && failed.is_none() {
                match looped.tun.read(gatherer.slot(read)) {
                    Ok(length) => {
                        gatherer.filled(read, length);
                        read += 1;
                    }
                    Err(error) => failed = Some(error),
                }
            }
            let table = looped.table.read();
            for slot in 0..read {
                while !gatherer.take(slot, |to| table.host_of(to)) {
                    looped.send(&mut gatherer);
                }
                if let Some(lost) = gatherer.led_nowhere(slot)
                    && let Some(message) = packet::unreachable(lost, looped.address, &mut message)
                {
                    let _ = looped.tun.write(message);
                }
            }
            drop(table);
            looped.send(&mut gatherer);
            match failed {
                // What was read is sent; the next look waits.
                Some(error) if read == 0 => Err(error),
                _ => Ok(()),
            }
        });
    }

    /// Sends what was gathered. Where the way takes no message of several datagrams, they go one by one.
    fn send(&self, gatherer: &mut Gatherer) {
        let mut apart = Vec::new();
        datagrams::send(&self.sender, gatherer.buffer(), gatherer.pieces(), gatherer.messages(), |message, error| {
            // EINVAL, EIO and EMSGSIZE: the link's own MTU is smaller, or it fills in no checksums.
            if message.bytes > message.segment && !matches!(error.kind(), io::ErrorKind::WouldBlock) {
                apart.push(message.clone());
            }
        });
        for message in apart {
            for datagram in gatherer.apart(&message) {
                let _ = self.sender.send_to(&datagram, message.to);
            }
        }
        gatherer.clear();
    }

    /// From other hosts to pods. Anybody may send here, and anything: only what is a packet for this host's pods is taken.
    fn inbound(&self) {
        let mut inbox = Inbox::new(MESSAGES);
        let mut joiner = Joiner::default();
        self.each("flannel's UDP port", self.socket.as_fd(), |looped| {
            inbox.receive(&looped.socket)?;
            for (bytes, segment) in inbox.messages() {
                joiner.join(
                    bytes,
                    segment,
                    |packet| looped.is_ours(packet),
                    |pieces| {
                        let _ = looped.tun.write_pieces(pieces);
                    },
                );
            }
            Ok(())
        });
    }

    /// The link takes packets in its own name, which are ours alone to write.
    fn is_ours(&self, packet: &[u8]) -> bool {
        self.own.contains(packet::destination(packet).into()) && packet::source(packet) != self.address
    }

    /// Works as long as there is something, then waits; ends when woken, or when what it reads is broken.
    fn each(&self, what: &str, readable: impl AsFd, mut work: impl FnMut(&Loop) -> io::Result<()>) {
        loop {
            match work(self) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.waker.wait_for(&readable) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => return tracing::error!(%error, "waiting for packets of {what}"),
                },
                // What was sent before was not wanted (ICMP port unreachable), or a signal came.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable
                    ) => {}
                Err(error) => return tracing::error!(%error, "reading packets of {what}"),
            }
        }
    }
}

const _: () = assert!(SLOT > linux::tun::HEADER + 65_535, "a packet is never cut");
