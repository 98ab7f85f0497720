//! The specification of one container: plain data, written by the daemon, read by the monitor. Pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::caps::Sets;
use crate::mount::Propagation;

/// A program's argument or variable: almost always text, but the kernel takes any bytes but zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    Utf8(String),
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
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// What runs, and as whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub args: Vec<Text>,
    /// `NAME=value`.
    pub env: Vec<Text>,
    /// Absolute; made when missing.
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub terminal: bool,
    pub caps: Sets,
    pub no_new_privileges: bool,
    /// The compiled filter (see [`crate::seccomp::load`]), or none.
    pub seccomp: Option<Vec<u64>>,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
}

/// The layers of the root file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// The directory that `lower` is relative to.
    pub layers_dir: PathBuf,
    /// Top first.
    pub lower: Vec<String>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// An empty directory on the host that becomes the mount point, in the container's mount namespace only.
    pub target: PathBuf,
    pub readonly: bool,
}

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindSource {
    /// A file or directory of the host; links are followed, the path is trusted.
    Host(PathBuf),
    /// An image, read-only: its layers (top first) relative to the layers directory, and a path inside.
    Image { layers: Vec<String>, sub_path: String },
    /// A new tmpfs with these options ("size=64m").
    Tmpfs(String),
}

/// One mount that the pod asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    pub source: BindSource,
    /// Absolute, inside the container.
    pub target: String,
    pub readonly: bool,
    /// Read-only down to every mount below.
    pub recursive_readonly: bool,
    pub propagation: Propagation,
    pub noexec: bool,
    pub nosuid: bool,
    pub nodev: bool,
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Absolute, inside the container.
    pub path: String,
    /// 'c' or 'b'.
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Which PID namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// Its own; the program is process 1.
    #[default]
    New,
    Host,
    /// A pinned one, which the containers of a pod share; its /proc is pinned beside it.
    At(PathBuf),
    /// That of another container, by its first process and when that was started (see [`super::exec`]).
    Of {
        pid: i32,
        started: u64,
    },
}

/// Which namespaces to join; `None` means the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    pub net: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    pub pid: PidNamespace,
}

/// How the container sees its control groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupView {
    /// Files that take "0" from a process that joins.
    pub join: Vec<PathBuf>,
    /// On v1 one entry a hierarchy: (directory name, mount options). Empty on v2.
    pub v1: Vec<(String, String)>,
    pub v2: bool,
    pub writable: bool,
    /// The file that counts OOM kills.
    pub oom_file: Option<PathBuf>,
}

/// All that is needed to start one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub program: Program,
    pub rootfs: Rootfs,
    pub namespaces: Namespaces,
    pub cgroup: CgroupView,
    /// In the order to be mounted.
    pub binds: Vec<Bind>,
    pub devices: Vec<DeviceNode>,
    /// The pod's shared memory directory; none when a bind takes its place.
    pub shm: Option<PathBuf>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// sysfs writable: privileged containers.
    pub writable_sysfs: bool,
}
