//! Dumps of MRT (RFC 6396): messages and changes of state as they happen, and the whole table from time to time. I/O: files,
//! written by a thread of its own, so that a slow disk holds up nothing; what it does not take in time is left out, and
//! told. Called by the loop.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};

use bgp::mrt::{self, Ends};
use bgp::session::{State, Time, Way};

use super::peers::Peer;
use crate::config::Mrt;

/// Records that wait for the disk: some megabytes of messages at most.
const WAITING: usize = 256;
/// Bytes that are gathered before they are handed over.
const PIECE: usize = 64 << 10;
/// What has been gathered is handed over by then.
pub const DELAY: Time = Time::from_secs(1);

/// Where dumps go.
#[derive(Debug)]
pub struct Dump {
    pub updates: Option<Updates>,
    pub table: Option<(PathBuf, Duration)>,
    /// When the table is due.
    pub next: Time,
    /// When what is gathered is handed over.
    pub hand_over: Time,
}

#[derive(Debug)]
pub struct Updates {
    out: SyncSender<Vec<u8>>,
    pub gathered: Vec<u8>,
    lost: u64,
}

impl Dump {
    /// Opens what is to be written; none where nothing is.
    pub fn open(config: &Mrt) -> Result<Option<Dump>, String> {
        let updates = config.updates.as_deref().map(Updates::open).transpose()?;
        let dump = Dump { updates, table: config.table.clone(), next: Time::ZERO, hand_over: Time::ZERO };
        Ok((dump.updates.is_some() || dump.table.is_some()).then_some(dump))
    }

    /// A message of a neighbour's.
    pub fn message(&mut self, peer: &Peer, way: Way, message: &[u8]) {
        let Some(updates) = &mut self.updates else { return };
        mrt::message(now(), &ends(peer, Some(way)), message, &mut updates.gathered);
        updates.hand_over(PIECE);
    }

    /// Another state of his session.
    pub fn state(&mut self, peer: &Peer, old: State, new: State) {
        let Some(updates) = &mut self.updates else { return };
        mrt::state_change(now(), &ends(peer, None), old, new, &mut updates.gathered);
        updates.hand_over(PIECE);
    }
}

impl Updates {
    fn open(path: &Path) -> Result<Updates, String> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|error| format!("updates: {}: {error}", path.display()))?;
        let (out, pieces) = sync_channel(WAITING);
        let name = path.display().to_string();
        let thread = std::thread::Builder::new().name("mrt updates".to_owned());
        thread.spawn(move || write(file, &pieces, &name)).map_err(|error| format!("updates: {error}"))?;
        Ok(Updates { out, gathered: Vec::new(), lost: 0 })
    }

    pub fn hand_over(&mut self, least: usize) {
        if self.gathered.len() < least.max(1) {
            return;
        }
        match self.out.try_send(std::mem::take(&mut self.gathered)) {
            Ok(()) => {}
            Err(TrySendError::Full(piece) | TrySendError::Disconnected(piece)) => {
                if self.lost == 0 {
                    tracing::error!("mrt.updates: the disk does not keep up: messages are missing from here on");
                }
                self.lost += piece.len() as u64;
            }
        }
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        self.hand_over(0);
    }
}

fn write(mut file: File, pieces: &Receiver<Vec<u8>>, name: &str) {
    for piece in pieces {
        if let Err(error) = file.write_all(&piece) {
            return tracing::error!(%error, "mrt.updates: {name} is not written any more");
        }
    }
}

pub fn now() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// Between whom: without a connection nobody knows from which address of ours.
fn ends(peer: &Peer, way: Option<Way>) -> Ends {
    let link = way.map_or(peer.link(), |way| peer.links.get(way as usize).and_then(Option::as_ref));
    let nobody = if peer.neighbor.address.is_ipv6() {
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    let number = match (peer.session.negotiated(), peer.session.config().remote_as) {
        (Some(negotiated), _) => negotiated.number,
        (None, bgp::session::config::RemoteAs::Number(number)) => number,
        (None, bgp::session::config::RemoteAs::Internal) => peer.session.config().local_as,
        (None, bgp::session::config::RemoteAs::External) => 0,
    };
    Ends {
        peer_number: number,
        local_number: peer.session.config().local_as,
        peer: peer.neighbor.address,
        local: link.map_or(nobody, |link| link.local.ip()),
    }
}
