//! Which further nodes this host has: their names, their places on the underlay, whether they are to run. A file in
//! `<data-dir>/nodes` that the commands write and the keeper reads. What becomes of it is pure; reading and writing is I/O.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use meta::{Prefix, Ranges};
use serde::{Deserialize, Serialize};

use super::{Cluster, Host, NodeIp, private_dir, write_private};
use crate::fault::Fault;

/// The file; no node has such a name.
const FILE: &str = ".record";
/// No record is longer.
const LONGEST: u64 = 1 << 20;
/// Nodes of a host, its own among them: each has a kubelet and a runtime, and inotify's instances end soon after.
pub const MOST: u16 = 100;
/// Of a name that is made from the host's: what comes after it has room.
const STEM: usize = 50;
/// The host's own place on the underlay.
const GATEWAY: u8 = 1;

/// See the module's head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Addresses of the underlay.
    pub range: Prefix,
    /// The same of IPv6, in a cluster that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range6: Option<Prefix>,
    pub nodes: Vec<Node>,
}

/// A further node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    /// Its place in the range, kept as long as it lives.
    pub number: u8,
    /// Somebody has stopped it.
    #[serde(default)]
    pub stopped: bool,
    /// `key=value`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// `key=value:effect`.
    #[serde(default)]
    pub taints: Vec<String>,
}

impl Record {
    pub fn new(range: Prefix) -> Record {
        Record { range, range6: None, nodes: Vec::new() }
    }

    /// The host's own address on the underlay.
    pub fn gateway(&self) -> Ipv4Addr {
        self.nth(GATEWAY)
    }

    pub fn address(&self, node: &Node) -> Ipv4Addr {
        self.nth(node.number)
    }

    /// The addresses of a node of the families that its cluster has.
    pub fn node_ip(&self, node: &Node, cluster: &Cluster) -> NodeIp {
        let (v4, v6) = (self.address(node).into(), self.address6(node).map(|address| address.addr));
        match v6.filter(|_| !cluster.has_family(v4)) {
            Some(v6) => v6.into(),
            None => NodeIp::of(v4, v6),
        }
    }

    /// The same addresses of IPv6, each with the length of the range.
    pub fn gateway6(&self) -> Option<Prefix> {
        self.nth6(GATEWAY)
    }

    /// Of each family that the link has.
    pub fn gateways(&self) -> Vec<IpAddr> {
        [self.gateway().into()].into_iter().chain(self.gateway6().map(|gateway| gateway.addr)).collect()
    }

    pub fn address6(&self, node: &Node) -> Option<Prefix> {
        self.nth6(node.number)
    }

    fn nth6(&self, number: u8) -> Option<Prefix> {
        let range = self.range6?;
        Some(Prefix::new(range.nth(number.into())?, range.len))
    }

    /// All addresses of the underlay.
    pub fn ranges(&self) -> Ranges {
        let both: Vec<Prefix> = [self.range].into_iter().chain(self.range6).collect();
        Ranges::of(&both).unwrap_or(self.range.into())
    }

    fn nth(&self, number: u8) -> Ipv4Addr {
        match self.range.nth(number.into()) {
            Some(IpAddr::V4(ip)) => ip,
            // Ranges are of IPv4, and numbers inside.
            _ => Ipv4Addr::UNSPECIFIED,
        }
    }

    pub fn get(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node of this name, for a command that names it.
    pub fn named(&mut self, name: &str) -> Result<&mut Node, Fault> {
        let names = self.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
        let there = if names.is_empty() { "it has none".to_owned() } else { format!("it has {names}") };
        let found = self.nodes.iter_mut().find(|node| node.name == name);
        found.ok_or_else(|| Fault::failed(format!("this host has no further node {name:?}: {there}")))
    }

    /// Adds a node, under this name or one made from the host's.
    pub fn add(
        &mut self,
        host: &str,
        name: Option<&str>,
        labels: &[String],
        taints: &[String],
    ) -> Result<String, Fault> {
        let number = self.free()?;
        let name = match name {
            Some(name) => name.to_owned(),
            None => self.fresh(host, number),
        };
        if let Some(wrong) = meta::names::dns1123_label(&name).first() {
            return Err(Fault::usage(format!("a node can't be called {name:?}: {wrong}")));
        }
        if name == host || self.get(&name).is_some() {
            return Err(Fault::failed(format!("there is a node {name:?} already")));
        }
        let (labels, taints) = (labels.to_vec(), taints.to_vec());
        self.nodes.push(Node { name: name.clone(), number, stopped: false, labels, taints });
        Ok(name)
    }

    fn free(&self) -> Result<u8, Fault> {
        if self.nodes.len() + 1 >= usize::from(MOST) {
            return Err(Fault::failed(format!("this host has {MOST} nodes, and holds no more")));
        }
        // The last address is for all of the link.
        let last = self.range.offset(self.range.last()).unwrap_or(0).min(255) as u8;
        let free = (GATEWAY + 1..last).find(|number| self.nodes.iter().all(|node| node.number != *number));
        free.ok_or_else(|| Fault::failed(format!("{} has no address left for a node", self.range)))
    }

    /// `<host>-2`: the host's own is the first.
    fn fresh(&self, host: &str, number: u8) -> String {
        let label = host.split('.').next().unwrap_or(host);
        let stem = label.get(..STEM.min(label.len())).unwrap_or("node").trim_end_matches('-');
        let names = (u32::from(number)..).map(|n| format!("{stem}-{n}"));
        let mut free = names.filter(|name| name != host && self.get(name).is_none());
        free.next().unwrap_or_default()
    }
}

/// Where the nodes' directories are.
pub fn dir(host: &Host) -> PathBuf {
    host.data_dir.join("nodes")
}

/// What is written down; none when this host never had a further node.
pub fn read(host: &Host) -> Result<Option<Record>> {
    let path = dir(host).join(FILE);
    match linux::root::read_regular(&path, LONGEST) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| path.display().to_string()),
    }
}

