//! How a volume of each kind is made. Does I/O: directories, modes, tmpfs, files. Called by the rows of `plugins`; all of
//! it is idempotent, for a kubelet that was killed makes everything again under the pods that run.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Volume};
use linux::root::{Beneath, Owner};

use super::atomic;
use super::disk::{is_mount_point, tmpfs};
use super::payload::Payload;
use crate::pod::quantity;

/// A volume to be made.
pub struct SetUp {
    pub volume: Volume,
    pub path: PathBuf,
    /// The files that it is to hold, where they are the kubelet's.
    pub files: Payload,
    /// The pod's fsGroup.
    pub group: Option<u32>,
    /// Bytes: a volume in memory has no more than the node gives pods.
    pub node_memory: Option<i64>,
}

pub fn empty_dir_volume(job: &SetUp) -> Result<(), String> {
    let source = job.volume.empty_dir.clone().unwrap_or_default();
    empty_dir(&job.path, &source, job.group, job.node_memory).map_err(|e| e.to_string())
}

pub fn host_path_volume(job: &SetUp) -> Result<(), String> {
    check_host_path(&job.volume.host_path.clone().unwrap_or_default())
}

pub fn files_on_disk(job: &SetUp) -> Result<(), String> {
    fs::create_dir_all(&job.path).and_then(|()| files(job)).map_err(|e| e.to_string())
}

/// What is secret never reaches the disk.
pub fn files_in_memory(job: &SetUp) -> Result<(), String> {
    let mounted = |path: &Path| if is_mount_point(path) { Ok(()) } else { tmpfs(path, "mode=0755") };
    let made = fs::create_dir_all(&job.path).and_then(|()| mounted(&job.path)).and_then(|()| files(job));
    made.map_err(|e| e.to_string())
}

fn files(job: &SetUp) -> io::Result<()> {
    // Nobody but the kubelet writes here: containers get it read-only, and the mode says so, too.
    give(&job.path, job.group, 0o755)?;
    atomic::write(&job.path, &job.files, job.group).map(drop)
}

pub(super) fn empty_dir(
    path: &Path,
    source: &EmptyDirVolumeSource,
    group: Option<u32>,
    node_memory: Option<i64>,
) -> io::Result<()> {
    let fresh = !path.exists();
    fs::create_dir_all(path)?;
    match source.medium.as_deref().unwrap_or("") {
        "" => {}
        "Memory" => {
            if !is_mount_point(path) {
                let limit = source.size_limit.as_ref().map(quantity::value).filter(|s| *s > 0);
                let size = match (limit, node_memory) {
                    (Some(limit), Some(node)) => Some(limit.min(node)),
                    (limit, node) => limit.or(node),
                };
                let size = size.map(|s| format!(",size={s}")).unwrap_or_default();
                tmpfs(path, &format!("mode=0777{size}"))?;
            }
        }
        other => return Err(io::Error::other(format!("emptyDir medium {other} is not supported by this kubelet"))),
    }
    if fresh || is_mount_point(path) {
        give(path, group, 0o777)?;
    }
    Ok(())
}

/// Sets mode and group of a volume's directory; files made in it get the pod's group.
fn give(path: &Path, group: Option<u32>, mode: u32) -> io::Result<()> {
    let dir = Beneath::open(path)?;
    if group.is_some() {
        dir.set_owner(Owner { user: None, group })?;
    }
    dir.set_mode(if group.is_some() { mode | 0o2000 } else { mode })
}

/// Upstream's checks and what is made when the type asks for it.
fn check_host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or("");
    let meta = fs::metadata(path);
    let wrong = |what: &str| Err(format!("hostPath type check failed: {} is not a {what}", path.display()));
    let made = |done: io::Result<()>| done.map_err(|e| format!("hostPath {}: {e}", path.display()));
    let is = |test: fn(&fs::FileType) -> bool| meta.as_ref().is_ok_and(|m| test(&m.file_type()));
    match kind {
        "DirectoryOrCreate" if meta.is_err() => {
            made(fs::create_dir_all(path).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755))))
        }
        "FileOrCreate" if meta.is_err() => made(
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|f| f.set_permissions(fs::Permissions::from_mode(0o644))),
        ),
        "Directory" | "DirectoryOrCreate" if !is(fs::FileType::is_dir) => wrong("directory"),
        "File" | "FileOrCreate" if !is(fs::FileType::is_file) => wrong("file"),
        "Socket" if !is(FileTypeExt::is_socket) => wrong("socket file"),
        "CharDevice" if !is(FileTypeExt::is_char_device) => wrong("character device"),
        "BlockDevice" if !is(FileTypeExt::is_block_device) => wrong("block device"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_are_checked_or_made() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, kind: &str| HostPathVolumeSource {
            path: dir.path().join(name).to_string_lossy().into_owned(),
            type_: Some(kind.to_owned()),
        };
        assert!(check_host_path(&at("a", "Directory")).unwrap_err().contains("is not a directory"));
        check_host_path(&at("a/b", "DirectoryOrCreate")).unwrap();
        check_host_path(&at("a/b", "Directory")).unwrap();
        check_host_path(&at("f", "FileOrCreate")).unwrap();
        assert!(check_host_path(&at("f", "Socket")).is_err());
        check_host_path(&at("nothing", "")).unwrap();
    }
}
