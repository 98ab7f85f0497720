//! Mounts and directories of pods: what is a mount point, what is mounted below, how all of it goes, and what a former life
//! left. Does I/O. `manager` and `set_up` call.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use linux::root::Beneath;

use super::plan::{Actual, Key, PodDir, State};

/// The directory of the places to which subpaths are bound, in a pod's.
pub const SUBPATHS: &str = "volume-subpaths";

pub fn tmpfs(path: &Path, options: &str) -> io::Result<()> {
    linux::mount::mount("tmpfs", path, options, linux::mount::Attributes::default())
}

/// A directory is a mount point when it lies on another device than its parent.
pub fn is_mount_point(path: &Path) -> bool {
    let (Ok(own), Some(Ok(above))) = (fs::metadata(path), path.parent().map(fs::metadata)) else { return false };
    own.dev() != above.dev()
}

/// Unmounts what is mounted there and below, then removes the files. Nothing is followed out of the directory. Done when
/// there is no such directory.
pub fn remove(dir: &Path) -> io::Result<()> {
    let (Some(pods), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::Error::other("not below the directory of a pod"));
    };
    match fs::symlink_metadata(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    for point in mounts_below(dir)? {
        linux::mount::detach(&point)?;
    }
    // A mount that stayed would be emptied with the rest.
    if let Some(left) = mounts_below(dir)?.first() {
        return Err(io::Error::other(format!("{} is still mounted", left.display())));
    }
    Beneath::open(pods)?.remove_tree(name)
}

/// Mount points at and below a directory, the newest first: what is mounted over another goes before it.
fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    // The directory itself may be a link that somebody left: what is mounted behind it is not ours.
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(Vec::new()) };
    let dir = fs::canonicalize(parent)?.join(name);
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(unescape).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|p| p.starts_with(&dir)).collect();
    below.reverse();
    Ok(below)
}

/// The kernel writes blanks in paths as octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// What there is of all pods, as a kubelet that starts finds it.
pub fn scan(pods: &Path) -> Actual {
    let found = names(pods).into_iter().filter_map(|uid| Some((uid.clone(), scan_pod(&pods.join(&uid))?)));
    found.collect()
}

/// What there is of one pod; `None` when there is nothing. Whether a volume is whole can't be seen.
pub fn scan_pod(dir: &Path) -> Option<PodDir> {
    fs::symlink_metadata(dir).ok()?;
    let mut volumes = BTreeMap::new();
    let kinds = dir.join("volumes");
    for directory in names(&kinds) {
        for name in names(&kinds.join(&directory)) {
            volumes.insert(Key { directory: Some(directory.clone()), name }, State::Uncertain);
        }
    }
    Some(PodDir { volumes, subpaths: fs::symlink_metadata(dir.join(SUBPATHS)).is_ok(), failed: None })
}

/// Directories in a directory. A link is none: it would lead out of the pod's. It goes with the directory it lies in, as
/// does whatever has a name that is no text, for none of ours has.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EmptyDirVolumeSource;

    use super::super::set_up::empty_dir;
    use super::*;

    #[test]
    fn a_pod_directory_goes_with_its_mounts() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("pod");
        let source = EmptyDirVolumeSource { medium: Some("Memory".into()), ..EmptyDirVolumeSource::default() };
        let volume = dir.join("volumes/x/y");
        empty_dir(&volume, &source, Some(5), Some(1 << 20)).unwrap();
        empty_dir(&volume, &source, Some(5), Some(1 << 20)).unwrap();
        let meta = fs::metadata(&volume).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.gid()), (0o2777, 5));
        assert_eq!(mounts_below(&dir).unwrap().len(), 1, "a second set-up mounts nothing");
        fs::write(volume.join("f"), "x").unwrap();
        let other = root.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "k").unwrap();
        fs::create_dir_all(dir.join("volumes/z")).unwrap();
        std::os::unix::fs::symlink(&other, dir.join("volumes/z/link")).unwrap();
        remove(&dir).unwrap();
        assert!(!dir.exists());
        assert!(other.join("kept").exists(), "a link that the pod left leads its removal nowhere");
        remove(&dir).unwrap();
    }

    #[test]
    fn what_a_former_life_left_is_found_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (pods, other) = (root.path().join("pods"), root.path().join("other"));
        fs::create_dir_all(pods.join("u/volumes/kubernetes.io~empty-dir/e")).unwrap();
        fs::create_dir_all(pods.join("u").join(SUBPATHS).join("e/c/0")).unwrap();
        fs::create_dir_all(pods.join("bare")).unwrap();
        fs::create_dir_all(other.join("x")).unwrap();
        std::os::unix::fs::symlink(&other, pods.join("u/volumes/kubernetes.io~secret")).unwrap();
        std::os::unix::fs::symlink(&other, pods.join("u/volumes/kubernetes.io~empty-dir/l")).unwrap();
        std::os::unix::fs::symlink(&other, pods.join("linked")).unwrap();
        let found = scan(&pods);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["bare", "u"]);
        let key = Key { directory: Some("kubernetes.io~empty-dir".into()), name: "e".into() };
        assert_eq!(found["u"].volumes, BTreeMap::from([(key, State::Uncertain)]));
        assert!(found["u"].subpaths && !found["bare"].subpaths);
        assert_eq!(scan_pod(&pods.join("gone")), None);
    }

    #[test]
    fn a_link_in_the_place_of_a_volume_goes_and_what_is_mounted_behind_it_stays() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let (volume, other) = (root.path().join("volume"), root.path().join("other"));
        fs::create_dir(&other).unwrap();
        tmpfs(&other, "mode=0755").unwrap();
        std::os::unix::fs::symlink(&other, &volume).unwrap();
        remove(&volume).unwrap();
        assert!(fs::symlink_metadata(&volume).is_err() && is_mount_point(&other));
        linux::mount::detach(&other).unwrap();
    }
}
