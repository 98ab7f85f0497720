//! Hosts in network namespaces that the tests make, on one link, with etcd on one of them: what flannel does is seen by the
//! packets of pods. Needs root.

#![allow(clippy::unwrap_used)]

mod backends;
mod healing;
mod leases;
mod nodes;
mod outside;
mod world;
