//! Records of the node's range and of its packets' size, by which the next life knows them before anybody has spoken. I/O:
//! a file each, whole or not at all. Called by `bridge`.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

/// None when there is none, or none that can be read: it will be said again.
pub fn read<T: FromStr>(file: &Path) -> Option<T> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// On the disk when it returns.
pub fn write<T: FromStr + Display + PartialEq>(file: &Path, value: &T) -> io::Result<()> {
    if read::<T>(file).as_ref() == Some(value) {
        return Ok(()); // on a disk that is full it could not be written anew
    }
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".new");
    let mut new = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    new.write_all(value.to_string().as_bytes())?;
    new.sync_all()?;
    fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use meta::Prefix;

    use super::*;

    #[test]
    fn the_next_life_knows_the_range_and_a_torn_record_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("range");
        assert_eq!(read::<Prefix>(&file), None);
        let range: Prefix = "10.42.3.0/24".parse().unwrap();
        write(&file, &range).unwrap();
        write(&file, &range).unwrap();
        assert_eq!(read(&file), Some(range));
        fs::write(&file, "10.42.").unwrap();
        assert_eq!(read::<Prefix>(&file), None);
    }
}
