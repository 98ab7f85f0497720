//! The loop that every controller shares: a key is taken, decided about, acted on, and looked at again when due.
//!
//! ```text
//!  informers ──add──> queue ──next──> reconcile(key, now) ──plan──> executor ──writes──> API server
//!                       ^  ^          pure: reads caches                 │
//!                       │  └───────── retry, with backoff <── error ─────┤
//!                       │             requeue_after       <── done ──────┤
//!                       └─ done(key) <── caches show what was written <──┘
//! ```
//!
//! A key is in one pair of hands at a time, and is not given out again before the caches show what its last plan wrote:
//! so no decision is made twice on old news, and no controller needs upstream's expectations. While that is waited for
//! the worker takes other keys. A cache that stays behind longer than [`STALE_LIMIT`] has lost its watch; then deciding
//! on what it shows is better than not deciding.
//! I/O: spawns tasks and runs plans; the only loops besides `daemon`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use client::queue::QueueMetrics;
use client::{Effect, ExecuteError, Executor, Key, Plan, Target, WorkQueue};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::setup::View;

/// A cache that stays behind this long has lost its watch: deciding on what it shows is better than not deciding.
const STALE_LIMIT: Duration = Duration::from_secs(30);

type Reconcile = Arc<dyn Fn(Key, Timestamp) -> BoxFuture<'static, Plan> + Send + Sync>;
type OnFailure = Arc<dyn Fn(&Key, &ExecuteError, Timestamp) -> Plan + Send + Sync>;

/// One queue and how it is worked through.
pub struct Work {
    pub queue: WorkQueue<Key>,
    pub executor: Executor,
    pub workers: usize,
    reconcile: Reconcile,
    on_failure: Option<OnFailure>,
    serial: bool,
}

impl Work {
    /// `reconcile` reads caches and decides.
    pub fn new(
        queue: &WorkQueue<Key>,
        executor: Executor,
        workers: usize,
        reconcile: impl Fn(&Key, Timestamp) -> Plan + Send + Sync + 'static,
    ) -> Work {
        let reconcile = Arc::new(reconcile);
        Work::asking(queue, executor, workers, move |key, now| {
            let reconcile = reconcile.clone();
            async move { reconcile(&key, now) }
        })
    }

    /// As [`Work::new`], for the few that must ask the server before they decide.
    pub fn asking<F>(
        queue: &WorkQueue<Key>,
        executor: Executor,
        workers: usize,
        reconcile: impl Fn(Key, Timestamp) -> F + Send + Sync + 'static,
    ) -> Work
    where
        F: Future<Output = Plan> + Send + 'static,
    {
        Work {
            queue: queue.clone(),
            executor,
            workers: workers.max(1),
            reconcile: Arc::new(move |key, now| reconcile(key, now).boxed()),
            on_failure: None,
            serial: false,
        }
    }

    /// What to do when a step of a plan failed, before the key is tried again.
    pub fn on_failure(
        mut self,
        decide: impl Fn(&Key, &ExecuteError, Timestamp) -> Plan + Send + Sync + 'static,
    ) -> Work {
        self.on_failure = Some(Arc::new(decide));
        self
    }

    /// One key at a time, each seeing what the one before it wrote: for those that share something between keys.
    pub fn serial(mut self) -> Work {
        self.serial = true;
        self.workers = 1;
        self
    }

