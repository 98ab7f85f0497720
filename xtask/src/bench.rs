//! `cargo xtask bench [NAME...]`: builds the release binary and the crate `benches`, which takes the figures of
//! `benches/README.md`, and runs it with what it needs installed.

use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, run as run_command, target_dir};
use crate::tools;

/// What benchmarks use besides the tests' tools and the node of the counterpart: the DNS load.
const PACKAGES: &[(&str, &str)] = &[("dnsperf", "/usr/bin/dnsperf")];

pub fn run(names: &[String], quick: bool) -> Result<()> {
    let tools = tools::install()?;
    tools::packages(&[PACKAGES, tools::UPSTREAMS_NODE].concat())?;
    // One build for both, so that no dependency is built twice with different features.
    run_command(cargo().args(["build", "--release", "--quiet", "--package", "ferrokube", "--package", "benches"]))?;
    let mut command = Command::new(target_dir()?.join("release/bench"));
    command.args(names).args(quick.then_some("--quick"));
    tools.environment(&mut command);
    run_command(&mut command)
}
