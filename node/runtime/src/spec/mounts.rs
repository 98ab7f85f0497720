//! The mounts of a container: the pod's volumes and the files that every pod has. Pure.

use std::path::PathBuf;

use linux::container::{Bind, BindSource};
use linux::mount::Propagation;
use wire::cri;

use super::{Input, Refusal};

/// Files that the runtime keeps for a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFiles {
    pub hostname: Option<PathBuf>,
    pub hosts: Option<PathBuf>,
    pub resolv_conf: Option<PathBuf>,
    pub shm: Option<PathBuf>,
}

/// An image to be mounted as a volume, resolved: its place in the list of mounts and its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeImage {
    pub mount: usize,
    /// Top first.
    pub layers: Vec<String>,
}

/// All mounts in the order to be made: shallow targets first, so that none hides an earlier one.
pub(super) fn binds(input: &Input<'_>, security: &cri::LinuxContainerSecurityContext) -> Result<Vec<Bind>, Refusal> {
    let mut binds = Vec::new();
    let files = input.pod_files;
    let own =
        [("/etc/hostname", &files.hostname), ("/etc/hosts", &files.hosts), ("/etc/resolv.conf", &files.resolv_conf)];
    for (target, source) in own {
        let taken = input.config.mounts.iter().any(|m| m.container_path == target);
        if let (Some(source), false) = (source, taken) {
            binds.push(Bind {
                source: BindSource::Host(source.clone()),
                target: target.to_owned(),
                readonly: security.readonly_rootfs,
                recursive_readonly: false,
                propagation: Propagation::Private,
                noexec: false,
                nosuid: true,
                nodev: true,
            });
        }
    }
    for (at, mount) in input.config.mounts.iter().enumerate() {
        binds.push(bind(at, mount, input.volume_images)?);
    }
    binds.sort_by_key(|b| b.target.split('/').filter(|p| !p.is_empty()).count());
    Ok(binds)
}

fn bind(at: usize, mount: &cri::Mount, images: &[VolumeImage]) -> Result<Bind, Refusal> {
    let refuse = |why: &str| Err(format!("mount {:?}: {why}", mount.container_path));
    if mount.container_path.is_empty() || mount.container_path.contains('\0') {
        return refuse("its container path is empty");
    }
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return refuse("ID-mapped mounts are not supported");
    }
    let image = images.iter().find(|i| i.mount == at);
    let source = match image {
        Some(image) => BindSource::Image { layers: image.layers.clone(), sub_path: mount.image_sub_path.clone() },
        None if mount.host_path.is_empty() => return refuse("it has neither a host path nor an image"),
        None => BindSource::Host(mount.host_path.clone().into()),
    };
    let propagation = match mount.propagation() {
        cri::MountPropagation::PropagationPrivate => Propagation::Private,
        cri::MountPropagation::PropagationHostToContainer => Propagation::Slave,
        cri::MountPropagation::PropagationBidirectional => Propagation::Shared,
    };
    let recursive = mount.recursive_read_only;
    if recursive && (!mount.readonly || propagation != Propagation::Private) {
        return refuse("recursive read-only needs readonly and no propagation");
    }
    let mut bind = Bind {
        source,
        target: absolute(&mount.container_path),
        readonly: mount.readonly || image.is_some(),
        recursive_readonly: recursive,
        propagation,
        noexec: false,
        nosuid: false,
        nodev: false,
    };
    for option in &mount.mount_options {
        match option.as_str() {
            "noexec" => bind.noexec = true,
            "nosuid" => bind.nosuid = true,
            "nodev" => bind.nodev = true,
            "ro" => bind.readonly = true,
            "rw" | "exec" | "suid" | "dev" => {}
            other => return refuse(&format!("mount option {other:?} is not supported")),
        }
    }
    Ok(bind)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}
