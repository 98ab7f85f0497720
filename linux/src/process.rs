//! Processes: fork, clone into namespaces, exec, wait, signals. Does I/O.
//!
//! Forking is safe only while one thread runs, because a lock held by another thread would stay locked in the child.
//! So every fork here checks for that. Called by the monitor side of the runtime, never by the daemon, which has
//! threads; the daemon only uses [`spawn_self`] and pidfds.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal};

use crate::failure::{Doing, Failure};

/// What a fork makes new for the child.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fresh {
    /// A mount namespace of its own, a copy of the caller's.
    pub mounts: bool,
    /// A PID namespace of its own, in which it is process 1.
    pub pids: bool,
    /// The caller sleeps until the child has become a program or has ended.
    pub until_exec: bool,
}

/// A child and a descriptor for it that can't come to mean another process.
#[derive(Debug)]
pub struct Child {
    /// Its number, as the caller's PID namespace counts.
    pub pid: i32,
    /// Readable when it has ended; signals by it reach nobody else (pidfd_open(2)).
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// The exit code as shells and Kubernetes show it: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Ended::Exit(code) => code,
            Ended::Signal(signal) => 128 + signal,
        }
    }
}

/// Runs `child` in a new process, whose exit code is what it returns; a panic in it ends it with 70.
///
/// # Errors
/// Refused when the calling process has more than one thread.
pub fn fork(fresh: Fresh, child: impl FnOnce() -> i32) -> io::Result<Child> {
    if thread_count()? != 1 {
        return Err(io::Error::other("fork in a process with several threads"));
    }
    let mut pidfd: libc::c_int = -1;
    let mut flags = libc::CLONE_PIDFD as u64;
    flags |= if fresh.mounts { libc::CLONE_NEWNS as u64 } else { 0 };
    flags |= if fresh.pids { libc::CLONE_NEWPID as u64 } else { 0 };
    flags |= if fresh.until_exec { libc::CLONE_VFORK as u64 } else { 0 };
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM this is fork: the child gets a copy of memory. There is no other thread (checked), so no
    // lock of the allocator or of the standard library can be held in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        0 => {
            FORKED.store(true, Ordering::Relaxed);
            run_child(child)
        }
        pid if pid > 0 => {
            // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: pid as i32, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// What [`fork_sibling`] asks the kernel for; a system call filter that is in force by then must let it pass.
pub(crate) const SIBLING_FLAGS: u64 = (libc::CLONE_PARENT | libc::CLONE_VFORK | libc::SIGCHLD) as u64;

/// Whether this process came from [`fork`], and so has one thread.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Runs `child` in a new process whose parent is the caller's own parent, and sleeps until it has become a program or
/// has ended. For a process that came from [`fork`], wherever it has got to: nothing is looked up in /proc. Filters
/// know the old call, so it is the one that is used.
pub(crate) fn fork_sibling(child: impl FnOnce() -> i32) -> io::Result<i32> {
    if !FORKED.load(Ordering::Relaxed) {
        return Err(io::Error::other("not a process that was forked for one container"));
    }
    // SAFETY: without CLONE_VM this is fork, on the stack as it is copied; this process has one thread (see FORKED).
    match unsafe { libc::syscall(libc::SYS_clone, SIBLING_FLAGS, 0, 0, 0, 0) } {
        0 => run_child(child),
        pid if pid > 0 => Ok(pid as i32),
        _ => Err(io::Error::last_os_error()),
    }
}

fn run_child(child: impl FnOnce() -> i32) -> ! {
    let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(70);
    // SAFETY: ends the child without running the exit handlers of the parent's copy.
    unsafe { libc::_exit(code) }
}

fn thread_count() -> io::Result<usize> {
    // The kernel answers tasks as link count: "." and ".." and one a thread.
    use std::os::unix::fs::MetadataExt;
    Ok((std::fs::metadata("/proc/self/task")?.nlink() as usize).saturating_sub(2))
}

/// Replaces the process by a program. Returns only on failure. `env` holds `NAME=value`.
pub fn exec(program: &Path, args: &[Vec<u8>], env: &[Vec<u8>]) -> io::Error {
    let strings = |list: &[Vec<u8>]| list.iter().map(|s| CString::new(s.as_slice())).collect::<Result<Vec<_>, _>>();
    let (Ok(path), Ok(args), Ok(env)) = (CString::new(program.as_os_str().as_bytes()), strings(args), strings(env))
    else {
        return io::Error::new(io::ErrorKind::InvalidInput, "a zero byte in an argument or variable");
    };
    let pointers = |list: &[CString]| {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<*const libc::c_char>>()
    };
    let (argv, envp) = (pointers(&args), pointers(&env));
    // SAFETY: all are null-terminated arrays of C strings that live until the call returns, if it does.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Waits for a child and takes its end away. `None` without `block` when it still runs.
pub fn wait_child(pid: i32, block: bool) -> io::Result<Option<Ended>> {
    let mut status = 0;
    loop {
        // SAFETY: plain wait4 with a valid pointer.
        let got = unsafe { libc::waitpid(pid, &raw mut status, if block { 0 } else { libc::WNOHANG }) };
        match got {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            _ if libc::WIFSIGNALED(status) => return Ok(Some(Ended::Signal(libc::WTERMSIG(status)))),
            _ if libc::WIFEXITED(status) => return Ok(Some(Ended::Exit(libc::WEXITSTATUS(status)))),
            _ => {}
        }
    }
}

/// Takes away every child that has ended, for a process that inherits orphans. Answers the end of `of`, if it was one.
pub fn reap(of: i32) -> Option<Ended> {
    let mut found = None;
    loop {
        let mut status = 0;
        // SAFETY: plain waitpid with a valid pointer.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return found;
        }
        if pid == of {
            found = if libc::WIFSIGNALED(status) {
                Some(Ended::Signal(libc::WTERMSIG(status)))
            } else {
                Some(Ended::Exit(libc::WEXITSTATUS(status)))
            };
        }
    }
}

/// Sends a signal to a process by number, for processes that the caller knows to be its unreaped children.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is touched. Zero and negative numbers mean groups and everyone: refused.
    if pid <= 0 || unsafe { libc::kill(pid, signal) } < 0 {
        return Err(if pid <= 0 { io::ErrorKind::InvalidInput.into() } else { io::Error::last_os_error() });
    }
    Ok(())
}

