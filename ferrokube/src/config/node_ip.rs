//! What `nodeIP` and `--node-ip` say of a host: its address of a family, or one of each. Which comes first is the cluster's
//! to say. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// See the module's head. One text in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIp {
    first: IpAddr,
    /// Of the other family.
    second: Option<IpAddr>,
}

impl NodeIp {
    /// Each address.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        std::iter::once(self.first).chain(self.second)
    }

    /// The address of a family; none: the best that the host has.
    pub fn family(&self, v6: bool) -> Option<IpAddr> {
        self.iter().find(|ip| ip.is_ipv6() == v6)
    }

    /// One of a family, and one of the other where there is one.
    pub fn of(first: IpAddr, second: Option<IpAddr>) -> NodeIp {
        NodeIp { first, second: second.filter(|other| other.is_ipv6() != first.is_ipv6()) }
    }
}

impl From<IpAddr> for NodeIp {
    fn from(first: IpAddr) -> NodeIp {
        NodeIp { first, second: None }
    }
}

impl fmt::Display for NodeIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.second.map_or(Ok(()), |second| write!(f, ",{second}"))
    }
}

impl FromStr for NodeIp {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeIp, String> {
        let parts: Result<Vec<IpAddr>, _> = text.split(',').map(|part| part.trim().parse()).collect();
        match parts.as_deref() {
            Ok([first]) => Ok((*first).into()),
            Ok([first, second]) if first.is_ipv6() != second.is_ipv6() => Ok(NodeIp::of(*first, Some(*second))),
            _ => Err(format!(
                "{text:?} is not an address, nor one of each family: write it like 192.0.2.10 or \
                 192.0.2.10,2001:db8::10"
            )),
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
    fn a_host_has_one_address_of_a_family() {
        let read = |text: &str| text.parse::<NodeIp>().map(|ip| ip.to_string());
        for right in ["192.0.2.1", "2001:db8::1", "192.0.2.1,2001:db8::1", "2001:db8::1,192.0.2.1"] {
            assert_eq!(read(right), Ok(right.into()));
        }
        assert_eq!(read("192.0.2.1, 2001:db8::1"), Ok("192.0.2.1,2001:db8::1".into()));
        for wrong in ["192.0.2.1,192.0.2.2", "192.0.2.1,", "host", "192.0.2.1,::1,::2"] {
            assert!(
                read(wrong).is_err_and(|said| said.contains("like 192.0.2.10 or 192.0.2.10,2001:db8::10")),
                "{wrong}"
            );
        }
    }
}
