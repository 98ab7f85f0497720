//! What a cluster keeps in its two directories, by name: `reset` removes these and nothing else, so a file that a person
//! put there stays. Whoever keeps a new thing there adds its name, or `reset` tells that it is left. I/O: removes files.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use linux::root::Beneath;

use crate::config::{Host, RUN_ROOT, STATE_FILE, STATE_ROOT, lock_host, register};
use crate::fault::best_effort;

/// Entries of the data directory. The mark by which the directory is known as the cluster's is not among them: it goes
/// last, so that a removal that was cut short can be done again.
const DATA: &[&str] = &[
    "etcd",
    "pki",
    "runtime",
    "kubelet",
    "pod-logs",
    "manifests",
    "cni",
    "node-pod-cidr",
    "kubeconfig",
    "kubeconfig.undo",
    "daemon.log",
    "crashes.json",
    "security",
    "audit",
    "firewall.json",
    "imported.json",
    "servers.json",
    "last-known",
    "kubelet-config.yaml",
    "nodes",
];

/// Folders of a person's files, which the cluster only reads: removed when nothing is in them. A person may have filled
/// them before the first start.
pub const FOLDERS: [&str; 2] = ["images", "apply"];

/// Entries of the run directory. Of the last a write that was cut short leaves its draft.
const RUN: &[&str] = &["daemon.pid", "supervisor.pid", "cri.sock", "runtime", "nodes", "subnet.env", ".subnet.env"];

/// What a write that was cut short leaves beside its file.
const DRAFT: &str = ".new";

/// Names that a sentence can hold.
const NAMED: usize = 10;

/// Directories in which the cluster mounts things.
pub fn mounted(host: &Host) -> [std::path::PathBuf; 3] {
    [host.runtime_root(), host.kubelet_root(), host.run_dir()]
}

/// Removes the cluster's files, and its directories where nothing else is in them. Answers what is left, by path.
pub fn remove(host: &Host) -> Result<Vec<String>> {
    let _lock = lock_host()?;
    let mut left = empty(&host.data_dir, DATA)?;
    left.extend(empty(&host.run_dir(), RUN)?);
    best_effort("the entry in the register", std::fs::remove_file(register().join(&host.cluster.name)));
    // Shared parents go with the last cluster.
    for parent in [register(), STATE_ROOT.into(), RUN_ROOT.into()] {
        best_effort("a directory that clusters share", std::fs::remove_dir(parent));
    }
    Ok(left)
}

/// Removes these entries of a directory, its mark, and the directory when nothing is left in it.
fn empty(path: &Path, known: &[&str]) -> Result<Vec<String>> {
    let dir = match Beneath::open(path) {
        Ok(dir) => dir,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    for name in known.iter().chain([&STATE_FILE]) {
        for name in [format!("{name}{DRAFT}"), (*name).to_owned()] {
            match dir.remove_tree(&name) {
                Err(e) if matches!(e.kind(), ErrorKind::ResourceBusy | ErrorKind::CrossesDevices) => {
                    // A person's disk is mounted on it: what is on it stays, too.
                    tracing::debug!(name, "is a mount");
                }
                removed => removed.with_context(|| format!("removing {}", path.join(&name).display()))?,
            }
        }
    }
    for folder in FOLDERS {
        // Unless something is in it.
        best_effort("a person's folder", std::fs::remove_dir(path.join(folder)));
    }
    let names: Vec<String> = std::fs::read_dir(path)
        .with_context(|| path.display().to_string())?
        .flatten()
        .map(|entry| entry.path().display().to_string())
        .collect();
    if !names.is_empty() {
        return Ok(names);
    }
    match std::fs::remove_dir(path) {
        // A disk is mounted there: emptied, it stays.
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ResourceBusy) => {
            Err(e).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(Vec::new()),
    }
}

/// The sentence about what `reset` left.
pub fn told(left: &[String]) -> String {
    let mut names = left.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if left.len() > NAMED {
        names += &format!(" and {} more", left.len() - NAMED);
    }
    format!("Left, because the cluster did not make it: {names}\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("layout-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        dir
    }

    #[test]
    fn a_foreign_file_is_left_and_named_and_the_mark_goes_last() {
        let dir = place("foreign");
        for name in ["pki/etcd", "runtime/layers/x", "docs", "apply", "images"] {
            fs::create_dir_all(dir.join(name)).expect("a directory");
        }
        for name in [STATE_FILE, "pki/ca.key", "kubeconfig.new", "docs/thesis"] {
            fs::write(dir.join(name), "x").expect("a file");
        }
        let left = empty(&dir, DATA).expect("emptied");
        assert_eq!(left, [dir.join("docs").display().to_string()]);
        assert!(told(&left).contains("/docs"));
        assert!(dir.join("docs/thesis").exists() && !dir.join("pki").exists() && !dir.join(STATE_FILE).exists());
        fs::remove_dir_all(dir.join("docs")).expect("removed");
        assert_eq!(empty(&dir, DATA).expect("emptied"), Vec::<String>::new());
        assert!(!dir.exists(), "nothing is left in it");
        assert_eq!(empty(&dir, DATA).expect("again"), Vec::<String>::new());
    }
}
