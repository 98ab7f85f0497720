//! What can go wrong with a kubelet as a whole. What goes wrong with one pod is shown in that pod's status and Events.

/// Why the kubelet could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("container runtime {endpoint}: {message}")]
    Runtime { endpoint: String, message: String },
    #[error("{what} {path}: {source}")]
    File { what: &'static str, path: String, source: std::io::Error },
    #[error("listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("TLS of the kubelet's API: {0}")]
    Tls(String),
    #[error(transparent)]
    Cgroup(#[from] linux::failure::Failure),
    #[error("the kernel is not set as Kubernetes wants it (protectKernelDefaults): [{}]", .0.join(", "))]
    Kernel(Vec<String>),
    #[error("node {name}: {source}")]
    Register { name: String, source: Box<kube::Error> },
}

/// Does without what failed: nothing depends on it and nobody waits for it, so the log hears of it and the work goes on.
/// What must be done returns its error instead.
pub fn best_effort<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) {
    if let Err(error) = result {
        tracing::debug!(%error, "could not {what}, going on without");
    }
}
