//! The hands: namespaces, mounts, cgroups, netlink, nftables. The only unsafe code.
