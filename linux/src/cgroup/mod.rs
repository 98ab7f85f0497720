//! Control groups of version 1, 2 or both side by side ("hybrid"), behind one interface. Does I/O.
//!
//! The kubelet makes pod groups with it, the runtime container groups. All files are reached below the mount points
//! found at start, so tests run on a plain directory tree. v1: kernel.org admin-guide/cgroup-v1; v2: cgroup-v2.rst.

mod devices;
mod limits;
mod stats;

use std::io;
use std::path::{Path, PathBuf};

pub use devices::DeviceRule;
pub use limits::{Limits, shares_to_weight};
pub use stats::{Stats, oom_kills};

use crate::failure::{Doing, Failure};

/// A mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1Mount {
    /// `["cpu", "cpuacct"]`, or `["name=systemd"]`.
    pub controllers: Vec<String>,
    /// Where the hierarchy's root is: `/sys/fs/cgroup/memory`.
    pub path: PathBuf,
}

/// What this host has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    /// Hierarchies that are mounted; empty on a host of v2 alone.
    pub v1: Vec<V1Mount>,
    /// The v2 tree; with v1 mounts beside it, it holds no controllers but still finds and kills processes.
    pub v2: Option<PathBuf>,
}

/// One group, in all hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    cgroups: Cgroups,
    /// Relative, without a leading slash: "kubepods/burstable/pod…".
    path: String,
}

/// The file of a v2 group that says which controllers its children have.
const SUBTREE: &str = "cgroup.subtree_control";

/// Killing is repeated while new processes appear; a fork bomb in a group without cgroup.kill ends by then.
const KILL_ROUNDS: usize = 500;

impl Cgroups {
    /// Finds the mounts of the calling process.
    ///
    /// # Errors
    /// When /proc can't be read or nothing is mounted.
    pub fn detect() -> Result<Self, Failure> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").doing("read /proc/self/mountinfo")?;
        let found = parse_mounts(&text);
        if found == Cgroups::default() {
            return Err(Failure::new("find cgroups", "no cgroup file system is mounted below /sys/fs/cgroup"));
        }
        Ok(found)
    }

    /// Whether v2 holds the controllers.
    pub fn is_v2(&self) -> bool {
        self.v1.is_empty()
    }

    /// A group by its path from the root: `/kubepods/pod1`. `..` is dropped.
    pub fn group(&self, path: &str) -> Group {
        let parts: Vec<_> = path.split('/').filter(|p| !p.is_empty() && *p != "." && *p != "..").collect();
        Group { cgroups: self.clone(), path: parts.join("/") }
    }

    /// Whether limits of this controller can be set: "memory", "cpu", "pids", ...
    pub fn has(&self, controller: &str) -> bool {
        if !self.is_v2() {
            return self.v1.iter().any(|m| m.controllers.iter().any(|c| c == controller));
        }
        let list = self.v2.as_ref().map(|v2| std::fs::read_to_string(v2.join("cgroup.controllers")));
        matches!(list, Some(Ok(list)) if list.split_whitespace().any(|c| c == controller))
    }

    /// The controllers that the root of v2 hands down to the groups of this host; none on v1, where each has a tree.
    pub fn handed_down(&self) -> Vec<String> {
        let Some(root) = self.v2.as_ref().filter(|_| self.is_v2()) else { return Vec::new() };
        let text = std::fs::read_to_string(root.join(SUBTREE)).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Has the root hand down no more than it did `before`. A controller that another group uses by now stays.
    pub fn take_back(&self, before: &[String]) {
        let Some(root) = &self.v2 else { return };
        for controller in self.handed_down().iter().filter(|now| !before.contains(now)) {
            let _ = std::fs::write(root.join(SUBTREE), format!("-{controller}"));
        }
    }

    fn mount_of(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|m| m.controllers.iter().any(|c| c == controller)).map(|m| m.path.as_path())
    }
}

