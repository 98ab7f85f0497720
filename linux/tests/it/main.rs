//! The network side of the kernel, tried for real inside namespaces that the tests make. Needs root.

mod links;
mod monitor;
mod rules;
