//! What a cluster is made of ([`Cluster`]) and what a host of it is ([`Host`]). Flags, `--config FILE` and what an earlier
//! start chose come together here, in that order of precedence; `up`, `server`, `down`, `reset` and `status` read it.
//! [`settings`] is the table of what can be said, and whose each setting is.

mod cidr;
mod cluster;
mod differs;
mod endpoint;
mod file;
mod foreign;
mod gates;
mod host;
mod network;
mod node_ip;
mod options;
pub mod pool;
mod private;
pub mod record;
mod register;
mod roles;
mod settings;
mod state;
pub mod vacant;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use meta::{Prefix, Ranges};

use self::cidr::{fit, link_range};
pub use self::cidr::{pods, services};
pub use self::cluster::Cluster;
pub use self::differs::{differs, differs_until_up, without_second};
use self::file::read_file;
pub use self::file::{File, only_of_host, subdomain};
pub use self::foreign::Foreign;
pub use self::host::Host;
pub use self::network::{FlannelBackend, Network, SubnetManager};
pub use self::node_ip::NodeIp;
pub use self::options::{ClusterOptions, HostOptions, Options, SERVICE_LB, list};
pub use self::private::{private_dir, write_owned, write_private, write_private_all, write_shared};
pub use self::register::{HostLock, host_lock, known, lock_host, readable, register};
use self::register::{check_name, free_slot, own_slot, read_copy, registered, run_copy, unreadable};
pub use self::roles::Roles;
use crate::fault::Fault;

/// Where clusters live when `--data-dir` says nothing.
pub const STATE_ROOT: &str = "/var/lib/ferrokube";
/// Sockets and pid files: short, because a unix socket's path has 107 bytes at most.
pub const RUN_ROOT: &str = "/run/ferrokube";
/// What the bridges of clusters are called, with a number after it.
pub const BRIDGE: &str = "fk";
/// The file that a cluster is described in.
pub const STATE_FILE: &str = "cluster.json";
/// The API servers that a node alone knows of, in its data directory.
pub const SERVERS_FILE: &str = "servers.json";
const DEFAULT_NAME: &str = "ferrokube";

/// Flags shared by every command that names a cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Which {
    /// Name of the cluster [default: ferrokube]
    #[arg(long, global = true, value_name = "NAME")]
    pub name: Option<String>,
    /// Directory that holds the cluster's state [default: /var/lib/ferrokube/NAME]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Flags that shape a new cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Shape {
    /// Port of the API server [default: 6443]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub api_port: Option<u16>,
    /// Addresses of pods: one range, or one of IPv4 and one of IPv6, which may come later [default: 10.42.0.0/16]
    #[arg(long, value_name = "CIDR[,CIDR]", value_parser = pods)]
    pub pod_cidr: Option<Ranges>,
    /// Addresses of Services, of the same families as the pods' [default: 10.43.0.0/16]
    #[arg(long, value_name = "CIDR[,CIDR]", value_parser = services)]
    pub service_cidr: Option<Ranges>,
    /// Have the host's firewall (ufw, firewalld, Docker's, nftables) let packets of pods through; `reset` closes it again
    #[arg(long)]
    pub open_firewall: bool,
    /// Set what a CIS audit wants (SECURITY.md has the list); kept from then on, `hardened: false` takes it back
    #[arg(long)]
    pub hardened: bool,
    /// Have at least so many nodes on this host, each but the first in namespaces of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(record::MOST)))]
    pub nodes: Option<u16>,
    /// Addresses of the link between those nodes [default: 10.202.0.0/24, or another that this host doesn't use]
    #[arg(long, value_name = "CIDR", value_parser = link_range)]
    pub node_cidr: Option<Prefix>,
    /// What a host that joins has from the others.
    #[arg(skip)]
    pub cluster_domain: Option<String>,
    #[arg(skip)]
    pub foreign: Option<Foreign>,
    /// What `agent` has flags for.
    #[arg(skip)]
    pub node_name: Option<String>,
    #[arg(skip)]
    pub node_ip: Option<NodeIp>,
    #[command(flatten)]
    pub options: Options,
    /// The same as a YAML file: apiPort, podCIDR, serviceCIDR, clusterDomain, nodeName, nodeIP, hardened, openFirewall,
    /// bindAddress, tlsSAN, network and so on; flags have the last word
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What is in it, once it was read.
    #[arg(skip)]
    pub file: Option<File>,
}

