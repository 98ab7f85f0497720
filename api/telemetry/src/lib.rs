//! What every component tells of itself: metrics in Prometheus' text format ([`Registry`]), and the pages of named
//! health checks ([`health`]). Names, types, labels and buckets are upstream's and belong to who declares them.
//!
//! Written here rather than taken from prometheus-client, which writes OpenMetrics only: there a counter is declared
//! without its `_total`, and tools that read upstream's pages by line do not find it.
//! Called by every component; [`process`] is the only file that does I/O.

#![warn(missing_docs)]

pub mod health;
mod metric;
mod number;
pub mod process;
mod registry;

pub use metric::{Counter, Gauge, Histogram, Metric};
pub use registry::{Family, Registry, Samples};

/// Content type of a page of metrics.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
