//! Questions that everyone asks of a Pod: who it is, which containers it has and of which type, how they restart.
//! Pure reads of the typed object.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, ObjectReference, Pod, PodSpec};

use crate::names::annotation;

pub use facts::pods::{is_terminal_phase, phase};

/// Upstream's `terminationGracePeriodSeconds` when a pod says none.
pub const DEFAULT_GRACE: i64 = 30;

/// The type of a container decides its order and its restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerType {
    /// Runs to its end before the next one.
    Init,
    /// An init container that restarts always: it stays beside the regular ones.
    Sidecar,
    Regular,
    Ephemeral,
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or("")
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or("")
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// `name_namespace(uid)`, as upstream writes pods into messages.
pub fn shown(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
    pod.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodSpec::default))
}

pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// From a file or URL, not from the API.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, annotation::CONFIG_SOURCE).is_some_and(|s| s != "api")
}

/// The API's image of a static pod.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, annotation::CONFIG_MIRROR).is_some()
}

pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || is_mirror(pod) || spec(pod).priority.unwrap_or(0) >= 2_000_000_000
}

pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or(&[])
}

pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Every container in the order of the spec: init ones, regular ones, ephemeral ones.
pub fn containers(pod: &Pod) -> Vec<(ContainerType, Container)> {
    let init = init_containers(pod)
        .iter()
        .map(|c| (if is_sidecar(c) { ContainerType::Sidecar } else { ContainerType::Init }, c.clone()));
    let regular = spec(pod).containers.iter().map(|c| (ContainerType::Regular, c.clone()));
    let ephemeral = spec(pod).ephemeral_containers.iter().flatten().map(|c| (ContainerType::Ephemeral, plain(c)));
    init.chain(regular).chain(ephemeral).collect()
}

/// The container of this name, of whatever type.
pub fn container(pod: &Pod, name: &str) -> Option<(ContainerType, Container)> {
    containers(pod).into_iter().find(|(_, c)| c.name == name)
}

fn plain(c: &EphemeralContainer) -> Container {
    Container {
        args: c.args.clone(),
        command: c.command.clone(),
        env: c.env.clone(),
        env_from: c.env_from.clone(),
        image: c.image.clone(),
        image_pull_policy: c.image_pull_policy.clone(),
        name: c.name.clone(),
        security_context: c.security_context.clone(),
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path.clone(),
        termination_message_policy: c.termination_message_policy.clone(),
        tty: c.tty,
        volume_mounts: c.volume_mounts.clone(),
        working_dir: c.working_dir.clone(),
        resources: c.resources.clone(),
        ..Container::default()
    }
}

/// Whether a container that ended with `exit_code` is started again.
pub fn should_restart(pod: &Pod, container_type: ContainerType, container: &Container, exit_code: i32) -> bool {
    match container_type {
        ContainerType::Ephemeral => false,
        ContainerType::Sidecar => true,
        // One that ended well is done under every policy.
        ContainerType::Init => exit_code != 0 && policy_restarts(pod, container, exit_code),
        ContainerType::Regular => policy_restarts(pod, container, exit_code),
    }
}

/// What its own rules, its own policy and the pod's policy, in this order, say of a container that ended.
pub fn policy_restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    let ruled = container.restart_policy_rules.iter().flatten().any(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
        let matches = if codes.operator == "NotIn" { !listed } else { listed };
        matches && rule.action.starts_with("Restart")
    });
    ruled
        || match container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod)) {
            "Never" => false,
            "OnFailure" => exit_code != 0,
            _ => true,
        }
}

/// Where an Event about a container of the pod points to.
pub fn container_reference(pod: &Pod, name: &str) -> ObjectReference {
    let field = match container(pod, name) {
        Some((ContainerType::Init | ContainerType::Sidecar, _)) => "initContainers",
        Some((ContainerType::Ephemeral, _)) => "ephemeralContainers",
        _ => "containers",
    };
    ObjectReference { field_path: Some(format!("spec.{field}{{{name}}}")), ..client::reference(pod) }
}

/// Seconds that a pod has to end: what the deletion says, else the spec.
pub fn grace(pod: &Pod) -> i64 {
    let wanted = pod.metadata.deletion_grace_period_seconds.filter(|_| pod.metadata.deletion_timestamp.is_some());
    wanted.or(spec(pod).termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE).max(0)
}