impl Shape {
    /// The same with its file read: one that is asked for twice may be a pipe.
    pub fn read(&self) -> Result<Shape> {
        let file = match (&self.file, &self.config) {
            (None, Some(path)) => Some(read_file(path)?),
            (read, _) => read.clone(),
        };
        Ok(Shape { file, ..self.clone() })
    }
}

impl Which {
    /// The name that was asked for, or the default.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(DEFAULT_NAME)
    }

    /// The data directory: the flag's, the register's, or the default.
    pub fn dir(&self) -> PathBuf {
        if let Some(dir) = &self.data_dir {
            return std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        }
        registered(self.name()).unwrap_or_else(|| Path::new(STATE_ROOT).join(self.name()))
    }

    /// The cluster as an earlier start left it, or `None` when there is none.
    pub fn load(&self) -> Result<Option<Host>> {
        check_name(self.name())?;
        let path = self.dir().join(STATE_FILE);
        let bytes = match state::read(&path) {
            Ok(state::Read::Ours(bytes)) => bytes,
            Ok(state::Read::Foreign(uid)) => {
                let sentence = format!(
                    "{} belongs to user {uid}, not to root: nothing in it is believed; look at it and remove it by hand",
                    path.display()
                );
                bail!(Fault::failed(sentence));
            }
            // Whoever may not see the register does not know where the cluster is.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => match fs::read_dir(register()) {
                Err(e) if self.data_dir.is_none() && e.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(unreadable(&register(), e));
                }
                _ => return Ok(None),
            },
            Err(e) => return Err(unreadable(&path, e)),
        };
        let host: Host = serde_json::from_slice(&bytes).map_err(|e| {
            Fault::failed(format!("{}: {e}; `ferrokube reset` removes what is left of the cluster", path.display()))
        })?;
        check_name(&host.cluster.name).with_context(|| path.display().to_string())?;
        if let Some(asked) = self.name.as_ref().filter(|asked| **asked != host.cluster.name) {
            let (dir, name) = (self.dir(), &host.cluster.name);
            bail!(Fault::usage(format!(
                "{} holds the cluster {name:?}, not {asked:?}: say --name {name}",
                dir.display()
            )));
        }
        Ok(Some(own_slot(Host { data_dir: self.dir(), ..host }, &known())?))
    }

    /// The cluster, or what a damaged or half-removed one can still be recognised by; `None` when nothing says that
    /// the directory is its own, whatever it holds. `cluster.json` is the mark, written before anything else; where it
    /// is lost or damaged, its copy of this boot or the host's register must name this very directory.
    pub fn load_or_remains(&self) -> Result<Option<Host>> {
        check_name(self.name())?;
        let loaded = self.load();
        match loaded {
            Ok(Some(host)) => {
                // A copy of the directory has the same name, and with it the same processes and kernel objects.
                self.check_unused(&host.cluster.name)?;
                return Ok(Some(host));
            }
            Err(error) if error.downcast_ref::<Fault>().is_none_or(|fault| fault.code != 1) => return Err(error),
            _ => {}
        }
        let (name, dir) = (self.name(), self.dir());
        if let Some(host) = read_copy(&run_copy(name)).filter(|copy| copy.cluster.name == name && copy.data_dir == dir)
        {
            return Ok(Some(host));
        }
        // Its slot is lost: objects in one that no other cluster has can be nobody else's.
        if registered(name) == Some(dir) { Ok(Some(self.fresh(free_slot(name)?))) } else { Ok(None) }
    }

    /// The cluster to start: what exists, or a new one of this shape. A shape that differs from what exists is an
    /// error, because addresses and ports are in use already.
    pub fn resolve(&self, shape: &Shape) -> Result<Host> {
        let file = shape.read()?.file.unwrap_or_default();
        let existing = self.load()?;
        let slot = match &existing {
            Some(host) => host.slot,
            None => {
                self.check_unused(self.name())?;
                free_slot(self.name())?
            }
        };
        let base = existing.clone().unwrap_or_else(|| self.fresh(slot));
        let options = Options { cluster: base.cluster.options.clone(), host: base.options.clone() };
        let mut options = shape.options.clone().over(&file.options.over(&options)).checked().map_err(Fault::usage)?;
        if existing.is_none() {
            // What is there says what it has, or is of a version that had the bridge alone.
            options.cluster.network.get_or_insert(Network::Flannel);
        }
        let before = &base.cluster;
        let wanted = Host {
            cluster: Cluster {
                name: before.name.clone(),
                api_port: shape.api_port.or(file.api_port).unwrap_or(before.api_port),
                pod_cidr: shape.pod_cidr.or(file.pod_cidr).unwrap_or(before.pod_cidr),
                service_cidr: shape.service_cidr.or(file.service_cidr).unwrap_or(before.service_cidr),
                cluster_domain: (shape.cluster_domain.clone().or(file.cluster_domain))
                    .unwrap_or_else(|| before.cluster_domain.clone()),
                hardened: shape.hardened || file.hardened.unwrap_or(before.hardened),
                foreign: shape.foreign.clone().or_else(|| before.foreign.clone()),
                options: options.cluster,
            },
            node_name: shape.node_name.clone().or(file.node_name).unwrap_or_else(|| base.node_name.clone()),
            node_ip: shape.node_ip.or(file.node_ip).or(base.node_ip),
            open_firewall: shape.open_firewall || file.open_firewall.unwrap_or(base.open_firewall),
            options: options.host,
            ..base.clone()
        };
        check_ranges(&wanted.cluster, existing.as_ref().map(|existing| &existing.cluster))?;
        if let Some(ip) = wanted.node_ip.and_then(|said| said.iter().find(|ip| !wanted.cluster.has_family(*ip))) {
            let pods = wanted.cluster.pod_cidr;
            bail!(Fault::usage(format!(
                "nodeIP {ip}: pods of the cluster are in {pods}: say an address of that family"
            )));
        }
        if let Some(existing) = existing {
            check_parts(&wanted, &existing)?;
        }
        Ok(wanted)
    }

    /// A new cluster may not have the name of one that is elsewhere.
    fn check_unused(&self, name: &str) -> Result<()> {
        let Some(other) = registered(name).filter(|dir| *dir != self.dir() && dir.join(STATE_FILE).exists()) else {
            return Ok(());
        };
        bail!(Fault::usage(format!(
            "the cluster {name:?} is in {}: choose another --name for one in {}",
            other.display(),
            self.dir().display()
        )))
    }

    fn fresh(&self, slot: u16) -> Host {
        let (pod_cidr, service_cidr) = vacant::ranges(slot);
        Host {
            cluster: Cluster {
                name: self.name().to_owned(),
                api_port: 6443 + slot,
                pod_cidr,
                service_cidr,
                cluster_domain: "cluster.local".into(),
                hardened: false,
                foreign: None,
                options: ClusterOptions::default(),
            },
            data_dir: self.dir(),
            slot,
            node_name: node_name(),
            node_ip: None,
            open_firewall: false,
            options: HostOptions::default(),
        }
    }
}

