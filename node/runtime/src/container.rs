//! Containers: create, start, stop, remove, change. Does I/O.
//!
//! Creating writes down what is wanted and makes the writable layer; starting forks a monitor, which builds the container
//! and stays. From then on a task of ours only waits for the monitor's end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use linux::cgroup::{DeviceRule, Group};
use linux::container::spec::CgroupView;
use linux::container::{DeviceNode, PidNamespace, Program, Rootfs};
use wire::cri::{self, ContainerState};

use crate::error::{Error, Result};
use crate::images::Image;
use crate::images::manifest::Config as ImageConfig;
use crate::images::passwd::{self, Accounts, Identity};
use crate::link;
use crate::monitor::protocol::{self, Exit, RunSpec};
use crate::record::{ContainerRecord, SandboxPhase};
use crate::runtime::{Container, Runtime, Sandbox, blocking, new_id};
use crate::spec::{self, Host, VolumeImage};

/// The exit code of a container that could not be started, and of one whose monitor was killed.
const START_ERROR: i32 = 128;
const LOST: i32 = 137;
/// After the kill signal, how long an end is awaited; only a process stuck in the kernel takes longer.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
const SIGKILL: i32 = 9;

impl Runtime {
    /// Creates a container in a sandbox; it doesn't run yet.
    pub async fn create_container(self: &Arc<Self>, sandbox_id: &str, config: cri::ContainerConfig) -> Result<String> {
        let sandbox = self.sandbox(sandbox_id)?;
        if sandbox.read(|r| r.phase() != SandboxPhase::Ready) {
            return Err(Error::State(format!("sandbox {sandbox_id:?} is not ready")));
        }
        let metadata = config.metadata.clone().unwrap_or_default();
        if metadata.name.is_empty() {
            return Err(Error::Invalid("the container's metadata lacks a name".into()));
        }
        let id = new_id();
        self.reserve(format!("container/{}/{}_{}", sandbox.id, metadata.name, metadata.attempt), &id)?;
        let made = {
            let (this, id) = (self.clone(), id.clone());
            blocking(move || this.make_container(id, &sandbox, config)).await.and_then(|made| made)
        };
        if made.is_err() {
            let _ = linux::root::remove_tree(self.container_dir(&id));
            self.release(&id);
        }
        let container = made?;
        self.emit(&container, cri::ContainerEventType::ContainerCreatedEvent);
        Ok(id)
    }

    fn make_container(&self, id: String, sandbox: &Sandbox, config: cri::ContainerConfig) -> Result<Arc<Container>> {
        let name = config.image.as_ref().map_or("", |i| i.image.as_str());
        let image = self.images.get(name)?;
        let image_config = self.images.config(&image.id)?;
        let layers = self.images.layer_dirs(&image)?;
        let security = spec::security(&config);
        let sandbox_config = sandbox.read(|r| r.config.clone()).unwrap_or_default();
        spec::refuse_unsupported(&security, &sandbox_config, spec::selinux_enabled()).map_err(Error::Invalid)?;
        spec::capabilities(&security, u64::MAX).map_err(Error::Invalid)?;
        spec::command_line(&config, &image_config.config).map_err(Error::Invalid)?;
        crate::seccomp::filter_for(&security, 0).map_err(Error::Invalid)?;
        let identity = self.identity(&layers, &security, &image_config)?;
        spec::check_non_root(&config, identity.uid).map_err(Error::State)?;
        let volume_layers = self.volume_images(&config)?.into_iter().flat_map(|v| v.layers).collect();
        let log = sandbox_config.log_directory.clone();
        let log_path = match (log.is_empty(), config.log_path.is_empty()) {
            (false, false) => Path::new(&log).join(&config.log_path).display().to_string(),
            _ => String::new(),
        };
        let record = ContainerRecord {
            sandbox_id: sandbox.id.clone(),
            image_id: image.id.clone(),
            image_ref: image_ref(&image),
            created_at: crate::monitor::now(),
            state: ContainerState::ContainerCreated as i32,
            user: Some(user_of(&identity)),
            layers,
            volume_layers,
            log_path,
            stop_signal: spec::stop_signal(&config, &image_config.config),
            cgroup: self.cgroup_path(&sandbox_config, &id),
            home: identity.home.clone(),
            config: Some(config),
            ..ContainerRecord::default()
        };
        let dir = self.container_dir(&id);
        for sub in ["upper", "work", "rootfs"] {
            let sub = dir.join(sub);
            std::fs::create_dir_all(&sub).map_err(Error::failed(format_args!("make {}", sub.display())))?;
        }
        crate::record::save(&dir, &record).map_err(Error::failed("save the container"))?;
        let container = Container::new(id.clone(), record);
        self.maps.lock().containers.insert(id, container.clone());
        Ok(container)
    }