/// Every node that there is.
pub fn nodes(host: &Host) -> Result<Vec<Node>> {
    Ok(read(host)?.map(|record| record.nodes).unwrap_or_default())
}

pub fn write(host: &Host, record: &Record) -> Result<()> {
    private_dir(&dir(host))?;
    write_private(&dir(host).join(FILE), &serde_json::to_vec_pretty(record)?)
}

/// Held while the record changes; who starts a node shares one with others who do.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "dropping it lets the next one in")] fs::File);

/// Nobody starts a node, and nobody else changes the record, until it is dropped.
pub fn lock(host: &Host) -> Result<Lock> {
    lock_by(host, fs::File::lock)
}

/// The record doesn't change until it is dropped.
pub fn share(host: &Host) -> Result<Lock> {
    lock_by(host, fs::File::lock_shared)
}

fn lock_by(host: &Host, lock: fn(&fs::File) -> std::io::Result<()>) -> Result<Lock> {
    let place: &Path = &dir(host);
    private_dir(place)?;
    let locked = fs::File::open(place).and_then(|dir| lock(&dir).map(|()| dir));
    Ok(Lock(locked.with_context(|| format!("locking {}", place.display()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::new("10.202.0.0/24".parse().expect("a range"))
    }

    #[test]
    fn names_and_places_are_given_once_and_again_when_they_are_free() {
        let mut record = record();
        let mut add = |name: Option<&str>| record.add("laptop.home", name, &[], &[]).map_err(|fault| fault.sentence);
        assert_eq!(add(None).as_deref(), Ok("laptop-2"));
        assert_eq!(add(Some("laptop-3")).as_deref(), Ok("laptop-3"));
        assert_eq!(add(None).as_deref(), Ok("laptop-4"));
        assert_eq!(add(Some("blue")).as_deref(), Ok("blue"));
        assert!(add(Some("blue")).is_err_and(|said| said.contains("already")));
        assert!(add(Some("laptop.home")).is_err(), "a label");
        assert!(add(Some("..")).is_err_and(|said| said.contains("can't be called")));
        assert_eq!(record.gateway().to_string(), "10.202.0.1");
        assert_eq!(record.get("blue").map(|node| record.address(node).to_string()).as_deref(), Some("10.202.0.5"));
        record.nodes.retain(|node| node.name != "laptop-3");
        record.add("laptop.home", Some("green"), &[], &[]).expect("added");
        assert_eq!(record.get("green").map(|node| node.number), Some(3));
        let said = record.named("red").expect_err("unknown").sentence;
        assert!(said.contains("laptop-2, laptop-4, blue, green"), "{said}");
    }

    #[test]
    fn a_range_ends() {
        let mut record = Record::new("10.9.0.0/29".parse().expect("a range"));
        for n in 2..=6 {
            assert_eq!(record.add("h", None, &[], &[]).map_err(|f| f.sentence), Ok(format!("h-{n}")));
        }
        assert!(record.add("h", None, &[], &[]).is_err_and(|fault| fault.sentence.contains("no address left")));
        let mut record = self::record();
        let added = (0..200).take_while(|_| record.add("h", None, &[], &[]).is_ok()).count();
        assert_eq!(added + 1, usize::from(MOST));
    }

    #[test]
    fn a_host_with_a_long_name_has_nodes_whose_names_are_labels() {
        let mut record = record();
        let long = format!("{}.example", "a".repeat(63));
        let name = record.add(&long, None, &[], &[]).expect("added");
        assert_eq!(name, format!("{}-2", "a".repeat(STEM)));
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = crate::config::tests::host(dir.path());
        assert_eq!(read(&host).expect("read"), None);
        let mut record = record();
        record.add("h", None, &["a=b".to_owned()], &["c=d:NoSchedule".to_owned()]).expect("added");
        let lock = lock(&host).expect("locked");
        write(&host, &record).expect("written");
        drop(lock);
        let (_one, _other) = (share(&host).expect("locked"), share(&host).expect("shared"));
        assert_eq!(read(&host).expect("read"), Some(record));
    }

    #[test]
    fn nodes_of_a_cluster_of_two_families_have_an_address_of_each() {
        let mut record = record();
        record.add("h", None, &[], &[]).expect("added");
        let json = serde_json::to_value(&record).expect("JSON");
        assert_eq!((json.get("range6"), record.gateway6()), (None, None), "as it was");
        record.range6 = "fd66:6b::/64".parse().ok();
        let text = |address: Option<Prefix>| address.map(|address| address.to_string()).unwrap_or_default();
        assert_eq!(text(record.gateway6()), "fd66:6b::1/64");
        assert_eq!(text(record.address6(&record.nodes[0])), "fd66:6b::2/64");
        let mut cluster = crate::config::tests::host("/nowhere".as_ref()).cluster;
        for (pods, expected) in [("10.42.0.0/16,fd42::/56", "10.202.0.2,fd66:6b::2"), ("fd42::/56", "fd66:6b::2")] {
            cluster.pod_cidr = pods.parse().expect("ranges");
            assert_eq!(record.node_ip(&record.nodes[0], &cluster).to_string(), expected);
        }
        assert_eq!(record.ranges().to_string(), "10.202.0.0/24,fd66:6b::/64");
    }
}
