//! The work queue between informers and a controller's loop: an item waits once however often it is added, is worked
//! on by one worker at a time, can be delayed, and backs off when it fails. The bookkeeping is the pure [`Core`].

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use telemetry::{Counter, Family, Gauge, Histogram, Registry};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Backoff of a failing item: upstream's default controller rate limiter without its global bucket.
const BASE_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(1000);

/// Upstream's buckets, in seconds, to the letter.
const SECONDS: &[f64] =
    &[1e-8, 1e-7, 1e-6, 9.999999999999999e-6, 9.999999999999999e-5, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0];

/// The `workqueue_*` metrics of a component, by name of the queue.
#[derive(Clone)]
pub struct QueueMetrics {
    adds: Family<Counter, 1>,
    retries: Family<Counter, 1>,
    depth: Family<Gauge, 1>,
    waited: Family<Histogram, 1>,
    worked: Family<Histogram, 1>,
}

impl QueueMetrics {
    /// Declares them; once for each registry.
    pub fn declare(registry: &Registry) -> QueueMetrics {
        let (r, name) = (registry, ["name"]);
        QueueMetrics {
            adds: r.counter("workqueue_adds_total", "Items added.", name),
            retries: r.counter("workqueue_retries_total", "Items added for later.", name),
            depth: r.gauge("workqueue_depth", "Items that wait.", name),
            waited: r.histogram("workqueue_queue_duration_seconds", "How long items waited.", name, SECONDS),
            worked: r.histogram("workqueue_work_duration_seconds", "How long items were worked on.", name, SECONDS),
        }
    }
}

/// The metrics of one queue, and since when its items wait or are worked on.
#[derive(Debug)]
struct Meter<T> {
    adds: Counter,
    retries: Counter,
    depth: Gauge,
    waited: Histogram,
    worked: Histogram,
    since: HashMap<T, Instant>,
    begun: HashMap<T, Instant>,
}

#[derive(Debug)]
struct Core<T> {
    ready: VecDeque<T>,
    dirty: HashSet<T>,
    working: HashSet<T>,
    delayed: BTreeMap<(Instant, u64), T>,
    /// Where each delayed item is: it waits once, for the earliest time asked for.
    due: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
    meter: Option<Meter<T>>,
}

impl<T: Clone + Eq + Hash> Core<T> {
    fn add(&mut self, item: T) {
        if !self.dirty.insert(item.clone()) {
            return;
        }
        if let Some(meter) = &mut self.meter {
            meter.adds.inc();
            meter.depth.add(1.0);
            meter.since.insert(item.clone(), Instant::now());
        }
        if !self.working.contains(&item) {
            self.ready.push_back(item);
        }
    }

    fn add_at(&mut self, item: T, at: Instant) {
        if let Some(known) = self.due.get(&item) {
            if known.0 <= at {
                return;
            }
            self.delayed.remove(known);
        }
        if let Some(meter) = &self.meter {
            meter.retries.inc();
        }
        self.sequence += 1;
        self.due.insert(item.clone(), (at, self.sequence));
        self.delayed.insert((at, self.sequence), item);
    }

    fn fail(&mut self, item: &T) -> Duration {
        let failures = self.failures.entry(item.clone()).or_insert(0);
        let delay = BASE_DELAY.saturating_mul(1 << (*failures).min(18)).min(MAX_DELAY);
        *failures += 1;
        delay
    }

    fn take(&mut self, now: Instant) -> Option<T> {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let item = entry.remove();
            self.due.remove(&item);
            self.add(item);
        }
        let item = self.ready.pop_front()?;
        self.dirty.remove(&item);
        self.working.insert(item.clone());
        if let Some(meter) = &mut self.meter {
            meter.depth.add(-1.0);
            let since = meter.since.remove(&item).unwrap_or(now);
            meter.waited.time(now.saturating_duration_since(since));
            meter.begun.insert(item.clone(), now);
        }
        Some(item)
    }

    fn done(&mut self, item: &T) {
        self.working.remove(item);
        if let Some(meter) = &mut self.meter
            && let Some(begun) = meter.begun.remove(item)
        {
            meter.worked.time(begun.elapsed());
        }
        if self.dirty.contains(item) {
            self.ready.push_back(item.clone());
        }
    }
}

