//! The state of the runtime: which sandboxes and containers there are, and where their things lie. Does I/O.
//!
//! Operations on them are in `sandbox`, `container`, `exec` and `recover`; here is what they share. Two locks: one for
//! the maps, held for moments and never over an await; one a sandbox or container, held for a whole operation on it.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use linux::cgroup::Cgroups;
use parking_lot::Mutex;
use pod_network::PodNetwork;
use tokio::sync::{broadcast, watch};
use wire::cri;

use crate::daemon::Config;
use crate::error::{Error, Result};
use crate::images::Images;
use crate::record::{ContainerRecord, SandboxRecord};
use crate::zygote::Zygote;

/// The group of containers' monitors, below the root of all groups.
const MONITORS: &str = "monitors";

/// Events kept for a slow listener; one that falls further behind is told to list again.
const EVENT_BACKLOG: usize = 1024;

/// A pod sandbox.
#[derive(Debug)]
pub struct Sandbox {
    pub id: String,
    /// Held by the operation in progress.
    pub busy: tokio::sync::Mutex<()>,
    record: Mutex<SandboxRecord>,
}

/// A container.
#[derive(Debug)]
pub struct Container {
    pub id: String,
    /// Held by the operation in progress.
    pub busy: tokio::sync::Mutex<()>,
    record: Mutex<ContainerRecord>,
    /// Becomes true when it has ended.
    pub ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
pub(crate) struct Maps {
    pub sandboxes: BTreeMap<String, Arc<Sandbox>>,
    pub containers: BTreeMap<String, Arc<Container>>,
    /// Names in use, by their full form, with the ID.
    pub names: BTreeMap<String, String>,
}

/// The whole runtime.
pub struct Runtime {
    pub config: Config,
    pub images: Arc<Images>,
    pub cgroups: Cgroups,
    pub network: Arc<dyn PodNetwork>,
    pub(crate) zygote: Zygote,
    pub(crate) maps: Mutex<Maps>,
    pub(crate) events: broadcast::Sender<cri::ContainerEventResponse>,
    pub(crate) streams: crate::streaming::Tokens,
    pub(crate) closing: tokio_util::sync::CancellationToken,
}

impl Sandbox {
    /// A sandbox with what is known of it.
    pub fn new(id: String, record: SandboxRecord) -> Arc<Self> {
        Arc::new(Sandbox { id, busy: tokio::sync::Mutex::default(), record: Mutex::new(record) })
    }

    /// Reads a part of its record.
    pub fn read<T>(&self, part: impl FnOnce(&SandboxRecord) -> T) -> T {
        part(&self.record.lock())
    }
}

impl Container {
    /// A container with what is known of it.
    pub fn new(id: String, record: ContainerRecord) -> Arc<Self> {
        let ended = watch::Sender::new(record.state() == cri::ContainerState::ContainerExited);
        Arc::new(Container { id, busy: tokio::sync::Mutex::default(), record: Mutex::new(record), ended })
    }

    /// A copy of its record.
    pub fn record(&self) -> ContainerRecord {
        self.record.lock().clone()
    }

    /// Reads a part of its record.
    pub fn read<T>(&self, part: impl FnOnce(&ContainerRecord) -> T) -> T {
        part(&self.record.lock())
    }

    /// Whether its program runs.
    pub fn is_running(&self) -> bool {
        self.read(|r| r.state() == cri::ContainerState::ContainerRunning)
    }
}

impl Runtime {
    /// Opens the directories and takes up what is there (see `recover`). Tasks of this life end with `closing`;
    /// containers and monitors stay.
    pub async fn open(
        config: Config,
        network: Arc<dyn PodNetwork>,
        closing: tokio_util::sync::CancellationToken,
    ) -> Result<Arc<Self>> {
        for dir in [config.root_dir.join("sandboxes"), config.root_dir.join("containers"), config.run_dir.clone()] {
            make_private_dir(&dir).map_err(Error::failed(format_args!("make {}", dir.display())))?;
        }
        let cgroups = Cgroups::detect()?;
        let runtime = Arc::new(Runtime {
            images: Arc::new(Images::open(config.root_dir.join("images"))?),
            zygote: Zygote::new(cgroups.group(&config.cgroup_root).child(MONITORS)),
            cgroups,
            network,
            maps: Mutex::default(),
            events: broadcast::Sender::new(EVENT_BACKLOG),
            streams: crate::streaming::Tokens::default(),
            closing,
            config,
        });
        runtime.recover().await?;
        Ok(runtime)
    }

