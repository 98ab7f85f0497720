//! Writing a set of files so that a reader sees all of the old ones or all of the new ones. Does I/O.
//!
//! Files live in a dated directory; `..data` points to it and is replaced by one rename; users' names are links through
//! `..data`. The layout is upstream's, so programs that watch `..data` work.
//!
//! Containers see the directory, so nothing in it is taken for what it should be: all work goes through one descriptor
//! that takes no link, the dated directory can't be guessed nor entered before it is whole, and what is not in our own
//! form is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use linux::root::{Beneath, Owner};
use rustix::fs::FileType;

use super::payload::{File, Payload};
use crate::error::best_effort;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
/// Others may enter the dated directory only when it is whole.
const UNFINISHED: u32 = 0o700;
const FINISHED: u32 = 0o755;

/// Makes `dir` hold exactly the payload. False when it does already. `group`: the pod's fsGroup.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    let root = Beneath::open(dir)?;
    let old = current(&root);
    if let Some(old) = &old
        && root.dir(old).is_ok_and(|dir| same(&dir, payload, group))
    {
        links(&root, payload, old)?;
        return Ok(false);
    }
    // What a former try or life left unfinished, or each try would leave one more.
    for (name, _) in root.entries()? {
        if name.to_str().is_some_and(is_dated) && Some(&name) != old.as_ref() {
            root.remove_tree(&name)?;
        }
    }
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S");
    let stamp = format!("{stamp}.{}", rand::random::<u64>());
    if let Err(error) = turn_to(&root, &stamp, payload, group, old.is_some()) {
        best_effort("remove a half-written directory", root.remove_tree(&stamp));
        return Err(error);
    }
    links(&root, payload, OsStr::new(&stamp))?;
    Ok(true)
}

/// Fills the new dated directory and lets `..data` point to it.
fn turn_to(root: &Beneath, stamp: &str, payload: &Payload, group: Option<u32>, linked: bool) -> io::Result<()> {
    let fresh = root.make_dir(stamp, UNFINISHED)?;
    for (path, file) in payload {
        put(&fresh, path, file, group)?;
    }
    fresh.set_mode(FINISHED)?;
    root.remove_tree(NEW_DATA)?;
    root.symlink(stamp, NEW_DATA)?;
    if !linked {
        // A link can't be renamed over a directory.
        root.remove_tree(DATA)?;
    }
    root.rename(NEW_DATA, DATA)
}

/// The dated directory that `..data` points to, if the link is one that we could have made.
fn current(root: &Beneath) -> Option<OsString> {
    let target = root.read_link(DATA).ok()?;
    let name = target.to_str()?;
    is_dated(name).then(|| OsString::from(name))
}

/// `..2026_01_31_23_59_59.` and a number.
fn is_dated(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts = |(date, random): (&str, &str)| number(random) && date.split('_').all(number);
    name.strip_prefix("..").and_then(|rest| rest.split_once('.')).is_some_and(parts)
}

fn put(root: &Beneath, path: &str, file: &File, group: Option<u32>) -> io::Result<()> {
    if let Some(parent) = Path::new(path).parent() {
        root.make_dirs(parent, FINISHED)?;
    }
    root.write_new(path, &file.data, wanted_mode(file, group), Owner { user: file.owner, group })
}

/// The pod's group may read what its owner may read.
fn wanted_mode(file: &File, group: Option<u32>) -> u32 {
    if group.is_some() { file.mode | 0o440 } else { file.mode }
}

fn same(dir: &Beneath, payload: &Payload, group: Option<u32>) -> bool {
    let matches = |(path, file): (&String, &File)| {
        let mode = dir.stat(path).is_ok_and(|stat| stat.st_mode & 0o7777 == wanted_mode(file, group));
        mode && dir.read(path, file.data.len() as u64).is_ok_and(|data| data == file.data)
    };
    payload.iter().all(matches) && holds_nothing_else(dir, payload)
}

