//! The daemon's side of the zygote (see `monitor`): starts it when needed, gives it orders, reads answers. Does I/O.
//!
//! A process that has threads must not fork and go on in Rust: another thread may hold the allocator's lock at that
//! moment. So the daemon never forks. It starts itself anew once, as a process of one thread that does nothing but wait,
//! and that one forks:
//!
//! ```text
//! daemon (threads)                   zygote (one thread)                 children
//!    │  order: kind, spec (memfd),      │
//!    ├─ end of a new socket ───────────>│
//!    │                                  ├─ fork ──────────────────────> monitor ─ fork ─> container's process 1
//!    │<───────────── answers and events on that socket ──────────────────┤ (logs, exit code)
//!    ✗ killed                           ✗ its order socket closes: it ends
//!                                                                       monitor and container live on; the next daemon
//!                                                                       finds them by their records (`recover`)
//! ```
//!
//! A fork shares all memory that neither side writes: a monitor costs some hundred kilobytes, and an order less than a
//! millisecond. A zygote that was killed is noticed by the next order, which starts another and is given once more.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use linux::cgroup::Group;
use linux::fdpass;
use parking_lot::Mutex;
use rustix::fs::MemfdFlags;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::error::{Error, Result};
use crate::monitor::SUBCOMMAND;
use crate::monitor::protocol::Answer;

/// The longest answer: a failure's text.
const MAX_ANSWER: usize = 4096;
/// A start that takes longer has gone wrong (a disk or a mount that hangs).
const PATIENCE: Duration = Duration::from_secs(120);

/// A monitor whose container has ended is gone within this many moments, on a machine that is busy, too.
const REMOVE_ATTEMPTS: usize = 20;
const MOMENT: Duration = Duration::from_millis(10);

/// The process that forks monitors; started at the first order, and again when it has died.
#[derive(Debug)]
pub struct Zygote {
    live: Mutex<Option<Live>>,
    /// The group in which monitors outlive whatever started the daemon.
    group: Group,
}

#[derive(Debug)]
struct Live {
    orders: OwnedFd,
    process: std::process::Child,
}

impl Zygote {
    /// Will have monitors run in this group.
    pub fn new(group: Group) -> Zygote {
        Zygote { live: Mutex::default(), group }
    }

    /// Gives an order and answers the socket on which its child will speak. Blocks for less than a millisecond.
    pub fn order(&self, kind: u8, spec: &impl serde::Serialize, more: &[BorrowedFd<'_>]) -> Result<Control> {
        let spec = memory_file(spec).map_err(Error::failed("write the specification"))?;
        let (ours, theirs) = fdpass::packet_pair().map_err(Error::failed("make a socket"))?;
        let mut fds = vec![theirs.as_fd(), spec.as_fd()];
        fds.extend_from_slice(more);
        let mut live = self.live.lock();
        for attempt in 0..2 {
            if live.is_none() {
                *live = Some(start(&self.group)?);
            }
            let Some(zygote) = live.as_ref() else { break };
            match fdpass::send(&zygote.orders, &[kind], &fds) {
                Ok(()) => return Control::new(ours).map_err(Error::failed("watch a socket")),
                Err(e) if attempt == 0 => {
                    tracing::warn!(error = %e, "the monitors' parent process has ended; starting another");
                    if let Some(mut dead) = live.take() {
                        let _ = dead.process.kill();
                        let _ = dead.process.wait();
                    }
                }
                Err(e) => return Err(Error::failed("give an order to the monitors' parent process")(e)),
            }
        }
        Err(Error::Failed("the monitors' parent process can't be started".into()))
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        if let Some(live) = self.live.lock().take() {
            drop(live.orders);
            let mut process = live.process;
            let _ = process.wait();
        }
        // It stays while monitors are in it. One whose container has just ended leaves it a moment later.
        for _ in 0..REMOVE_ATTEMPTS {
            if self.group.remove().is_ok() {
                break;
            }
            std::thread::sleep(MOMENT);
        }
    }
}

fn start(group: &Group) -> Result<Live> {
    let (orders, theirs) = fdpass::packet_pair().map_err(Error::failed("make a socket"))?;
    let join = match group.create() {
        Ok(()) => group.join_files(),
        Err(error) => {
            tracing::warn!(%error, "containers' monitors stay in the daemon's own control group");
            Vec::new()
        }
    };
    let args: Vec<&OsStr> = [OsStr::new(SUBCOMMAND)].into_iter().chain(join.iter().map(|p| p.as_os_str())).collect();
    let process = linux::process::spawn_self(&args, theirs)?;
    Ok(Live { orders, process })
}

fn memory_file(spec: &impl serde::Serialize) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("spec", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&serde_json::to_vec(spec)?)?;
    Ok(file.into())
}

/// The socket between the daemon and the child of one order. Closing it ends an exec.
/// It is a packet socket with an end; tokio's type for datagrams does for reading messages with descriptors.
#[derive(Debug)]
pub struct Control(UnixDatagram);

impl Control {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Control(UnixDatagram::from_std(socket)?))
    }

    /// The next answer and what came with it; a closed socket is a failure.
    pub async fn next(&self) -> (Answer, Vec<OwnedFd>) {
        let mut buffer = [0u8; MAX_ANSWER];
        let got = self.0.async_io(Interest::READABLE, || fdpass::receive(&self.0, &mut buffer)).await;
        match got {
            Ok((0, _)) => (Answer::Failed("its monitor ended before it started".into()), Vec::new()),
            Ok((n, fds)) => (Answer::parse(&buffer[..n]), fds),
            Err(e) => (Answer::Failed(format!("read from its monitor: {e}")), Vec::new()),
        }
    }

    /// Waits for the first answer, which must be that a process runs: its number and start time.
    pub async fn started(&self) -> std::result::Result<(i32, u64), String> {
        match tokio::time::timeout(PATIENCE, self.next()).await {
            Ok((Answer::Ok { pid, started }, _)) => Ok((pid, started)),
            Ok((Answer::Failed(reason), _)) => Err(reason),
            Ok((other, _)) => Err(format!("unexpected answer {other:?}")),
            Err(_) => Err(format!("nothing heard for {} s", PATIENCE.as_secs())),
        }
    }
}
