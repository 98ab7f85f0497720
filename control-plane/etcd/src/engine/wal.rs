//! I/O: the write-ahead log. Segments of fixed size are filled with zeros ahead of use, so that an append touches no
//! metadata; each append is one aligned write and one fdatasync. A failed append leaves nothing behind, and frames that
//! are not committed can be taken back. Callers: the logs (`engine::log`) and `engine::writer`; `engine::recover` opens it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use super::files::{BLOCK, BlockWriter, DataFile, Disk, is_full};
use crate::error::{Error, OpenError};
use crate::frame::{Format, Frame, Stamp};

/// Bytes of a segment's header; the first frame follows.
pub const SEGMENT_HEADER: usize = 64;
/// A segment begins so, with the digit of its format for the zero: 1 doesn't say how long the segment is, 2 has frames
/// without a term, 3 is what is written.
const MAGIC: &[u8; 8] = b"fkwal 0\n";
pub const FORMAT: u8 = 3;
/// From format 3 on, whatever else is in a head, this is where the checksum over all before it lies: so a newer format
/// is told from damage.
const CHECKSUM_AT: usize = SEGMENT_HEADER - 4;
/// The buffer that a large commit grew is given back when it is larger than this.
const KEPT_BUFFER: usize = 1 << 20;

/// What a segment says of itself in its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHead {
    pub format: u8,
    pub number: u64,
    pub cluster_id: u64,
    /// Start value of the segment's checksums.
    pub salt: u64,
    /// Bytes of the whole segment; 0 in segments of the first version.
    pub size: u64,
}

impl SegmentHead {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[6] += self.format;
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.cluster_id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        let end = match self.format {
            1 => 32,
            2 => 40,
            _ => CHECKSUM_AT,
        };
        if self.format > 1 {
            bytes[32..40].copy_from_slice(&self.size.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<SegmentHead, BadHead> {
        let bytes = bytes.first_chunk::<SEGMENT_HEADER>().ok_or(BadHead::Damaged)?;
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes of 64"));
        let format = bytes[6].checked_sub(MAGIC[6]).filter(|f| *f > 0).ok_or(BadHead::Damaged)?;
        if format > FORMAT {
            return Err(BadHead::of_newer(bytes, [&MAGIC[..6], &MAGIC[7..]], format));
        }
        let size = if format > 1 { number(32) } else { 0 };
        let head = SegmentHead { format, number: number(8), cluster_id: number(16), salt: number(24), size };
        if head.encode() == *bytes { Ok(head) } else { Err(BadHead::Damaged) }
    }

    /// How the segment's frames look.
    pub fn frames(&self) -> Format {
        if self.format < FORMAT { Format::Termless } else { Format::Present }
    }
}

/// Why the head of a file can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHead {
    Damaged,
    /// Intact, and of a format that is not known here.
    Newer(u8),
}

impl BadHead {
    /// What a head is that says a newer format: that, when its checksum (its last 4 bytes) holds, else damaged. `magic` is
    /// what stands before and after the format.
    pub fn of_newer(head: &[u8], magic: [&[u8]; 2], format: u8) -> BadHead {
        let Some((covered, crc)) = head.split_last_chunk::<4>() else { return BadHead::Damaged };
        let [before, after] = magic;
        let named = head.starts_with(before) && head[before.len() + 1..].starts_with(after);
        let whole = crc32fast::hash(covered).to_le_bytes() == *crc;
        if named && whole { BadHead::Newer(format) } else { BadHead::Damaged }
    }

    /// The error of a file that begins so: `damage` is what is said of a damaged one, `known` the newest format known.
    pub fn told(self, file: &Path, damage: &str, known: u8) -> OpenError {
        let file = file.to_owned();
        match self {
            BadHead::Damaged => OpenError::Damaged { file, offset: 0, what: damage.to_owned() },
            BadHead::Newer(format) => OpenError::Newer { file, format, known },
        }
    }
}

/// The file name of a segment.
pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("wal-{number:016x}.log"))
}

/// A segment ready to be appended to.
#[derive(Debug)]
pub struct Segment {
    pub head: SegmentHead,
    pub path: PathBuf,
    writer: BlockWriter,
    pub reader: Arc<DataFile>,
    pub size: u64,
}

impl Segment {
    /// Makes a segment of `size` bytes, all on disk when this returns.
    pub fn create(dir: &Path, number: u64, cluster_id: u64, size: u64, disk: Disk) -> io::Result<Segment> {
        /// Zeros written at a time.
        const CHUNK: usize = 1 << 20;
        let head = SegmentHead { format: FORMAT, number, cluster_id, salt: rand::random(), size };
        let path = segment_path(dir, number);
        let draft = path.with_extension("tmp");
        let fill = || -> io::Result<BlockWriter> {
            let mut writer = BlockWriter::open(&draft, disk)?;
            writer.reserve(size)?;
            let chunk = CHUNK.min(size as usize);
            writer.buffer(chunk).fill(0);
            for offset in (chunk as u64..size).step_by(chunk) {
                writer.write(chunk.min((size - offset) as usize), offset)?;
            }
            writer.buffer(chunk)[..SEGMENT_HEADER].copy_from_slice(&head.encode());
            writer.write(chunk, 0)?;
            writer.sync()?;
            std::fs::rename(&draft, &path)?;
            disk.sync_directory(dir)?;
            writer.shrink(0);
            Ok(writer)
        };
        let writer = fill().inspect_err(|_| drop(std::fs::remove_file(&draft)))?;
        let reader = Arc::new(DataFile::open(&path)?);
        Ok(Segment { head, path, writer, reader, size })
    }

