//! The process that starts the daemon anew when it ends by itself: `up` leaves it behind, and no service manager is
//! needed. One thread, no runtime: it stays small, and forks. What tells it to end is handed on, and it ends with the
//! daemon; a session's hang-up is none of theirs. A daemon that never became ready is not started again: `up` tells why.
//! As process 1 of a node's PID namespace ([`crate::nodes`]) it is the node's init besides: it takes orphans away, and with
//! its end all of the node ends. I/O: processes and signals.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use linux::process::{self, Child, Ended, Fresh};
use rustix::process::Signal;

use crate::backoff::Backoff;
use crate::config::{Host, Which};
use crate::crash;
use crate::fault::best_effort;
use crate::logging::print_line;
use crate::process::{ANEW, Daemon, said_ready};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "supervisor";

/// The hidden subcommand that stops the pods of a node whose daemon is gone.
pub const FAREWELL: &str = "farewell";

/// The child could not become the daemon.
const NO_PROGRAM: i32 = 127;

/// How a daemon ends that is to start anew: it is no crash, and nobody waits.
const STARTS_ANEW: Ended = Ended::Exit(ANEW as i32);

/// Called first thing in the program's `main`, before any thread is started.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    process::set_name("fk-supervisor");
    match start(args.collect()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print_line(format_args!("the supervisor: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(args: Vec<OsString>) -> Result<u8> {
    let first = std::process::id() == 1;
    crate::caller::forget();
    process::new_session().context("a session of its own")?;
    if !first {
        // `up` registers this process first, under its lock.
        best_effort("waiting for who starts it", std::io::Read::read(&mut std::io::stdin(), &mut [0]));
    }
    let wanted = [Signal::TERM, Signal::INT, Signal::HUP, Signal::CHILD];
    let signals = process::signals(&wanted.map(Signal::as_raw)).context("signals")?;
    let [name, data_dir] = <[OsString; 2]>::try_from(args).map_err(|_| anyhow::anyhow!("wants NAME and DIR"))?;
    let which = Which { name: name.into_string().ok(), data_dir: Some(data_dir.into()) };
    let host = which.load()?.context("there is no cluster")?;
    if first {
        Daemon::current().context("this process is not in /proc")?.register_supervisor(&host)?;
    }
    crate::caller::leave_group(&host);
    let backoff = Backoff::default();
    Supervisor { host, signals, backoff, first, told_to_end: false, told_early: false, was_ready: false }.run()
}

struct Supervisor {
    host: Host,
    signals: OwnedFd,
    backoff: Backoff,
    /// It is process 1: orphans are its children.
    first: bool,
    told_to_end: bool,
    /// The daemon had hardly begun by then: it does not stop the pods of a former life.
    told_early: bool,
    /// A life of the daemon came as far as a ready cluster.
    was_ready: bool,
}

impl Supervisor {
    fn run(mut self) -> Result<u8> {
        let mut first = true;
        loop {
            let began = Instant::now();
            let child = self.spawn()?;
            if std::mem::take(&mut first) {
                // Only the daemon tells `up` its steps: the end of its output is the end of its life.
                let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
                process::set_stdio(&null, &null, rustix::stdio::stderr())?;
            }
            let ended = self.attend(&child)?;
            // One that starts anew had come as far as ready, or nobody would have asked it for that.
            self.was_ready |= said_ready(&self.host, child.pid) || ended == STARTS_ANEW;
            if let Some(code) = over(ended, self.told_to_end, self.was_ready) {
                if self.told_early {
                    self.farewell();
                }
                return Ok(code);
            }
            if ended == STARTS_ANEW {
                print_line(format_args!("the daemon starts anew, as it was asked to"));
                continue;
            }
            let pause = self.backoff.after(began.elapsed());
            let what = words(ended);
            print_line(format_args!("the daemon ended ({what}); it is started again in {} s", pause.as_secs()));
            if let Err(error) = crash::note(&self.host, "daemon", &what) {
                print_line(format_args!("that could not be written down: {error:#}"));
            }
            if self.rest(pause)? {
                self.farewell();
                return Ok(0);
            }
        }
    }

    /// With process 1 all pods end: those that no daemon looks after any more get their grace first.
    fn farewell(&self) {
        if !self.first {
            return;
        }
        let said = self.start(&[FAREWELL, &self.host.cluster.name]).and_then(|child| {
            while process::reap(child.pid).is_none() {
                process::next_signal(&self.signals, None)?;
            }
            Ok(())
        });
        if let Err(error) = said {
            print_line(format_args!("pods end without their grace: {error:#}"));
        }
    }

    fn spawn(&self) -> Result<Child> {
        self.start(&["server", "--told-to-parent", "--name", &self.host.cluster.name, "--data-dir"])
    }

    /// Starts this program with these words and the cluster's directory.
    fn start(&self, words: &[&str]) -> Result<Child> {
        let words = ["ferrokube"].iter().chain(words);
        let mut args: Vec<Vec<u8>> = words.map(|word| word.as_bytes().to_vec()).collect();
        args.push(self.host.data_dir.clone().into_os_string().into_vec());
        let variable = |(name, value): (OsString, OsString)| [name.into_vec(), value.into_vec()].join(&b'=');
        let env: Vec<Vec<u8>> = std::env::vars_os().map(variable).collect();
        let child = process::fork(Fresh::default(), || {
            process::reset_signals();
            print_line(format_args!("{}", process::exec(Path::new("/proc/self/exe"), &args, &env)));
            NO_PROGRAM
        });
        child.context("starting the daemon")
    }

    /// Hands signals on until the child has ended.
    fn attend(&mut self, child: &Child) -> Result<Ended> {
        loop {
            let ended = if self.first { process::reap(child.pid) } else { process::wait_child(child.pid, false)? };
            if let Some(ended) = ended {
                return Ok(ended);
            }
            if let Some(signal) = process::next_signal(&self.signals, None)?
                && [Signal::TERM, Signal::INT].map(Signal::as_raw).contains(&signal)
            {
                self.told_to_end = true;
                self.told_early |= !said_ready(&self.host, child.pid);
                process::kill_pidfd(&child.pidfd, signal)?;
            }
        }
    }

    /// Waits; true when it was told to end meanwhile.
    fn rest(&self, pause: Duration) -> Result<bool> {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match process::next_signal(&self.signals, Some(left))? {
                None if Instant::now() >= until => return Ok(false),
                Some(signal) if signal == Signal::TERM.as_raw() || signal == Signal::INT.as_raw() => return Ok(true),
                _ if self.first => {
                    process::reap(0);
                }
                _ => {}
            }
        }
    }
}

/// The exit code with which the story ends, or `None` when the daemon is to be started again.
fn over(ended: Ended, told_to_end: bool, was_ready: bool) -> Option<u8> {
    let asked_for = told_to_end || ended == Ended::Exit(0);
    (asked_for || !was_ready).then(|| u8::try_from(ended.code()).unwrap_or(1))
}

fn words(ended: Ended) -> String {
    match ended {
        Ended::Exit(code) => format!("exit code {code}"),
        Ended::Signal(signal) => format!("killed by signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_started_again_unless_it_was_told_to_end_or_never_was_ready() {
        for ended in [Ended::Signal(9), Ended::Signal(6), Ended::Exit(1), Ended::Exit(101)] {
            assert_eq!(over(ended, false, true), None, "{ended:?}");
            assert_eq!(over(ended, true, true), Some(ended.code() as u8));
            assert_eq!(over(ended, false, false), Some(ended.code() as u8), "`up` tells why");
        }
        assert_eq!(over(Ended::Exit(0), false, true), Some(0), "somebody told the daemon itself");
        assert_eq!((over(STARTS_ANEW, false, true), over(STARTS_ANEW, true, true)), (None, Some(ANEW)));
    }
}
