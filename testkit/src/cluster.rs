//! A cluster of the binary under test, with its own name, data directory and kubeconfig, and the clients to drive it.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::{Output, output};
use crate::{Host, eventually, image};

/// See the module's head. Not removed on drop: the runner resets it, so that a failing test leaves its logs until then.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub name: String,
    /// Holds the data directory, HOME and whatever the test writes.
    pub dir: PathBuf,
    /// Where it runs; none: on this host.
    pub host: Option<Arc<Host>>,
}

/// A cluster of one test: reset when it is dropped.
#[derive(Debug)]
pub struct Own(Cluster);

impl Deref for Own {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Err(error) = self.0.reset() {
            println!("    reset of {}: {error:#}", self.0.name);
        }
    }
}

impl Cluster {
    pub fn new(name: &str) -> Result<Cluster> {
        let dir = std::env::temp_dir().join(format!("ferrokube-test-{name}"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("home"))?;
        Ok(Cluster { name: name.to_owned(), dir, host: None })
    }

    /// Another cluster for one test, named after this one.
    pub fn another(&self, suffix: &str) -> Result<Own> {
        Ok(Own(Cluster::new(&format!("{}-{suffix}", self.name))?))
    }

    /// Another cluster on a host of its own.
    pub fn elsewhere(&self, suffix: &str) -> Result<Own> {
        let cluster = Cluster::new(&format!("{}-{suffix}", self.name))?;
        Ok(Own(Cluster { host: Some(Arc::new(Host::new()?)), ..cluster }))
    }

    /// Another cluster on the same host.
    pub fn beside(&self, suffix: &str) -> Result<Own> {
        let cluster = Cluster::new(&format!("{}-{suffix}", self.name))?;
        Ok(Own(Cluster { host: self.host.clone(), ..cluster }))
    }

    /// A program where the cluster runs.
    pub fn program(&self, program: &Path) -> Command {
        match &self.host {
            Some(host) => host.command(program),
            None => Command::new(program),
        }
    }

    pub fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    /// The binary with this cluster's flags and an environment of its own.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(&binary());
        command.args(args).args(["--name", &self.name, "--data-dir"]).arg(self.data_dir());
        command.env("HOME", self.home()).env_remove("KUBECONFIG").env_remove("SUDO_UID");
        command
    }

    pub fn run(&self, args: &[&str]) -> Result<Output> {
        output(&mut self.command(args), "")
    }

    pub fn up(&self) -> Result<String> {
        self.run(&["up"])?.ok()
    }

    pub fn reset(&self) -> Result<()> {
        self.run(&["reset", "--yes"])?.ok()?;
        let _ = std::fs::remove_dir_all(&self.dir);
        Ok(())
    }

    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&["status", "-o", "json"])?.ok()?)?)
    }

    /// Pids of our processes with this role.
    pub fn pids(&self, role: &str) -> Result<Vec<i32>> {
        let status = self.status()?;
        let processes = status["processes"].as_array().cloned().unwrap_or_default();
        let wanted = processes.iter().filter(|p| p["role"] == role);
        Ok(wanted.filter_map(|p| i32::try_from(p["pid"].as_i64()?).ok()).collect())
    }

    /// kubectl with this cluster's kubeconfig, not started.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.program(&tool("KUBECTL", "kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(args).env("HOME", self.home());
        command.current_dir(&self.dir);
        command
    }

    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<Output> {
        output(&mut self.kubectl_command(args), input)
    }

    /// Standard output of a kubectl that must succeed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with(args, "")?.ok()
    }

    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_with(&["apply", "-f", "-"], manifest)?.ok()
    }

    /// etcdctl of a client that may do everything, at this cluster's etcd.
    pub fn etcdctl(&self, args: &[&str], input: &str) -> Result<String> {
        /// etcd's port, and how far the ports of two clusters on a host are apart.
        const PORT: u64 = 2379;
        const APART: u64 = 20;
        let record: Value = serde_json::from_slice(&std::fs::read(self.data_dir().join("cluster.json"))?)?;
        let slot = record["slot"].as_u64().context("cluster.json has a slot")?;
        let pki = self.data_dir().join("pki/etcd");
        let mut command = self.program(Path::new("etcdctl"));
        command.env("ETCDCTL_API", "3");
        command.args(["--endpoints", &format!("https://127.0.0.1:{}", PORT + APART * slot)]);
        command.arg("--cacert").arg(pki.join("ca.crt"));
        command.arg("--cert").arg(pki.join("healthcheck-client.crt"));
        command.arg("--key").arg(pki.join("healthcheck-client.key"));
        output(command.args(args), input)?.ok()
    }

    /// An object as JSON: `get("pod/web")`, `get("-n kube-system svc/kube-dns")`.
    pub fn get(&self, what: &str) -> Result<Value> {
        let mut args = vec!["get", "-o", "json"];
        args.extend(what.split_whitespace());
        Ok(serde_json::from_str(&self.kubectl(&args)?)?)
    }

    /// Waits until `kubectl get` of `what` satisfies `holds`.
    pub fn wait_for(&self, what: &str, patience: Duration, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let found = eventually(patience, || {
            last = self.get(what)?;
            anyhow::ensure!(holds(&last), "{what} isn't so yet");
            Ok(last.clone())
        });
        found.with_context(|| format!("{what}: {}", last["status"]))
    }

    /// Waits for a pod to be Ready; on failure tells its status and events.
    pub fn ready(&self, pod: &str) -> Result<Value> {
        self.ready_in("default", pod)
    }

    /// Like [`Cluster::ready`], in a namespace.
    pub fn ready_in(&self, namespace: &str, pod: &str) -> Result<Value> {
        let ready = |p: &Value| {
            let conditions = p["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let found = self.wait_for(&format!("-n {namespace} pod/{pod}"), Duration::from_secs(30), ready);
        found.with_context(|| self.kubectl(&["-n", namespace, "describe", "pod", pod]).unwrap_or_default())
    }

    pub fn helm(&self, args: &[&str]) -> Result<String> {
        self.helm_with(args)?.ok()
    }

    pub fn helm_with(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.program(&tool("HELM", "helm"));
        command.args(args).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.home());
        output(command.current_dir(&self.dir), "")
    }

    /// Imports an image made of Debian's static busybox under this name.
    pub fn import_busybox(&self, name: &str) -> Result<()> {
        let file = self.dir.join("busybox.tar");
        image::busybox_archive(&file, name)?;
        self.run(&["image", "import", &file.display().to_string()])?.ok()?;
        Ok(())
    }

    /// The daemon's log: for the message of a failed test.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.data_dir().join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// The binary under test: `FERROKUBE`, or the one of the same build as the test or benchmark that asks.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FERROKUBE") {
        return path.into();
    }
    built("ferrokube")
}

/// A program of the same build as the one that asks.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let beside = test.parent().unwrap_or(Path::new("."));
    // Tests are one deeper.
    let profile = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
    profile.join(name)
}

/// A tool that `cargo xtask tools` has fetched, by the variable that names it.
pub fn tool(variable: &str, name: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| name.into(), PathBuf::from)
}
