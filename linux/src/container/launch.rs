//! The fork that brings a program into a container, for its first process and for those that join it. Does I/O.
//!
//! Called by the monitor's side (`init`, `exec`). Where a PID namespace is joined there are two forks: the process that
//! enters the container is never seen in there, and the program is forked by it last of all (see `program`).

use std::os::fd::BorrowedFd;

use super::program;
use super::spec::Program;
use crate::failure::Failure;
use crate::process::{self, Fresh};
use crate::report::Report;

/// Forks a process, has it `enter` the container and become the program, in the PID namespace of `pids` if there is one.
/// Answers the program's process, a child of the caller, once it runs.
pub(super) fn launch(
    fresh: Fresh,
    program: &Program,
    pids: Option<BorrowedFd<'_>>,
    enter: impl FnOnce() -> Result<(), Failure>,
) -> Result<i32, String> {
    let report = Report::new().map_err(|e| format!("share memory with the container: {e}"))?;
    let inside = || {
        let done = enter().and_then(|()| match pids {
            Some(pids) => program::run_in(program, pids, &report),
            None => Err(program::run(program)),
        });
        match done {
            Ok(()) => 0,
            Err(failure) => {
                report.fail(&failure.to_string());
                127
            }
        }
    };
    let child = process::fork(Fresh { until_exec: true, ..fresh }, inside).map_err(|e| format!("fork: {e}"))?;
    let mut number = Some(child.pid);
    if pids.is_some() {
        let _ = process::wait_child(child.pid, true);
        number = report.number();
    }
    match (report.failure(), number) {
        (None, Some(pid)) => Ok(pid),
        (reason, number) => {
            if let Some(pid) = number {
                let _ = process::wait_child(pid, true);
            }
            Err(reason.unwrap_or_else(|| "its process ended before the program ran".to_owned()))
        }
    }
}
