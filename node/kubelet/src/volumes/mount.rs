//! Getting a pod's volumes onto the disk and off it again. Does I/O: files, mounts, the API for objects and tokens.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};
use linux::root::{Beneath, Owner};

use super::payload::{self, Filling, Payload};
use super::tokens::Tokens;
use super::{Sort, all, atomic, sort, trust};
use crate::config::Config;
use crate::io::objects::{Bundles, Objects};
use crate::pod::env::Sources;
use crate::pod::fields::Facts;
use crate::pod::pods;
use crate::pod::quantity;

/// Makes, refreshes and removes volumes. Shared by all pods.
pub struct Volumes {
    config: Arc<Config>,
    objects: Arc<Objects>,
    tokens: Tokens,
}

/// One volume ready to be written: where, and which files it holds (`None`: it has no files of ours).
struct Job {
    volume: Volume,
    sort: Sort,
    path: PathBuf,
    files: Option<Payload>,
}

impl Volumes {
    pub fn new(config: Arc<Config>, objects: Arc<Objects>, client: kube::Client) -> Volumes {
        Volumes { config, objects, tokens: Tokens::new(client) }
    }

    /// Makes every volume of the pod, or says what users should read about the first one that failed. May be repeated.
    pub async fn mount(&self, pod: &Arc<Pod>, facts: &Facts) -> Result<(), String> {
        let dir = self.config.pod_dir(pods::uid(pod));
        let jobs = self.jobs(pod, facts, &dir, false).await?;
        let group = fs_group(pod);
        let limits = facts.allocatable.get("memory").map(quantity::value);
        tokio::task::spawn_blocking(move || jobs.into_iter().try_for_each(|job| set_up(&job, group, limits)))
            .await
            .map_err(|e| format!("the volume task ended: {e}"))?
    }

