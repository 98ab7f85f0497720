//! The scheduler's metrics, with upstream's names, labels and buckets. Pure.

use std::time::Duration;

use telemetry::{Counter, Family, Gauge, Histogram, Registry};

/// Upstream's buckets of one attempt, in seconds.
const ATTEMPT_SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// Upstream's buckets of all attempts of a pod, in seconds.
const POD_SECONDS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36,
    1310.72, 2621.44, 5242.88,
];
/// Upstream's buckets of the number of attempts.
const ATTEMPTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0];

/// See the module's head.
pub struct Metrics {
    attempts: Family<Counter, 2>,
    attempt_seconds: Family<Histogram, 2>,
    pod_seconds: Family<Histogram, 1>,
    pod_attempts: Histogram,
    pending: Family<Gauge, 1>,
    pub preemptions: Counter,
}

impl Metrics {
    pub fn declare(registry: &Registry) -> Metrics {
        let r = registry;
        Metrics {
            attempts: r.counter(
                "scheduler_schedule_attempts_total",
                "Attempts to find a node, by outcome.",
                ["profile", "result"],
            ),
            attempt_seconds: r.histogram(
                "scheduler_scheduling_attempt_duration_seconds",
                "How long attempts took.",
                ["profile", "result"],
                ATTEMPT_SECONDS,
            ),
            pod_seconds: r.histogram(
                "scheduler_pod_scheduling_sli_duration_seconds",
                "From a pod's arrival in the queue to its binding.",
                ["attempts"],
                POD_SECONDS,
            ),
            pod_attempts: r
                .histogram("scheduler_pod_scheduling_attempts", "Attempts until a pod was bound.", [], ATTEMPTS)
                .with([]),
            pending: r.gauge("scheduler_pending_pods", "Pods that wait, by queue.", ["queue"]),
            preemptions: r
                .counter("scheduler_preemption_attempts_total", "Attempts to make room by preemption.", [])
                .with([]),
        }
    }

    /// Notes an attempt; `result` is scheduled, unschedulable or error.
    pub fn attempt(&self, profile: &str, result: &str, took: Duration) {
        self.attempts.with([profile, result]).inc();
        self.attempt_seconds.with([profile, result]).time(took);
    }

    /// Notes that a pod found its node after this many attempts and this long in the queue.
    pub fn bound(&self, attempts: u32, waited: Duration) {
        let text = attempts.to_string();
        // Upstream tells apart few and many.
        let label = if attempts > 15 { "16+" } else { &text };
        self.pod_seconds.with([label]).time(waited);
        self.pod_attempts.observe(f64::from(attempts));
    }

    /// How many pods wait in each queue.
    pub fn pending(&self, queues: [(&str, usize); 4]) {
        for (name, count) in queues {
            self.pending.with([name]).set(count as f64);
        }
    }
}
