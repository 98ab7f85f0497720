//! A control plane of upstream's on a host of the test: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, with
//! the flags that kubeadm gives them, and what `kubeadm init` shows to machines that join, made by its own phases.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::{Cluster, Own, eventually, output};

use super::{Processes, STARTS_WITHIN, Upstream, VERSION, private_folders};
use crate::authority::Authority;
use crate::two_hosts::FIRST;

/// The words by which machines join.
const TOKEN: &str = "abcdef.0123456789abcdef";
pub const PODS: &str = "10.244.0.0/16";
const SERVICES: &str = "10.96.0.0/16";

/// See the module's head. The cluster's own directory has its files, as one of ours has.
pub struct Plane {
    processes: Processes,
    authority: Authority,
    pub own: Own,
    pub server: String,
}

impl Plane {
    /// A host for it, which gets its address from the test.
    pub fn new(cluster: &Cluster) -> Result<Plane> {
        let own = cluster.elsewhere("theirs")?;
        private_folders(&own)?;
        let dir = own.dir.join("plane");
        fs::create_dir_all(&dir)?;
        let server = format!("https://{FIRST}:6443");
        Ok(Plane { processes: Processes(Vec::new()), authority: Authority::new(dir)?, own, server })
    }

    /// Once the host has its address.
    pub fn run(&mut self, upstream: &Upstream) -> Result<()> {
        self.identities()?;
        let url = "http://127.0.0.1:2379";
        let mut etcd = self.command(upstream, "etcd");
        etcd.args(["--data-dir", "etcd", "--listen-client-urls", url, "--advertise-client-urls", url]);
        self.processes.start("etcd", &mut etcd)?;
        let mut apiserver = self.command(upstream, "kube-apiserver");
        apiserver.args(["--advertise-address", FIRST, "--enable-bootstrap-token-auth=true", "--allow-privileged=true"]);
        apiserver.args(["--etcd-servers", url, "--authorization-mode=Node,RBAC", "--client-ca-file=ca.crt"]);
        apiserver.args(["--tls-cert-file=apiserver.crt", "--tls-private-key-file=apiserver.key"]);
        apiserver.args(["--kubelet-client-certificate=to-kubelet.crt", "--kubelet-client-key=to-kubelet.key"]);
        apiserver.args(["--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname"]);
        apiserver.args(["--service-account-key-file=sa.pub", "--service-account-signing-key-file=sa.key"]);
        apiserver.args(["--service-account-issuer=https://kubernetes.default.svc.cluster.local"]);
        apiserver.args(["--service-cluster-ip-range", SERVICES, "--enable-admission-plugins=NodeRestriction"]);
        self.processes.start("kube-apiserver", &mut apiserver)?;
        let ready = eventually(STARTS_WITHIN, || self.own.kubectl(&["get", "--raw", "/readyz"]).map(drop));
        ready.with_context(|| self.last_words())?;
        let mut manager = self.command(upstream, "kube-controller-manager");
        manager.args([
            "--kubeconfig=manager.kubeconfig",
            "--use-service-account-credentials=true",
            "--root-ca-file=ca.crt",
        ]);
        manager.args(["--controllers=*,bootstrapsigner,tokencleaner", "--service-account-private-key-file=sa.key"]);
        manager.args(["--cluster-signing-cert-file=ca.crt", "--cluster-signing-key-file=ca.key"]);
        manager.args(["--allocate-node-cidrs=true", "--cluster-cidr", PODS, "--service-cluster-ip-range", SERVICES]);
        self.processes.start("kube-controller-manager", &mut manager)?;
        let mut scheduler = self.command(upstream, "kube-scheduler");
        self.processes.start("kube-scheduler", scheduler.arg("--kubeconfig=scheduler.kubeconfig"))?;
        let account = eventually(STARTS_WITHIN, || self.own.kubectl(&["get", "serviceaccount", "default"]).map(drop));
        account.with_context(|| self.last_words())?;
        self.show(upstream).with_context(|| self.last_words())
    }

