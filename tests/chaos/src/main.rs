//! A campaign of crashes: a cluster of the real binary is killed, stopped, starved of disk, given another time and a torn
//! log, round after round under mixed load, and what must not be lost or left behind is looked for after each. It runs on
//! a host of its own (network and mounts). `cargo xtask chaos` calls it, and the end-to-end tests for a few rounds.
//!
//! `load` writes and keeps account, `faults` does harm, `inspect` looks, `campaign` puts them together. RESULTS.md has
//! what came of it.

mod campaign;
mod chance;
mod cluster;
mod faults;
mod inspect;
mod ledger;
mod load;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Parser;
use testkit::Host;

#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long, default_value_t = 500)]
    rounds: u64,
    /// The same seed makes the same rounds; without one the time is taken, and printed
    #[arg(long)]
    seed: Option<u64>,
    /// The cluster's name
    #[arg(long, default_value = "chaos")]
    name: String,
    /// Set by the program itself: it is inside the host's namespaces
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let time = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let seed = arguments.seed.unwrap_or_else(time);
    if arguments.inside {
        return campaign::run(&arguments.name, arguments.rounds, seed);
    }
    let host = Host::new()?;
    let mut command = host.command(std::env::current_exe()?);
    command.args(["--inside", "--name", &arguments.name, "--seed", &seed.to_string()]);
    let status = command.args(["--rounds", &arguments.rounds.to_string()]).status().context("nsenter")?;
    anyhow::ensure!(status.success(), "failed; the same rounds again: cargo xtask chaos --seed {seed}");
    Ok(())
}