/// Reads mountinfo; the first mount of each hierarchy counts.
fn parse_mounts(mountinfo: &str) -> Cgroups {
    let mut found = Cgroups::default();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(path), mut right) = (left.split(' ').nth(4), right.split(' ')) else { continue };
        match (right.next(), right.nth(1)) {
            (Some("cgroup2"), _) if found.v2.is_none() => found.v2 = Some(path.into()),
            (Some("cgroup"), Some(options)) => {
                let known = |o: &&str| CONTROLLERS.contains(o) || o.starts_with("name=");
                let controllers: Vec<String> = options.split(',').filter(known).map(str::to_owned).collect();
                if !controllers.is_empty() && !found.v1.iter().any(|m| m.controllers == controllers) {
                    found.v1.push(V1Mount { controllers, path: path.into() });
                }
            }
            _ => {}
        }
    }
    found
}

const CONTROLLERS: [&str; 13] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
];

impl Group {
    /// "kubepods/burstable/pod…", without a leading slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A group below this one.
    pub fn child(&self, name: &str) -> Group {
        self.cgroups.group(&format!("{}/{name}", self.path))
    }

    /// The directories of this group, one a hierarchy.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let v1 = self.cgroups.v1.iter().map(|m| m.path.join(&self.path));
        v1.chain(self.cgroups.v2.iter().map(|v2| v2.join(&self.path))).collect()
    }

    /// The directory where a v1 controller (or, on v2, everything) is set.
    fn dir_of(&self, controller: &str) -> Option<PathBuf> {
        if self.cgroups.is_v2() {
            return self.cgroups.v2.as_ref().map(|v2| v2.join(&self.path));
        }
        self.cgroups.mount_of(controller).map(|m| m.join(&self.path))
    }

    /// Makes the group and its parents in every hierarchy; on v2 the controllers are handed down to it.
    pub fn create(&self) -> Result<(), Failure> {
        for mount in &self.cgroups.v1 {
            let dir = mount.path.join(&self.path);
            std::fs::create_dir_all(&dir).doing(format_args!("make cgroup {}", dir.display()))?;
            if mount.controllers.iter().any(|c| c == "cpuset") {
                inherit_cpuset(&mount.path, &self.path)?;
            }
        }
        let Some(v2) = &self.cgroups.v2 else { return Ok(()) };
        let mut dir = v2.clone();
        for name in self.path.split('/').filter(|name| !name.is_empty()) {
            if self.cgroups.is_v2() {
                hand_down_controllers(&dir);
            }
            dir.push(name);
            if !dir.is_dir() {
                std::fs::create_dir_all(&dir).doing(format_args!("make cgroup {}", dir.display()))?;
            }
        }
        Ok(())
    }

    /// Whether it is there (in the first hierarchy).
    pub fn exists(&self) -> bool {
        self.dirs().first().is_some_and(|dir| dir.is_dir())
    }

    /// The files that a process writes "0" to in order to join.
    pub fn join_files(&self) -> Vec<PathBuf> {
        self.dirs().into_iter().map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// Makes the group and moves the calling process into it, with all its threads.
    pub fn enter(&self) -> Result<(), Failure> {
        self.create()?;
        join(&self.join_files()).doing(format_args!("enter cgroup {}", self.path))
    }

    /// The processes in the group itself, by the numbers of the caller's PID namespace.
    pub fn processes(&self) -> Vec<i32> {
        let Some(dir) = self.dirs().into_iter().next_back() else { return Vec::new() };
        let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    /// Kills every process in the group and waits until it is empty (bounded).
    pub fn kill(&self) -> Result<(), Failure> {
        if let Some(v2) = &self.cgroups.v2 {
            let file = v2.join(&self.path).join("cgroup.kill");
            if file.exists() {
                std::fs::write(&file, "1").doing(format_args!("kill cgroup {}", self.path))?;
            }
        }
        for round in 0..KILL_ROUNDS {
            let left = self.processes();
            if left.is_empty() {
                return Ok(());
            }
            for pid in left {
                let _ = crate::process::kill(pid, libc::SIGKILL);
            }
            if round > 0 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        Err(Failure::new(format_args!("kill cgroup {}", self.path), "processes stay (blocked in the kernel?)"))
    }

    /// Removes the group and all groups below it; idempotent. Processes must have left.
    pub fn remove(&self) -> Result<(), Failure> {
        if self.path.is_empty() {
            return Err(Failure::new("remove a cgroup", "refusing to remove the root"));
        }
        for dir in self.dirs() {
            remove_tree(&dir).doing(format_args!("remove cgroup {}", dir.display()))?;
        }
        Ok(())
    }

    /// Sets limits; see [`Limits`].
    pub fn set(&self, limits: &Limits) -> Result<(), Failure> {
        limits::set(self, limits)
    }

    /// Which devices its processes may use; everything else is refused.
    pub fn allow_devices(&self, rules: &[DeviceRule]) -> Result<(), Failure> {
        devices::allow(self, rules)
    }

    /// Whether v2 limits swap here: the kernel may be built or booted without that.
    pub fn limits_swap(&self) -> bool {
        self.cgroups.is_v2() && self.dir_of("").is_some_and(|dir| dir.join("memory.swap.max").exists())
    }

    /// What it has used so far.
    pub fn stats(&self) -> Stats {
        stats::read(self)
    }

    /// The file that tells of OOM kills in this group, for [`oom_kills`].
    pub fn oom_file(&self) -> Option<PathBuf> {
        let name = if self.cgroups.is_v2() { "memory.events" } else { "memory.oom_control" };
        self.dir_of("memory").map(|dir| dir.join(name))
    }
}

/// Moves the calling process into the group that these files (see [`Group::join_files`]) belong to.
pub fn join(join_files: &[PathBuf]) -> io::Result<()> {
    join_files.iter().try_for_each(|file| std::fs::write(file, "0"))
}

/// Kills every process of the group that these files (see [`Group::join_files`]) belong to, for a process that knows no
/// more of the group. Best effort, bounded.
pub fn kill_members(join_files: &[PathBuf]) {
    let Some(file) = join_files.last() else { return };
    let at_once = file.with_file_name("cgroup.kill");
    if at_once.exists() && std::fs::write(at_once, "1").is_ok() {
        return;
    }
    for _ in 0..KILL_ROUNDS {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let pids: Vec<i32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        if pids.is_empty() {
            return;
        }
        pids.iter().for_each(|pid| drop(crate::process::kill(*pid, libc::SIGKILL)));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// A cpuset group of v1 takes no process until its cpus and mems are filled in.
fn inherit_cpuset(root: &Path, path: &str) -> Result<(), Failure> {
    let mut dir = root.to_owned();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let parent = dir.clone();
        dir.push(name);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
            if own.trim().is_empty() {
                let value = std::fs::read_to_string(parent.join(file)).unwrap_or_default();
                std::fs::write(dir.join(file), value.trim()).doing(format_args!("set {}", dir.join(file).display()))?;
            }
        }
    }
    Ok(())
}

/// Best effort: a controller that can't be handed down shows when its limit is set.
fn hand_down_controllers(dir: &Path) {
    let have = std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    let on = std::fs::read_to_string(dir.join(SUBTREE)).unwrap_or_default();
    for controller in have.split_whitespace().filter(|c| !on.split_whitespace().any(|o| o == *c)) {
        let _ = std::fs::write(dir.join(SUBTREE), format!("+{controller}"));
    }
}

/// A cgroup directory holds files that can't be removed, so only the directories are. Others remove groups, too: what is gone
/// at any moment is as good as removed.
fn remove_tree(dir: &Path) -> io::Result<()> {
    gone(std::fs::read_dir(dir).and_then(|mut entries| {
        entries.try_for_each(|entry| {
            let entry = entry?;
            if gone(entry.file_type().map(|kind| kind.is_dir()))? { remove_tree(&entry.path()) } else { Ok(()) }
        })
    }))?;
    gone(match std::fs::remove_dir(dir) {
        // The last process of a v1 group is unlinked a moment after it was reaped.
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
            std::thread::sleep(std::time::Duration::from_millis(10));
            std::fs::remove_dir(dir)
        }
        other => other,
    })
}

/// What is not there any more is no failure.
fn gone<T: Default>(done: io::Result<T>) -> io::Result<T> {
    match done {
        // A directory that is removed while it is read says the second.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(T::default()),
        other => other,
    }
}

/// Writes one file of a group with a failure that names it.
fn write_file(dir: &Path, name: &str, value: &str) -> Result<(), Failure> {
    let file = dir.join(name);
    std::fs::write(&file, value).doing(format_args!("write {value} to {}", file.display()))
}

#[cfg(test)]
mod tests;
