//! The network of pods, by the Container Network Interface specification 1.1.
//!
//! Who calls: the runtime, in process by [`Network`] (our own bridge network, a few milliseconds a pod).
//!
//! - `network`: the built-in network: one bridge, addresses, masquerading, host ports; add, del, check, gc.
//! - `alloc`: host-local addresses, one file each. `bridge`: links. `rules`: our nftables table.
//! - `types`, `error`: what the specification passes around.

pub mod alloc;
mod bridge;
pub mod error;
mod network;
mod rules;
pub mod types;

pub use error::Error;
pub use linux::netlink::Prefix;
pub use network::{Config, Network, Pod, forwarding, teardown};
pub use types::{AddResult, Interface, IpConfig, PortMapping, Protocol};
