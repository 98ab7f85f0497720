//! What several controllers decide with; pure.
//!
//! - [`acts`]: actions for plans from typed objects
//! - [`owners`]: controller references, adoption and release
//! - [`pods`]: facts about pods: active, ready, available, which to delete first
//! - [`select`]: label selectors ready to match
//! - [`node_fit`]: whether a node is one that a pod may be on
//! - [`revisions`]: ControllerRevisions: templates as they once were
//! - [`backoff`]: waiting longer each time
//! - [`template`]: pods from templates, template hash and equality

pub mod acts;
pub mod backoff;
#[cfg(test)]
pub mod model;
pub mod node_fit;
pub mod owners;
pub mod pods;
pub mod revisions;
pub mod select;
pub mod template;

/// `max(0, n)` of an optional count of the API.
pub fn count(n: Option<i32>) -> i32 {
    n.unwrap_or(0)
}
