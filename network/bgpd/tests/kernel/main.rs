//! Routes in the tables of network namespaces that the tests make. Needs root.

#![allow(clippy::unwrap_used)]

mod alone;
mod healing;
mod restart;
mod routes;
mod tables;
mod told;
mod world;
