//! Upstream's programs and ours in one cluster: our agent under a control plane of upstream's, a node of upstream's under
//! ours, our kube-proxy on a node of upstream's. What machines read to join is made and read by kubeadm itself. Each host is
//! namespaces of the test.
//!
//! - here: where upstream's programs are, and one that runs
//! - [`plane`]: a control plane of upstream's, as `kubeadm init` leaves it
//! - [`node`]: a node of upstream's: containerd, runc, kubelet
//! - [`joining`]: the tests
//!
//! Asked for by `FERROKUBE_TEST_FULL`, which `cargo xtask test --full` sets, where the programs are: in the folder that
//! `FERROKUBE_UPSTREAM` names, by default `~/.cache/kubernetes-reference`, laid out as the benchmarks have it.

mod joining;
mod node;
mod plane;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use testkit::{Cluster, Running, full, output};

use crate::envtest::go;

pub use joining::TESTS;

/// A control plane of upstream's takes some seconds, beside other work some more.
const STARTS_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);
/// Of Debian's, beside upstream's own.
const DEBIANS: [(&str, &str); 2] = [("/usr/sbin/runc", "runc"), ("/usr/lib/cni/bridge", "containernetworking-plugins")];
/// What the reference's own build leaves.
const PROGRAMS: [&str; 8] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "etcd",
    "containerd",
    "containerd-shim-runc-v2",
];
/// kubeadm as a program of the reference's module.
const KUBEADM: &str = "package main\n\nimport (\n\t\"os\"\n\n\t\"k8s.io/kubernetes/cmd/kubeadm/app\"\n)\n\nfunc main() {\n\t\
    if app.Run() != nil {\n\t\tos.Exit(1)\n\t}\n}\n";
const VERSION: &str = "v1.37.2";

/// See the module's head.
pub struct Upstream {
    dir: PathBuf,
}

impl Upstream {
    /// Upstream's programs; none, and a line that says why, where nobody asks for them or one is missing.
    pub fn find() -> Option<Upstream> {
        let found = if full() { Upstream::look() } else { Err(anyhow::anyhow!("FERROKUBE_TEST_FULL is not set")) };
        match found {
            Ok(upstream) => Some(upstream),
            Err(why) => {
                println!("    skipped: {why:#}");
                None
            }
        }
    }

    fn look() -> Result<Upstream> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        let named = std::env::var_os("FERROKUBE_UPSTREAM").map(PathBuf::from);
        let upstream =
            Upstream { dir: named.or_else(|| Some(cache?.join("kubernetes-reference"))).unwrap_or_default() };
        for name in PROGRAMS {
            let place = upstream.program(name);
            ensure!(place.exists(), "no {name} in {} (FERROKUBE_UPSTREAM)", upstream.dir.display());
        }
        for (file, package) in DEBIANS {
            ensure!(Path::new(file).exists(), "Debian's {package} is not installed");
        }
        upstream.build_what_is_missing()?;
        Ok(upstream)
    }

    /// A program by its name: built from Kubernetes' own module, or one of the others.
    pub fn program(&self, name: &str) -> PathBuf {
        let own = self.dir.join("k8s/bin").join(name);
        if own.exists() { own } else { self.dir.join("bin").join(name) }
    }

    /// kubeadm, and containerd's own client, which imports images from files: both of the versions that are there.
    fn build_what_is_missing(&self) -> Result<()> {
        let go = || go().context("there is no Go toolchain");
        if !self.program("kubeadm").exists() {
            let module = self.dir.join("k8s");
            fs::create_dir_all(module.join("cmd/kubeadm"))?;
            fs::write(module.join("cmd/kubeadm/main.go"), KUBEADM)?;
            let said = "k8s.io/component-base/version";
            let flags = format!("-s -w -X {said}.gitVersion={VERSION} -X {said}.gitMajor=1 -X {said}.gitMinor=37");
            let mut build = Command::new(go()?);
            build.args(["build", "-mod=mod", "-ldflags", &flags, "-o", "bin/", "./cmd/kubeadm"]).current_dir(module);
            output(&mut build, "")?.ok().context("kubeadm")?;
        }
        if !self.program("ctr").exists() {
            let containerd = self.program("containerd");
            let text = output(Command::new(go()?).args(["version", "-m"]).arg(&containerd), "")?.ok()?;
            let module = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let module =
                module.into_iter().find(|words| words.first() == Some(&"mod")).context("containerd's module")?;
            let ctr = format!("github.com/containerd/containerd/v2/cmd/ctr@{}", module[2]);
            let mut install = Command::new(go()?);
            install.args(["install", "-ldflags", "-s -w", &ctr]).env("GOBIN", self.dir.join("bin"));
            output(install.current_dir(std::env::temp_dir()), "")?.ok().context("ctr")?;
        }
        Ok(())
    }
}

/// Programs of one host that run until the value is dropped.
pub struct Processes(Vec<(&'static str, Running)>);

impl Processes {
    pub fn start(&mut self, name: &'static str, command: &mut Command) -> Result<()> {
        self.0.push((name, Running::start(command)?));
        Ok(())
    }

    /// What one of them said.
    pub fn said(&self, name: &str) -> String {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, running)| running.said()).unwrap_or_default()
    }

    /// The last lines of each: for a test that failed.
    pub fn last_words(&self) -> String {
        let last = |(name, running): &(&str, Running)| {
            let said = running.said();
            let lines: Vec<&str> = said.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(12)..].join("\n"))
        };
        self.0.iter().map(last).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Who came last depends on those before.
        while self.0.pop().is_some() {}
    }
}

/// What programs write below /etc and the like stays in the host's own namespaces. Not all of /var/lib: there clusters of ours
/// see each other, those of other tests too, and take turns.
pub fn private_folders(cluster: &Cluster) -> Result<()> {
    let host = cluster.host.as_ref().context("a host")?;
    let dir = cluster.dir.join("folders");
    for (i, place) in ["/etc", "/opt"].iter().enumerate() {
        let [upper, work] = ["upper", "work"].map(|kind| dir.join(format!("{kind}{i}")));
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let options = format!("lowerdir={place},upperdir={},workdir={}", upper.display(), work.display());
        host.sh(&format!("mount -t overlay overlay -o {options} {place}"))?;
    }
    for place in ["/var/log", "/var/lib/kubelet", "/var/lib/cni"] {
        host.sh(&format!("mkdir -p {place}; mount -t tmpfs tmpfs {place}"))?;
    }
    host.sh("mkdir -p /etc/cni/net.d /etc/kubernetes").map(drop)
}
