//! kube-proxy: renders Services and EndpointSlices into nftables maps.
