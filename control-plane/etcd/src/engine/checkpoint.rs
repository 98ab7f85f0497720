//! I/O: checkpoints, the whole store in one file: it replaces the log before it, starts a restored member, and is what
//! a client saves as a snapshot. Written key by key without holding the store; every part has its checksum.
//!
//! Head (80 bytes) | leases | keys with their versions and values, in order | end. See [`Head`] and [`Reader`].
//! Callers: `engine::keeper` writes, `engine::recover` and `restore` read.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;

use super::Shared;
use super::files::{DataFile, Disk, create};
use super::wal::BadHead;
use crate::error::{Error, OpenError};
use crate::frame::{TERM_OF_TERMLESS, VALUE_HEADER, check_value};
use crate::mvcc::{Place, Store, Version};
use crate::span::Span;

/// A checkpoint begins so, with the digit of its format for the zero: 1 doesn't say the term, 2 is what is written.
const MAGIC: &[u8; 8] = b"fkckpt0\n";
const FORMAT: u8 = 2;
const HEAD: usize = 80;
/// Where the head's checksum lies from format 2 on, whatever else is in it: so a newer format is told from damage.
const CHECKSUM_AT: usize = HEAD - 4;
const CHECKSUM_AT_1: usize = 64;
const KEY: u8 = 1;
const LEASE: u8 = 2;
const END: u8 = 3;
/// Bytes of a version in the file.
const VERSION: usize = 40;
/// Keys copied while readers hold the store once.
const KEYS_AT_ONCE: usize = 256;
/// Bytes written between syncs: a sync of everything at the end would hold up the log's for long.
const SYNC_EVERY: u64 = 8 << 20;

/// What a checkpoint says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub cluster_id: u64,
    pub member_id: u64,
    /// First log segment that is not in the checkpoint.
    pub segment: u64,
    /// Index of that segment's first frame.
    pub next_index: u64,
    pub revision: i64,
    pub compacted: i64,
    pub applied_index: u64,
    /// Term of the last frame before that.
    pub term: u64,
}

impl Head {
    fn encode(&self, format: u8) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[6] += format;
        let numbers = [
            self.cluster_id,
            self.member_id,
            self.segment,
            self.next_index,
            self.revision.cast_unsigned(),
            self.compacted.cast_unsigned(),
            self.applied_index,
            self.term,
        ];
        let (end, numbers) = if format == 1 { (CHECKSUM_AT_1, &numbers[..7]) } else { (CHECKSUM_AT, &numbers[..]) };
        for (slot, number) in bytes[8..].chunks_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEAD]) -> Result<Head, BadHead> {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let format = bytes[6].checked_sub(MAGIC[6]).filter(|f| *f > 0).ok_or(BadHead::Damaged)?;
        if format > FORMAT {
            return Err(BadHead::of_newer(bytes, [&MAGIC[..6], &MAGIC[7..]], format));
        }
        let head = Head {
            cluster_id: number(8),
            member_id: number(16),
            segment: number(24),
            next_index: number(32),
            revision: number(40).cast_signed(),
            compacted: number(48).cast_signed(),
            applied_index: number(56),
            term: if format == 1 { TERM_OF_TERMLESS } else { number(64) },
        };
        if head.encode(format) == *bytes { Ok(head) } else { Err(BadHead::Damaged) }
    }
}

/// The file name of the checkpoint that replaces the log before `segment`.
pub fn checkpoint_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("checkpoint-{segment:016x}.db"))
}

/// What a finished checkpoint tells: where each version's value now lies, in scan order.
pub struct Written {
    pub size: u64,
    /// Offset of each value with bytes, in the order of keys and versions.
    pub offsets: Vec<u64>,
}

/// A checkpoint being written to a draft file.
struct Draft<'a> {
    shared: &'a Shared,
    out: BufWriter<File>,
    at: u64,
    synced: u64,
    keys: u64,
    /// Checksum over every part's checksum.
    total: crc32fast::Hasher,
    window: Window,
    offsets: Vec<u64>,
}

fn broken(error: io::Error, path: &Path) -> Error {
    if super::files::is_full(&error) {
        let dir = path.parent().unwrap_or(path).display().to_string();
        return Error::DiskFull { dir, what: "a checkpoint can't be written".into() };
    }
    Error::LogFailed(format!("{}: {error}", path.display()))
}