    fn cgroup_path(&self, sandbox: &cri::PodSandboxConfig, id: &str) -> String {
        let parent = sandbox.linux.as_ref().map_or("", |l| l.cgroup_parent.as_str());
        let parent = if parent.is_empty() { self.config.cgroup_root.as_str() } else { parent };
        format!("{}/{id}", parent.trim_end_matches('/'))
    }

    /// Who runs: the pod's wish goes before the image's.
    fn identity(
        &self,
        layers: &[String],
        security: &cri::LinuxContainerSecurityContext,
        image: &ImageConfig,
    ) -> Result<Identity> {
        let dirs: Vec<_> = layers.iter().map(|l| self.images.layers_dir().join(l)).collect();
        let accounts = Accounts::of_layers(&dirs).map_err(Error::Invalid)?;
        let mut user = image.config.user.clone();
        if let Some(uid) = &security.run_as_user {
            user = uid.value.to_string();
        } else if !security.run_as_username.is_empty() {
            user = security.run_as_username.clone();
        }
        if let Some(gid) = &security.run_as_group {
            if security.run_as_user.is_none() && security.run_as_username.is_empty() {
                return Err(Error::Invalid("run_as_group needs run_as_user or run_as_username".into()));
            }
            user = format!("{}:{}", user.split(':').next().unwrap_or_default(), gid.value);
        }
        let mut identity = accounts.resolve(&user).map_err(Error::Invalid)?;
        if security.supplemental_groups_policy() == cri::SupplementalGroupsPolicy::Strict {
            identity.groups.clear();
        }
        identity.groups.insert(0, identity.gid);
        for group in &security.supplemental_groups {
            let id = passwd::id(*group).map_err(|e| Error::Invalid(format!("supplemental group {group}: {e}")))?;
            identity.groups.push(id);
        }
        let mut seen = std::collections::HashSet::new();
        identity.groups.retain(|g| seen.insert(*g));
        Ok(identity)
    }

    fn volume_images(&self, config: &cri::ContainerConfig) -> Result<Vec<VolumeImage>> {
        let wanted = config.mounts.iter().enumerate().filter_map(|(at, m)| m.image.as_ref().map(|i| (at, i)));
        let resolve = |(at, image): (usize, &cri::ImageSpec)| {
            let found = self.images.get(&image.image)?;
            Ok(VolumeImage { mount: at, layers: self.images.layer_dirs(&found)? })
        };
        wanted.map(resolve).collect()
    }

