//! The daemon and its supervisor as processes: their pid files, whether they live, how they are started and stopped. The
//! kernel's start time stands beside the pid, so that a reused pid is never taken for ours; the last word says whether
//! the cluster is ready.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::config::{Host, private_dir, write_private};
use crate::fault::best_effort;

/// A killed process is gone after this, also when it holds much memory on a busy host.
const LAST_BREATH: Duration = Duration::from_secs(10);
/// The last word of the pid file of a daemon whose cluster is ready.
const READY: &str = "ready";

/// With this exit code a daemon ends that is to start anew with what is written down of its host by now, while its pods go
/// on; EX_TEMPFAIL of sysexits(3).
pub const ANEW: u8 = 75;
/// The signal that asks a daemon that is ready for it.
pub const START_ANEW: Signal = Signal::USR1;

/// A process that is ours for as long as pid and start time agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daemon {
    pub pid: i32,
    started: u64,
}

impl Daemon {
    pub fn current() -> Option<Daemon> {
        let pid = i32::try_from(std::process::id()).ok()?;
        Some(Daemon { pid, started: look(pid)?.started })
    }

    /// A child that was just started.
    pub fn of(child: &Child) -> Option<Daemon> {
        Daemon::of_pid(i32::try_from(child.id()).ok()?)
    }

    /// The process that has this number now.
    pub fn of_pid(pid: i32) -> Option<Daemon> {
        Some(Daemon { pid, started: look(pid)?.started })
    }

    /// The cluster's daemon, if it runs. One that was killed a moment ago still holds its ports: it is waited for.
    pub fn find(host: &Host) -> Option<Daemon> {
        Daemon::named_in(&host.pid_file())
    }

    /// The process that starts the daemon anew, if there is one.
    pub fn supervisor(host: &Host) -> Option<Daemon> {
        Daemon::named_in(&host.supervisor_file())
    }

    /// Whichever of both lives: the cluster runs, or will in a moment.
    pub fn any(host: &Host) -> Option<Daemon> {
        Daemon::supervisor(host).or_else(|| Daemon::find(host))
    }

    /// The process that a file names, if it lives.
    pub fn named_in(file: &Path) -> Option<Daemon> {
        let (daemon, _) = read_pid_file(file)?;
        let now = daemon.look()?;
        if now.ending && daemon.wait(LAST_BREATH) { None } else { Some(daemon) }
    }

    /// It has said that its cluster is ready.
    pub fn is_ready(&self, host: &Host) -> bool {
        self.is_ready_in(&host.pid_file())
    }

    /// The file that names it says that it is ready.
    pub fn is_ready_in(&self, file: &Path) -> bool {
        read_pid_file(file) == Some((*self, true))
    }

    pub fn lives(&self) -> bool {
        self.look().is_some()
    }

    fn look(&self) -> Option<Look> {
        look(self.pid).filter(|now| now.started == self.started)
    }

    pub fn register(&self, host: &Host, ready: bool) -> Result<()> {
        private_dir(&host.run_dir())?;
        self.write_to(&host.pid_file(), ready)
    }

    /// Names it in a file whose directory is there.
    pub fn write_to(&self, file: &Path, ready: bool) -> Result<()> {
        let word = if ready { READY } else { "starting" };
        write_private(file, format!("{} {} {word}", self.pid, self.started).as_bytes())
    }

    /// Writes down that this process supervises the cluster's daemon.
    pub fn register_supervisor(&self, host: &Host) -> Result<()> {
        private_dir(&host.run_dir())?;
        write_private(&host.supervisor_file(), format!("{} {}", self.pid, self.started).as_bytes())
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid)
            && self.lives()
        {
            best_effort("a signal", kill_process(pid, signal));
        }
    }

    /// Whether the process takes this signal itself. One that does not, as a daemon of a version that knew nothing of it,
    /// would be ended by it.
    pub fn takes(&self, signal: Signal) -> bool {
        let bit = 1 << (signal.as_raw() - 1);
        self.lives() && signals_of(self.pid, &["SigCgt:"]) & bit != 0
    }

    /// Waits until the process is gone; false when it outlived `patience`.
    pub fn wait(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.lives() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// In a word, what the cluster does.
pub fn state(host: &Host) -> &'static str {
    match Daemon::find(host) {
        Some(daemon) if daemon.is_ready(host) => "running",
        Some(_) => "starting",
        // The supervisor lets a moment pass after a daemon that ended early.
        None if Daemon::supervisor(host).is_some() => "restarting",
        None => "stopped",
    }
}

