//! `cargo xtask bench [NAME...]`: builds the release binary and the crate `benches`, which takes the figures of
//! `benches/README.md`, and runs it with what it needs installed.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::{cargo, output, run as run_command};
use crate::tools;

/// What benchmarks use besides the tests' tools: the DNS load, and the node's programs of the counterpart.
const PACKAGES: &[(&str, &str)] = &[
    ("dnsperf", "/usr/bin/dnsperf"),
    ("runc", "/usr/sbin/runc"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
];

pub fn run(names: &[String], quick: bool) -> Result<()> {
    let tools = tools::install()?;
    tools::packages(PACKAGES)?;
    // One build for both, so that no dependency is built twice with different features.
    run_command(cargo().args(["build", "--release", "--quiet", "--package", "ferrokube", "--package", "benches"]))?;
    let mut command = Command::new(target_dir()?.join("release/bench"));
    command.args(names).args(quick.then_some("--quick"));
    tools.environment(&mut command);
    run_command(&mut command)
}

fn target_dir() -> Result<PathBuf> {
    let text = output(cargo().args(["metadata", "--format-version", "1", "--no-deps", "--quiet"]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    metadata["target_directory"].as_str().map(PathBuf::from).context("cargo metadata has no target_directory")
}
