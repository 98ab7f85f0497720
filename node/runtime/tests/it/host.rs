//! A runtime of its own for each test: directories, an image made from busybox, a client, and requests in short form.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pod_network::{LoopbackOnly, PodNetwork};
use runtime::Config;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use wire::cri::image_service_client::ImageServiceClient;
use wire::cri::runtime_service_client::RuntimeServiceClient;
use wire::cri::*;
use wire::images::ImportRequest;
use wire::images::image_transfer_client::ImageTransferClient;

pub const BUSYBOX: &str = "/bin/busybox";

/// Why these tests can't run here.
pub fn unfit() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".into());
    }
    if !Path::new(BUSYBOX).exists() {
        return Some(format!("{BUSYBOX} is missing (Debian package busybox-static)"));
    }
    None
}

/// A running daemon and its clients.
pub struct Host {
    pub dir: tempfile::TempDir,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<(), runtime::Error>>>,
    pub cri: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
    pub transfer: ImageTransferClient<Channel>,
}

/// Runs a test body on a host with the busybox image, and checks that nothing is left behind.
pub fn with_host<F: Future<Output = ()>>(body: impl FnOnce(Host) -> F) {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(async {
        let mut host = Host::start().await;
        host.import(busybox_archive("busybox:1")).await;
        body(host).await;
    });
}

impl Host {
    pub async fn start() -> Self {
        Self::start_with(Arc::new(LoopbackOnly)).await
    }

    /// With this pod network.
    pub async fn start_with(network: Arc<dyn PodNetwork>) -> Self {
        let dir = tempfile::Builder::new().prefix("fk-runtime-").tempdir().unwrap();
        Self::start_in(dir, network).await
    }

