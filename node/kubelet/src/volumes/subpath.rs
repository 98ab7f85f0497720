//! Volume mounts of a container, with subpaths resolved so that no link in the volume leads out of it. Does I/O.
//!
//! A subpath is looked up by the kernel with the volume as its root, then bound by descriptor to a place that only the
//! kubelet can write to; the runtime binds from there. So nobody can swap the path between check and use.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use linux::mount::{attach, clone_tree_at};
use linux::root::Root;
use rustix::fs::{Mode, OFlags};
use wire::cri;

use super::disk::SUBPATHS;
use super::plugins::{self, Place, all};
use crate::pod::env::Environment;
use crate::pod::expand;

/// No path is longer.
const PATH_MAX: usize = 4096;

/// The CRI mounts for all volume mounts of a container. `Err` becomes `CreateContainerConfigError`.
pub fn container_mounts(
    pod: &Pod,
    container: &Container,
    env: &Environment,
    pod_dir: &Path,
    images: &dyn Fn(&str) -> Option<cri::ImageSpec>,
) -> Result<Vec<cri::Mount>, String> {
    let mut out = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = all(pod).iter().find(|v| v.name == mount.name);
        let volume = volume
            .ok_or(format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, container.name))?;
        let container_path = absolute(&mount.mount_path);
        let plugin = plugins::of(volume)?;
        if plugin.place == Place::Runtime {
            let image = images(&volume.name).ok_or(format!("image of volume \"{}\" was not pulled", volume.name))?;
            out.push(cri::Mount {
                container_path,
                readonly: true,
                image: Some(image),
                image_sub_path: mount.sub_path.clone().unwrap_or_default(),
                ..cri::Mount::default()
            });
            continue;
        }
        let base = plugin.path(pod_dir, volume);
        let sub = sub_path(mount, env)?;
        let host = match sub.as_deref() {
            Some(sub) if !sub.is_empty() => {
                let place = pod_dir.join(SUBPATHS).join(&mount.name).join(&container.name).join(index.to_string());
                bind(&base, sub, &place).map_err(|e| {
                    format!(
                        "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {e}",
                        mount.name, container.name
                    )
                })?;
                place
            }
            _ => base.clone(),
        };
        if plugin.place == Place::Host && !host.exists() {
            // A host path without a type is made when it is missing, as runtimes have always done.
            fs::create_dir_all(&host).map_err(|e| format!("hostPath {}: {e}", host.display()))?;
        }
        out.push(cri::Mount {
            container_path,
            host_path: host.to_string_lossy().into_owned(),
            readonly: plugin.files.is_some() || mount.read_only.unwrap_or(false),
            propagation: propagation(mount) as i32,
            recursive_read_only: recursive(mount),
            ..cri::Mount::default()
        });
    }
    Ok(out)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn recursive(mount: &VolumeMount) -> bool {
    mount.read_only == Some(true) && mount.recursive_read_only.as_deref() == Some("Enabled")
}

fn propagation(mount: &VolumeMount) -> cri::MountPropagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
        _ => cri::MountPropagation::PropagationPrivate,
    }
}

/// The subpath as written, or expanded from variables that must all be known.
fn sub_path(mount: &VolumeMount, env: &Environment) -> Result<Option<String>, String> {
    let sub = match mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()) {
        Some(expr) => {
            let known = |name: &str| env.get(name);
            if let Some(missing) = expand::unknown(expr, known) {
                return Err(format!(
                    "failed to expand subPath for volumeMount \"{}\": missing value for \"{missing}\"",
                    mount.name
                ));
            }
            Some(
                expand::expand(expr, PATH_MAX, known)
                    .map_err(|_| format!("subPathExpr {expr:?} is longer than a path"))?,
            )
        }
        None => mount.sub_path.clone(),
    };
    if let Some(sub) = &sub {
        if sub.starts_with('/') {
            return Err(format!("error SubPath `{sub}` must not be an absolute path"));
        }
        if sub.split('/').any(|p| p == "..") {
            return Err(format!("unable to provision SubPath `{sub}`: must not contain '..'"));
        }
    }
    Ok(sub)
}

