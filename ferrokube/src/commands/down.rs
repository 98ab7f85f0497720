//! `down`: stops the daemon, its pods and its monitors. State stays; `up` continues from it.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::Signal;

use crate::cluster::{shutdown_grace, stop_pods};
use crate::commands::misc::print;
use crate::config::{Host, Which};
use crate::fault::best_effort;
use crate::nodes;
use crate::preflight;
use crate::process::Daemon;
use crate::progress::{duration, step_line};
use crate::systemd;

/// Pods get this long to end by themselves when the cluster goes down.
pub const POD_GRACE: Duration = Duration::from_secs(7);
/// The daemon's own end after its pods: it must stop its listeners and sync its store.
const DAEMON_GRACE: Duration = Duration::from_secs(4);

pub fn run(which: &Which) -> Result<()> {
    preflight::root("down")?;
    let Some(host) = which.load()? else {
        return print(&format!("There is no cluster {:?}.\n", which.name()));
    };
    let began = Instant::now();
    stop(&host, Signal::TERM, POD_GRACE)?;
    print(&format!(
        "The cluster {:?} is down ({}). `ferrokube up` continues from here.\n",
        host.cluster.name,
        duration(began.elapsed())
    ))
}

/// Stops everything of the cluster that runs, daemon or no daemon. A daemon that is ended by KILL leaves its pods to
/// the grace given here, one that is told to end by TERM gives them [`POD_GRACE`] itself.
pub fn stop(host: &Host, signal: Signal, grace: Duration) -> Result<()> {
    stop_daemon(host, signal, grace)?;
    let pods = Instant::now();
    let nodes = nodes::life::end_all(host, Signal::TERM, grace)?;
    if nodes > 0 {
        print(&(step_line(&format!("{nodes} nodes stopped"), pods.elapsed().as_millis() as u64) + "\n"))?;
    }
    let left = stop_pods(host, grace)?;
    if left > 0 {
        print(&(step_line(&format!("{left} containers stopped"), pods.elapsed().as_millis() as u64) + "\n"))?;
    }
    for file in [host.pid_file(), host.supervisor_file()] {
        best_effort("a pid file", std::fs::remove_file(file));
    }
    Ok(())
}

/// Stops pods that a daemon left, for a node's init that is about to end: NAME and DIR are the node's.
pub fn farewell(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (name, data_dir) = (args.next().and_then(|name| name.into_string().ok()), args.next().map(Into::into));
    let stopped = Which { name, data_dir }.load().and_then(|host| match host {
        Some(host) => stop_pods(&host, POD_GRACE),
        None => Ok(0),
    });
    match stopped {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => crate::fail(&error),
    }
}

/// Stops the daemon and what would start it again: its supervisor, or systemd.
pub fn stop_daemon(host: &Host, signal: Signal, grace: Duration) -> Result<()> {
    let began = Instant::now();
    // Who is told to end gives pods the time that the node's settings give them, too.
    let grace = if signal == Signal::TERM { grace + shutdown_grace(host) } else { grace };
    let mut stopped = systemd::is_active(host);
    if stopped {
        systemd::stop(host)?;
    }
    // The supervisor first: it would start a daemon that was killed anew.
    for find in [Daemon::supervisor, Daemon::find] {
        stopped |= find(host).is_some_and(|process| end(process, signal, grace + DAEMON_GRACE));
    }
    if stopped { print(&(step_line("Daemon stopped", began.elapsed().as_millis() as u64) + "\n")) } else { Ok(()) }
}

/// Ends a process; true, for one that is ended.
fn end(process: Daemon, signal: Signal, patience: Duration) -> bool {
    process.signal(signal);
    if !process.wait(patience) {
        process.signal(Signal::KILL);
        process.wait(DAEMON_GRACE);
    }
    true
}