    async fn start_in(dir: tempfile::TempDir, network: Arc<dyn PodNetwork>) -> Self {
        let stop = CancellationToken::new();
        let mut config = Config::new(dir.path().join("root"), dir.path().join("run"));
        config.cgroup_root = cgroup_of(dir.path());
        config.registries = Some(dir.path().join("registries.yaml"));
        let socket = config.socket.clone();
        let task = tokio::spawn(runtime::run(config, network, stop.clone()));
        let channel = connect(&socket).await;
        Host {
            dir,
            stop,
            task: Some(task),
            cri: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel.clone()),
            transfer: ImageTransferClient::new(channel),
        }
    }

    /// Ends the daemon, leaving containers alone, and starts another one.
    pub async fn restart(self) -> Self {
        self.restart_after(|| {}).await
    }

    /// The same, with something happening while no daemon is there.
    pub async fn restart_after(mut self, meanwhile: impl FnOnce()) -> Self {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap().unwrap();
        meanwhile();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        drop(self);
        Self::start_in(dir, Arc::new(LoopbackOnly)).await
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    pub async fn import(&mut self, archive: Vec<u8>) -> Vec<String> {
        let chunks: Vec<ImportRequest> =
            archive.chunks(256 << 10).map(|c| ImportRequest { name: String::new(), data: c.to_vec().into() }).collect();
        let answer = self.transfer.import(futures::stream::iter(chunks)).await.unwrap().into_inner();
        answer.images.into_iter().flat_map(|i| i.names).collect()
    }

    pub async fn pod(&mut self, change: impl FnOnce(&mut PodSandboxConfig)) -> (String, PodSandboxConfig) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let name = format!("p{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let mut config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.clone(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: "pod-host".into(),
            log_directory: self.path("logs").display().to_string(),
            ..Default::default()
        };
        std::fs::create_dir_all(self.path("logs")).unwrap();
        let security = LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces(NamespaceMode::Container)),
            ..Default::default()
        };
        config.linux = Some(LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() });
        change(&mut config);
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let answer = self.cri.run_pod_sandbox(request).await.unwrap();
        (answer.into_inner().pod_sandbox_id, config)
    }

    pub async fn create(
        &mut self,
        pod: &(String, PodSandboxConfig),
        config: ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.0.clone(),
            config: Some(config),
            sandbox_config: Some(pod.1.clone()),
        };
        Ok(self.cri.create_container(request).await?.into_inner().container_id)
    }

    pub async fn start_container(&mut self, id: &str) -> Result<(), tonic::Status> {
        self.cri.start_container(StartContainerRequest { container_id: id.into() }).await.map(drop)
    }

    /// Creates and starts a container that runs a shell script.
    pub async fn sh(&mut self, pod: &(String, PodSandboxConfig), name: &str, script: &str) -> String {
        self.run(pod, shell(name, script)).await
    }

    pub async fn run(&mut self, pod: &(String, PodSandboxConfig), config: ContainerConfig) -> String {
        let id = self.create(pod, config).await.unwrap();
        self.start_container(&id).await.unwrap();
        id
    }

    pub async fn status(&mut self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        self.cri.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// Waits for the end of a container.
    pub async fn ended(&mut self, id: &str) -> ContainerStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.status(id).await;
            if status.state() == ContainerState::ContainerExited {
                return status;
            }
            assert!(Instant::now() < deadline, "container did not end: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The text of a container's log without the prefixes.
    pub fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(&format!("logs/{name}.log"))).unwrap_or_default();
        text.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
    }

    /// Runs a script to its end and answers its output and exit code.
    pub async fn output(&mut self, pod: &(String, PodSandboxConfig), config: ContainerConfig) -> (String, i32) {
        let name = config.metadata.clone().unwrap().name;
        let id = self.run(pod, config).await;
        let status = self.ended(&id).await;
        (self.log(&name), status.exit_code)
    }

    pub async fn exec(&mut self, id: &str, script: &str) -> Result<(String, String, i32), tonic::Status> {
        let request = ExecSyncRequest {
            container_id: id.into(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout: 10,
        };
        let answer = self.cri.exec_sync(request).await?.into_inner();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Ok((text(&answer.stdout), text(&answer.stderr), answer.exit_code))
    }

    pub async fn remove_pod(&mut self, id: &str) {
        self.cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.into() }).await.unwrap();
        self.cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id.into() }).await.unwrap();
    }

    /// Removes all pods, ends the daemon and checks that nothing is left of them.
    pub async fn finish(mut self) {
        let pods = self.cri.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner().items;
        for pod in pods {
            self.remove_pod(&pod.id).await;
        }
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap().unwrap();
        let dir = self.dir.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&dir), "mounts are left:\n{mounts}");
        for sub in ["root/containers", "root/sandboxes", "run/containers", "run/pods"] {
            let left = std::fs::read_dir(self.dir.path().join(sub)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{sub} is not empty");
        }
        let groups = linux::cgroup::Cgroups::detect().unwrap();
        let group = groups.group(&cgroup_of(self.dir.path()));
        // The last monitor may leave its group later than the daemon waits for, on a busy machine; it must leave it.
        let monitors = groups.group(&format!("{}/monitors", cgroup_of(self.dir.path())));
        let began = Instant::now();
        while let Err(error) = monitors.remove() {
            assert!(began.elapsed() < Duration::from_secs(20), "monitors are left: {error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for dir in group.dirs().iter().filter(|d| d.exists()) {
            let left = std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()).count();
            assert_eq!(left, 0, "control groups are left in {}", dir.display());
        }
        group.remove().unwrap();
    }
}

/// A failed test must not leave processes and mounts on the machine.
impl Drop for Host {
    fn drop(&mut self) {
        let entries = |sub: &str| std::fs::read_dir(self.dir.path().join(sub)).into_iter().flatten().flatten();
        for dir in entries("run/containers").chain(entries("run/pods")) {
            for file in ["monitor.pid", "pid", "init.pid"] {
                let text = std::fs::read_to_string(dir.path().join(file)).unwrap_or_default();
                if let Some(pid) = text.split(' ').next().and_then(|pid| pid.parse().ok()) {
                    let _ = linux::process::kill(pid, 9);
                }
            }
            for pin in ["net", "ipc", "uts", "pid", "shm", "proc"] {
                let _ = linux::mount::detach(dir.path().join(pin));
            }
        }
        if let Ok(cgroups) = linux::cgroup::Cgroups::detect() {
            let _ = cgroups.group(&cgroup_of(self.dir.path())).remove();
        }
    }
}