/// The daemon of this pid, dead by now, had said that its cluster was ready.
pub fn said_ready(host: &Host, pid: i32) -> bool {
    read_pid_file(&host.pid_file()).is_some_and(|(daemon, ready)| daemon.pid == pid && ready)
}

fn read_pid_file(file: &Path) -> Option<(Daemon, bool)> {
    let text = fs::read_to_string(file).ok()?;
    let mut words = text.split_whitespace();
    let daemon = Daemon { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? };
    Some((daemon, words.next() == Some(READY)))
}

/// What /proc says of a process.
struct Look {
    /// Clock ticks since boot.
    started: u64,
    /// It was killed or ends by itself, and lets go of what it holds.
    ending: bool,
}

/// `None` when the process is gone, or is a zombie that holds nothing any more.
fn look(pid: i32) -> Option<Look> {
    const EXITING: u64 = 4;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and parentheses: the fields begin after the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let zombie = matches!(fields.first(), Some(&("Z" | "X")));
    // The first thread of a process is a zombie while others of it still close files.
    if zombie && fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) < 2 {
        return None;
    }
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ending = zombie || number(6)? & EXITING != 0 || is_killed(pid);
    Some(Look { started: number(19)?, ending })
}

/// SIGKILL was sent and isn't taken yet.
fn is_killed(pid: i32) -> bool {
    const KILL: u64 = 1 << 8;
    signals_of(pid, &["SigPnd:", "ShdPnd:"]) & KILL != 0
}

/// The signals in any of these sets of /proc's: a bit for each, the first for number one.
fn signals_of(pid: i32, sets: &[&str]) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let found = status.lines().filter_map(|line| sets.iter().find_map(|set| line.strip_prefix(set)));
    found.filter_map(|set| u64::from_str_radix(set.trim(), 16).ok()).fold(0, |all, set| all | set)
}

/// Why a daemon ends that is to start anew.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it starts anew, with what its host is by now")]
pub struct Anew;

/// Becomes the next life of a daemon that has no supervisor: the same process, without anything of this one's. Returns
/// only when that fails.
pub fn become_next(host: &Host) -> std::io::Error {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let words = ["ferrokube", "server", "--name", &host.cluster.name, "--data-dir"].map(str::as_bytes);
    let mut args: Vec<Vec<u8>> = words.map(<[u8]>::to_vec).into();
    args.push(host.data_dir.as_os_str().as_bytes().to_vec());
    let variable = |(name, value): (OsString, OsString)| [name.into_vec(), value.into_vec()].join(&b'=');
    let env: Vec<Vec<u8>> = std::env::vars_os().map(variable).collect();
    linux::process::exec(Path::new("/proc/self/exe"), &args, &env)
}

/// Starts the cluster's supervisor, and by it the daemon, detached from the terminal; the daemon's steps come on the
/// child's stdout. It begins when its stdin is closed.
pub fn spawn_supervisor(host: &Host) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let log = open_log(&host.log())?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("ferrokube")
        .args([crate::supervisor::SUBCOMMAND, &host.cluster.name])
        .arg(&host.data_dir)
        .env_clear()
        .envs(crate::caller::environment())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log);
    command.spawn().context("starting the daemon")
}

fn open_log(path: &Path) -> Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let open = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    open.with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_a_signal_would_end_takes_none() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("a process");
        let other = Daemon::of(&child).expect("it lives");
        assert!(!other.takes(START_ANEW), "a daemon of the version before");
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(!other.takes(START_ANEW), "nor one that is gone");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _enter = runtime.enter();
        let _taken = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1()).expect("a signal");
        assert!(Daemon::current().expect("this one").takes(START_ANEW));
    }
}
