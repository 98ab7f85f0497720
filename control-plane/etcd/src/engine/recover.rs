//! I/O: opens a data directory: newest checkpoint, then the log after it. A torn end is repaired; anything else that
//! is wrong is refused with file and offset. Files of former formats are read, and gone on with in new files of the
//! present one; those of a newer release are refused. Caller: `Etcd::open`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{self, checkpoint_path};
use super::files::{BLOCK, DataFile, Disk, Files, create, lock_directory};
use super::wal::{FORMAT, SEGMENT_HEADER, Segment, SegmentHead, Wal, segment_path};
use super::{Identity, Options, State};
use crate::error::OpenError;
use crate::frame::{Ending, FRAME_ALIGN, Found, ending, read};
use crate::mvcc::Store;
use crate::replay::replay;

/// Term of a new cluster before anyone leads it, as upstream's: its first leader's is 2.
pub const TERM_OF_NEW: u64 = 1;

/// A data directory, opened.
pub struct Recovered {
    pub lock: std::fs::File,
    pub identity: Identity,
    pub state: State,
    pub wal: Wal,
    /// Number in `state.files` of each open log segment and of the checkpoint.
    pub open: OpenFiles,
}

/// Which files of the directory are in use, oldest first.
#[derive(Debug, Default)]
pub struct OpenFiles {
    /// (number in `Files`, path, bytes)
    pub checkpoint: Option<(u16, PathBuf, u64)>,
    /// (number in `Files`, segment number, path); the last is the one being written.
    pub segments: Vec<(u16, u64, PathBuf)>,
}

/// The files of a data directory by what their names say.
#[derive(Default)]
struct Listing {
    checkpoints: Vec<u64>,
    segments: Vec<u64>,
    drafts: Vec<PathBuf>,
    identity: bool,
}

fn list(dir: &Path) -> Result<Listing, OpenError> {
    let mut listing = Listing::default();
    let number = |name: &str, prefix: &str, suffix: &str| {
        u64::from_str_radix(name.strip_prefix(prefix)?.strip_suffix(suffix)?, 16).ok()
    };
    for entry in std::fs::read_dir(dir).map_err(OpenError::io("listing", dir))? {
        let path = entry.map_err(OpenError::io("listing", dir))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        if let Some(segment) = number(name, "wal-", ".log") {
            listing.segments.push(segment);
        } else if let Some(segment) = number(name, "checkpoint-", ".db") {
            listing.checkpoints.push(segment);
        } else if name.ends_with(".tmp") {
            listing.drafts.push(path);
        } else if name == "identity" {
            listing.identity = true;
        }
    }
    listing.segments.sort_unstable();
    listing.checkpoints.sort_unstable();
    Ok(listing)
}

/// Opens the directory, making it when it is new.
pub fn recover(options: &Options) -> Result<Recovered, OpenError> {
    let dir = options.data_dir.as_path();
    let lock = lock_directory(dir)?;
    let listing = list(dir)?;
    for draft in &listing.drafts {
        std::fs::remove_file(draft).map_err(OpenError::io("removing", draft))?;
    }
    let incomplete = |what: String| OpenError::Incomplete { dir: dir.to_owned(), what };
    if listing.segments.is_empty() {
        if let Some(newest) = listing.checkpoints.last() {
            return Err(incomplete(format!("log segment {} is missing", segment_path(dir, *newest).display())));
        }
        if listing.identity {
            return Err(incomplete("its log (wal-*.log) is missing".into()));
        }
        return fresh(options, lock);
    }
    if !listing.identity {
        if listing.checkpoints.is_empty() && listing.segments == [1] && is_unused(&segment_path(dir, 1))? {
            // A first start that was interrupted.
            return fresh(options, lock);
        }
        return Err(incomplete("the file `identity` is missing".into()));
    }
    let identity = read_identity(dir)?;
    let mut state = State { store: Store::new(options.recent_bytes), files: Files::default() };
    let mut open = OpenFiles::default();
    let mut first = 1;
    // Index and term of the last frame before the log that is there.
    let mut last = (0, TERM_OF_NEW);
    if let Some(newest) = listing.checkpoints.last() {
        let path = checkpoint_path(dir, *newest);
        let file = Arc::new(DataFile::open(&path).map_err(OpenError::io("opening", &path))?);
        let size = file.len().map_err(OpenError::io("reading", &path))?;
        let number = state.files.add(file);
        let head = checkpoint::load(&path, number, &mut state.store)?;
        if head.cluster_id != identity.cluster_id || head.segment != *newest {
            return Err(incomplete(format!("{} belongs to another data directory", path.display())));
        }
        first = head.segment;
        last = (head.next_index.saturating_sub(1), head.term);
        open.checkpoint = Some((number, path, size));
    }
    remove_old(dir, &listing, first)?;
    let segments: Vec<u64> = listing.segments.into_iter().filter(|s| *s >= first).collect();
    for (expected, found) in (first..).zip(&segments) {
        if expected != *found {
            return Err(incomplete(format!("log segment {} is missing", segment_path(dir, expected).display())));
        }
    }
    if segments.is_empty() {
        return Err(incomplete(format!("log segment {} is missing", segment_path(dir, first).display())));
    }
    let mut log = Replayed { dir, identity, state: &mut state, open: &mut open, last, end: None };
    let wal = log.replay(&segments, options)?;
    state.store.collect(state.store.compacted(), usize::MAX);
    Ok(Recovered { lock, identity, state, wal, open })
}

