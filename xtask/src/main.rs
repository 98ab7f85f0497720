//! The work loop's one entry point: `cargo xtask test`, `tidy`, `tools`, `bench`, `conformance`. CI and people call the same.

mod bench;
mod conformance;
mod run;
mod test;
mod tidy;
mod tools;

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
        /// Only these: build, start, creates, list, pod-start, etcd, scheduler, dns, proxy
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
}

fn main() -> std::process::ExitCode {
    let result = match Cli::parse().command {
        Cmd::Test { full, only } => test::run(full, only.as_deref()),
        Cmd::Tidy => tidy::run(),
        Cmd::Tools => tools::install().map(|_| ()),
        Cmd::Bench { names, quick } => bench::run(&names, quick),
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
