//! Pod sandboxes: namespaces that are held by files, the pod's network and its files under /etc. Does I/O.
//!
//! Nothing runs for a sandbox, unless its containers share PIDs: then one process that takes away orphans.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use linux::failure::{Doing, Failure};
use linux::mount::Attributes;
use linux::namespaces::{self, Kind};
use pod_network::{PodNet, PortMapping, Protocol};
use wire::cri::{self, NamespaceMode};

use crate::error::{Error, Result};
use crate::monitor::protocol::{self, PodSpec};
use crate::record::{SandboxPhase, SandboxRecord};
use crate::runtime::{Runtime, Sandbox, blocking, new_id};
use crate::spec::PodFiles;

/// The files that a pod's containers see below /etc, in its sandbox's directory.
const POD_FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];
/// Shared memory of a pod, as container runtimes give it.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

impl Runtime {
    /// Makes a sandbox ready to take containers.
    pub async fn run_sandbox(self: &Arc<Self>, config: cri::PodSandboxConfig, handler: String) -> Result<String> {
        check(&config, &handler)?;
        let id = new_id();
        self.reserve(sandbox_name(&config), &id)?;
        let record = SandboxRecord {
            config: Some(config),
            created_at: crate::monitor::now(),
            runtime_handler: handler,
            ips: Vec::new(),
            phase: SandboxPhase::Making as i32,
        };
        let sandbox = Sandbox::new(id.clone(), record.clone());
        let made = self.make_sandbox(&sandbox, &record).await;
        if made.is_err() {
            let _ = self.tear_down(&sandbox).await;
            self.forget_sandbox(&id);
            made?;
        }
        self.maps.lock().sandboxes.insert(id.clone(), sandbox.clone());
        self.emit_sandbox(&sandbox, cri::ContainerEventType::ContainerCreatedEvent);
        self.emit_sandbox(&sandbox, cri::ContainerEventType::ContainerStartedEvent);
        Ok(id)
    }

