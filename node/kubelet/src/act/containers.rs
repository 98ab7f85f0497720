//! Containers: made, started, told to stop, removed; what they need of the host is prepared here. Does I/O.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use linux::root::Owner;
use tokio::time::Instant;
use wire::cri;

use super::{Context, Executor, ProbeCount, host_file, make_below};
use crate::act::hooks;
use crate::act::prober;
use crate::io::cri::{instance, is_not_found, shown};
use crate::names::reason;
use crate::node::qos;
use crate::pod::env::{self, Environment};
use crate::pod::hosts;
use crate::pod::make::{self, Prepared, bind};
use crate::pod::pods::{self, ContainerType};
use crate::pod::probe::{self, Kind, Outcome};
use crate::volumes::{HOSTS_FILE, TERMINATION_FILES, container_mounts};
use crate::worker::{Instance, StartError};

/// Upstream gives a container at least this long after its preStop hook.
const MIN_GRACE: i64 = 2;
/// The score that the kernel lets a process set without CAP_SYS_RESOURCE is no lower than its own.
const OWN_SCORE: &str = "/proc/self/oom_score_adj";

/// Upstream's mode of pods' log directories.
const LOG_DIR_MODE: u32 = 0o755;

fn config_error(message: String) -> StartError {
    StartError { reason: reason::CONFIG_ERROR, message }
}

/// The runtime's check of the user is a part of the container's configuration that only it can do.
fn create_reason(refusal: &tonic::Status) -> &'static str {
    if refusal.message().contains(wire::RUNS_AS_ROOT) { reason::CONFIG_ERROR } else { reason::CREATE_ERROR }
}

impl Executor {
    pub(super) async fn start_container(
        &self,
        context: &Context,
        name: &str,
        image: String,
        sandbox: &str,
        restarts: u32,
    ) -> Result<Instance, StartError> {
        let pod = &context.pod;
        let Some((container_type, container)) = pods::container(pod, name) else {
            return Err(config_error(format!("container {name} is not in the pod any more")));
        };
        let environment = self.environment(context, &container).await.map_err(config_error)?;
        let prepared = self.prepare(context, container_type, &container, image, environment).map_err(config_error)?;
        let config =
            make::container(pod, container_type, &container, restarts, prepared, &self.config).map_err(config_error)?;
        let sandbox_config = self.sandbox_config(pod, context.attempt, false).await.map_err(config_error)?;
        let logs = self.config.pod_log_dir(pods::namespace(pod), pods::name(pod), pods::uid(pod));
        let made = make_below(&logs).and_then(|dir| dir.make_dirs(name, LOG_DIR_MODE));
        made.map_err(|e| config_error(format!("create {}: {e}", logs.display())))?;
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let mut runtime = self.cri.runtime();
        let made = runtime.create_container(request).await;
        let made = made.map_err(|e| StartError { reason: create_reason(&e), message: e.message().to_owned() })?;
        let id = made.into_inner().container_id;
        let started = runtime.start_container(cri::StartContainerRequest { container_id: id.clone() }).await;
        if let Err(error) = started {
            self.remove_unstarted(&id).await;
            return Err(StartError { reason: reason::RUN_ERROR, message: error.message().to_owned() });
        }
        let status = self.cri.container_status(&id).await;
        let status = status.map_err(|e| StartError { reason: reason::RUN_ERROR, message: shown(&e) })?;
        Ok(Instance { sandbox: sandbox.to_owned(), ..instance(status) })
    }

    /// A container that never ran would look alive for ever.
    async fn remove_unstarted(&self, id: &str) {
        let created = cri::ContainerState::ContainerCreated as i32;
        if self.cri.container_status(id).await.is_ok_and(|s| s.state == created) {
            self.remove_container(id).await;
        }
    }

    async fn environment(&self, context: &Context, container: &Container) -> Result<Environment, String> {
        let pod = &context.pod;
        let (maps, secrets) = env::references(container);
        let sources = self.objects.sources(pods::uid(pod), pods::namespace(pod), maps, secrets).await?;
        self.services.synced().await;
        let mut services = self.services.list_in(pods::namespace(pod));
        services.extend(self.services.get_in("default", "kubernetes"));
        let made = env::environment(pod, container, &context.facts, &sources, &services)?;
        for text in &made.skipped {
            self.note(pod, Some(&container.name), true, "InvalidEnvironmentVariableNames", text);
        }
        Ok(made)
    }

    fn prepare(
        &self,
        context: &Context,
        container_type: ContainerType,
        container: &Container,
        image: String,
        environment: Environment,
    ) -> Result<Prepared, String> {
        let pod = &context.pod;
        let dir = self.config.pod_dir(pods::uid(pod));
        let uid = pods::uid(pod).to_owned();
        let images = |volume: &str| self.found.volume_images.lock().get(&(uid.clone(), volume.to_owned())).cloned();
        let mut mounts = container_mounts(pod, container, &environment, &dir, &images)?;
        let own_hosts = container.volume_mounts.iter().flatten().any(|m| m.mount_path == "/etc/hosts");
        if !own_hosts {
            let file = self.hosts_file(context).map_err(|e| format!("write the hosts file: {e}"))?;
            mounts.push(bind(&file, "/etc/hosts", false));
        }
        if let Some(path) = container.termination_message_path.as_deref().filter(|p| !p.is_empty()) {
            let file = self.termination_file(pod, container).map_err(|e| format!("make the termination file: {e}"))?;
            mounts.push(bind(&file, path, false));
        }
        let ephemeral = pods::spec(pod).ephemeral_containers.iter().flatten().find(|c| c.name == container.name);
        let target = ephemeral.and_then(|c| c.target_container_name.as_deref()).filter(|t| !t.is_empty());
        let target = match target.filter(|_| container_type == ContainerType::Ephemeral) {
            Some(name) => Some(
                context
                    .running
                    .get(name)
                    .cloned()
                    .ok_or(format!("unable to find target container \"{name}\": it is not running"))?,
            ),
            None => None,
        };
        let own_score = fs::read_to_string(OWN_SCORE).ok().and_then(|s| s.trim().parse().ok()).unwrap_or(0);
        Ok(Prepared {
            environment,
            mounts,
            image_user: self.found.image_users.lock().get(&image).cloned().unwrap_or_default(),
            image,
            target,
            node_memory: self.node_memory,
            unified: qos::container_files(self.cgroups.as_ref(), &self.config),
            lowest_oom_score: own_score,
        })
    }