/// What pods and Services have addresses of can't change under them, but for a second family that comes; and no address
/// may mean two things.
fn check_ranges(wanted: &Cluster, existing: Option<&Cluster>) -> Result<()> {
    let Cluster { pod_cidr, service_cidr, .. } = wanted;
    let stays = |before: &&Cluster| (before.pod_cidr, before.service_cidr) == (*pod_cidr, *service_cidr);
    if let Some(before) = existing.filter(|before| !stays(before) && !before.gains(pod_cidr, service_cidr)) {
        bail!(Fault::usage(cidr::stay(before)));
    }
    fit(pod_cidr, service_cidr).map_err(Fault::usage)?;
    Ok(pool::fit(wanted).map_err(Fault::usage)?)
}

/// What stays with a host: its pods, and the store of its cluster.
fn check_parts(wanted: &Host, existing: &Host) -> Result<()> {
    let (name, etcd) = (&existing.cluster.name, existing.cluster.has_etcd_elsewhere());
    if etcd != wanted.cluster.has_etcd_elsewhere() {
        let where_ = if etcd { "in the etcd cluster of --etcd-servers" } else { "in an etcd of its own" };
        let sentence = format!("the cluster {name:?} is stored {where_}, and would not be found elsewhere");
        bail!(Fault::usage(sentence));
    }
    if existing.roles().has(Roles::NODE) && !wanted.roles().has(Roles::NODE) {
        bail!(Fault::usage(format!(
            "--disable-node: this host is a node of the cluster {name:?}, and may have pods; `ferrokube reset` first"
        )));
    }
    Ok(())
}

