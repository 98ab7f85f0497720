//! Unpacks one layer into a directory in the form that overlayfs reads. Does I/O.
//!
//! A layer is written by a stranger: every path is resolved inside the directory by the kernel (openat2), whiteouts
//! become overlay's own, overlay's private attributes are never taken from the archive, and what it takes of memory and
//! disk is bounded whatever it says.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fsetxattr,
};
use rustix::io::Errno;

use linux::root::{Beneath, Root};

use super::entries::{Entries, Entry, Sparse};
use super::{ImageError, Result, cut_bytes, room};
use crate::digest::HashingReader;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of tools' own bookkeeping (aufs) that mean nothing here.
const META: &[u8] = b".wh..wh.";
/// A layer with more entries than this is refused: it would fill the file system with inodes.
const MAX_ENTRIES: u64 = 8_000_000;
/// Bytes of the paths of directories that wait for their times; no image comes near it.
const MAX_PATHS: usize = 256 << 20;
/// zstd keeps this much of the past (as a power of two): what its strongest level makes, 128 MiB.
const MAX_WINDOW_LOG: u32 = 27;
/// Open parent directories remembered, so that siblings need no lookup; cleared when full.
const MAX_OPEN_DIRS: usize = 64;

/// What an unpacked layer takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the uncompressed archive.
    pub diff_id: String,
    pub bytes: u64,
    pub inodes: u64,
}

/// How a layer is compressed, told by its first bytes.
pub fn decompress<'a>(mut input: Box<dyn Read + Send + 'a>) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut head = [0u8; 4];
    let mut got = 0;
    while got < head.len() {
        match input.read(&mut head[got..])? {
            0 => break,
            n => got += n,
        }
    }
    let whole = io::Cursor::new(head[..got].to_vec()).chain(input);
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(128 << 10, whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::stream::read::Decoder::new(whole)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => Box::new(whole),
    })
}

/// Unpacks an uncompressed layer into `dir`, which is empty. `parents` are the layers below, top first: a directory
/// that the archive forgets to list gets its owner and mode from there.
pub fn unpack(archive: impl Read, dir: &Path, parents: &[PathBuf]) -> Result<Unpacked> {
    let root = Root::open(dir).map_err(ImageError::io(format_args!("open {}", dir.display())))?;
    let parents = parents.iter().filter_map(|p| Root::open(p).ok()).collect();
    let archive = room::Bounded::new(archive, dir, "the layer").map_err(ImageError::io("look at the disk"))?;
    let mut archive = Entries::new(HashingReader::new(archive));
    let mut unpacker = Unpacker {
        root,
        parents,
        open_dirs: HashMap::new(),
        times: BTreeMap::new(),
        path_bytes: 0,
        bytes: 0,
        inodes: 0,
    };
    while let Some(entry) = archive.next().map_err(ImageError::io("read the layer"))? {
        unpacker
            .entry(&entry, &mut archive)
            .map_err(ImageError::io(format_args!("unpack {}", cut_bytes(&entry.path))))?;
    }
    unpacker.finish().map_err(ImageError::io("finish the layer"))?;
    let (bytes, inodes) = (unpacker.bytes, unpacker.inodes);
    let diff_id = archive.into_inner().finish().map_err(ImageError::io("read the layer"))?;
    Ok(Unpacked { diff_id, bytes, inodes })
}

struct Unpacker {
    root: Root,
    parents: Vec<Root>,
    open_dirs: HashMap<PathBuf, OwnedFd>,
    /// Directories get their times last, when nothing is added to them any more.
    times: BTreeMap<PathBuf, u64>,
    path_bytes: usize,
    bytes: u64,
    inodes: u64,
}

struct Meta {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: u64,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Unpacker {
    fn entry(&mut self, entry: &Entry, data: &mut impl Read) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let path = clean(Path::new(std::ffi::OsStr::from_bytes(&entry.path)))?;
        self.inodes += 1;
        if self.inodes > MAX_ENTRIES {
            return Err(io::Error::other("too many files in one layer"));
        }
        let meta = meta(entry)?;
        let Some(name) = path.file_name().map(|n| n.as_bytes().to_vec()) else {
            return self.root_entry(&meta);
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent = self.parent(&parent_path)?;
        if name == OPAQUE {
            return set_opaque(&parent);
        }
        if name.starts_with(META) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return whiteout(&parent, hidden);
        }
        let name = std::ffi::OsStr::from_bytes(&name).to_owned();
        self.make(&path, &parent, &name, &meta, entry, data)
    }