/// Writes the store as it is at `head.revision` to `draft`. History at or before that revision must not change
/// meanwhile: the caller keeps compaction out.
pub fn write(shared: &Shared, head: Head, leases: &[(i64, i64)], draft: &Path) -> Result<Written, Error> {
    let wrong = |e| broken(e, draft);
    let file = create(draft, OFlags::TRUNC).map_err(wrong)?;
    let mut this = Draft {
        shared,
        out: BufWriter::with_capacity(256 << 10, file),
        at: 0,
        synced: 0,
        keys: 0,
        total: crc32fast::Hasher::new(),
        window: Window::default(),
        offsets: Vec::new(),
    };
    this.put(&head.encode(FORMAT)).map_err(wrong)?;
    for (id, ttl) in leases {
        this.lease(*id, *ttl).map_err(wrong)?;
    }
    let everything = Span::new(Bytes::new(), Bytes::from_static(b"\0"));
    let mut after: Option<Bytes> = None;
    loop {
        let keys = this.copy_keys(&everything, after.as_deref(), head.revision);
        let Some(last) = keys.last() else { break };
        after = Some(last.key.clone());
        for key in keys.into_iter().filter(|k| !k.versions.is_empty()) {
            this.key(key).map_err(|e| e.unwrap_or_else(wrong))?;
        }
    }
    this.end().map_err(wrong)?;
    Ok(Written { size: this.at, offsets: this.offsets })
}

/// A key's versions, copied out of the store with what is needed to read their values.
struct Copied {
    key: Bytes,
    versions: Vec<(Version, Source)>,
}

enum Source {
    Memory(Bytes),
    Disk(Arc<DataFile>),
}

/// An I/O error of the draft, or a damaged value of the store.
enum Failure {
    Draft(io::Error),
    Store(Error),
}

impl Failure {
    fn unwrap_or_else(self, draft: impl FnOnce(io::Error) -> Error) -> Error {
        match self {
            Failure::Draft(e) => draft(e),
            Failure::Store(e) => e,
        }
    }
}

