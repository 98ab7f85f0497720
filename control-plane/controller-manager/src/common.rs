//! What several controllers decide with; pure.
//!
//! - [`acts`]: actions for plans from typed objects
//! - [`owners`]: controller references, adoption and release
//! - [`pods`]: facts about pods: active, ready, available, which to delete first
//! - [`select`]: label selectors ready to match
//! - [`template`]: pods from templates, template hash and equality
//! - [`cidr`]: address ranges

pub mod acts;
pub mod cidr;
#[cfg(test)]
pub mod model;
pub mod owners;
pub mod pods;
pub mod select;
pub mod template;

/// `max(0, n)` of an optional count of the API.
pub fn count(n: Option<i32>) -> i32 {
    n.unwrap_or(0)
}
