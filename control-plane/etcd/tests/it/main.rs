//! The store and its server from outside: durability, damage, full disks, and the real client.

mod crash;
mod store;
mod support;
