//! The file behind `--config`: which fields it may have, and what each may hold. A mistake is told with its path.
//! Read when a cluster is started. I/O: reads the file.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::Cidr;
use crate::fault::Fault;

/// The file behind `--config`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct File {
    pub api_port: Option<u16>,
    pub pod_cidr: Option<Cidr>,
    pub service_cidr: Option<Cidr>,
    pub cluster_domain: Option<String>,
    pub node_name: Option<String>,
    pub node_ip: Option<Ipv4Addr>,
    pub open_firewall: Option<bool>,
    pub hardened: Option<bool>,
}

/// Takes a field's value into a [`File`], or says what is allowed.
type Take = fn(&mut File, &Value) -> Result<(), String>;

/// The fields that the file may have.
const FIELDS: [(&str, Take); 8] = [
    ("apiPort", |file, v| {
        let port = v.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        file.api_port = Some(port.ok_or_else(|| format!("{v} is not a port: it is a number from 1 to 65535"))?);
        Ok(())
    }),
    ("podCIDR", |file, v| word(v)?.parse::<Cidr>().map(|cidr| file.pod_cidr = Some(cidr))),
    ("serviceCIDR", |file, v| word(v)?.parse::<Cidr>().map(|cidr| file.service_cidr = Some(cidr))),
    ("clusterDomain", |file, v| dns_name(v).map(|name| file.cluster_domain = Some(name))),
    ("nodeName", |file, v| dns_name(v).map(|name| file.node_name = Some(name))),
    ("nodeIP", |file, v| {
        let address = word(v)?.parse::<Ipv4Addr>();
        file.node_ip = Some(address.map_err(|_| format!("{v} is not an IPv4 address: write it like 192.0.2.10"))?);
        Ok(())
    }),
    ("openFirewall", |file, v| truth(v).map(|open| file.open_firewall = Some(open))),
    ("hardened", |file, v| truth(v).map(|hardened| file.hardened = Some(hardened))),
];

fn truth(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("{value} is neither true nor false"))
}

fn word(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{value} is not text"))
}

fn dns_name(value: &Value) -> Result<String, String> {
    let name = word(value)?;
    match meta::names::dns1123_subdomain(name).first() {
        None => Ok(name.to_owned()),
        Some(wrong) => Err(format!("{value}: {wrong}")),
    }
}

impl File {
    /// Parses the file; a mistake is told with its path and what is allowed.
    fn parse(text: &str) -> Result<File, String> {
        let allowed = || FIELDS.map(|(name, _)| name).join(", ");
        let value = crate::yaml::parse(text)?;
        let fields = match &value {
            Value::Null => return Ok(File::default()),
            Value::Object(fields) => fields,
            _ => return Err(format!("it must hold fields, one a line: {}", allowed())),
        };
        let mut file = File::default();
        for (name, value) in fields {
            let known = FIELDS.iter().find(|(known, _)| known == name);
            let (_, take) =
                known.ok_or_else(|| format!("{name}: there is no such field; allowed are {}", allowed()))?;
            take(&mut file, value).map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(file)
    }
}

/// The file at this path.
pub fn read_file(path: &Path) -> Result<File> {
    let wrong = |why: &dyn std::fmt::Display| Fault::usage(format!("--config {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
    File::parse(&text).map_err(|why| wrong(&why).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_file_is_strict() {
        let whole = "apiPort: 7443\npodCIDR: 10.8.0.0/16\nclusterDomain: home.arpa\nnodeIP: 192.0.2.1\n";
        let file = File::parse(whole).expect("a file");
        assert_eq!((file.api_port, file.cluster_domain.as_deref()), (Some(7443), Some("home.arpa")));
        assert_eq!(File::parse("# nothing\n"), Ok(File::default()));
        for (text, path, allowed) in [
            ("podCidr: 10.0.0.0/16", "podCidr: ", "podCIDR"),
            ("apiPort: high", "apiPort: ", "1 to 65535"),
            ("apiPort: 0", "apiPort: ", "1 to 65535"),
            ("podCIDR: 7", "podCIDR: ", "text"),
            ("serviceCIDR: 10.0.0.0", "serviceCIDR: ", "like 10.42.0.0/16"),
            ("nodeName: My_Node", "nodeName: ", "lower case"),
            ("nodeIP: '::1'", "nodeIP: ", "IPv4"),
            ("hardened: maybe", "hardened: ", "neither true nor false"),
            ("[apiPort]", "", "podCIDR"),
        ] {
            let error = File::parse(text).expect_err(text);
            assert!(error.starts_with(path) && error.contains(allowed), "{text}: {error}");
        }
    }
}
