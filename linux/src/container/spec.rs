//! The specification of one container: plain data, written by the daemon, read by the monitor. Pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::caps::Sets;
use crate::mount::Propagation;

/// A program's argument or variable: almost always text, but the kernel takes any bytes but zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// As it mostly is.
    Utf8(String),
    /// Bytes that are no UTF-8.
    Raw(Vec<u8>),
}

impl Text {
    /// The bytes, whatever they are.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Text::Utf8(text) => text.as_bytes(),
            Text::Raw(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|e| Text::Raw(e.into_bytes()), Text::Utf8)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text::Utf8(text.to_owned())
    }
}

/// One resource limit, by the kernel's number of the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// RLIMIT_* (getrlimit(2)).
    pub resource: u32,
    /// What is enforced, and can be raised by the program up to `hard`.
    pub soft: u64,
    /// What can only be lowered.
    pub hard: u64,
}

/// What runs, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program and its arguments; the first is looked for in `PATH`.
    pub args: Vec<Text>,
    /// `NAME=value`.
    pub env: Vec<Text>,
    /// Absolute; made when missing.
    pub cwd: String,
    /// In the container's numbers, which are the host's.
    pub uid: u32,
    /// As `uid`.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Whether its standard streams are a terminal of its own.
    pub terminal: bool,
    /// What root in it may do.
    pub caps: Sets,
    /// A set-user-ID program gives it no more rights than it has (PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// The compiled filter (see [`crate::seccomp::load`]), or none.
    pub seccomp: Option<Vec<u64>>,
    /// Limits that differ from the monitor's.
    pub rlimits: Vec<Rlimit>,
    /// -1000 to 1000, higher is killed sooner (proc(5)); none: as the monitor has it.
    pub oom_score_adj: Option<i32>,
}

/// The layers of the root file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// The directory that `lower` is relative to.
    pub layers_dir: PathBuf,
    /// Top first.
    pub lower: Vec<String>,
    /// What the container writes goes here.
    pub upper: PathBuf,
    /// Empty, on the file system of `upper`: overlayfs works in it.
    pub work: PathBuf,
    /// An empty directory on the host that becomes the mount point, in the container's mount namespace only.
    pub target: PathBuf,
    /// The root is mounted read-only; volumes aren't concerned.
    pub readonly: bool,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindSource {
    /// A file or directory of the host; links are followed, the path is trusted.
    Host(PathBuf),
    /// An image, read-only: its layers (top first) relative to the layers directory, and a path inside.
    Image {
        /// Names of directories, top first.
        layers: Vec<String>,
        /// Relative to the image's root; empty for all of it.
        sub_path: String,
    },
    /// A new tmpfs with these options ("size=64m").
    Tmpfs(String),
}

/// One mount that the pod asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// What is mounted.
    pub source: BindSource,
    /// Absolute, inside the container.
    pub target: String,
    /// The mount itself is read-only, those below it aren't.
    pub readonly: bool,
    /// Read-only down to every mount below.
    pub recursive_readonly: bool,
    /// Whether mounts made later, here or there, show on the other side.
    pub propagation: Propagation,
    /// Programs can't be run from it.
    pub noexec: bool,
    /// Set-user-ID bits count for nothing.
    pub nosuid: bool,
    /// Device nodes can't be opened.
    pub nodev: bool,
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Absolute, inside the container.
    pub path: String,
    /// 'c' or 'b'.
    pub kind: char,
    /// Which driver (makedev(3)).
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
    /// Permission bits: 0o666.
    pub mode: u32,
    /// Its owner, by number.
    pub uid: u32,
    /// Its group, by number.
    pub gid: u32,
}

/// Which PID namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// Its own; the program is process 1.
    #[default]
    New,
    /// The host's: the program sees every process.
    Host,
    /// A pinned one, which the containers of a pod share; its /proc is pinned beside it.
    At(PathBuf),
    /// That of another container, by its first process and when that was started (see [`super::exec`]).
    Of {
        /// By the host's number.
        pid: i32,
        /// In clock ticks since boot: a number taken over by another process is refused.
        started: u64,
    },
}

/// Which namespaces to join; `None` means the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// A pinned network namespace.
    pub net: Option<PathBuf>,
    /// A pinned IPC namespace.
    pub ipc: Option<PathBuf>,
    /// A pinned UTS namespace.
    pub uts: Option<PathBuf>,
    /// Where process numbers come from, and who is seen.
    pub pid: PidNamespace,
}

/// How the container sees its control groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupView {
    /// Files that take "0" from a process that joins.
    pub join: Vec<PathBuf>,
    /// On v1 one entry a hierarchy: (directory name, mount options). Empty on v2.
    pub v1: Vec<(String, String)>,
    /// Whether `/sys/fs/cgroup` is mounted as v2.
    pub v2: bool,
    /// Privileged containers may change what they see there.
    pub writable: bool,
    /// The file that counts OOM kills.
    pub oom_file: Option<PathBuf>,
}

/// All that is needed to start one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// What runs, and as whom.
    pub program: Program,
    /// What it sees as `/`.
    pub rootfs: Rootfs,
    /// What it shares with the pod or the host.
    pub namespaces: Namespaces,
    /// Where it is counted and limited, and what it sees of that.
    pub cgroup: CgroupView,
    /// In the order to be mounted.
    pub binds: Vec<Bind>,
    /// Nodes of /dev beside those that every container has.
    pub devices: Vec<DeviceNode>,
    /// The pod's shared memory directory; none when a bind takes its place.
    pub shm: Option<PathBuf>,
    /// Absolute, inside the container: nothing can be read there.
    pub masked_paths: Vec<String>,
    /// Absolute, inside the container: nothing can be written there.
    pub readonly_paths: Vec<String>,
    /// sysfs writable: privileged containers.
    pub writable_sysfs: bool,
}
