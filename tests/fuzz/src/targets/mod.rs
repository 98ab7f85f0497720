//! The targets, by what they are about: each file has its rows of the table and the functions that they name.

pub mod bgp;
pub mod files;
pub mod flannel;
pub mod network;
pub mod node;
pub mod objects;
pub mod patches;
pub mod store;
pub mod trust;
pub mod web;
pub mod words;

/// No seeds but the files.
pub fn none() -> Vec<Vec<u8>> {
    Vec::new()
}
