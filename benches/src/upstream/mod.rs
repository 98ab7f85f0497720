//! The real counterparts: upstream's programs, found in a directory that `FERROKUBE_UPSTREAM` names, and what runs of
//! them. Everything started here ends, and everything made here goes, with the value that holds it. I/O.

mod certificates;
pub mod control_plane;
pub mod node;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use testkit::eventually;

pub use control_plane::ControlPlane;
pub use node::Node;

use crate::api::{Api, block_on};

/// Upstream's programs and where they are.
pub struct Upstream {
    dir: PathBuf,
}

impl Upstream {
    /// `FERROKUBE_UPSTREAM`, or the user's cache.
    pub fn find() -> Upstream {
        let named = std::env::var_os("FERROKUBE_UPSTREAM").map(PathBuf::from);
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        let dir = named.or_else(|| Some(cache?.join("kubernetes-reference"))).unwrap_or_default();
        Upstream { dir }
    }

    /// A program by its name: built from Kubernetes' own module, or one of the others.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let places = [self.dir.join("k8s/bin").join(name), self.dir.join("bin").join(name)];
        let found = places.into_iter().find(|p| p.is_file());
        found.ok_or_else(|| anyhow!("not taken: no {name} in {} (FERROKUBE_UPSTREAM)", self.dir.display()))
    }

    /// Kubernetes' own module, to be built.
    pub fn kubernetes_module(&self) -> Result<PathBuf> {
        let dir = self.dir.join("k8s");
        dir.join("go.mod")
            .is_file()
            .then_some(())
            .with_context(|| format!("not taken: no go.mod in {}", dir.display()))?;
        Ok(dir)
    }

    /// A node of upstream's flannel, built of `tests/flannel` when it isn't there: its udp backend is partly in C.
    pub fn flannel(&self) -> Result<PathBuf> {
        const NAME: &str = "flannel-node";
        const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/flannel");
        if let Ok(found) = self.program(NAME) {
            return Ok(found);
        }
        let bin = self.dir.join("bin");
        fs::create_dir_all(&bin).with_context(|| bin.display().to_string())?;
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(bin.join(NAME)).arg(".").current_dir(MODULE).env("CGO_ENABLED", "1");
        let built = testkit::output(&mut go, "").and_then(|done| done.ok());
        built
            .map_err(|_| anyhow!("not taken: no {NAME} in {}, and no Go and C compiler to build it", bin.display()))?;
        self.program(NAME)
    }

    /// containerd's own client, built beside containerd in its version when it isn't there: the kubelet's interface
    /// can't import an image from a file.
    fn ctr(&self) -> Result<PathBuf> {
        if let Ok(ctr) = self.program("ctr") {
            return Ok(ctr);
        }
        let containerd = self.program("containerd")?;
        let text = testkit::output(Command::new("go").args(["version", "-m"]).arg(&containerd), "")?.ok()?;
        let module = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
        let module = module.into_iter().find(|words| words.first() == Some(&"mod"));
        let version = module.and_then(|words| words.get(2).map(ToString::to_string)).context("containerd's version")?;
        let ctr = format!("github.com/containerd/containerd/v2/cmd/ctr@{version}");
        let bin = containerd.parent().unwrap_or(&self.dir);
        let mut go = Command::new("go");
        go.args(["install", "-ldflags", "-s -w", &ctr]).env("GOBIN", bin).current_dir(std::env::temp_dir());
        testkit::output(&mut go, "")?.ok()?;
        self.program("ctr")
    }
}

/// What could not be measured as the words of its cell.
pub fn cell<T>(measured: Result<T>) -> Result<T, String> {
    measured.map_err(|error| format!("{error:#}").replace('\n', " "))
}

/// A running program; killed when it goes out of scope.
pub struct Process(Child);

impl Process {
    /// Starts it with its output in `DIR/NAME.log`.
    pub fn start(command: &mut Command, dir: &Path, name: &str) -> Result<Process> {
        let log = fs::File::create(dir.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Process(command.spawn().with_context(|| format!("{command:?}"))?))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Pids of several programs.
pub fn pids(processes: &[Process]) -> Vec<u32> {
    processes.iter().map(Process::pid).collect()
}

/// A directory of its own, empty, removed when it goes out of scope.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Result<Scratch> {
        let dir = std::env::temp_dir().join(format!("ferrokube-bench-{name}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Scratch(dir))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Waits until a GET is answered with success and `holds`.
fn wait_for(api: &Api, path: &str, patience: Duration, holds: impl Fn(&[u8]) -> bool) -> Result<()> {
    eventually(patience, || {
        let body = block_on(async { api.once("GET", path, "").await?.ok() })?;
        anyhow::ensure!(holds(&body), "{path} isn't so yet");
        Ok(())
    })
}