/// Kills a session's process group (its leader's number), best effort.
pub fn kill_group(leader: i32, signal: i32) {
    if leader > 1 {
        // SAFETY: no memory is touched; the number is a real group's.
        unsafe { libc::kill(-leader, signal) };
    }
}

/// Sends a signal through a pidfd; success also when the process has ended.
pub fn kill_pidfd(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is touched; a null siginfo means the default one.
    let answer = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
    };
    let error = io::Error::last_os_error();
    if answer < 0 && error.raw_os_error() != Some(libc::ESRCH) { Err(error) } else { Ok(()) }
}

/// Opens a pidfd.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Starts this very program again with `args`, with `socket` as its standard input and an empty environment.
///
/// The program file is reached through a read-only copy of its mount: a container that finds its way to
/// `/proc/PID/exe` of such a process can't write to the program on the host (CVE-2019-5736).
pub fn spawn_self(args: &[&OsStr], socket: OwnedFd) -> Result<std::process::Child, Failure> {
    let exe = crate::mount::clone_tree("/proc/self/exe", false).doing("clone the mount of this program")?;
    let readonly = crate::mount::Attributes { readonly: true, ..Default::default() };
    crate::mount::set_attributes(&exe, readonly, false).doing("make the program's mount read-only")?;
    let mut command = std::process::Command::new(format!("/proc/self/fd/{}", exe.as_raw_fd()));
    command.arg0("ferrokube").args(args).env_clear().stdin(socket);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).process_group(0);
    command.spawn().doing("start this program again")
}