/// The host's name, as the kernel has it.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// The host's name as one that a node may have.
fn node_name() -> String {
    let name: String = host_name()
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' })
        .collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    if name.is_empty() || name == "localhost" { "node".into() } else { name }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A cluster in this directory.
    pub fn host(dir: &Path) -> Host {
        named("test", dir)
    }

    /// The same of this name.
    pub fn named(name: &str, dir: &Path) -> Host {
        let which = Which { name: Some(name.to_owned()), data_dir: Some(dir.to_owned()) };
        let mut host = Host { node_name: "node".into(), ..which.fresh(0) };
        // Whatever other clusters and routes this machine has.
        let range = |text: &str| text.parse().expect("a range");
        (host.cluster.pod_cidr, host.cluster.service_cidr) = (range("10.42.0.0/16"), range("10.43.0.0/16"));
        host
    }

    #[test]
    fn ports_and_ranges_of_two_clusters_never_meet() {
        let which = Which { name: Some("a".into()), data_dir: Some("/nowhere".into()) };
        let (a, b) = (which.fresh(0), which.fresh(1));
        assert_eq!(a.cluster.pod_cidr.overlap(&b.cluster.pod_cidr), None);
        assert_eq!(a.cluster.service_cidr.overlap(&b.cluster.pod_cidr), None);
        assert_ne!(a.cluster.api_port, b.cluster.api_port);
        assert_ne!(a.bridge(), b.bridge());
    }

    #[test]
    fn what_stays_with_a_host_is_not_taken_from_it_by_a_flag() {
        let all = host("/d".as_ref());
        let says = |wanted: &Host, existing: &Host| check_parts(wanted, existing).err().map(|e| e.to_string());
        let mut alone = all.clone();
        alone.options.disable_node = Some(true);
        assert!(says(&alone, &all).is_some_and(|said| said.contains("is a node")));
        assert_eq!(says(&all, &alone), None, "it may become one");
        let mut shared = all.clone();
        shared.cluster.options.etcd_servers = Some(vec!["https://192.0.2.1:2379".into()]);
        assert!(says(&shared, &all).is_some_and(|said| said.contains("in an etcd of its own")));
        assert!(says(&all, &shared).is_some_and(|said| said.contains("--etcd-servers")));
        let mut moved = shared.clone();
        moved.cluster.options.etcd_servers = Some(vec!["https://192.0.2.2:2379".into()]);
        assert_eq!(says(&moved, &shared), None);
    }

    /// `mkdir -p v/pki v/docs; reset --name never --data-dir v` removed `v` with all in it.
    #[test]
    fn a_directory_without_our_mark_is_no_clusters() {
        let dir = std::env::temp_dir().join(format!("mark-{}", std::process::id()));
        for name in ["pki", "docs", "etcd", "runtime"] {
            fs::create_dir_all(dir.join(name)).expect("a directory");
        }
        let which = |name: Option<&str>| Which { name: name.map(Into::into), data_dir: Some(dir.clone()) };
        let remains =
            |name| which(name).load_or_remains().map(|c| c.map(|c| c.cluster.name)).map_err(|e| e.to_string());
        assert_eq!(remains(Some("mark-never")), Ok(None));
        let host = which(Some("mark-a")).fresh(7);
        fs::write(dir.join(STATE_FILE), serde_json::to_vec(&host).expect("json")).expect("written");
        assert!(remains(Some("mark-b")).expect_err("refused").contains("holds the cluster \"mark-a\""));
        assert!(remains(Some(DEFAULT_NAME)).is_err(), "also when the name is the default's");
        assert_eq!(remains(Some("mark-a")), Ok(Some("mark-a".into())));
        assert_eq!(remains(None), Ok(Some("mark-a".into())), "the directory alone says which");
        fs::write(dir.join(STATE_FILE), "{").expect("written");
        assert_eq!(remains(Some("mark-a")), Ok(None), "damaged, and nothing else knows of it");
        fs::remove_dir_all(dir).expect("removed");
    }
}
