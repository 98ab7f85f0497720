//! Sandboxes and what a pod has beside its containers: cgroup, log directory, network by the runtime. Does I/O.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use linux::root::Beneath;
use wire::cri;

use super::Executor;
use crate::io::cri::{is_not_found, sandbox, shown};
use crate::node::qos;
use crate::pod::hosts;
use crate::pod::make;
use crate::pod::pods;
use crate::pod::resources;
use crate::worker::SandboxRecord;

impl Executor {
    pub(super) async fn create_sandbox(&self, pod: &Pod, attempt: u32) -> Result<SandboxRecord, String> {
        let config = self.sandbox_config(pod, attempt, true).await?;
        let runtime_handler = self.runtime_handler(pod).await?;
        self.make_cgroup(pod)?;
        let logs = std::path::PathBuf::from(&config.log_directory);
        super::make_below(&logs).map_err(|e| format!("create {}: {e}", logs.display()))?;
        if attempt > 0 {
            self.remove_sandboxes(pods::uid(pod)).await?;
        }
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler };
        let answer = self.cri.runtime().run_pod_sandbox(request).await.map_err(|e| shown(&e))?;
        let id = answer.into_inner().pod_sandbox_id;
        let status = self.cri.sandbox_status(&id).await.map_err(|e| shown(&e))?;
        Ok(sandbox(&status))
    }

    /// The sandbox configuration; containers are created with the same one. `tell`: users hear of DNS limits.
    pub(super) async fn sandbox_config(
        &self,
        pod: &Pod,
        attempt: u32,
        tell: bool,
    ) -> Result<cri::PodSandboxConfig, String> {
        let read = |path: &Path| super::host_file(path).map_err(|e| format!("read the resolver's settings: {e}"));
        let text = read(&self.config.resolv_conf)?;
        let host = hosts::host_dns(&text, &read(Path::new(linux::resolved::FILE))?);
        let (dns, notes) = hosts::dns(pod, &host, &self.config.cluster_dns, &self.config.cluster_domain);
        if tell {
            for note in notes {
                let reason = if note.starts_with("pod:") { "MissingClusterDNS" } else { "DNSConfigForming" };
                self.note(pod, None, true, reason, &note);
            }
        }
        make::sandbox(pod, attempt, dns, &self.config)
    }

    async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let Some(name) = pods::spec(pod).runtime_class_name.as_deref().filter(|n| !n.is_empty()) else {
            return Ok(String::new());
        };
        let classes: Api<RuntimeClass> = Api::all(self.client.clone());
        let found = classes.get_opt(name).await.map_err(|e| crate::api::message(&e))?;
        found.map(|c| c.handler).ok_or(format!("failed to get RuntimeClass \"{name}\": it does not exist"))
    }

    fn make_cgroup(&self, pod: &Pod) -> Result<(), String> {
        let (Some(cgroups), true) = (&self.cgroups, self.config.cgroups_per_qos) else { return Ok(()) };
        let group = cgroups.group(&make::cgroup_parent(pod, &self.config));
        group.create().map_err(|e| e.to_string())?;
        let wanted = resources::pod_limits(pod, make::period(&self.config));
        group
            .set(&group_limits(wanted, self.config.cpu_cfs_quota, self.config.pod_pids_limit))
            .map_err(|e| e.to_string())
    }

    /// Stopping what is gone already is done.
    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), String> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        match self.cri.runtime().stop_pod_sandbox(request).await {
            Ok(_) => Ok(()),
            Err(e) if is_not_found(&e) => Ok(()),
            Err(e) => Err(shown(&e)),
        }
    }

    async fn remove_sandboxes(&self, uid: &str) -> Result<(), String> {
        for old in self.cri.sandboxes(Some(uid)).await.map_err(|e| shown(&e))? {
            self.stop_sandbox(&old.id).await?;
            let request = cri::RemovePodSandboxRequest { pod_sandbox_id: old.id };
            match self.cri.runtime().remove_pod_sandbox(request).await {
                Ok(_) => {}
                Err(e) if is_not_found(&e) => {}
                Err(e) => return Err(shown(&e)),
            }
        }
        Ok(())
    }

    pub(super) async fn tear_down(&self, pod: &Pod) -> Result<(), String> {
        self.volumes.tear_down(pods::uid(pod)).await?;
        self.found.volume_images.lock().retain(|(uid, _), _| uid != pods::uid(pod));
        if let (Some(cgroups), true) = (&self.cgroups, self.config.cgroups_per_qos) {
            let group = cgroups.group(&make::cgroup_parent(pod, &self.config));
            let gone = tokio::task::spawn_blocking(move || group.kill().and_then(|()| group.remove())).await;
            gone.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    pub(super) async fn remove_pod(&self, pod: &Pod) -> Result<(), String> {
        self.remove_sandboxes(pods::uid(pod)).await?;
        let logs = self.config.pod_log_dir(pods::namespace(pod), pods::name(pod), pods::uid(pod));
        let gone = Beneath::open(&self.config.pod_logs_dir)
            .and_then(|all| logs.file_name().map_or(Ok(()), |name| all.remove_tree(name)));
        gone.map_err(|e| format!("remove {}: {e}", logs.display()))
    }

    /// Whatever a pod that nobody knows any more left on the node.
    pub async fn remove_orphan(&self, uid: &str) -> Result<(), String> {
        self.remove_sandboxes(uid).await?;
        self.volumes.tear_down(uid).await?;
        let Some(cgroups) = &self.cgroups else { return Ok(()) };
        for class in ["", "/burstable", "/besteffort"] {
            let group = qos::group(cgroups, &self.config, &format!("kubepods{class}/pod{uid}"));
            if group.exists() {
                let gone = tokio::task::spawn_blocking(move || group.kill().and_then(|()| group.remove())).await;
                gone.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }
}

/// Limits of a pod's or QoS class's cgroup.
pub(super) fn group_limits(wanted: resources::Limits, quota: bool, pids: i64) -> linux::cgroup::Limits {
    linux::cgroup::Limits {
        cpu_shares: u64::try_from(wanted.cpu_shares).ok(),
        cpu_quota: wanted.cpu_quota.filter(|_| quota),
        cpu_period: wanted.cpu_quota.filter(|_| quota).and(u64::try_from(wanted.cpu_period).ok()),
        memory: wanted.memory,
        pids: (pids > 0).then_some(pids),
        ..linux::cgroup::Limits::default()
    }
}
