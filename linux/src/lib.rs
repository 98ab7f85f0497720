//! Every system call: namespaces, mounts, cgroups, netlink, nftables. The only unsafe code.
//!
//! Network: `netlink` (links, addresses, routes, neighbours, rules and their changes), `nft` (nftables
//! transactions), `conntrack` (forgetting flows), `netns` (network namespaces), `sysctl`, `resolved` (a stub's servers),
//! `host_address` (by which others reach this host), `sockets` (UDP at speed), `tcp`, `tcp_ao` (what sessions of routing
//! protocols ask), `datagrams` (UDP in bulk), `tun` (links that end in a file), `packet`
//! (frames as they are on the wire), `ethtool`
//! (what a link's driver does), `abstract_name` (one of a kind in a network namespace). `clock` is the one that suspend does
//! not stop.
//!
//! Containers: `process` (fork, exec, wait), `namespaces`, `mount`, `root` (lookups that can't escape), `tree`
//! (removal that can't), `caps`, `seccomp`, `cgroup` (v1, v2, both), `pty`, `fdpass`, `report`, `disk_usage`, and
//! `container`, which puts them together; `machine`, a host within this one; `failure` is their error.

#![warn(missing_docs)]

pub mod abstract_name;
pub mod caps;
pub mod cgroup;
pub mod clock;
pub mod conntrack;
pub mod container;
pub mod datagrams;
pub mod disk_usage;
pub mod ethtool;
pub mod failure;
pub mod fdpass;
pub mod hops;
pub mod host_address;
pub mod machine;
pub mod mount;
pub mod namespaces;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod packet;
pub mod process;
pub mod pty;
mod report;
pub mod resolved;
pub mod root;
pub mod seccomp;
pub mod sockets;
pub mod sysctl;
pub mod tcp;
pub mod tcp_ao;
mod tree;
pub mod tun;
