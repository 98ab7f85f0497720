//! Helpers of the tests that run the real binary: a cluster to talk to, commands with their output, patience, images
//! made on the spot, and a runner that always cleans up. Used by `tests/e2e` and the benchmarks. And two servers of a few
//! lines for components alone: one to list and watch ([`fake_api`]), one to write to ([`model`]).

pub mod certificates;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod etcd;
pub mod fake_api;
pub mod host;
pub mod http2;
pub mod image;
pub mod lan;
pub mod manifests;
pub mod model;
pub mod registry;
pub mod runner;
pub mod running;
pub mod space;

pub use clock::Clock;
pub use cluster::{Cluster, Own, binary, built, tool};
pub use command::{Output, output};
pub use etcd::Etcd;
pub use fake_api::FakeApi;
pub use host::Host;
pub use lan::Lan;
pub use registry::Registry;
pub use running::Running;
pub use rustix::process::Signal;
pub use space::Space;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Tries until it works; after `patience` fails with the last error.
pub fn eventually<T>(patience: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => bail!("not within {patience:?}: {error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Whether the long form of tests was asked for: `cargo xtask test --full`.
pub fn full() -> bool {
    std::env::var_os("FERROKUBE_TEST_FULL").is_some()
}
