//! The member's metrics, with upstream's names and buckets. Pure.
//! Callers: `engine` counts, `server` serves the page.

use telemetry::{Counter, Gauge, Histogram, Registry, process};

use crate::engine::Status;

/// Upstream's buckets of waiting for the disk, in seconds.
const DISK_SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192];

/// See the module's head.
pub struct Metrics {
    registry: Registry,
    pub puts: Counter,
    pub deletes: Counter,
    pub ranges: Counter,
    pub txns: Counter,
    /// Writing a batch to the log and waiting until it is on disk.
    pub log_sync: Histogram,
    pub leader_changes: Counter,
    /// One for each row of [`GAUGES`].
    gauges: Vec<Gauge>,
}

type Read = fn(&Status) -> f64;

/// What the state of the store tells.
const GAUGES: &[(&str, &str, Read)] = &[
    ("etcd_debugging_mvcc_compact_revision", "Revision of the last compaction.", |s| s.compact_revision as f64),
    ("etcd_debugging_mvcc_current_revision", "Newest revision.", |s| s.revision as f64),
    ("etcd_debugging_mvcc_keys_total", "Keys kept, with those that only history has.", |s| s.keys as f64),
    ("etcd_debugging_mvcc_watcher_total", "Watches.", |s| s.watchers as f64),
    ("etcd_mvcc_db_total_size_in_bytes", "Bytes of the data files.", |s| s.disk_bytes as f64),
    ("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of keys and values kept.", |s| s.used_bytes as f64),
    ("etcd_server_has_leader", "Whether there is a leader.", |s| f64::from(s.leadership.leader.is_some())),
    ("etcd_server_is_leader", "Whether this member leads.", |s| f64::from(s.leadership.leads())),
    ("etcd_server_is_learner", "Whether this member only follows.", |s| f64::from(s.learner)),
    ("etcd_server_proposals_applied_total", "Commands applied.", |s| s.applied_index as f64),
    ("etcd_server_proposals_committed_total", "Commands on disk.", |s| s.applied_index as f64),
    ("etcd_server_proposals_pending", "Commands that wait.", |s| s.waiting as f64),
    ("etcd_server_quota_backend_bytes", "Bytes of keys and values allowed.", |s| s.quota_bytes as f64),
];

impl Default for Metrics {
    fn default() -> Metrics {
        let registry = Registry::default();
        let r = &registry;
        process::declare(r);
        r.collect("etcd_server_version", "Which release's API this is.", "gauge", |out| {
            out.add(["server_version"], [crate::server::VERSION], 1.0);
        });
        r.collect("etcd_cluster_version", "Which version the cluster has.", "gauge", |out| {
            out.add(["cluster_version"], [crate::server::CLUSTER_VERSION], 1.0);
        });
        // A lone member never loses a proposal: the series is there for alerts.
        r.counter("etcd_server_proposals_failed_total", "Commands that were lost.", []).with([]);
        Metrics {
            puts: r.counter("etcd_mvcc_put_total", "Puts.", []).with([]),
            deletes: r.counter("etcd_mvcc_delete_total", "Deletions.", []).with([]),
            ranges: r.counter("etcd_mvcc_range_total", "Reads.", []).with([]),
            txns: r.counter("etcd_mvcc_txn_total", "Transactions.", []).with([]),
            leader_changes: r.counter("etcd_server_leader_changes_seen_total", "Changes of the leader.", []).with([]),
            log_sync: r
                .histogram("etcd_disk_wal_fsync_duration_seconds", "Waiting for the log's disk.", [], DISK_SECONDS)
                .with([]),
            gauges: GAUGES.iter().map(|(name, help, _)| r.gauge(name, help, []).with([])).collect(),
            registry,
        }
    }
}

impl Metrics {
    /// The page.
    pub fn text(&self, status: &Status) -> String {
        for (gauge, (_, _, read)) in self.gauges.iter().zip(GAUGES) {
            gauge.set(read(status));
        }
        self.registry.text()
    }
}
