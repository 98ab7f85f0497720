//! Pod networks: what the container runtime asks of one ([`PodNetwork`]), and those that there are.
//!
//! Who calls: the runtime, through the trait, for each sandbox; the binary, which picks a network by its name from
//! [`NETWORKS`] and removes what all of them made. It stands below the runtime and beside the CNI plugins, and knows
//! nothing of the API server, of nodes other than this one, or of the CRI.
//!
//! - `network`: the contract, with what goes in and out. Pure but for [`LoopbackOnly`].
//! - `bridge`: the network of a cluster on one host, and the host's part of one on many.
//! - `flannel`: that part, and what is left of flannel's own where the cluster is removed.
//! - `configured`: any network that a directory of CNI configuration describes: that of a cluster which isn't ours.
//! - `table`: the networks of a cluster by name.

#![warn(missing_docs)]

mod bridge;
mod configured;
mod flannel;
mod network;
mod range;
mod table;

pub use cni::{PortMapping, Protocol};
pub use configured::Configured;
pub use flannel::table as flannel_table;
pub use network::{LoopbackOnly, NetError, NotReady, PodNet, PodNetwork, Way};
pub use table::{NETWORKS, Row, Setup, named};

/// The interface that pods find inside.
const IFNAME: &str = "eth0";
