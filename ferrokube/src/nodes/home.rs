//! A node's directory, seen from the host: what is put there before the node starts (what it is, its certificates, the
//! way to the API server), its log, and its end. The node has the directory at the same path, and pods on it may have
//! changed anything in there: nothing is looked up but below it, and no link is taken (`linux::root`). I/O.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use linux::root::{Beneath, Owner, Root};
use rustix::fs::{Mode, OFlags};

use crate::balancer;
use crate::config::record::{self, Node, Record};
use crate::config::{Host, HostOptions, SERVERS_FILE, STATE_FILE};
use crate::fault::Fault;
use crate::joining::credentials;
use crate::pki::Pki;

/// Certificates and kubeconfigs.
const PKI: &str = "pki";
/// What systemd calls a machine by; each node has another.
const MACHINE_ID: &str = "machine-id";
const LOG: &str = "daemon.log";
/// No certificate, key or number is longer.
const LONGEST: u64 = 64 << 10;

pub fn path(host: &Host, name: &str) -> PathBuf {
    record::dir(host).join(name)
}

/// The host that a node is to itself: a node alone.
pub fn host_of(host: &Host, record: &Record, node: &Node) -> Host {
    let said = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let data_dir = path(host, &node.name);
    Host {
        cluster: host.cluster.clone(),
        slot: host.slot,
        node_name: node.name.clone(),
        node_ip: Some(record.node_ip(node, &host.cluster)),
        open_firewall: false,
        options: HostOptions {
            credentials: Some(data_dir.join(PKI)),
            node_label: said(&node.labels),
            node_taint: said(&node.taints),
            kubelet_arg: host.options.kubelet_arg.clone(),
            kube_proxy_arg: host.options.kube_proxy_arg.clone(),
            flannel_arg: host.options.flannel_arg.clone(),
            registries: host.options.registries.clone(),
            ..HostOptions::default()
        },
        data_dir,
    }
}

/// Where nodes of this host reach its API server.
fn server(host: &Host, gateway: Ipv4Addr) -> SocketAddr {
    SocketAddr::new(host.advertised(gateway.into()), host.cluster.api_port)
}

/// Those that a node's certificate names: what it is given on the link between nodes, and never one of this host's.
fn addresses(inside: &Host) -> Vec<IpAddr> {
    let given = |v6: bool| inside.node_ip?.family(v6);
    inside.cluster.pod_cidr.iter().filter_map(|range| given(range.is_ipv6())).collect()
}

/// Puts all into a node's directory that it starts with. What the node has renewed since stays.
pub fn furnish(host: &Host, record: &Record, node: &Node) -> Result<Host> {
    let inside = host_of(host, record, node);
    let dir = open(host, &node.name)?;
    let doing = || format!("writing {}", inside.data_dir.display());
    replace(&dir, STATE_FILE, &serde_json::to_vec_pretty(&inside)?).with_context(doing)?;
    if dir.stat(MACHINE_ID).is_err() {
        replace(&dir, MACHINE_ID, format!("{}\n", number()?).as_bytes()).with_context(doing)?;
    }
    let pki = dir.make_dirs(PKI, 0o700).with_context(doing)?;
    let granted =
        Pki::of(host).grant(&inside, &addresses(&inside), Timestamp::now(), |name| pki.read(name, LONGEST).ok())?;
    let ca = Pki::of(host).ca();
    let ca = std::fs::read_to_string(&ca).with_context(|| ca.display().to_string())?;
    let servers = balancer::given(vec![server(host, record.gateway()).to_string()])?;
    replace(&dir, SERVERS_FILE, servers.as_bytes()).with_context(doing)?;
    let shared = credentials::files(&Pki::of(&inside), &node.name, &balancer::url(&inside), &ca);
    let shared = shared.into_iter().map(|(name, text)| (name.to_owned(), text));
    for (name, text) in granted.into_iter().chain(shared) {
        replace(&pki, &name, text.as_bytes()).with_context(doing)?;
    }
    Ok(inside)
}

fn open(host: &Host, name: &str) -> Result<Beneath> {
    let nodes = record::dir(host);
    let made = Beneath::open(&nodes).and_then(|nodes| nodes.make_dirs(name, 0o700));
    made.with_context(|| path(host, name).display().to_string())
}

/// Writes a file whole or not at all, whatever is in its place.
fn replace(dir: &Beneath, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let draft = format!("{name}.new");
    dir.remove_tree(&draft)?;
    dir.write_new(&draft, bytes, 0o600, Owner::default())?;
    dir.rename(&draft, name)
}

/// The number that the node is known by in its own files.
pub fn machine_id(host: &Host, name: &str) -> Result<String> {
    let bytes = open(host, name)?.read(MACHINE_ID, LONGEST).context("the node's machine-id")?;
    String::from_utf8(bytes).context("the node's machine-id is no text")
}

/// 128 bits of chance, as machine-id(5) writes them.
pub fn number() -> Result<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("the kernel gives no random bytes"))?;
    Ok(runtime::digest::hex(&bytes))
}

