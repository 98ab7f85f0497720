//! Ferrokube on the machine that users have: a stock Debian in qemu, with systemd, cgroup v2 alone, systemd-resolved's
//! stub, and firewalls and container engines installed but off. What only shows there is tried there: `cargo xtask vm`
//! calls it. Needs root, qemu and debootstrap. RESULTS.md has what came of it.
//!
//! `image` makes the disk, `machine` boots and drives it, `guest` is a cluster on it, `cases` are the tests, in an order
//! that needs few boots. Without a usable KVM all is emulated, ten to twenty times slower: nothing here is timed.

mod cases;
mod guest;
mod image;
mod machine;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::guest::Guest;
use crate::machine::Machine;

#[derive(Debug, Parser)]
struct Arguments {
    /// The release of Debian
    #[arg(long, default_value = "bookworm")]
    suite: String,
    /// Where disks are kept
    #[arg(long)]
    dir: PathBuf,
    /// The program to try
    #[arg(long)]
    ferrokube: PathBuf,
    /// Only cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Leave the machine running, and say how to get in
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("vm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let kubectl = std::env::var_os("KUBECTL").context("KUBECTL is not set: cargo xtask vm does that")?;
    let disk = image::make(&arguments.dir, &arguments.suite)?;
    let began = Instant::now();
    let machine = Machine::boot(disk, "")?;
    println!("{} is up after {} s", arguments.suite, began.elapsed().as_secs());
    let guest = Guest::prepare(machine, &arguments.ferrokube, kubectl.as_ref())?;
    println!("{}", guest.ok("uname -r; . /etc/os-release; echo $PRETTY_NAME; systemctl --version | head -1")?.trim());
    let mut failed = Vec::new();
    let chosen = cases::ALL.iter().filter(|(name, _)| arguments.only.as_ref().is_none_or(|o| name.contains(o)));
    let mut count = 0;
    for (name, case) in chosen {
        count += 1;
        let began = Instant::now();
        let result = guest.clean().and_then(|()| case(&guest));
        let seconds = began.elapsed().as_secs();
        match result {
            Ok(()) => println!("✓ {name} ({seconds} s)"),
            Err(error) => {
                println!("✗ {name} ({seconds} s): {error:#}");
                guest.explain();
                failed.push(*name);
            }
        }
    }
    if arguments.keep {
        println!("it stays: {}", guest.machine.entrance());
        std::mem::forget(guest);
    } else {
        guest.machine.stop()?;
    }
    println!("{} passed, {} failed", count - failed.len(), failed.len());
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}
