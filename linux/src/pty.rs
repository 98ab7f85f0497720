//! Terminals: a new pair inside the calling process's /dev/pts, and their size. Does I/O.
//!
//! Called by the container init and by exec (open), by the monitor and the daemon (resize).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::failure::{Doing, Failure};

/// The magic number of devpts (linux/magic.h).
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Both ends of a terminal.
#[derive(Debug)]
pub struct Pair {
    /// What a person types goes in here, what the program prints comes out.
    pub master: OwnedFd,
    /// What the program has for its standard streams.
    pub slave: OwnedFd,
}

/// Opens a new terminal in the container that the process is in. The path is not trusted: no link is followed and the
/// file must lie on devpts; the other end is taken from the kernel, not by its path (CVE-2025-52565).
pub(crate) fn open_in_container() -> Result<Pair, Failure> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS;
    let master = rustix::fs::openat2(rustix::fs::CWD, "/dev/pts/ptmx", flags, Mode::empty(), resolve)
        .doing("open /dev/pts/ptmx")?;
    let fs = rustix::fs::fstatfs(&master).doing("look at /dev/pts/ptmx")?;
    if fs.f_type as u64 != DEVPTS_MAGIC {
        return Err(Failure::new("open /dev/pts/ptmx", "it is not on devpts"));
    }
    rustix::pty::unlockpt(&master).doing("unlock the terminal")?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .doing("open the terminal")?;
    Ok(Pair { master, slave })
}

/// Tells the programs on a terminal its size.
pub fn resize(master: impl AsFd, columns: u16, rows: u16) -> std::io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}