    fn root_entry(&mut self, meta: &Meta) -> io::Result<()> {
        let dir = self.root.get(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        set_meta(&dir, meta)?;
        self.remember_time(Path::new(""), meta.mtime)
    }

    fn remember_time(&mut self, path: &Path, mtime: u64) -> io::Result<()> {
        if self.times.insert(path.to_owned(), mtime).is_none() {
            self.path_bytes += path.as_os_str().len();
        }
        if self.path_bytes > MAX_PATHS {
            return Err(io::Error::other("the paths of its directories are too long"));
        }
        Ok(())
    }

    fn make(
        &mut self,
        path: &Path,
        parent: &OwnedFd,
        name: &std::ffi::OsStr,
        meta: &Meta,
        entry: &Entry,
        data: &mut impl Read,
    ) -> io::Result<()> {
        use tar::EntryType as T;
        let kind = entry.kind;
        self.make_room(path, parent, name, kind == T::Directory)?;
        match kind {
            T::Directory => {
                match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                set_meta(&open_plain(parent, name, OFlags::RDONLY | OFlags::DIRECTORY)?, meta)?;
                self.remember_time(path, meta.mtime)?;
            }
            T::Regular | T::Continuous | T::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let file = std::fs::File::from(open_plain(parent, name, flags)?);
                self.bytes += match &entry.sparse {
                    Some(sparse) => write_sparse(&file, sparse, data)?,
                    None => io::copy(data, &mut &file)?,
                };
                set_meta(&file, meta)?;
                set_time(&file, meta.mtime)?;
            }
            T::Symlink => {
                rustix::fs::symlinkat(link_target(entry)?, parent, name)?;
                let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
                rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                rustix::fs::utimensat(parent, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            T::Link => self.hard_link(parent, name, entry)?,
            T::Char | T::Block | T::Fifo => make_node(parent, name, kind, meta, entry)?,
            other => return Err(io::Error::other(format!("entry type {other:?} is not known"))),
        }
        Ok(())
    }

    /// The last entry of a name wins; a directory listed twice stays.
    fn make_room(&mut self, path: &Path, parent: &OwnedFd, name: &std::ffi::OsStr, dir: bool) -> io::Result<()> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_dir && dir {
            return Ok(());
        }
        // A directory, or a link to one: what was opened through it is not what its path means from now on.
        self.open_dirs.clear();
        if is_dir {
            self.times.retain(|dir, _| !dir.starts_with(path));
            return Beneath::from(parent.try_clone()?).remove_tree(name);
        }
        Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
    }

    fn hard_link(&mut self, parent: &OwnedFd, name: &std::ffi::OsStr, entry: &Entry) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let target = clean(Path::new(std::ffi::OsStr::from_bytes(link_target(entry)?)))?;
        let file = target.file_name().ok_or_else(|| io::Error::other("a hard link to a directory"))?;
        let dir = self.parent(target.parent().unwrap_or(Path::new("")))?;
        Ok(rustix::fs::linkat(&dir, file, parent, name, AtFlags::empty())?)
    }

    /// Opens the directory that an entry goes to, made when the archive didn't list it.
    fn parent(&mut self, path: &Path) -> io::Result<OwnedFd> {
        if let Some(open) = self.open_dirs.get(path) {
            return open.try_clone();
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let dir = match self.root.get(path, flags) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let above = self.parent(path.parent().unwrap_or(Path::new("")))?;
                let name = path.file_name().ok_or(io::ErrorKind::NotFound)?;
                rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755))?;
                self.inodes += 1;
                let made = open_plain(&above, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
                self.copy_from_below(path, &made)?;
                self.root.get(path, flags)?
            }
            other => other?,
        };
        if self.open_dirs.len() >= MAX_OPEN_DIRS {
            self.open_dirs.clear();
        }
        self.open_dirs.insert(path.to_owned(), dir.try_clone()?);
        Ok(dir)
    }

    fn copy_from_below(&self, path: &Path, made: &OwnedFd) -> io::Result<()> {
        for parent in &self.parents {
            let Ok(below) = parent.get(path, OFlags::PATH | OFlags::DIRECTORY) else { continue };
            let stat = rustix::fs::statat(&below, "", AtFlags::EMPTY_PATH)?;
            fchown(made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
            fchmod(made, Mode::from_raw_mode(stat.st_mode))?;
            return Ok(());
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.open_dirs.clear();
        for (path, time) in &self.times {
            if let Ok(dir) = self.root.get_plain(path, OFlags::RDONLY | OFlags::DIRECTORY) {
                set_time(&dir, *time)?;
            }
        }
        Ok(())
    }
}

/// A relative path without `.` and `..`: what climbs above the root stays at the root.
fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => out.push(name),
            std::path::Component::ParentDir => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the path climbs with .."));
            }
            _ => {}
        }
    }
    Ok(out)
}