/// Makes the process unreadable for others of the same user: no ptrace, no /proc/PID/{exe,fd,root} for containers.
pub fn hide() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// The kernel kills this process when its parent ends. Lost at every change of user, so it comes after those.
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Orphans of this process's descendants become its children.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Pid::from_raw(1))?)
}

/// The name shown by ps and top, cut to 15 bytes by the kernel.
pub fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// Puts every signal back to its default action and unblocks all: what a fresh program expects.
pub fn reset_signals() {
    for signal in 1..=64 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: SIG_DFL is always a valid action; numbers that the C library keeps for itself are refused.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // SAFETY: an empty set, made by the library, on this one thread.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Signals that are meant for others do nothing here, and nothing in what is forked from here.
pub fn ignore(signals: &[Signal]) {
    for signal in signals {
        // SAFETY: SIG_IGN is a valid action.
        unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) };
    }
}

/// Whether memory may come in transparent huge pages, here and in all that is started from here. Where many small objects
/// come and go they keep two megabytes for each that stays: an idle cluster took a third more. It is a wish: a kernel
/// without it goes on as it is.
pub fn allow_huge_pages(allowed: bool) {
    let _ = rustix::thread::disable_transparent_huge_pages(!allowed);
}

/// Children that end are taken away by the kernel.
pub fn ignore_children() {
    // SAFETY: SIG_IGN is a valid action.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Children that end must be waited for, as is the default.
pub fn expect_children() {
    // SAFETY: SIG_DFL is a valid action.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// A descriptor that becomes readable when a child ends.
pub fn child_signal() -> io::Result<OwnedFd> {
    signals(&[libc::SIGCHLD])
}

/// A descriptor that these signals are read from; they do nothing else any more.
pub fn signals(list: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is made by the library, which refuses what is no signal; the new descriptor is owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in list {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// The next signal of [`signals`]; `None` when none came within the time.
pub fn next_signal(signals: &OwnedFd, patience: Option<std::time::Duration>) -> io::Result<Option<i32>> {
    let mut ready = [rustix::event::PollFd::new(signals, rustix::event::PollFlags::IN)];
    let limit = patience.and_then(|time| rustix::event::Timespec::try_from(time).ok());
    match rustix::event::poll(&mut ready, limit.as_ref()) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
        Ok(_) => {}
        Err(e) => return Err(e.into()),
    }
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(signals, &mut info) {
        // Its number comes first.
        Ok(_) => Ok(info.first_chunk().map(|number| i32::from_ne_bytes(*number))),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Marks every descriptor from `first` on as closed at exec, whoever left it open (CVE-2024-21626).
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only sets a flag on descriptors.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes every descriptor from `first` on. For a forked child that is about to do one thing for ever: whatever owned
/// them must not be used any more.
pub fn close_from(first: u32) {
    // SAFETY: see above; the parent goes on with its own copies.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Puts descriptors in place as 0, 1 and 2.
pub fn set_stdio(stdin: impl AsFd, stdout: impl AsFd, stderr: impl AsFd) -> io::Result<()> {
    // Sources below 3 would be overwritten before they are used.
    let above = |fd: &dyn AsRawFd| -> io::Result<OwnedFd> {
        // SAFETY: duplicates a descriptor that is borrowed for the call.
        let new = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
        // SAFETY: fresh from the kernel.
        if new < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(new) }) }
    };
    let sources = [above(&stdin.as_fd())?, above(&stdout.as_fd())?, above(&stderr.as_fd())?];
    for (number, source) in sources.iter().enumerate() {
        // SAFETY: both numbers are valid; the standard descriptors are owned by nobody in Rust.
        if unsafe { libc::dup2(source.as_raw_fd(), number as i32) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes the process leader of a new session.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Makes the terminal on standard input the controlling one of this session.
pub(crate) fn take_terminal() -> io::Result<()> {
    // SAFETY: descriptor 0 is open; the argument is a number.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Joins a new, empty session keyring, so that the daemon's keys are out of reach. Kernels without keyrings are fine.
pub(crate) fn new_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name means an anonymous keyring.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
}
