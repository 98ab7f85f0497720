//! Mounts made by file descriptor: clone a tree, set its attributes, attach it to an open target. Does I/O.
//!
//! A path is looked up once, so nobody can swap it between check and use. Called by the container init and by the
//! sandbox code. Needs Linux 5.12 (mount_setattr).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

/// What a mount allows; a bit that is set here is set on the mount, none is ever cleared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Nothing is written through this mount; through another one it may be.
    pub readonly: bool,
    /// Set-user-ID bits and file capabilities count for nothing.
    pub nosuid: bool,
    /// Device nodes can't be opened.
    pub nodev: bool,
    /// Programs can't be run from it.
    pub noexec: bool,
    /// Reading leaves no time of access behind.
    pub noatime: bool,
}

/// How mounts made later on one side show on the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Propagation {
    /// Neither side sees the other's.
    #[default]
    Private,
    /// The copy sees the original's.
    Slave,
    /// Both see each other's.
    Shared,
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

impl Attributes {
    fn bits(self) -> u64 {
        let mut bits = 0;
        for (on, bit) in [
            (self.readonly, libc::MOUNT_ATTR_RDONLY),
            (self.nosuid, libc::MOUNT_ATTR_NOSUID),
            (self.nodev, libc::MOUNT_ATTR_NODEV),
            (self.noexec, libc::MOUNT_ATTR_NOEXEC),
            (self.noatime, libc::MOUNT_ATTR_NOATIME),
        ] {
            bits |= if on { bit } else { 0 };
        }
        bits
    }
}

/// A detached copy of the mount tree at a path (links are followed: the path is trusted). It lives as long as the
/// descriptor, or until it is attached.
pub(crate) fn clone_tree(path: impl AsRef<Path>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(rustix::mount::open_tree(rustix::fs::CWD, path.as_ref(), flags)?)
}

/// A detached copy of the mount tree below an open file or directory.
pub fn clone_tree_at(file: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(rustix::mount::open_tree(file, c"", flags)?)
}

/// Sets attributes on a mount (open at its root), and on all below it when `recursive`.
pub(crate) fn set_attributes(mount: impl AsFd, attributes: Attributes, recursive: bool) -> io::Result<()> {
    mount_setattr(mount.as_fd(), attributes.bits(), 0, recursive)
}

/// Sets the propagation of a mount and of all below it.
pub(crate) fn set_propagation(mount: impl AsFd, propagation: Propagation) -> io::Result<()> {
    let kind = match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
    };
    mount_setattr(mount.as_fd(), 0, kind, true)
}

fn mount_setattr(mount: BorrowedFd<'_>, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { set, clear: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, the structure lives through the call and its size is passed.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches a detached mount onto an open target. The target is the object behind the descriptor, whatever its path
/// has become since.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}

/// A new file system as a detached mount: `("tmpfs", [("mode", "755"), ("size", "64m")])`. An empty value is a flag.
pub fn new_fs(kind: &str, options: &[(&str, &str)], attributes: Attributes) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&fs, *key)?;
        } else {
            rustix::mount::fsconfig_set_string(&fs, *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(&fs)?;
    let bits = MountAttrFlags::from_bits_retain(attributes.bits() as u32);
    Ok(rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, bits)?)
}

/// Mounts overlayfs at `target` from directories named relative to `base`, lowest layer last. Relative names keep the
/// option string within the one page that mount(2) takes, whatever the number of layers.
/// The working directory of the process changes: only for processes that set up one container.
pub fn overlay(base: &Path, lower: &[String], writable: Option<(&Path, &Path)>, target: &Path) -> io::Result<()> {
    std::env::set_current_dir(base)?;
    let mut options = format!("lowerdir={}", lower.join(":"));
    if let Some((upper, work)) = writable {
        // The writable layer dies with its container, so nothing of it must survive a power cut: "volatile" spares the
        // flush of the whole disk that an unmount costs otherwise.
        options += &format!(",upperdir={},workdir={},volatile", upper.display(), work.display());
    }
    let data = CString::new(options).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let flags = if writable.is_some() { MountFlags::empty() } else { MountFlags::RDONLY };
    rustix::mount::mount("overlay", target, "overlay", flags, data.as_c_str())?;
    Ok(())
}

/// Mounts a file system at a path on the host.
pub fn mount(kind: &str, target: &Path, options: &str, attributes: Attributes) -> io::Result<()> {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, attributes.readonly);
    flags.set(MountFlags::NOSUID, attributes.nosuid);
    flags.set(MountFlags::NODEV, attributes.nodev);
    flags.set(MountFlags::NOEXEC, attributes.noexec);
    let data = CString::new(options).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    rustix::mount::mount(kind, target, kind, flags, data.as_c_str())?;
    Ok(())
}

/// Makes the whole tree of the calling process's mount namespace private, so that nothing done here shows outside.
pub fn make_private() -> io::Result<()> {
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// Makes the working directory, a mount point, the root of the mount namespace and lets go of the old root.
pub fn pivot_here() -> io::Result<()> {
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Unmounts at once; idempotent.
pub fn detach(path: impl AsRef<Path>) -> io::Result<()> {
    match rustix::mount::unmount(path.as_ref(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
