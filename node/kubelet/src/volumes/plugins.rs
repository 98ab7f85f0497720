//! The kinds of volumes that this kubelet makes, one row each. Whoever wants to know something of a kind asks its row, and
//! a new kind is a new row. The table is pure; what its functions do to the disk stands in `set_up` ("I/O" there).
//!
//! Taking a volume away is the same for all that lie in the pod's directory (`disk`), so no row says how.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::payload::{self, Filling, Payload};
use super::plan::{Content, Key};
use super::set_up::{self, SetUp};
use crate::pod::pods;

/// One kind of volume.
pub struct Plugin {
    /// Upstream's name of it.
    pub name: &'static str,
    /// Whether the volume is of this kind. A volume is of one kind at most: validation sees to it.
    pub claims: fn(&Volume) -> bool,
    pub place: Place,
    /// The files that the kubelet itself makes in it; `None` where the content is somebody else's. Containers get such a
    /// volume read-only whatever the pod says (upstream's `mustMountRO`): the kubelet goes on writing there as root.
    pub files: Option<Fill>,
    /// Makes it whole, whatever is there already. Idempotent: it is called again after a crash, under a pod that runs.
    pub set_up: fn(&SetUp) -> Result<(), String>,
}

/// Makes the files of a volume; the last argument is how many bytes the pod's files may still have. `Err` is what users
/// read.
pub type Fill = fn(&Volume, &Filling<'_>, &mut usize) -> Result<Payload, String>;

/// Where volumes of a kind lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this directory of the pod's `volumes/`: upstream's, so that either kubelet finds what the other one left.
    Pod(&'static str),
    /// Where the host has it.
    Host,
    /// In the runtime: it mounts images itself.
    Runtime,
}

pub const EMPTY_DIR: Plugin = Plugin {
    name: "kubernetes.io/empty-dir",
    // The API means an empty directory by a volume that says nothing.
    claims: |v| v.empty_dir.is_some() || *v == Volume { name: v.name.clone(), ..Volume::default() },
    place: Place::Pod("kubernetes.io~empty-dir"),
    files: None,
    set_up: set_up::empty_dir_volume,
};

pub const PLUGINS: &[Plugin] = &[
    EMPTY_DIR,
    Plugin {
        name: "kubernetes.io/host-path",
        claims: |v| v.host_path.is_some(),
        place: Place::Host,
        files: None,
        set_up: set_up::host_path_volume,
    },
    Plugin {
        name: "kubernetes.io/configmap",
        claims: |v| v.config_map.is_some(),
        place: Place::Pod("kubernetes.io~configmap"),
        files: Some(payload::config_map),
        set_up: set_up::files_on_disk,
    },
    Plugin {
        name: "kubernetes.io/secret",
        claims: |v| v.secret.is_some(),
        place: Place::Pod("kubernetes.io~secret"),
        files: Some(payload::secret),
        set_up: set_up::files_in_memory,
    },
    Plugin {
        name: "kubernetes.io/downward-api",
        claims: |v| v.downward_api.is_some(),
        place: Place::Pod("kubernetes.io~downward-api"),
        files: Some(payload::downward_api),
        set_up: set_up::files_in_memory,
    },
    Plugin {
        name: "kubernetes.io/projected",
        claims: |v| v.projected.is_some(),
        place: Place::Pod("kubernetes.io~projected"),
        files: Some(payload::projected),
        set_up: set_up::files_in_memory,
    },
    Plugin {
        name: "kubernetes.io/image",
        claims: |v| v.image.is_some(),
        place: Place::Runtime,
        files: None,
        // Images of volumes are pulled with those of containers.
        set_up: |_| Ok(()),
    },
];

/// The row of a volume; `Err` names a kind that has none.
pub fn of(volume: &Volume) -> Result<&'static Plugin, String> {
    if let Some(plugin) = PLUGINS.iter().find(|plugin| (plugin.claims)(volume)) {
        return Ok(plugin);
    }
    let object = serde_json::to_value(volume).unwrap_or_default();
    let kind = object.as_object().and_then(|o| o.keys().find(|k| *k != "name").cloned()).unwrap_or_default();
    Err(format!("volumes of type {kind} are not supported by this kubelet"))
}

impl Plugin {
    /// How the planner knows the volume.
    pub fn key(&self, volume: &Volume) -> Key {
        let directory = match self.place {
            Place::Pod(directory) => Some(directory.to_owned()),
            Place::Host | Place::Runtime => None,
        };
        Key { directory, name: volume.name.clone() }
    }

    pub fn content(&self) -> Content {
        if self.files.is_some() { Content::Files } else { Content::Theirs }
    }

    /// Where the volume lies on the host; empty for what the runtime has.
    pub fn path(&self, pod_dir: &Path, volume: &Volume) -> PathBuf {
        match self.place {
            Place::Pod(directory) => directory_of(pod_dir, directory).join(&volume.name),
            Place::Host => volume.host_path.as_ref().map(|h| PathBuf::from(&h.path)).unwrap_or_default(),
            Place::Runtime => PathBuf::new(),
        }
    }
}

/// Where the volumes of one kind lie in a pod's directory.
pub fn directory_of(pod_dir: &Path, directory: &str) -> PathBuf {
    pod_dir.join("volumes").join(directory)
}

pub fn all(pod: &Pod) -> &[Volume] {
    pods::spec(pod).volumes.as_deref().unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_has_one_row_at_most() {
        let table = [
            (json!({"name": "v"}), Some("kubernetes.io/empty-dir")),
            (json!({"name": "v", "emptyDir": {"medium": "Memory"}}), Some("kubernetes.io/empty-dir")),
            (json!({"name": "v", "hostPath": {"path": "/x"}}), Some("kubernetes.io/host-path")),
            (json!({"name": "v", "configMap": {"name": "m"}}), Some("kubernetes.io/configmap")),
            (json!({"name": "v", "secret": {"secretName": "s"}}), Some("kubernetes.io/secret")),
            (json!({"name": "v", "downwardAPI": {}}), Some("kubernetes.io/downward-api")),
            (json!({"name": "v", "projected": {}}), Some("kubernetes.io/projected")),
            (json!({"name": "v", "image": {"reference": "r"}}), Some("kubernetes.io/image")),
            (json!({"name": "v", "nfs": {"path": "/", "server": "s"}}), None),
        ];
        for (volume, wanted) in table {
            let volume: Volume = serde_json::from_value(volume).unwrap();
            let claims: Vec<&str> = PLUGINS.iter().filter(|p| (p.claims)(&volume)).map(|p| p.name).collect();
            assert_eq!(claims, wanted.into_iter().collect::<Vec<_>>());
            match wanted {
                Some(_) => assert!(of(&volume).is_ok()),
                None => assert!(of(&volume).err().is_some_and(|e| e.contains("volumes of type nfs"))),
            }
        }
    }

    #[test]
    fn each_kind_has_a_directory_of_its_own() {
        let mut directories: Vec<&str> = Vec::new();
        for plugin in PLUGINS {
            if let Place::Pod(directory) = plugin.place {
                assert!(!directories.contains(&directory), "{}", plugin.name);
                assert_eq!(directory, plugin.name.replace('/', "~"));
                directories.push(directory);
            }
            assert!(plugin.files.is_none() || matches!(plugin.place, Place::Pod(_)), "{}", plugin.name);
        }
    }
}
