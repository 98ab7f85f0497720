//! The kubelet as a whole against a runtime and an API server that live in memory.

mod api;
mod cri;
mod kubelet;
mod pods;
mod server;
