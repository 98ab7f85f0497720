//! A hosts file of the node, followed. Does I/O.
//!
//! No timer: a question after the time of `reload` has the file looked at beside it, and what was read before is the
//! answer until then.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::corefile::Hosts;
use crate::hosts::Entries;

/// Lists of advertisers have ten mebibytes.
const MOST_BYTES: u64 = 32 << 20;

/// The names of one `hosts`, beside those in the configuration itself.
#[derive(Debug)]
pub struct HostsFile {
    state: Arc<State>,
    path: Option<PathBuf>,
    reload: Duration,
}

#[derive(Debug)]
struct State {
    read: Mutex<(Arc<Entries>, Instant, Option<SystemTime>)>,
    reading: AtomicBool,
}

impl HostsFile {
    /// Reads the file, if the settings name one. One that is not there has no names.
    pub fn new(settings: &Hosts) -> Self {
        let entries = match &settings.file {
            None => settings.given.clone(),
            Some(path) => read(path).unwrap_or_default(),
        };
        let changed = settings.file.as_deref().and_then(modified);
        let read = Mutex::new((Arc::new(entries), Instant::now(), changed));
        let state = Arc::new(State { read, reading: AtomicBool::new(false) });
        HostsFile { state, path: settings.file.clone(), reload: settings.reload }
    }

    /// The names as last read.
    pub fn entries(&self) -> Arc<Entries> {
        let read = self.state.read.lock();
        let old = self.path.as_ref().filter(|_| !self.reload.is_zero() && read.1.elapsed() >= self.reload);
        if let Some(path) = old
            && let Ok(runtime) = Handle::try_current()
            && !self.state.reading.swap(true, Ordering::Relaxed)
        {
            let (state, path) = (self.state.clone(), path.clone());
            runtime.spawn_blocking(move || {
                state.look(&path);
                state.reading.store(false, Ordering::Relaxed);
            });
        }
        read.0.clone()
    }
}

impl State {
    fn look(&self, path: &Path) {
        let changed = modified(path);
        let same = self.read.lock().2 == changed;
        let found = if same { None } else { Some(read(path).unwrap_or_default()) };
        let mut state = self.read.lock();
        state.1 = Instant::now();
        if let Some(entries) = found {
            (state.0, state.2) = (Arc::new(entries), changed);
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn read(path: &Path) -> Option<Entries> {
    let text = crate::files::read(path, MOST_BYTES);
    let told = |error: &std::io::Error| tracing::warn!(file = %path.display(), %error, "the hosts file can't be read");
    text.inspect_err(told).ok().map(|text| Entries::read(&text))
}
