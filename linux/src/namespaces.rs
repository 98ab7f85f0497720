//! Namespaces that outlive processes, and entering those of others. Does I/O.
//!
//! A pod's network, IPC and host name live as files that are bound to the namespaces: no pause process holds them.
//! Called by the sandbox code of the runtime (make, remove) and by the container init (enter). Network namespaces
//! alone are in `netns`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use crate::failure::{Doing, Failure};

/// The magic number of the file system that namespace files live on (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// The magic number of proc.
pub(crate) const PROC_MAGIC: u64 = 0x9fa0;

/// Beside the pin of a PID namespace: its /proc, which only a process in there could mount.
pub const PROC: &str = "proc";

/// A kind of namespace that can be held by a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Interfaces, addresses, routes, sockets' ports, nftables (network_namespaces(7)).
    Net,
    /// System V IPC and POSIX message queues (ipc_namespaces(7)).
    Ipc,
    /// The host's name (uts_namespaces(7)).
    Uts,
    /// Numbers of processes (pid_namespaces(7)).
    Pid,
}

impl Kind {
    /// The name in `/proc/PID/ns`, which is also the file name of the pin.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Net => "net",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::Pid => "pid",
        }
    }

    fn unshare_flag(self) -> UnshareFlags {
        match self {
            Kind::Net => UnshareFlags::NEWNET,
            Kind::Ipc => UnshareFlags::NEWIPC,
            Kind::Uts => UnshareFlags::NEWUTS,
            Kind::Pid => UnshareFlags::NEWPID,
        }
    }

    fn enter_flag(self) -> ThreadNameSpaceType {
        match self {
            Kind::Net => ThreadNameSpaceType::NETWORK,
            Kind::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
            Kind::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
            Kind::Pid => ThreadNameSpaceType::PROCESS_ID,
        }
    }
}

/// Makes new namespaces of the given kinds, runs `setup` inside them (host name, sysctls), and pins each as
/// `dir/net`, `dir/ipc`, ... Nothing stays when it fails.
pub fn pin(dir: &Path, kinds: &[Kind], setup: impl FnOnce() -> Result<(), Failure> + Send) -> Result<(), Failure> {
    let made = std::thread::scope(|scope| {
        let worker = || {
            let flags = kinds.iter().fold(UnshareFlags::empty(), |all, kind| all | kind.unshare_flag());
            // SAFETY: none of the kinds changes memory, descriptors or the file system view; the thread ends here.
            unsafe { rustix::thread::unshare_unsafe(flags) }.doing("make the pod's namespaces")?;
            setup()?;
            for kind in kinds {
                bind(&format!("/proc/thread-self/ns/{}", kind.name()), &dir.join(kind.name()))?;
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("namespaces".into()).spawn_scoped(scope, worker);
        thread.doing("start a thread")?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if made.is_err() {
        for kind in kinds {
            let _ = unpin(&dir.join(kind.name()));
        }
    }
    made
}

/// Pins a namespace of a live process.
pub fn pin_of(pid: i32, kind: Kind, path: &Path) -> Result<(), Failure> {
    bind(&format!("/proc/{pid}/ns/{}", kind.name()), path)
}

fn bind(source: &str, path: &Path) -> Result<(), Failure> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .doing(format_args!("make {}", path.display()))?;
    rustix::mount::mount_bind(source, path).doing(format_args!("pin {source} as {}", path.display()))
}

/// Pins a file system that was mounted detached, on a directory that is made for it.
pub fn pin_tree(tree: impl AsFd, dir: &Path) -> Result<(), Failure> {
    let doing = || format!("pin a file system as {}", dir.display());
    std::fs::create_dir_all(dir).doing(doing())?;
    let target = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    crate::mount::attach(tree, target.doing(doing())?).doing(doing())
}

/// Undoes a pin; idempotent.
pub fn unpin(path: &Path) -> io::Result<()> {
    crate::mount::detach(path)?;
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether the file is bound to a namespace (it isn't after a reboot).
pub fn is_pinned(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type as u64 == NSFS_MAGIC)
}

/// Whether the /proc of a PID namespace is pinned there.
pub fn is_proc(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type as u64 == PROC_MAGIC)
}

/// Opens a pinned namespace, and nothing else.
pub fn open(path: &Path) -> Result<OwnedFd, Failure> {
    let doing = format!("open namespace {}", path.display());
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(&doing)?;
    let fs = rustix::fs::fstatfs(&fd).doing(&doing)?;
    if fs.f_type as u64 != NSFS_MAGIC {
        return Err(Failure::new(doing, "not a namespace"));
    }
    Ok(fd)
}

/// Moves the calling thread into a namespace; for PID namespaces, its future children.
pub fn enter(namespace: impl AsFd, kind: Kind) -> Result<(), Failure> {
    rustix::thread::move_into_thread_name_spaces(namespace.as_fd(), kind.enter_flag())
        .doing(format_args!("enter the {} namespace", kind.name()))
}

/// Moves the calling, single-threaded process into all namespaces of a process but its PID namespace (whose turn is at
/// fork) and its user namespace.
pub(crate) fn enter_all_of(pidfd: impl AsFd) -> Result<(), Failure> {
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::NETWORK;
    rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), all).doing("enter the container's namespaces")
}

/// Runs `look` in the mount namespace of a process, whose root is the root there, and comes back.
///
/// # Errors
/// What `look` answers, or why the calling, single-threaded process could not go there. One that can't come back must
/// not go on.
pub(crate) fn among_mounts_of<T>(pidfd: impl AsFd, look: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let enter =
        |namespace: BorrowedFd<'_>| rustix::thread::move_into_thread_name_spaces(namespace, ThreadNameSpaceType::MOUNT);
    let home = open(Path::new("/proc/self/ns/mnt"))?;
    enter(pidfd.as_fd()).doing("enter the container's mounts")?;
    let seen = look();
    enter(home.as_fd()).doing("come back from the container's mounts")?;
    seen
}

/// Gives the calling process a cgroup namespace rooted where it is now.
pub(crate) fn unshare_cgroup() -> Result<(), Failure> {
    // SAFETY: changes only how /proc and cgroup mounts show cgroup paths.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }.doing("make a cgroup namespace")
}
