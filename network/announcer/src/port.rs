//! A link on which addresses of one family are announced: its socket, the task that answers there, and what is said unasked.
//! Does I/O. What a stranger can send costs one look and at most one answer each; what others claim is handed on, and is
//! passed over while the one who decides has enough of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::sync::Arc;

use linux::packet::{Kind, PacketSocket};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::daemon::inside;
use crate::frame::{self, Claim};
use crate::links::Place;

/// Frames that are answered before others have a turn: a flood on one link must not hold the rest of the node up.
const BATCH: usize = 64;

/// See the module's head.
#[derive(Debug)]
pub struct Port {
    place: Place,
    socket: Arc<AsyncFd<PacketSocket>>,
    addresses: Arc<Mutex<BTreeSet<IpAddr>>>,
    /// Switches pass on what is for a group to who has joined it; as long as the socket is there the kernel has.
    groups: BTreeMap<Ipv6Addr, UdpSocket>,
    config: Config,
    task: JoinHandle<()>,
}

impl Port {
    /// Opens a socket of a family on a link; nothing is answered before there are addresses.
    pub fn open(config: &Config, place: Place, v6: bool, claims: mpsc::Sender<Claim>) -> io::Result<Port> {
        let kind = if v6 { Kind::NeighbourDiscovery } else { Kind::Arp };
        let socket = inside(config, || PacketSocket::open(place.index, kind))??;
        // The successor is unsafe; what it asks for holds here: the descriptor is owned and never changes.
        #[allow(deprecated)]
        let socket = Arc::new(AsyncFd::with_interest(socket, Interest::READABLE)?);
        let addresses = Arc::new(Mutex::new(BTreeSet::new()));
        let task = tokio::spawn(answer(socket.clone(), place, addresses.clone(), claims));
        Ok(Port { place, socket, addresses, groups: BTreeMap::new(), config: config.clone(), task })
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// It hears nothing any more: its link has gone.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// From now on these are answered for, and no others.
    pub fn set(&mut self, addresses: BTreeSet<IpAddr>) {
        let groups: BTreeSet<Ipv6Addr> = addresses.iter().filter_map(group).collect();
        self.groups.retain(|group, _| groups.contains(group));
        for group in groups {
            if self.groups.contains_key(&group) {
                continue;
            }
            match inside(&self.config, || joined(group, self.place.index)).flatten() {
                Ok(socket) => drop(self.groups.insert(group, socket)),
                Err(error) => tracing::warn!(%error, %group, "joining; who asks there may not be heard"),
            }
        }
        *self.addresses.lock() = addresses;
    }

    /// Tells everybody on the link.
    pub fn announce(&self, address: IpAddr) {
        for frame in frame::announcements(address, self.place.mac) {
            if let Err(error) = self.socket.get_ref().send(&frame) {
                tracing::debug!(%error, %address, "an announcement was not sent");
            }
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // The task may be in the middle of a batch.
        self.addresses.lock().clear();
        self.task.abort();
    }
}

fn group(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(frame::solicited_node(*v6)),
    }
}

fn joined(group: Ipv6Addr, index: u32) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    socket.join_multicast_v6(&group, index)?;
    Ok(socket)
}

/// Answers until the link is gone.
async fn answer(
    socket: Arc<AsyncFd<PacketSocket>>,
    place: Place,
    addresses: Arc<Mutex<BTreeSet<IpAddr>>>,
    claims: mpsc::Sender<Claim>,
) {
    let mut buffer = [0; frame::LONGEST];
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        for _ in 0..BATCH {
            match socket.get_ref().receive(&mut buffer) {
                Ok(read) => heard(socket.get_ref(), place, &addresses, &claims, buffer.get(..read).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // It may come up again, and the socket is on it then.
                Err(e) if e.kind() == io::ErrorKind::NetworkDown => {}
                Err(error) => return tracing::info!(%error, index = place.index, "a link is gone"),
            }
        }
        drop(ready);
        tokio::task::yield_now().await;
    }
}

fn heard(
    socket: &PacketSocket,
    place: Place,
    addresses: &Mutex<BTreeSet<IpAddr>>,
    claims: &mpsc::Sender<Claim>,
    bytes: &[u8],
) {
    let Some(heard) = frame::read(bytes) else { return };
    let has = |address: &IpAddr| addresses.lock().contains(address);
    if let Some(question) = heard.question.filter(|question| has(&question.about))
        && let Some(reply) = frame::answer(&question, place.mac)
        && let Err(error) = socket.send(&reply)
    {
        tracing::debug!(%error, "an answer was not sent");
    }
    if let Some(claim) = heard.claim.filter(|claim| claim.mac != place.mac && has(&claim.addr)) {
        // One that finds no room is said again, or nobody minds.
        let _ = claims.try_send(claim);
    }
}
