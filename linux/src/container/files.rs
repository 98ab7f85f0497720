//! The container's file tree, built from inside its mount namespace. Does I/O.
//!
//! The root is entered first and everything else is attached afterwards, so no path of the image or of a volume can
//! lead to the host. Sources were opened before (`Trees`); targets are opened once and mounted by descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::init::{Trees, attributes_of};
use super::spec::{Bind, BindSource, DeviceNode, Rootfs, Spec};
use crate::failure::{Doing, Failure};
use crate::mount::{self, Attributes, Propagation};
use crate::namespaces;
use crate::root::Root;

const HARDENED: Attributes = Attributes { readonly: false, nosuid: true, nodev: true, noexec: true, noatime: false };
const DEVICE_FS: Attributes = Attributes { readonly: false, nosuid: true, nodev: false, noexec: false, noatime: false };

/// The devices every container has: name, minor of major 1 or 5.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Standard links in /dev.
const LINKS: [(&str, &str); 5] = [
    ("pts/ptmx", "ptmx"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// Mounts the root, enters it and furnishes it.
pub fn build_root(spec: &Spec, trees: Trees) -> Result<(), Failure> {
    let images = image_trees(spec)?;
    let rootfs = &spec.rootfs;
    mount_root(rootfs).doing("mount the root file system")?;
    std::env::set_current_dir(&rootfs.target).doing("enter the root file system")?;
    mount::pivot_here().doing("make it the root")?;
    let root = Root::open("/").doing("open the root")?;
    mount_system(&root, spec, trees.proc, trees.shm)?;
    for ((bind, tree), image) in spec.binds.iter().zip(trees.binds).zip(images) {
        attach_bind(&root, bind, tree.or(image))?;
    }
    for device in &spec.devices {
        make_device(&root, device)?;
    }
    // It may lie in a volume, so it is made when those are there.
    make_cwd(&root, &spec.program.cwd)?;
    spec.readonly_paths.iter().try_for_each(|path| make_readonly(&root, path))?;
    spec.masked_paths.iter().try_for_each(|path| mask(&root, path))?;
    if rootfs.readonly {
        let readonly = Attributes { readonly: true, ..Attributes::default() };
        mount::set_attributes(&root, readonly, false).doing("make the root file system read-only")?;
    }
    Ok(())
}

/// overlayfs wants something below: of an image without layers, the writable layer is all that there is.
fn mount_root(rootfs: &Rootfs) -> io::Result<()> {
    if rootfs.lower.is_empty() {
        let upper = rustix::fs::open(&rootfs.upper, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let target = rustix::fs::open(&rootfs.target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        return mount::attach(mount::clone_tree_at(&upper, false)?, target);
    }
    mount::overlay(&rootfs.layers_dir, &rootfs.lower, Some((&rootfs.upper, &rootfs.work)), &rootfs.target)
}

/// Image volumes are mounted on the container's empty mount point in turn and taken off again as detached mounts.
fn image_trees(spec: &Spec) -> Result<Vec<Option<OwnedFd>>, Failure> {
    let tree = |bind: &Bind| {
        let BindSource::Image { layers, sub_path } = &bind.source else { return Ok(None) };
        let doing = || format!("mount the image volume at {}", bind.target);
        let base = &spec.rootfs.layers_dir;
        let target = &spec.rootfs.target;
        if let [only] = layers.as_slice() {
            let dir = Root::open(base.join(only)).doing(doing())?;
            return open_sub_path(&dir, sub_path, &doing()).map(Some);
        }
        if layers.is_empty() {
            mount::mount("tmpfs", target, "mode=0755", Attributes { readonly: true, ..HARDENED }).doing(doing())?;
        } else {
            mount::overlay(base, layers, None, target).doing(doing())?;
        }
        let dir = Root::open(target).doing(doing())?;
        let tree = open_sub_path(&dir, sub_path, &doing());
        mount::detach(target).doing(doing())?;
        tree.map(Some)
    };
    spec.binds.iter().map(tree).collect()
}

fn open_sub_path(dir: &Root, sub_path: &str, doing: &str) -> Result<OwnedFd, Failure> {
    let at = dir.get(sub_path, OFlags::PATH).doing(doing)?;
    mount::clone_tree_at(&at, false).doing(doing)
}

fn make_cwd(root: &Root, cwd: &str) -> Result<(), Failure> {
    if cwd.is_empty() || cwd == "/" {
        return Ok(());
    }
    root.make_dirs(cwd, Mode::from_raw_mode(0o755)).doing(format_args!("make the working directory {cwd}"))?;
    Ok(())
}

/// /proc, /sys, /dev and what is in them.
fn mount_system(root: &Root, spec: &Spec, proc: Option<OwnedFd>, shm: Option<OwnedFd>) -> Result<(), Failure> {
    match proc {
        Some(proc) => {
            mount::set_attributes(&proc, HARDENED, false).doing("mount /proc")?;
            mount::attach(&proc, system_target(root, "/proc")?).doing("mount /proc")?;
        }
        None => attach_new(root, "/proc", "proc", &[], HARDENED)?,
    }
    mount_dev(root, spec, shm)?;
    let sys = Attributes { readonly: !spec.writable_sysfs, ..HARDENED };
    attach_new(root, "/sys", "sysfs", &[], sys)?;
    mount_cgroups(root, spec)
}

/// The place of a system mount. A link in the way is an attack on the mount (CVE-2019-19921): refused.
fn system_target(root: &Root, path: &str) -> Result<OwnedFd, Failure> {
    let doing = || format!("mount {path}");
    root.make_dirs(path, Mode::from_raw_mode(0o755)).doing(doing())?;
    root.get_plain(path, OFlags::PATH | OFlags::DIRECTORY).doing(doing())
}

fn attach_new(
    root: &Root,
    path: &str,
    kind: &str,
    options: &[(&str, &str)],
    attributes: Attributes,
) -> Result<(), Failure> {
    let doing = || format!("mount {path}");
    let target = system_target(root, path)?;
    let made = mount::new_fs(kind, options, attributes).doing(doing())?;
    mount::attach(&made, &target).doing(doing())
}

fn mount_dev(root: &Root, spec: &Spec, shm: Option<OwnedFd>) -> Result<(), Failure> {
    attach_new(root, "/dev", "tmpfs", &[("mode", "755"), ("size", "65536k")], DEVICE_FS)?;
    let dev = root.get_plain("/dev", OFlags::PATH | OFlags::DIRECTORY).doing("open /dev")?;
    for (name, major, minor) in DEVICES {
        let node = DeviceNode { path: format!("/dev/{name}"), kind: 'c', major, minor, mode: 0o666, uid: 0, gid: 0 };
        make_device(root, &node)?;
    }
    for (to, name) in LINKS {
        rustix::fs::symlinkat(to, &dev, name).doing(format_args!("make /dev/{name}"))?;
    }
    let pts = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let no_exec = Attributes { noexec: true, ..DEVICE_FS };
    attach_new(root, "/dev/pts", "devpts", &pts, no_exec)?;
    attach_new(root, "/dev/mqueue", "mqueue", &[], HARDENED)?;
    rustix::fs::mkdirat(&dev, "shm", Mode::from_raw_mode(0o1777)).doing("make /dev/shm")?;
    if let Some(shm) = shm {
        let target = root.get_plain("/dev/shm", OFlags::PATH | OFlags::DIRECTORY).doing("open /dev/shm")?;
        mount::attach(&shm, &target).doing("mount /dev/shm")?;
    }
    if spec.program.terminal {
        drop(root.create("/dev/console", OFlags::WRONLY, Mode::from_raw_mode(0o600)).doing("make /dev/console")?);
    }
    Ok(())
}

fn mount_cgroups(root: &Root, spec: &Spec) -> Result<(), Failure> {
    let view = &spec.cgroup;
    let attributes = Attributes { readonly: !view.writable, ..HARDENED };
    if view.v2 {
        return attach_new(root, "/sys/fs/cgroup", "cgroup2", &[], attributes);
    }
    if view.v1.is_empty() {
        return Ok(());
    }
    attach_new(root, "/sys/fs/cgroup", "tmpfs", &[("mode", "755"), ("size", "1m")], HARDENED)?;
    for (name, options) in &view.v1 {
        let path = format!("/sys/fs/cgroup/{name}");
        let keys: Vec<(&str, &str)> = options.split(',').map(|o| o.split_once('=').unwrap_or((o, ""))).collect();
        attach_new(root, &path, "cgroup", &keys, attributes)?;
        if name.contains(',') {
            let dir = root.get_plain("/sys/fs/cgroup", OFlags::PATH | OFlags::DIRECTORY).doing("open cgroups")?;
            for alias in name.split(',') {
                let _ = rustix::fs::symlinkat(name.as_str(), &dir, alias);
            }
        }
    }
    let top = root.get_plain("/sys/fs/cgroup", OFlags::PATH | OFlags::DIRECTORY).doing("open cgroups")?;
    mount::set_attributes(&top, attributes, false).doing("make /sys/fs/cgroup read-only")
}

/// Mounts one bind. `/proc` may only be covered by itself whole, never in part: a fake `/proc/self` would mislead the
/// checks made through it (CVE-2019-16884).
fn attach_bind(root: &Root, bind: &Bind, tree: Option<OwnedFd>) -> Result<(), Failure> {
    let doing = || format!("mount {}", bind.target);
    let tree = match (&bind.source, tree) {
        (_, Some(tree)) => tree,
        (BindSource::Tmpfs(options), None) => {
            let keys: Vec<(&str, &str)> =
                options.split(',').filter(|o| !o.is_empty()).map(|o| o.split_once('=').unwrap_or((o, ""))).collect();
            mount::new_fs("tmpfs", &keys, attributes_of(bind)).doing(doing())?
        }
        _ => return Err(Failure::new(doing(), "its source was not opened")),
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&tree).doing(doing())?.st_mode);
    let target = root.make_target(&bind.target, kind == FileType::Directory).doing(doing())?;
    refuse_proc(&bind.target, &target, &tree)?;
    match bind.propagation {
        Propagation::Shared => {}
        other => mount::set_propagation(&tree, other).doing(doing())?,
    }
    mount::set_attributes(&tree, attributes_of(bind), bind.recursive_readonly).doing(doing())?;
    mount::attach(&tree, &target).doing(doing())
}

fn refuse_proc(path: &str, target: &OwnedFd, tree: &OwnedFd) -> Result<(), Failure> {
    let is_proc = |fd: &OwnedFd| rustix::fs::fstatfs(fd).is_ok_and(|fs| fs.f_type as u64 == namespaces::PROC_MAGIC);
    if is_proc(target) && !is_proc(tree) {
        return Err(Failure::new(format_args!("mount {path}"), "it lies inside /proc, which may not be covered"));
    }
    Ok(())
}

fn make_device(root: &Root, device: &DeviceNode) -> Result<(), Failure> {
    let doing = || format!("make device {}", device.path);
    let path = Path::new(&device.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::new(doing(), "not a path of a file"));
    };
    let dir = root.make_dirs(parent, Mode::from_raw_mode(0o755)).doing(doing())?;
    let kind = if device.kind == 'b' { FileType::BlockDevice } else { FileType::CharacterDevice };
    let number = rustix::fs::makedev(device.major, device.minor);
    match rustix::fs::mknodat(&dir, name, kind, Mode::from_raw_mode(device.mode), number) {
        Ok(()) => {}
        // Already there from the default set.
        Err(rustix::io::Errno::EXIST) => return Ok(()),
        Err(e) => return Err(e).doing(doing()),
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).doing(doing())?;
    // The mode given to mknod is cut by the umask.
    rustix::fs::chmodat(&dir, name, Mode::from_raw_mode(device.mode), AtFlags::empty()).doing(doing())
}

/// Covers a path with a read-only copy of itself; nothing when it isn't there.
fn make_readonly(root: &Root, path: &str) -> Result<(), Failure> {
    let Some(target) = open_if_there(root, path)? else { return Ok(()) };
    let doing = || format!("make {path} read-only");
    let copy = mount::clone_tree_at(&target, true).doing(doing())?;
    let readonly = Attributes { readonly: true, ..Attributes::default() };
    mount::set_attributes(&copy, readonly, true).doing(doing())?;
    mount::attach(&copy, &target).doing(doing())
}

/// Hides a file behind /dev/null and a directory behind an empty, read-only one.
fn mask(root: &Root, path: &str) -> Result<(), Failure> {
    let Some(target) = open_if_there(root, path)? else { return Ok(()) };
    let doing = || format!("mask {path}");
    let stat = rustix::fs::fstat(&target).doing(doing())?;
    let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        mount::new_fs("tmpfs", &[("size", "4k")], Attributes { readonly: true, ..HARDENED }).doing(doing())?
    } else {
        mount::clone_tree_at(&null(root)?, false).doing(doing())?
    };
    mount::attach(&cover, &target).doing(doing())
}

/// The null device, checked to be it: an image that replaced it by a link must not choose what is mounted
/// (CVE-2025-31133).
fn null(root: &Root) -> Result<OwnedFd, Failure> {
    let null = root.get_plain("/dev/null", OFlags::PATH).doing("open /dev/null")?;
    let stat = rustix::fs::fstat(&null).doing("look at /dev/null")?;
    let right =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(1, 3);
    if right { Ok(null) } else { Err(Failure::new("open /dev/null", "it is not the null device")) }
}

fn open_if_there(root: &Root, path: &str) -> Result<Option<OwnedFd>, Failure> {
    match root.get(path, OFlags::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e).doing(format_args!("open {path}")),
    }
}

/// Puts a terminal at /dev/console; the mount is made from the open terminal, not from its path.
pub fn bind_console(slave: &OwnedFd) -> Result<(), Failure> {
    let root = Root::open("/").doing("open the root")?;
    let target = root.get_plain("/dev/console", OFlags::PATH).doing("open /dev/console")?;
    let tree = mount::clone_tree_at(slave.as_fd(), false).doing("mount /dev/console")?;
    mount::attach(&tree, &target).doing("mount /dev/console")
}
