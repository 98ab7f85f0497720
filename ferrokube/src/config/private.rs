//! Files and directories that only root may enter or read, whole or not at all, on the disk when the call returns: keys,
//! kubeconfigs, records of the cluster; and, as whole, the few that are for everybody. I/O: writes files.

use std::fs;
use std::path::Path;

use crate::fault::best_effort;
use anyhow::{Context, Result};

/// Creates a directory (and its parents) that only its owner may enter.
pub fn private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(|| path.display().to_string())
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    write_private_all(&[(path, bytes)])
}

/// Writes several such files. They go to the disk together, side by side: one after the other would wait for it as
/// many times.
pub fn write_private_all(files: &[(&Path, &[u8])]) -> Result<()> {
    write_all(files, 0o600, None)
}

/// Writes a file that everybody may read, whole or not at all.
pub fn write_shared(path: &Path, bytes: &[u8]) -> Result<()> {
    write_all(&[(path, bytes)], 0o644, None)
}

/// Writes somebody's own file, whole or not at all. It is theirs before it has its name: in a directory of theirs the
/// name may lead anywhere a moment later.
pub fn write_owned(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    write_all(&[(path, bytes)], mode, owner)
}

fn write_all(files: &[(&Path, &[u8])], mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    std::thread::scope(|scope| {
        let write = |(path, bytes)| scope.spawn(move || write_whole(path, bytes, mode, owner));
        let writers: Vec<_> = files.iter().copied().map(write).collect();
        writers.into_iter().zip(files).try_for_each(|(writer, (path, _))| {
            let written = writer.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread broke off")));
            written.with_context(|| path.display().to_string())
        })
    })?;
    // A new name is on the disk when its directory is.
    let directories: std::collections::BTreeSet<_> = files.iter().filter_map(|(path, _)| path.parent()).collect();
    directories.into_iter().try_for_each(|dir| {
        let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
        synced.with_context(|| dir.display().to_string())
    })
}

fn write_whole(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
    if is_so(path, bytes, mode) {
        return Ok(());
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    // Of a write that was cut short; most often there is none.
    best_effort("an old draft", fs::remove_file(&temporary));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    if let Some((uid, gid)) = owner {
        // Homes on another host may not allow it.
        best_effort("the owner of a file", fchown(&file, Some(uid), Some(gid)));
        best_effort("the mode of a file", file.set_permissions(fs::Permissions::from_mode(mode)));
    }
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        best_effort("a draft", fs::remove_file(&temporary));
    }
    written
}

/// The file is as it should be already: on a disk that is full it could not be written anew.
fn is_so(path: &Path, bytes: &[u8], mode: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let so = fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.mode() & 0o7777 == mode);
    so && fs::read(path).is_ok_and(|there| there == bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was given to its owner by its name, after it had it: by then the name could lead to any file of the host.
    #[test]
    fn somebodys_file_is_his_before_it_has_its_name() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().expect("a directory");
        let (other, path) = (dir.path().join("other"), dir.path().join("config"));
        fs::write(&other, "x").expect("written");
        std::os::unix::fs::symlink(&other, &path).expect("a link");
        let before = fs::metadata(&other).expect("there");
        // Who isn't root gives nothing away.
        let owner = if before.uid() == 0 { 12_345 } else { before.uid() };
        write_owned(&path, b"mine", 0o640, Some((owner, before.gid()))).expect("written");
        let (mine, after) = (fs::symlink_metadata(&path).expect("there"), fs::metadata(&other).expect("there"));
        assert!(mine.is_file() && mine.mode() & 0o7777 == 0o640 && mine.uid() == owner);
        assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
    }

    #[test]
    fn a_file_that_is_as_it_should_be_is_not_written_again() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let file = std::env::temp_dir().join(format!("same-{}", std::process::id()));
        write_private(&file, b"a").expect("written");
        let inode = || fs::metadata(&file).map(|m| (m.ino(), m.mode() & 0o777)).expect("there");
        let first = inode();
        write_private(&file, b"a").expect("the same");
        assert_eq!(inode(), first);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("opened");
        write_private(&file, b"a").expect("the same");
        assert_eq!(inode().1, 0o600, "one that others may read is made anew");
        write_private(&file, b"b").expect("another");
        assert_eq!(fs::read(&file).expect("there"), b"b");
        fs::remove_file(file).expect("removed");
    }
}
