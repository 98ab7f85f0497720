//! What a tree below a directory that strangers fill takes on disk. Does I/O. ([`crate::tree`] removes such trees.)
//!
//! A tree may be as wide and as deep as its file system holds inodes, far deeper than any path is long. The walk goes by
//! descriptor, holds a bounded number of them, does not recurse, takes no link and enters no other mount.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Beneath;

/// Directories that one walk holds open at once: each is a descriptor, and many walks may run.
const OPEN_AT_ONCE: usize = 64;
/// Directories that wait because they lie more than [`OPEN_AT_ONCE`] levels below where the walk is. What is beyond is
/// not measured: it bounds the memory of a walk through a tree that was built against it.
const WAITING: usize = 100_000;
/// Deeper levels are not measured: opening them again costs the square of the depth. No path of a program is this long.
const MEASURED_LEVELS: usize = 32_768;
/// The kernel takes no longer path at once.
const PATH_CHUNK: usize = 4000;

/// A directory to come back to: its name and those above it.
struct Waiting {
    above: Option<Rc<Waiting>>,
    name: CString,
    level: usize,
}

impl Beneath {
    /// Bytes on disk and inodes below. What vanishes meanwhile counts nothing.
    pub fn usage(&self) -> (u64, u64) {
        let mut sum = (0u64, 0u64);
        let mut waiting: Vec<Rc<Waiting>> = Vec::new();
        let mut from: Option<Rc<Waiting>> = None;
        loop {
            self.measure(from.as_ref(), &mut sum, &mut waiting);
            let Some(next) = waiting.pop() else { return sum };
            from = Some(next);
        }
    }

    /// Adds what lies at most [`OPEN_AT_ONCE`] levels below a place.
    fn measure(&self, from: Option<&Rc<Waiting>>, sum: &mut (u64, u64), waiting: &mut Vec<Rc<Waiting>>) {
        let base = from.map_or(0, |f| f.level);
        let Ok(start) = self.reopen(from) else { return };
        let mut names: Vec<Rc<Waiting>> = Vec::new();
        let mut open = vec![start];
        loop {
            let level = open.len();
            let Some(dir) = open.last_mut() else { return };
            let Some(entry) = dir.read() else {
                open.pop();
                names.pop();
                continue;
            };
            let Ok(entry) = entry else { continue };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(here) = dir.fd() else { continue };
            let Ok(stat) = rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            *sum = (sum.0.saturating_add((stat.st_blocks as u64).saturating_mul(512)), sum.1 + 1);
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || base + level >= MEASURED_LEVELS {
                continue;
            }
            let above = names.last().or(from).cloned();
            let place = Rc::new(Waiting { above, name: name.to_owned(), level: base + level });
            if level == OPEN_AT_ONCE {
                if waiting.len() < WAITING {
                    waiting.push(place);
                }
            } else if let Ok(below) = enter(here, name).and_then(Dir::new) {
                open.push(below);
                names.push(place);
            }
        }
    }

    fn reopen(&self, place: Option<&Rc<Waiting>>) -> io::Result<Dir> {
        let mut parts: Vec<&CString> = Vec::new();
        let mut at = place;
        while let Some(waiting) = at {
            parts.push(&waiting.name);
            at = waiting.above.as_ref();
        }
        let mut dir = self.dir(".")?;
        let mut path = PathBuf::new();
        for name in parts.into_iter().rev() {
            path.push(OsStr::from_bytes(name.to_bytes()));
            if path.as_os_str().len() > PATH_CHUNK - 256 {
                dir = dir.dir(&path)?;
                path.clear();
            }
        }
        Ok(Dir::read_from(dir.dir(&path)?)?)
    }
}

/// A directory in an open one, on the same mount and not through a link.
fn enter(dir: impl std::os::fd::AsFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    for _ in 0..super::RACE_RETRIES {
        match rustix::fs::openat2(&dir, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => continue,
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(test)]
mod tests {
    use super::super::beneath::Owner;
    use super::*;
    use std::fs;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("walk-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("tree")).unwrap();
        dir
    }

    /// A chain of directories, each made in the one before.
    fn chain(at: &Beneath, levels: usize) {
        let mut dir = at.dir(".").unwrap();
        for _ in 0..levels {
            dir = dir.make_dir("d", 0o755).unwrap();
        }
        dir.write_new("deepest", &[1; 100_000], 0o644, Owner::default()).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_measured_and_removed() {
        let dir = scratch("deep");
        let at = Beneath::open(&dir).unwrap();
        let levels = 2500;
        chain(&at.dir("tree").unwrap(), levels);
        let (bytes, inodes) = at.usage();
        assert_eq!(inodes, levels as u64 + 2);
        assert!(bytes >= 100_000, "the file at the bottom counts: {bytes}");
        at.remove_tree("tree").unwrap();
        at.remove_tree("tree").unwrap();
        assert!(at.entries().unwrap().is_empty());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn neither_links_nor_mounts_lead_a_walk_out() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let dir = scratch("out");
        let at = Beneath::open(&dir).unwrap();
        fs::create_dir_all(dir.join("other")).unwrap();
        fs::write(dir.join("other/kept"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(dir.join("other"), dir.join("tree/link")).unwrap();
        let point = dir.join("tree/point");
        fs::create_dir_all(&point).unwrap();
        let tree = crate::mount::clone_tree(dir.join("other"), false).unwrap();
        crate::mount::attach(tree, at.handle("tree/point").unwrap()).unwrap();
        let (bytes, inodes) = at.dir("tree").unwrap().usage();
        assert!(bytes < 1 << 20 && inodes == 2, "{bytes} {inodes}");
        assert!(at.remove_tree("tree").is_err(), "what is mounted is not emptied");
        crate::mount::detach(&point).unwrap();
        at.remove_tree("tree").unwrap();
        assert_eq!(fs::read(dir.join("other/kept")).unwrap().len(), 1 << 20);
        fs::remove_dir_all(dir).unwrap();
    }
}
