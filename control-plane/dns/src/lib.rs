//! Cluster DNS: the Kubernetes DNS specification 1.1 from Services and EndpointSlices, and a cache for the rest.
//!
//! Who calls: `ferrokube` runs [`run`] in each node's agent, bound to the address of the `kube-dns` Service on a link
//! of that node, so that no question crosses address translation.
//!
//! A question takes the short way when it can: `server` receives a batch, `wire` reads the question, `answer` finds
//! the name in `table` and copies what was prebuilt there by `records`, or finds it in `cache`; the batch goes back.
//! Only what neither knows goes to `forward`, which asks the upstreams of `resolv`. `daemon` keeps the table as the
//! API server's objects are. All but `daemon`, `server`, `forward`, `bind` and `http` are pure.

mod answer;
mod bind;
mod cache;
mod config;
mod daemon;
mod forward;
mod http;
mod records;
mod resolv;
mod server;
mod table;
mod wire;

pub use answer::{Outcome, Responder};
pub use bind::{claim, release, track_again, untrack};
pub use cache::Cache;
pub use config::Config;
pub use daemon::{Error, run};
pub use records::{Contribution, of_service};
pub use resolv::{Upstreams, upstreams};
pub use table::Table;
pub use wire::{Name, Question};