    /// Records and writable layer of a container.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.config.root_dir.join("containers").join(id)
    }

    /// Sockets and PID files of a container.
    pub fn container_run_dir(&self, id: &str) -> PathBuf {
        self.config.run_dir.join("containers").join(id)
    }

    /// The record of a sandbox, and its files below /etc.
    pub fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.config.root_dir.join("sandboxes").join(id)
    }

    /// Namespaces, /proc and shared memory of a sandbox.
    pub fn sandbox_run_dir(&self, id: &str) -> PathBuf {
        self.config.run_dir.join("pods").join(id)
    }

    /// Finds a sandbox by ID or by a prefix that only it has.
    pub fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        by_prefix(&self.maps.lock().sandboxes, id).ok_or_else(|| Error::NotFound(format!("sandbox {id:?}")))
    }

    /// Finds a container by ID or by a prefix that only it has.
    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        by_prefix(&self.maps.lock().containers, id).ok_or_else(|| Error::NotFound(format!("container {id:?}")))
    }

    /// The full ID of a container that must be running.
    pub fn running(&self, id: &str) -> Result<String> {
        let container = self.container(id)?;
        if container.is_running() {
            return Ok(container.id.clone());
        }
        Err(Error::State(format!("container {id:?} is not running")))
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.maps.lock().sandboxes.values().cloned().collect()
    }

    /// All containers.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.maps.lock().containers.values().cloned().collect()
    }

    /// The containers of a sandbox.
    pub fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let all = self.containers();
        all.into_iter().filter(|c| c.read(|r| r.sandbox_id == sandbox)).collect()
    }

    /// Layer directories that containers stand on.
    pub fn layers_in_use(&self) -> HashSet<String> {
        let layers = |c: Arc<Container>| c.read(|r| [r.layers.clone(), r.volume_layers.clone()].concat());
        self.containers().into_iter().flat_map(layers).collect()
    }

    /// Takes a name for an ID, which the caller releases when its creation fails.
    pub(crate) fn reserve(&self, name: String, id: &str) -> Result<()> {
        let mut maps = self.maps.lock();
        if let Some(owner) = maps.names.get(&name) {
            return Err(Error::Exists(format!("name {name:?} is reserved for {owner:?}")));
        }
        maps.names.insert(name, id.to_owned());
        Ok(())
    }

    pub(crate) fn release(&self, id: &str) {
        self.maps.lock().names.retain(|_, owner| owner != id);
    }

    /// Changes a sandbox's record, in memory and on disk.
    pub(crate) fn update_sandbox(&self, sandbox: &Sandbox, change: impl FnOnce(&mut SandboxRecord)) -> Result<()> {
        let mut record = sandbox.record.lock();
        change(&mut record);
        crate::record::save(&self.sandbox_dir(&sandbox.id), &*record).map_err(Error::failed("save the sandbox"))
    }

    /// Changes a container's record, in memory and on disk.
    pub(crate) fn update_container(
        &self,
        container: &Container,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<()> {
        let mut record = container.record.lock();
        change(&mut record);
        crate::record::save(&self.container_dir(&container.id), &*record).map_err(Error::failed("save the container"))
    }
}

/// A new ID: 64 hex digits, as users of containers know them.
pub(crate) fn new_id() -> String {
    crate::digest::hex(&rand::random::<[u8; 32]>())
}

/// Whether a name has the form of [`new_id`]. What has another one in our directories is not ours, and stays.
pub(crate) fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Runs blocking work on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Failed(format!("a task broke off: {e}")))
}

fn make_private_dir(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn by_prefix<T>(map: &BTreeMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if id.is_empty() {
        return None;
    }
    let mut found = map.range(id.to_owned()..).take_while(|(key, _)| key.starts_with(id));
    let (key, first) = found.next()?;
    if key != id && found.next().is_some() { None } else { Some(first.clone()) }
}
