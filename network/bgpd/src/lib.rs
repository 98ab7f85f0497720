//! The BGP daemon: what surrounds the pure speaker of [`bgp`] on a machine.
//!
//! - `kernel`: routes in the kernel's tables, and out of them
//!
//! Called by `ferrokube bgp` and `ferrokube route-reflector`.

#![warn(missing_docs)]

pub mod kernel;