    /// The pod's /etc/hosts, written anew for each container as upstream does: addresses are known by now.
    fn hosts_file(&self, context: &Context) -> std::io::Result<PathBuf> {
        let pod = &context.pod;
        let dir = self.config.pod_dir(pods::uid(pod));
        let aliases = pods::spec(pod).host_aliases.as_deref().unwrap_or(&[]);
        let text = if pods::host_network(pod) {
            let host = host_file(Path::new("/etc/hosts"))?;
            hosts::host_network_file(&host, aliases)
        } else {
            let (host, domain) = hosts::hostname(pod, &self.config.cluster_domain);
            hosts::hosts_file(&context.facts.pod_ips, &host, &domain, aliases)
        };
        // Containers of the pod have the file itself mounted: its inode stays.
        make_below(&dir)?.write(HOSTS_FILE, text.as_bytes(), 0o644)?;
        Ok(dir.join(HOSTS_FILE))
    }

    /// A new file for each instance, writable by whomever it runs as.
    fn termination_file(&self, pod: &Pod, container: &Container) -> std::io::Result<PathBuf> {
        let dir = Path::new(TERMINATION_FILES).join(&container.name);
        let name = format!("{:08x}", rand::random::<u32>());
        let pod_dir = self.config.pod_dir(pods::uid(pod));
        let at = make_below(&pod_dir)?.make_dirs(&dir, 0o750)?;
        at.write_new(&name, b"", 0o666, Owner::default())?;
        Ok(pod_dir.join(dir).join(name))
    }

    pub(super) async fn kill_container(
        &self,
        context: &Context,
        name: &str,
        id: &str,
        grace: i64,
        message: String,
        pre_stop: bool,
    ) -> Result<Option<Instance>, String> {
        let pod = &context.pod;
        let began = Instant::now();
        if pre_stop {
            self.note(pod, Some(name), false, reason::KILLING, &message);
        }
        let container = pods::container(pod, name).map(|(_, c)| c);
        let hook = container.as_ref().and_then(|c| c.lifecycle.as_ref()?.pre_stop.clone());
        if let (Some(hook), Some(container), true) = (hook, &container, pre_stop && grace > 0) {
            let limit = std::time::Duration::from_secs(grace as u64);
            let run = hooks::run(&self.cri, pod, container, &hook, id, &context.facts.pod_ips);
            if let Ok(Err(error)) = tokio::time::timeout(limit, run).await {
                tracing::debug!(error, pod = pods::shown(pod), "preStop hook failed");
                self.note(pod, Some(name), true, reason::FAILED_PRE_STOP, "PreStopHook failed");
            }
        }
        let timeout = (grace - began.elapsed().as_secs() as i64).max(MIN_GRACE);
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        match self.cri.runtime().stop_container(request).await {
            Ok(_) => {}
            Err(e) if is_not_found(&e) => {}
            Err(e) => return Err(shown(&e)),
        }
        match self.cri.instance(id).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if is_not_found(&e) => Ok(None),
            Err(e) => Err(shown(&e)),
        }
    }

    pub(super) async fn post_start(&self, context: &Context, name: &str, id: &str) -> Result<(), String> {
        let Some((_, container)) = pods::container(&context.pod, name) else { return Ok(()) };
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.clone()) else { return Ok(()) };
        hooks::run(&self.cri, &context.pod, &container, &hook, id, &context.facts.pod_ips).await
    }

    pub(super) async fn probe(&self, context: &Context, name: &str, id: &str, kind: Kind) -> Outcome {
        let Some((_, container)) = pods::container(&context.pod, name) else {
            return Outcome::Error("the container is not in the pod any more".into());
        };
        let Some(probe) = probe::of(&container, kind) else { return Outcome::Success };
        let ip = context.facts.pod_ips.first().map_or("127.0.0.1", String::as_str);
        let outcome = prober::run(&self.cri, &container, probe, id, ip).await;
        let count = ProbeCount {
            uid: pods::uid(&context.pod).to_owned(),
            container: name.to_owned(),
            namespace: pods::namespace(&context.pod).to_owned(),
            pod: pods::name(&context.pod).to_owned(),
            kind: kind.shown(),
            result: match &outcome {
                Outcome::Success | Outcome::Warning(_) => "successful",
                Outcome::Failure(_) => "failed",
                Outcome::Error(_) => "unknown",
            },
        };
        *self.found.probe_counts.lock().entry(count).or_default() += 1;
        outcome
    }

    pub(super) async fn remove_container(&self, id: &str) {
        let status = self.cri.container_status(id).await;
        let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
        match self.cri.runtime().remove_container(request).await {
            Ok(_) => {
                let log = status.iter().map(|s| std::path::Path::new(&s.log_path)).find(|p| p.is_absolute());
                if let Some(Err(error)) = log.map(crate::io::logs::remove) {
                    tracing::debug!(%error, id, "log not removed");
                }
            }
            Err(e) if is_not_found(&e) => {}
            Err(e) => tracing::debug!(error = shown(&e), id, "container not removed"),
        }
    }
}
