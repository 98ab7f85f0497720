//! Writing a set of files so that a reader sees all of the old ones or all of the new ones. Does I/O.
//!
//! Files live in a dated directory; `..data` points to it and is replaced by one rename; users' names are links through
//! `..data`. The layout is upstream's, so programs that watch `..data` work.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use super::payload::{File, Payload};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes `dir` hold exactly the payload. False when it does already. `group`: the pod's fsGroup.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && same(&dir.join(old), payload, group)
    {
        return Ok(false);
    }
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let stamp = format!("{stamp}.{}", jiff::Timestamp::now().subsec_nanosecond().unsigned_abs());
    let fresh = dir.join(&stamp);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        put(&fresh, path, file, group)?;
    }
    let temporary = dir.join(NEW_DATA);
    let _ = fs::remove_file(&temporary);
    symlink(&stamp, &temporary)?;
    fs::rename(&temporary, dir.join(DATA))?;
    links(dir, payload)?;
    if let Some(old) = old.filter(|o| o.components().count() == 1) {
        let _ = fs::remove_dir_all(dir.join(old));
    }
    Ok(true)
}

fn put(root: &Path, path: &str, file: &File, group: Option<u32>) -> io::Result<()> {
    let target = root.join(path);
    if let Some(parent) = target.parent().filter(|p| *p != root) {
        fs::create_dir_all(parent)?;
    }
    fs::write(&target, &file.data)?;
    fs::set_permissions(&target, fs::Permissions::from_mode(wanted_mode(file, group)))?;
    if file.owner.is_some() || group.is_some() {
        chown(&target, file.owner, group)?;
    }
    Ok(())
}

/// The pod's group may read what its owner may read.
fn wanted_mode(file: &File, group: Option<u32>) -> u32 {
    if group.is_some() { file.mode | 0o440 } else { file.mode }
}

fn same(dir: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let matches = |(path, file): (&String, &File)| {
        let target = dir.join(path);
        let Ok(meta) = fs::symlink_metadata(&target) else { return false };
        let mode = meta.mode() & 0o7777 == wanted_mode(file, group);
        meta.is_file() && mode && fs::read(&target).is_ok_and(|data| data == file.data)
    };
    payload.iter().all(matches) && count(dir) == payload.len()
}

fn count(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().map(|e| if e.file_type().is_ok_and(|t| t.is_dir()) { count(&e.path()) } else { 1 }).sum()
}

/// Top-level names point through `..data`; names that went away are removed.
fn links(dir: &Path, payload: &Payload) -> io::Result<()> {
    let names: BTreeSet<&str> = payload.keys().filter_map(|p| p.split('/').next()).collect();
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !names.contains(name.as_ref()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    for name in names {
        let link = dir.join(name);
        let target = Path::new(DATA).join(name);
        if fs::read_link(&link).ok().as_deref() != Some(target.as_path()) {
            let _ = fs::remove_file(&link);
            symlink(&target, &link)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File { data: text.as_bytes().to_vec(), mode: 0o600, owner: None }
    }

    #[test]
    fn an_update_swaps_all_files_at_once_and_leaves_nothing_old() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let mut payload = Payload::from([("a".to_owned(), file("1")), ("d/b".to_owned(), file("2"))]);
        assert!(write(at, &payload, None).unwrap());
        assert!(!write(at, &payload, None).unwrap(), "what is the same is not written");
        let first = fs::read_link(at.join("..data")).unwrap();
        assert_eq!(fs::read_to_string(at.join("d/b")).unwrap(), "2");
        payload.remove("a");
        payload.insert("d/b".to_owned(), file("3"));
        assert!(write(at, &payload, None).unwrap());
        assert_ne!(fs::read_link(at.join("..data")).unwrap(), first);
        assert_eq!(fs::read_to_string(at.join("d/b")).unwrap(), "3");
        assert!(!at.join("a").exists() && !at.join(first).exists());
    }
}
