//! What several controllers decide with, beside the facts of single objects (the crate `facts`); pure.
//!
//! - [`acts`]: actions for plans from typed objects
//! - [`owners`]: controller references, adoption and release
//! - [`pods`]: which pods to delete first, when the next is available
//! - [`revisions`]: ControllerRevisions: templates as they once were
//! - [`backoff`]: waiting longer each time
//! - [`template`]: pods from templates, template hash and equality

pub mod acts;
pub mod backoff;
pub mod owners;
pub mod pods;
pub mod revisions;
pub mod template;

/// An optional count of the API; absent is 0.
pub fn count(n: Option<i32>) -> i32 {
    n.unwrap_or(0)
}
