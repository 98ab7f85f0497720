//! Which nodes of this host run: each one's init, as the host counts processes, is named in a file of the run directory,
//! with what came of its start. And how one ends: its pods get their grace, then its init goes, and with it all of it.
//! I/O: files, signals, control groups.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use linux::cgroup::{Cgroups, Group};
use rustix::process::Signal;

use crate::config::{Host, private_dir, write_private};
use crate::fault::best_effort;
use crate::process::Daemon;

/// The first word of the file of a node that could not be started.
const FAILED: &str = "failed";
/// A process that was killed is gone after this, on a machine that is busy, too.
const LAST_BREATH: Duration = Duration::from_secs(10);
/// Groups of processes that have just gone are busy for a moment.
const GROUP_ATTEMPTS: usize = 100;
const MOMENT: Duration = Duration::from_millis(20);
/// The group of a node's daemon and init, inside of the node.
const DAEMON_GROUP: &str = "daemon";
/// A sentence is shorter.
const LONGEST: u64 = 16 << 10;

fn dir(host: &Host) -> PathBuf {
    host.run_dir().join("nodes")
}

/// The file that names a node's init.
pub fn file(host: &Host, name: &str) -> PathBuf {
    dir(host).join(name)
}

/// A node's init, if it lives.
pub fn find(host: &Host, name: &str) -> Option<Daemon> {
    Daemon::named_in(&file(host, name))
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its components do their work.
    Running,
    Starting,
    Stopped,
    /// It ended while it started: why.
    Failed(String),
}

impl State {
    pub fn of(host: &Host, name: &str) -> State {
        match find(host, name) {
            Some(init) if init.is_ready_in(&file(host, name)) => State::Running,
            Some(_) => State::Starting,
            None => failure(&file(host, name)).map_or(State::Stopped, State::Failed),
        }
    }

    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            State::Running => "running",
            State::Starting => "starting",
            State::Stopped => "stopped",
            State::Failed(_) => "failed",
        }
    }
}

fn failure(file: &Path) -> Option<String> {
    let text = linux::root::read_regular(file, LONGEST).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    text.strip_prefix(FAILED).map(|why| why.trim().to_owned())
}

/// Makes room for the files of nodes.
pub fn prepare(host: &Host) -> Result<()> {
    private_dir(&dir(host))
}

pub fn note_ready(host: &Host, name: &str, init: Daemon) -> Result<()> {
    init.write_to(&file(host, name), true)
}

/// Writes down why a node could not be started, for who waits for it.
pub fn note_failure(host: &Host, name: &str, why: &str) {
    best_effort("why a node failed", write_private(&file(host, name), format!("{FAILED} {why}\n").as_bytes()));
}

/// The group of all that a node is, in the host's eyes.
pub fn group(host: &Host, name: &str) -> String {
    format!("{}/nodes/{name}", host.cgroup())
}

/// What a node's daemon and its init take of memory, in bytes.
pub fn resident(host: &Host, name: &str) -> Option<u64> {
    let inside = format!("{}{}/{DAEMON_GROUP}", group(host, name), host.cgroup());
    let processes = Cgroups::detect().ok()?.group(&inside).processes();
    (!processes.is_empty()).then(|| processes.into_iter().filter_map(resident_of).sum())
}

pub fn resident_of(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// Ends a node, daemon or no daemon: `signal` first, and KILL when it has outlived `patience`. True when it ran.
pub fn end(host: &Host, name: &str, signal: Signal, patience: Duration) -> Result<bool> {
    let init = find(host, name);
    if let Some(init) = init {
        init.signal(signal);
        if !init.wait(patience) {
            init.signal(Signal::KILL);
            init.wait(LAST_BREATH);
        }
    }
    best_effort("a node's file", fs::remove_file(file(host, name)));
    remove_group(&Cgroups::detect()?.group(&group(host, name)))?;
    Ok(init.is_some())
}

/// Takes away the groups that a node left, and who is in them: nobody, unless somebody put a process there.
fn remove_group(group: &Group) -> Result<()> {
    let began = Instant::now();
    for _ in 0..GROUP_ATTEMPTS {
        if !group.exists() && group.remove().is_ok() {
            return Ok(());
        }
        group.kill()?;
        if group.remove().is_ok() {
            return Ok(());
        }
        std::thread::sleep(MOMENT);
    }
    group.remove().with_context(|| format!("after {:?}", began.elapsed()))
}

/// Ends every node that runs, all at once. How many there were.
pub fn end_all(host: &Host, signal: Signal, patience: Duration) -> Result<usize> {
    let names = fs::read_dir(dir(host)).into_iter().flatten().flatten();
    let names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let ended: Vec<Result<bool>> = std::thread::scope(|scope| {
        let ends: Vec<_> = names.iter().map(|name| scope.spawn(move || end(host, name, signal, patience))).collect();
        ends.into_iter().map(|end| end.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread broke off")))).collect()
    });
    let ended: Vec<bool> = ended.into_iter().collect::<Result<_>>()?;
    Ok(ended.into_iter().filter(|ran| *ran).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_a_node_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("b");
        assert_eq!(failure(&file), None);
        fs::write(&file, "failed the API server is away\n").expect("written");
        assert_eq!(failure(&file).as_deref(), Some("the API server is away"));
        assert!(Daemon::named_in(&file).is_none());
        let me = Daemon::current().expect("this process");
        me.write_to(&file, false).expect("written");
        assert_eq!((failure(&file), Daemon::named_in(&file)), (None, Some(me)));
        assert!(!me.is_ready_in(&file));
        me.write_to(&file, true).expect("written");
        assert!(me.is_ready_in(&file));
    }

    #[test]
    fn memory_of_a_process_is_read() {
        let me = i32::try_from(std::process::id()).expect("a pid");
        assert!(resident_of(me).is_some_and(|bytes| bytes > 1 << 20));
        assert_eq!(resident_of(-1), None);
    }
}
