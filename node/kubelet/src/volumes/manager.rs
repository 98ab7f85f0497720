//! [`Volumes`]: what was said of each pod, what is known of the disk, and the operations that [`super::plan`] asks for, run.
//! Does I/O: files, mounts, the API for objects and tokens. The executor asks for a pod's volumes and for their end, the loop
//! tells what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::payload::{self, Filling, Payload};
use super::plan::{self, Actual, Desired, Key, Op, Wanted};
use super::plugins::{self, Plugin, all};
use super::set_up::SetUp;
use super::tokens::Tokens;
use super::{atomic, disk, trust};
use crate::config::Config;
use crate::io::objects::{Bundles, Objects};
use crate::pod::downward_api::Facts;
use crate::pod::env::Sources;
use crate::pod::pods;
use crate::pod::quantity;

/// Makes, refreshes and removes the volumes of all pods.
pub struct Volumes {
    config: Arc<Config>,
    objects: Arc<Objects>,
    tokens: Tokens,
    known: Mutex<Known>,
    /// Something is to be looked at before the next refresh is due.
    wake: Notify,
}

#[derive(Default)]
struct Known {
    desired: Desired,
    actual: Actual,
    pods: BTreeMap<String, Entry>,
    /// Pods whose files are being brought up to date.
    refreshing: BTreeSet<String>,
}

/// A pod that was spoken of.
#[derive(Clone, Default)]
struct Entry {
    /// As it was last, with the values for downward-API files; `None` for one that is only to be removed.
    pod: Option<(Arc<Pod>, Facts)>,
    /// Operations of one pod run one after the other: one that read an older object must not write after one that read a
    /// newer, and nothing is written where something is being removed.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Volumes {
    pub fn new(config: Arc<Config>, objects: Arc<Objects>, client: kube::Client) -> Volumes {
        let actual = disk::scan(&config.root_dir.join("pods"));
        let known = Mutex::new(Known { actual, ..Known::default() });
        Volumes { config, objects, tokens: Tokens::new(client), known, wake: Notify::new() }
    }

    /// UIDs of the pods that have something on the disk.
    pub fn pods(&self) -> Vec<String> {
        self.known.lock().actual.keys().cloned().collect()
    }

    /// Makes every volume of the pod, or says what users should read about the first one that failed. Idempotent.
    pub async fn mount(&self, pod: &Arc<Pod>, facts: &Facts) -> Result<(), String> {
        let row = |v| Ok::<_, String>((plugins::of(v).map_err(|e| failed(&v.name, &e))?, v));
        let rows = all(pod).iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let volumes = rows.into_iter().map(|(plugin, v)| (plugin.key(v), plugin.content())).collect();
        let uid = pods::uid(pod);
        {
            let mut known = self.known.lock();
            let revision = known.revision(uid);
            known.desired.insert(uid.to_owned(), Wanted::Volumes { volumes, revision });
            known.pods.entry(uid.to_owned()).or_default().pod = Some((pod.clone(), facts.clone()));
        }
        let done = self.converge(uid).await;
        self.wake.notify_one();
        done
    }

    /// Objects that these pods refer to are others now.
    pub fn changed(&self, uids: &[String]) {
        let mut known = self.known.lock();
        uids.iter().for_each(|uid| known.touch(uid));
        self.wake.notify_one();
    }

    /// The pod has other labels or annotations.
    pub fn updated(&self, pod: &Arc<Pod>, facts: Facts) {
        let mut known = self.known.lock();
        known.touch(pods::uid(pod));
        if let Some(entry) = known.pods.get_mut(pods::uid(pod)) {
            entry.pod = Some((pod.clone(), facts));
        }
        self.wake.notify_one();
    }

    /// Unmounts and removes everything of the pod below its directory. Idempotent, also for pods that nobody knew.
    pub async fn tear_down(&self, uid: &str) -> Result<(), String> {
        self.objects.forget(uid);
        self.tokens.forget(uid);
        {
            let mut known = self.known.lock();
            known.desired.insert(uid.to_owned(), Wanted::Nothing);
            known.pods.entry(uid.to_owned()).or_default().pod = None;
        }
        self.converge(uid).await?;
        let mut known = self.known.lock();
        // A file that was taken away and put back names the same pod again.
        if known.desired.get(uid) == Some(&Wanted::Nothing) {
            known.desired.remove(uid);
            known.pods.remove(uid);
        }
        Ok(())
    }

