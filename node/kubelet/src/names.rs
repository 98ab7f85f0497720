//! Words shared with upstream: the labels and annotations by which a kubelet finds its containers again in the runtime,
//! and the reasons that users read in statuses and Events.

use std::collections::HashMap;

/// Labels of sandboxes and containers.
pub mod label {
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
}

/// The UID that labels of the runtime name.
pub fn uid_of(labels: &HashMap<String, String>) -> Option<&str> {
    labels.get(label::POD_UID).map(String::as_str).filter(|u| !u.is_empty())
}

/// Annotations of containers.
pub mod annotation {
    pub const HASH: &str = "io.kubernetes.container.hash";
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// Set on containers of pods that go last when the node stops: of system-critical priority.
    pub const CRITICAL: &str = "ferrokube.io/critical";
    /// Which run of a kubelet made the container: what another one made and never started, nobody will start.
    pub const RUN: &str = "ferrokube.io/kubelet-run";

    // Of pods.
    pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
    pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
    pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
    pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
}

/// Reasons of Events and of waiting or terminated containers.
pub mod reason {
    pub const CREATED: &str = "Created";
    pub const STARTED: &str = "Started";
    pub const FAILED: &str = "Failed";
    pub const KILLING: &str = "Killing";
    pub const BACK_OFF: &str = "BackOff";
    pub const PULLING: &str = "Pulling";
    pub const PULLED: &str = "Pulled";
    pub const INSPECT_FAILED: &str = "InspectFailed";
    pub const NEVER_PULL: &str = "ErrImageNeverPull";
    pub const UNHEALTHY: &str = "Unhealthy";
    pub const PROBE_WARNING: &str = "ProbeWarning";
    pub const FAILED_MOUNT: &str = "FailedMount";
    pub const FAILED_SANDBOX: &str = "FailedCreatePodSandBox";
    pub const SANDBOX_CHANGED: &str = "SandboxChanged";
    pub const FAILED_POST_START: &str = "FailedPostStartHook";
    pub const FAILED_PRE_STOP: &str = "FailedPreStopHook";
    pub const FAILED_KILL: &str = "FailedKillPod";

    pub const CONTAINER_CREATING: &str = "ContainerCreating";
    pub const POD_INITIALIZING: &str = "PodInitializing";
    pub const CRASH_LOOP: &str = "CrashLoopBackOff";
    pub const ERR_IMAGE_PULL: &str = "ErrImagePull";
    pub const IMAGE_BACK_OFF: &str = "ImagePullBackOff";
    pub const INVALID_IMAGE_NAME: &str = "InvalidImageName";
    pub const CONFIG_ERROR: &str = "CreateContainerConfigError";
    pub const CREATE_ERROR: &str = "CreateContainerError";
    pub const RUN_ERROR: &str = "RunContainerError";
    pub const POST_START_ERROR: &str = "PostStartHookError";
    pub const COMPLETED: &str = "Completed";
    pub const ERROR: &str = "Error";
    pub const UNKNOWN_STATUS: &str = "ContainerStatusUnknown";
}
