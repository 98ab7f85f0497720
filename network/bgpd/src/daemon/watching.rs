//! Who is watched by BFD, and what follows when somebody is lost: the loop's side of `bfd`. I/O: logs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bgp::bfd::{Action, Bfd, Packet};
use bgp::session::{Input, Time};

use super::Daemon;
use super::bfd::{PORTS, Watch};
use super::event::Key;
use super::peers::Peer;
use crate::config::Peering;
use crate::config::peering::is_of_link;

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
        self.watchers.set(&wanted, self.config.vrf.as_deref(), &self.tasks.events);
    }

    /// Begins or ends to watch a neighbour, as is configured.
    pub(super) fn watch(&mut self, key: Key) {
        let now = self.now();
        let Some(peer) = self.peers.get_mut(key) else { return };
        let wanted = wanted(peer.peering())
            .filter(|_| peer.neighbor.is_found())
            .map(|(config, far)| (config, far, address(peer, far)));
        let from = (peer.peering().source, peer.peering().vrf.clone());
        let same = matches!((&peer.watch, &wanted), (Some(watch), Some((config, far, Some(to))))
            if watch.config == *config && watch.far == *far && watch.to == *to && watch.from == from);
        if same {
            return;
        }
        self.watch_ends(key);
        let Some(peer) = self.peers.get_mut(key) else { return };
        if let Some((config, far, Some(to))) = wanted {
            let name = u32::try_from(key.0).unwrap_or(u32::MAX);
            peer.watch = Some(Watch { bfd: Bfd::new(config, name, now), config, far, socket: None, to, from });
        }
        self.peers.wind(key);
    }

    /// He hears that nobody failed.
    pub(super) fn watch_ends(&mut self, key: Key) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if let Some(mut watch) = peer.watch.take() {
            for action in watch.bfd.stop() {
                if let Action::Send(packet) = action {
                    watch.send(key, &packet);
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
            let address = peer.neighbor.address;
            match action {
                Action::Send(packet) => {
                    if let Some(watch) = &mut peer.watch {
                        watch.send(key, &packet);
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
