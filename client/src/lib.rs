//! How every component speaks to the API server. Nothing here knows a component; every component knows this.
//!
//! - [`connect`]: a `kube::Client` over an in-process server or from a kubeconfig, with the caller's own identity
//! - [`account`]: clients that speak as service accounts
//! - [`informer`]: list and watch into a shared, indexed [`cache`], with handlers
//! - `held`: how a cache holds an object: as text, with a typed view while it is `warm`; `shared`: each once for all
//!   informers of the process; [`stored`]: the API server's own bytes of it, if it is in this process
//! - `kept`: what an informer knew last, on disk, for a restart while the API server is away
//! - [`item`]: an object of a list or watch, which may be one that can't be read; `head`: its metadata alone
//! - [`queue`]: de-duplicating work queue with delays and per-item backoff
//! - [`plan`]: what a pure decision wants done; the [`executor`] does it
//! - [`events`]: Events, counted instead of repeated, no faster than a [`rate`]
//! - [`latch`]: how a component tells that it has begun
//! - [`lease`]: leader election on a `Lease`; its decisions are in [`election`]
//! - [`pages`]: a component's own pages, /healthz and /metrics, with callers checked by [`delegated`]

#![warn(missing_docs)]

pub mod account;
pub mod cache;
pub mod connect;
pub mod delegated;
pub mod election;
pub mod events;
pub mod executor;
mod head;
mod held;
pub mod informer;
pub mod item;
mod kept;
pub mod latch;
pub mod lease;
mod outage;
pub mod pages;
pub mod plan;
pub mod queue;
pub mod rate;
mod shared;
pub mod stored;
mod warm;

pub use account::ServiceAccounts;
pub use cache::{Cache, Key};
pub use connect::{from_kubeconfig, in_process};
pub use events::{EventRecorder, EventType, reference};
pub use executor::{Effect, ExecuteError, Executor};
pub use informer::{Delta, Informer};
pub use item::Item;
pub use kept::read as last_known;
pub use latch::Latch;
pub use plan::{Action, Deletion, Op, PatchBody, Plan, Step, Target, Verb, Words};
pub use queue::WorkQueue;
pub use stored::Stored;
