//! A node of upstream's on a host of the test: containerd with runc and Debian's CNI plugins, and the kubelet, brought into a
//! cluster by `kubeadm join`. What it leaves in control groups is removed with it; the rest is in the host's namespaces.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;
use testkit::image::{BUSYBOX, archive, busybox_archive};
use testkit::{Cluster, eventually, output};

use super::{Processes, STARTS_WITHIN, Upstream};
use crate::components::clear_groups;

const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// See the module's head.
pub struct Node<'a> {
    processes: Processes,
    upstream: &'a Upstream,
    cluster: &'a Cluster,
    dir: PathBuf,
    /// The group of each hierarchy that everything of it is in.
    group: String,
}

impl<'a> Node<'a> {
    /// containerd with what pods need; pods have addresses of this range.
    pub fn new(upstream: &'a Upstream, cluster: &'a Cluster, range: &str) -> Result<Node<'a>> {
        let dir = cluster.dir.join("node");
        fs::create_dir_all(&dir)?;
        let group = format!("{}-node", cluster.name);
        let mut node = Node { processes: Processes(Vec::new()), upstream, cluster, dir, group };
        node.configure(range)?;
        let containerd = node.upstream.program("containerd");
        let path = format!("{}:{}", node.upstream.dir.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = node.cluster.program(&containerd);
        command.arg("-c").arg(node.dir.join("containerd.toml")).env("PATH", path);
        node.processes.start("containerd", &mut command)?;
        let up = eventually(STARTS_WITHIN, || node.ctr(&["version"]));
        up.with_context(|| node.processes.last_words())?;
        let root = node.dir.join("pause-root");
        fs::create_dir_all(root.join("bin"))?;
        fs::copy("/usr/bin/busybox", root.join("bin/busybox"))?;
        let config = json!({"Entrypoint": ["/bin/busybox", "sleep", "2147483647"]});
        archive(&node.dir.join("pause.tar"), &root, PAUSE, &config)?;
        busybox_archive(&node.dir.join("busybox.tar"), BUSYBOX)?;
        for image in ["pause.tar", "busybox.tar"] {
            node.ctr(&["images", "import", &node.file(image)])?;
        }
        Ok(node)
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn ctr(&self, args: &[&str]) -> Result<()> {
        let mut command = self.cluster.program(&self.upstream.program("ctr"));
        command.args(["--address", &self.file("containerd.sock"), "-n", "k8s.io"]).args(args);
        output(&mut command, "")?.ok().map(drop)
    }

    fn configure(&self, range: &str) -> Result<()> {
        let host = self.cluster.host.as_ref().context("a host")?;
        // The kubelet doesn't make its root itself.
        host.sh(&format!("for h in /sys/fs/cgroup/*/; do mkdir -p $h/{}; done", self.group))?;
        let network = json!({"cniVersion": "1.0.0", "name": "theirs", "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
             "ipam": {"type": "host-local", "dataDir": self.file("addresses"), "ranges": [[{"subnet": range}]],
                "routes": [{"dst": "0.0.0.0/0"}]}}]});
        fs::create_dir_all(self.dir.join("net.d"))?;
        fs::write(self.dir.join("net.d/10-theirs.conflist"), network.to_string())?;
        let shown = self.dir.display();
        // A kernel without CAP_SYS_RESOURCE refuses the oom_score_adj that pods ask for.
        let containerd = format!(
            "version = 3\nroot = \"{shown}/containerd\"\nstate = \"{shown}/containerd-run\"\n\
             [grpc]\naddress = \"{shown}/containerd.sock\"\n[ttrpc]\naddress = \"{shown}/containerd.sock.ttrpc\"\n\
             [plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n\
             netns_mounts_under_state_dir = true\n\
             [plugins.\"io.containerd.cri.v1.runtime\".cni]\nbin_dirs = [\"/usr/lib/cni\"]\n\
             conf_dir = \"{shown}/net.d\"\n\
             [plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{PAUSE}\"\n"
        );
        fs::write(self.dir.join("containerd.toml"), containerd)?;
        // What is this machine's, over what the cluster says of its kubelets.
        let patch = json!({
            "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", self.group), "failCgroupV1": false,
            "failSwapOn": false, "localStorageCapacityIsolation": false, "resolvConf": "/etc/resolv.conf",
            "volumePluginDir": self.file("volume-plugins"),
            "evictionHard": {"memory.available": "10Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        });
        fs::create_dir_all(self.dir.join("patches"))?;
        fs::write(self.dir.join("patches/kubeletconfiguration+merge.json"), patch.to_string())?;
        Ok(())
    }

    /// `kubeadm join`. The kubelet is started when kubeadm asks the init system for it, as its package's unit has it.
    pub fn join(&mut self, name: &str, ip: &str, server: &str, words: &str) -> Result<()> {
        let (token, hash) = words.split_once('@').context("a token with a hash")?;
        let asked = self.init_system()?;
        let path = format!("{}:{}", self.dir.display(), std::env::var("PATH").unwrap_or_default());
        let mut kubeadm = self.cluster.program(&self.upstream.program("kubeadm"));
        kubeadm.args(["join", server.trim_start_matches("https://"), "--token", token]);
        kubeadm.args(["--discovery-token-ca-cert-hash", hash, "--node-name", name, "--ignore-preflight-errors=all"]);
        kubeadm.args(["--cri-socket", &format!("unix://{}", self.file("containerd.sock"))]);
        kubeadm.args(["--patches", &self.file("patches"), "-v2"]).env("PATH", path).env("HOME", self.cluster.home());
        self.processes.start("kubeadm", &mut kubeadm)?;
        let waited = eventually(STARTS_WITHIN, || fs::metadata(&asked).map(drop).context("kubeadm starts no kubelet"));
        waited.with_context(|| self.last_words())?;
        let flags = "$(. /var/lib/kubelet/kubeadm-flags.env; echo $KUBELET_KUBEADM_ARGS)";
        let run = format!(
            "exec {} --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
             --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml --node-ip={ip} {flags}",
            self.upstream.program("kubelet").display()
        );
        let mut kubelet = self.cluster.program(Path::new("sh"));
        self.processes.start("kubelet", kubelet.args(["-c", &run]))?;
        let joined = eventually(STARTS_WITHIN, || {
            let said = self.processes.said("kubeadm");
            anyhow::ensure!(said.contains("This node has joined the cluster"), "{said}");
            Ok(())
        });
        joined.with_context(|| self.last_words())
    }

    /// A `systemctl` that notes when it is asked to start the kubelet.
    fn init_system(&self) -> Result<PathBuf> {
        let (program, asked) = (self.dir.join("systemctl"), self.dir.join("asked"));
        let script = format!("#!/bin/sh\ncase \"$*\" in *start*kubelet*) touch {} ;; esac\n", asked.display());
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(asked)
    }

    /// A program of this host beside the kubelet.
    pub fn add(&mut self, name: &'static str, command: &mut Command) -> Result<()> {
        self.processes.start(name, command)
    }

    pub fn last_words(&self) -> String {
        self.processes.last_words()
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        self.processes.0.clear();
        clear_groups(&self.group);
        // What is left are shims, in namespaces that nothing else is in.
        let left = self.cluster.host.as_ref().and_then(|host| host.processes().ok()).unwrap_or_default();
        for pid in left {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }
}
