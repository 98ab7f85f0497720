//! The packet loop of the backend udp: two threads, one for what this host's pods send and one for what comes in. Each has
//! one buffer for its life. I/O: the TUN link and the socket. Caller: the daemon.
//!
//! ```text
//! pod ─ bridge ─► flannel0 ─read─► TTL, table ─send─► UDP 8285 of the other host
//! pod ◄ bridge ◄─ flannel0 ◄write─ TTL, is it ours ◄recv─ UDP 8285 of this one
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use linux::sockets::Waker;
use linux::tun::Tun;
use meta::Prefix;
use parking_lot::RwLock;

use crate::backend::udp::Table;
use crate::packet;

/// More than an MTU can be: a packet is never cut.
const BUFFER: usize = 65_536;

/// Running threads; they end when it is dropped.
pub struct Packets {
    table: Arc<RwLock<Table>>,
    tun: Arc<Tun>,
    waker: Waker,
    threads: Vec<JoinHandle<()>>,
}

/// What both threads have.
struct Loop {
    table: Arc<RwLock<Table>>,
    tun: Arc<Tun>,
    socket: Arc<UdpSocket>,
    waker: Waker,
    own: Prefix,
    /// The address of the link.
    address: Ipv4Addr,
}

impl Packets {
    /// `own` is this host's subnet: nothing else comes in here.
    pub fn start(tun: Tun, local: SocketAddrV4, own: Prefix, address: Ipv4Addr) -> io::Result<Packets> {
        let socket = UdpSocket::bind(local)?;
        socket.set_nonblocking(true)?;
        let (waker, table, tun, socket) = (Waker::new()?, Arc::default(), Arc::new(tun), Arc::new(socket));
        let mut packets = Packets { table, tun, waker, threads: Vec::new() };
        for (name, run) in [("flannel-out", Loop::outbound as fn(&Loop)), ("flannel-in", Loop::inbound)] {
            let looped = Loop {
                table: packets.table.clone(),
                tun: packets.tun.clone(),
                socket: socket.clone(),
                waker: packets.waker.clone(),
                own,
                address,
            };
            packets.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&looped))?);
        }
        Ok(packets)
    }

    /// From now on packets go by this.
    pub fn set(&self, table: Table) {
        *self.table.write() = table;
    }

    /// The name of the link.
    pub fn link(&self) -> &str {
        self.tun.name()
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
        let (mut buffer, mut message) = (vec![0; BUFFER], [0; packet::MESSAGE]);
        self.each("flannel's link", self.tun.as_fd(), |looped| {
            let length = looped.tun.read(&mut buffer)?;
            let packet = &mut buffer[..length];
            if !packet::is_ipv4(packet) {
                return Ok(());
            }
            let Some(host) = looped.table.read().host_of(packet::destination(packet)) else {
                if let Some(message) = packet::unreachable(packet, looped.address, &mut message) {
                    let _ = looped.tun.write(message);
                }
                return Ok(());
            };
            if packet::decrement_ttl(packet) {
                let _ = looped.socket.send_to(packet, host);
            }
            Ok(())
        });
    }

    /// From other hosts to pods. Anybody may send here, and anything: only what is a packet for this host's pods is taken.
    fn inbound(&self) {
        let mut buffer = vec![0; BUFFER];
        self.each("flannel's UDP port", self.socket.as_fd(), |looped| {
            let length = looped.socket.recv(&mut buffer)?;
            let packet = &mut buffer[..length];
            // The link takes packets in its own name, which are ours alone to write.
            let ours = packet::is_ipv4(packet)
                && looped.own.contains(packet::destination(packet).into())
                && packet::source(packet) != looped.address;
            if ours && packet::decrement_ttl(packet) {
                let _ = looped.tun.write(packet);
            }
            Ok(())
        });
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
