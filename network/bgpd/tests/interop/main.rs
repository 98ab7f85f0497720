//! Speakers of others and ours in network namespaces that the tests make, joined by a switch: BIRD, FRR, GoBGP and ExaBGP, as
//! Debian has them. Needs root, and these programs (`cargo xtask test` installs them). They wait more than they do:
//! `cargo test -p bgpd --test interop -- --test-threads 8`.

#![allow(clippy::unwrap_used)]

mod among_others;
mod attributes;
mod bird;
mod ends;
mod exabgp;
mod features;
mod flaps;
mod frr;
mod gobgp;
mod guards;
mod kernel;
mod lab;
mod long_lived;
mod multihop;
mod ours;
mod readme;
mod reflection;
mod reflectors;
mod restart;
mod sessions;
mod speaker;
mod tcp_ao;
mod traffic;
mod unnumbered;
mod vrf;
