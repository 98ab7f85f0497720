//! Dumps of MRT (RFC 6396): messages and changes of state as they happen, and the whole table from time to time. I/O: files,
//! written by threads of their own, so that a slow disk holds up nothing; what it does not take in time is left out, and
//! told. Called by the loop.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
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
    /// The one that is being written.
    writing: Option<JoinHandle<()>>,
    /// When what is gathered is handed over.
    pub hand_over: Time,
}

/// A file that is open, and its name.
type Opened = (File, String);

/// What the thread of updates is given.
#[derive(Debug)]
enum Given {
    Piece(Vec<u8>),
    /// From now on into this one.
    File(Opened),
}

#[derive(Debug)]
pub struct Updates {
    out: SyncSender<Given>,
    pub gathered: Vec<u8>,
    lost: u64,
}

/// Opens the file of updates, if there is to be one.
pub fn opened(config: &Mrt) -> Result<Option<Opened>, String> {
    let Some(path) = &config.updates else { return Ok(None) };
    let file = OpenOptions::new().append(true).create(true).open(path);
    let file = file.map_err(|error| format!("updates: {}: {error}", path.display()))?;
    Ok(Some((file, path.display().to_string())))
}

impl Dump {
    /// With the file of updates that was opened, and what an earlier one is about; none where nothing is to be written.
    pub fn new(updates: Option<Opened>, config: &Mrt, earlier: Option<Dump>) -> Result<Option<Dump>, String> {
        let mut dump = earlier.unwrap_or(Dump {
            updates: None,
            table: None,
            next: Time::ZERO,
            writing: None,
            hand_over: Time::ZERO,
        });
        dump.updates = match (updates, dump.updates.take()) {
            (None, _) => None,
            (Some(file), None) => Some(Updates::begin(file)?),
            (Some(file), Some(earlier)) => Some(earlier.turn_to(file)?),
        };
        if dump.table != config.table {
            (dump.table, dump.next) = (config.table.clone(), Time::ZERO);
        }
        Ok((dump.updates.is_some() || dump.table.is_some()).then_some(dump))
    }

    /// Whether the table of before is still being written.
    pub fn is_writing(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| !writing.is_finished())
    }

    /// Writes a table, by a thread of its own.
    pub fn write(&mut self, path: PathBuf, table: Vec<Vec<u8>>) {
        let thread = std::thread::Builder::new().name("mrt table".to_owned());
        let written = thread.spawn(move || {
            if let Err(error) = replace(&path, &table) {
                tracing::error!(%error, "mrt.table: {} was not written", path.display());
            }
        });
        match written {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => tracing::error!(%error, "mrt.table was not written: no thread"),
        }
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
    fn begin(file: Opened) -> Result<Updates, String> {
        let (out, given) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("mrt updates".to_owned());
        thread.spawn(move || write(file, &given)).map_err(|error| format!("updates: {error}"))?;
        Ok(Updates { out, gathered: Vec::new(), lost: 0 })
    }

    /// What was gathered goes where it was to go, and what comes then into another file: or the same anew, where somebody
    /// has put that of before elsewhere.
    fn turn_to(mut self, file: Opened) -> Result<Updates, String> {
        self.hand_over(0);
        match self.out.try_send(Given::File(file)) {
            Ok(()) => {
                self.lost = 0;
                Ok(self)
            }
            Err(TrySendError::Full(Given::File(file)) | TrySendError::Disconnected(Given::File(file))) => {
                Updates::begin(file)
            }
            Err(_) => Ok(self),
        }
    }

    pub fn hand_over(&mut self, least: usize) {
        if self.gathered.len() < least.max(1) {
            return;
        }
        match self.out.try_send(Given::Piece(std::mem::take(&mut self.gathered))) {
            Ok(()) => {}
            Err(TrySendError::Full(given) | TrySendError::Disconnected(given)) => {
                if self.lost == 0 {
                    tracing::error!("mrt.updates: the disk does not keep up: messages are missing from here on");
                }
                if let Given::Piece(piece) = given {
                    self.lost += piece.len() as u64;
                }
            }
        }
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        self.hand_over(0);
    }
}

fn write((mut file, mut name): Opened, given: &Receiver<Given>) {
    for given in given {
        match given {
            Given::File(other) => (file, name) = other,
            Given::Piece(piece) => {
                if let Err(error) = file.write_all(&piece) {
                    return tracing::error!(%error, "mrt.updates: {name} is not written any more");
                }
            }
        }
    }
}

/// Writes a file beside its place, and then into it.
fn replace(path: &Path, table: &[Vec<u8>]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    // What is left of an earlier attempt goes. Where somebody else puts something there it is not written through.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
    table.iter().try_for_each(|piece| file.write_all(piece))?;
    std::fs::rename(&beside, path)
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
