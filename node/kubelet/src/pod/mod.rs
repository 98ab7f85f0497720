//! What of a Pod a kubelet needs to know, and what the runtime is asked to make of it. Pure, all of it: the objects that a
//! pod refers to and the files of the host are given. The executor and the worker call.
//!
//! - the pod itself: `pods` (who, which containers), `resources`, `quantity`, `security`, `image`, `hosts`, `downward_api`
//! - for the runtime: `make` (configurations of the CRI), with `env` and `expand`
//! - decisions: `admit` (is it taken) with `verdict`, `probe` (what answers mean), `backoff` (when again), `patch` (what changed)

pub(crate) mod admit;
pub(crate) mod backoff;
pub(crate) mod downward_api;
pub(crate) mod env;
pub mod expand;
pub(crate) mod hosts;
pub(crate) mod image;
pub(crate) mod make;
pub(crate) mod patch;
pub(crate) mod pods;
pub(crate) mod probe;
pub(crate) mod quantity;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod verdict;
