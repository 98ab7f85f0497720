//! How every component speaks to the API server. Nothing here knows a component; every component knows this.
//!
//! - [`connect`]: a `kube::Client` over an in-process server or from a kubeconfig, with the caller's own identity
//! - [`account`]: clients that speak as service accounts
//! - [`informer`]: list+watch into a shared, indexed cache, with handlers
//! - [`item`]: an object of a list or watch, which may be one that can't be read
//! - [`queue`]: de-duplicating work queue with delays and per-item backoff
//! - [`plan`]: what a pure decision wants done, and the executor that does it
//! - [`events`]: Events, counted instead of repeated
//! - [`latch`]: how a component tells that it has begun
//! - [`lease`]: leader election on a `Lease`
//! - [`pages`]: a component's own pages, /healthz and /metrics, with callers checked by [`delegated`]

pub mod account;
pub mod connect;
pub mod delegated;
pub mod events;
pub mod informer;
pub mod item;
pub mod latch;
pub mod lease;
pub mod pages;
pub mod plan;
pub mod queue;

pub use account::Accounts;
pub use connect::{from_kubeconfig, in_process};
pub use events::{EventRecorder, EventType};
pub use informer::{Cache, Delta, Informer, Key};
pub use item::Item;
pub use latch::Latch;
pub use plan::{Action, Executor, PatchBody, Plan, Target, Words};
pub use queue::WorkQueue;
