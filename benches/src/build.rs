//! How long building takes: the release binary from an empty target directory (crates are downloaded before), and the
//! dev binary after a changed line in one component, in a checkout of the commit of its own. Theirs: upstream's five
//! programs from an empty build cache; a line of theirs can't be changed in the module cache.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::Plan;
use crate::machine::Percentiles;
use crate::table::{Row, figure};
use crate::upstream::{Scratch, cell};

/// Where a line is changed: a component of the node, and the largest of the control plane.
const CHANGED: [(&str, &str); 2] =
    [("kubelet", "node/kubelet/src/lib.rs"), ("apiserver", "control-plane/apiserver/src/lib.rs")];
const PROGRAMS: [&str; 5] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];

pub fn run(plan: &Plan) -> Result<Vec<Row>> {
    let checkout = Checkout::new()?;
    // A trial builds one small crate, and changes that one.
    let package = plan.or_quick("ferrokube", "meta");
    let first = checkout.build(&["--release", "-p", package])?;
    let mut rows = vec![Row::cost(
        "first release build from an empty target directory",
        "12 min",
        figure(first / 60.0, "min"),
        cell(theirs(plan)).map(|seconds| figure(seconds / 60.0, "min")),
    )];
    checkout.build(&["-p", package])?;
    for (name, file) in plan.or_quick(&CHANGED[..], &[("meta", "api/meta/src/lib.rs")][..]) {
        let mut times = Vec::new();
        for i in 0..3 {
            checkout.change(file, i)?;
            times.push(checkout.build(&["-p", package])?);
        }
        let unknown = Err("a line of a module can't be changed".to_owned());
        let median = figure(Percentiles::of(times)?.at(0.5), "s");
        rows.push(Row::cost(format!("dev build after a changed line in {name}, median of 3"), "20 s", median, unknown));
    }
    Ok(rows)
}

fn theirs(plan: &Plan) -> Result<f64> {
    let module = plan.upstream.kubernetes_module()?;
    anyhow::ensure!(!plan.quick, "not taken in a trial");
    let scratch = Scratch::new("go-build")?;
    let mut go = Command::new("go");
    go.args(["build", "-mod=mod", "-ldflags", "-s -w", "-o"]).arg(scratch.path("bin/"));
    go.args(PROGRAMS.map(|p| format!("./cmd/{p}"))).current_dir(module).env("GOCACHE", scratch.path("cache"));
    let began = Instant::now();
    testkit::output(&mut go, "")?.ok()?;
    Ok(began.elapsed().as_secs_f64())
}

/// A worktree of the commit with a target directory of its own, removed with the value.
struct Checkout {
    dir: Scratch,
}

impl Checkout {
    fn new() -> Result<Checkout> {
        let dir = Scratch::new("build")?;
        git(&["worktree", "prune"])?;
        git(&["worktree", "add", "--quiet", "--detach", &dir.path("tree").display().to_string(), "HEAD"])?;
        let checkout = Checkout { dir };
        let mut fetch = Command::new("cargo");
        testkit::output(fetch.args(["fetch", "--quiet"]).current_dir(checkout.dir.path("tree")), "")?.ok()?;
        Ok(checkout)
    }

    /// Seconds of a build.
    fn build(&self, args: &[&str]) -> Result<f64> {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--quiet"]).args(args).current_dir(self.dir.path("tree"));
        cargo.env("CARGO_TARGET_DIR", self.dir.path("target"));
        let began = Instant::now();
        testkit::output(&mut cargo, "")?.ok()?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Adds a line of code that other crates see.
    fn change(&self, file: &str, i: usize) -> Result<()> {
        let path = self.dir.path("tree").join(file);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        fs::write(&path, format!("{text}\n#[doc(hidden)]\npub const BENCH_{i}: usize = {i};\n"))?;
        Ok(())
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let tree = self.dir.path("tree").display().to_string();
        if let Err(error) = git(&["worktree", "remove", "--force", &tree]) {
            eprintln!("{error:#}");
        }
    }
}

fn git(args: &[&str]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    testkit::output(Command::new("git").args(args).current_dir(root), "")?.ok().map(drop)
}
