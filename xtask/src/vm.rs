//! `cargo xtask vm [--suite SUITE]`: builds the release binary and the crate `vm`, and tries it on a stock Debian in qemu:
//! systemd, cgroup v2, firewalls. Not part of CI: it takes an hour where the processor is emulated.

use std::process::Command;

use anyhow::Result;

use crate::run::{cache, cargo, run as run_command, target_dir};
use crate::tools;

/// What makes and runs a machine, besides the tests' tools.
const PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    ("qemu-utils", "/usr/bin/qemu-img"),
    ("debootstrap", "/usr/sbin/debootstrap"),
    ("e2fsprogs", "/usr/sbin/mkfs.ext4"),
    ("openssh-client", "/usr/bin/ssh"),
];

pub fn run(suite: &str, only: Option<&str>, keep: bool) -> Result<()> {
    let tools = tools::install()?;
    tools::packages(PACKAGES)?;
    run_command(cargo().args(["build", "--release", "--quiet", "--package", "ferrokube", "--package", "vm"]))?;
    let built = target_dir()?.join("release");
    let mut command = Command::new(built.join("vm"));
    command.args(["--suite", suite, "--dir"]).arg(cache().join("vm")).arg("--ferrokube").arg(built.join("ferrokube"));
    command.args(only.map(|only| format!("--only={only}"))).args(keep.then_some("--keep"));
    tools.environment(&mut command);
    run_command(&mut command)
}
