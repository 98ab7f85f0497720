//! The BGP daemon: what surrounds the pure speaker of [`bgp`] on a machine.
//!
//! - [`config`]: the file
//! - [`daemon`]: the loop, with all sessions and routes, and its sockets
//! - [`kernel`]: routes in the kernel's tables, and out of them
//! - [`control`]: what people ask, over a socket; [`pages`]: metrics
//! - here: all of it together, with the file that is read again
//!
//! Called by `ferrokube bgp` and `ferrokube route-reflector`.

#![warn(missing_docs)]

pub mod config;
pub mod control;
pub mod daemon;
pub mod kernel;
pub mod pages;
mod run;

pub use run::{Error, Options, Place, run, run_with};
