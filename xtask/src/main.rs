//! The work loop's one entry point: `cargo xtask test`, `tidy`, `tools`, `bench`, `conformance`, `fuzz`, `chaos`, `vm`. CI and people call the same.

mod bench;
mod chaos;
mod conformance;
mod fuzz;
mod run;
mod test;
mod tidy;
mod tools;
mod vm;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Ferrokube's work loop")]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Debug, Subcommand)]
enum Cmd {
    /// Everything that must pass: fmt, clippy, tidy, unit, integration and end-to-end tests
    Test {
        /// Also what takes long: crash loops and soak tests
        #[arg(long)]
        full: bool,
        /// Only the steps whose name contains this
        #[arg(long)]
        only: Option<String>,
    },
    /// The rules of the house that no compiler checks
    Tidy,
    /// Install and fetch what tests use: Debian packages, kubectl, Helm
    Tools,
    /// Take the figures of benches/README.md, each beside its real counterpart
    Bench {
        /// Only these: build, start, creates, list, crds, floods, memory, pod-start, etcd, scheduler, dns, proxy
        names: Vec<String>,
        /// Small numbers: shows that the benchmarks work, measures nothing
        #[arg(long)]
        quick: bool,
    },
    /// Upstream's conformance tests against a cluster of `up`: needs Go, takes an hour
    Conformance {
        /// Only tests whose name matches this regular expression
        #[arg(long, value_name = "REGEX")]
        focus: Option<String>,
    },
    /// Feed every decoder and parser what nobody would write, guided by coverage: all targets share the time
    Fuzz {
        /// Only these: see the table in tests/fuzz/src/table.rs
        targets: Vec<String>,
        /// For all targets together
        #[arg(long, default_value_t = 60.0)]
        minutes: f64,
        /// Give one target this input once
        #[arg(long)]
        input: Option<std::path::PathBuf>,
    },
    /// Kill, stop, fill and damage a cluster under load, round after round, and look what is lost or left behind
    Chaos {
        #[arg(long, default_value_t = 500)]
        rounds: u64,
        /// The same seed makes the same rounds; each round prints its own
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Try the release binary on a stock Debian in qemu: systemd, cgroup v2, firewalls, reboots
    Vm {
        /// The release of Debian: bookworm, trixie
        #[arg(long, default_value = "bookworm")]
        suite: String,
        /// Only cases whose name contains this
        #[arg(long)]
        only: Option<String>,
        /// Leave the machine running, and say how to get in
        #[arg(long)]
        keep: bool,
    },
}

fn main() -> std::process::ExitCode {
    if let Some(code) = fuzz::compile() {
        return code;
    }
    let result = match Cli::parse().command {
        Cmd::Test { full, only } => test::run(full, only.as_deref()),
        Cmd::Tidy => tidy::run(),
        Cmd::Tools => tools::install().map(|_| ()),
        Cmd::Bench { names, quick } => bench::run(&names, quick),
        Cmd::Vm { suite, only, keep } => vm::run(&suite, only.as_deref(), keep),
        Cmd::Fuzz { targets, minutes, input } => fuzz::run(&targets, minutes, input.as_deref()),
        Cmd::Chaos { rounds, seed } => chaos::run(rounds, seed),
        Cmd::Conformance { focus } => conformance::run(focus.as_deref()),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