/// Whether a log segment holds no frame.
fn is_unused(path: &Path) -> Result<bool, OpenError> {
    let bytes = std::fs::read(path).map_err(OpenError::io("reading", path))?;
    Ok(bytes.iter().skip(SEGMENT_HEADER).all(|b| *b == 0))
}

/// Removes what a newer checkpoint replaced and a crash left.
fn remove_old(dir: &Path, listing: &Listing, first: u64) -> Result<(), OpenError> {
    let segments = listing.segments.iter().filter(|s| **s < first).map(|s| segment_path(dir, *s));
    let checkpoints = listing.checkpoints.iter().filter(|s| **s < first).map(|s| checkpoint_path(dir, *s));
    for path in segments.chain(checkpoints) {
        std::fs::remove_file(&path).map_err(OpenError::io("removing", &path))?;
    }
    Ok(())
}

/// Starts an empty directory. The identity comes last: with it missing and no log, the directory counts as new.
fn fresh(options: &Options, lock: std::fs::File) -> Result<Recovered, OpenError> {
    let dir = options.data_dir.as_path();
    let identity = Identity { cluster_id: rand::random(), member_id: rand::random() };
    let path = segment_path(dir, 1);
    let segment = Segment::create(dir, 1, identity.cluster_id, options.segment_bytes, options.disk)
        .map_err(OpenError::io("making log segment", &path))?;
    if let Err(e) = write_identity(dir, identity, options.disk) {
        // Nothing half-made stays.
        let _ = std::fs::remove_file(&path);
        return Err(OpenError::io("writing identity in", dir)(e));
    }
    let mut files = Files::default();
    let number = files.add(segment.reader.clone());
    let open = OpenFiles { checkpoint: None, segments: vec![(number, 1, path)] };
    let carry = segment.head.encode().to_vec();
    let wal = Wal::new(dir, options.segment_bytes, segment, SEGMENT_HEADER as u64, carry, (0, TERM_OF_NEW));
    let state = State { store: Store::new(options.recent_bytes), files };
    Ok(Recovered { lock, identity, state, wal, open })
}

/// Writes who this member is.
pub fn write_identity(dir: &Path, identity: Identity, disk: Disk) -> std::io::Result<()> {
    let draft = dir.join("identity.tmp");
    let text = format!("cluster {:016x}\nmember {:016x}\n", identity.cluster_id, identity.member_id);
    let file = create(&draft, rustix::fs::OFlags::TRUNC)?;
    std::io::Write::write_all(&mut &file, text.as_bytes())?;
    disk.sync_all(&file)?;
    std::fs::rename(&draft, dir.join("identity"))?;
    disk.sync_directory(dir)
}

fn read_identity(dir: &Path) -> Result<Identity, OpenError> {
    let path = dir.join("identity");
    let text = std::fs::read_to_string(&path).map_err(OpenError::io("reading", &path))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '))?;
        u64::from_str_radix(line, 16).ok()
    };
    match (field("cluster"), field("member")) {
        (Some(cluster_id), Some(member_id)) => Ok(Identity { cluster_id, member_id }),
        _ => Err(OpenError::Damaged { file: path, offset: 0, what: "it does not name cluster and member".into() }),
    }
}