impl Draft<'_> {
    fn copy_keys(&self, span: &Span, after: Option<&[u8]>, upto: i64) -> Vec<Copied> {
        let state = self.shared.state.read();
        let bounds = span.bounds(after).expect("an open range is never empty");
        let copy = |version: &Version| {
            let source = match state.store.recent.value(version) {
                Some(value) => Source::Memory(value),
                None if version.len == 0 => Source::Memory(Bytes::new()),
                None => Source::Disk(state.files.get(version.place.file()).expect("open as long as used").clone()),
            };
            (*version, source)
        };
        state
            .store
            .keys
            .range::<[u8], _>(bounds)
            .take(KEYS_AT_ONCE)
            .map(|(key, history)| {
                let versions = history.all().iter().take_while(|v| v.modified <= upto).map(copy).collect();
                Copied { key: key.clone(), versions }
            })
            .collect()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn lease(&mut self, id: i64, ttl: i64) -> io::Result<()> {
        let mut part = vec![LEASE];
        part.extend_from_slice(&id.to_le_bytes());
        part.extend_from_slice(&ttl.to_le_bytes());
        self.part(part)
    }

    /// Writes a part with its checksum.
    fn part(&mut self, mut part: Vec<u8>) -> io::Result<()> {
        let crc = crc32fast::hash(&part).to_le_bytes();
        self.total.update(&crc);
        part.extend_from_slice(&crc);
        self.put(&part)
    }

    fn key(&mut self, copied: Copied) -> Result<(), Failure> {
        let Copied { key, versions } = copied;
        let mut part = vec![KEY];
        part.extend_from_slice(&(key.len() as u32).to_le_bytes());
        part.extend_from_slice(&(versions.len() as u32).to_le_bytes());
        part.extend_from_slice(&key);
        for (v, _) in &versions {
            part.extend_from_slice(&v.modified.to_le_bytes());
            part.extend_from_slice(&v.sub.to_le_bytes());
            part.extend_from_slice(&v.len.to_le_bytes());
            part.extend_from_slice(&v.created.to_le_bytes());
            part.extend_from_slice(&v.version.to_le_bytes());
            part.extend_from_slice(&v.lease.to_le_bytes());
        }
        self.part(part).map_err(Failure::Draft)?;
        self.keys += 1;
        for (version, source) in versions.iter().filter(|(v, _)| v.len > 0) {
            let value = match source {
                Source::Memory(value) => value.clone(),
                Source::Disk(file) => self.window.value(file, version).map_err(Failure::Store)?,
            };
            self.offsets.push(self.at);
            self.put(&crc32fast::hash(&value).to_le_bytes()).map_err(Failure::Draft)?;
            self.put(&value).map_err(Failure::Draft)?;
        }
        if self.at - self.synced > SYNC_EVERY {
            self.synced = self.at;
            self.sync().map_err(Failure::Draft)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.shared.options.disk.sync_data(self.out.get_ref())
    }

    fn end(&mut self) -> io::Result<()> {
        let mut part = vec![END];
        part.extend_from_slice(&self.keys.to_le_bytes());
        part.extend_from_slice(&self.total.clone().finalize().to_le_bytes());
        self.part(part)?;
        self.out.flush()?;
        self.shared.options.disk.sync_all(self.out.get_ref())
    }
}

/// Reads values that mostly lie one after the other, as those of the last checkpoint do, in large pieces.
#[derive(Default)]
struct Window {
    file: Option<Arc<DataFile>>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    const SIZE: usize = 128 << 10;

    fn value(&mut self, file: &Arc<DataFile>, version: &Version) -> Result<Bytes, Error> {
        let offset = version.place.offset();
        let size = version.len as usize + VALUE_HEADER;
        let same = self.file.as_ref().is_some_and(|f| Arc::ptr_eq(f, file));
        let near = same && offset >= self.start && offset - self.start <= 2 * Self::SIZE as u64;
        if !near {
            // The first value of a run, or one of a scattered lot: read it alone and remember where it ended.
            self.file = Some(file.clone());
            self.start = offset + size as u64;
            self.bytes.clear();
            return file.value(offset, version.len);
        }
        let from = (offset - self.start) as usize;
        if let Some(stored) = self.bytes.get(from..from + size) {
            if let Some(value) = check_value(Bytes::copy_from_slice(stored)) {
                return Ok(value);
            }
            return file.value(offset, version.len);
        }
        self.bytes.resize(Self::SIZE.max(size), 0);
        let read = file.read_at(&mut self.bytes, offset).unwrap_or(0);
        self.bytes.truncate(read);
        self.start = offset;
        file.value(offset, version.len)
    }
}

/// Writes a head at the start of a file; what follows stays valid.
pub fn write_head(file: &mut File, head: &Head) -> io::Result<()> {
    file.write_all(&head.encode(FORMAT))
}

/// Makes a draft the checkpoint of its directory.
pub fn publish(draft: &Path, path: &Path, disk: Disk) -> io::Result<()> {
    std::fs::rename(draft, path)?;
    disk.sync_directory(path.parent().expect("a checkpoint lies in the data directory"))
}

// ---- reading

/// Reads a checkpoint part by part, checking every byte.
pub struct Reader<R> {
    input: R,
    path: PathBuf,
    at: u64,
    keys: u64,
    total: crc32fast::Hasher,
}

/// One part of a checkpoint.
pub enum Part {
    Lease { id: i64, ttl: i64 },
    Key { key: Bytes, versions: Vec<Version> },
}

impl<R: Read> Reader<R> {
    pub fn new(input: R, path: &Path) -> Reader<R> {
        Reader { input, path: path.to_owned(), at: 0, keys: 0, total: crc32fast::Hasher::new() }
    }

    fn damaged(&self, what: &str) -> OpenError {
        OpenError::Damaged { file: self.path.clone(), offset: self.at, what: what.into() }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], OpenError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), OpenError> {
        match self.input.read_exact(bytes) {
            Ok(()) => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged("the file ends too early")),
            Err(e) => Err(OpenError::io("reading", &self.path)(e)),
        }
    }

    /// As many bytes as a length says that may itself be damaged: memory is taken as they come, not as it promises.
    fn bytes(&mut self, len: usize) -> Result<Vec<u8>, OpenError> {
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(len as u64).read_to_end(&mut bytes);
        read.map_err(OpenError::io("reading", &self.path))?;
        self.at += bytes.len() as u64;
        if bytes.len() == len { Ok(bytes) } else { Err(self.damaged("the file ends too early")) }
    }

    pub fn head(&mut self) -> Result<Head, OpenError> {
        let bytes = self.take::<HEAD>()?;
        Head::decode(&bytes).map_err(|bad| bad.told(&self.path, "it does not start as a checkpoint does", FORMAT))
    }

    /// The next part, with the values of keys checked and skipped; `None` at the end. Values get `file` as place.
    pub fn part(&mut self, file: u16) -> Result<Option<Part>, OpenError> {
        let [tag] = self.take::<1>()?;
        match tag {
            LEASE => {
                let body = self.take::<16>()?;
                self.check(&[&[tag], &body])?;
                let number = |at: usize| i64::from_le_bytes(body[at..at + 8].try_into().expect("8 bytes of 16"));
                Ok(Some(Part::Lease { id: number(0), ttl: number(8) }))
            }
            KEY => self.key(file).map(Some),
            END => {
                let body = self.take::<12>()?;
                let total = self.total.clone().finalize();
                self.check(&[&[tag], &body])?;
                let whole = body[..8] == self.keys.to_le_bytes() && body[8..] == total.to_le_bytes();
                if whole { Ok(None) } else { Err(self.damaged("parts are missing before the end")) }
            }
            _ => Err(self.damaged("an unknown part")),
        }
    }

    /// Reads a part's checksum and compares.
    fn check(&mut self, pieces: &[&[u8]]) -> Result<(), OpenError> {
        let mut hasher = crc32fast::Hasher::new();
        pieces.iter().for_each(|p| hasher.update(p));
        let expected = hasher.finalize().to_le_bytes();
        let stored = self.take::<4>()?;
        self.total.update(&stored);
        if stored == expected { Ok(()) } else { Err(self.damaged("a part does not match its checksum")) }
    }

    fn key(&mut self, file: u16) -> Result<Part, OpenError> {
        /// Larger than any key or history: damage shows here before memory is asked for.
        const SANE: usize = 1 << 30;
        let sizes = self.take::<8>()?;
        let size = |at: usize| u32::from_le_bytes(sizes[at..at + 4].try_into().expect("4 bytes of 8")) as usize;
        let (key_len, count) = (size(0), size(4));
        if key_len > SANE || count.saturating_mul(VERSION) > SANE {
            return Err(self.damaged("a key is impossibly large"));
        }
        let key = self.bytes(key_len)?;
        let raw = self.bytes(count * VERSION)?;
        self.check(&[&[KEY], &sizes, &key, &raw])?;
        self.keys += 1;
        let mut versions = Vec::with_capacity(count);
        for bytes in raw.chunks_exact(VERSION) {
            let long = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes of 40"));
            let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes of 40"));
            let len = short(12);
            let place = Place::new(file, self.at);
            if len > 0 {
                self.value(len)?;
            }
            versions.push(Version {
                modified: long(0),
                sub: short(8),
                len,
                created: long(16),
                version: long(24),
                lease: long(32),
                place,
            });
        }
        Ok(Part::Key { key: Bytes::from(key), versions })
    }

    fn value(&mut self, len: u32) -> Result<(), OpenError> {
        let at = self.at;
        let mut left = len as usize;
        let stored = u32::from_le_bytes(self.take::<VALUE_HEADER>()?);
        let mut hasher = crc32fast::Hasher::new();
        let mut piece = [0; 4096];
        while left > 0 {
            let now = left.min(piece.len());
            self.fill(&mut piece[..now])?;
            hasher.update(&piece[..now]);
            left -= now;
        }
        if hasher.finalize() == stored {
            return Ok(());
        }
        let what = "a value does not match its checksum".to_owned();
        Err(OpenError::Damaged { file: self.path.clone(), offset: at, what })
    }
}

/// Fills an empty store from a checkpoint whose values are read as `file`.
pub fn load(path: &Path, file: u16, store: &mut Store) -> Result<Head, OpenError> {
    let input = File::open(path).map_err(OpenError::io("opening", path))?;
    let mut reader = Reader::new(io::BufReader::with_capacity(256 << 10, input), path);
    let head = reader.head()?;
    while let Some(part) = reader.part(file)? {
        match part {
            Part::Lease { id, ttl } => {
                let granted = store.leases.grant(id, ttl, 0);
                granted.map_err(|e| reader.damaged(&format!("lease {id:x}: {e}")))?;
            }
            Part::Key { key, versions } => store.load(key, versions),
        }
    }
    store.loaded(head.revision, head.compacted, head.applied_index);
    Ok(head)
}
