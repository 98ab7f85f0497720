//! Upstream's test program and the server of its test images, built as Go modules of one release. Only run, never read. I/O.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

const KUBERNETES: &str = "1.37.2";

/// What was built.
pub struct Programs {
    /// The test program.
    pub tests: PathBuf,
    /// The server that most test images run.
    pub agnhost: PathBuf,
}

/// Builds what isn't in the cache yet.
pub fn build(cache: &Path) -> Result<Programs> {
    let dir = cache.join(KUBERNETES);
    let programs = Programs { tests: dir.join("e2e.test"), agnhost: dir.join("agnhost") };
    if programs.tests.exists() && programs.agnhost.exists() {
        return Ok(programs);
    }
    fs::create_dir_all(&dir)?;
    println!("building upstream's tests of {KUBERNETES}: about ten minutes, once");
    module(&dir)?;
    let component = "k8s.io/component-base/version";
    let (major, minor) = KUBERNETES.split_once('.').context("a version")?;
    let minor = minor.split('.').next().unwrap_or_default();
    let flags = format!(
        "-s -w -X {component}.gitVersion=v{KUBERNETES} -X {component}.gitMajor={major} -X {component}.gitMinor={minor}"
    );
    let package = "k8s.io/kubernetes/test/images/agnhost";
    go(&dir, &["build", "-ldflags", "-s -w", "-o", "agnhost", package])?;
    go(&dir, &["test", "-c", "-ldflags", &flags, "-o", "e2e.test", "k8s.io/kubernetes/test/e2e"])?;
    Ok(programs)
}

/// A module that needs the release, with its parts in the versions that belong to it.
fn module(dir: &Path) -> Result<()> {
    let release = format!("k8s.io/kubernetes@v{KUBERNETES}");
    let found: Value = serde_json::from_str(&go(dir, &["mod", "download", "-json", &release])?)?;
    let theirs = fs::read_to_string(found["GoMod"].as_str().context("a go.mod")?)?;
    let version = theirs.lines().find(|line| line.starts_with("go ")).unwrap_or("go 1.26");
    let mut text = format!("module conformance\n\n{version}\n\nrequire k8s.io/kubernetes v{KUBERNETES}\n\nreplace (\n");
    for line in theirs.lines() {
        if let Some((part, _)) = line.split_once(" => ./staging/") {
            let part = part.trim().trim_start_matches("replace ");
            text += &format!("\t{part} => {part} v0{}\n", KUBERNETES.trim_start_matches('1'));
        }
    }
    fs::write(dir.join("go.mod"), text + ")\n")?;
    Ok(())
}

fn go(dir: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new("go");
    command.args(args).current_dir(dir).env("GOFLAGS", "-mod=mod").env("CGO_ENABLED", "0");
    testkit::output(&mut command, "").context("upstream's tests are built with Go: install its newest release")?.ok()
}
