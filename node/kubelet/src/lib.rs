//! kubelet: takes the pods bound to its node, runs their containers over the CRI, reports.
//!
//! Who calls: the binary, which fills a [`Config`] and calls [`run`]; it also borrows what it needs of files and addresses
//! of a host. Knows nothing of how containers are made: the runtime behind the CRI may be anybody's.
//!
//! The map. An arrow is a call or a message; what stands in a box with (pure) has no I/O, takes time as an argument and is
//! tested as values.
//!
//! ```text
//!   the API        files        the runtime       clients of 10250
//!      │             │               │                   │
//!   informers   io::static_pods   io::pleg            server          they see, and tell
//!      └─────────────┴───────┬───────┴───────────────────┘
//!                            ▼ messages::Mailbox
//!                    daemon::sync_loop                                one message after the other
//!                            │ Event            ▲ Message::Answer
//!                            ▼                  │
//!                   worker (pure) ── Action ──► act, volumes          one task an action
//!                     a pod's life              │
//!                            └────── pod (pure): what of a pod goes to the runtime
//!
//!   node::heartbeat (status, lease) and daemon::housekeeping (eviction, images, logs): two tasks beside the loop
//! ```
//!
//! | folder | what | pure |
//! |---|---|---|
//! | `daemon` | puts a kubelet together; the loop; housekeeping | no |
//! | `messages` | what travels to the loop | yes |
//! | `worker` | the life of one pod: state, event → state, actions; its status | all of it |
//! | `pod` | questions to a Pod, and what the runtime is asked to make of it | all of it |
//! | `act` | the executor: actions against runtime and API, probes, hooks | no |
//! | `volumes` | volumes: a table of kinds, a planner, its manager | `plan`, `plugins`, `payload`, `trust` |
//! | `node` | the Node: what it is, its status, what it is short of, who goes first | `object`, `eviction`, `shutdown`, `storage_limits` but for `measure` |
//! | `io` | the ways out: CRI, files, logs, objects of the API, what the runtime tells | no |
//! | `server` | the HTTP API | `params`, `configz` |
//!
//! At the bottom: `config` (what it is told), `names` (upstream's words), `api` (what answers of the API mean), `error`.

mod act;
mod api;
pub mod config;
mod daemon;
mod error;
mod io;
mod messages;
mod names;
mod node;
mod pod;
mod server;
mod volumes;
mod worker;

/// For those who read what a stranger wrote (the fuzz targets).
pub use act::pull::credentials;
pub use config::Config;
pub use daemon::run;
pub use error::Error;
/// For whoever waits for files, or reads what a stranger put into one (the fuzz targets).
pub use io::{files, logs, static_pods};
/// What containers of critical pods are marked with.
pub use names::annotation::CRITICAL;
pub use node::{addresses, shutdown};
pub use pod::expand;
pub use server::params;
