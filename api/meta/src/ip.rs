//! IP addresses by what they may be used for, whatever their spelling: an IPv4 address in IPv6 clothes (`::ffff:…`) is
//! judged as what packets to it are. Pure; validation and the API server's proxies ask.

use std::net::IpAddr;

/// An address without its disguise.
pub fn parse(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Whether packets for the address leave towards one host: no loopback, link-local, multicast, broadcast or unspecified
/// one. Private ranges count: Go's `IsGlobalUnicast`.
pub fn is_global_unicast(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip) || broadcast)
}

/// 169.254.0.0/16 and fe80::/10.
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disguise_changes_nothing() {
        for good in ["10.0.0.1", "8.8.8.8", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1", "100.64.0.1"] {
            assert!(parse(good).is_some_and(is_global_unicast), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "127.8.9.1",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "ff05::1",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
        ] {
            assert!(parse(bad).is_some_and(|ip| !is_global_unicast(ip)), "{bad}");
        }
        for none in ["", "localhost", "127.1", "0177.0.0.1", "2130706433", "fe80::1%eth0", "[::1]"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
