//! What `nodeIP` and `--node-ip` say of a host: its address of IPv4, and behind it, in a cluster of two families, that of
//! IPv6. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// See the module's head. One text in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIp {
    pub v4: Ipv4Addr,
    /// None: the best that the host has.
    pub v6: Option<Ipv6Addr>,
}

impl From<Ipv4Addr> for NodeIp {
    fn from(v4: Ipv4Addr) -> NodeIp {
        NodeIp { v4, v6: None }
    }
}

impl fmt::Display for NodeIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.v4)?;
        self.v6.map_or(Ok(()), |v6| write!(f, ",{v6}"))
    }
}

impl FromStr for NodeIp {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeIp, String> {
        let wrong = || {
            format!(
                "{text:?} is not an IPv4 address, nor one with an IPv6 address behind it: write it like 192.0.2.10 or \
                 192.0.2.10,2001:db8::10"
            )
        };
        let parts: Result<Vec<IpAddr>, _> = text.split(',').map(|part| part.trim().parse()).collect();
        match parts.as_deref() {
            Ok([IpAddr::V4(v4)]) => Ok((*v4).into()),
            Ok([IpAddr::V4(v4), IpAddr::V6(v6)]) => Ok(NodeIp { v4: *v4, v6: Some(*v6) }),
            _ => Err(wrong()),
        }
    }
}

impl Serialize for NodeIp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeIp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<NodeIp, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv4_may_have_one_of_ipv6_behind_it() {
        let read = |text: &str| text.parse::<NodeIp>().map(|ip| ip.to_string());
        assert_eq!(read("192.0.2.1"), Ok("192.0.2.1".into()));
        assert_eq!(read("192.0.2.1, 2001:db8::1"), Ok("192.0.2.1,2001:db8::1".into()));
        for wrong in ["2001:db8::1", "2001:db8::1,192.0.2.1", "192.0.2.1,192.0.2.2", "192.0.2.1,", "host"] {
            assert!(
                read(wrong).is_err_and(|said| said.contains("like 192.0.2.10 or 192.0.2.10,2001:db8::10")),
                "{wrong}"
            );
        }
    }
}
