//! Network namespaces: open one, make one, do something inside one. Does I/O.
//!
//! A namespace belongs to a thread, so work inside another one is done by a thread of its own that ends with
//! the work: the caller's threads never change.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// A handle on a network namespace, which lives at least as long.
#[derive(Debug)]
pub struct NetNs(OwnedFd);

impl NetNs {
    /// By path: `/proc/PID/ns/net`, `/run/netns/NAME`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let fd = rustix::fs::open(path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(NetNs(fd))
    }

    /// That of the calling thread.
    pub fn current() -> io::Result<Self> {
        NetNs::open("/proc/thread-self/ns/net")
    }

    /// A new namespace with nothing in it but a loopback interface that is down.
    pub fn create() -> io::Result<Self> {
        on_thread(|| {
            unshare()?;
            NetNs::current()
        })
    }

    /// A new namespace bound to `path`, a file that is made here, so that it stays when no process is inside.
    pub fn create_at(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
        let made = on_thread(|| {
            unshare()?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?;
            NetNs::current()
        });
        if made.is_err() {
            let _ = std::fs::remove_file(path);
        }
        made
    }

    /// Undoes [`NetNs::create_at`]; idempotent.
    pub fn remove_at(path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        match rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Runs `work` on a thread inside the namespace and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }

    /// Moves the calling thread inside, for good. For threads that live for this: tests, workers.
    pub fn enter(&self) -> io::Result<()> {
        rustix::thread::move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    }
}

impl From<NetNs> for OwnedFd {
    fn from(ns: NetNs) -> OwnedFd {
        ns.0
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives the calling thread a network namespace of its own.
fn unshare() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET changes only which network the calling thread sees; memory and file descriptors stay
    // shared as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
    Ok(())
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
