//! A node of upstream's: containerd with runc and Debian's CNI plugins, the kubelet, kube-proxy. Whatever they leave in
//! the kernel is removed: shims, mounts, cgroups, links, nftables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testkit::{image, output};

use super::{ControlPlane, Process, Upstream, pids, wait_for};
use crate::machine::processes_with;

const BRIDGE: &str = "fkbench0";
/// Everything of the kubelet lies below this group of each hierarchy.
const GROUP: &str = "fkbench";
const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
const PATIENCE: Duration = Duration::from_secs(90);

/// See the module's head. Ends before the control plane that it belongs to.
pub struct Node {
    processes: Vec<Process>,
    dir: PathBuf,
    ctr: PathBuf,
}

impl Node {
    pub fn start(upstream: &Upstream, plane: &ControlPlane) -> Result<Node> {
        for (file, package) in [("/usr/sbin/runc", "runc"), ("/usr/lib/cni/bridge", "containernetworking-plugins")] {
            ensure!(Path::new(file).exists(), "not taken: Debian's {package} is not installed");
        }
        let (containerd, kubelet) = (upstream.program("containerd")?, upstream.program("kubelet")?);
        let (proxy, ctr) = (upstream.program("kube-proxy")?, upstream.ctr()?);
        let dir = plane.dir.0.clone();
        configure(&dir)?;
        let shims = containerd.parent().unwrap_or(&dir).display().to_string();
        let path = format!("{shims}:{}", std::env::var("PATH").unwrap_or_default());
        let mut node = Node { processes: Vec::new(), dir: dir.clone(), ctr };
        node.add("containerd", Command::new(containerd).arg("-c").arg(dir.join("containerd.toml")).env("PATH", &path))?;
        testkit::eventually(PATIENCE, || node.ctr(&["version"]))?;
        let root = dir.join("pause-root");
        fs::create_dir_all(root.join("bin"))?;
        fs::copy("/usr/bin/busybox", root.join("bin/busybox"))?;
        let config = json!({"Entrypoint": ["/bin/busybox", "sleep", "2147483647"]});
        image::archive(&dir.join("pause.tar"), &root, PAUSE, &config)?;
        node.import(&dir.join("pause.tar"))?;
        let mut command = Command::new(kubelet);
        command.arg("--config").arg(dir.join("kubelet.yaml")).arg("--kubeconfig").arg(dir.join("node.conf"));
        command.args(["--hostname-override", "bench", "--root-dir"]).arg(dir.join("kubelet"));
        node.add("kubelet", command.arg("--cert-dir").arg(dir.join("kubelet/pki")))?;
        let mut command = Command::new(proxy);
        command.arg("--kubeconfig").arg(dir.join("admin.conf")).args(["--proxy-mode", "nftables"]);
        command.args(["--cluster-cidr", "10.244.0.0/16", "--hostname-override", "bench"]);
        command.args(["--healthz-bind-address", "127.0.0.1:17256", "--metrics-bind-address", "127.0.0.1:17249"]);
        node.add("kube-proxy", &mut command)?;
        let ready = |body: &[u8]| {
            let node: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            crate::pod_start::is_ready(&node)
        };
        wait_for(&plane.api, "/api/v1/nodes/bench", PATIENCE, ready).with_context(|| plane.log("kubelet"))?;
        Ok(node)
    }

    fn add(&mut self, name: &str, command: &mut Command) -> Result<()> {
        self.processes.push(Process::start(command, &self.dir, name)?);
        Ok(())
    }

    fn ctr(&self, args: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.ctr);
        command.arg("--address").arg(self.dir.join("containerd.sock")).args(["-n", "k8s.io"]).args(args);
        output(&mut command, "")?.ok().map(drop)
    }

    /// Imports a docker archive.
    pub fn import(&self, archive: &Path) -> Result<()> {
        self.ctr(&["images", "import", archive.to_str().context("the archive's path")?])
    }

    pub fn pids(&self) -> Vec<u32> {
        pids(&self.processes)
    }
}

