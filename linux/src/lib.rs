//! The hands: namespaces, mounts, cgroups, netlink, nftables. The only unsafe code.
//!
//! Network: `netlink` (messages, sockets, links, addresses, routes, neighbours), `nft` (nftables
//! transactions), `conntrack` (forgetting flows), `netns` (network namespaces), `sysctl`.

pub mod conntrack;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod sysctl;