fn cgroup_of(dir: &Path) -> String {
    format!("/{}", dir.file_name().unwrap().to_str().unwrap())
}

async fn connect(socket: &Path) -> Channel {
    let endpoint = tonic::transport::Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(e) => assert!(Instant::now() < deadline, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The usual choice: own network and IPC of the pod, PIDs as given.
pub fn namespaces(pid: NamespaceMode) -> NamespaceOption {
    let mut options = NamespaceOption::default();
    options.set_pid(pid);
    options
}

/// A container of the busybox image that runs a script.
pub fn shell(name: &str, script: &str) -> ContainerConfig {
    let security = LinuxContainerSecurityContext {
        namespace_options: Some(namespaces(NamespaceMode::Container)),
        ..Default::default()
    };
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox:1".into(), ..Default::default() }),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig { security_context: Some(security), resources: None }),
        ..Default::default()
    }
}

/// The container's security context, to be changed.
pub fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// A tar of (path, mode, content); a path that ends in a slash is a directory.
pub fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, body) in files {
        let mut header = tar::Header::new_gnu();
        let dir = path.ends_with('/');
        header.set_entry_type(if dir { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_mode(*mode);
        header.set_size(body.len() as u64);
        tar.append_data(&mut header, path, *body).unwrap();
    }
    tar.into_inner().unwrap()
}

fn link(tar: &mut tar::Builder<Vec<u8>>, path: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    tar.append_link(&mut header, path, target).unwrap();
}

/// One layer with busybox and a few accounts.
pub fn busybox_layer() -> Vec<u8> {
    let busybox = std::fs::read(BUSYBOX).unwrap();
    let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
    let mut builder = tar::Builder::new(Vec::new());
    let base = tar(&[
        ("bin/", 0o755, b""),
        ("etc/", 0o755, b""),
        ("root/", 0o700, b""),
        ("tmp/", 0o1777, b""),
        ("bin/busybox", 0o755, &busybox),
        ("etc/passwd", 0o644, passwd),
        ("etc/group", 0o644, b"root:x:0:\napp:x:1001:\nstaff:x:50:app\n"),
    ]);
    let mut archive = tar::Archive::new(base.as_slice());
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header().clone();
        let path = entry.path().unwrap().into_owned();
        let mut header = header;
        builder.append_data(&mut header, path, entry).unwrap();
    }
    for applet in [
        "sh", "cat", "echo", "sleep", "id", "ls", "mount", "touch", "true", "head", "grep", "kill", "ps", "hostname",
        "dd", "mknod", "stty", "env", "yes", "ping", "wc", "readlink", "tail", "test", "mkdir", "nc", "umount",
        "chroot", "unshare", "setsid", "seq", "tr", "od", "df", "ip",
    ] {
        link(&mut builder, &format!("bin/{applet}"), "busybox");
    }
    builder.into_inner().unwrap()
}

/// A `docker save` archive of one layer.
pub fn busybox_archive(name: &str) -> Vec<u8> {
    archive(name, &[busybox_layer()], serde_json::json!({"Cmd": ["sh"], "Env": ["FROM_IMAGE=yes"]}))
}

/// A `docker save` archive.
pub fn archive(name: &str, layers: &[Vec<u8>], run: serde_json::Value) -> Vec<u8> {
    use sha2::Digest;
    let digest = |bytes: &[u8]| sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", digest(l))).collect();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": architecture, "os": "linux", "config": run, "rootfs": {"type": "layers", "diff_ids": ids},
    }))
    .unwrap();
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]).to_string();
    let mut files: Vec<(&str, u32, &[u8])> = vec![("config.json", 0o644, config.as_slice())];
    files.extend(names.iter().zip(layers).map(|(name, layer)| (name.as_str(), 0o644, layer.as_slice())));
    files.push(("manifest.json", 0o644, manifest.as_bytes()));
    tar(&files)
}