    /// Starts a created container. When it can't, the container counts as ended, with the reason in its status.
    pub async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let _busy = container.busy.lock().await;
        let state = container.read(ContainerRecord::state);
        if state != ContainerState::ContainerCreated {
            return Err(Error::State(format!("container {id:?} is in state {}", state.as_str_name())));
        }
        let sandbox = self.sandbox(&container.read(|r| r.sandbox_id.clone()))?;
        if sandbox.read(|r| r.phase() != SandboxPhase::Ready) || !self.sandbox_is_whole(&sandbox) {
            return Err(Error::State(format!("sandbox {:?} is not ready", sandbox.id)));
        }
        match self.launch(&container, &sandbox).await {
            Ok(()) => {
                self.emit(&container, cri::ContainerEventType::ContainerStartedEvent);
                Ok(())
            }
            Err(error) => {
                self.clean_up(&container).await;
                self.mark_ended(&container, START_ERROR, "StartError", &error.to_string(), crate::monitor::now());
                Err(error)
            }
        }
    }

    async fn launch(self: &Arc<Self>, container: &Arc<Container>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let (this, c, s) = (self.clone(), container.clone(), sandbox.clone());
        let run_spec = blocking(move || this.prepare(&c, &s)).await??;
        let program = serde_json::to_vec(&run_spec.container.program)
            .map_err(|e| Error::Failed(format!("write down the program: {e}")))?;
        // Taken before the order: a short program can be over before its monitor's answer is read.
        let started_at = crate::monitor::now();
        let control = self.zygote.order(protocol::RUN, &run_spec, &[])?;
        let started = control.started().await;
        let (pid, pid_started) =
            started.map_err(|e| Error::Failed(format!("failed to start container {:?}: {e}", container.id)))?;
        self.update_container(container, |r| {
            r.state = ContainerState::ContainerRunning as i32;
            r.started_at = started_at;
            (r.pid, r.pid_started, r.program) = (pid, pid_started, program);
        })?;
        self.watch(container.clone());
        Ok(())
    }

    /// The control group and the specification; everything that must exist before the fork.
    fn prepare(&self, container: &Container, sandbox: &Sandbox) -> Result<RunSpec> {
        let record = container.record();
        let config = record.config.clone().unwrap_or_default();
        let security = spec::security(&config);
        let group = self.cgroups.group(&record.cgroup);
        let devices = requested_devices(&config)?;
        self.make_group(&group, &config, &devices)?;
        let run_dir = self.container_run_dir(&container.id);
        std::fs::create_dir_all(&run_dir).map_err(Error::failed(format_args!("make {}", run_dir.display())))?;
        let dir = self.container_dir(&container.id);
        let target = self.target_pid(&security, &record.sandbox_id)?;
        let user = record.user.clone().unwrap_or_default();
        let input = spec::Input {
            config: &config,
            sandbox: &sandbox.read(|r| r.config.clone()).unwrap_or_default(),
            image: &self.images.config(&record.image_id)?.config,
            identity: &Identity {
                uid: user.uid as u32,
                gid: user.gid as u32,
                groups: user.supplemental_groups.iter().map(|g| *g as u32).collect(),
                home: record.home.clone(),
            },
            host: &host(security.privileged),
            rootfs: Rootfs {
                layers_dir: self.images.layers_dir(),
                lower: record.layers.clone(),
                upper: dir.join("upper"),
                work: dir.join("work"),
                target: dir.join("rootfs"),
                readonly: false,
            },
            namespaces: spec::namespaces(&security, &self.sandbox_run_dir(&record.sandbox_id), target),
            cgroup: self.cgroup_view(&group),
            pod_files: &self.pod_files(sandbox),
            volume_images: &self.volume_images(&config)?,
            seccomp: crate::seccomp::filter_for(
                &security,
                spec::capabilities(&security, linux::caps::available()).map_err(Error::Invalid)?.effective,
            )
            .map_err(Error::Invalid)?,
            devices: devices.into_iter().map(|(node, _)| node).collect(),
        };
        Ok(RunSpec {
            container: spec::spec(input).map_err(Error::Invalid)?,
            dir: run_dir,
            exit_file: dir.join("exit"),
            log: (!record.log_path.is_empty()).then(|| record.log_path.clone().into()),
            stdin: config.stdin,
            stdin_once: config.stdin_once,
        })
    }

    fn make_group(&self, group: &Group, config: &cri::ContainerConfig, devices: &[(DeviceNode, String)]) -> Result<()> {
        group.create()?;
        if spec::security(config).privileged {
            group.allow_devices(&[DeviceRule::everything()])?;
        } else {
            let mut rules = spec::default_device_rules();
            let rule = |(node, access): &(DeviceNode, String)| {
                DeviceRule::new(node.kind, Some(node.major), Some(node.minor), access)
            };
            rules.extend(devices.iter().map(rule));
            group.allow_devices(&rules)?;
        }
        let resources = config.linux.as_ref().and_then(|l| l.resources.clone()).unwrap_or_default();
        Ok(group.set(&spec::limits(&resources))?)
    }

    fn cgroup_view(&self, group: &Group) -> CgroupView {
        let options = |m: &linux::cgroup::V1Mount| {
            let named = m.controllers.iter().any(|c| c.starts_with("name="));
            let list = m.controllers.join(",");
            let dir = list.trim_start_matches("name=").to_owned();
            (dir, if named { format!("none,{list}") } else { list })
        };
        CgroupView {
            join: group.join_files(),
            v1: self.cgroups.v1.iter().map(options).collect(),
            v2: self.cgroups.is_v2(),
            writable: false,
            oom_file: group.oom_file(),
        }
    }

    /// For a container that joins the PIDs of another (kubectl debug --target).
    fn target_pid(&self, security: &cri::LinuxContainerSecurityContext, sandbox: &str) -> Result<Option<PidNamespace>> {
        let options = security.namespace_options.clone().unwrap_or_default();
        if options.pid() != cri::NamespaceMode::Target {
            return Ok(None);
        }
        let target = self.container(&options.target_id)?;
        if target.read(|r| r.sandbox_id != sandbox) {
            return Err(Error::Invalid(format!("target container {:?} is in another pod", options.target_id)));
        }
        if !target.is_running() {
            return Err(Error::State(format!("target container {:?} is not running", options.target_id)));
        }
        Ok(Some(target.read(|r| PidNamespace::Of { pid: r.pid, started: r.pid_started })))
    }

    /// Follows a running container to its end, on a task of its own.
    pub(crate) fn watch(self: &Arc<Self>, container: Arc<Container>) {
        let this = self.clone();
        tokio::spawn(async move {
            let dir = this.container_run_dir(&container.id);
            tokio::select! {
                () = link::wait_end(&dir) => this.settle_end(&container).await,
                () = this.closing.cancelled() => {}
            }
        });
    }

    /// After the monitor has gone: writes down how the container ended, or that its monitor was killed.
    pub(crate) async fn settle_end(self: &Arc<Self>, container: &Arc<Container>) {
        let exit = read_exit(&self.container_dir(&container.id).join("exit"));
        self.clean_up(container).await;
        match exit {
            Some(exit) => {
                let reason = match exit {
                    Exit { oom: true, code, .. } if code != 0 => "OOMKilled",
                    Exit { code: 0, .. } => "Completed",
                    _ => "Error",
                };
                self.mark_ended(container, exit.code, reason, "", exit.finished_at);
            }
            None => {
                let message = "the container's monitor process was killed, and the container with it";
                self.mark_ended(container, LOST, "Error", message, crate::monitor::now());
            }
        }
    }

    /// Kills what is left in its control group and removes the group and its run directory.
    async fn clean_up(self: &Arc<Self>, container: &Arc<Container>) {
        let group = self.cgroups.group(&container.read(|r| r.cgroup.clone()));
        let run_dir = self.container_run_dir(&container.id);
        let done = blocking(move || {
            if group.exists() {
                group.kill()?;
                group.remove()?;
            }
            let _ = linux::root::remove_tree(run_dir);
            Ok::<(), linux::failure::Failure>(())
        });
        if let Ok(Err(error)) = done.await {
            tracing::warn!(container = %container.id, %error, "a container left something behind");
        }
    }

    fn mark_ended(&self, container: &Container, code: i32, reason: &str, message: &str, at: i64) {
        let saved = self.update_container(container, |r| {
            r.state = ContainerState::ContainerExited as i32;
            (r.exit_code, r.finished_at, r.pid) = (code, at, 0);
            (r.reason, r.message) = (reason.to_owned(), message.to_owned());
        });
        if let Err(error) = saved {
            tracing::warn!(container = %container.id, %error, "the end of a container could not be saved");
        }
        container.ended.send_replace(true);
        self.emit(container, cri::ContainerEventType::ContainerStoppedEvent);
    }

    /// Asks a container to stop, and kills it after `timeout` seconds. Unknown and ended ones count as stopped.
    pub async fn stop_container(self: &Arc<Self>, id: &str, timeout: i64) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        if !container.is_running() {
            // One that is just being started must not slip through.
            let _busy = container.busy.lock().await;
            if container.read(ContainerRecord::state) == ContainerState::ContainerCreated {
                let now = crate::monitor::now();
                self.mark_ended(&container, LOST, "Error", "stopped before it was started", now);
                return Ok(());
            }
        }
        if !container.is_running() {
            return Ok(());
        }
        let mut ended = container.ended.subscribe();
        let dir = self.container_run_dir(&container.id);
        if timeout > 0 {
            link::signal(&dir, container.read(|r| r.stop_signal)).await;
            let grace = Duration::from_secs(timeout.unsigned_abs());
            if tokio::time::timeout(grace, ended.wait_for(|e| *e)).await.is_ok() {
                return Ok(());
            }
        }
        link::signal(&dir, SIGKILL).await;
        match tokio::time::timeout(KILL_PATIENCE, ended.wait_for(|e| *e)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Deadline(format!("container {id:?} was killed but does not end"))),
        }
    }

    /// Removes a container, killed if it runs. Unknown ones count as removed.
    pub async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        if container.is_running() {
            self.stop_container(&container.id, 0).await?;
        }
        let _busy = container.busy.lock().await;
        let dir = self.container_dir(&container.id);
        let group = self.cgroups.group(&container.read(|r| r.cgroup.clone()));
        let removed = blocking(move || {
            let _ = group.remove();
            linux::root::remove_tree(&dir)
        });
        removed.await?.map_err(Error::failed("remove the container"))?;
        self.maps.lock().containers.remove(&container.id);
        self.release(&container.id);
        self.emit(&container, cri::ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    /// Changes the limits of a container that may be running.
    pub async fn update_resources(&self, id: &str, wanted: cri::LinuxContainerResources) -> Result<()> {
        let container = self.container(id)?;
        let _busy = container.busy.lock().await;
        let state = container.read(ContainerRecord::state);
        if state == ContainerState::ContainerExited {
            return Err(Error::State(format!("container {id:?} has ended")));
        }
        if state == ContainerState::ContainerRunning {
            let group = self.cgroups.group(&container.read(|r| r.cgroup.clone()));
            let limits = spec::limits(&wanted);
            blocking(move || group.set(&limits)).await??;
        }
        self.update_container(&container, |r| {
            let linux = r.config.get_or_insert_default().linux.get_or_insert_default();
            merge(linux.resources.get_or_insert_default(), wanted);
        })
    }

    /// Goes on in a new log file, after the kubelet has moved the old one away.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        if !container.is_running() {
            return Err(Error::State(format!("container {id:?} is not running")));
        }
        if link::reopen(&self.container_run_dir(&container.id)).await {
            return Ok(());
        }
        Err(Error::Failed(format!("container {id:?}: its log can't be opened anew")))
    }

    /// What an exec in this container starts from.
    pub(crate) fn program_of(&self, container: &Container) -> Result<Program> {
        container.read(|r| serde_json::from_slice(&r.program)).map_err(|e| Error::Failed(format!("its record: {e}")))
    }
}

