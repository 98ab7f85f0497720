//! Upstream's etcd, API server and, when asked, controller manager and scheduler, on loopback. Ports lie apart from
//! those of clusters of ours and of anybody else's.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::certificates::Authority;
use super::{Process, Scratch, Upstream, pids, wait_for};
use crate::api::{Api, block_on};

const SERVER: &str = "https://127.0.0.1:17443";
const ETCD: &str = "http://127.0.0.1:17379";
const ETCD_PEERS: &str = "http://127.0.0.1:17380";
/// A cold start of upstream takes some seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// See the module's head.
pub struct ControlPlane {
    // Processes end before their directory goes.
    processes: Vec<Process>,
    pub dir: Scratch,
    pub api: Api,
    pub began: Instant,
}

impl ControlPlane {
    /// etcd and the API server: what stores and serves objects.
    pub fn start(upstream: &Upstream) -> Result<ControlPlane> {
        let dir = Scratch::new("upstream")?;
        let (etcd, apiserver) = (upstream.program("etcd")?, upstream.program("kube-apiserver")?);
        write_identities(&dir)?;
        let api = Api::read(&dir.path("admin.conf"))?;
        let began = Instant::now();
        let mut command = Command::new(etcd);
        command.arg("--data-dir").arg(dir.path("etcd"));
        command.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD, "--listen-peer-urls", ETCD_PEERS]);
        command.args(["--initial-advertise-peer-urls", ETCD_PEERS, "--initial-cluster"]);
        command.arg(format!("default={ETCD_PEERS}"));
        let mut processes = vec![Process::start(&mut command, &dir.0, "etcd")?];
        let mut command = Command::new(apiserver);
        command.current_dir(&dir.0).args(["--etcd-servers", ETCD, "--secure-port", "17443"]);
        command.args(["--client-ca-file", "ca.crt", "--tls-cert-file", "apiserver.crt"]);
        command.args(["--tls-private-key-file", "apiserver.key", "--service-account-key-file", "sa.pub"]);
        command.args(["--service-account-signing-key-file", "sa.key", "--allow-privileged"]);
        command.args([
            "--service-account-issuer",
            "https://kubernetes.default.svc",
            "--authorization-mode",
            "Node,RBAC",
        ]);
        command.args(["--service-cluster-ip-range", "10.96.0.0/16", "--enable-admission-plugins", "NodeRestriction"]);
        processes.push(Process::start(&mut command, &dir.0, "kube-apiserver")?);
        let plane = ControlPlane { processes, dir, api, began };
        let ready = wait_for(&plane.api, "/readyz", PATIENCE, |body| body == b"ok");
        ready.with_context(|| plane.log("kube-apiserver"))?;
        Ok(plane)
    }

    /// Adds the controller manager and the scheduler.
    pub fn add_controllers(&mut self, upstream: &Upstream) -> Result<()> {
        let mut command = Command::new(upstream.program("kube-controller-manager")?);
        command.args(["--kubeconfig", "kcm.conf", "--root-ca-file", "ca.crt"]);
        command.args(["--service-account-private-key-file", "sa.key", "--use-service-account-credentials"]);
        command.args(["--cluster-signing-cert-file", "ca.crt", "--cluster-signing-key-file", "ca.key"]);
        command.args(["--allocate-node-cidrs", "--cluster-cidr", "10.244.0.0/16"]);
        self.add("kube-controller-manager", &mut command)?;
        self.add_scheduler(upstream)?;
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        wait_for(&self.api, account, PATIENCE, |_| true).with_context(|| self.log("kube-controller-manager"))
    }

    pub fn add_scheduler(&mut self, upstream: &Upstream) -> Result<()> {
        let mut command = Command::new(upstream.program("kube-scheduler")?);
        self.add("kube-scheduler", command.args(["--kubeconfig", "scheduler.conf"]))
    }

    /// Starts a client of the API with its limits off.
    fn add(&mut self, name: &str, command: &mut Command) -> Result<()> {
        command.current_dir(&self.dir.0).args(["--kube-api-qps", "10000", "--kube-api-burst", "20000"]);
        self.processes.push(Process::start(command.args(["--secure-port", "0"]), &self.dir.0, name)?);
        Ok(())
    }

    pub fn pids(&self) -> Vec<u32> {
        pids(&self.processes)
    }

    /// Those that hold objects as our one process does; etcd is a file's page cache beside them.
    pub fn pids_without_etcd(&self) -> Vec<u32> {
        pids(&self.processes[1..])
    }

    /// The last words of a program, for the message of a failure.
    pub fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.dir.path(&format!("{name}.log"))).unwrap_or_default();
        let last = text.lines().next_back().unwrap_or("it said nothing");
        format!("{name} said last: {last}")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path("admin.conf")
    }

    /// The account that pods are admitted with, where no controller manager makes it.
    pub fn add_default_account(&self) -> Result<()> {
        let account = r#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#;
        let made = self.api.once("POST", "/api/v1/namespaces/default/serviceaccounts", account);
        block_on(async { made.await?.ok() }).map(drop)
    }
}

fn write_identities(dir: &Scratch) -> Result<()> {
    let ca = Authority::new()?;
    let server = ca.pair("kube-apiserver", None)?;
    let signer = ca.pair("service-accounts", None)?;
    let users = [
        ("admin.conf", "admin", Some("system:masters")),
        ("kcm.conf", "system:kube-controller-manager", None),
        ("scheduler.conf", "system:kube-scheduler", None),
        ("node.conf", "system:node:bench", Some("system:nodes")),
    ];
    for (file, user, group) in users {
        fs::write(dir.path(file), ca.kubeconfig(SERVER, user, group)?)?;
    }
    let files = [
        ("ca.crt", &ca.pem),
        ("ca.key", &ca.key),
        ("apiserver.crt", &server.cert),
        ("apiserver.key", &server.key),
        ("sa.key", &signer.key),
        ("sa.pub", &signer.public),
    ];
    for (file, text) in files {
        fs::write(dir.path(file), text)?;
    }
    Ok(())
}