/// Configuration files of containerd, its pod network, and the kubelet.
fn configure(dir: &Path) -> Result<()> {
    let shown = dir.display();
    // The kubelet doesn't make its root itself.
    for hierarchy in hierarchies() {
        fs::create_dir_all(hierarchy.join(GROUP))?;
    }
    fs::create_dir_all(dir.join("cni/net.d"))?;
    let network = json!({"cniVersion": "1.0.0", "name": "ferrokube-bench", "plugins": [{
        "type": "bridge", "bridge": BRIDGE, "isGateway": true, "hairpinMode": true,
        "ipam": {"type": "host-local", "dataDir": dir.join("cni/addresses"),
            "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }]});
    fs::write(dir.join("cni/net.d/10-bench.conflist"), network.to_string())?;
    // A kernel without CAP_SYS_RESOURCE refuses the oom_score_adj that pods ask for.
    let containerd = format!(
        "version = 3\nroot = \"{shown}/containerd\"\nstate = \"{shown}/containerd-run\"\n\
         [grpc]\naddress = \"{shown}/containerd.sock\"\n[ttrpc]\naddress = \"{shown}/containerd.sock.ttrpc\"\n\
         [plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n\
         netns_mounts_under_state_dir = true\n\
         [plugins.\"io.containerd.cri.v1.runtime\".cni]\nbin_dirs = [\"/usr/lib/cni\"]\n\
         conf_dir = \"{shown}/cni/net.d\"\n\
         [plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{PAUSE}\"\n"
    );
    fs::write(dir.join("containerd.toml"), containerd)?;
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": dir.join("ca.crt")}},
        "authorization": {"mode": "Webhook"}, "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{GROUP}"), "port": 17250, "healthzPort": 17248,
        "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{shown}/containerd.sock"), "failCgroupV1": false,
        "failSwapOn": false, "localStorageCapacityIsolation": false, "resolvConf": "/etc/resolv.conf",
        "evictionHard": {"memory.available": "10Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    });
    Ok(fs::write(dir.join("kubelet.yaml"), kubelet.to_string())?)
}

impl Drop for Node {
    fn drop(&mut self) {
        self.processes.clear();
        let dir = self.dir.display().to_string();
        // What is left are shims and what runs under them: their command lines or roots name our directory.
        let shims = processes_with(&format!("{dir}/containerd.sock"));
        let below: Vec<u32> = shims.keys().flat_map(|shim| children(*shim)).collect();
        for pid in shims.keys().copied().chain(below) {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
        unmount_below(&dir);
        remove_cgroups();
        // What isn't there needs no removing.
        let quiet = |program: &str, args: &[&str]| drop(Command::new(program).args(args).output());
        quiet("ip", &["link", "delete", BRIDGE]);
        for family in ["ip", "ip6"] {
            quiet("nft", &["delete", "table", family, "kube-proxy"]);
        }
        for result in fs::read_dir("/var/lib/cni/results").into_iter().flatten().flatten() {
            if result.file_name().to_string_lossy().starts_with("ferrokube-bench-") {
                let _ = fs::remove_file(result.path());
            }
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    texts.flat_map(|t| t.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>()).collect()
}

fn unmount_below(dir: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // The last mounted goes first.
    for target in mounts.lines().rev().filter_map(|l| l.split(' ').nth(1)).filter(|t| t.starts_with(dir)) {
        let _ = Command::new("umount").args(["--lazy", target]).status();
    }
}

/// The kubelet's groups of every hierarchy, children first; a group that still holds a process stays.
fn remove_cgroups() {
    fn remove(group: &Path) {
        for entry in fs::read_dir(group).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
            remove(&entry.path());
        }
        let _ = fs::remove_dir(group);
    }
    for hierarchy in hierarchies() {
        remove(&hierarchy.join(GROUP));
    }
}

/// Each hierarchy of cgroup v1, or the one of v2.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}