fn meta(entry: &Entry) -> io::Result<Meta> {
    // Overlay's own attributes would redirect lookups to other places of the layers.
    let overlays = |name: &str| name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
    // The highest number means "as it is" to the kernel.
    let number = |value: u64| {
        let number = u32::try_from(value).ok().filter(|n| *n != u32::MAX);
        number.ok_or_else(|| io::Error::other("an owner out of range"))
    };
    Ok(Meta {
        uid: number(entry.uid)?,
        gid: number(entry.gid)?,
        mode: entry.mode & 0o7777,
        mtime: entry.mtime,
        xattrs: entry.xattrs.iter().filter(|(name, _)| !overlays(name)).cloned().collect(),
    })
}

fn link_target(entry: &Entry) -> io::Result<&[u8]> {
    if entry.link.is_empty() { Err(io::Error::other("a link without a target")) } else { Ok(&entry.link) }
}

/// Writes what is stored of a file where it belongs; the rest stays holes, which take no room.
fn write_sparse(mut file: &std::fs::File, sparse: &Sparse, data: &mut impl Read) -> io::Result<u64> {
    let mut written = 0;
    for (offset, length) in &sparse.pieces {
        file.seek(io::SeekFrom::Start(*offset))?;
        let copied = io::copy(&mut data.by_ref().take(*length), &mut file)?;
        written += copied;
        if copied < *length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    file.set_len(sparse.size)?;
    Ok(written)
}

fn open_plain(parent: &OwnedFd, name: &std::ffi::OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o600);
    Ok(rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)?)
}

/// Owner first: changing it clears the set-user bits and file capabilities that come after.
fn set_meta(file: impl AsFd, meta: &Meta) -> io::Result<()> {
    let file = file.as_fd();
    fchown(file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    fchmod(file, Mode::from_raw_mode(meta.mode))?;
    for (name, value) in &meta.xattrs {
        match fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            // The host's file system or security modules may not know it.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn times(mtime: u64) -> Timestamps {
    let at = Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: at, last_modification: at }
}

fn set_time(file: impl AsFd, mtime: u64) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &times(mtime))?)
}

fn make_node(
    parent: &OwnedFd,
    name: &std::ffi::OsStr,
    kind: tar::EntryType,
    meta: &Meta,
    entry: &Entry,
) -> io::Result<()> {
    let number = rustix::fs::makedev(entry.device.0, entry.device.1);
    let (kind, number) = match kind {
        tar::EntryType::Char => (FileType::CharacterDevice, number),
        tar::EntryType::Block => (FileType::BlockDevice, number),
        _ => (FileType::Fifo, 0),
    };
    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(meta.mode), number)?;
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())?;
    Ok(())
}

/// Hides everything below this directory (overlayfs: trusted.overlay.opaque).
fn set_opaque(dir: &OwnedFd) -> io::Result<()> {
    let dir = rustix::fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(fsetxattr(&dir, "trusted.overlay.opaque", b"y", XattrFlags::empty())?)
}

/// Hides one name of the layers below (overlayfs: a character device 0:0). What this layer itself has stays, and a
/// directory of it becomes opaque.
fn whiteout(parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(name);
    if name.is_empty() || name == "." || name == ".." {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a whiteout of nothing"));
    }
    match rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::EXIST) => match open_plain(parent, name, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(dir) => set_opaque(&dir),
            Err(_) => Ok(()),
        },
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests;