    async fn make_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>, record: &SandboxRecord) -> Result<()> {
        let dirs = [self.sandbox_dir(&sandbox.id), self.sandbox_run_dir(&sandbox.id)];
        for dir in &dirs {
            std::fs::create_dir_all(dir).map_err(Error::failed(format_args!("make {}", dir.display())))?;
        }
        // On disk before anything else, so that a crash leaves nothing without an owner.
        self.update_sandbox(sandbox, |_| {})?;
        let config = record.config.clone().unwrap_or_default();
        let run_dir = self.sandbox_run_dir(&sandbox.id);
        let made = {
            let (config, run_dir, files) = (config.clone(), run_dir.clone(), self.sandbox_dir(&sandbox.id));
            blocking(move || furnish(&config, &run_dir).and_then(|()| write_files(&config, &files))).await?
        };
        made?;
        if namespace_modes(&config).pid() == NamespaceMode::Pod {
            self.start_pod_process(&config, &run_dir).await?;
        }
        let mut ips = Vec::new();
        if namespace_modes(&config).network() != NamespaceMode::Node {
            let (network, pod) = (self.network.clone(), pod_net(&sandbox.id, &config, &run_dir)?);
            let added = blocking(move || network.add(&pod)).await?;
            ips = added.map_err(|e| Error::Failed(format!("set up the pod's network: {e}")))?;
        }
        self.update_sandbox(sandbox, |r| {
            r.ips = ips.iter().map(IpAddr::to_string).collect();
            r.phase = SandboxPhase::Ready as i32;
        })
    }

    async fn start_pod_process(&self, config: &cri::PodSandboxConfig, run_dir: &Path) -> Result<()> {
        let join = kinds(config).into_iter().map(|k| k.name().to_owned()).collect();
        let spec = PodSpec { dir: run_dir.to_owned(), join };
        let control = self.zygote.order(protocol::POD, &spec, &[])?;
        let started = control.started().await;
        started.map(drop).map_err(|e| Error::Failed(format!("start the pod's first process: {e}")))
    }

    /// Ends all containers of a sandbox and gives its network back. Unknown sandboxes count as stopped.
    pub async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _busy = sandbox.busy.lock().await;
        self.stop_sandbox_locked(&sandbox).await
    }

    async fn stop_sandbox_locked(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let stops =
            self.containers_of(&sandbox.id).into_iter().map(|c| async move { self.stop_container(&c.id, 0).await });
        for stopped in futures::future::join_all(stops).await {
            stopped?;
        }
        self.tear_down(sandbox).await?;
        if sandbox.read(|r| r.phase() != SandboxPhase::Stopped) {
            self.update_sandbox(sandbox, |r| r.phase = SandboxPhase::Stopped as i32)?;
            self.emit_sandbox(sandbox, cri::ContainerEventType::ContainerStoppedEvent);
        }
        Ok(())
    }

    /// Undoes what making it did, in reverse; each step is idempotent.
    pub(crate) async fn tear_down(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let config = sandbox.read(|r| r.config.clone()).unwrap_or_default();
        let run_dir = self.sandbox_run_dir(&sandbox.id);
        let network = self.network.clone();
        let pod = pod_net(&sandbox.id, &config, &run_dir)?;
        let own_network = namespace_modes(&config).network() != NamespaceMode::Node;
        blocking(move || {
            if own_network {
                network.del(&pod).map_err(|e| Error::Failed(format!("take down the pod's network: {e}")))?;
            }
            clear(&run_dir).map_err(Error::from)
        })
        .await?
    }

    /// Removes a sandbox and all its containers. Unknown sandboxes count as removed.
    pub async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _busy = sandbox.busy.lock().await;
        self.stop_sandbox_locked(&sandbox).await?;
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container.id).await?;
        }
        self.forget_sandbox(&sandbox.id);
        self.emit_sandbox(&sandbox, cri::ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    fn forget_sandbox(&self, id: &str) {
        self.maps.lock().sandboxes.remove(id);
        let _ = linux::root::remove_tree(self.sandbox_run_dir(id));
        let _ = linux::root::remove_tree(self.sandbox_dir(id));
        self.release(id);
    }

    /// Whether its namespaces are there (not after a reboot).
    pub fn sandbox_is_whole(&self, sandbox: &Sandbox) -> bool {
        let config = sandbox.read(|r| r.config.clone()).unwrap_or_default();
        let dir = self.sandbox_run_dir(&sandbox.id);
        let shared_pids = namespace_modes(&config).pid() == NamespaceMode::Pod;
        let alive = !shared_pids
            || (crate::monitor::read_pid_file(&dir.join("init.pid")).is_some()
                && namespaces::is_proc(&dir.join(namespaces::PROC)));
        dir.is_dir() && alive && kinds(&config).iter().all(|k| namespaces::is_pinned(&dir.join(k.name())))
    }

    /// The files of a pod that its containers see.
    pub(crate) fn pod_files(&self, sandbox: &Sandbox) -> PodFiles {
        // Pods of earlier versions have all of them in the second place.
        let dirs = [self.sandbox_dir(&sandbox.id), self.sandbox_run_dir(&sandbox.id)];
        let there = |name: &str| dirs.iter().map(|dir| dir.join(name)).find(|path| path.exists());
        let config = sandbox.read(|r| r.config.clone()).unwrap_or_default();
        let shm = if namespace_modes(&config).ipc() == NamespaceMode::Node {
            Some("/dev/shm".into()).filter(|p: &std::path::PathBuf| p.exists())
        } else {
            there("shm")
        };
        PodFiles { hostname: there("hostname"), hosts: there("hosts"), resolv_conf: there("resolv.conf"), shm }
    }
}

/// Bytes and inodes of a sandbox's files that containers can write to. They may grow as long as the disk lasts, so they
/// lie on it, not in memory, and are told to the kubelet as the pod's (CVE-2020-8557).
pub(crate) fn files_usage(sandbox_dir: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let sizes = POD_FILES.iter().filter_map(|name| std::fs::symlink_metadata(sandbox_dir.join(name)).ok());
    sizes.fold((0, 0), |sum, meta| (sum.0 + meta.blocks() * 512, sum.1 + 1))
}

