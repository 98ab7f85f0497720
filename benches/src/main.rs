//! The figures of `benches/README.md`: each benchmark runs ours and the real counterpart one after the other on the
//! same machine and gives rows of one table. Called by `cargo xtask bench [NAME...]`, which builds what it needs.
//! I/O: starts servers on loopback and clusters named `bench`, all of which it ends and removes.

mod api;
mod bgp;
mod build;
mod crds;
mod creates;
mod definitions;
mod dns;
mod dns_changes;
mod dns_pairs;
mod etcd;
mod flannel;
mod floods;
mod list;
mod machine;
mod memory;
mod ours;
mod pod_start;
mod proxy;
mod scheduler;
mod start;
mod table;
mod upstream;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use table::Row;

/// What every benchmark is told.
pub struct Plan {
    /// Small numbers: shows that a benchmark works, measures nothing.
    pub quick: bool,
    pub upstream: upstream::Upstream,
}

impl Plan {
    /// One number for a measurement, another for a trial.
    pub fn or_quick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

type Bench = (&'static str, fn(&Plan) -> Result<Vec<Row>>);

/// Every benchmark, in the order of the table.
const BENCHES: &[Bench] = &[
    ("build", build::run),
    ("start", start::run),
    ("creates", creates::run),
    ("list", list::run),
    ("crds", crds::run),
    ("floods", floods::run),
    ("memory", memory::run),
    ("pod-start", pod_start::run),
    ("etcd", etcd::run),
    ("scheduler", scheduler::run),
    ("dns", dns::run),
    ("dns-changes", dns_changes::run),
    ("dns-pairs", dns_pairs::run),
    ("proxy", proxy::run),
    ("flannel", flannel::run),
    ("bgp", bgp::run),
];

#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", about = "Take the figures of benches/README.md")]
struct Flags {
    /// Only these benchmarks [possible values: build, start, creates, list, crds, floods, memory, pod-start, etcd, scheduler, dns, dns-changes, dns-pairs, proxy, flannel, bgp]
    #[arg(value_parser = BENCHES.iter().map(|(name, _)| *name).collect::<Vec<_>>())]
    names: Vec<String>,
    /// Small numbers: shows that the benchmarks work, measures nothing
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let plan = Plan { quick: flags.quick, upstream: upstream::Upstream::find() };
    println!("{}", machine::described());
    let mut rows = Vec::new();
    let mut failed = 0;
    for (name, bench) in BENCHES.iter().filter(|(n, _)| flags.names.is_empty() || flags.names.iter().any(|f| f == n)) {
        eprintln!("--- {name}, load {}", machine::load());
        match bench(&plan) {
            Ok(found) => {
                table::print(name, &found);
                rows.extend(found);
            }
            Err(error) => {
                failed += 1;
                println!("{name} FAILED: {error:#}");
            }
        }
        println!("load after {name}: {}", machine::load());
    }
    if flags.names.len() != 1 {
        table::print("all", &rows);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
