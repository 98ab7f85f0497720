//! A directory below which files are read, written and removed without ever taking a link. Does I/O.
//!
//! Every path is resolved by the kernel (openat2) from one open directory: a link on the way is refused with ELOOP, `..`
//! and absolute paths with EXDEV. So whoever can write into the directory can make a call fail, never lead it elsewhere.
//! Called by the kubelet for volumes, logs and pod directories, by the runtime for what it keeps of pods.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::RACE_RETRIES;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW);

/// Whom a new file belongs to; what is `None` is the caller's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// None: the caller's.
    pub user: Option<u32>,
    /// None: the caller's.
    pub group: Option<u32>,
}

/// An open directory; paths given to its methods are relative to it and lead below it.
#[derive(Debug)]
pub struct Beneath(OwnedFd);

impl Beneath {
    /// Opens the directory itself; the path to it is trusted.
    pub fn open(dir: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Beneath(rustix::fs::open(dir.as_ref(), flags, Mode::empty())?))
    }

    /// A directory below.
    pub fn dir(&self, path: impl AsRef<Path>) -> io::Result<Beneath> {
        Ok(Beneath(self.lookup(path.as_ref(), DIRECTORY, Mode::empty(), ResolveFlags::empty())?))
    }

    /// A directory below, made with all that lead to it when missing.
    pub fn make_dirs(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<Beneath> {
        let mut at = self.dir(".")?;
        for part in path.as_ref().components() {
            let name = match part {
                Component::CurDir => continue,
                Component::Normal(name) => name,
                _ => return Err(Errno::XDEV.into()),
            };
            match rustix::fs::mkdirat(&at.0, name, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            at = at.dir(name)?;
        }
        Ok(at)
    }

    /// Makes one directory, new, with exactly this mode.
    pub fn make_dir(&self, path: impl AsRef<Path>, mode: u32) -> io::Result<Beneath> {
        let (parent, name) = self.parent(path.as_ref())?;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode))?;
        let made = Beneath(parent).dir(name)?;
        made.set_mode(mode)?;
        Ok(made)
    }

    /// A handle on whatever is there (O_PATH); a link is taken for itself.
    pub fn handle(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        let path = path.as_ref();
        // A last component that is a link may be looked at, never followed.
        let (parent, name) = self.parent(path)?;
        Beneath(parent).lookup_last(name, HANDLE, Mode::empty())
    }

    /// What stat(2) says of it; a link is taken for itself.
    pub fn stat(&self, path: impl AsRef<Path>) -> io::Result<Stat> {
        let (parent, name) = self.parent(path.as_ref())?;
        Ok(rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// A regular file for reading: devices, pipes and links that lie in its place are refused unopened.
    pub fn file(&self, path: impl AsRef<Path>) -> io::Result<std::fs::File> {
        reopen(&self.handle(path)?, OFlags::RDONLY)
    }

    /// The content of a regular file that is no longer than `limit`.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        read_at_most(&self.file(path)?, limit)
    }

    /// Makes a file that wasn't there, with exactly this mode and owner.
    pub fn write_new(&self, path: impl AsRef<Path>, data: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
        let (parent, name) = self.parent(path.as_ref())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = Beneath(parent).lookup_last(name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = std::fs::File::from(file);
        file.write_all(data)?;
        own(&file, owner)?;
        // After the owner: a change of owner takes the set-id bits away.
        Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?)
    }

    /// Writes a file that may be there: its inode stays, for who has it mounted.
    pub fn write(&self, path: impl AsRef<Path>, data: &[u8], mode: u32) -> io::Result<()> {
        let path = path.as_ref();
        let there = match self.handle(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return self.write_new(path, data, mode, Owner::default());
            }
            found => found?,
        };
        let mut file = reopen(&there, OFlags::WRONLY | OFlags::TRUNC)?;
        file.write_all(data)?;
        Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?)
    }

    /// Makes a link, which may lead anywhere: nothing here follows it. Fails when the name is taken.
    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> io::Result<()> {
        let (parent, name) = self.parent(path.as_ref())?;
        Ok(rustix::fs::symlinkat(target.as_ref(), &parent, name)?)
    }

    /// Where a link says that it leads.
    pub fn read_link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let (parent, name) = self.parent(path.as_ref())?;
        let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
        Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    /// Renames below this directory, replacing what `to` names.
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let (from, old) = self.parent(from.as_ref())?;
        let (to, new) = self.parent(to.as_ref())?;
        Ok(rustix::fs::renameat_with(&from, old, &to, new, RenameFlags::empty())?)
    }

    /// Removes a file or link; idempotent.
    pub fn unlink(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let (parent, name) = match self.parent(path.as_ref()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes a file, a link or a directory with all below it; idempotent. What is mounted below
    /// is left, and an error.
    pub fn remove_tree(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let removed = self.parent(path.as_ref()).and_then(|(parent, name)| crate::tree::remove(&parent, name));
        match removed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Sets the directory's own mode.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    /// Sets the directory's own owner.
    pub fn set_owner(&self, owner: Owner) -> io::Result<()> {
        own(&self.0, owner)
    }

    /// Names in the directory and what each was when it was read.
    pub fn entries(&self) -> io::Result<Vec<(OsString, FileType)>> {
        let mut out = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                out.push((name.to_owned(), entry.file_type()));
            }
        }
        Ok(out)
    }

    /// The directory that holds the last name of a path, and that name.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        // `..` at the end is no name.
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::XDEV.into()) };
        Ok((self.dir(parent)?.0, name))
    }

    /// Opens a name in this very directory.
    fn lookup_last(&self, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        if flags.contains(OFlags::PATH) {
            // RESOLVE_NO_SYMLINKS would refuse the handle on a link, too. The name is one component: nothing is followed.
            return Ok(rustix::fs::openat(&self.0, name, flags | OFlags::CLOEXEC, mode)?);
        }
        self.lookup(Path::new(name), flags, mode, ResolveFlags::empty())
    }

    fn lookup(&self, path: &Path, flags: OFlags, mode: Mode, more: ResolveFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | more;
        for _ in 0..RACE_RETRIES {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => continue,
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

impl From<OwnedFd> for Beneath {
    fn from(dir: OwnedFd) -> Self {
        Beneath(dir)
    }
}

impl AsFd for Beneath {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A regular file whose directory's path is trusted, but not the name in it.
pub fn open_regular(path: impl AsRef<Path>) -> io::Result<std::fs::File> {
    let path = path.as_ref();
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::ISDIR.into()) };
    Beneath::open(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })?.file(name)
}