/// The unique name of a sandbox: a second attempt of the same pod is another one.
pub(crate) fn sandbox_name(config: &cri::PodSandboxConfig) -> String {
    let m = config.metadata.clone().unwrap_or_default();
    format!("pod/{}_{}_{}_{}", m.name, m.namespace, m.uid, m.attempt)
}

/// The pod's choice of namespaces.
pub(crate) fn namespace_modes(config: &cri::PodSandboxConfig) -> cri::NamespaceOption {
    let security = config.linux.as_ref().and_then(|l| l.security_context.as_ref());
    security.and_then(|s| s.namespace_options.clone()).unwrap_or_default()
}

fn check(config: &cri::PodSandboxConfig, handler: &str) -> Result<()> {
    if config.metadata.as_ref().is_none_or(|m| m.name.is_empty() || m.uid.is_empty()) {
        return Err(Error::Invalid("the sandbox's metadata lacks name or uid".into()));
    }
    if !handler.is_empty() && handler != "runc" && handler != "ferrokube" {
        return Err(Error::Invalid(format!("no runtime handler {handler:?} is configured; there is only the default")));
    }
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let container = cri::LinuxContainerSecurityContext {
        namespace_options: security.namespace_options,
        selinux_options: security.selinux_options,
        ..Default::default()
    };
    crate::spec::refuse_unsupported(&container, &cri::PodSandboxConfig::default(), crate::spec::selinux_enabled())
        .map_err(Error::Invalid)?;
    let modes = namespace_modes(config);
    linux.sysctls.keys().try_for_each(|name| check_sysctl(name, &modes)).map_err(Error::Invalid)
}

/// Only settings that belong to one of the pod's own namespaces may be changed.
fn check_sysctl(name: &str, modes: &cri::NamespaceOption) -> std::result::Result<(), String> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let dotted = name.replace('/', ".");
    let (mode, what) = match dotted.as_str() {
        n if IPC.contains(&n) || n.starts_with("fs.mqueue.") => (modes.ipc(), "IPC"),
        n if n.starts_with("net.") => (modes.network(), "network"),
        _ => return Err(format!("sysctl {name:?} is not namespaced")),
    };
    if mode == NamespaceMode::Node {
        return Err(format!("sysctl {name:?} is not allowed: the pod uses the host's {what} namespace"));
    }
    Ok(())
}

/// The namespaces that a pod has for itself.
fn kinds(config: &cri::PodSandboxConfig) -> Vec<Kind> {
    let modes = namespace_modes(config);
    let mut kinds = Vec::new();
    if modes.network() != NamespaceMode::Node {
        kinds.extend([Kind::Net, Kind::Uts]);
    }
    if modes.ipc() != NamespaceMode::Node {
        kinds.push(Kind::Ipc);
    }
    kinds
}

fn furnish(config: &cri::PodSandboxConfig, run_dir: &Path) -> std::result::Result<(), Failure> {
    let kinds = kinds(config);
    if !kinds.is_empty() {
        namespaces::pin(run_dir, &kinds, || set_up_inside(config, &kinds))?;
    }
    if kinds.contains(&Kind::Ipc) {
        let shm = run_dir.join("shm");
        std::fs::create_dir_all(&shm).doing("make the pod's shared memory")?;
        let attributes = Attributes { nosuid: true, nodev: true, noexec: true, ..Attributes::default() };
        linux::mount::mount("tmpfs", &shm, SHM_OPTIONS, attributes).doing("mount the pod's shared memory")?;
    }
    Ok(())
}

/// On a thread inside the new namespaces: host name and settings.
fn set_up_inside(config: &cri::PodSandboxConfig, kinds: &[Kind]) -> std::result::Result<(), Failure> {
    if kinds.contains(&Kind::Uts) && !config.hostname.is_empty() {
        rustix::system::sethostname(config.hostname.as_bytes()).doing("set the pod's host name")?;
    }
    let set = |name: &str, value: &str| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::write(path, value).doing(format_args!("set sysctl {name} to {value:?}"))
    };
    if kinds.contains(&Kind::Net) {
        // Programs without privileges may use low ports and ping, as with other runtimes: the pod is alone here.
        let _ = set("net.ipv4.ip_unprivileged_port_start", "0");
        let _ = set("net.ipv4.ping_group_range", "0 2147483647");
    }
    let linux = config.linux.clone().unwrap_or_default();
    linux.sysctls.iter().try_for_each(|(name, value)| set(&name.replace('/', "."), value))
}

