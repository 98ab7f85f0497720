//! Pulls an image: manifest, configuration, layers; several downloads at once, unpacked in order. Does I/O.
//!
//! Layers go to files first, so memory is bounded by the buffers; every digest is checked: of documents, of layers as
//! they come, and of what is unpacked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::manifest::{self, Descriptor, Document};
use super::reference::Reference;
use super::registry::{Registries, Registry, http_client, places};
use super::store::{Image, Images};
use super::{ImageError, Result, room};
use crate::digest::Hasher;

/// Downloads at once: enough to fill a line, few enough for registries that count.
const PARALLEL: usize = 3;
/// A connection that brings nothing for so long is given up.
const STALL: Duration = Duration::from_secs(60);
/// Attempts at a layer; networks break.
const ATTEMPTS: u32 = 3;
/// Indexes of indexes; more is a loop.
const MAX_DEPTH: usize = 4;
/// Progress is told this often at most, in bytes.
const PROGRESS_STEP: u64 = 512 << 10;

/// Who asks.
#[derive(Clone)]
pub enum Credentials {
    Password {
        username: String,
        password: String,
    },
    /// To be exchanged for a token.
    Identity(String),
    /// A token to be used as it is.
    Bearer(String),
}

/// Where a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    Waiting,
    Downloading,
    Unpacking,
    Done,
    Exists,
}

impl LayerState {
    /// As shown.
    pub fn name(self) -> &'static str {
        match self {
            LayerState::Waiting => "waiting",
            LayerState::Downloading => "downloading",
            LayerState::Unpacking => "unpacking",
            LayerState::Done => "done",
            LayerState::Exists => "exists",
        }
    }
}

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub digest: String,
    pub done: u64,
    pub total: u64,
    pub state: LayerState,
}

/// How to pull.
#[derive(Clone, Default)]
pub struct PullOptions {
    pub credentials: Option<Credentials>,
    pub registries: Registries,
    /// Told of every step.
    pub progress: Option<watch::Sender<Vec<Progress>>>,
}

/// What a pull has found out before its layers come.
struct Plan {
    registry: Registry,
    config: Bytes,
    diff_ids: Vec<String>,
    layers: Vec<Descriptor>,
    /// Digest of what the name points to: an index, or the manifest.
    digest: String,
}

type Report = Arc<dyn Fn(usize, LayerState, u64) + Send + Sync>;

impl Images {
    /// Fetches an image and answers it when all of it is here and flushed.
    pub async fn pull(self: Arc<Self>, name: &str, options: PullOptions) -> Result<Image> {
        let reference = Reference::parse(name)?;
        let plan = plan(&reference, &options).await?;
        let chain = manifest::chain_ids(&plan.diff_ids);
        let here: Vec<bool> = chain.iter().map(|c| self.has_layer(c)).collect();
        let report = reporter(options.progress, &plan.layers, &here);
        let needed = plan.layers.iter().zip(&here).filter(|(_, here)| !**here);
        let needed = needed.fold(0u64, |sum, (layer, _)| sum.saturating_add(layer.size));
        room::check(&self.dir, needed, &reference.to_string()).map_err(ImageError::io("pull the image"))?;
        let work = self.ingest_dir()?;
        let done = self.clone().fetch_layers(&plan, &here, &work, &report).await;
        let _ = linux::root::remove_tree(&work);
        done?;
        let digest = Some(format!("{}@{}", reference.name(), plan.digest));
        let commit = move || self.commit(&plan.config, &plan.diff_ids, Some(&reference), digest);
        tokio::task::spawn_blocking(commit).await.map_err(|e| ImageError::Registry(e.to_string()))?
    }

    async fn fetch_layers(self: Arc<Self>, plan: &Plan, here: &[bool], work: &Path, report: &Report) -> Result<()> {
        let downloads: Vec<_> = (0..plan.layers.len())
            .map(|at| {
                let (layer, path, needed) = (plan.layers[at].clone(), work.join(at.to_string()), !here[at]);
                let (registry, report) = (plan.registry.clone(), report.clone());
                async move {
                    if needed {
                        download(&registry, &layer, &path, &|done| report(at, LayerState::Downloading, done)).await?;
                    }
                    Ok::<(usize, PathBuf), ImageError>((at, path))
                }
                .boxed()
            })
            .collect();
        let mut arriving = futures::stream::iter(downloads).buffered(PARALLEL);
        while let Some(arrived) = arriving.next().await {
            let (at, path) = arrived?;
            if here[at] {
                continue;
            }
            report(at, LayerState::Unpacking, plan.layers[at].size);
            let (images, diff_ids) = (self.clone(), plan.diff_ids.clone());
            let unpack = move || {
                let added = images.add_layer(&diff_ids, at, || {
                    std::fs::File::open(&path).map(|f| Box::new(f) as Box<dyn std::io::Read + Send>)
                });
                let _ = std::fs::remove_file(&path);
                added
            };
            tokio::task::spawn_blocking(unpack).await.map_err(|e| ImageError::Registry(e.to_string()))??;
            report(at, LayerState::Done, plan.layers[at].size);
        }
        Ok(())
    }
}

