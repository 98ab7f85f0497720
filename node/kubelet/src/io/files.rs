//! Waiting for changes of files through one inotify instance a watcher. Does I/O.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// Room for a burst of events; what does not fit is read next time.
const BUFFER: usize = 4096;

/// Watches directories. Dropping it ends the watch.
pub struct Watcher {
    fd: AsyncFd<OwnedFd>,
}

impl Watcher {
    pub fn new() -> io::Result<Watcher> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        // The successor of `new` is unsafe; what it asks for holds here: the descriptor is owned and never changes.
        #[allow(deprecated)]
        let fd = AsyncFd::new(fd)?;
        Ok(Watcher { fd })
    }

    /// Watches what happens to the files of a directory.
    pub fn add_dir(&self, dir: &Path) -> io::Result<()> {
        let flags = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(self.fd.get_ref(), dir, flags)?;
        Ok(())
    }

    /// Returns when something changed since the last call.
    pub async fn changed(&mut self) {
        loop {
            let Ok(mut ready) = self.fd.readable().await else { return std::future::pending().await };
            let mut some = false;
            let mut buffer = [const { std::mem::MaybeUninit::uninit() }; BUFFER];
            let mut reader = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
            while reader.next().is_ok() {
                some = true;
            }
            ready.clear_ready();
            if some {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_written_file_wakes_the_watcher() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::new().unwrap();
        watcher.add_dir(dir.path()).unwrap();
        std::fs::write(dir.path().join("a"), "1").unwrap();
        watcher.changed().await;
        let quiet = tokio::time::timeout(std::time::Duration::from_millis(20), watcher.changed()).await;
        assert!(quiet.is_err(), "one burst wakes once");
    }
}
