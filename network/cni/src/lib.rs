//! The network of pods, by the Container Network Interface specification 1.1.
//!
//! Who calls: `network/pod`, in process by [`Network`] (our own bridge network, a few milliseconds a pod) or by
//! [`list::Invoker`] (any CNI configuration, built-in or external plugins); and any other runtime, by the CNI exec
//! protocol through [`exec::main`].
//!
//! - `network`: the built-in network: one bridge, addresses, masquerading, host ports; add, del, check, gc.
//! - `alloc`: host-local addresses, one file each. `bridge`: links. `rules`: our nftables table.
//! - `source`: each pod sends from its own address alone.
//! - `firewall`: what of the host's firewall would stop pods, in a sentence.
//! - `types`, `error`: what the specification passes around. `list`, `exec`, `plugins`: its two sides; `flannel`: a plugin
//!   that calls another.

#![warn(missing_docs)]

mod alloc;
mod bridge;
mod error;
pub mod exec;
mod files;
pub mod firewall;
mod flannel;
pub mod list;
mod network;
mod plugins;
mod rules;
mod source;
mod types;

pub use error::Error;
pub use flannel::told;
pub use network::{Config, Network, Pod, forwarding, teardown};
pub use plugins::is_builtin;
pub use types::{AddResult, Interface, IpConfig, PortMapping, Protocol};