fn write_files(config: &cri::PodSandboxConfig, dir: &Path) -> std::result::Result<(), Failure> {
    let [hostname_file, hosts_file, resolv_file] = POD_FILES;
    let write = |name: &str, text: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, text).doing(format_args!("write {}", path.display()))
    };
    let hostname = if config.hostname.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        config.hostname.clone()
    };
    write(hostname_file, format!("{hostname}\n").as_bytes())?;
    write(hosts_file, &std::fs::read("/etc/hosts").unwrap_or_default())?;
    let resolv = match &config.dns_config {
        Some(dns) if *dns != cri::DnsConfig::default() => resolv_conf(dns).into_bytes(),
        _ => std::fs::read("/etc/resolv.conf").unwrap_or_default(),
    };
    write(resolv_file, &resolv)
}

fn resolv_conf(dns: &cri::DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    dns.servers.iter().for_each(|server| text += &format!("nameserver {server}\n"));
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

/// Ends the pod's process, lets go of namespaces and shared memory. The files stay until the sandbox is removed.
fn clear(run_dir: &Path) -> std::result::Result<(), Failure> {
    if let Some((pid, _)) = crate::monitor::read_pid_file(&run_dir.join("init.pid")) {
        linux::process::kill(pid, rustix::process::Signal::KILL.as_raw()).doing("end the pod's first process")?;
    }
    let _ = std::fs::remove_file(run_dir.join("init.pid"));
    for kind in [Kind::Pid, Kind::Net, Kind::Ipc, Kind::Uts] {
        namespaces::unpin(&run_dir.join(kind.name())).doing(format_args!("release the {} namespace", kind.name()))?;
    }
    linux::mount::detach(run_dir.join(namespaces::PROC)).doing("unmount the pod's /proc")?;
    linux::mount::detach(run_dir.join("shm")).doing("unmount the pod's shared memory")
}

fn pod_net(id: &str, config: &cri::PodSandboxConfig, run_dir: &Path) -> Result<PodNet> {
    let m = config.metadata.clone().unwrap_or_default();
    let ports: Result<Vec<Option<PortMapping>>> = config.port_mappings.iter().map(host_port).collect();
    Ok(PodNet {
        id: id.to_owned(),
        namespace: m.namespace,
        name: m.name,
        uid: m.uid,
        netns: run_dir.join("net"),
        ports: ports?.into_iter().flatten().collect(),
    })
}

fn host_port(mapping: &cri::PortMapping) -> Result<Option<PortMapping>> {
    if mapping.host_port <= 0 {
        return Ok(None);
    }
    let port = |p: i32| u16::try_from(p).map_err(|_| Error::Invalid(format!("port {p} is out of range")));
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        ip => Some(ip.parse().map_err(|_| Error::Invalid(format!("host IP {ip:?} of a port mapping")))?),
    };
    let protocol = match mapping.protocol() {
        cri::Protocol::Tcp => Protocol::Tcp,
        cri::Protocol::Udp => Protocol::Udp,
        cri::Protocol::Sctp => Protocol::Sctp,
    };
    Ok(Some(PortMapping {
        protocol,
        host_ip,
        host_port: port(mapping.host_port)?,
        container_port: port(mapping.container_port)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaced_settings_of_own_namespaces() {
        let own = cri::NamespaceOption::default();
        assert_eq!(check_sysctl("net.ipv4.ip_local_port_range", &own), Ok(()));
        assert_eq!(check_sysctl("kernel.shm_rmid_forced", &own), Ok(()));
        assert!(check_sysctl("kernel.panic", &own).unwrap_err().contains("not namespaced"));
        let mut host = cri::NamespaceOption::default();
        host.set_network(NamespaceMode::Node);
        assert!(check_sysctl("net.core.somaxconn", &host).unwrap_err().contains("host's network"));
    }

    #[test]
    fn resolv_conf_of_a_pod() {
        let dns = cri::DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        let text = "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns), text);
    }
}
