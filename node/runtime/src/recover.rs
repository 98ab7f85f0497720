//! What a new daemon does with what an old one left: containers that run go on, everything half-made is removed.
//! Does I/O.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wire::cri::ContainerState;

use crate::error::Result;
use crate::link;
use crate::record::{self, ContainerRecord, SandboxPhase, SandboxRecord, Whole};
use crate::runtime::{Container, Runtime, Sandbox, is_id};

const SIGKILL: i32 = 9;
/// A killed container of which nothing is known gets this long to end.
const END_PATIENCE: Duration = Duration::from_secs(10);

impl Runtime {
    /// Called once, before the first request.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<()> {
        self.recover_sandboxes().await;
        self.recover_containers().await;
        self.remove_strangers();
        let known: Vec<String> = self.maps.lock().sandboxes.keys().cloned().collect();
        let network = self.network.clone();
        if let Ok(Err(error)) = crate::runtime::blocking(move || network.keep_only(&known)).await.map_err(drop) {
            tracing::warn!(%error, "addresses of pods that are gone could not be released");
        }
        self.images.collect(&self.layers_in_use())?;
        Ok(())
    }

    async fn recover_sandboxes(self: &Arc<Self>) {
        for (id, record) in load_all::<SandboxRecord>(&self.config.root_dir.join("sandboxes")) {
            let Some(record) = record else {
                let _ = linux::root::remove_tree(self.sandbox_dir(&id));
                continue;
            };
            let phase = record.phase();
            let name = crate::sandbox::sandbox_name(record.config.as_ref().unwrap_or(&Default::default()));
            let sandbox = Sandbox::new(id.clone(), record);
            let whole = phase == SandboxPhase::Ready && self.sandbox_is_whole(&sandbox);
            if phase == SandboxPhase::Making {
                tracing::info!(sandbox = %id, "removing a sandbox that was never finished");
                if let Err(error) = self.tear_down(&sandbox).await {
                    tracing::warn!(sandbox = %id, %error, "it could not be removed whole");
                }
                let _ = linux::root::remove_tree(self.sandbox_run_dir(&id));
                let _ = linux::root::remove_tree(self.sandbox_dir(&id));
                continue;
            }
            if phase == SandboxPhase::Ready && !whole {
                let _ = self.update_sandbox(&sandbox, |r| r.phase = SandboxPhase::Stopped as i32);
            }
            let _ = self.reserve(name, &id);
            self.maps.lock().sandboxes.insert(id, sandbox);
        }
    }

    async fn recover_containers(self: &Arc<Self>) {
        for (id, record) in load_all::<ContainerRecord>(&self.config.root_dir.join("containers")) {
            let orphan = record.as_ref().is_none_or(|r| !self.maps.lock().sandboxes.contains_key(&r.sandbox_id));
            let Some(record) = record else {
                self.remove_unknown_container(&id).await;
                continue;
            };
            let metadata = record.config.clone().unwrap_or_default().metadata.unwrap_or_default();
            let name = format!("container/{}/{}_{}", record.sandbox_id, metadata.name, metadata.attempt);
            let container = Container::new(id.clone(), record);
            self.maps.lock().containers.insert(id.clone(), container.clone());
            let _ = self.reserve(name, &id);
            self.take_up(&container).await;
            if orphan {
                let _ = self.remove_container(&id).await;
            }
        }
    }

    /// Nobody knows any more what it is of, but it may run: its monitor is ended first, and its process with it.
    async fn remove_unknown_container(&self, id: &str) {
        let run_dir = self.container_run_dir(id);
        if link::is_alive(&run_dir).await {
            link::signal(&run_dir, SIGKILL).await;
            let _ = tokio::time::timeout(END_PATIENCE, link::wait_end(&run_dir)).await;
        }
        let _ = linux::root::remove_tree(self.container_dir(id));
    }

    /// A container that ran is watched again, or its end is settled. One that was just being started counts too: its
    /// monitor may live although the record doesn't say so.
    async fn take_up(self: &Arc<Self>, container: &Arc<Container>) {
        let run_dir = self.container_run_dir(&container.id);
        let state = container.read(ContainerRecord::state);
        if state == ContainerState::ContainerExited {
            return;
        }
        let alive = link::is_alive(&run_dir).await;
        match (state, alive) {
            (ContainerState::ContainerRunning, true) => self.watch(container.clone()),
            (ContainerState::ContainerRunning, false) => self.settle_end(container).await,
            (_, true) => {
                // Started between the fork and the record: nobody was told that it runs, so it is ended.
                link::signal(&run_dir, SIGKILL).await;
                link::wait_end(&run_dir).await;
                self.settle_end(container).await;
            }
            (_, false) if run_dir.exists() => self.settle_end(container).await,
            _ => {}
        }
    }

    /// Directories in the run directory that nobody owns, with what they pin.
    fn remove_strangers(&self) {
        let strangers = |sub: &str, known: &dyn Fn(&str) -> bool| {
            let dir = self.config.run_dir.join(sub);
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let stranger = |e: &std::fs::DirEntry| {
                let name = e.file_name();
                let name = name.to_string_lossy();
                is_id(&name) && !known(&name)
            };
            entries.filter(stranger).map(|e| e.path()).collect::<Vec<_>>()
        };
        let maps = self.maps.lock();
        for dir in strangers("containers", &|id| maps.containers.contains_key(id)) {
            let _ = linux::root::remove_tree(dir);
        }
        for dir in strangers("pods", &|id| maps.sandboxes.contains_key(id)) {
            for pin in ["net", "ipc", "uts", "pid"] {
                let _ = linux::namespaces::unpin(&dir.join(pin));
            }
            for tree in ["shm", linux::namespaces::PROC] {
                let _ = linux::mount::detach(dir.join(tree));
            }
            let _ = linux::root::remove_tree(dir);
        }
    }
}

/// All records of a directory; `None` for those that can't be read.
fn load_all<T: prost::Message + Default + Whole>(dir: &Path) -> Vec<(String, Option<T>)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let ours = entries.filter(|e| is_id(&e.file_name().to_string_lossy()));
    ours.map(|e| (e.file_name().to_string_lossy().into_owned(), record::load(&e.path()))).collect()
}
