//! The clusters of this host: where each is, which numbers are taken, and the lock that is held while that changes. What
//! they are made of is root's to know. I/O: reads and locks files. Called by every command.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Host, RUN_ROOT, STATE_FILE, STATE_ROOT, state};
use crate::fault::Fault;

/// Clusters a host can hold side by side with addresses of our choosing (10.42.0.0/16 to 10.201.0.0/16, in pairs).
pub const SLOTS: u16 = 80;

/// What a cluster is made of is root's.
pub fn unreadable(path: &Path, error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Fault::failed(format!(
            "only root sees the clusters of this host ({} can't be read): try sudo",
            path.display()
        ))
        .into(),
        _ => anyhow::Error::new(error).context(path.display().to_string()),
    }
}

pub fn run_copy(name: &str) -> PathBuf {
    Path::new(RUN_ROOT).join(name).join(STATE_FILE)
}

/// Every cluster of the host is listed here, wherever its data directory is.
pub fn register() -> PathBuf {
    Path::new(STATE_ROOT).join(".clusters")
}

/// Held while the clusters of this host are counted and one is added or removed, or a kubeconfig that they share is
/// changed; dropping it lets the next one in. A directory that every host has, so that no lock file stays behind.
pub type HostLock = fs::File;

/// What [`lock_host`] locks.
pub fn host_lock() -> &'static Path {
    Path::new(STATE_ROOT).parent().unwrap_or(Path::new("/"))
}

pub fn lock_host() -> Result<HostLock> {
    let place = host_lock();
    let open = fs::File::open(place).and_then(|dir| dir.lock().map(|()| dir));
    open.with_context(|| format!("locking {}", place.display()))
}

/// The clusters of this host, by name.
pub fn known() -> Vec<Host> {
    let entries = fs::read_dir(register()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut known: Vec<Host> = names
        .filter_map(|name| {
            let state = registered(&name).and_then(|dir| read_copy(&dir.join(STATE_FILE)));
            state.or_else(|| read_copy(&run_copy(&name)))
        })
        .collect();
    known.sort_by(|a, b| a.cluster.name.cmp(&b.cluster.name));
    known
}

/// [`known`], for whoever asks; fails in one sentence where only root may know.
pub fn readable() -> Result<Vec<Host>> {
    match fs::read_dir(register()) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Err(unreadable(&register(), e)),
        _ => Ok(known()),
    }
}

/// The data directory of a cluster that was started on this host.
pub fn registered(name: &str) -> Option<PathBuf> {
    fs::read_to_string(register().join(name)).ok().map(PathBuf::from)
}

pub fn read_copy(file: &Path) -> Option<Host> {
    let state::Read::Ours(bytes) = state::read(file).ok()? else { return None };
    serde_json::from_slice(&bytes).ok().filter(|host: &Host| check_name(&host.cluster.name).is_ok())
}

/// A name goes into paths and names of links, whoever said it.
pub fn check_name(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= 40
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good {
        return Ok(());
    }
    bail!(Fault::usage(format!("--name {name:?}: use at most 40 lower-case letters, digits and inner dashes")))
}

/// A directory that came from another host or a backup says the number of another cluster: what is called after that
/// number here (links, tables, control groups) is the other's. It gets one that is free.
pub fn own_slot(host: Host, known: &[Host]) -> Result<Host> {
    if host.slot < SLOTS
        && !known.iter().any(|other| other.cluster.name != host.cluster.name && other.slot == host.slot)
    {
        return Ok(host);
    }
    Ok(Host { slot: free(&host.cluster.name, known)?, ..host })
}

/// A number that no other cluster of this host has.
pub fn free_slot(name: &str) -> Result<u16> {
    free(name, &known())
}

fn free(name: &str, known: &[Host]) -> Result<u16> {
    let taken: Vec<u16> = known.iter().filter(|c| c.cluster.name != name).map(|c| c.slot).collect();
    let free = (0..SLOTS).find(|slot| !taken.contains(slot));
    free.ok_or_else(|| Fault::failed(format!("this host holds {SLOTS} clusters already: reset one first")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `status` as another user told a path and `Permission denied (os error 13)`.
    #[test]
    fn another_user_is_told_in_one_sentence_what_needs_root() {
        let path = Path::new("/var/lib/ferrokube/ferrokube/cluster.json");
        let denied = unreadable(path, std::io::ErrorKind::PermissionDenied.into());
        assert!(
            denied.downcast_ref::<Fault>().is_some_and(|f| f.code == 1 && f.sentence.starts_with("only root sees"))
        );
        assert!(unreadable(path, std::io::Error::other("io")).downcast_ref::<Fault>().is_none());
    }
}
