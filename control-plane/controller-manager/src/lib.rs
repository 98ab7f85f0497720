//! kube-controller-manager: the loops that make the cluster be what its objects say. `ferrokube` calls
//! [`daemon::run`] with a [`Config`] and a client; everything else is reached from the table [`controllers::ALL`].
//!
//! - [`controllers`]: the table, and one file (or folder) a controller: a pure `reconcile(view, now) -> Plan` and a
//!   `start` that says what is watched and which key a change belongs to
//! - `setup`: what a `start` is given: shared informers, its own identity, the configuration
//! - `runner`: queue -> workers -> reconcile -> executor -> retry or look again later; the same for all
//! - `common`: ownership, pod facts, selectors, revisions: what several controllers decide with
//! - [`daemon`]: starts the table and keeps it running

mod common;
pub mod config;
pub mod controllers;
pub mod daemon;
mod runner;
mod setup;

pub use config::{Config, ControllerClients, TokenSigner};
