//! Protobuf messages and gRPC services of etcd v3 and of the container runtime interface.
//!
//! The `.proto` files in `proto/` are written here from the public field numbers; `build.rs` makes the code.
//! Callers: the kubelet and the runtime (`cri`), command lines that load images (`images`),
//! the etcd server and the API server's client to a remote one (`etcd`).

#![warn(missing_docs)]

pub mod etcd;

/// The container runtime interface, v1 as of Kubernetes 1.37.
#[allow(clippy::all, missing_docs)]
pub mod cri {
    tonic::include_proto!("runtime.v1");

    impl std::fmt::Debug for AuthConfig {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("AuthConfig").field("server_address", &self.server_address).finish_non_exhaustive()
        }
    }
}

/// A container's annotation by which our kubelet has our runtime check, at creation, that it doesn't run as root
/// ("true"): the CRI has no field for it, and only the runtime knows which user a container comes to run as.
pub const RUN_AS_NON_ROOT: &str = "ferrokube.io/run-as-non-root";
/// The answer of that check, and of the kubelet's own.
pub const RUNS_AS_ROOT: &str = "container has runAsNonRoot and image will run as root";

/// What the runtime's image store offers beyond CRI: loading archives and pulls that report progress.
#[allow(clippy::all, missing_docs)]
pub mod images {
    tonic::include_proto!("ferrokube.images.v1");
}
