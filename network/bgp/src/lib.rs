//! A BGP speaker (RFC 4271).
//!
//! ```text
//!   bytes ──► message ──► session ──routes──► rib ──► policy, decision ──► Loc-RIB ──► kernel
//!   bytes ◄── pack ◄──────────────────────── Adj-RIB-Out of each peer ◄───┘
//! ```
//!
//! - [`message`], [`attribute`]: bytes to values and back, with the revised errors of RFC 7606
//! - [`session`]: the state machines of RFC 4271 section 8, capabilities, restarts
//! - [`policy`]: filters, as typed configuration
//! - [`decision`]: which of several paths, and by which step
//! - [`rib`]: routes in, chosen, and out
//! - [`bfd`]: whether a neighbour is there, sooner than by the hold time
//! - [`router`]: where the other end of a link without addresses is
//! - [`mrt`]: dumps for others' tools
//!
//! All of it is pure: bytes, events and the time come in, bytes and changes go out. Nothing here knows of sockets, the
//! kernel or Kubernetes.

#![warn(missing_docs)]

pub mod attribute;
pub mod bfd;
pub mod decision;
pub mod family;
pub mod message;
pub mod mrt;
pub mod policy;
pub mod rib;
pub mod router;
pub mod session;
mod wire;
