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

/// What every record of its kind holds once it was written whole. Protobuf takes a file that was cut between two fields,
/// or is empty after a power cut, for a record with less in it.
pub trait Whole {
    fn is_whole(&self) -> bool;
}

impl Whole for SandboxRecord {
    fn is_whole(&self) -> bool {
        self.created_at != 0 && self.config.as_ref().is_some_and(|c| c.metadata.is_some())
    }
}

impl Whole for ContainerRecord {
    fn is_whole(&self) -> bool {
        // The last of the fields that none lacks.
        !self.cgroup.is_empty() && !self.sandbox_id.is_empty() && self.config.is_some() && self.user.is_some()
    }
}

/// Reads a record; `None` when there is none or it is damaged.
pub fn load<T: Message + Default + Whole>(dir: &Path) -> Option<T> {
    let path = dir.join(FILE);
    let record = std::fs::read(&path).and_then(|bytes| T::decode(bytes.as_slice()).map_err(io::Error::other));
    match record {
        Ok(record) if record.is_whole() => Some(record),
        Ok(_) => {
            tracing::warn!(file = %path.display(), "a record was cut off; what it is of will be removed");
            None
        }
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "a record can't be read; what it is of will be removed");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_record_is_none() {
        let dir = std::env::temp_dir().join(format!("record-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let record = ContainerRecord {
            config: Some(cri::ContainerConfig { image: Some(Default::default()), ..Default::default() }),
            sandbox_id: "s".into(),
            user: Some(cri::LinuxContainerUser { uid: 1, ..Default::default() }),
            layers: vec!["7".into()],
            cgroup: "/kubepods/x".into(),
            ..Default::default()
        };
        save(&dir, &record).unwrap();
        assert_eq!(load(&dir), Some(record));
        let whole = std::fs::read(dir.join(FILE)).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(dir.join(FILE), &whole[..cut]).unwrap();
            assert_eq!(load::<ContainerRecord>(&dir), None, "{cut} bytes");
        }
        std::fs::write(dir.join(FILE), b"").unwrap();
        assert_eq!(load::<SandboxRecord>(&dir), None);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
