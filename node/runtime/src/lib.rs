//! The container runtime: a CRI v1 server that builds containers itself, from images it keeps itself.
//!
//! Who calls: the kubelet over the unix socket (`cri`), the command line over the same socket (image transfers), and the
//! binary's `main`, which must hand over to [`monitor::main`] first thing when the first argument is
//! [`monitor::SUBCOMMAND`].
//!
//! The map: `daemon` (loop) → `cri` (calls) → `runtime` (state), `sandbox`, `container`, `exec`, `recover` (operations) →
//! `zygote`/`link` (to the monitors) → `monitor` (the processes that outlive the daemon) → `linux::container` (inside).
//! Pure: `spec` (request to specification), `status`, `seccomp`, `images::{manifest, reference, passwd}`, framing of
//! streams. `images` is the store.

mod container;
mod cri;
mod daemon;
mod devices;
pub mod digest;
mod error;
mod exec;
pub mod images;
mod link;
mod metrics;
pub mod monitor;
mod record;
mod recover;
mod runtime;
mod sandbox;
pub mod seccomp;
mod spec;
mod stats;
mod status;
pub mod streaming;
mod zygote;

pub use daemon::{Config, run};
pub use error::Error;
