//! The network side of the kernel, tried for real inside namespaces that the tests make. Needs root.

#![allow(clippy::unwrap_used)]

mod addresses;
mod links;
mod monitor;
mod neighbours;
mod policy;
mod routes;
mod rules;
mod tcp;
