//! Files of the node that a configuration names. Does I/O.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// O_NONBLOCK: what turns out to be a pipe is not waited for.
const NONBLOCK: i32 = 0o4000;

/// The text of a file, as far as it may be long. Pipes and devices are no files.
pub fn read(path: &Path, most: u64) -> std::io::Result<String> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_none_is_not_waited_for() {
        assert!(read(Path::new("/dev/zero"), 10).is_err() && read(Path::new("/proc/self"), 10).is_err());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        std::fs::write(&file, "127.0.0.1 a b c").unwrap();
        assert_eq!(read(&file, 9).unwrap(), "127.0.0.1");
    }
}
