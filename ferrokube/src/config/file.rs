//! The file behind `--config`: which fields it may have, and what each may hold. A mistake is told with its path.
//! Read when a cluster is started. I/O: reads the file.

use std::path::Path;

use anyhow::Result;
use meta::Ranges;
use serde_json::Value;

use super::settings::{SETTINGS, Scope, Setting, options};
use super::{NodeIp, Options};
use crate::fault::Fault;

/// The file behind `--config`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct File {
    pub api_port: Option<u16>,
    pub pod_cidr: Option<Ranges>,
    pub service_cidr: Option<Ranges>,
    pub cluster_domain: Option<String>,
    pub node_name: Option<String>,
    pub node_ip: Option<NodeIp>,
    pub open_firewall: Option<bool>,
    pub hardened: Option<bool>,
    pub options: Options,
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
    ("podCIDR", |file, v| super::pods(word(v)?).map(|cidr| file.pod_cidr = Some(cidr))),
    ("serviceCIDR", |file, v| super::services(word(v)?).map(|cidr| file.service_cidr = Some(cidr))),
    ("clusterDomain", |file, v| dns_name(v).map(|name| file.cluster_domain = Some(name))),
    ("nodeName", |file, v| dns_name(v).map(|name| file.node_name = Some(name))),
    ("nodeIP", |file, v| word(v)?.parse().map(|ip| file.node_ip = Some(ip))),
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
    subdomain(word(value)?).map_err(|wrong| format!("{value}: {wrong}"))
}

/// A name as nodes have it, or what is wrong with it.
pub fn subdomain(text: &str) -> Result<String, String> {
    match meta::names::dns1123_subdomain(text).first() {
        None => Ok(text.to_owned()),
        Some(wrong) => Err(wrong.clone()),
    }
}

impl File {
    /// Parses the file; a mistake is told with its path and what is allowed.
    fn parse(text: &str) -> Result<File, String> {
        let allowed = || SETTINGS.iter().map(|setting| setting.field).collect::<Vec<_>>().join(", ");
        let value = crate::yaml::parse(text)?;
        let fields = match &value {
            Value::Null => return Ok(File::default()),
            Value::Object(fields) => fields,
            _ => return Err(format!("it must hold fields, one a line: {}", allowed())),
        };
        let mut file = File::default();
        for (name, value) in fields {
            let place = |why: String| format!("{}{name}: {why}", line_of(text, name));
            if let Some((_, take)) = FIELDS.iter().find(|(known, _)| known == name) {
                take(&mut file, value).map_err(place)?;
            } else if options().any(|setting| setting.field == name) {
                let said = Options::field(name, value).map_err(place)?;
                file.options = said.over(&file.options);
            } else {
                return Err(place(format!("there is no such field; allowed are {}", allowed())));
            }
        }
        Ok(file)
    }
}

/// The beginning of a message about a field of the file: the line that it stands in, where that can be told.
fn line_of(text: &str, field: &str) -> String {
    let is_key = |line: &str| {
        let line = line.trim_start_matches(['"', '\'']);
        line.strip_prefix(field).is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
    };
    text.lines().position(is_key).map_or_else(String::new, |at| format!("line {}: ", at + 1))
}

/// The file at this path.
pub fn read_file(path: &Path) -> Result<File> {
    let wrong = |why: &dyn std::fmt::Display| Fault::usage(format!("--config {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
    File::parse(&text).map_err(|why| wrong(&why).into())
}

/// The file of a host that joins: it fails when it says something of the cluster, which it takes from the others.
pub fn only_of_host(path: &Path) -> Result<File> {
    let wrong = |why: &dyn std::fmt::Display| Fault::usage(format!("--config {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
    let value = crate::yaml::parse(&text).map_err(|e| wrong(&e))?;
    let said = |setting: &&Setting| setting.scope == Scope::Cluster && value.get(setting.field).is_some();
    match SETTINGS.iter().find(said) {
        None => File::parse(&text).map_err(|why| wrong(&why).into()),
        Some(Setting { field, .. }) => {
            let why =
                format!("{}{field}: it is the cluster's, and said where its control plane is", line_of(&text, field));
            Err(wrong(&why).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn every_setting_of_the_table_can_be_said() {
        for setting in SETTINGS {
            let said = File::parse(&format!("{}: {{}}", setting.field)).err().unwrap_or_default();
            assert!(!said.contains("there is no such field"), "{said}");
        }
    }

    #[test]
    fn an_agents_file_says_nothing_of_the_cluster() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config.yaml");
        let said = |text: &str| {
            std::fs::write(&file, text).expect("written");
            only_of_host(&file).map(|file| file.node_name).map_err(|error| error.to_string())
        };
        assert_eq!(said("nodeName: b\nnodeLabel: [zone=b]\n"), Ok(Some("b".to_owned())));
        assert!(
            said("nodeName: b\npodCIDR: 10.0.0.0/16\n")
                .is_err_and(|e| e.contains("line 2: podCIDR: it is the cluster's"))
        );
    }

    #[test]
    fn a_config_file_is_strict() {
        let whole = "apiPort: 7443\npodCIDR: 10.8.0.0/16\nclusterDomain: home.arpa\nnodeIP: 192.0.2.1\n";
        let file = File::parse(whole).expect("a file");
        assert_eq!((file.api_port, file.cluster_domain.as_deref()), (Some(7443), Some("home.arpa")));
        assert_eq!(File::parse("# nothing\n"), Ok(File::default()));
        let more =
            File::parse("tlsSAN: [a.example]\nfeatureGates: {SidecarContainers: true}\nbindAddress: 127.0.0.1\n");
        let options = more.expect("a file").options;
        assert_eq!(options.cluster.tls_san, Some(vec!["a.example".to_owned()]));
        assert!(
            options.cluster.feature_gates.is_some() && options.host.bind_address == Some(Ipv4Addr::LOCALHOST.into())
        );
        for (text, path, allowed) in [
            ("podCidr: 10.0.0.0/16", "line 1: podCidr: ", "podCIDR"),
            ("apiPort: high", "line 1: apiPort: ", "1 to 65535"),
            ("apiPort: 0", "line 1: apiPort: ", "1 to 65535"),
            ("podCIDR: 7", "line 1: podCIDR: ", "text"),
            ("serviceCIDR: 10.0.0.0", "line 1: serviceCIDR: ", "like 10.43.0.0/16"),
            ("nodeName: My_Node", "line 1: nodeName: ", "lower case"),
            ("nodeIP: '::1,::2'", "line 1: nodeIP: ", "one of each family"),
            ("hardened: maybe", "line 1: hardened: ", "neither true nor false"),
            ("# mine\napiPort: 7443\n'tlsSan': [a]", "line 3: tlsSan: ", "tlsSAN"),
            ("tlsSAN: a", "line 1: tlsSAN: ", "is not a list: write it like [a, b]"),
            ("{tlsSan: [a]}", "tlsSan: ", "no such field"),
            ("[apiPort]", "", "podCIDR"),
        ] {
            let error = File::parse(text).expect_err(text);
            assert!(error.starts_with(path) && error.contains(allowed), "{text}: {error}");
        }
    }
}
