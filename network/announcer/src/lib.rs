//! The announcer: answers on this node's networks for the addresses of load balancers that the node was elected for, as
//! MetalLB's layer-2 mode and kube-vip do. An address is on no link: who asks for it (ARP, neighbour solicitations) is told
//! the hardware address of a link of this node, and kube-proxy's rules lead what comes then to pods. So nothing of the host
//! itself is reached by it, no port and no program, and nothing is in the kernel that could stay behind.
//!
//! Who calls: the node's part of `ferrokube` runs [`run`], and [`leave`] when the node stops. The controller of load
//! balancers (`service_lb`) elects one node for each address and writes it into the Service; each node tells in its Node
//! object which networks it is on, and gives a sign in its Lease every two seconds as long as anything is announced
//! (`facts::announcing`): who gives none while others do is replaced.
//!
//! ```text
//!   Services ────────► which addresses are this node's ─┐
//!   links, addresses ► links: where each is announced ──┼─► port: one socket a link and protocol ◄─► the network
//!   claims of others ► doubt: is it still ours? ────────┘         frame: what is on the wire
//!        └── asks the API server
//! ```
//!
//! **A node that is cut off** does not hear that another was elected. But it hears the other one, for both are on one
//! network: who takes an address over tells so to all. A node that hears that asks the API server whether the address is
//! still its own, and is silent until it is told so. The one that was elected says it again; the other stays silent, and
//! asks again. So no clocks are compared, and no node falls silent because it can't renew anything: a cluster whose API server
//! is away goes on being reached.
//!
//! Pure: `frame`, `links`, `doubt`, `pulse` (this node's signs, and whether it stood still). The others do I/O.

mod config;
mod daemon;
mod doubt;
pub mod frame;
mod links;
mod port;
mod pulse;

pub use config::Config;
pub use daemon::{leave, run};
