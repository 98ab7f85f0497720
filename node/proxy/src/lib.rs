//! kube-proxy: Services and EndpointSlices become nftables maps, one table of our own.
//!
//! Who calls: `ferrokube` runs [`run`] on each node. The way of a change: `daemon` hears of it, `service` reads what
//! the objects say, `render` decides what of it belongs into which map, `model` keeps the whole and tells the
//! difference as a `Transaction`, `apply` sends it in one batch. All but `daemon`, `apply`, `claims`,
//! `health`, `meddling` and `ranges` are pure.
//!
//! A packet is looked up once, however many Services there are: its address, protocol and port lead to a chain for
//! so many endpoints (`chains`), which draws a number and finds the endpoint of that number in one map. So a changed
//! endpoint is a changed element.

mod apply;
mod chains;
mod claims;
mod config;
mod daemon;
mod health;
mod meddling;
mod model;
mod ranges;
mod render;
mod service;

pub use apply::{Applier, forget_stale, remove};
pub use chains::{Chain, Mode, Pick, Via};
pub use config::{Config, LocalDetector, Node, Settings};
pub use daemon::{Error, run};
pub use model::{Change, Entry, Model, Name, Ruleset, Slot, Transaction, Value, Way, diff};
pub use render::{Rendered, render, render_service};
pub use service::{Group, Port, VirtualServer};