/// What is zero or empty in an update stays as it was.
fn merge(old: &mut cri::LinuxContainerResources, new: cri::LinuxContainerResources) {
    let number = |old: &mut i64, new: i64| *old = if new != 0 { new } else { *old };
    number(&mut old.cpu_period, new.cpu_period);
    number(&mut old.cpu_quota, new.cpu_quota);
    number(&mut old.cpu_shares, new.cpu_shares);
    number(&mut old.memory_limit_in_bytes, new.memory_limit_in_bytes);
    number(&mut old.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes);
    number(&mut old.oom_score_adj, new.oom_score_adj);
    for (old, new) in [(&mut old.cpuset_cpus, new.cpuset_cpus), (&mut old.cpuset_mems, new.cpuset_mems)] {
        if !new.is_empty() {
            *old = new;
        }
    }
    old.unified.extend(new.unified);
}

/// How an image is called to the outside: a digest name if it has one.
pub(crate) fn image_ref(image: &Image) -> String {
    image.digests.first().unwrap_or(&image.id).clone()
}

fn user_of(identity: &Identity) -> cri::LinuxContainerUser {
    cri::LinuxContainerUser {
        uid: i64::from(identity.uid),
        gid: i64::from(identity.gid),
        supplemental_groups: identity.groups.iter().map(|g| i64::from(*g)).collect(),
    }
}