fn reporter(to: Option<watch::Sender<Vec<Progress>>>, layers: &[Descriptor], here: &[bool]) -> Report {
    let Some(to) = to else { return Arc::new(|_, _, _| {}) };
    let first = |(layer, here): (&Descriptor, &bool)| Progress {
        digest: layer.digest.clone(),
        done: if *here { layer.size } else { 0 },
        total: layer.size,
        state: if *here { LayerState::Exists } else { LayerState::Waiting },
    };
    to.send_replace(layers.iter().zip(here).map(first).collect());
    Arc::new(move |at, state, done| {
        to.send_modify(|all| {
            if let Some(one) = all.get_mut(at) {
                (one.state, one.done) = (state, done);
            }
        });
    })
}

/// Asks each place in turn. The answer of the last, the registry itself, is the one that is told, with what the mirrors
/// said before: they may be all that there is.
async fn plan(reference: &Reference, options: &PullOptions) -> Result<Plan> {
    let (mut failure, mut before) = (None, Vec::new());
    for place in places(reference, &options.registries) {
        let credentials = place.credentials(&options.credentials);
        let answer = async {
            let registry =
                Registry::new(http_client(place.tls.as_deref())?, &place.base, &place.repository, credentials);
            plan_at(reference, registry).await
        };
        match answer.await {
            Ok(plan) => return Ok(plan),
            Err(error) => {
                tracing::debug!(place = place.base, %error, "no image there");
                before.extend(failure.replace(error).map(|error: ImageError| error.to_string()));
            }
        }
    }
    let failure = failure.unwrap_or_else(|| ImageError::NotFound(reference.to_string()));
    Err(if before.is_empty() { failure } else { failure.after(&before.join("; ")) })
}

async fn plan_at(reference: &Reference, registry: Registry) -> Result<Plan> {
    let name = reference.to_string();
    let mut selector = reference.selector().to_owned();
    let mut first_digest = None;
    for _ in 0..MAX_DEPTH {
        let bytes = registry.manifest(&selector).await?;
        let digest = crate::digest::of(&bytes);
        if super::reference::is_digest(&selector) {
            check_digest(&name, &selector, &digest)?;
        }
        first_digest.get_or_insert(digest);
        let document = manifest::parse(&name, &bytes)?;
        match &document.manifests {
            Some(list) => selector = manifest::choose(&name, list)?.digest.clone(),
            None => return plan_manifest(&name, registry, document, first_digest.unwrap_or_default()).await,
        }
    }
    Err(ImageError::Invalid(format!("{name}: its indexes are nested too deep")))
}

async fn plan_manifest(name: &str, registry: Registry, document: Document, digest: String) -> Result<Plan> {
    let config = document.config.ok_or_else(|| ImageError::Invalid(format!("{name}: its manifest names no config")))?;
    let bytes = registry.document(&config.digest).await?;
    check_digest(name, &config.digest, &crate::digest::of(&bytes))?;
    let parsed = manifest::parse_config(name, &bytes)?;
    parsed.check_platform(name)?;
    let diff_ids = parsed.rootfs.diff_ids;
    if diff_ids.len() != document.layers.len() {
        let (a, b) = (document.layers.len(), diff_ids.len());
        return Err(ImageError::Invalid(format!("{name}: its manifest lists {a} layers, its configuration {b}")));
    }
    Ok(Plan { registry, config: bytes, diff_ids, layers: document.layers, digest })
}

fn check_digest(name: &str, expected: &str, got: &str) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(ImageError::Digest { what: name.to_owned(), expected: expected.to_owned(), got: got.to_owned() })
}

async fn download(registry: &Registry, layer: &Descriptor, path: &Path, report: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let mut attempt = 1;
    loop {
        let error = match try_download(registry, layer, path, report).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // A refusal or wrong content won't get better.
        if !matches!(error, ImageError::Registry(_)) || attempt == ATTEMPTS {
            return Err(error);
        }
        tracing::debug!(digest = %layer.digest, %error, attempt, "trying a layer again");
        tokio::time::sleep(Duration::from_millis(300 << attempt)).await;
        attempt += 1;
    }
}

async fn try_download(
    registry: &Registry,
    layer: &Descriptor,
    path: &Path,
    report: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let broken = |e: &dyn std::fmt::Display| ImageError::Registry(format!("layer {}: {e}", layer.digest));
    let mut body = registry.blob(&layer.digest).await?;
    let mut file = tokio::fs::File::create(path).await.map_err(ImageError::io("keep a layer"))?;
    let (mut hasher, mut done, mut told) = (Hasher::default(), 0u64, 0u64);
    loop {
        let frame = tokio::time::timeout(STALL, body.frame()).await.map_err(|_| broken(&"the line went silent"))?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|e| broken(&e))?.into_data() else { continue };
        done += data.len() as u64;
        if done > layer.size {
            let (expected, got) = (format!("{} bytes", layer.size), "more".to_owned());
            return Err(ImageError::Digest { what: layer.digest.clone(), expected, got });
        }
        hasher.update(&data);
        file.write_all(&data).await.map_err(ImageError::io("keep a layer"))?;
        if done - told >= PROGRESS_STEP {
            told = done;
            report(done);
        }
    }
    file.flush().await.map_err(ImageError::io("keep a layer"))?;
    check_digest(&format!("layer {}", layer.digest), &layer.digest, &hasher.finish())
}
