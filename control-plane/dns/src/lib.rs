//! Cluster DNS: the Kubernetes DNS specification 1.1 from Services and EndpointSlices, and a cache for the rest.
//!
//! Who calls: `ferrokube` runs [`run`] in each node's agent, bound to the address of the `kube-dns` Service on a link
//! of that node, so that no question crosses address translation.
//!
//! A question takes the short way when it can: `server` receives a batch, `wire` reads the question, `answer` finds
//! the name in `table` and copies what was prebuilt there by `records`; the batch goes back. What it does with others is
//! told by a configuration: `settings` follows it (and by `rights` says what it may not), `corefile` reads it, `chain` holds it and leads questions through
//! `rewrite`, `template`, `hosts`, the table, `cache` and `forward`, which asks each `upstream`. `daemon` keeps the table
//! as the API server's objects are. Pure are `answer`, `cache`, `corefile`, `hosts`, `records`, `resolv`, `rewrite`,
//! `table`, `template`, `transform` and `wire`.

mod answer;
mod bind;
mod cache;
mod chain;
mod config;
mod corefile;
mod daemon;
mod files;
mod forward;
mod hosts;
mod hostsfile;
mod http;
mod log;
mod records;
mod resolv;
mod rewrite;
mod rights;
mod server;
mod settings;
mod table;
mod template;
mod transform;
mod upstream;
mod wire;

pub use answer::{Outcome, Responder};
pub use bind::{claim, release, track_again, untrack};
pub use cache::{Cache, Hit, without_opt};
pub use chain::{Asked, Live, Step, answer};
pub use config::Config;
pub use corefile::{Corefile, Facts, Files, Records, Wrong, parse};
pub use daemon::{Error, run};
pub use records::{Contribution, of_service};
pub use resolv::{Upstreams, upstreams};
pub use rewrite::request;
pub use settings::MAPS as CONFIG_MAPS;
pub use table::Table;
pub use wire::{Name, Question};