/// The node's log, to be written on.
pub fn log(host: &Host, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW;
    let opened = Root::open(path(host, name)).and_then(|dir| dir.create(LOG, flags, Mode::from_raw_mode(0o600)));
    opened.with_context(|| path(host, name).join(LOG).display().to_string())
}

/// The node's log, to be read.
pub fn read_log(host: &Host, name: &str) -> std::io::Result<File> {
    Beneath::open(path(host, name))?.file(LOG)
}

/// The last line of a node's log.
pub fn last_words(host: &Host, name: &str) -> String {
    /// A line is shorter.
    const TAIL: u64 = 4096;
    let read = || -> std::io::Result<String> {
        let mut log = read_log(host, name)?;
        let end = log.metadata()?.len();
        std::io::Seek::seek(&mut log, std::io::SeekFrom::Start(end.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(log, TAIL), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it left no word").trim().to_owned()
}

/// Removes all that a node kept; idempotent. It must have ended.
pub fn remove(host: &Host, name: &str) -> Result<()> {
    let removed = match Beneath::open(record::dir(host)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        dir => dir.and_then(|dir| dir.remove_tree(name)),
    };
    removed.map_err(|error| Fault::failed(format!("removing {}: {error}", path(host, name).display())).into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_node_is_given_what_a_machine_that_joined_has() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = crate::config::tests::host(dir.path());
        Pki::ensure(&host, &[[192, 0, 2, 1].into()]).expect("certificates");
        let mut record = Record::new("10.202.0.0/24".parse().expect("a range"));
        record.add("node", Some("b"), &["zone=b".to_owned()], &[]).expect("added");
        record::write(&host, &record).expect("written");
        let inside = furnish(&host, &record, &record.nodes[0]).expect("furnished");
        let read = |name: &str| fs::read_to_string(path(&host, "b").join(name)).expect(name);
        let state: Host = serde_json::from_str(&read(STATE_FILE)).expect("a host");
        assert_eq!(state, inside);
        assert!(!state.roles().has(crate::config::Roles::CONTROL_PLANE) && state.node_name == "b");
        assert!(read("pki/kubelet.conf").contains(&balancer::url(&inside)));
        assert!(read(SERVERS_FILE).contains("\"10.202.0.1:6443\""));
        let (client, id) = (read("pki/kubelet-client.crt"), read("machine-id"));
        assert_eq!(id.len(), 33);
        furnish(&host, &record, &record.nodes[0]).expect("again");
        assert_eq!((read("pki/kubelet-client.crt"), read("machine-id")), (client, id));
        Pki::ensure(&state, &[record.address(&record.nodes[0]).into()]).expect("all is there");
    }

    #[test]
    fn a_nodes_certificate_names_what_it_has_on_its_link_and_no_address_of_the_hosts() {
        let mut host = crate::config::tests::host("/nowhere".as_ref());
        host.cluster.pod_cidr = "10.42.0.0/16,fd42::/56".parse().expect("ranges");
        let mut record = Record::new("10.202.0.0/24".parse().expect("a range"));
        record.add("node", Some("b"), &[], &[]).expect("added");
        let named = |record: &Record| addresses(&host_of(&host, record, &record.nodes[0]));
        assert_eq!(named(&record), [IpAddr::from([10, 202, 0, 2])], "the link has one family");
        record.range6 = "fd66:6b::/64".parse().ok();
        assert_eq!(named(&record)[1..], ["fd66:6b::2".parse::<IpAddr>().expect("an address")]);
    }

    /// What runs on a node may change its directory, and root writes there.
    #[test]
    fn a_link_in_a_nodes_directory_leads_the_host_nowhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let (host, other) = (crate::config::tests::host(dir.path()), tempfile::tempdir().expect("a directory"));
        Pki::ensure(&host, &[[192, 0, 2, 1].into()]).expect("certificates");
        let mut record = Record::new("10.202.0.0/24".parse().expect("a range"));
        record.add("node", Some("b"), &[], &[]).expect("added");
        record::write(&host, &record).expect("written");
        let home = path(&host, "b");
        fs::create_dir(&home).expect("a directory");
        fs::write(other.path().join("log"), "theirs").expect("written");
        symlink(other.path(), home.join(PKI)).expect("a link");
        furnish(&host, &record, &record.nodes[0]).expect_err("refused");
        fs::remove_file(home.join(PKI)).expect("removed");
        fs::remove_file(home.join(STATE_FILE)).expect("removed");
        symlink(other.path().join("state"), home.join(STATE_FILE)).expect("a link");
        symlink(other.path().join("log"), home.join(LOG)).expect("a link");
        furnish(&host, &record, &record.nodes[0]).expect("the link was replaced");
        assert!(log(&host, "b").is_err() && read_log(&host, "b").is_err());
        assert_eq!(last_words(&host, "b"), "it left no word");
        remove(&host, "b").expect("removed");
        let mut left: Vec<_> = fs::read_dir(other.path()).expect("read").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["log"]);
    }
}