/// Every directory that the payload names, and only those are looked into, holds its names alone.
fn holds_nothing_else(dir: &Beneath, payload: &Payload) -> bool {
    let mut wanted: BTreeMap<&Path, BTreeSet<&OsStr>> = BTreeMap::from([(Path::new(""), BTreeSet::new())]);
    for path in payload.keys() {
        let mut at = Path::new(path);
        while let (Some(parent), Some(name)) = (at.parent(), at.file_name()) {
            wanted.entry(parent).or_default().insert(name);
            at = parent;
        }
    }
    wanted.iter().all(|(at, names)| {
        let found = dir.dir(at).and_then(|d| d.entries());
        found.is_ok_and(|found| found.iter().all(|(name, _)| names.contains(name.as_os_str())))
    })
}

/// Top-level names point through `..data`; whatever else lies there goes, older dated directories included.
fn links(root: &Beneath, payload: &Payload, dated: &OsStr) -> io::Result<()> {
    let names: BTreeSet<&OsStr> = payload.keys().filter_map(|p| p.split('/').next()).map(OsStr::new).collect();
    let mut right = BTreeSet::new();
    for (name, kind) in root.entries()? {
        if name == DATA || name == dated {
            continue;
        }
        let wanted = names.get(name.as_os_str()).copied();
        let leads = |wanted: &OsStr| root.read_link(wanted).is_ok_and(|target| target == Path::new(DATA).join(wanted));
        match wanted.filter(|w| kind == FileType::Symlink && leads(w)) {
            Some(wanted) => drop(right.insert(wanted)),
            None => root.remove_tree(&name)?,
        }
    }
    for name in names.difference(&right) {
        root.symlink(Path::new(DATA).join(name), name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn file(text: &str) -> File {
        File { data: text.as_bytes().to_vec(), mode: 0o600, owner: None }
    }

    fn payload(entries: &[(&str, &str)]) -> Payload {
        entries.iter().map(|(name, text)| ((*name).to_owned(), file(text))).collect()
    }

    /// What a container that could write into the directory would do (it can't any more: the mount is read-only): swap
    /// the dated directory for a link while the kubelet is still writing.
    #[test]
    fn a_dated_directory_swapped_for_a_link_while_it_is_written_leads_nowhere() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let (dir, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = fs::metadata(host.path()).unwrap().mode();
        let at = dir.path().to_owned();
        let target = host.path().to_owned();
        let done = std::sync::Arc::new(AtomicBool::new(false));
        let over = done.clone();
        let attacker = std::thread::spawn(move || {
            let mut swaps = 0;
            while !over.load(Ordering::Relaxed) {
                for name in fs::read_dir(&at).unwrap().flatten().map(|e| e.file_name()) {
                    let path = at.join(&name);
                    let link = fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink());
                    if !link && name.to_string_lossy().starts_with("..2") {
                        swaps += 1;
                        if fs::rename(&path, at.join(format!("moved-{swaps}"))).is_ok() {
                            let _ = symlink(&target, &path);
                        }
                    }
                }
            }
            swaps
        });
        let keys: Vec<String> = (0..1000).map(|i| format!("k{i:05}")).collect();
        for round in 0..3 {
            let text = round.to_string();
            let payload = payload(&keys.iter().map(|k| (k.as_str(), text.as_str())).collect::<Vec<_>>());
            let _ = write(dir.path(), &payload, None);
        }
        done.store(true, Ordering::Relaxed);
        assert!(attacker.join().unwrap() > 0, "the attack took place");
        assert_eq!(fs::read_dir(host.path()).unwrap().count(), 0, "nothing was written on the host");
        assert_eq!(fs::metadata(host.path()).unwrap().mode(), before, "nor was a mode changed");
        let last = payload(&[("k", "v")]);
        assert!(write(dir.path(), &last, None).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("k")).unwrap(), "v", "and it recovers");
    }

    #[test]
    fn a_data_link_that_leads_out_is_replaced_and_nothing_behind_it_removed() {
        let pod = tempfile::tempdir().unwrap();
        let (a, b) = (pod.path().join("a"), pod.path().join("b"));
        for target in ["x", "..", "/", ".", "../b", "..2026_01_01_00_00_00.1/../../b"] {
            fs::create_dir_all(&a).unwrap();
            fs::create_dir_all(&b).unwrap();
            fs::write(b.join("kept"), "k").unwrap();
            write(&a, &payload(&[("k", "one")]), None).unwrap();
            fs::remove_file(a.join("..data")).unwrap();
            symlink("..", a.join("x")).unwrap();
            symlink(target, a.join("..data")).unwrap();
            assert!(write(&a, &payload(&[("k", "two")]), None).unwrap());
            assert_eq!(fs::read_to_string(a.join("k")).unwrap(), "two", "{target}");
            assert_eq!(fs::read_to_string(b.join("kept")).unwrap(), "k", "{target}");
            assert!(fs::symlink_metadata(a.join("x")).is_err(), "what is not ours is gone");
            fs::remove_dir_all(&a).unwrap();
        }
        assert!(is_dated("..2026_01_31_23_59_59.17") && !is_dated("..") && !is_dated("..data") && !is_dated("..1/.2"));
    }

    #[test]
    fn comparing_and_linking_follow_nothing() {
        let (dir, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = dir.path();
        let wanted = payload(&[("d/k", "v")]);
        write(at, &wanted, None).unwrap();
        let dated = at.join(fs::read_link(at.join("..data")).unwrap());
        // The same content outside, reached through links: it must not count as ours, nor be touched.
        fs::write(host.path().join("k"), "v").unwrap();
        fs::remove_dir_all(dated.join("d")).unwrap();
        symlink(host.path(), dated.join("d")).unwrap();
        fs::remove_file(at.join("d")).unwrap();
        symlink(host.path(), at.join("d")).unwrap();
        assert!(write(at, &wanted, None).unwrap());
        assert_eq!(fs::read_link(at.join("d")).unwrap(), Path::new("..data/d"));
        assert_eq!(fs::read_to_string(host.path().join("k")).unwrap(), "v");
        assert_eq!(fs::read_dir(host.path()).unwrap().count(), 1);
        // A pipe in the place of a file would hold the kubelet for ever.
        let dated = at.join(fs::read_link(at.join("..data")).unwrap());
        fs::remove_file(dated.join("d/k")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dated.join("d/k"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert!(write(at, &wanted, None).unwrap());
    }

    #[test]
    fn links_that_a_killed_kubelet_did_not_get_to_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = payload(&[("a", "1"), ("b", "2")]);
        write(dir.path(), &wanted, None).unwrap();
        fs::remove_file(dir.path().join("b")).unwrap();
        fs::create_dir(dir.path().join("..2026_01_01_00_00_00.5")).unwrap();
        assert!(!write(dir.path(), &wanted, None).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("b")).unwrap(), "2");
        assert!(!dir.path().join("..2026_01_01_00_00_00.5").exists(), "half a directory of before is gone");
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

    /// A file that can't be made was tried again every ten seconds, and each try left a copy of all before it.
    #[test]
    fn what_can_not_be_written_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let whole = payload(&[("k", "v")]);
        write(dir.path(), &whole, None).unwrap();
        let count = || fs::read_dir(dir.path()).unwrap().count();
        let before = count();
        for broken in
            [payload(&[("a", "1"), ("z", "2"), ("z/b", "3")]), payload(&[("a", "1"), (&"x".repeat(300), "2")])]
        {
            for _ in 0..3 {
                assert!(write(dir.path(), &broken, None).is_err());
                assert_eq!(count(), before);
                assert_eq!(fs::read_to_string(dir.path().join("k")).unwrap(), "v", "the old files stay");
            }
        }
        // A life that ended in the middle of it.
        fs::create_dir(dir.path().join("..2026_01_31_23_59_59.17")).unwrap();
        assert!(write(dir.path(), &payload(&[("k", "w")]), None).unwrap());
        assert_eq!(count(), before);
    }
}
