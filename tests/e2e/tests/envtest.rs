//! controller-runtime's envtest on links to the binary: the suite in `tests/envtest`, built with the Go toolchain and run
//! by somebody who isn't root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use testkit::runner::Test;
use testkit::{Cluster, binary, output, tool};

pub const TESTS: &[Test] = &[("assets_is_a_folder_of_links", assets), ("envtest_runs_its_suite_without_root", suite)];

/// Where the suite is.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../envtest");
/// Nobody.
const USER: &str = "65534";

/// A folder that everybody may enter, with the binary and kubectl in it: a build may lie in root's own.
fn programs(dir: &Path) -> Result<PathBuf> {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin)?;
    fs::copy(binary(), bin.join("ferrokube")).context("the binary")?;
    let kubectl = output(Command::new("sh").args(["-c", "command -v \"$0\""]).arg(tool("KUBECTL", "kubectl")), "")?;
    fs::copy(kubectl.ok()?.trim(), bin.join("kubectl")).context("kubectl")?;
    Ok(bin)
}

/// What `assets` says of this folder.
fn make_assets(bin: &Path, folder: &Path) -> Result<String> {
    let mut command = Command::new(bin.join("ferrokube"));
    output(command.arg("assets").arg(folder).env("PATH", bin), "")?.ok()
}

fn assets(cluster: &Cluster) -> Result<()> {
    let dir = cluster.dir.join("assets-test");
    let bin = programs(&dir)?;
    let folder = dir.join("of assets");
    for _ in 0..2 {
        let said = make_assets(&bin, &folder)?;
        ensure!(said == format!("export KUBEBUILDER_ASSETS='{}'\n", folder.display()), "{said}");
    }
    let says = |name: &str| output(Command::new(folder.join(name)).arg("--version"), "")?.ok();
    ensure!(says("etcd")?.starts_with("etcd Version: 3.") && says("kube-apiserver")?.starts_with("Kubernetes v1."));
    ensure!(fs::read_link(folder.join("kubectl"))? == bin.join("kubectl"));
    // What envtest looks for in the help.
    let help = output(Command::new(folder.join("etcd")).arg("--help"), "")?.ok()?;
    ensure!(help.lines().any(|line| line.trim_start().starts_with("--unsafe-no-fsync")), "{help}");
    let help = output(Command::new(folder.join("kube-apiserver")).arg("--help"), "")?.ok()?;
    ensure!(!help.contains("--insecure-port"), "{help}");
    fs::remove_dir_all(dir).context("clearing up")
}

/// The Go toolchain, where one is.
pub fn go() -> Option<PathBuf> {
    let known = [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go")];
    known.into_iter().find(|go| Command::new(go).arg("version").output().is_ok_and(|done| done.status.success()))
}

/// Builds the suite. It is run once: what compiles faster is better than what runs faster.
fn build(go: &Path, dir: &Path) -> Result<()> {
    let mut command = Command::new(go);
    command.args(["test", "-c", "-vet=off", "-gcflags=all=-N -l", "-ldflags=-s -w", "-o"]).arg(dir.join("suite"));
    command.arg(".").current_dir(MODULE).env("CGO_ENABLED", "0");
    output(&mut command, "")?.ok()?;
    fs::create_dir_all(dir.join("crds"))?;
    for file in fs::read_dir(Path::new(MODULE).join("crds"))? {
        let file = file?;
        fs::copy(file.path(), dir.join("crds").join(file.file_name()))?;
    }
    Ok(())
}

fn suite(cluster: &Cluster) -> Result<()> {
    let Some(go) = go() else {
        println!("    skipped: no Go toolchain, neither on the PATH nor in /usr/local/go");
        return Ok(());
    };
    let dir = cluster.dir.join("envtest");
    let (bin, folder, home) = (programs(&dir)?, dir.join("assets"), dir.join("home"));
    make_assets(&bin, &folder)?;
    build(&go, &dir)?;
    fs::create_dir_all(&home)?;
    fs::set_permissions(&home, fs::Permissions::from_mode(0o1777))?;
    let ids = [format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()];
    let mut command = Command::new("setpriv");
    command.args(ids).arg(dir.join("suite")).args(["-test.v", "-test.timeout=120s"]).current_dir(&dir);
    command.env("KUBEBUILDER_ASSETS", &folder).env("HOME", &home).env("TMPDIR", &home);
    let said = output(&mut command, "")?;
    let told = said.stdout.lines().filter(|line| line.contains("started in") || line.contains("stopped in"));
    told.for_each(|line| println!("    {}", line.trim()));
    ensure!(said.code == 0 && !said.stdout.contains("--- SKIP"), "{}{}", said.stdout, said.stderr);
    // envtest's folders are gone with it.
    ensure!(!fs::read_dir(&home)?.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("k8s_test")));
    fs::remove_dir_all(dir).context("clearing up")
}
