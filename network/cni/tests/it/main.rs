//! The pod network for real, inside network namespaces that the tests make. Needs root.

mod network;
mod world;
