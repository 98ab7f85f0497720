//! From records to the messages of the CRI: lists, filters, status, events. Pure, but for emitting events.

use wire::cri;

use crate::monitor;
use crate::record::{ContainerRecord, SandboxPhase};
use crate::runtime::{Container, Runtime, Sandbox};

/// Whether an object's labels hold all that a filter asks for.
pub fn labels_match(
    labels: &std::collections::HashMap<String, String>,
    wanted: &std::collections::HashMap<String, String>,
) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// A sandbox as listed.
pub fn sandbox_item(sandbox: &Sandbox) -> cri::PodSandbox {
    sandbox.read(|r| {
        let config = r.config.clone().unwrap_or_default();
        cri::PodSandbox {
            id: sandbox.id.clone(),
            metadata: config.metadata,
            state: sandbox_state(r.phase()) as i32,
            created_at: r.created_at,
            labels: config.labels,
            annotations: config.annotations,
            runtime_handler: r.runtime_handler.clone(),
        }
    })
}

fn sandbox_state(phase: SandboxPhase) -> cri::PodSandboxState {
    if phase == SandboxPhase::Ready {
        cri::PodSandboxState::SandboxReady
    } else {
        cri::PodSandboxState::SandboxNotready
    }
}

/// A sandbox in full.
pub fn sandbox_status(sandbox: &Sandbox) -> cri::PodSandboxStatus {
    let item = sandbox_item(sandbox);
    sandbox.read(|r| {
        let mut ips = r.ips.iter().cloned();
        let options = crate::sandbox::namespace_modes(r.config.as_ref().unwrap_or(&Default::default()));
        let network = (item.state == cri::PodSandboxState::SandboxReady as i32).then(|| cri::PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
        });
        cri::PodSandboxStatus {
            id: item.id,
            metadata: item.metadata,
            state: item.state,
            created_at: item.created_at,
            network,
            linux: Some(cri::LinuxPodSandboxStatus { namespaces: Some(cri::Namespace { options: Some(options) }) }),
            labels: item.labels,
            annotations: item.annotations,
            runtime_handler: item.runtime_handler,
        }
    })
}

/// Whether a sandbox passes a filter.
pub fn sandbox_passes(sandbox: &cri::PodSandbox, filter: Option<&cri::PodSandboxFilter>) -> bool {
    filter.is_none_or(|f| {
        (f.id.is_empty() || sandbox.id.starts_with(&f.id))
            && f.state.as_ref().is_none_or(|s| s.state == sandbox.state)
            && labels_match(&sandbox.labels, &f.label_selector)
    })
}

/// A container as listed.
pub fn container_item(container: &Container) -> cri::Container {
    container.read(|r| {
        let config = r.config.clone().unwrap_or_default();
        cri::Container {
            id: container.id.clone(),
            pod_sandbox_id: r.sandbox_id.clone(),
            metadata: config.metadata,
            image: config.image,
            image_ref: r.image_ref.clone(),
            state: r.state,
            created_at: r.created_at,
            labels: config.labels,
            annotations: config.annotations,
            image_id: r.image_id.clone(),
        }
    })
}

/// Whether a container passes a filter.
pub fn container_passes(container: &cri::Container, filter: Option<&cri::ContainerFilter>) -> bool {
    filter.is_none_or(|f| {
        (f.id.is_empty() || container.id.starts_with(&f.id))
            && (f.pod_sandbox_id.is_empty() || container.pod_sandbox_id.starts_with(&f.pod_sandbox_id))
            && f.state.as_ref().is_none_or(|s| s.state == container.state)
            && labels_match(&container.labels, &f.label_selector)
    })
}

/// A container in full.
pub fn container_status(container: &Container) -> cri::ContainerStatus {
    container.read(|r| {
        let config = r.config.clone().unwrap_or_default();
        let linux = config.linux.clone().unwrap_or_default();
        cri::ContainerStatus {
            id: container.id.clone(),
            metadata: config.metadata.clone(),
            state: r.state,
            created_at: r.created_at,
            started_at: r.started_at,
            finished_at: r.finished_at,
            exit_code: r.exit_code,
            image: config.image.clone(),
            image_ref: r.image_ref.clone(),
            reason: r.reason.clone(),
            message: r.message.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: r.log_path.clone(),
            resources: Some(cri::ContainerResources { linux: linux.resources }),
            image_id: r.image_id.clone(),
            user: Some(cri::ContainerUser { linux: r.user.clone() }),
            stop_signal: stop_signal(&config, r),
        }
    })
}

/// The effective stop signal as the CRI's number; those that the CRI has no name for show as the default.
fn stop_signal(config: &cri::ContainerConfig, record: &ContainerRecord) -> i32 {
    if config.stop_signal() != cri::Signal::RuntimeDefault {
        return config.stop_signal;
    }
    use cri::Signal as S;
    let known = match record.stop_signal {
        1 => S::Sighup,
        2 => S::Sigint,
        3 => S::Sigquit,
        6 => S::Sigabrt,
        9 => S::Sigkill,
        10 => S::Sigusr1,
        12 => S::Sigusr2,
        15 => S::Sigterm,
        28 => S::Sigwinch,
        37 => S::Sigrtminplus3,
        _ => S::RuntimeDefault,
    };
    known as i32
}

impl Runtime {
    /// Tells listeners what happened to a container, with the state of its whole pod.
    pub(crate) fn emit(&self, container: &Container, kind: cri::ContainerEventType) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let sandbox = container.read(|r| r.sandbox_id.clone());
        self.send_event(&container.id, &sandbox, kind);
    }

    /// The same for a sandbox, which counts as a container of its own ID.
    pub(crate) fn emit_sandbox(&self, sandbox: &Sandbox, kind: cri::ContainerEventType) {
        if self.events.receiver_count() > 0 {
            self.send_event(&sandbox.id, &sandbox.id, kind);
        }
    }

    fn send_event(&self, id: &str, sandbox: &str, kind: cri::ContainerEventType) {
        let status = self.sandbox(sandbox).ok().map(|s| sandbox_status(&s));
        let event = cri::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: monitor::now(),
            containers_statuses: self.containers_of(sandbox).iter().map(|c| container_status(c)).collect(),
            pod_sandbox_status: status,
        };
        let _ = self.events.send(event);
    }
}