    /// Brings files up to date until shutdown: when something that they are made of changes, and before tokens expire.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let next = self.refresh(Timestamp::now());
            let wait = next.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO));
            let timer = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.wake.notified() => {}
                () = timer => {}
            }
        }
    }

    /// Starts what is due, each pod beside the others; when the next one will be.
    fn refresh(self: &Arc<Self>, now: Timestamp) -> Option<Timestamp> {
        let mut known = self.known.lock();
        let waiting =
            plan::refreshes(&known.desired, &known.actual).filter(|(_, uid)| !known.refreshing.contains(*uid));
        let (due, later): (Vec<_>, Vec<_>) =
            waiting.map(|(at, uid)| (at, uid.to_owned())).partition(|(at, _)| *at <= now);
        for (_, uid) in due {
            known.refreshing.insert(uid.clone());
            let volumes = self.clone();
            tokio::spawn(async move {
                if let Err(error) = volumes.converge(&uid).await {
                    tracing::debug!(error, uid, "volumes not brought up to date, trying again");
                }
                volumes.known.lock().refreshing.remove(&uid);
                volumes.wake.notify_one();
            });
        }
        later.into_iter().map(|(at, _)| at).min()
    }

    /// Runs what is to be done for one pod, up to the first operation that fails.
    async fn converge(&self, uid: &str) -> Result<(), String> {
        // One that was removed meanwhile needs nothing.
        let Some(turn) = self.known.lock().pods.get(uid).map(|entry| entry.turn.clone()) else { return Ok(()) };
        let _turn = turn.lock().await;
        // Containers left things that nobody told of.
        let gone = self.known.lock().desired.get(uid) == Some(&Wanted::Nothing);
        let found = gone.then(|| disk::scan_pod(&self.config.pod_dir(uid)));
        let (entry, ops, revision) = {
            let mut known = self.known.lock();
            if let Some(found) = found {
                known.look(uid, found);
            }
            let ops = known
                .desired
                .get(uid)
                .map_or_else(Vec::new, |wanted| plan::plan(wanted, known.actual.get(uid), Timestamp::now()));
            (known.pods.get(uid).cloned().unwrap_or_default(), ops, known.revision(uid))
        };
        if ops.is_empty() {
            return Ok(());
        }
        let done = match entry.pod {
            Some((pod, facts)) => self.make(&pod, &facts, ops, revision).await,
            None => self.remove(uid, ops).await,
        };
        if done.is_err() {
            plan::failed(&mut self.known.lock().actual, uid, revision, Timestamp::now());
        }
        done
    }

    async fn make(&self, pod: &Arc<Pod>, facts: &Facts, ops: Vec<Op>, revision: u64) -> Result<(), String> {
        let uid = pods::uid(pod);
        let mut files = self.files(pod, facts).await?;
        let until = self.tokens.next_refresh(uid);
        for op in ops {
            let (Op::SetUp(key) | Op::Refresh(key)) = &op else { continue };
            let Some((plugin, job)) = self.job(pod, facts, key, &mut files)? else { continue };
            plan::begin(&mut self.known.lock().actual, uid, &op);
            let refresh = matches!(op, Op::Refresh(_));
            let name = key.name.clone();
            blocking(move || if refresh { rewrite(&job) } else { (plugin.set_up)(&job) })
                .await
                .map_err(|e| failed(&name, &e))?;
            tracing::debug!(uid, volume = name, plugin = plugin.name, refresh, "volume made");
            plan::done(&mut self.known.lock().actual, uid, op, revision, until, Timestamp::now());
        }
        Ok(())
    }

    fn job(
        &self,
        pod: &Pod,
        facts: &Facts,
        key: &Key,
        files: &mut BTreeMap<String, Payload>,
    ) -> Result<Option<(&'static Plugin, SetUp)>, String> {
        let Some(volume) = all(pod).iter().find(|v| v.name == key.name) else { return Ok(None) };
        let plugin = plugins::of(volume).map_err(|e| failed(&volume.name, &e))?;
        let job = SetUp {
            volume: volume.clone(),
            path: plugin.path(&self.config.pod_dir(pods::uid(pod)), volume),
            files: files.remove(&volume.name).unwrap_or_default(),
            group: fs_group(pod),
            node_memory: facts.allocatable.get("memory").map(quantity::value),
        };
        Ok(Some((plugin, job)))
    }

    /// The files of all volumes that hold the kubelet's, by volume. Of all of them each time: they share what a pod may
    /// have, and one reading of the objects.
    async fn files(&self, pod: &Arc<Pod>, facts: &Facts) -> Result<BTreeMap<String, Payload>, String> {
        let (mut maps, mut secrets) = (Vec::new(), Vec::new());
        let (mut wishes, mut selectors) = (Vec::new(), Vec::new());
        for volume in all(pod) {
            let (m, s) = payload::references(volume);
            maps.extend(m);
            secrets.extend(s);
            selectors.extend(trust::references(volume));
            wishes.extend(payload::wishes(volume).into_iter().map(|w| (volume.name.clone(), w)));
        }
        let now = Timestamp::now();
        let ask = wishes.iter().map(|(volume, wish)| async move {
            let token = self.tokens.get(pod, wish, now).await.map_err(|e| failed(volume, &e))?;
            Ok::<_, String>((wish.clone(), token))
        });
        let (sources, bundles, tokens) = futures::join!(
            self.objects.sources(pods::uid(pod), pods::namespace(pod), maps, secrets),
            self.objects.bundles(pods::uid(pod), selectors),
            futures::future::try_join_all(ask)
        );
        let tokens: BTreeMap<_, _> = tokens?.into_iter().collect();
        let (sources, bundles): (Sources, Bundles) = (sources?, bundles?);
        let filling = Filling { pod, facts, sources: &sources, tokens: &tokens, bundles: &bundles };
        let mut room = payload::MOST_BYTES;
        let mut out = BTreeMap::new();
        for volume in all(pod) {
            let failed = |e: String| failed(&volume.name, &e);
            if let Some(fill) = plugins::of(volume).map_err(failed)?.files {
                out.insert(volume.name.clone(), fill(volume, &filling, &mut room).map_err(failed)?);
            }
        }
        Ok(out)
    }

    async fn remove(&self, uid: &str, ops: Vec<Op>) -> Result<(), String> {
        let dir = self.config.pod_dir(uid);
        for op in ops {
            let Some(path) = removed(&op, &dir) else { continue };
            let shown = path.display().to_string();
            blocking(move || disk::remove(&path).map_err(|e| format!("remove {shown}: {e}"))).await?;
            plan::done(&mut self.known.lock().actual, uid, op, 0, None, Timestamp::now());
        }
        Ok(())
    }
}

