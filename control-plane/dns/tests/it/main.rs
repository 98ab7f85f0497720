//! The DNS server as its clients see it, read by another implementation of the format.
#![allow(clippy::unwrap_used)]

mod address;
mod configured;
mod floods;
mod forwarding;
mod names;
mod serving;
mod world;
