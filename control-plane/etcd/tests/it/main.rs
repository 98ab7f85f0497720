//! The store and its server from outside: durability, damage, full disks, and the real client.

mod child;
mod crash;
mod etcdctl;
mod formats;
mod full_disk;
mod grpc;
mod kill;
mod store;
mod support;
mod trace;
