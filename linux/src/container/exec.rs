//! Puts one more process into a running container. Does I/O; runs in a process forked for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::init::{Stdio, join_cgroups, open_terminal};
use super::launch::launch;
use super::program;
use super::spec::Program;
use crate::failure::{Doing, Failure};
use crate::process::Fresh;
use crate::{namespaces, process};

/// What to run where.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Exec {
    /// The container's first process, by the host's number.
    pub pid: i32,
    /// When that process started, in clock ticks since boot: a number taken over by another process is refused.
    pub started: u64,
    /// Files that take "0" from a process that joins the container's control groups.
    pub cgroup_join: Vec<PathBuf>,
    /// What runs there, and as whom.
    pub program: Program,
}

/// A container's first process, held so that its number can't come to mean another.
#[derive(Debug)]
pub struct Target(OwnedFd);

impl Target {
    /// Opens the process and checks that it is the one meant.
    pub fn open(pid: i32, started: u64) -> Result<Self, Failure> {
        let gone = || Failure::new("enter the container", "it is not running");
        let pidfd = process::pidfd(pid).map_err(|_| gone())?;
        if start_time(pid) != Some(started) {
            return Err(gone());
        }
        Ok(Target(pidfd))
    }

    /// Runs the program in the container; answers its process, a child of the caller.
    pub fn run(&self, exec: &Exec, stdio: &Stdio<'_>) -> Result<i32, String> {
        launch(Fresh::default(), &exec.program, Some(self.0.as_fd()), || self.enter(exec, stdio))
    }

    fn enter(&self, exec: &Exec, stdio: &Stdio<'_>) -> Result<(), Failure> {
        process::hide().doing("hide from the container")?;
        join_cgroups(&exec.cgroup_join)?;
        program::set_oom_score(exec.program.oom_score_adj)?;
        namespaces::enter_all_of(self.0.as_fd())?;
        match stdio {
            Stdio::Files { stdin, stdout, stderr } => {
                process::set_stdio(stdin, stdout, stderr).doing("set the standard streams")
            }
            Stdio::Terminal { send_to } => open_terminal(send_to.as_fd(), false),
        }
    }
}

impl From<Target> for OwnedFd {
    fn from(target: Target) -> Self {
        target.0
    }
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Clock ticks since boot at which a process started (field 22 of /proc/PID/stat); `None` when there is none.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so counting starts behind its end.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
