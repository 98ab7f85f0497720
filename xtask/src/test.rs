//! `cargo xtask test`: the one test command. Each step prints its name and duration; the first failure ends it.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::run::{self, cargo};
use crate::{tidy, tools};

type Step = (&'static str, fn(&Plan) -> Result<()>);

/// Tests with other BGP speakers that run at once: they wait for timers much longer than they compute.
const INTEROP_AT_ONCE: &str = "8";

/// What is to be tested, and with which tools.
struct Plan {
    full: bool,
    tools: tools::Tools,
}

const STEPS: &[Step] = &[
    ("fmt", |_| run::run(cargo().args(["fmt", "--all", "--check"]))),
    ("tidy", |_| tidy::run()),
    ("clippy", clippy),
    ("build", |_| run::run(cargo().args(["build", "--quiet", "--workspace"]))),
    ("unit and integration tests", unit),
    ("tests with other BGP speakers", interop),
    ("end-to-end tests", end_to_end),
];

pub fn run(full: bool, only: Option<&str>) -> Result<()> {
    let began = Instant::now();
    let plan = Plan { full, tools: tools::install()? };
    if full {
        tools::packages(tools::UPSTREAMS_NODE)?;
    }
    for (name, step) in STEPS.iter().filter(|(name, _)| only.is_none_or(|o| name.contains(o))) {
        let at = Instant::now();
        println!("--- {name}");
        step(&plan).with_context(|| format!("step {name:?}"))?;
        println!("--- {name}: passed in {:.1} s", at.elapsed().as_secs_f64());
    }
    println!("All steps passed in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn clippy(_: &Plan) -> Result<()> {
    // What is no test of its package's `cargo test` is left out by the first.
    for targets in [&["--all-targets"][..], &["--test", "interop"]] {
        let mut command = cargo();
        command.args(["clippy", "--workspace", "--quiet"]).args(targets).args(["--", "-D", "warnings"]);
        run::run(&mut command)?;
    }
    Ok(())
}

fn unit(plan: &Plan) -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--exclude", "e2e", "--no-fail-fast"]);
    plan.tools.environment(&mut command);
    if plan.full {
        command.env("FERROKUBE_TEST_FULL", "1");
    }
    run::run(&mut command)
}

fn interop(plan: &Plan) -> Result<()> {
    let mut command = one_of_all(plan, "interop");
    command.args(["--", "--test-threads", INTEROP_AT_ONCE]);
    run::run(&mut command)
}

fn end_to_end(plan: &Plan) -> Result<()> {
    run::run(&mut one_of_all(plan, "e2e"))
}

/// One program of tests: of the whole workspace, so that no dependency is built again with other features.
fn one_of_all(plan: &Plan, name: &str) -> Command {
    let mut command = cargo();
    command.args(["test", "--quiet", "--workspace", "--test", name]);
    plan.tools.environment(&mut command);
    if plan.full {
        command.env("FERROKUBE_TEST_FULL", "1");
    }
    command
}
