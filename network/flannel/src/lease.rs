//! A host's lease: the subnets of its pods, and what others must know to reach them. As upstream writes it in etcd and in
//! the annotations of nodes. Pure. Callers: the subnet managers read and write it, the backends fill it in.
//!
//! ```text
//! /coreos.com/network/subnets/10.5.34.0-24                    or …/10.5.34.0-24&fd00:5:0:22::-64
//! {"PublicIP": "192.0.2.7", "PublicIPv6": null, "BackendType": "vxlan",
//!  "BackendData": {"VNI": 1, "VtepMAC": "c6:5b:…"}, "BackendV6Data": …}
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use meta::Prefix;
use serde_json::{Map, Value};

/// The largest value of a lease that is read.
pub const MAX_BYTES: usize = 16 << 10;

/// A host's share of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnets {
    pub v4: Option<Prefix>,
    pub v6: Option<Prefix>,
}

/// What others must know of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes {
    pub public_ip: Option<Ipv4Addr>,
    pub public_ipv6: Option<Ipv6Addr>,
    /// Empty for udp, as upstream writes it.
    pub backend_type: String,
    pub data: Option<Value>,
    pub data6: Option<Value>,
}

/// A host's lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    pub subnets: Subnets,
    pub attributes: Attributes,
}

impl Subnets {
    pub fn each(&self) -> impl Iterator<Item = Prefix> + use<> {
        self.v4.into_iter().chain(self.v6)
    }

    pub fn overlaps(&self, other: &Subnets) -> bool {
        self.each().any(|a| other.each().any(|b| a.overlaps(&b)))
    }

    /// The last part of the lease's key in etcd.
    pub fn key(&self) -> String {
        let part = |subnet: Prefix| format!("{}-{}", subnet.addr, subnet.len);
        self.each().map(part).collect::<Vec<_>>().join("&")
    }

    /// The reverse. None for a key that is no lease's: others may keep things there.
    pub fn of_key(key: &str) -> Option<Subnets> {
        let last = key.rsplit('/').next()?;
        let subnet = |text: &str| {
            let (addr, len) = text.rsplit_once('-')?;
            let prefix: Prefix = format!("{addr}/{len}").parse().ok()?;
            (prefix.network() == prefix).then_some(prefix)
        };
        let (first, second) = last.split_once('&').map_or((last, None), |(a, b)| (a, Some(b)));
        let v4 = subnet(first).filter(|prefix| !prefix.is_ipv6())?;
        let v6 = match second {
            Some(text) => Some(subnet(text).filter(Prefix::is_ipv6)?),
            None => None,
        };
        Some(Subnets { v4: Some(v4), v6 })
    }
}

impl fmt::Display for Subnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.each().map(|subnet| subnet.to_string()).collect();
        f.write_str(&all.join(" and "))
    }
}

impl Attributes {
    /// Where the host is reached by packets of a family.
    pub fn address(&self, v6: bool) -> Option<IpAddr> {
        if v6 { self.public_ipv6.map(IpAddr::V6) } else { self.public_ip.map(IpAddr::V4) }
    }

    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        let ip = self.public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        map.insert("PublicIP".into(), ip.to_string().into());
        map.insert("PublicIPv6".into(), self.public_ipv6.map_or(Value::Null, |ip| ip.to_string().into()));
        if !self.backend_type.is_empty() {
            map.insert("BackendType".into(), self.backend_type.clone().into());
        }
        for (name, data) in [("BackendData", &self.data), ("BackendV6Data", &self.data6)] {
            if let Some(data) = data {
                map.insert(name.into(), data.clone());
            }
        }
        Value::Object(map).to_string()
    }

    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Attributes, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("it is longer than {MAX_BYTES} bytes"));
        }
        let value: Value = serde_json::from_slice(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let get = |name: &str| value.get(name).filter(|value| !value.is_null());
        let words = |name: &str| match get(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| format!("{name}: {value} is not a text")),
        };
        let wrong = |name: &str, text: &str| format!("{name}: {text:?} is not an address");
        let public_ip = match words("PublicIP")?.filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => {
                let ip: Ipv4Addr = text.parse().map_err(|_| wrong("PublicIP", text))?;
                Some(ip).filter(|ip| !ip.is_unspecified())
            }
        };
        let public_ipv6 = match words("PublicIPv6")?.filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => {
                let ip: Ipv6Addr = text.parse().map_err(|_| wrong("PublicIPv6", text))?;
                Some(ip).filter(|ip| !ip.is_unspecified())
            }
        };
        Ok(Attributes {
            public_ip,
            public_ipv6,
            backend_type: words("BackendType")?.unwrap_or_default().to_owned(),
            data: get("BackendData").cloned(),
            data6: get("BackendV6Data").cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(v4: &str, v6: Option<&str>) -> Subnets {
        Subnets { v4: Some(v4.parse().unwrap()), v6: v6.map(|text| text.parse().unwrap()) }
    }

    #[test]
    fn keys_are_upstreams() {
        for (key, subnets) in [
            ("10.5.34.0-24", subnets("10.5.34.0/24", None)),
            ("10.5.34.0-24&fd00:5:0:22::-64", subnets("10.5.34.0/24", Some("fd00:5:0:22::/64"))),
        ] {
            assert_eq!(subnets.key(), key);
            assert_eq!(Subnets::of_key(&format!("/coreos.com/network/subnets/{key}")), Some(subnets));
        }
        for other in
            ["", "config", "10.5.34.0", "10.5.34.7-24", "10.5.34.0-33", "fd00::-64", "10.5.34.0-24&x", "10.5.34.0-24&"]
        {
            assert_eq!(Subnets::of_key(other), None, "{other}");
        }
    }

    #[test]
    fn what_upstream_writes_is_read_and_written() {
        let vxlan = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:bf:4d:08:ae:67"}}"#;
        let read = Attributes::parse(vxlan.as_bytes()).unwrap();
        assert_eq!((read.address(false), read.address(true)), (Some("192.168.64.3".parse().unwrap()), None));
        assert_eq!(read.data.as_ref().unwrap()["VNI"], 1);
        assert_eq!(Attributes::parse(read.to_json().as_bytes()).unwrap(), read);
        let written: Value = serde_json::from_str(&read.to_json()).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(vxlan).unwrap());

        let udp = Attributes { public_ip: Some(Ipv4Addr::new(192, 0, 2, 7)), ..Attributes::default() };
        assert_eq!(udp.to_json(), r#"{"PublicIP":"192.0.2.7","PublicIPv6":null}"#);
        assert_eq!(Attributes::parse(br#"{"PublicIP":"0.0.0.0"}"#).unwrap(), Attributes::default());
    }

    #[test]
    fn what_is_no_lease_is_told_by_the_name_of_the_field() {
        for (text, said) in [
            (r#"{"PublicIP": 7}"#, "PublicIP: 7 is not a text"),
            (r#"{"PublicIP": "fd00::1"}"#, "PublicIP: \"fd00::1\" is not an address"),
            (r#"{"PublicIPv6": "192.0.2.1"}"#, "PublicIPv6: \"192.0.2.1\" is not an address"),
        ] {
            assert_eq!(Attributes::parse(text.as_bytes()).unwrap_err(), said);
        }
        assert!(Attributes::parse(b"{").is_err() && Attributes::parse(&vec![b' '; MAX_BYTES + 1]).is_err());
    }
}
