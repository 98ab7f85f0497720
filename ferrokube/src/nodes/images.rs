//! Images for all nodes of a host: what is imported or pulled goes to the host's own node, and from there to the others
//! without a second copy where the file system allows it (`runtime::images::share`), else as a copy through its archive. A
//! node that starts is given what was imported before. I/O: speaks to the runtimes of nodes.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures::StreamExt;
use linux::root::{Beneath, Root};
use rustix::fs::OFlags;
use wire::cri::ListImagesRequest;
use wire::images::{AdoptRequest, ImportRequest, SaveRequest, ShareRequest, SharedImage};

use super::home;
use super::life::{self, State};
use crate::config::record::{self, Node, Record};
use crate::config::{Host, private_dir};
use crate::cri;
use crate::fault::{Fault, best_effort};

/// Layers that the stores of this host share; no node has such a name.
const SHARED: &str = ".layers";
/// Where a store's own catalog is, and its layers.
const CATALOG: &str = "runtime/images/images.json";
const LAYERS: &str = "runtime/images/layers";
/// No catalog is longer: one of thousands of images is a few megabytes.
const LONGEST: u64 = 64 << 20;

/// Where a runtime of this host is reached.
#[derive(Debug)]
pub struct Reach {
    path: PathBuf,
    /// What the path means is held open.
    _held: Option<OwnedFd>,
}

impl Reach {
    /// The host's own node.
    pub fn own(host: &Host) -> Reach {
        Reach { path: host.cri_socket(), _held: None }
    }

    /// A further node that runs. Its /run is its own, and pods may have put links there.
    pub fn of(host: &Host, name: &str) -> Result<Reach> {
        let away = || Fault::failed(format!("the node {name} doesn't run: `ferrokube node start {name}`"));
        let init = life::find(host, name).ok_or_else(away)?;
        let root = Root::open(format!("/proc/{}/root", init.pid)).map_err(|_| away())?;
        // The same name inside as outside.
        let socket = root.get_plain(host.cri_socket(), OFlags::PATH);
        let socket = socket.with_context(|| format!("the runtime of the node {name}"))?;
        Ok(Reach { path: format!("/proc/self/fd/{}", socket.as_raw_fd()).into(), _held: Some(socket) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The directory that a node has read-only among its layers.
pub fn directory(host: &Host) -> PathBuf {
    record::dir(host).join(SHARED)
}

/// Where a node has it, in its own directory.
pub fn place() -> PathBuf {
    Path::new(LAYERS).join(runtime::images::share::SHARED)
}

/// Makes the directory.
pub fn prepare(host: &Host) -> Result<()> {
    private_dir(&directory(host))
}

/// Gives images of the host's own node to every other that runs. Fails when one didn't get them, after all were tried.
pub async fn spread(host: &Host, images: &[String]) -> Result<Vec<String>> {
    let _lock = record::lock(host)?;
    let running = record::nodes(host)?.into_iter().filter(|node| State::of(host, &node.name) == State::Running);
    let running: Vec<Node> = running.collect();
    if running.is_empty() || images.is_empty() {
        return Ok(Vec::new());
    }
    give(host, &running, images).await?;
    Ok(running.into_iter().map(|node| node.name).collect())
}

/// Gives a node that has just started what was imported on the host: no registry has it.
pub async fn give_imported(host: &Host, name: &str) -> Result<()> {
    let shared = host.clone();
    let _lock = tokio::task::spawn_blocking(move || record::lock(&shared)).await??;
    let Some(record) = record::read(host)? else { return Ok(()) };
    let Some(node) = record.get(name) else { return Ok(()) };
    let channel = cri::connect(Reach::own(host).path()).await?;
    let listed = cri::images(channel).list_images(ListImagesRequest::default()).await?.into_inner().images;
    let imported = listed.into_iter().filter(|image| image.repo_digests.is_empty() && !image.repo_tags.is_empty());
    let names: Vec<String> = imported.map(|image| image.id).collect();
    if names.is_empty() { Ok(()) } else { give(host, std::slice::from_ref(node), &names).await }
}

/// The record's lock is held.
async fn give(host: &Host, nodes: &[Node], images: &[String]) -> Result<()> {
    let shared = match share(host, images).await {
        Ok(shared) => Some(shared),
        Err(error) => {
            tracing::info!(error = format!("{error:#}"), "images can't be shared, and are copied");
            None
        }
    };
    let mut outcome = Ok(());
    for node in nodes {
        let given = match &shared {
            Some(shared) => adopt(host, &node.name, shared).await,
            None => copy(host, &node.name, images).await,
        };
        let given = given.with_context(|| format!("the node {} did not get it", node.name));
        outcome = outcome.and(given);
    }
    outcome
}

async fn share(host: &Host, images: &[String]) -> Result<Vec<SharedImage>> {
    prepare(host)?;
    let channel = cri::connect(Reach::own(host).path()).await?;
    let request = ShareRequest { images: images.to_vec(), directory: directory(host).display().to_string() };
    Ok(cri::transfer(channel).share(request).await.map_err(told)?.into_inner().images)
}

async fn adopt(host: &Host, name: &str, shared: &[SharedImage]) -> Result<()> {
    let reach = Reach::of(host, name)?;
    let channel = cri::connect(reach.path()).await?;
    cri::transfer(channel).adopt(AdoptRequest { images: shared.to_vec() }).await.map_err(told)?;
    Ok(())
}

/// As an archive, from one runtime to the other.
async fn copy(host: &Host, name: &str, images: &[String]) -> Result<()> {
    let from = cri::connect(Reach::own(host).path()).await?;
    let reach = Reach::of(host, name)?;
    let to = cri::connect(reach.path()).await?;
    let saved = cri::transfer(from).save(SaveRequest { images: images.to_vec() }).await.map_err(told)?.into_inner();
    // A stream that breaks off is no archive: the other end says so.
    let chunks = futures::stream::unfold(saved, |mut saved| async move {
        let chunk = saved.next().await?.ok()?;
        Some((ImportRequest { name: String::new(), data: chunk.data }, saved))
    });
    cri::transfer(to).import(chunks).await.map_err(told)?;
    Ok(())
}

fn told(status: tonic::Status) -> Fault {
    Fault::failed(status.message().to_owned())
}

/// Removes shared layers that no node has an image of. The record's lock is held.
pub fn sweep(host: &Host, record: &Record) -> Result<()> {
    let dir = directory(host);
    if !dir.exists() {
        return Ok(());
    }
    let mut catalogs = Vec::new();
    for node in &record.nodes {
        // A node that never ran has none.
        match Beneath::open(home::path(host, &node.name)).and_then(|home| home.read(CATALOG, LONGEST)) {
            Ok(catalog) => catalogs.push(catalog),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("the images of the node {}", node.name)),
        }
    }
    runtime::images::share::sweep(&dir, &catalogs).context("shared layers").map(drop)
}

/// The same for who holds no lock, and for whom it is no matter.
pub fn sweep_if_possible(host: &Host) {
    let swept = record::lock(host).and_then(|_lock| match record::read(host)? {
        Some(record) => sweep(host, &record),
        None => Ok(()),
    });
    best_effort("sweeping shared layers", swept.map_err(|error| format!("{error:#}")));
}
