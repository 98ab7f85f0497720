//! Who is meant by a question: a neighbour by his address, by it and his link (`fe80::2%eth1`), or by the link alone where that
//! is all that was said of him. Pure. Read from people's words and questions, asked by the loop.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::Neighbor;

/// A neighbour's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Who {
    address: Option<IpAddr>,
    link: Option<String>,
}

/// It names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of a neighbor, nor the link of one without an address")]
pub struct Nobody(String);

impl Who {
    /// One who is at an address, by a link where that is known: of an address of a link there may be several.
    pub fn on(address: IpAddr, link: Option<String>) -> Who {
        Who { address: Some(address), link }
    }

    /// Whether it is this one.
    pub fn is(&self, neighbor: &Neighbor) -> bool {
        let peering = &neighbor.peering;
        let by_address = self.address.map_or(peering.unnumbered, |address| address == neighbor.address);
        by_address && (self.link.is_none() || self.link == peering.interface)
    }
}

impl From<IpAddr> for Who {
    fn from(address: IpAddr) -> Who {
        Who::on(address, None)
    }
}

impl FromStr for Who {
    type Err = Nobody;

    fn from_str(text: &str) -> Result<Who, Nobody> {
        let nobody = || Nobody(text.to_owned());
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        let (address, link) = match text.split_once('%') {
            Some((address, link)) => (Some(address.parse().map_err(|_| nobody())?), link),
            None => (None, text),
        };
        match crate::config::is_link_name(link) {
            true => Ok(Who { address, link: Some(link.to_owned()) }),
            false => Err(nobody()),
        }
    }
}

impl TryFrom<String> for Who {
    type Error = Nobody;

    fn try_from(text: String) -> Result<Who, Nobody> {
        text.parse()
    }
}

impl From<Who> for String {
    fn from(who: Who) -> String {
        who.to_string()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, &self.link) {
            (Some(address), Some(link)) => write!(f, "{address}%{link}"),
            (Some(address), None) => address.fmt(f),
            (None, link) => f.write_str(link.as_deref().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Kind, parse};

    #[test]
    fn a_neighbour_is_meant_by_address_by_link_or_by_both() {
        let text = "{router-id: 10.0.0.1, as: 1, neighbors: [{address: 10.0.0.2, interface: eth0, remote-as: 2}, \
                    {address: 'fe80::2', interface: eth1, remote-as: 2}, {address: 'fe80::2', interface: eth2, \
                    remote-as: 2}, {interface: eth3, remote-as: 2}]}";
        let mut all = parse(text, Kind::Speaker, &|_| Err(String::new())).expect("a configuration").neighbors;
        // He has been found.
        all[3].address = "fe80::2".parse().expect("an address");
        let meant = |text: &str| {
            let who: Who = text.parse().unwrap_or_else(|why| panic!("{why}"));
            assert_eq!(who.to_string(), text);
            let found = all.iter().enumerate().filter(|(_, neighbor)| who.is(neighbor));
            found.map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert_eq!(meant("10.0.0.2"), [0]);
        assert_eq!(meant("fe80::2"), [1, 2, 3]);
        assert_eq!(meant("fe80::2%eth2"), [2]);
        let each = all.iter().map(|one| Who::on(one.address, one.peering.interface.clone()));
        assert!(each.enumerate().all(|(at, who)| all.iter().position(|one| who.is(one)) == Some(at)));
        assert_eq!((meant("eth3"), meant("fe80::2%eth3")), (vec![3], vec![3]));
        assert_eq!((meant("eth1"), meant("10.0.0.3")), (vec![], vec![]), "he has an address");
        for nobody in ["", "a/b", "10.0.0.2%", "eth1%10.0.0.2", "a-name-of-16-bytes"] {
            assert!(nobody.parse::<Who>().is_err(), "{nobody}");
        }
    }
}
