//! The consistent key-value store that holds all state of a cluster: etcd v3, one member, in one process or over gRPC.
//!
//! The map. Pure, and where everything is decided: [`span`] (ranges), `mvcc` (versions of keys), `recent` (newest
//! changes), `query` (reads), `txn` (commands), `lease`, `watch` (who is concerned), `frame` and `replay` (the log's
//! bytes), `hash`, [`cluster`] (members, who leads). Doing: [`engine`] (writer, log, keeper, files, watches), `server`
//! (gRPC), [`daemon`].
//! Entry points: [`Etcd::open`] in process, [`daemon::serve`] as a server.

pub mod cluster;
pub mod daemon;
pub mod engine;
mod error;
mod frame;
mod hash;
mod lease;
mod metrics;
#[cfg(test)]
mod model_tests;
mod mvcc;
mod query;
mod recent;
mod replay;
mod server;
pub mod span;
mod txn;
mod watch;

pub use engine::{Etcd, Identity, Options, Status, WatchMessage, WatchOptions, Watcher};
pub use error::{Error, OpenError};
pub use hash::HashKv;
pub use recent::Change;
pub use server::VERSION;