/// How the monitor says that it ended. A file that is damaged counts as none, but is told: it is not the monitor's death.
fn read_exit(path: &Path) -> Option<Exit> {
    let text = std::fs::read(path).ok()?;
    let exit = serde_json::from_slice(&text);
    exit.inspect_err(|error| tracing::warn!(file = %path.display(), %error, "how a container ended can't be read")).ok()
}

fn host(privileged: bool) -> Host {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Host {
        capabilities: linux::caps::available(),
        open_files: limit.maximum.unwrap_or(u64::MAX),
        devices: if privileged { crate::devices::all() } else { Vec::new() },
    }
}

/// Devices that the kubelet passes, with the access that is allowed.
fn requested_devices(config: &cri::ContainerConfig) -> Result<Vec<(DeviceNode, String)>> {
    let mut nodes = Vec::new();
    for device in &config.devices {
        let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        if !access.chars().all(|c| "rwm".contains(c)) {
            return Err(Error::Invalid(format!("device permissions {access:?} are not of r, w, m")));
        }
        let found = crate::devices::at(Path::new(&device.host_path), &device.container_path)
            .map_err(|e| Error::Invalid(format!("device {:?}: {e}", device.host_path)))?;
        nodes.extend(found.into_iter().map(|node| (node, access.to_owned())));
    }
    Ok(nodes)
}
