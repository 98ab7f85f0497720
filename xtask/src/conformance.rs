//! `cargo xtask conformance`: builds the binary and the crate `conformance`, and runs upstream's conformance tests with
//! what they need installed.

use std::process::Command;

use anyhow::Result;

use crate::run::{cache, cargo, run as run_command, target_dir};
use crate::tools;

/// What the images of upstream's tests are made from.
const PACKAGES: &[(&str, &str)] = &[
    ("bind9-dnsutils", "/usr/bin/dig"),
    ("iperf", "/usr/bin/iperf"),
    ("netcat-openbsd", "/bin/nc.openbsd"),
    ("perl", "/usr/bin/perl"),
    ("socat", "/usr/bin/socat"),
    ("wget", "/usr/bin/wget"),
];

pub fn run(focus: Option<&str>) -> Result<()> {
    let tools = tools::install()?;
    tools::packages(PACKAGES)?;
    run_command(cargo().args(["build", "--quiet", "--package", "ferrokube", "--package", "conformance"]))?;
    let mut command = Command::new(target_dir()?.join("debug/conformance"));
    command.arg("--cache").arg(cache().join("conformance"));
    command.args(focus.map(|focus| format!("--focus={focus}")));
    tools.environment(&mut command);
    run_command(&mut command)
}
