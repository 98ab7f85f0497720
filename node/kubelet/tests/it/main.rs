//! The kubelet as a whole against a runtime and an API server that live in memory.

// Helpers of tests fail loudly.
#![allow(clippy::unwrap_used)]

mod api;
mod cri;
mod kubelet;
mod pods;
mod server;
