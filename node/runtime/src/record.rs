//! What the daemon remembers of sandboxes and containers over a restart. Does I/O (load, save).
//!
//! One small protobuf file each, replaced whole. Not flushed to the disk: a power cut ends every container anyway, and
//! a file that can't be read makes its sandbox or container garbage, which the start removes.

use std::io;
use std::path::Path;

use prost::Message;
use wire::cri;

/// A pod sandbox.
#[derive(Clone, PartialEq, Message)]
pub struct SandboxRecord {
    #[prost(message, optional, tag = "1")]
    pub config: Option<cri::PodSandboxConfig>,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "2")]
    pub created_at: i64,
    #[prost(string, tag = "3")]
    pub runtime_handler: String,
    #[prost(string, repeated, tag = "4")]
    pub ips: Vec<String>,
    #[prost(enumeration = "SandboxPhase", tag = "5")]
    pub phase: i32,
}

/// How far a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum SandboxPhase {
    /// Being made: found at start, it is torn down.
    Making = 0,
    Ready = 1,
    Stopped = 2,
}

/// A container.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerRecord {
    #[prost(message, optional, tag = "1")]
    pub config: Option<cri::ContainerConfig>,
    #[prost(string, tag = "2")]
    pub sandbox_id: String,
    /// `sha256:…` of the image's configuration.
    #[prost(string, tag = "3")]
    pub image_id: String,
    /// What it is called to the outside: a digest name, or the ID.
    #[prost(string, tag = "4")]
    pub image_ref: String,
    #[prost(int64, tag = "5")]
    pub created_at: i64,
    #[prost(int64, tag = "6")]
    pub started_at: i64,
    #[prost(int64, tag = "7")]
    pub finished_at: i64,
    #[prost(int32, tag = "8")]
    pub exit_code: i32,
    #[prost(string, tag = "9")]
    pub reason: String,
    #[prost(string, tag = "10")]
    pub message: String,
    #[prost(enumeration = "cri::ContainerState", tag = "11")]
    pub state: i32,
    #[prost(message, optional, tag = "12")]
    pub user: Option<cri::LinuxContainerUser>,
    /// Directory names of the layers, top first: they must not be removed while this container is there.
    #[prost(string, repeated, tag = "13")]
    pub layers: Vec<String>,
    #[prost(string, tag = "14")]
    pub log_path: String,
    /// The container's process on the host while it runs.
    #[prost(int32, tag = "15")]
    pub pid: i32,
    #[prost(uint64, tag = "16")]
    pub pid_started: u64,
    /// The signal number that asks it to stop.
    #[prost(int32, tag = "17")]
    pub stop_signal: i32,
    /// JSON of what an exec starts from.
    #[prost(bytes = "vec", tag = "18")]
    pub program: Vec<u8>,
    /// The control group's path.
    #[prost(string, tag = "19")]
    pub cgroup: String,
    /// Layers of image volumes, held like the container's own.
    #[prost(string, repeated, tag = "20")]
    pub volume_layers: Vec<String>,
    #[prost(string, tag = "21")]
    pub home: String,
}

/// The file in a sandbox's or container's directory.
const FILE: &str = "record";

/// Writes a record so that the old or the new one is there at any time.
pub fn save(dir: &Path, record: &impl Message) -> io::Result<()> {
    let temporary = dir.join("record.tmp");
    std::fs::write(&temporary, record.encode_to_vec())?;
    std::fs::rename(temporary, dir.join(FILE))
}

/// Reads a record; `None` when there is none or it is damaged.
pub fn load<T: Message + Default>(dir: &Path) -> Option<T> {
    T::decode(std::fs::read(dir.join(FILE)).ok()?.as_slice()).ok()
}
