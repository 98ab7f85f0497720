//! flannel: a subnet for each host, and a way to every other host's. It stands alone, beside a container runtime of any
//! make: what it knows is told by `subnet.env`, and done in the kernel.
//!
//! Who calls: `ferrokube flannel` and, in a cluster of ours, `cluster::flannel`, by [`run`].
//!
//! ```text
//! etcd or nodes: config, leases ◄── daemon ──subnet.env──► CNI
//!            │ news                    │ links, routes, neighbours, forwarding entries, peers; masquerading
//!            └────────────────────────►▼ kernel     packets of the backend udp: two threads and a TUN link
//! ```
//!
//! - Pure: `config` (the network's configuration), `lease` (what hosts tell of themselves), `choice` (which subnet a host
//!   takes), `judge` (what comes of another configuration), [`backend`] (what is wanted in the kernel), `difference` (what is to change there), `packet` (a router's
//!   way).
//! - Doing: `manager` (where leases are): `etcd` (in etcd) or `nodes` (in annotations of nodes), `external` (by which
//!   link), `kernel`, `key` (this host's of WireGuard), `rules` (masquerading), `packets` (the loop of the backend udp),
//!   `subnet_file`, `health`, `node` (all of it for this host), `daemon` (the loop).

pub mod backend;
mod choice;
mod config;
mod daemon;
mod difference;
mod etcd;
mod external;
mod health;
mod judge;
mod kernel;
mod key;
mod lease;
mod manager;
mod news;
mod node;
mod nodes;
mod packet;
mod packets;
mod rules;
mod subnet_file;

pub use self::etcd::client::{CallError, Client as EtcdClient, Endpoints, Watch as EtcdWatch};
pub use self::etcd::login::{Secret, token as login_token};
pub use self::etcd::{Options as EtcdOptions, changed as lease_event};
pub use config::{ConfigError, NetConf};
pub use daemon::{Config, Error, RESYNC, Told, run};
pub use external::Wish;
pub use kernel::{has_vxlan, lacks};
pub use lease::{Attributes, Lease, Subnets};
pub use manager::{Options as ManagerOptions, publish};
pub use news::News;
pub use node::Own;
pub use nodes::{Names as AnnotationNames, Options as NodesOptions, Source};
pub use packets::{Gatherer, Joiner};
pub use rules::Masquerade;
pub use subnet_file::subnets as subnets_of_file;
