//! `cargo xtask bench`: runs the benchmarks that print the tables of `benches/README.md`. Each is an example or a
//! bench target of the crate it measures, built in release, and starts its real counterpart when that is there.

use anyhow::{Result, bail};

use crate::run::cargo;
use crate::tools;

/// Name, crate and example target of each benchmark.
const BENCHES: &[(&str, &str, &str)] = &[("scheduler", "scheduler", "engine"), ("proxy", "proxy", "sync")];

pub fn bench_names() -> String {
    BENCHES.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
}

pub fn run(only: Option<&str>) -> Result<()> {
    let tools = tools::install()?;
    let chosen: Vec<_> = BENCHES.iter().filter(|(name, ..)| only.is_none_or(|o| name.contains(o))).collect();
    if chosen.is_empty() {
        bail!("no benchmark has that name: there are {}", bench_names());
    }
    for (name, package, example) in chosen {
        println!("--- {name}");
        let mut command = cargo();
        command.args(["run", "--release", "--quiet", "--package", package, "--example", example]);
        tools.environment(&mut command);
        crate::run::run(&mut command)?;
    }
    Ok(())
}
