//! `cargo xtask fuzz [TARGET...] [--minutes N]`: builds the crate `fuzz` for libFuzzer, with coverage of our
//! crates, and gives each target its share of the time, one after another. Inputs that found
//! something new are kept beside the fetched tools, so that the next run goes on from there.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::run::{cache, cargo, output, root, run as run_command, target_dir};

/// What compiles libFuzzer.
const PACKAGES: &[(&str, &str)] = &[("g++", "/usr/bin/g++")];
/// Counters of edges in place, their addresses, and what is compared: cargo-fuzz's, without a nightly compiler's part.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// Tells this program that cargo calls it in the compiler's place.
const COMPILES: &str = "FERROKUBE_FUZZ_COMPILES";
/// Inputs grow no longer: what is wrong beyond is wrong below, and small inputs are quick.
const MAX_LEN: usize = 16 << 10;
/// A target that ends this often in its share has one finding, not many.
const MOST_CRASHES: usize = 5;

/// What one target came to.
#[derive(Default)]
struct Outcome {
    executions: u64,
    edges: u64,
    kept: u64,
    crashes: Vec<PathBuf>,
}

pub fn run(names: &[String], minutes: f64, input: Option<&Path>) -> Result<()> {
    if let Some(input) = input {
        let mut command = cargo();
        command.args(["test", "--quiet", "--workspace", "--test", "fuzz", "--"]).args(names);
        return run_command(command.arg("--input").arg(input));
    }
    crate::tools::packages(PACKAGES)?;
    let dir = cache().join("fuzz");
    let binary = build()?;
    let seeds = dir.join("seeds");
    let _ = fs::remove_dir_all(&seeds);
    let mut command = cargo();
    command.args(["test", "--quiet", "--workspace", "--test", "fuzz", "--"]).args(names);
    output(command.arg("--seeds").arg(&seeds))?;
    let mut targets: Vec<String> =
        fs::read_dir(&seeds)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    targets.sort();
    ensure!(!targets.is_empty(), "no targets");
    let share = Duration::from_secs_f64(minutes * 60.0 / targets.len() as f64);
    let mut table =
        String::from("| Target | Executions | Edges | Inputs kept | Findings |\n|---|---:|---:|---:|---|\n");
    let mut crashes = Vec::new();
    for target in &targets {
        let outcome = fuzz(&binary, &dir, target, share)?;
        let Outcome { executions, edges, kept, .. } = outcome;
        writeln!(table, "| `{target}` | {executions} | {edges} | {kept} | {} |", outcome.crashes.len())?;
        println!("{target:24} {executions:>10} executions, {edges} edges, {} findings", outcome.crashes.len());
        crashes.extend(outcome.crashes.into_iter().map(|file| format!("{target} --input {}", file.display())));
    }
    println!("{table}");
    fs::write(dir.join("results.md"), &table)?;
    ensure!(crashes.is_empty(), "findings; again with\n  cargo xtask fuzz {}", crashes.join("\n  cargo xtask fuzz "));
    Ok(())
}

/// Ours have counters, what they depend on is shared with every other build: cargo asks this program to compile the
/// workspace's own crates (see [`compile`]).
fn build() -> Result<PathBuf> {
    let mut command = cargo();
    // All of the workspace, so that no dependency is built again with other features.
    command.args(["build", "--quiet", "--workspace", "--features", "fuzz/coverage", "--bin", "fuzz-coverage"]);
    run_command(command.env("RUSTC_WORKSPACE_WRAPPER", std::env::current_exe()?).env(COMPILES, "1"))?;
    Ok(target_dir()?.join("debug/fuzz-coverage"))
}

/// Compiles one crate as cargo asks for it, with counters: when this program is called in the compiler's place.
pub fn compile() -> Option<ExitCode> {
    std::env::var_os(COMPILES)?;
    let mut arguments = std::env::args_os().skip(1);
    let mut command = Command::new(arguments.next()?);
    command.args(arguments);
    // Build scripts run by themselves: only libFuzzer's main serves counters.
    if !std::env::args().any(|argument| argument == "build_script_build") {
        command.args(COVERAGE);
    }
    let done = command.status().is_ok_and(|status| status.success());
    Some(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one target until its share is used up, again after each finding.
fn fuzz(binary: &Path, dir: &Path, target: &str, share: Duration) -> Result<Outcome> {
    let (corpus, found) = (dir.join("corpus").join(target), dir.join("found"));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&found)?;
    let log = found.join(format!("{target}.log"));
    let until = Instant::now() + share;
    let mut outcome = Outcome::default();
    while outcome.crashes.len() < MOST_CRASHES {
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        if left == 0 {
            break;
        }
        let mut command = Command::new(binary);
        command.args([format!("-max_total_time={left}"), format!("-max_len={MAX_LEN}")]);
        command.args(["-rss_limit_mb=4096", "-timeout=60", "-print_final_stats=1", "-handle_segv=0"]);
        command.arg(format!("-artifact_prefix={}/{target}-", found.display()));
        command.arg(&corpus).arg(dir.join("seeds").join(target)).env("FUZZ_TARGET", target).current_dir(root());
        let status = command.stdout(Stdio::null()).stderr(fs::File::create(&log)?).status()?;
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        outcome.add(&said);
        if status.success() {
            break;
        }
        let artifact = said.lines().find_map(|line| line.split("Test unit written to ").nth(1));
        outcome.crashes.push(artifact.map_or_else(|| log.clone(), PathBuf::from));
        let kept = outcome.crashes.last().context("a finding")?.with_extension("log");
        fs::copy(&log, kept)?;
    }
    outcome.kept = fs::read_dir(&corpus)?.count() as u64;
    Ok(outcome)
}

impl Outcome {
    /// Reads libFuzzer's words: `#4096 pulse cov: 123 ft: …` and `stat::number_of_executed_units: 4096`.
    fn add(&mut self, said: &str) {
        let number = |text: Option<&str>| text.and_then(|t| t.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        let cov = said.lines().rev().find_map(|line| line.split(" cov: ").nth(1));
        let last = said.lines().rev().find_map(|line| line.strip_prefix('#'));
        self.edges = self.edges.max(number(cov));
        let total = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units: "));
        self.executions += number(total.or(last));
    }
}
