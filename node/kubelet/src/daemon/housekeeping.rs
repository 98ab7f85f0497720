//! What is looked at every ten seconds while pods run here: log sizes, free memory and disk, what pods keep on disk,
//! images nobody uses.
//! Does I/O. With no pod on the node it sleeps.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;
use wire::cri;

use crate::act::Executor;
use crate::io::cri::shown;
use crate::io::logs;
use crate::messages::{Message, NodeSignals, Query};
use crate::node::eviction::{self, Manager, Reading, Usage};
use crate::node::machine::{self, Disk};
use crate::node::qos::Classes;
use crate::node::storage_limits;
use crate::pod::make;
use crate::pod::pods;
use crate::pod::verdict::Pressure;
use crate::pod::verdict::Verdict;
use crate::worker::{Event, Life, PodWorker};

/// Upstream's period of its log and eviction managers.
const EVERY: Duration = Duration::from_secs(10);
/// Upstream's period of its image manager.
const IMAGES_EVERY: u32 = 30;

pub struct Housekeeping {
    /// Where pods have groups of their own.
    pub classes: Option<Classes>,
    pub executor: Arc<Executor>,
    pub node: NodeSignals,
    pub pid_max: u64,
}

impl Housekeeping {
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut manager = Manager::default();
        let mut used: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut round = 0u32;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let Some(workers) = self.executor.mailbox.ask(Query::Workers).await else { return };
            round += 1;
            if workers.is_empty()
                && *self.node.pressure.lock() == Pressure::default()
                && !round.is_multiple_of(IMAGES_EVERY)
            {
                continue;
            }
            self.weigh_classes(&workers);
            self.rotate_logs(&workers).await;
            self.watch_storage(&workers).await;
            let reading = self.reading().await;
            let crossed = eviction::crossed(&self.executor.config.eviction, &reading);
            let pressure = manager.pressure(&self.executor.config.eviction, &crossed, Timestamp::now());
            if std::mem::replace(&mut *self.node.pressure.lock(), pressure) != pressure {
                self.node.changed.notify_one();
            }
            let disk_short = crossed.iter().any(|c| c.resource == eviction::Resource::EphemeralStorage);
            if disk_short || round.is_multiple_of(IMAGES_EVERY) {
                self.collect_images(&workers, &mut used, disk_short).await;
            }
            if let Some(first) = crossed.first() {
                // What images gave back may have been enough.
                let again = eviction::crossed(&self.executor.config.eviction, &self.reading().await);
                if again.iter().any(|c| c.resource == first.resource) {
                    self.evict(first, &workers).await;
                }
            }
        }
    }

    fn weigh_classes(&mut self, workers: &[PodWorker]) {
        let pods = workers.iter().filter(|worker| !worker.is_ended()).map(|worker| worker.pod.as_ref());
        if let Some(Err(error)) = self.classes.as_mut().map(|classes| classes.weigh(pods)) {
            tracing::warn!(%error, "the class of burstable pods keeps its weight");
        }
    }

    async fn rotate_logs(&self, workers: &[PodWorker]) {
        let config = &self.executor.config;
        for worker in workers {
            for slot in &worker.slots {
                let Some(instance) = slot.running() else { continue };
                let log = make::log_file(config, &worker.pod, slot.name(), instance.restarts);
                let now = Timestamp::now();
                match logs::rotate(&log, config.container_log_max_size, config.container_log_max_files, now) {
                    Ok(true) => {
                        let request = cri::ReopenContainerLogRequest { container_id: instance.id.clone() };
                        if let Err(error) = self.executor.cri.runtime().reopen_container_log(request).await {
                            tracing::warn!(error = shown(&error), id = instance.id, "log not reopened");
                        }
                    }
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%error, log = %log.display(), "log not rotated"),
                }
            }
        }
    }

    async fn reading(&self) -> Reading {
        let nodefs = machine::disk(&self.executor.config.root_dir);
        let imagefs = match self.image_mount().await {
            Some(path) => machine::disk(Path::new(&path)),
            None => nodefs,
        };
        Reading {
            memory_available: machine::meminfo("MemAvailable"),
            memory_capacity: self.executor.node_memory,
            nodefs,
            imagefs,
            pids_available: self.pid_max.saturating_sub(machine::processes()),
            pids_capacity: self.pid_max,
        }
    }

    async fn image_mount(&self) -> Option<String> {
        let answer = self.executor.cri.images().image_fs_info(cri::ImageFsInfoRequest::default()).await.ok()?;
        let path = answer.into_inner().image_filesystems.first()?.fs_id.as_ref()?.mountpoint.clone();
        Some(path).filter(|p| !p.is_empty())
    }

    async fn evict(&self, crossed: &eviction::Crossed, workers: &[PodWorker]) {
        let usage = self.usage().await;
        let candidates: Vec<(&Pod, Usage)> = workers
            .iter()
            .filter(|w| w.life == Life::Active && w.rejected.is_none())
            .map(|w| (w.pod.as_ref(), usage.get(pods::uid(&w.pod)).cloned().unwrap_or_default()))
            .collect();
        let Some((uid, verdict)) = eviction::victim(crossed, &candidates) else { return };
        if let Some((pod, _)) = candidates.iter().find(|(p, _)| pods::uid(p) == uid) {
            self.end(pod, verdict);
        }
    }

    fn end(&self, pod: &Pod, verdict: Verdict) {
        tracing::warn!(pod = pods::shown(pod), message = verdict.message, "evicting");
        self.executor.note(pod, None, true, &verdict.reason, &verdict.message);
        let event = Event::Evict { verdict, grace: 0 };
        self.executor.mailbox.send(Message::Answer { uid: pods::uid(pod).to_owned(), event });
    }

    /// Ends pods that keep more on disk than they may.
    async fn watch_storage(&self, workers: &[PodWorker]) {
        let active = workers.iter().filter(|w| w.life == Life::Active && w.rejected.is_none());
        let limited: Vec<&PodWorker> = active.filter(|w| storage_limits::limited(&w.pod)).collect();
        if limited.is_empty() {
            return;
        }
        let usage = self.usage().await;
        for worker in limited {
            let pod = worker.pod.clone();
            let layers = usage.get(pods::uid(&pod)).map(|usage| usage.layers.clone()).unwrap_or_default();
            let config = &self.executor.config;
            let dir = config.pod_dir(pods::uid(&pod));
            let logs = config.pod_log_dir(pods::namespace(&pod), pods::name(&pod), pods::uid(&pod));
            let measured = tokio::task::spawn_blocking(move || storage_limits::measure(&pod, &dir, &logs, layers));
            let Ok(used) = measured.await else { continue };
            if let Some(verdict) = storage_limits::exceeded(&worker.pod, &used) {
                self.end(&worker.pod, verdict);
            }
        }
    }

    async fn usage(&self) -> BTreeMap<String, Usage> {
        let answer =
            self.executor.cri.runtime().list_pod_sandbox_stats(cri::ListPodSandboxStatsRequest::default()).await;
        let Ok(answer) = answer else { return BTreeMap::new() };
        let number = |v: &Option<cri::UInt64Value>| v.as_ref().map_or(0, |v| v.value);
        let mut out = BTreeMap::new();
        for stats in answer.into_inner().stats {
            let Some(uid) = stats.attributes.and_then(|a| a.metadata).map(|m| m.uid) else { continue };
            let linux = stats.linux.unwrap_or_default();
            let name = |c: &cri::ContainerStats| Some(c.attributes.as_ref()?.metadata.as_ref()?.name.clone());
            let working_set = |c: &cri::ContainerStats| Some((name(c)?, number(&c.memory.as_ref()?.working_set_bytes)));
            let layer = |c: &cri::ContainerStats| Some((name(c)?, number(&c.writable_layer.as_ref()?.used_bytes)));
            let usage = Usage {
                memory: linux.memory.as_ref().map_or(0, |m| number(&m.working_set_bytes)),
                processes: linux.process.as_ref().map_or(0, |p| number(&p.process_count)),
                containers: linux.containers.iter().filter_map(working_set).collect(),
                layers: linux.containers.iter().filter_map(layer).collect(),
            };
            out.insert(uid, usage);
        }
        out
    }

    /// Removes images that no pod here uses, the longest unused first, until the disk is below the low mark.
    async fn collect_images(&self, workers: &[PodWorker], used: &mut BTreeMap<String, Timestamp>, all: bool) {
        let config = &self.executor.config;
        let Some(mount) = self.image_mount().await else { return };
        let disk = machine::disk(Path::new(&mount));
        let percent = |d: &Disk| 100 - 100 * d.available / d.capacity.max(1);
        let listed = self.executor.cri.images().list_images(cri::ListImagesRequest::default()).await;
        let Ok(listed) = listed.map(|l| l.into_inner().images) else { return };
        let now = Timestamp::now();
        let mut named: Vec<String> = workers.iter().flat_map(images_of).collect();
        // While no API server has told of them, pods of a former life run without a worker.
        let Ok(run) = self.executor.cri.runtime().list_containers(cri::ListContainersRequest::default()).await else {
            return;
        };
        named.extend(run.into_inner().containers.into_iter().map(|container| container.image_ref));
        let in_use =
            |i: &cri::Image| named.iter().any(|n| *n == i.id || i.repo_tags.contains(n) || i.repo_digests.contains(n));
        used.retain(|id, _| listed.iter().any(|i| i.id == *id));
        for image in &listed {
            if in_use(image) || !used.contains_key(&image.id) {
                used.insert(image.id.clone(), now);
            }
        }
        if !all && percent(&disk) < u64::from(config.image_gc_high_threshold_percent) {
            return;
        }
        let low = disk.capacity / 100 * u64::from(config.image_gc_low_threshold_percent);
        let mut wanted = (disk.capacity - disk.available).saturating_sub(low);
        let age = SignedDuration::try_from(config.image_minimum_gc_age).unwrap_or(SignedDuration::ZERO);
        let mut old: Vec<&cri::Image> = listed
            .iter()
            .filter(|i| !i.pinned && !in_use(i) && used.get(&i.id).is_some_and(|at| now.duration_since(*at) >= age))
            .collect();
        old.sort_by_key(|i| used.get(&i.id).copied());
        for image in old {
            if wanted == 0 && !all {
                return;
            }
            let spec = cri::ImageSpec { image: image.id.clone(), ..cri::ImageSpec::default() };
            let request = cri::RemoveImageRequest { image: Some(spec) };
            match self.executor.cri.images().remove_image(request).await {
                Ok(_) => {
                    tracing::info!(image = image.id, size = image.size, "removed an unused image");
                    wanted = wanted.saturating_sub(image.size);
                }
                Err(error) => tracing::warn!(error = shown(&error), image = image.id, "image not removed"),
            }
        }
        self.node.changed.notify_one();
    }
}

/// Every name by which a pod holds images: as written, as run.
fn images_of(worker: &PodWorker) -> Vec<String> {
    let slots = worker.slots.iter();
    let run = slots.clone().flat_map(|s| [&s.current, &s.last].into_iter().flatten().map(|i| i.image_id.clone()));
    let written = slots.filter_map(|s| crate::pod::image::normalized(s.container.image.as_deref()?).ok());
    let volumes = crate::volumes::all(&worker.pod)
        .iter()
        .filter_map(|v| crate::pod::image::normalized(v.image.as_ref()?.reference.as_deref()?).ok());
    run.chain(written).chain(volumes).collect()
}