    /// Opens a segment that exists.
    pub fn open(path: &Path, head: SegmentHead, size: u64, disk: Disk) -> io::Result<Segment> {
        let writer = BlockWriter::open(path, disk)?;
        let reader = Arc::new(DataFile::open(path)?);
        Ok(Segment { head, path: path.to_owned(), writer, reader, size })
    }

    /// Overwrites `from..to` with zeros, durably; `before` is what stands in front in the same block.
    pub fn erase(&mut self, before: &[u8], from: u64, to: u64) -> io::Result<()> {
        let start = from - from % BLOCK as u64;
        let len = ((to - start) as usize).next_multiple_of(BLOCK);
        let buffer = self.writer.buffer(len);
        buffer[..before.len()].copy_from_slice(before);
        buffer[before.len()..].fill(0);
        self.writer.write(len, start)?;
        self.writer.sync()
    }
}

/// A frame that is on disk and not committed.
#[derive(Debug)]
struct OpenFrame {
    index: u64,
    offset: u64,
    /// Term of the frame before it.
    term_before: u64,
}

/// Where the log stands.
#[derive(Debug)]
pub struct Wal {
    dir: PathBuf,
    segment_bytes: u64,
    current: Segment,
    /// Where the next frame goes.
    tail: u64,
    /// The bytes of the tail's block before the tail.
    carry: Vec<u8>,
    /// Index of the newest frame, and its term.
    last: (u64, u64),
    /// Frames of the current segment that may yet be taken back.
    open: VecDeque<OpenFrame>,
    next: Option<Segment>,
    preparing: Option<Receiver<io::Result<Segment>>>,
    /// End of what a failed append may have left; erased before anything else is written.
    spoiled: Option<u64>,
    failed: Option<String>,
}

impl Wal {
    /// `last` are index and term of the newest frame.
    pub fn new(dir: &Path, segment_bytes: u64, current: Segment, tail: u64, carry: Vec<u8>, last: (u64, u64)) -> Wal {
        debug_assert_eq!(carry.len() as u64, tail % BLOCK as u64);
        Wal {
            dir: dir.to_owned(),
            segment_bytes,
            current,
            tail,
            carry,
            last,
            open: VecDeque::new(),
            next: None,
            preparing: None,
            spoiled: None,
            failed: None,
        }
    }

    /// Gives the log a segment made earlier.
    pub fn set_next(&mut self, next: Segment) {
        self.next = Some(next);
    }

    pub fn disk(&self) -> Disk {
        self.current.writer.disk()
    }

    /// Whether the current segment is of a former format: it is not written to any more.
    pub fn is_of_former_format(&self) -> bool {
        self.current.head.format < FORMAT
    }

    /// Index of the newest frame.
    pub fn last_index(&self) -> u64 {
        self.last.0
    }

    /// Term of the newest frame.
    pub fn last_term(&self) -> u64 {
        self.last.1
    }

    pub fn segment(&self) -> u64 {
        self.current.head.number
    }

    pub fn reader(&self) -> &Arc<DataFile> {
        &self.current.reader
    }

