//! What image content may take of the disk: bytes from a stranger are written only while the host keeps room for itself.
//! Does I/O.
//!
//! A few kilobytes can be the packed form of a terabyte, so nothing an image says of its size is believed: what comes is
//! counted as it comes. Called by downloads, by the import of archives and by the unpacker.

use std::io::{self, Read};
use std::path::Path;

/// The share of a file system that stays free whatever is fetched, and its ceiling: enough for the host, its logs and the
/// cluster's store to go on, and for the kubelet to collect garbage.
const KEEP_PART: u64 = 20;
const KEEP_MOST: u64 = 512 << 20;
/// How many inodes stay free at the least, where the file system has a fixed number.
const KEEP_INODES: u64 = 1000;
/// The file system is asked again after so many bytes: others write, too.
pub const STEP: u64 = 16 << 20;

/// Bytes that may still be written below a directory.
pub fn left(dir: &Path) -> io::Result<u64> {
    let fs = rustix::fs::statvfs(dir)?;
    if fs.f_files > 0 && fs.f_favail < KEEP_INODES {
        return Ok(0);
    }
    Ok(usable(fs.f_blocks.saturating_mul(fs.f_frsize), fs.f_bavail.saturating_mul(fs.f_frsize)))
}

fn usable(total: u64, free: u64) -> u64 {
    free.saturating_sub((total / KEEP_PART).min(KEEP_MOST))
}

/// The answer to content that does not fit.
pub fn full(what: &str, left: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::StorageFull,
        format!("{what} takes more than the {left} bytes that the disk has to give"),
    )
}

/// Fails when so many bytes don't fit.
pub fn check(dir: &Path, bytes: u64, what: &str) -> io::Result<()> {
    let left = left(dir)?;
    if bytes > left { Err(full(what, left)) } else { Ok(()) }
}

/// Passes content on as long as there is room for all of it.
#[derive(Debug)]
pub struct Bounded<'a, R> {
    inner: R,
    dir: &'a Path,
    what: &'static str,
    /// What was there at the start; content that is read but not kept counts against it, too.
    at_start: u64,
    seen: u64,
    asked: u64,
}

impl<'a, R: Read> Bounded<'a, R> {
    /// Watches a reader whose content goes to `dir`.
    pub fn new(inner: R, dir: &'a Path, what: &'static str) -> io::Result<Self> {
        Ok(Bounded { inner, dir, what, at_start: left(dir)?, seen: 0, asked: 0 })
    }
}

#[cfg(test)]
impl<R> Bounded<'_, R> {
    /// As if the disk were that small.
    pub fn shrink_to(&mut self, bytes: u64) {
        self.at_start = bytes;
    }
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.seen += n as u64;
        if self.seen > self.at_start {
            return Err(full(self.what, self.at_start));
        }
        if self.seen - self.asked >= STEP {
            self.asked = self.seen;
            if left(self.dir)? < STEP {
                return Err(full(self.what, self.at_start));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_keeps_its_share() {
        assert_eq!(usable(100 << 30, 10 << 30), (10 << 30) - KEEP_MOST);
        assert_eq!(usable(1 << 30, 1 << 20), 0, "a small disk keeps a twentieth");
    }

    #[test]
    fn content_without_end_is_cut_off_before_the_disk_is_full() {
        let dir = std::env::temp_dir();
        let mut bounded = Bounded::new(io::repeat(0), &dir, "a layer").unwrap();
        bounded.shrink_to(3 << 20);
        let error = io::copy(&mut bounded, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("a layer takes more than the 3145728 bytes"), "{error}");
        assert!(check(&dir, u64::MAX, "an image").is_err() && check(&dir, 0, "an image").is_ok());
    }
}
