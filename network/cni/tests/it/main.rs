//! The pod network for real, inside network namespaces that the tests make. Needs root.

#![allow(clippy::unwrap_used)]

mod firewall;
mod neighbours;
mod network;
mod protocol;
mod world;
