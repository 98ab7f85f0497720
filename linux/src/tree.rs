//! Removing trees of files whose names strangers chose. Does I/O.
//!
//! Everything is done on descriptors: no link is followed, no mount is entered, whatever is exchanged under way. A tree
//! that a pod made may be deeper than a process may have open files or stack, so nothing here recurses: what is below a
//! directory is moved up beside it first. Called by [`crate::root`], for whoever takes away what containers could write
//! to.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// Names that are read before they are removed: bounds the memory for a directory of millions.
const BATCH: usize = 4096;

/// What a directory that was moved up is called until it is removed. A removal that was cut short leaves it inside the
/// tree, where the next one finds it.
const MOVED: &str = ".removed-";

/// Removes a file, link or tree by its name in an open directory.
///
/// # Errors
/// `NotFound` when there is none; `ResourceBusy` or `CrossesDevices` when something is mounted there or below: that is
/// left, and the directories that lead to it.
pub fn remove(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    let (dir, name) = (dir.as_fd(), name.as_ref());
    if name.is_empty() || name.as_bytes().contains(&b'/') || name == "." || name == ".." {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a name", name.display())));
    }
    let name = CString::new(name.as_bytes())?;
    if plain(dir, &name)? {
        return Ok(());
    }
    let root = open(dir, &name)?;
    let mut moved = 0u64;
    loop {
        let batch = names(&root)?;
        if batch.is_empty() {
            break;
        }
        for entry in batch {
            if !plain(root.as_fd(), &entry)? {
                flatten(&root, &entry, &mut moved)?;
                unlink(root.as_fd(), &entry, AtFlags::REMOVEDIR)?;
            }
        }
    }
    unlink(dir, &name, AtFlags::REMOVEDIR)
}

/// Removes what needs no look inside: anything but a directory, or an empty one. False: a directory that holds something.
fn plain(dir: impl AsFd, name: &CString) -> io::Result<bool> {
    match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) => return Ok(true),
        // Linux says the first for a directory, POSIX the second.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    match rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        // It was no directory: the first refusal was meant.
        Err(Errno::NOTDIR) => Err(Errno::PERM.into()),
        Err(e) => Err(e.into()),
    }
}

/// Empties a directory of `root`: directories in it that hold something become directories of `root`.
fn flatten(root: &OwnedFd, name: &CString, moved: &mut u64) -> io::Result<()> {
    let dir = open(root.as_fd(), name)?;
    loop {
        let batch = names(&dir)?;
        if batch.is_empty() {
            return Ok(());
        }
        for entry in batch {
            if !plain(dir.as_fd(), &entry)? {
                move_up(&dir, &entry, root, moved)?;
            }
        }
    }
}

fn move_up(dir: &OwnedFd, name: &CString, root: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let free = CString::new(format!("{MOVED}{moved}"))?;
        match rustix::fs::renameat_with(dir, name, root, &free, RenameFlags::NOREPLACE) {
            // Left by a removal that was cut short: it is in the way of its number only.
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
    }
}

fn unlink(dir: impl AsFd, name: &CString, flags: AtFlags) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name, flags)?)
}

/// Opens a directory by its name in another; neither a link nor a mount.
fn open(dir: impl AsFd, name: &CString) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(&dir, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// The next names of a directory, at most [`BATCH`].
fn names(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;
    use crate::root::remove_tree;

    fn place(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("tree-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_link_is_removed_and_what_it_leads_to_stays() {
        let dir = place("links");
        fs::create_dir_all(dir.join("kept/inner")).unwrap();
        fs::write(dir.join("kept/inner/file"), "thesis").unwrap();
        fs::create_dir_all(dir.join("gone/a/b")).unwrap();
        symlink(dir.join("kept"), dir.join("gone/a/b/link")).unwrap();
        symlink("../kept", dir.join("gone/up")).unwrap();
        symlink(dir.join("kept"), dir.join("itself")).unwrap();
        remove_tree(dir.join("gone")).unwrap();
        remove_tree(dir.join("itself")).unwrap();
        assert!(!dir.join("gone").exists() && fs::symlink_metadata(dir.join("itself")).is_err());
        assert_eq!(fs::read_to_string(dir.join("kept/inner/file")).unwrap(), "thesis");
        fs::remove_dir_all(dir).unwrap();
    }

    /// A pod can make one: removal by recursion runs out of descriptors, and its volume could never be removed.
    #[test]
    fn a_tree_deeper_than_the_descriptor_limit_goes() {
        let dir = place("deep");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = rustix::fs::open(&dir, flags, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&at, "beside", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "deeper", flags, Mode::empty()).unwrap();
        }
        drop(at);
        remove_tree(&dir).unwrap();
        assert!(!dir.exists());
        remove_tree(&dir).unwrap();
    }

    #[test]
    fn a_removal_that_was_cut_short_is_taken_up() {
        let dir = place("half");
        for name in ["a/b/c", ".removed-1/x/y/z", ".removed-2"] {
            fs::create_dir_all(dir.join("tree").join(name)).unwrap();
        }
        fs::write(dir.join("tree/a/b/file"), "x").unwrap();
        remove_tree(dir.join("tree")).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        for name in ["..", ".", "a/b", ""] {
            assert_eq!(remove(fs::File::open(&dir).unwrap(), name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        fs::remove_dir(dir).unwrap();
    }
}
