//! I/O: the data directory, the files in it that values are read from, and aligned writes past the page cache.
//! Directories are 0700 and files 0600; one process at a time holds the lock file.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{FlockOperation, OFlags};

use crate::error::{Error, OpenError};
use crate::frame::{VALUE_HEADER, check_value};
use crate::mvcc::{Place, Values};

/// Offsets, lengths and addresses of direct writes are multiples of this: the largest block size of common disks.
pub const BLOCK: usize = 4096;

/// A file that values lie in, open for reading as long as anyone may read from it.
#[derive(Debug)]
pub struct DataFile {
    pub path: PathBuf,
    file: File,
}

impl DataFile {
    pub fn open(path: &Path) -> io::Result<DataFile> {
        Ok(DataFile { path: path.to_owned(), file: File::open(path)? })
    }

    /// Reads a value and checks it.
    pub fn value(&self, offset: u64, len: u32) -> Result<Bytes, Error> {
        let damaged = |what: String| Error::Damaged { file: self.path.display().to_string(), offset, what };
        let mut stored = vec![0; len as usize + VALUE_HEADER];
        self.file.read_exact_at(&mut stored, offset).map_err(|e| damaged(e.to_string()))?;
        check_value(Bytes::from(stored)).ok_or_else(|| damaged("a value does not match its checksum".into()))
    }

    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// The data files in use, by the number that a [`Place`] names.
#[derive(Debug, Default)]
pub struct Files(Vec<Option<Arc<DataFile>>>);

impl Files {
    /// Adds a file; returns its number.
    pub fn add(&mut self, file: Arc<DataFile>) -> u16 {
        let free = self.0.iter().position(Option::is_none).unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        self.0[free] = Some(file);
        u16::try_from(free).expect("a handful of files are open at a time: checkpoints bound them")
    }

    pub fn get(&self, number: u16) -> Option<&Arc<DataFile>> {
        self.0.get(usize::from(number))?.as_ref()
    }

    /// Forgets a file: no version lies in it any more.
    pub fn remove(&mut self, number: u16) {
        if let Some(slot) = self.0.get_mut(usize::from(number)) {
            *slot = None;
        }
    }
}

impl Values for Files {
    fn load(&self, place: Place, len: u32) -> Result<Bytes, Error> {
        self.get(place.file())
            .expect("a version's file is open as long as the version exists")
            .value(place.offset(), len)
    }
}

/// Opens or makes the data directory and takes its lock, which lasts as long as the returned file.
pub fn lock_directory(dir: &Path) -> Result<File, OpenError> {
    if dir.join("member").exists() {
        return Err(OpenError::Foreign { dir: dir.to_owned() });
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(OpenError::io("making data directory", dir))?;
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(dir, private).map_err(OpenError::io("making private the data directory", dir))?;
    let path = dir.join("lock");
    let file = create(&path, OFlags::empty()).map_err(OpenError::io("opening", &path))?;
    for _ in 0..LOCK_ATTEMPTS {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(e) => return Err(OpenError::io("locking", path)(e.into())),
        }
    }
    Err(OpenError::Locked { dir: dir.to_owned() })
}

/// A process that ends, or a child between fork and exec, holds the lock a moment longer: half a second in all.
const LOCK_ATTEMPTS: usize = 50;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Opens a file for writing, making it with mode 0600.
pub fn create(path: &Path, flags: OFlags) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Whether the disk is waited for. Not to wait is for stores that may be lost with the machine, those of tests; a process
/// that is killed loses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    Awaited,
    Unawaited,
}

impl Disk {
    /// Makes a file's content durable, with all that is needed to find it.
    pub fn sync_all(self, file: &File) -> io::Result<()> {
        if self == Disk::Awaited { file.sync_all() } else { Ok(()) }
    }

    /// Makes a file's content durable.
    pub fn sync_data(self, file: &File) -> io::Result<()> {
        if self == Disk::Awaited { file.sync_data() } else { Ok(()) }
    }

    /// Makes renames, creations and removals in a directory durable.
    pub fn sync_directory(self, dir: &Path) -> io::Result<()> {
        if self == Disk::Awaited { File::open(dir)?.sync_all() } else { Ok(()) }
    }
}

/// Writes whole blocks to a file, without the page cache where the file system can: then the sync that follows finds
/// nothing to write back and costs one flush of the disk, not a wait for the kernel's writer threads.
#[derive(Debug)]
pub struct BlockWriter {
    file: File,
    buffer: Vec<u8>,
    disk: Disk,
}

impl BlockWriter {
    pub fn open(path: &Path, disk: Disk) -> io::Result<BlockWriter> {
        // Past the cache every write waits for the disk.
        let flags = if disk == Disk::Awaited { OFlags::DIRECT } else { OFlags::empty() };
        let file = match create(path, flags) {
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => create(path, OFlags::empty())?,
            other => other?,
        };
        Ok(BlockWriter { file, buffer: Vec::new(), disk })
    }

    pub fn disk(&self) -> Disk {
        self.disk
    }

    /// An aligned buffer of `len` bytes (a multiple of [`BLOCK`]); its contents are whatever was there before.
    pub fn buffer(&mut self, len: usize) -> &mut [u8] {
        if self.buffer.len() < len + BLOCK {
            self.buffer = vec![0; len + BLOCK];
        }
        let start = self.buffer.as_ptr().align_offset(BLOCK);
        &mut self.buffer[start..start + len]
    }

    /// Writes the first `len` bytes of the buffer at `offset`; both are multiples of [`BLOCK`].
    pub fn write(&mut self, len: usize, offset: u64) -> io::Result<()> {
        let start = self.buffer.as_ptr().align_offset(BLOCK);
        self.file.write_all_at(&self.buffer[start..start + len], offset)
    }

    pub fn sync(&self) -> io::Result<()> {
        self.disk.sync_data(&self.file)
    }

    /// Sets space aside, so that a full disk shows here and not while writing.
    pub fn reserve(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, len) {
            Err(rustix::io::Errno::NOTSUP) => Ok(()),
            other => other.map_err(io::Error::from),
        }
    }

    /// Gives a large buffer back.
    pub fn shrink(&mut self, above: usize) {
        if self.buffer.len() > above {
            self.buffer = Vec::new();
        }
    }
}

/// Whether an error says that the disk (or the quota on it) is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
