//! Whether neighbours are there, by BFD (RFC 5880, 5881, 5883): a socket of its own for what each is sent, sockets of all for
//! what comes. The state machine is [`bgp::bfd`]; a neighbour that it loses loses his session at once. I/O: sockets. Called
//! by the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bgp::bfd::{Action, Bfd, Packet, State};
use bgp::session::{Input, Time};
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Daemon;
use super::event::{Event, Key};
use super::peers::Peer;
use crate::config::Peering;
use crate::config::peering::is_of_link;

/// Of a neighbour on the same link (RFC 5881), and of one further away (RFC 5883).
const PORTS: [u16; 2] = [3784, 4784];
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
    bfd: Bfd,
    config: bgp::bfd::Config,
    far: bool,
    /// None where none could be had: it is tried again with each packet.
    socket: Option<UdpSocket>,
    to: SocketAddr,
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

    fn send(&mut self, key: Key, source: Option<IpAddr>, packet: &Packet) {
        if self.socket.is_none() {
            match outgoing(key, source, self.to) {
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

fn outgoing(key: Key, source: Option<IpAddr>, to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if to.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let width = u64::from(SOURCES.end() - SOURCES.start()) + 1;
    let ports = (0..TRIES).map(|n| SOURCES.start() + u16::try_from((key.0 + n * 257) % width).unwrap_or(0));
    let mut last = io::ErrorKind::AddrInUse.into();
    for port in ports {
        match linux::hops::bind(SocketAddr::new(source.unwrap_or(any), port)) {
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
    fn set(&mut self, wanted: &BTreeSet<SocketAddr>, events: &mpsc::Sender<Event>) {
        self.0.retain(|address, _| wanted.contains(address));
        for address in wanted {
            if self.0.contains_key(address) {
                continue;
            }
            let socket = linux::hops::bind(*address).and_then(tokio::net::UdpSocket::from_std);
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

impl Daemon {
    /// The sockets that the configuration needs.
    pub(super) fn watchers(&mut self) {
        let named = self.config.neighbors.iter().map(|neighbor| (neighbor.address.is_ipv6(), &neighbor.peering));
        let ranges = self.config.dynamic.iter().map(|range| (range.prefix.is_ipv6(), &range.peering));
        let wanted = named.chain(ranges).filter_map(|(v6, peering)| {
            let watch = peering.bfd.as_ref().filter(|_| peering.enabled)?;
            let any = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
            Some(SocketAddr::new(peering.source.unwrap_or(any), PORTS[usize::from(watch.far)]))
        });
        let mut wanted: BTreeSet<SocketAddr> = wanted.collect();
        // What is on all addresses is on each of them.
        let all: Vec<SocketAddr> = wanted.iter().filter(|address| address.ip().is_unspecified()).copied().collect();
        let covered = |address: &SocketAddr| {
            all.iter().any(|all| all != address && all.port() == address.port() && all.is_ipv6() == address.is_ipv6())
        };
        wanted.retain(|address| !covered(address));
        self.watchers.set(&wanted, &self.tasks.events);
    }

    /// Begins or ends to watch a neighbour, as is configured.
    pub(super) fn watch(&mut self, key: Key) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let wanted = wanted(peer.peering()).map(|(config, far)| (config, far, address(peer, far)));
        let same = matches!((&peer.watch, &wanted), (Some(watch), Some((config, far, Some(to))))
            if watch.config == *config && watch.far == *far && watch.to == *to);
        if same {
            return;
        }
        self.watch_ends(key);
        let Some(peer) = self.peers.get_mut(key) else { return };
        if let Some((config, far, Some(to))) = wanted {
            let name = u32::try_from(key.0).unwrap_or(u32::MAX);
            peer.watch = Some(Watch { bfd: Bfd::new(config, name, now), config, far, socket: None, to });
        }
        self.peers.wind(key);
    }

    /// He hears that nobody failed.
    pub(super) fn watch_ends(&mut self, key: Key) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let source = peer.peering().source;
        if let Some(mut watch) = peer.watch.take() {
            for action in watch.bfd.stop() {
                if let Action::Send(packet) = action {
                    watch.send(key, source, &packet);
                }
            }
        }
    }

    /// A packet of somebody's.
    pub(super) fn heard_of(&mut self, from: SocketAddr, far: bool, packet: &Packet) {
        let now = self.now();
        let interface = match from {
            SocketAddr::V6(v6) if is_of_link(from.ip()) => super::addresses::name_of(v6.scope_id()),
            _ => None,
        };
        let Some(key) = self.peers.at(&(from.ip(), interface)) else { return };
        let Some(watch) = self.peers.get_mut(key).and_then(|peer| peer.watch.as_mut()) else { return };
        if watch.far == far {
            let actions = watch.bfd.received(packet, now);
            self.on_watch(key, actions);
        }
    }

    /// It is later for a watch.
    pub(super) fn watched(&mut self, key: Key, now: Time) {
        let Some(watch) = self.peers.get_mut(key).and_then(|peer| peer.watch.as_mut()) else { return };
        if watch.due().is_some_and(|due| due <= now) {
            let actions = watch.bfd.time(now);
            self.on_watch(key, actions);
        }
    }

    fn on_watch(&mut self, key: Key, actions: Vec<Action>) {
        for action in actions {
            let Some(peer) = self.peers.get_mut(key) else { return };
            let (address, source) = (peer.neighbor.address, peer.peering().source);
            match action {
                Action::Send(packet) => {
                    if let Some(watch) = &mut peer.watch {
                        watch.send(key, source, &packet);
                    }
                }
                Action::Up => tracing::info!(neighbor = %address, "BFD: he is there"),
                Action::Stopped => tracing::info!(neighbor = %address, "BFD: he watches no more"),
                Action::Down(why) => {
                    tracing::warn!(neighbor = %address, "BFD: he is gone: {why:?}");
                    self.input(key, Input::BfdDown);
                }
            }
        }
        self.peers.wind(key);
    }
}

fn wanted(peering: &Peering) -> Option<(bgp::bfd::Config, bool)> {
    let watch = peering.bfd.as_ref().filter(|_| peering.enabled)?;
    Some((watch.session, watch.far))
}

/// Where packets go; none while his link is not there.
fn address(peer: &Peer, far: bool) -> Option<SocketAddr> {
    let port = PORTS[usize::from(far)];
    match (peer.neighbor.address, &peer.peering().interface) {
        (IpAddr::V6(v6), Some(interface)) if is_of_link(v6.into()) => {
            Some(std::net::SocketAddrV6::new(v6, port, 0, super::addresses::index_of(interface)?).into())
        }
        (address, _) => Some(SocketAddr::new(address, port)),
    }
}
