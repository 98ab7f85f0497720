//! What a node holds against a pod: that it is short of something, and why a pod may not be here. Pure data. `admit`,
//! `eviction` and `storage_limits` judge, the worker ends the pod.

/// What the node is short of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pid: bool,
}

/// Why a pod ends, where the API does not say it itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
    /// Message of the condition `DisruptionTarget` that tells controllers of a pod that was not at fault.
    pub disruption: Option<String>,
}
