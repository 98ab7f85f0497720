//! The record of the node's range, by which the next life knows it before the kubelet has spoken. I/O: one file, whole or
//! not at all. Called by `bridge`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use meta::Prefix;

/// None when there is none, or none that can be read: the kubelet will say it again.
pub fn read(file: &Path) -> Option<Prefix> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// On the disk when it returns.
pub fn write(file: &Path, range: Prefix) -> io::Result<()> {
    if read(file) == Some(range) {
        return Ok(()); // on a disk that is full it could not be written anew
    }
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".new");
    let mut new = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    new.write_all(range.to_string().as_bytes())?;
    new.sync_all()?;
    fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_life_knows_the_range_and_a_torn_record_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("range");
        assert_eq!(read(&file), None);
        let range = "10.42.3.0/24".parse().unwrap();
        write(&file, range).unwrap();
        write(&file, range).unwrap();
        assert_eq!(read(&file), Some(range));
        fs::write(&file, "10.42.").unwrap();
        assert_eq!(read(&file), None);
    }
}
