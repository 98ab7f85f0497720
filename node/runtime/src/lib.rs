//! The container runtime: CRI server, images, snapshots, sandboxes, containers, streams and logs.
