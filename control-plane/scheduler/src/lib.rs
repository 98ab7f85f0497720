//! kube-scheduler: gives each pod without a node the node that suits it best.
//!
//! The engine is pure: [`snapshot`] holds the nodes and what runs on them, [`pod`] what a pod asks for, [`templates`] the same
//! once for all replicas, [`groups`] which pods belong together, [`framework`] what a plugin is, [`schedule`] one decision by the table [`plugins::PLUGINS`],
//! [`preemption`] who must go when nothing fits, [`queue`] who is next, [`binding`] what follows a decision. [`plan`] is
//! decisions as API calls; [`daemon`] is the loop. What fields mean that others read too is in the crate `facts`.
//! Called by `ferrokube`.

pub mod binding;
pub mod daemon;
pub mod framework;
pub mod groups;
mod metrics;
pub mod plan;
pub mod plugins;
pub mod pod;
pub mod preemption;
pub mod queue;
pub mod schedule;
mod shared;
pub mod snapshot;
pub mod templates;

#[cfg(test)]
mod tests;

pub use daemon::{Config, Error, run};
