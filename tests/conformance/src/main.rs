//! Upstream's own conformance tests against a cluster of `up --nodes 2`. Upstream's test program and the server of its test
//! images are built as Go modules, the images are made on the spot from them and from Debian's programs, as no registry
//! is needed elsewhere either. Called by `cargo xtask conformance`; by hand, as the build alone takes ten minutes.

mod images;
mod report;
mod upstream;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use testkit::Cluster;

use crate::report::Report;

/// Tests that need what isn't there yet: a part of their name, a tab, and what they need.
const NOT_YET: &str = include_str!("../not-yet.tsv");

/// Nodes of the cluster: upstream's tests of what goes from one to another want two.
const NODES: &str = "2";

/// Tests that run side by side; those that say that they must run alone come after all of these.
const GROUPS: &[(&str, &str)] = &[
    ("api", r"\[sig-(api-machinery|auth|instrumentation)\]"),
    ("apps", r"\[sig-(apps|cli|scheduling|architecture)\]"),
    ("network", r"\[sig-network\]"),
    ("node", r"\[sig-node\]"),
    ("storage", r"\[sig-storage\]"),
];

#[derive(Debug, Parser)]
#[command(name = "conformance", about = "Upstream's conformance tests against a cluster of `up`")]
struct Flags {
    /// Only tests whose name matches this regular expression
    #[arg(long, default_value = r"\[Conformance\]")]
    focus: String,
    /// Where programs, images and reports are kept
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<bool> {
    let programs = upstream::build(&flags.cache)?;
    let archives = images::build(&programs, &flags.cache.join("images"))?;
    let cluster = Cluster::new("conformance")?;
    cluster.run(&["up", "--nodes", NODES])?.ok()?;
    for archive in &archives {
        let imported = cluster.run(&["image", "import", &archive.display().to_string()])?;
        imported.ok().with_context(|| archive.display().to_string())?;
    }
    let suite = Suite { flags, tests: &programs.tests, kubeconfig: &cluster.kubeconfig() };
    let side_by_side = std::thread::scope(|scope| {
        let running: Vec<_> =
            GROUPS.iter().map(|(name, group)| scope.spawn(|| suite.run(name, group, r"\[Serial\]"))).collect();
        running.into_iter().map(|group| group.join().unwrap_or_else(|_| anyhow::bail!("a group broke off"))).collect()
    });
    let mut reports: Vec<Report> = Result::<_>::from_iter::<Vec<Result<Report>>>(side_by_side)?;
    reports.push(suite.run("alone", r"\[Serial\]", "")?);
    cluster.reset()?;
    Ok(report::tell(&reports, NOT_YET))
}

struct Suite<'a> {
    flags: &'a Flags,
    tests: &'a Path,
    kubeconfig: &'a Path,
}

impl Suite<'_> {
    /// Runs the tests of a group, but for those of `skip` and those that are not to pass yet.
    fn run(&self, name: &str, group: &str, skip: &str) -> Result<Report> {
        let began = Instant::now();
        let mut skipped: Vec<String> = report::not_yet(NOT_YET).map(|(part, _)| escape(part)).collect();
        skipped.extend((!skip.is_empty()).then(|| skip.to_owned()));
        // A name has its group before its marks, or its marks before all.
        let focus = format!("{group}.*(?:{0})|(?:{0}).*{group}", self.flags.focus);
        let (json, log) = (self.flags.cache.join(format!("{name}.json")), self.flags.cache.join(format!("{name}.log")));
        let output = std::fs::File::create(&log)?;
        Command::new(self.tests)
            .args(["--provider=skeleton", "--ginkgo.no-color", "--ginkgo.silence-skips", "--disable-log-dump"])
            .args(["--ginkgo.timeout=4h", "--node-os-distro=debian"])
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .arg(format!("--kubectl-path={}", testkit::tool("KUBECTL", "kubectl").display()))
            .arg(format!("--ginkgo.focus={focus}"))
            .arg(format!("--ginkgo.skip={}", skipped.join("|")))
            .arg(format!("--ginkgo.json-report={}", json.display()))
            .stdout(output.try_clone()?)
            .stderr(output)
            .status()
            .context("upstream's tests")?;
        let report = Report::read(&json).with_context(|| format!("no report: see {}", log.display()))?;
        println!(" {name}: {} passed, {} failed ({:.0?})", report.passed, report.failed.len(), began.elapsed());
        Ok(report)
    }
}

/// Text as a regular expression.
fn escape(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_alphanumeric() && c != ' ').then_some('\\').into_iter().chain([c])).collect()
}