/// Removes whatever a name is of, with all below it, where the path of its directory is trusted; idempotent.
pub fn remove_tree(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
    match Beneath::open(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        dir => dir?.remove_tree(name),
    }
}

/// The content of such a file, if it is no longer than `limit`.
pub fn read_regular(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    read_at_most(&open_regular(path)?, limit)
}

fn read_at_most(file: &std::fs::File, limit: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut data)?;
    if data.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(data)
}

/// Opens the regular file behind a handle, whatever its name has become since.
fn reopen(handle: &OwnedFd, flags: OFlags) -> io::Result<std::fs::File> {
    match FileType::from_raw_mode(rustix::fs::fstat(handle)?.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(Errno::LOOP.into()),
        _ => return Err(io::Error::other("not a regular file")),
    }
    let again = format!("/proc/self/fd/{}", handle.as_raw_fd());
    Ok(rustix::fs::open(again, flags | OFlags::CLOEXEC, Mode::empty())?.into())
}

fn own(file: impl AsFd, owner: Owner) -> io::Result<()> {
    if owner == Owner::default() {
        return Ok(());
    }
    Ok(rustix::fs::fchown(file, owner.user.map(Uid::from_raw), owner.group.map(Gid::from_raw))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    pub(in super::super) fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("beneath-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("in")).unwrap();
        std::fs::create_dir_all(dir.join("out")).unwrap();
        std::fs::write(dir.join("out/secret"), "s").unwrap();
        dir
    }

    #[test]
    fn nothing_is_done_through_a_link_or_above_the_directory() {
        let dir = scratch("links");
        let at = Beneath::open(dir.join("in")).unwrap();
        symlink("../out", dir.join("in/l")).unwrap();
        symlink("../out/secret", dir.join("in/f")).unwrap();
        let none = Owner::default();
        for path in ["l/new", "../out/new", "../new", ".."] {
            assert!(at.write_new(path, b"x", 0o644, none).is_err(), "{path}");
            assert!(at.make_dir(path, 0o755).is_err() && at.symlink("x", path).is_err(), "{path}");
            assert!(at.rename("f", path).is_err() && at.unlink(path).is_err() | (path == "l/new"), "{path}");
        }
        let there = dir.join("out/secret");
        for path in ["l/secret", "../out/secret", there.to_str().unwrap(), "f"] {
            assert!(at.file(path).is_err(), "{path}");
        }
        assert!(at.dir("l").is_err() && at.make_dirs("l/x", 0o755).is_err());
        assert!(at.write_new("f", b"x", 0o644, none).is_err(), "a link is no place for a new file");
        assert_eq!(std::fs::read_dir(dir.join("out")).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(dir.join("out/secret")).unwrap(), "s");
        at.remove_tree("l").unwrap();
        at.unlink("f").unwrap();
        assert!(at.entries().unwrap().is_empty() && dir.join("out/secret").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let dir = scratch("regular");
        let at = Beneath::open(dir.join("in")).unwrap();
        rustix::fs::mkfifoat(&at.0, "pipe", Mode::from_raw_mode(0o600)).unwrap();
        assert!(at.read("pipe", 10).is_err(), "a pipe would hold its reader for ever");
        at.write_new("d", b"1234", 0o640, Owner::default()).unwrap();
        assert_eq!(at.read("d", 4).unwrap(), b"1234");
        assert_eq!(at.read("d", 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(at.stat("d").unwrap().st_mode & 0o7777, 0o640);
        at.write("d", b"56", 0o644).unwrap();
        at.write("n", b"7", 0o600).unwrap();
        assert_eq!((at.read("d", 9).unwrap(), at.read("n", 9).unwrap()), (b"56".to_vec(), b"7".to_vec()));
        symlink("d", dir.join("in/l")).unwrap();
        assert!(at.write("l", b"x", 0o644).is_err() && at.write("pipe", b"x", 0o644).is_err());
        assert!(read_regular(dir.join("in/l"), 10).is_err());
        assert_eq!(read_regular(dir.join("in/d"), 10).unwrap(), b"56");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
