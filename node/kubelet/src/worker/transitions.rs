//! What a container's status may become. The API refuses a status that shows a container as not terminated which by its
//! policy never runs again; one such word and it takes nothing of the pod, its new address neither. When a sandbox is
//! replaced such containers may run once more (init containers under `OnFailure`): they are told as they ended until they
//! end again. `status` asks. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::slot::Slot;
use crate::pod::pods::{self, ContainerType};

/// `fresh`, or what the API knows where it would refuse that.
pub fn told(pod: &Pod, slot: &Slot, known: Option<&[ContainerStatus]>, fresh: ContainerStatus) -> ContainerStatus {
    let known = known.unwrap_or(&[]).iter().find(|s| s.name == fresh.name);
    match known {
        Some(known) if exit_code(&fresh).is_none() && exit_code(known).is_some_and(|c| !may_run(pod, slot, c)) => {
            known.clone()
        }
        _ => fresh,
    }
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// The API server's rule.
pub(crate) fn may_run(pod: &Pod, slot: &Slot, code: i32) -> bool {
    slot.container_type != ContainerType::Ephemeral
        && (restarts_all(pod) || pods::policy_restarts(pod, &slot.container, code))
}

fn restarts_all(pod: &Pod) -> bool {
    let containers = pods::init_containers(pod).iter().chain(&pods::spec(pod).containers);
    let mut rules = containers.flat_map(|c| c.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == "RestartAllContainers")
}
