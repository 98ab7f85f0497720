//! `cargo xtask chaos [--rounds N] [--seed S]`: builds the binary and the crate `chaos`, and runs it with what it
//! needs installed.

use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, run as run_command, target_dir};
use crate::tools;

pub fn run(rounds: u64, seed: Option<u64>) -> Result<()> {
    let tools = tools::install()?;
    run_command(cargo().args(["build", "--quiet", "--package", "ferrokube", "--package", "chaos"]))?;
    let mut command = Command::new(target_dir()?.join("debug/chaos"));
    command.args(["--rounds", &rounds.to_string()]);
    command.args(seed.map(|seed| format!("--seed={seed}")));
    tools.environment(&mut command);
    run_command(&mut command)
}