    /// Offset in the segment at which the next frame starts.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Whether `bytes` more fit in the current segment.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.tail + bytes as u64 + 2 * BLOCK as u64 <= self.current.size
    }

    /// Makes the log writable again after a failure that may have passed.
    pub fn mend(&mut self) -> Result<(), Error> {
        if let Some(what) = &self.failed {
            return Err(Error::LogFailed(what.clone()));
        }
        if let Some(end) = self.spoiled {
            self.current.erase(&self.carry, self.tail, end).map_err(|e| self.failure(e))?;
            self.spoiled = None;
        }
        Ok(())
    }

    /// Goes on in a new segment. On error the current one stays.
    pub fn rotate(&mut self) -> Result<(), Error> {
        self.mend()?;
        self.go_on().map_err(|e| self.failure(e))
    }

    /// The same, for who opens the log.
    pub fn go_on(&mut self) -> io::Result<()> {
        debug_assert!(self.open.is_empty(), "frames that may be taken back are in the current segment");
        let next = match self.next.take() {
            Some(next) => next,
            None => match self.preparing.take().and_then(|p| p.recv().ok()) {
                Some(Ok(next)) => next,
                // What failed in the background may work now.
                _ => self.create_next()?,
            },
        };
        self.current = next;
        self.tail = SEGMENT_HEADER as u64;
        self.carry = self.current.head.encode().to_vec();
        Ok(())
    }

    fn create_next(&self) -> io::Result<Segment> {
        let head = self.current.head;
        Segment::create(&self.dir, head.number + 1, head.cluster_id, self.segment_bytes, self.disk())
    }

    /// Starts to make the next segment in the background once this one is a quarter full.
    fn prepare(&mut self) {
        if self.next.is_none() {
            match self.preparing.as_ref().map(|p| p.try_recv()) {
                Some(Ok(Ok(segment))) => {
                    self.next = Some(segment);
                    self.preparing = None;
                }
                Some(Ok(Err(_)) | Err(TryRecvError::Disconnected)) => self.preparing = None,
                Some(Err(TryRecvError::Empty)) | None => {}
            }
        }
        if self.next.is_some() || self.preparing.is_some() || self.tail < self.current.size / 4 {
            return;
        }
        let (sender, receiver) = sync_channel(1);
        let (dir, size, head) = (self.dir.clone(), self.segment_bytes, self.current.head);
        let disk = self.disk();
        let make = move || {
            let made = Segment::create(&dir, head.number + 1, head.cluster_id, size, disk);
            // Nobody waits when the log is being closed; the segment is found again at the next start.
            let _ = sender.send(made);
        };
        if std::thread::Builder::new().name("etcd-segment".into()).spawn(make).is_ok() {
            self.preparing = Some(receiver);
        }
    }

    /// Appends a frame; when this returns it is on disk, and its bytes come back. The caller asked [`Wal::has_room`]
    /// first. Until [`Wal::commit`] it can be taken back.
    pub fn append(&mut self, frame: Frame, term: u64, revision: i64) -> Result<Vec<u8>, Error> {
        self.mend()?;
        let (before, term_before) = self.last;
        let at = Stamp { term, index: before + 1, revision };
        let frame = frame.seal(self.current.head.salt, at);
        let start = self.tail - self.carry.len() as u64;
        let used = self.carry.len() + frame.len();
        let len = used.next_multiple_of(BLOCK);
        let buffer = self.current.writer.buffer(len);
        buffer[..self.carry.len()].copy_from_slice(&self.carry);
        buffer[self.carry.len()..used].copy_from_slice(&frame);
        buffer[used..].fill(0);
        if let Err(e) = self.current.writer.write(len, start) {
            self.spoiled = Some(self.tail + frame.len() as u64);
            return Err(self.failure(e));
        }
        if let Err(e) = self.current.writer.sync() {
            self.spoiled = Some(self.tail + frame.len() as u64);
            if !is_full(&e) {
                // What a failed sync left on disk is unknown, and a second one may lie.
                self.failed = Some(format!("{}: {e}", self.current.path.display()));
            }
            return Err(self.failure(e));
        }
        self.open.push_back(OpenFrame { index: at.index, offset: self.tail, term_before });
        self.tail += frame.len() as u64;
        self.last = (at.index, term);
        let kept = self.tail as usize % BLOCK;
        let buffer = self.current.writer.buffer(len);
        self.carry.clear();
        self.carry.extend_from_slice(&buffer[used - kept..used]);
        self.current.writer.shrink(KEPT_BUFFER);
        self.prepare();
        Ok(frame)
    }

    /// Frames up to `index` stay.
    pub fn commit(&mut self, index: u64) {
        while self.open.pop_front_if(|frame| frame.index <= index).is_some() {}
    }

    /// Takes back the frames after `index`, durably: the newest first, so that a crash on the way leaves a log that ends
    /// there or in a torn frame. None of them may be committed. On error nothing can be written any more.
    pub fn truncate_after(&mut self, index: u64) -> Result<(), Error> {
        self.mend()?;
        while let Some(frame) = self.open.pop_back_if(|frame| frame.index > index) {
            let start = frame.offset - frame.offset % BLOCK as u64;
            let mut carry = vec![0; (frame.offset - start) as usize];
            let taken_back = self.current.reader.read_exact_at(&mut carry, start).and_then(|()| {
                let end = std::mem::replace(&mut self.tail, frame.offset);
                self.current.erase(&carry, frame.offset, end)
            });
            if let Err(e) = taken_back {
                self.failed = Some(format!("{}: {e}", self.current.path.display()));
                return Err(self.failure(e));
            }
            self.carry = carry;
            self.last = (frame.index - 1, frame.term_before);
        }
        Ok(())
    }

    fn failure(&self, error: io::Error) -> Error {
        if is_full(&error) {
            return Error::DiskFull { dir: self.dir.display().to_string(), what: "the log can't grow".into() };
        }
        Error::LogFailed(format!("{}: {error}", self.current.path.display()))
    }

    /// Waits for a segment that is being made, so that nothing writes to the directory after this.
    pub fn close(&mut self) {
        if let Some(preparing) = self.preparing.take() {
            let _ = preparing.recv();
        }
    }
}