    fn identities(&self) -> Result<()> {
        let authority = &self.authority;
        let names = format!(
            "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,\
             IP:127.0.0.1,IP:10.96.0.1,IP:{FIRST}"
        );
        authority.certificate("apiserver", "/CN=kube-apiserver", &names)?;
        authority.certificate("to-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client", "")?;
        authority.openssl(&["genrsa", "-out", "sa.key", "2048"])?;
        authority.openssl(&["rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"])?;
        authority.kubeconfig("manager", "/CN=system:kube-controller-manager", &self.server)?;
        authority.kubeconfig("scheduler", "/CN=system:kube-scheduler", &self.server)?;
        let admin = authority.kubeconfig("admin", "/O=system:masters/CN=kubernetes-admin", &self.server)?;
        fs::create_dir_all(self.own.data_dir())?;
        fs::copy(admin, self.own.kubeconfig())?;
        Ok(())
    }

    /// A program of upstream's on this host, where its files are.
    fn command(&self, upstream: &Upstream, name: &str) -> Command {
        // Whoever enters a mount namespace is at its root.
        let there = format!("cd {} && exec \"$0\" \"$@\"", self.authority.dir.display());
        let mut command = self.own.program(Path::new("sh"));
        command.args(["-c", &there]).arg(upstream.program(name));
        command.env("HOME", self.own.home()).env_remove("KUBECONFIG");
        command
    }

    /// What `kubeadm init` shows to machines that join.
    fn show(&self, upstream: &Upstream) -> Result<()> {
        let config = format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nbootstrapTokens:\n- token: {TOKEN}\n\
             localAPIEndpoint: {{advertiseAddress: {FIRST}, bindPort: 6443}}\n\
             nodeRegistration: {{name: first, criSocket: 'unix:///run/none.sock'}}\n---\n\
             apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: {VERSION}\n\
             controlPlaneEndpoint: '{FIRST}:6443'\nnetworking: {{podSubnet: {PODS}, serviceSubnet: {SERVICES}}}\n"
        );
        let file = self.authority.file("kubeadm.yaml");
        fs::write(&file, config)?;
        let admin = self.authority.file("admin.kubeconfig");
        for phase in [
            &["upload-config", "kubeadm"][..],
            &["upload-config", "kubelet"],
            &["bootstrap-token"],
            &["addon", "kube-proxy"],
            &["addon", "coredns"],
        ] {
            let mut kubeadm = self.command(upstream, "kubeadm");
            kubeadm.args(["init", "phase"]).args(phase).args(["--config", &file, "--kubeconfig", &admin]);
            output(&mut kubeadm, "")?.ok().with_context(|| format!("kubeadm init phase {}", phase.join(" ")))?;
        }
        // It is signed by the controller manager, in its own time.
        eventually(STARTS_WITHIN, || {
            let shown = self.own.kubectl(&["-n", "kube-public", "get", "configmap", "cluster-info", "-o", "yaml"])?;
            ensure!(shown.contains("jws-kubeconfig-abcdef"), "{shown}");
            Ok(())
        })
    }

    /// What a person gives to a machine of ours: kubeadm's token and hash with an `@` between.
    pub fn words(&self) -> Result<String> {
        let hash = "openssl x509 -pubkey -noout -in ca.crt | openssl pkey -pubin -outform der | sha256sum";
        let said = output(Command::new("sh").args(["-c", hash]).current_dir(&self.authority.dir), "")?.ok()?;
        Ok(format!("{TOKEN}@sha256:{}", said.split_whitespace().next().context("a hash")?))
    }

    /// A kubeconfig of who has this token.
    pub fn with_token(&self, name: &str, token: &str) -> Result<String> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": self.server, "certificate-authority": self.authority.file("ca.crt")}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        let file = self.authority.file(&format!("{name}.kubeconfig"));
        fs::write(&file, config.to_string())?;
        Ok(file)
    }

    pub fn last_words(&self) -> String {
        self.processes.last_words()
    }
}