    /// Starts the workers; they end with `shutdown`.
    pub fn start(
        self,
        name: &'static str,
        views: Arc<[Arc<dyn View>]>,
        metrics: &QueueMetrics,
        shutdown: &CancellationToken,
    ) {
        self.queue.measure(name.strip_suffix("-controller").unwrap_or(name), metrics);
        let workers = self.workers;
        let work = Arc::new(self);
        for _ in 0..workers {
            let (work, views, shutdown) = (work.clone(), views.clone(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = work.serve(name, views) => {}
                }
            });
        }
    }

    async fn serve(&self, name: &'static str, views: Arc<[Arc<dyn View>]>) {
        for view in views.iter() {
            view.synced().await;
        }
        loop {
            let key = self.queue.next().await;
            let written = self.step(name, &key).await;
            if written.is_empty() {
                self.queue.done(&key);
            } else if self.serial {
                shown(&views, written).await;
                self.queue.done(&key);
            } else {
                let (queue, views) = (self.queue.clone(), views.clone());
                tokio::spawn(async move {
                    shown(&views, written).await;
                    queue.done(&key);
                });
            }
        }
    }

    /// Decides and acts once; gives back what was written.
    async fn step(&self, name: &'static str, key: &Key) -> Vec<Write> {
        let mut written = Vec::new();
        let decided = AssertUnwindSafe((self.reconcile)(key.clone(), Timestamp::now())).catch_unwind().await;
        let Ok(plan) = decided else {
            tracing::error!(controller = name, %key, "decision panicked, trying again");
            self.queue.retry(key.clone());
            return written;
        };
        tracing::debug!(controller = name, %key, %plan, "decided");
        match self.executor.run(&plan, |target, effect| written.extend(Write::of(target, effect))).await {
            Ok(()) => {
                self.queue.forget(key);
                if let Some(delay) = plan.requeue_after {
                    self.queue.add_after(key.clone(), delay);
                }
            }
            Err(error) => self.failed(name, key, error, &mut written).await,
        }
        written
    }

    async fn failed(&self, name: &'static str, key: &Key, error: ExecuteError, written: &mut Vec<Write>) {
        if error.is_namespace_terminating() {
            // Nothing can be made there any more: the deletions to come will wake the key.
            self.queue.forget(key);
            return;
        }
        let (step, said) = (error.op.describe(), error.message());
        if error.is_conflict() || error.is_not_found() {
            tracing::debug!(controller = name, %key, step, error = said, "step failed, trying again");
        } else {
            tracing::warn!(controller = name, %key, step, error = said, "step failed, trying again");
        }
        if let Some(decide) = &self.on_failure {
            let plan = decide(key, &error, Timestamp::now());
            let told = self.executor.run(&plan, |target, effect| written.extend(Write::of(target, effect))).await;
            if let Err(error) = told {
                tracing::debug!(controller = name, %key, %error, "failure not told");
            }
        }
        self.queue.retry(key.clone());
    }
}

/// Something written that the caches should come to show.
#[derive(Debug, Clone, PartialEq)]
struct Write {
    resource: (String, String),
    key: Key,
    what: Written,
}

#[derive(Debug, Clone, PartialEq)]
enum Written {
    /// At this resource version or later.
    Version(u64),
    /// Not live any more under this uid.
    Gone(Option<String>),
}

impl Write {
    /// What the caches should come to show of an effect.
    fn of(target: &Target, effect: Effect) -> Option<Write> {
        let what = match effect {
            Effect::Written(object) => Written::Version(object.metadata.resource_version?.parse().ok()?),
            Effect::Deleted(uid) => Written::Gone(uid),
            Effect::Posted => return None,
        };
        let resource = (target.resource.group.clone(), target.resource.plural.clone());
        Some(Write { resource, key: Key::new(target.namespace.clone(), target.name.clone()), what })
    }
}

/// Waits until the caches show all of `written`.
async fn shown(views: &[Arc<dyn View>], written: Vec<Write>) {
    let all = async {
        for write in &written {
            let Some(view) = views.iter().find(|v| *v.resource() == write.resource) else { continue };
            let mut version = view.version();
            match &write.what {
                Written::Version(wanted) => {
                    let _ = version.wait_for(|seen| seen >= wanted).await;
                }
                Written::Gone(uid) => {
                    let _ = version.wait_for(|_| view.deleted(&write.key, uid.as_deref())).await;
                }
            }
        }
    };
    if tokio::time::timeout(STALE_LIMIT, all).await.is_err() {
        tracing::warn!("a cache does not show a write of {} s ago", STALE_LIMIT.as_secs());
    }
}
