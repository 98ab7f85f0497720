//! What is made of files, and made anew when they change while the process runs: certificates, authorities. The files are
//! looked at when the thing is used, at most once a second, so idle means idle. I/O: asks for times of files, and whatever
//! making the thing reads. Called by [`crate::tls`], and by the API server for `--client-ca-file`.
//!
//! ```text
//!   ca.crt      A ─────────── half of B ──── B ─────────────
//!   used           ·    ·          ·              ·     ·
//!   stamps        same same      other          other  same
//!   made of        A    A    A, and a warning     B     B
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// How often files are looked at, at most: handshakes come by the thousand.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What of a file changes when it is written or replaced: its time and its inode's number.
pub type Stamp = (SystemTime, u64);

/// The stamp of a file; none when it isn't there.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, std::os::unix::fs::MetadataExt::ino(&file)))
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| stamp(path)).collect()
}

/// See the module's head.
pub struct Reloaded<T> {
    paths: Vec<PathBuf>,
    make: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    held: Mutex<Held<T>>,
}

struct Held<T> {
    made: T,
    stamps: Vec<Option<Stamp>>,
    looked: Instant,
}

impl<T: Clone> Reloaded<T> {
    /// Makes the thing, which must come of these files alone; fails as `make` does.
    pub fn new<E: fmt::Display>(
        paths: Vec<PathBuf>,
        make: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Reloaded<T>, E> {
        // Before they are read: what changes meanwhile is seen at the next look.
        let stamps = stamps(&paths);
        let held = Mutex::new(Held { made: make()?, stamps, looked: Instant::now() });
        Ok(Reloaded { paths, make: Box::new(move || make().map_err(|error| error.to_string())), held })
    }

    /// As the files are now. Files that can't be used, as when one of two is not replaced yet, leave what was made before;
    /// that is told, and tried again.
    pub fn current(&self) -> T {
        self.current_at(Instant::now())
    }

    fn current_at(&self, now: Instant) -> T {
        let mut held = self.held.lock();
        if now.saturating_duration_since(held.looked) >= LOOK_AGAIN {
            held.looked = now;
            let stamps = stamps(&self.paths);
            if stamps != held.stamps {
                match (self.make)() {
                    Ok(made) => (held.made, held.stamps) = (made, stamps),
                    Err(error) => tracing::warn!(%error, "a file changed and can't be used; what it held before stays"),
                }
            }
        }
        held.made.clone()
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reloaded").field(&self.paths).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_leaves_what_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("number");
        // By another name each time, so that the stamp differs however coarse the clock of the files is.
        let write = |text: &str| {
            let new = dir.path().join(format!("new-{text}"));
            std::fs::write(&new, text).expect("written");
            std::fs::rename(&new, &file).expect("in its place");
        };
        write("1");
        let path = file.clone();
        let read = move || {
            std::fs::read_to_string(&path).map_err(|e| e.to_string())?.parse::<i32>().map_err(|e| e.to_string())
        };
        let number = Reloaded::new(vec![file.clone()], read).expect("a number");
        let start = Instant::now();
        let at = |second: u64| number.current_at(start + LOOK_AGAIN * second as u32);
        assert_eq!(at(0), 1);
        write("2");
        assert_eq!((at(0), at(1)), (1, 2), "looked at once a second");
        write("none");
        assert_eq!((at(2), at(3)), (2, 2));
        write("4");
        assert_eq!(at(4), 4);
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(at(5), 4);
    }
}
