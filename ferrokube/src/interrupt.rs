//! Ctrl-C while `up` waits: the daemon is in a process group of its own and would go on starting unseen. Called by `up`.

use std::sync::Arc;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Host;
use crate::process::Daemon;

/// As a shell tells that SIGINT ended a command.
pub const CODE: u8 = 130;

/// Hands SIGINT, SIGTERM and SIGHUP on to what is starting; a second one kills it. When it is dropped, and
/// while there is no daemon, they end this process.
pub struct Interrupts {
    watched: Arc<Mutex<Watched>>,
}

#[derive(Default)]
struct Watched {
    starting: Option<(Daemon, Host)>,
    came: bool,
}

impl Interrupts {
    pub fn watch() -> Result<Interrupts> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("signals")?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
        let mut terminate = signal(SignalKind::terminate()).context("signals")?;
        let mut hangup = signal(SignalKind::hangup()).context("signals")?;
        drop(entered);
        let watched = Arc::new(Mutex::new(Watched::default()));
        let seen = Arc::clone(&watched);
        std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                    }
                    seen.lock().take();
                }
            });
        });
        Ok(Interrupts { watched })
    }

    /// From now on this supervisor and its daemon are what an interrupt ends.
    pub fn end(&self, supervisor: Daemon, host: &Host) {
        self.watched.lock().starting = Some((supervisor, host.clone()));
    }

    pub fn came(&self) -> bool {
        self.watched.lock().came
    }
}

impl Watched {
    fn take(&mut self) {
        let Some((supervisor, host)) = &self.starting else { std::process::exit(CODE.into()) };
        supervisor.signal(if self.came { Signal::KILL } else { Signal::TERM });
        if self.came
            && let Some(daemon) = Daemon::find(host)
        {
            daemon.signal(Signal::KILL);
        }
        self.came = true;
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.watched.lock().starting = None;
    }
}
