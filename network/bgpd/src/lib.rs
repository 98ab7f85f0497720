//! The BGP daemon: what surrounds the pure speaker of [`bgp`] on a machine.
//!
//! - [`config`]: the file
//!
//! Called by `ferrokube bgp` and `ferrokube route-reflector`.

#![warn(missing_docs)]

pub mod config;
pub mod kernel;
