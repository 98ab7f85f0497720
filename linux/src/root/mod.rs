//! A directory that paths can't leave: every lookup is resolved by the kernel as if it were `/`. Does I/O.
//!
//! Container root file systems, unpacked layers and volumes hold links made by strangers. [`Root`] takes such links as
//! the container would, inside of the directory: for the container init and the layer unpacker. [`Beneath`] takes none:
//! for whoever reads, writes or removes files of its own below a directory that a pod can reach.

mod beneath;
mod walk;

pub use beneath::{Beneath, Owner, open_regular, read_regular, remove_tree};

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Lookups that race with renames answer EAGAIN; more than this many in a row is an attack, not bad luck.
const RACE_RETRIES: usize = 64;

/// An open directory that is the root of all lookups made through it.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens the directory itself; the path to it is trusted.
    pub fn open(dir: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root(rustix::fs::open(dir.as_ref(), flags, Mode::empty())?))
    }

    /// Opens a path; links stay inside and `..` stops at the root, as after chroot. No magic links.
    pub fn get(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
        self.lookup(path.as_ref(), flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Like [`Root::get`], but any link on the way is refused with ELOOP.
    pub fn get_plain(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
        self.lookup(path.as_ref(), flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
    }

    /// Opens with O_CREAT.
    pub fn create(&self, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        self.lookup(path.as_ref(), flags | OFlags::CREATE, mode, resolve)
    }

    /// Makes all missing directories of the path (following links inside) and opens the last as a path handle. Those
    /// that it makes have the mode as it is given, whatever the umask.
    pub fn make_dirs(&self, path: impl AsRef<Path>, mode: Mode) -> io::Result<OwnedFd> {
        let handle = OFlags::PATH | OFlags::DIRECTORY;
        let mut so_far = PathBuf::new();
        let mut at = self.get(".", handle)?;
        for name in names(path.as_ref()) {
            so_far.push(name);
            at = match self.get(&so_far, handle) {
                Ok(dir) => dir,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    match rustix::fs::mkdirat(&at, name, mode) {
                        Ok(()) => {
                            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                            let made = rustix::fs::openat(&at, name, flags, Mode::empty())?;
                            rustix::fs::fchmod(&made, mode)?;
                        }
                        Err(Errno::EXIST) => {}
                        Err(e) => return Err(e.into()),
                    }
                    self.get(&so_far, handle)?
                }
                Err(e) => return Err(e),
            };
        }
        Ok(at)
    }

    /// Opens a mount target, made when missing: a directory, or an empty file.
    pub(crate) fn make_target(&self, path: impl AsRef<Path>, dir: bool) -> io::Result<OwnedFd> {
        let path = path.as_ref();
        if dir {
            return self.make_dirs(path, Mode::from_raw_mode(0o755));
        }
        match self.get(path, OFlags::PATH) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        if let Some(parent) = path.parent() {
            self.make_dirs(parent, Mode::from_raw_mode(0o755))?;
        }
        drop(self.create(path, OFlags::WRONLY, Mode::from_raw_mode(0o644))?);
        self.get(path, OFlags::PATH)
    }

    fn lookup(&self, path: &Path, flags: OFlags, mode: Mode, resolve: ResolveFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 0..RACE_RETRIES {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => continue,
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The plain names of a path: `/a/./b/../c` gives a, c. What `..` means behind a link is left to the kernel's root.
fn names(path: &Path) -> Vec<&OsStr> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) if !name.as_bytes().is_empty() => names.push(name),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_never_lead_out_of_the_root() {
        let dir = std::env::temp_dir().join(format!("root-test-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("in/etc")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("in/abs")).unwrap();
        std::os::unix::fs::symlink("../../../../..", dir.join("in/up")).unwrap();
        let root = Root::open(dir.join("in")).unwrap();

        drop(root.make_target("abs/file", false).unwrap());
        assert!(dir.join("in/etc/file").exists(), "an absolute link is taken inside the root");
        drop(root.make_dirs("up/x/y", Mode::from_raw_mode(0o755)).unwrap());
        assert!(dir.join("in/x/y").is_dir(), "a link upwards stops at the root");
        assert_eq!(root.get_plain("abs/file", OFlags::RDONLY).unwrap_err().raw_os_error(), Some(40));
        assert!(root.get("proc/self", OFlags::PATH).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