/// Binds `base`/`sub` to `place`, making the directory when the volume has nothing there.
fn bind(base: &Path, sub: &str, place: &PathBuf) -> std::io::Result<()> {
    let root = Root::open(base)?;
    let target = match root.get(sub, OFlags::PATH) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            // As upstream: each directory that is missing has all mode bits of the volume, so that whoever may write
            // to the volume may write there.
            let mode = rustix::fs::stat(base)?.st_mode & 0o7777;
            root.make_dirs(sub, Mode::from_raw_mode(mode))?;
            root.get(sub, OFlags::PATH)?
        }
        found => found?,
    };
    let is_dir = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode).is_dir();
    linux::mount::detach(place)?;
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    if is_dir {
        fs::create_dir_all(place)?;
    } else if !place.try_exists()? {
        fs::File::create_new(place)?;
    }
    let tree = clone_tree_at(&target, true)?;
    let here = rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(tree, here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_writes_is_mounted_read_only_whatever_the_pod_says() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "c", "volumeMounts": [
                {"name": "m", "mountPath": "/m", "readOnly": false}, {"name": "s", "mountPath": "/s"},
                {"name": "d", "mountPath": "/d"}, {"name": "p", "mountPath": "/p"},
                {"name": "e", "mountPath": "/e"}, {"name": "r", "mountPath": "/r", "readOnly": true}]}],
            "volumes": [{"name": "m", "configMap": {"name": "m"}}, {"name": "s", "secret": {"secretName": "s"}},
                {"name": "d", "downwardAPI": {}}, {"name": "p", "projected": {}},
                {"name": "e", "emptyDir": {}}, {"name": "r", "emptyDir": {}}]}}))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let mounts = container_mounts(&pod, container, &Environment::default(), Path::new("/pods/u"), &|_| None);
        let readonly: Vec<_> = mounts.unwrap().into_iter().map(|m| (m.container_path, m.readonly)).collect();
        let wanted = [("/m", true), ("/s", true), ("/d", true), ("/p", true), ("/e", false), ("/r", true)];
        assert_eq!(readonly, wanted.map(|(path, readonly)| (path.to_owned(), readonly)));
    }

    #[test]
    fn directories_made_for_a_subpath_have_the_mode_of_the_volume() {
        use std::os::unix::fs::PermissionsExt;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        for volume in [0o777, 0o2777, 0o1777, 0o750] {
            let dir = tempfile::tempdir().unwrap();
            let (base, place) = (dir.path().join("v"), dir.path().join("place"));
            fs::create_dir(&base).unwrap();
            fs::set_permissions(&base, fs::Permissions::from_mode(volume)).unwrap();
            fs::create_dir(base.join("was-there")).unwrap();
            let before = fs::metadata(base.join("was-there")).unwrap().permissions();
            bind(&base, "was-there/a/b", &place).unwrap();
            let mode = |path: &str| fs::metadata(base.join(path)).unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode("was-there/a"), mode("was-there/a/b")), (volume, volume));
            assert_eq!(fs::metadata(base.join("was-there")).unwrap().permissions(), before);
            assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o7777, volume);
            linux::mount::detach(&place).unwrap();
        }
    }

    #[test]
    fn subpaths_stay_in_their_volume() {
        let mut env = Environment::default();
        env.set("POD", "p1".into()).unwrap();
        let mount =
            |expr: &str| VolumeMount { name: "v".into(), sub_path_expr: Some(expr.into()), ..VolumeMount::default() };
        assert_eq!(sub_path(&mount("logs/$(POD)"), &env).unwrap().as_deref(), Some("logs/p1"));
        assert!(sub_path(&mount("$(NO)"), &env).unwrap_err().contains("missing value"));
        assert!(sub_path(&mount("../$(POD)"), &env).is_err());
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (base, outside) = (dir.path().join("v"), dir.path().join("outside"));
        fs::create_dir_all(base.join("real")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, base.join("link")).unwrap();
        let place = dir.path().join("place");
        assert!(bind(&base, "link/secret", &place).is_err() || !place.join("secret").exists());
        let place = dir.path().join("place2");
        bind(&base, "real", &place).unwrap();
        fs::write(base.join("real/f"), "y").unwrap();
        assert_eq!(fs::read_to_string(place.join("f")).unwrap(), "y");
        linux::mount::detach(&place).unwrap();
        linux::mount::detach(dir.path().join("place")).unwrap();
    }
}