/// The log while it is replayed.
struct Replayed<'a> {
    dir: &'a Path,
    identity: Identity,
    state: &'a mut State,
    open: &'a mut OpenFiles,
    /// Index and term of the newest frame.
    last: (u64, u64),
    /// Where the log ended: (position in the list of segments, offset, whether something broken stands there).
    end: Option<(usize, u64, bool)>,
}

impl Replayed<'_> {
    fn replay(&mut self, segments: &[u64], options: &Options) -> Result<Wal, OpenError> {
        let mut loaded: Vec<(SegmentHead, PathBuf, u64)> = Vec::new();
        let mut last = (Vec::new(), 0);
        for (at, number) in segments.iter().enumerate() {
            let path = segment_path(self.dir, *number);
            let bytes = std::fs::read(&path).map_err(OpenError::io("reading", &path))?;
            let head = self.head(&path, &bytes, *number)?;
            let file = Arc::new(DataFile::open(&path).map_err(OpenError::io("opening", &path))?);
            let file = self.state.files.add(file);
            self.open.segments.push((file, *number, path.clone()));
            let end = self.segment(&path, &bytes, head, file)?;
            if self.end.is_none() || end.0 > SEGMENT_HEADER as u64 || end.1 {
                self.end = Some((at, end.0, end.1));
                last = (bytes, end.0);
            }
            let size = std::fs::metadata(&path).map_err(OpenError::io("reading", &path))?.len();
            loaded.push((head, path, size));
        }
        let (at, tail, _) = self.end.expect("there is at least one segment");
        let (bytes, _) = last;
        let (head, path, size) = &loaded[at];
        let mut segment = Segment::open(path, *head, *size, options.disk).map_err(OpenError::io("opening", path))?;
        let start = tail as usize - tail as usize % BLOCK;
        let carry = bytes.get(start..tail as usize).unwrap_or_default().to_vec();
        let dirty = bytes[tail as usize..].iter().rposition(|b| *b != 0);
        if let Some(dirty) = dirty {
            let end = tail + dirty as u64 + 1;
            self.refuse_damage(path, &bytes, head, tail, end)?;
            tracing::warn!(file = %path.display(), offset = tail, bytes = end - tail, "dropped the torn end of the log");
            segment.erase(&carry, tail, end).map_err(OpenError::io("repairing", path))?;
        }
        let mut wal = Wal::new(self.dir, options.segment_bytes, segment, tail, carry, self.last);
        self.spare(&loaded, at, &mut wal)?;
        if wal.is_of_former_format() {
            let next = segment_path(self.dir, wal.segment() + 1);
            wal.go_on().map_err(OpenError::io("making log segment", &next))?;
            let file = self.state.files.add(wal.reader().clone());
            self.open.segments.push((file, wal.segment(), next));
        }
        Ok(wal)
    }

    /// An acknowledged write that does not have its checksum any more is told, not dropped as if it had been torn.
    fn refuse_damage(
        &self,
        path: &Path,
        bytes: &[u8],
        head: &SegmentHead,
        tail: u64,
        end: u64,
    ) -> Result<(), OpenError> {
        let rest = &bytes[tail as usize..];
        let expected = (self.last.0 + 1, self.state.store.revision());
        if ending(rest, tail, head.salt, head.frames(), expected) != Ending::Damaged {
            return Ok(());
        }
        let what = format!(
            "the last write was on disk whole and does not have its checksum any more; \
             to go on without it, overwrite the {} bytes from there on with zeros",
            end - tail
        );
        Err(OpenError::Damaged { file: path.to_owned(), offset: tail, what })
    }

    /// Segments after the last one used: the first is kept to go on with, others can't be, and none of a former format.
    fn spare(&mut self, loaded: &[(SegmentHead, PathBuf, u64)], at: usize, wal: &mut Wal) -> Result<(), OpenError> {
        for (later, (head, path, size)) in loaded.iter().enumerate().skip(at + 1) {
            if let Some((file, _, _)) = self.open.segments.pop() {
                self.state.files.remove(file);
            }
            if later == at + 1 && head.format == FORMAT {
                wal.set_next(Segment::open(path, *head, *size, wal.disk()).map_err(OpenError::io("opening", path))?);
            } else {
                std::fs::remove_file(path).map_err(OpenError::io("removing", path))?;
            }
        }
        Ok(())
    }

    fn head(&self, path: &Path, bytes: &[u8], number: u64) -> Result<SegmentHead, OpenError> {
        let damaged = |what: &str| OpenError::Damaged { file: path.to_owned(), offset: 0, what: what.into() };
        let decoded = SegmentHead::decode(bytes);
        let head = decoded.map_err(|bad| bad.told(path, "its head is no log segment's", FORMAT))?;
        if head.number != number || head.cluster_id != self.identity.cluster_id {
            return Err(damaged("it belongs to another place or data directory"));
        }
        // Segments are filled with zeros before they get their name, so that none was ever shorter.
        let there = bytes.len() as u64;
        let whole = if head.size == 0 { there.next_multiple_of(BLOCK as u64) } else { head.size };
        if there < whole {
            let what = format!(
                "it is cut: {there} of {whole} bytes are there; get the file back, or, to go on without the writes \
                 that are missing, make it {whole} bytes long again (`truncate`)"
            );
            return Err(OpenError::Damaged { file: path.to_owned(), offset: there, what });
        }
        Ok(head)
    }

    /// Replays one segment; returns where it ended and whether something broken stands there.
    fn segment(&mut self, path: &Path, bytes: &[u8], head: SegmentHead, file: u16) -> Result<(u64, bool), OpenError> {
        let damaged = |offset: u64, what: String| OpenError::Damaged { file: path.to_owned(), offset, what };
        let mut at = SEGMENT_HEADER;
        let mut broken = false;
        while at < bytes.len() {
            let frame = match read(&bytes[at..], head.salt, head.frames()) {
                Found::Frame(frame) => frame,
                Found::Nothing => {
                    // The start of a torn write may be what is missing.
                    broken = bytes[at..].iter().any(|b| *b != 0);
                    break;
                }
                Found::Broken => {
                    broken = true;
                    break;
                }
            };
            if let Some((before, offset, _)) = self.end.filter(|(_, _, broken)| *broken) {
                let path = self.open.segments[before].2.clone();
                let what = "the log is broken here but goes on intact in the next segment".to_owned();
                return Err(OpenError::Damaged { file: path, offset, what });
            }
            let (index, term) = (self.last.0 + 1, self.last.1);
            if frame.at.index != index || frame.at.revision != self.state.store.revision() {
                return Err(damaged(at as u64, format!("frame {} follows where {index} belongs", frame.at.index)));
            }
            if frame.at.term < term {
                return Err(damaged(at as u64, format!("a frame of term {} follows one of {term}", frame.at.term)));
            }
            let payload_at = (at + head.frames().header()) as u64;
            replay(&mut self.state.store, frame.payload, file, payload_at, &self.state.files)
                .map_err(|e| damaged(e.offset, e.what))?;
            self.last = (index, frame.at.term);
            at += frame.size;
        }
        if let Some(intact) = self.intact_after(bytes, at, head) {
            let what = format!("the log is broken here but goes on intact at offset {intact}");
            return Err(damaged(at as u64, what));
        }
        Ok((at as u64, broken))
    }

    /// Looks for an intact later frame behind the log's end: its presence means damage, not a torn end.
    fn intact_after(&self, bytes: &[u8], end: usize, head: SegmentHead) -> Option<usize> {
        // A frame further ahead than this can't be in the same segment.
        let ahead = (bytes.len() / head.frames().header()) as u64;
        let next = self.last.0 + 1;
        let last = bytes.iter().rposition(|b| *b != 0)?;
        (end + FRAME_ALIGN..=last).step_by(FRAME_ALIGN).find(|at| {
            let index = bytes.get(at + 8..at + 16).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes")));
            let plausible = index.is_some_and(|i| i >= next && i - next <= ahead);
            plausible && matches!(read(&bytes[*at..], head.salt, head.frames()), Found::Frame(_))
        })
    }
}
