//! Counters, gauges and histograms: handles that are cheap to clone and to change from any thread. Pure.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::number::go_float;

/// What a family can hold.
pub trait Metric: Clone + Send + Sync + 'static {
    /// The word in the TYPE line.
    const KIND: &'static str;
    /// A metric at its beginning; `buckets` matter to histograms only.
    fn new(buckets: &'static [f64]) -> Self;
    /// Appends the samples; `labels` is `a="b",c="d"` or empty.
    fn write(&self, name: &str, labels: &str, out: &mut String);
}

pub(crate) fn sample(out: &mut String, name: &str, labels: &str, value: f64) {
    // Writing to a string does not fail.
    let _ = match labels {
        "" => writeln!(out, "{name} {}", go_float(value)),
        labels => writeln!(out, "{name}{{{labels}}} {}", go_float(value)),
    };
}

/// A count that only grows.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The count since the process began.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metric for Counter {
    const KIND: &'static str = "counter";

    fn new(_buckets: &'static [f64]) -> Counter {
        Counter::default()
    }

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, labels, self.get() as f64);
    }
}

/// A number kept as bits.
#[derive(Debug, Default)]
struct Float(AtomicU64);

impl Float {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn add(&self, amount: f64) {
        let more = |bits| Some((f64::from_bits(bits) + amount).to_bits());
        // The closure never declines.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

/// A number that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<Float>);

impl Gauge {
    /// Takes the place of the value.
    pub fn set(&self, value: f64) {
        self.0.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// More, or less where `amount` is below zero.
    pub fn add(&self, amount: f64) {
        self.0.add(amount);
    }

    /// The value now.
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

impl Metric for Gauge {
    const KIND: &'static str = "gauge";

    fn new(_buckets: &'static [f64]) -> Gauge {
        Gauge::default()
    }

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        sample(out, name, labels, self.get());
    }
}

/// How often values fell below each of some bounds.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// Values of each bucket alone; one more than there are bounds.
    counts: Box<[AtomicU64]>,
    sum: Float,
}

impl Histogram {
    /// Counts one value, in the metric's unit: upstream's have seconds or bytes.
    pub fn observe(&self, value: f64) {
        let at = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[at].fetch_add(1, Ordering::Relaxed);
        self.0.sum.add(value);
    }

    /// Notes a duration in seconds.
    pub fn time(&self, took: Duration) {
        self.observe(took.as_secs_f64());
    }
}

impl Metric for Histogram {
    const KIND: &'static str = "histogram";

    fn new(buckets: &'static [f64]) -> Histogram {
        let counts = (0..=buckets.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram(Arc::new(Buckets { bounds: buckets, counts, sum: Float::default() }))
    }

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0_u64;
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        for (bound, count) in bounds.zip(&self.0.counts) {
            below += count.load(Ordering::Relaxed);
            let _ =
                writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{}\"}} {}", go_float(bound), go_float(below as f64));
        }
        sample(out, &format!("{name}_sum"), labels, self.0.sum.get());
        sample(out, &format!("{name}_count"), labels, below as f64);
    }
}
