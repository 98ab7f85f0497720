//! Volumes of pods: what files they hold (`payload`, `trust`), how files change without a reader seeing half of it
//! (`atomic`), and how they get onto the disk and into containers (`mount`, `subpath`). [`Volumes`] is what the kubelet's
//! loop calls.

mod atomic;
mod mount;
pub mod payload;
pub mod refreshing;
mod subpath;
mod tokens;
mod trust;

pub use mount::Volumes;
pub use subpath::container_mounts;

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::pod::pods;

/// The pod's own /etc/hosts, in its directory.
pub const HOSTS_FILE: &str = "etc-hosts";
/// Where the termination messages of a pod's containers lie, in its directory.
pub const TERMINATION_FILES: &str = "containers";

/// The sorts of volumes that this kubelet makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    EmptyDir,
    HostPath,
    ConfigMap,
    Secret,
    DownwardApi,
    Projected,
    Image,
}

impl Sort {
    /// The directory below `volumes/` that upstream uses.
    pub fn directory(self) -> &'static str {
        match self {
            Sort::EmptyDir => "kubernetes.io~empty-dir",
            Sort::ConfigMap => "kubernetes.io~configmap",
            Sort::Secret => "kubernetes.io~secret",
            Sort::DownwardApi => "kubernetes.io~downward-api",
            Sort::Projected => "kubernetes.io~projected",
            Sort::HostPath | Sort::Image => "",
        }
    }

    /// Volumes whose files are the kubelet's own. Containers get them read-only whatever the pod says (upstream's
    /// `mustMountRO`): the kubelet goes on writing there as root.
    pub fn is_written_by_kubelet(self) -> bool {
        matches!(self, Sort::ConfigMap | Sort::Secret | Sort::DownwardApi | Sort::Projected)
    }
}

/// The sort of a volume; `Err` names one that is not supported.
pub fn sort(volume: &Volume) -> Result<Sort, String> {
    let known = [
        (volume.empty_dir.is_some(), Sort::EmptyDir),
        (volume.host_path.is_some(), Sort::HostPath),
        (volume.config_map.is_some(), Sort::ConfigMap),
        (volume.secret.is_some(), Sort::Secret),
        (volume.downward_api.is_some(), Sort::DownwardApi),
        (volume.projected.is_some(), Sort::Projected),
        (volume.image.is_some(), Sort::Image),
    ];
    if let Some((_, sort)) = known.into_iter().find(|(there, _)| *there) {
        return Ok(sort);
    }
    let named = serde_json::to_value(volume)
        .ok()
        .and_then(|v| v.as_object().and_then(|o| o.keys().find(|k| *k != "name").cloned()));
    match named {
        // The API means an empty directory by a volume that says nothing.
        None => Ok(Sort::EmptyDir),
        Some(kind) => Err(format!("volumes of type {kind} are not supported by this kubelet")),
    }
}

/// Where the volume lies on the host.
pub fn path(pod_dir: &Path, volume: &Volume) -> Result<PathBuf, String> {
    let sort = sort(volume)?;
    match (sort, &volume.host_path) {
        (Sort::HostPath, Some(source)) => Ok(PathBuf::from(&source.path)),
        _ => Ok(pod_dir.join("volumes").join(sort.directory()).join(&volume.name)),
    }
}

pub fn all(pod: &Pod) -> &[Volume] {
    pods::spec(pod).volumes.as_deref().unwrap_or(&[])
}