/// A work queue shared by handlers and workers. Cheap to clone; clones are the same queue. What holds, as in client-go:
///
/// - an item waits once, however often it is added (the dirty set);
/// - no two workers have the same item: one that is added while it is worked on waits for [`WorkQueue::done`];
/// - so an item that is added is always worked on once more *after* that, by someone who sees at least what its adder saw;
/// - items come in the order in which they became ready; delayed and failed ones become ready at their time.
///
/// ```text
///   add ──> ready ──next──> worked on ──done──> (gone)
///             ^                 │ add: dirty
///             └──────done───────┘
/// ```
#[derive(Debug, Clone)]
pub struct WorkQueue<T> {
    core: Arc<Mutex<Core<T>>>,
    changed: Arc<Notify>,
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        let core = Core {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            meter: None,
        };
        WorkQueue { core: Arc::new(Mutex::new(core)), changed: Arc::new(Notify::new()) }
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// Counts from now on under this name.
    pub fn measure(&self, name: &str, metrics: &QueueMetrics) {
        let (label, mut core) = ([name], self.core.lock());
        let meter = Meter {
            adds: metrics.adds.with(label),
            retries: metrics.retries.with(label),
            depth: metrics.depth.with(label),
            waited: metrics.waited.with(label),
            worked: metrics.worked.with(label),
            since: HashMap::new(),
            begun: HashMap::new(),
        };
        // What waits already counts as added now.
        meter.adds.add(core.dirty.len() as u64);
        meter.depth.add(core.dirty.len() as f64);
        core.meter = Some(meter);
    }

    /// Adds an item, unless it waits already. One that is worked on comes again when it is done.
    pub fn add(&self, item: T) {
        self.core.lock().add(item);
        self.changed.notify_one();
    }

    /// Adds an item after `delay`, or at the earlier time that was asked for already.
    pub fn add_after(&self, item: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(item);
        }
        self.core.lock().add_at(item, Instant::now() + delay);
        self.changed.notify_one();
    }

    /// Adds a failed item again, later each time (5 ms, doubled up to 1000 s), until [`WorkQueue::forget`].
    pub fn retry(&self, item: T) {
        let mut core = self.core.lock();
        let delay = core.fail(&item);
        core.add_at(item, Instant::now() + delay);
        drop(core);
        self.changed.notify_one();
    }

    /// The item succeeded: its next failure is its first.
    pub fn forget(&self, item: &T) {
        self.core.lock().failures.remove(item);
    }

    /// The next item; the caller must say [`WorkQueue::done`] when it has worked on it.
    pub async fn next(&self) -> T {
        loop {
            let wait = {
                let mut core = self.core.lock();
                if let Some(item) = core.take(Instant::now()) {
                    if !core.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return item;
                }
                core.delayed.first_key_value().map(|((at, _), _)| *at)
            };
            match wait {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// An item that [`WorkQueue::next`] gave has been worked on. If it was added meanwhile, it is ready again.
    pub fn done(&self, item: &T) {
        self.core.lock().done(item);
        self.changed.notify_one();
    }

    /// Items ready to be worked on.
    pub fn len(&self) -> usize {
        self.core.lock().ready.len()
    }

    /// Whether none is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_item_added_while_worked_on_comes_again_once() {
        let queue = WorkQueue::default();
        queue.add("a");
        queue.add("a");
        let item = queue.next().await;
        queue.add("a");
        queue.add("a");
        assert!(queue.is_empty(), "never two workers on one item");
        queue.done(&item);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_item_waits_once_for_the_earliest_time() {
        let queue = WorkQueue::default();
        for seconds in [30, 10, 20] {
            queue.add_after("a", Duration::from_secs(seconds));
        }
        let start = Instant::now();
        queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 10);
        queue.done(&"a");
        assert!(queue.core.lock().delayed.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_measured_queue_tells_what_waits_and_for_how_long() {
        let registry = Registry::default();
        let queue = WorkQueue::default();
        queue.add("before");
        queue.measure("job", &QueueMetrics::declare(&registry));
        queue.add("a");
        queue.add("a");
        queue.add_after("b", Duration::from_secs(5));
        assert!(registry.text().contains("workqueue_depth{name=\"job\"} 2\n"), "{}", registry.text());
        for _ in 0..3 {
            let item = queue.next().await;
            queue.done(&item);
        }
        let text = registry.text();
        for line in [
            "workqueue_adds_total{name=\"job\"} 3",
            "workqueue_retries_total{name=\"job\"} 1",
            "workqueue_depth{name=\"job\"} 0",
            "workqueue_queue_duration_seconds_count{name=\"job\"} 3",
            "workqueue_work_duration_seconds_bucket{name=\"job\",le=\"9.999999999999999e-06\"} 3",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_forget_starts_over() {
        let queue = WorkQueue::default();
        let start = Instant::now();
        for _ in 0..3 {
            queue.retry("a");
            let item = queue.next().await;
            queue.done(&item);
        }
        assert!(start.elapsed() >= Duration::from_millis(5 + 10 + 20));
        queue.forget(&"a");
        assert!(queue.core.lock().failures.is_empty());
    }
}
