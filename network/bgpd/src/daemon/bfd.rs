//! Whether neighbours are there, by BFD (RFC 5880, 5881, 5883): a socket of its own for what each is sent, sockets of all for
//! what comes. The state machine is [`bgp::bfd`]; a neighbour that it loses loses his session at once. I/O: sockets. Called
//! by the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bgp::bfd::{Bfd, Packet, State};
use bgp::session::Time;
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::event::{Event, Key};

/// Of a neighbour on the same link (RFC 5881), and of one further away (RFC 5883).
pub const PORTS: [u16; 2] = [3784, 4784];
/// From which packets are sent (RFC 5881 4).
const SOURCES: std::ops::RangeInclusive<u16> = 49152..=65535;
/// Ports of these that are tried.
const TRIES: u64 = 64;
/// What packets of next door come with (RFC 5881 5).
const NEAR: u8 = 255;
/// A packet and some bytes more: a longer one is none.
const MAX_PACKET: usize = 64;
/// Pause after a receipt that failed.
const RETRY: Duration = Duration::from_millis(100);

/// One neighbour's.
#[derive(Debug)]
pub struct Watch {
    pub bfd: Bfd,
    pub config: bgp::bfd::Config,
    pub far: bool,
    /// None where none could be had: it is tried again with each packet.
    pub socket: Option<UdpSocket>,
    pub to: SocketAddr,
    /// From which address and in which VRF packets go.
    pub from: (Option<IpAddr>, Option<String>),
}

impl Watch {
    /// When it is to be looked at.
    pub fn due(&self) -> Option<Time> {
        self.bfd.due()
    }

    /// Where it stands, in RFC 5880's word.
    pub fn state(&self) -> &'static str {
        match self.bfd.state() {
            State::AdminDown => "AdminDown",
            State::Down => "Down",
            State::Init => "Init",
            State::Up => "Up",
        }
    }

    pub fn send(&mut self, key: Key, packet: &Packet) {
        if self.socket.is_none() {
            match outgoing(key, &self.from, self.to) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => return tracing::debug!(neighbor = %self.to.ip(), %error, "no socket for BFD"),
            }
        }
        // What is not sent is one of those that may be lost.
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send_to(&packet.write(), self.to)
        {
            tracing::debug!(neighbor = %self.to.ip(), %error, "a packet of BFD was not sent");
        }
    }
}

fn outgoing(key: Key, (source, vrf): &(Option<IpAddr>, Option<String>), to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if to.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let width = u64::from(SOURCES.end() - SOURCES.start()) + 1;
    let ports = (0..TRIES).map(|n| SOURCES.start() + u16::try_from((key.0 + n * 257) % width).unwrap_or(0));
    let mut last = io::ErrorKind::AddrInUse.into();
    for port in ports {
        match linux::hops::bind(SocketAddr::new(source.unwrap_or(any), port), vrf.as_deref()) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sockets on which packets come, by their address; each has a task.
#[derive(Debug, Default)]
pub struct Watchers(BTreeMap<SocketAddr, DropGuard>);

impl Watchers {
    /// Those that are needed, and no others.
    pub fn set(&mut self, wanted: &BTreeSet<SocketAddr>, vrf: Option<&str>, events: &mpsc::Sender<Event>) {
        self.0.retain(|address, _| wanted.contains(address));
        for address in wanted {
            if self.0.contains_key(address) {
                continue;
            }
            let socket = linux::hops::bind(*address, vrf).and_then(tokio::net::UdpSocket::from_std);
            match socket {
                Ok(socket) => {
                    let stop = CancellationToken::new();
                    tokio::spawn(hear(socket, address.port() == PORTS[1], events.clone(), stop.clone()));
                    self.0.insert(*address, stop.drop_guard());
                }
                Err(error) => tracing::error!(%address, %error, "BFD: packets of neighbors are not heard"),
            }
        }
    }
}

async fn hear(socket: tokio::net::UdpSocket, far: bool, events: mpsc::Sender<Event>, stop: CancellationToken) {
    loop {
        let mut buffer = [0; MAX_PACKET];
        let received = tokio::select! {
            () = stop.cancelled() => return,
            ready = socket.readable() => ready.and_then(|()| {
                socket.try_io(Interest::READABLE, || linux::hops::receive(&socket, &mut buffer))
            }),
        };
        match received {
            Ok(received) => {
                let near = far || received.ttl == Some(NEAR);
                let packet = buffer.get(..received.length).and_then(Packet::read).filter(|_| near);
                if let Some(packet) = packet {
                    // Where the loop does not keep up, a packet may be lost as on any way.
                    let _ = events.try_send(Event::Watched { from: received.from, far, packet });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}
