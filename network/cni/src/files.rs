//! Records that only root may read, whatever the umask of the caller: by name they tell which container has which
//! address. Called by all that keeps records. I/O.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const DIR: u32 = 0o700;
const FILE: u32 = 0o600;

/// Makes a directory and those above it that are missing; one that is there already is closed to others.
pub fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIR).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(DIR))
}

/// Writes a file anew.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(FILE).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(FILE))?;
    file.write_all(bytes.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_closed_also_where_an_older_version_left_them_open() {
        let dir = tempfile::tempdir().unwrap();
        let (below, file) = (dir.path().join("cni/addresses"), dir.path().join("cni/addresses/10.0.0.2"));
        fs::create_dir_all(&below).unwrap();
        fs::write(&file, "old").unwrap();
        make_dir(&below).unwrap();
        write(&file, "new").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&below), mode(&file)), (DIR, FILE));
        assert_eq!(fs::read_to_string(file).unwrap(), "new");
    }
}
