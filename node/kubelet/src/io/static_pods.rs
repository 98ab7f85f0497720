//! Pods from files of a directory. Does I/O: one inotify watch on the directory. What the API sees of them is made by
//! `act::mirror`.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Toleration};
use tokio_util::sync::CancellationToken;

use crate::error::best_effort;
use crate::io::files::Watcher;
use crate::messages::{Mailbox, Message};
use crate::names::annotation;

/// An editor writes a file in several steps: it is read when it was quiet for this long.
const QUIET: Duration = Duration::from_millis(100);
/// Where inotify can't be had, the directory is read this often, as upstream does.
const WITHOUT_INOTIFY: Duration = Duration::from_secs(20);
/// A manifest is no longer than what the API would take.
const MAX_FILE: u64 = 10 << 20;

/// Tells the loop which pods the files name, now and whenever it changes.
pub async fn watch(dir: PathBuf, node: String, to: Mailbox, shutdown: CancellationToken) {
    // What is put there runs as root: nobody else needs to see it. One that is there is its owner's business.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    best_effort("make the directory of manifests", made);
    let mut watcher = Watcher::new().and_then(|w| w.add_dir(&dir).map(|()| w));
    if let Err(error) = &watcher {
        tracing::warn!(%error, dir = %dir.display(), "no inotify on the manifest directory, reading it every 20 s");
    }
    loop {
        if !to.send(Message::Static(read_all(&dir, &node))) {
            return;
        }
        let change = async {
            match &mut watcher {
                Ok(watcher) => {
                    watcher.changed().await;
                    while tokio::time::timeout(QUIET, watcher.changed()).await.is_ok() {}
                }
                Err(_) => tokio::time::sleep(WITHOUT_INOTIFY).await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = change => {}
        }
    }
}

fn read_all(dir: &Path, node: &str) -> Vec<Pod> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| wanted(p)).collect();
    files.sort();
    let mut out = Vec::new();
    for file in files {
        match read(&file).and_then(|text| parse(&text, &file.to_string_lossy(), node)) {
            Ok(pod) => out.push(pod),
            Err(error) => tracing::warn!(error, file = %file.display(), "manifest ignored"),
        }
    }
    out
}

fn wanted(path: &Path) -> bool {
    !path.is_dir() && !path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'))
}

fn read(path: &Path) -> Result<String, String> {
    // The directory is the administrator's, a link in it is meant; a pipe or a device would hold the watch for ever.
    let path = path.canonicalize().map_err(|e| e.to_string())?;
    let bytes = linux::root::read_regular(path, MAX_FILE).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|e| e.to_string())
}

/// A manifest as the pod that runs: `-<node>` after its name, a UID made from its content, tolerating every NoExecute.
pub fn parse(text: &str, file: &str, node: &str) -> Result<Pod, String> {
    use sha2::{Digest, Sha256};
    // As deep as a body may be: the parser goes down by recursion.
    let bounded = serde_saphyr::options! { budget: serde_saphyr::budget! { max_depth: meta::depth::MAX_DEPTH } };
    // Through JSON: YAML straight into the types of a pod would be a third of what this crate takes to compile.
    let value: serde_json::Value = serde_saphyr::from_str_with_options(text, bounded).map_err(|e| e.to_string())?;
    let mut pod: Pod = serde_json::from_str(&value.to_string()).map_err(|e| e.to_string())?;
    let name = pod.metadata.name.clone().filter(|n| !n.is_empty()).ok_or("metadata.name is missing")?;
    let spec = pod.spec.as_mut().filter(|s| !s.containers.is_empty()).ok_or("spec.containers is missing")?;
    let mut sum = Sha256::new();
    for part in [node, file, text] {
        sum.update(part.as_bytes());
        sum.update([0]);
    }
    let uid: String = sum.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect();
    spec.node_name = Some(node.to_owned());
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Toleration::default()
    });
    let quantities = |list: &[Container]| list.iter().try_for_each(check_quantities);
    quantities(&spec.containers)?;
    quantities(spec.init_containers.as_deref().unwrap_or(&[]))?;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
        container.termination_message_policy.get_or_insert_with(|| "File".into());
    }
    pod.metadata.name = Some(format!("{name}-{}", node.to_lowercase()));
    pod.metadata.namespace.get_or_insert_with(|| "default".into());
    pod.metadata.uid = Some(uid.clone());
    let notes = pod.metadata.annotations.get_or_insert_default();
    notes.insert(annotation::CONFIG_HASH.into(), uid);
    notes.insert(annotation::CONFIG_SOURCE.into(), "file".into());
    notes.insert(annotation::CONFIG_SEEN.into(), jiff::Timestamp::now().to_string());
    pod.status = None;
    Ok(pod)
}

/// The API would have refused these; taken for nothing, a limit that can't be read would be none.
fn check_quantities(container: &Container) -> Result<(), String> {
    let Some(resources) = &container.resources else { return Ok(()) };
    let all = resources.limits.iter().chain(&resources.requests).flatten();
    for (name, quantity) in all {
        quantity.0.parse::<meta::Quantity>().map_err(|e| format!("{}: resources: {name}: {e}", container.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::pods;

    #[test]
    fn a_manifest_of_a_thousand_levels_is_refused() {
        let refused = || {
            for text in ["- ".repeat(1_000), "[".repeat(1_000), "{a: ".repeat(1_000)] {
                assert!(parse(&text, "/m/deep.yaml", "n1").is_err());
            }
        };
        std::thread::Builder::new().stack_size(meta::depth::STACK_BYTES / 2).spawn(refused).unwrap().join().unwrap();
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";
        let pod = parse(text, "/m/web.yaml", "n1").unwrap();
        assert_eq!((pods::name(&pod), pods::namespace(&pod)), ("web-n1", "default"));
        assert!(pods::is_static(&pod) && !pods::is_mirror(&pod));
        assert_ne!(
            pods::uid(&pod),
            pods::uid(&parse(&text.replace("image: i", "image: j"), "/m/web.yaml", "n1").unwrap())
        );
        assert!(parse("kind: Pod", "/m/x", "n1").unwrap_err().contains("metadata.name"));
        let wrong = text.replace("image: i", "image: i, resources: {limits: {memory: 1GiB}}");
        assert!(parse(&wrong, "/m/x", "n1").unwrap_err().starts_with("c: resources: memory:"));
    }

    #[test]
    fn a_manifest_directory_is_read_whatever_lies_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let (manifests, elsewhere) = (dir.path().join("m"), dir.path().join("e"));
        std::fs::create_dir_all(manifests.join("sub")).unwrap();
        let text = "metadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";
        std::fs::write(&elsewhere, text).unwrap();
        std::os::unix::fs::symlink(&elsewhere, manifests.join("link.yaml")).unwrap();
        std::fs::write(manifests.join("bytes.yaml"), [0xff, 0xfe]).unwrap();
        std::fs::File::create(manifests.join("big.yaml")).unwrap().set_len(1 << 40).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, manifests.join("pipe.yaml"), mode).unwrap();
        let pods = read_all(&manifests, "n1");
        assert_eq!(pods.iter().map(pods::name).collect::<Vec<_>>(), ["web-n1"]);
    }
}