    /// Brings files of mounted volumes up to date with objects, labels and tokens.
    pub async fn refresh(&self, pod: &Arc<Pod>, facts: &Facts) -> Result<(), String> {
        let dir = self.config.pod_dir(pods::uid(pod));
        let jobs = self.jobs(pod, facts, &dir, true).await?;
        let group = fs_group(pod);
        let write = move || {
            for job in jobs {
                if let Some(files) = &job.files {
                    atomic::write(&job.path, files, group).map_err(|e| failed(&job.volume.name, &e.to_string()))?;
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(write).await.map_err(|e| format!("the volume task ended: {e}"))?
    }

    async fn jobs(&self, pod: &Arc<Pod>, facts: &Facts, dir: &Path, only_files: bool) -> Result<Vec<Job>, String> {
        let (mut maps, mut secrets) = (Vec::new(), Vec::new());
        let (mut wishes, mut selectors) = (Vec::new(), Vec::new());
        for volume in all(pod) {
            let (m, s) = payload::references(volume);
            maps.extend(m);
            secrets.extend(s);
            selectors.extend(trust::references(volume));
            wishes.extend(payload::wishes(volume).into_iter().map(|w| (volume.name.clone(), w)));
        }
        let now = Timestamp::now();
        let ask = wishes.iter().map(|(volume, wish)| async move {
            let token = self.tokens.get(pod, wish, now).await.map_err(|e| failed(volume, &e))?;
            Ok::<_, String>((wish.clone(), token))
        });
        let (sources, bundles, tokens) = futures::join!(
            self.objects.sources(pods::uid(pod), pods::namespace(pod), maps, secrets),
            self.objects.bundles(pods::uid(pod), selectors),
            futures::future::try_join_all(ask)
        );
        let tokens: BTreeMap<_, _> = tokens?.into_iter().collect();
        let (sources, bundles): (Sources, Bundles) = (sources?, bundles?);
        let filling = Filling { pod, facts, sources: &sources, tokens: &tokens, bundles: &bundles };
        let mut jobs = Vec::new();
        let mut room = payload::MOST_BYTES;
        for volume in all(pod) {
            let failed = |e: String| failed(&volume.name, &e);
            let sort = sort(volume).map_err(failed)?;
            let has_files = sort.is_written_by_kubelet();
            if only_files && !has_files {
                continue;
            }
            let files =
                if has_files { Some(payload::payload(volume, &filling, &mut room).map_err(failed)?) } else { None };
            let path = super::path(dir, volume).map_err(failed)?;
            jobs.push(Job { volume: volume.clone(), sort, path, files });
        }
        Ok(jobs)
    }

    /// When tokens of the pod want to be replaced.
    pub fn next_refresh(&self, uid: &str) -> Option<Timestamp> {
        self.tokens.next_refresh(uid)
    }

    /// Unmounts and removes everything of the pod below its directory.
    pub async fn tear_down(&self, uid: &str) -> Result<(), String> {
        self.objects.forget(uid);
        self.tokens.forget(uid);
        let dir = self.config.pod_dir(uid);
        let shown = dir.display().to_string();
        let done = tokio::task::spawn_blocking(move || remove(&dir)).await;
        done.map_err(|e| e.to_string())?.map_err(|e| format!("remove {shown}: {e}"))
    }
}

fn failed(volume: &str, why: &str) -> String {
    format!("MountVolume.SetUp failed for volume \"{volume}\" : {why}")
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pods::spec(pod).security_context.as_ref().and_then(|c| c.fs_group);
    group.and_then(|g| u32::try_from(g).ok())
}

fn set_up(job: &Job, group: Option<u32>, node_memory: Option<i64>) -> Result<(), String> {
    let failed = |e: io::Error| failed(&job.volume.name, &e.to_string());
    match job.sort {
        Sort::HostPath => {
            let source = job.volume.host_path.clone().unwrap_or_default();
            check_host_path(&source).map_err(|e| self::failed(&job.volume.name, &e))
        }
        Sort::Image => Ok(()),
        Sort::EmptyDir => {
            let source = job.volume.empty_dir.clone().unwrap_or_default();
            empty_dir(&job.path, &source, group, node_memory).map_err(failed)
        }
        Sort::ConfigMap | Sort::Secret | Sort::DownwardApi | Sort::Projected => {
            fs::create_dir_all(&job.path).map_err(failed)?;
            // What is secret never reaches the disk.
            if job.sort != Sort::ConfigMap && !is_mount_point(&job.path) {
                tmpfs(&job.path, "mode=0755").map_err(failed)?;
            }
            // Nobody but the kubelet writes here: containers get it read-only, and the mode says so, too.
            give(&job.path, group, 0o755).map_err(failed)?;
            let files = job.files.clone().unwrap_or_default();
            atomic::write(&job.path, &files, group).map(drop).map_err(failed)
        }
    }
}

fn tmpfs(path: &Path, options: &str) -> io::Result<()> {
    linux::mount::mount("tmpfs", path, options, linux::mount::Attributes::default())
}

/// A directory is a mount point when it lies on another device than its parent.
fn is_mount_point(path: &Path) -> bool {
    let (Ok(own), Some(Ok(above))) = (fs::metadata(path), path.parent().map(fs::metadata)) else { return false };
    own.dev() != above.dev()
}

fn empty_dir(
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

/// Unmounts whatever is mounted below, then removes the files. Nothing is followed out of the directory.
fn remove(dir: &Path) -> io::Result<()> {
    let (Some(pods), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::Error::other("not the directory of a pod"));
    };
    if !dir.try_exists()? {
        return Ok(());
    }
    for point in mounts_below(dir)? {
        linux::mount::detach(&point)?;
    }
    // A mount that stayed would be emptied with the rest.
    if let Some(left) = mounts_below(dir)?.first() {
        return Err(io::Error::other(format!("{} is still mounted", left.display())));
    }
    Beneath::open(pods)?.remove_tree(name)
}

/// Mount points below a directory, deepest first.
fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = fs::canonicalize(dir)?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|l| l.split(' ').nth(4)).map(unescape).map(PathBuf::from);
    let mut below: Vec<PathBuf> = points.filter(|p| p.starts_with(&dir) && *p != dir).collect();
    below.reverse();
    Ok(below)
}

/// The kernel writes blanks in paths as octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
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
}
