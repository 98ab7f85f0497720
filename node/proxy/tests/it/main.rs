//! The proxy's rules in a real kernel, inside network namespaces that the tests make. Needs root.
#![allow(clippy::unwrap_used)]

mod daemon;
mod difference;
mod listing;
mod objects;
mod precedence;
mod reach;
mod world;