impl Known {
    fn revision(&self, uid: &str) -> u64 {
        match self.desired.get(uid) {
            Some(Wanted::Volumes { revision, .. }) => *revision,
            Some(Wanted::Nothing) | None => 0,
        }
    }

    fn touch(&mut self, uid: &str) {
        if let Some(Wanted::Volumes { revision, .. }) = self.desired.get_mut(uid) {
            *revision += 1;
        }
    }

    fn look(&mut self, uid: &str, found: Option<plan::PodDir>) {
        match found {
            Some(dir) => drop(self.actual.insert(uid.to_owned(), dir)),
            None => drop(self.actual.remove(uid)),
        }
    }
}

/// What an operation takes away.
fn removed(op: &Op, pod_dir: &std::path::Path) -> Option<PathBuf> {
    match op {
        Op::Unbind => Some(pod_dir.join(disk::SUBPATHS)),
        Op::TearDown(key) => Some(plugins::directory_of(pod_dir, key.directory.as_deref()?).join(&key.name)),
        Op::RemoveDir => Some(pod_dir.to_owned()),
        Op::SetUp(_) | Op::Refresh(_) => None,
    }
}

fn rewrite(job: &SetUp) -> Result<(), String> {
    atomic::write(&job.path, &job.files, job.group).map(drop).map_err(|e| e.to_string())
}

async fn blocking(work: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| format!("the volume task ended: {e}"))?
}

fn failed(volume: &str, why: &str) -> String {
    format!("MountVolume.SetUp failed for volume \"{volume}\" : {why}")
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pods::spec(pod).security_context.as_ref().and_then(|c| c.fs_group);
    group.and_then(|g| u32::try_from(g).ok())
}
