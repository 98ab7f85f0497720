//! What a cluster is made of: name, directories, ports, address ranges. Flags, `--config FILE` and what an earlier
//! start chose come together here, in that order of precedence; `up`, `server`, `down`, `reset` and `status` read it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// Where clusters live when `--data-dir` says nothing.
pub const STATE_ROOT: &str = "/var/lib/ferrokube";
/// Sockets and pid files: short, because a unix socket's path has 107 bytes at most.
pub const RUN_ROOT: &str = "/run/ferrokube";
/// Clusters a host can hold side by side with addresses of our choosing (10.42.0.0/16 to 10.201.0.0/16, in pairs).
const SLOTS: u16 = 80;

/// Flags shared by every command that names a cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Which {
    /// Name of the cluster
    #[arg(long, default_value = "ferrokube", global = true, value_name = "NAME")]
    pub name: String,
    /// Directory that holds the cluster's state [default: /var/lib/ferrokube/NAME]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Flags that shape a new cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Shape {
    /// Port of the API server [default: 6443]
    #[arg(long, value_name = "PORT")]
    pub api_port: Option<u16>,
    /// Addresses of pods [default: 10.42.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<Cidr>,
    /// Addresses of Services [default: 10.43.0.0/16]
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<Cidr>,
    /// The same as a YAML file: apiPort, podCIDR, serviceCIDR, clusterDomain, nodeName, nodeIP
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The file behind `--config`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_port: Option<u16>,
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<Cidr>,
    #[serde(rename = "serviceCIDR")]
    service_cidr: Option<Cidr>,
    cluster_domain: Option<String>,
    node_name: Option<String>,
    #[serde(rename = "nodeIP")]
    node_ip: Option<Ipv4Addr>,
}

/// An IPv4 range, written `address/bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub address: Ipv4Addr,
    pub bits: u8,
}

impl Cidr {
    /// The `n`th address of the range.
    pub fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) + n)
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.overlaps(&Cidr { address, bits: 32 })
    }

    fn overlaps(&self, other: &Cidr) -> bool {
        let bits = self.bits.min(other.bits);
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        u32::from(self.address) & mask == u32::from(other.address) & mask
    }
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(s: &str) -> Result<Cidr, String> {
        let wrong = || format!("{s:?} is not an IPv4 range: write it like 10.42.0.0/16");
        let (address, bits) = s.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u8 = bits.parse().map_err(|_| wrong())?;
        if !(8..=24).contains(&bits) {
            return Err(format!("{s:?}: the range must be between /8 and /24"));
        }
        let mask = u32::MAX << (32 - u32::from(bits));
        Ok(Cidr { address: Ipv4Addr::from(u32::from(address) & mask), bits })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Cidr {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Cidr, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A cluster, whole. Kept as `cluster.json` in the data directory, so that the next `up` continues from it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub name: String,
    pub data_dir: PathBuf,
    /// Which of the host's clusters this is: ports and ranges follow from it where nobody chose.
    pub slot: u16,
    pub api_port: u16,
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
    pub cluster_domain: String,
    pub node_name: String,
    pub node_ip: Option<Ipv4Addr>,
}

impl Cluster {
    pub fn pki(&self) -> PathBuf {
        self.data_dir.join("pki")
    }
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }
    pub fn log(&self) -> PathBuf {
        self.data_dir.join("daemon.log")
    }
    pub fn run_dir(&self) -> PathBuf {
        Path::new(RUN_ROOT).join(&self.name)
    }
    pub fn pid_file(&self) -> PathBuf {
        self.run_dir().join("daemon.pid")
    }
    pub fn cri_socket(&self) -> PathBuf {
        self.run_dir().join("cri.sock")
    }
    pub fn runtime_root(&self) -> PathBuf {
        self.data_dir.join("runtime")
    }
    pub fn kubelet_root(&self) -> PathBuf {
        self.data_dir.join("kubelet")
    }
    /// Ports of this cluster's slot: upstream's, 20 further for each further cluster.
    pub fn port(&self, upstream: u16) -> u16 {
        upstream + 20 * self.slot
    }
    pub fn etcd_port(&self) -> u16 {
        self.port(2379)
    }
    pub fn kubelet_port(&self) -> u16 {
        self.port(10250)
    }
    /// What our links, tables and cgroups are called: two clusters never share one.
    pub fn tag(&self) -> String {
        if self.slot == 0 { "ferrokube".into() } else { format!("ferrokube{}", self.slot) }
    }
    pub fn bridge(&self) -> String {
        format!("fk{}", self.slot)
    }
    pub fn api_service_ip(&self) -> Ipv4Addr {
        self.service_cidr.nth(1)
    }
    pub fn dns_ip(&self) -> Ipv4Addr {
        self.service_cidr.nth(10)
    }
    pub fn server_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }

    fn state_file(&self) -> PathBuf {
        self.data_dir.join("cluster.json")
    }

    /// Writes `cluster.json` and the host's register of clusters.
    pub fn save(&self) -> Result<()> {
        private_dir(&self.data_dir)?;
        private_dir(&register())?;
        write_private(&self.state_file(), &serde_json::to_vec_pretty(self)?)?;
        write_private(&register().join(&self.name), self.data_dir.as_os_str().as_encoded_bytes())
    }
}

/// Every cluster of the host is listed here, wherever its data directory is.
pub fn register() -> PathBuf {
    Path::new(STATE_ROOT).join(".clusters")
}

/// The names and data directories of the clusters of this host.
pub fn known() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(register()).into_iter().flatten().flatten();
    let mut known: Vec<_> = entries
        .filter_map(|e| {
            let dir = fs::read_to_string(e.path()).ok()?;
            Some((e.file_name().into_string().ok()?, PathBuf::from(dir)))
        })
        .collect();
    known.sort();
    known
}

impl Which {
    /// The data directory: the flag's, the register's, or the default.
    pub fn dir(&self) -> PathBuf {
        if let Some(dir) = &self.data_dir {
            return std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        }
        let registered = known().into_iter().find(|(name, _)| *name == self.name);
        registered.map_or_else(|| Path::new(STATE_ROOT).join(&self.name), |(_, dir)| dir)
    }

    /// The cluster as an earlier start left it, or `None` when there is none.
    pub fn load(&self) -> Result<Option<Cluster>> {
        self.check_name()?;
        let path = self.dir().join("cluster.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        let cluster: Cluster = serde_json::from_slice(&bytes).map_err(|e| {
            Fault::failed(format!("{}: {e}; `ferrokube reset` removes what is left of the cluster", path.display()))
        })?;
        Ok(Some(Cluster { data_dir: self.dir(), ..cluster }))
    }

    /// The cluster, or what a damaged or half-removed one can still be recognised by; `None` when nothing is left.
    pub fn load_or_remains(&self) -> Result<Option<Cluster>> {
        self.check_name()?;
        if let Ok(Some(cluster)) = self.load() {
            return Ok(Some(cluster));
        }
        let dir = self.dir();
        let ours = ["cluster.json", "etcd", "pki", "runtime"].iter().any(|f| dir.join(f).exists());
        let running = Path::new(RUN_ROOT).join(&self.name).exists();
        Ok((ours || running).then(|| self.fresh(0)))
    }

    fn check_name(&self) -> Result<()> {
        let good = !self.name.is_empty()
            && self.name.len() <= 40
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !self.name.starts_with('-')
            && !self.name.ends_with('-');
        if good {
            return Ok(());
        }
        bail!(Fault::usage(format!(
            "--name {:?}: use at most 40 lower-case letters, digits and inner dashes",
            self.name
        )))
    }

    /// The cluster to start: what exists, or a new one of this shape. A shape that differs from what exists is an
    /// error, because addresses and ports are in use already.
    pub fn resolve(&self, shape: &Shape) -> Result<Cluster> {
        let file = shape.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let existing = self.load()?;
        let slot = match &existing {
            Some(cluster) => cluster.slot,
            None => free_slot(&self.name)?,
        };
        let base = existing.clone().unwrap_or_else(|| self.fresh(slot));
        let wanted = Cluster {
            api_port: shape.api_port.or(file.api_port).unwrap_or(base.api_port),
            pod_cidr: shape.pod_cidr.or(file.pod_cidr).unwrap_or(base.pod_cidr),
            service_cidr: shape.service_cidr.or(file.service_cidr).unwrap_or(base.service_cidr),
            cluster_domain: file.cluster_domain.unwrap_or_else(|| base.cluster_domain.clone()),
            node_name: file.node_name.unwrap_or_else(|| base.node_name.clone()),
            node_ip: file.node_ip.or(base.node_ip),
            ..base.clone()
        };
        if existing.is_some() && (wanted.pod_cidr != base.pod_cidr || wanted.service_cidr != base.service_cidr) {
            bail!(Fault::usage(format!(
                "the cluster {:?} has pods in {} and Services in {}: they can't change; `ferrokube reset` first",
                self.name, base.pod_cidr, base.service_cidr
            )));
        }
        if wanted.pod_cidr.overlaps(&wanted.service_cidr) {
            bail!(Fault::usage(format!(
                "--pod-cidr {} and --service-cidr {} overlap: choose two ranges that don't",
                wanted.pod_cidr, wanted.service_cidr
            )));
        }
        Ok(wanted)
    }

    fn fresh(&self, slot: u16) -> Cluster {
        let octet = |n: u16| Cidr { address: Ipv4Addr::new(10, n as u8, 0, 0), bits: 16 };
        Cluster {
            name: self.name.clone(),
            data_dir: self.dir(),
            slot,
            api_port: 6443 + slot,
            pod_cidr: octet(42 + 2 * slot),
            service_cidr: octet(43 + 2 * slot),
            cluster_domain: "cluster.local".into(),
            node_name: hostname(),
            node_ip: None,
        }
    }
}

fn free_slot(name: &str) -> Result<u16> {
    let taken: Vec<u16> = known()
        .into_iter()
        .filter(|(n, _)| n != name)
        .filter_map(|(name, dir)| Which { name, data_dir: Some(dir) }.load().ok().flatten())
        .map(|c| c.slot)
        .collect();
    let free = (0..SLOTS).find(|slot| !taken.contains(slot));
    free.ok_or_else(|| Fault::failed(format!("this host holds {SLOTS} clusters already: reset one first")).into())
}

fn hostname() -> String {
    let raw = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = raw
        .trim()
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' })
        .collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    if name.is_empty() || name == "localhost" { "node".into() } else { name }
}

fn read_file(path: &Path) -> Result<File> {
    let text = fs::read_to_string(path).map_err(|e| Fault::usage(format!("--config {}: {e}", path.display())))?;
    serde_saphyr::from_str(&text).map_err(|e| {
        let first = e.to_string().lines().next().unwrap_or_default().to_owned();
        Fault::usage(format!("--config {}: {first}", path.display())).into()
    })
}

/// Creates a directory (and its parents) that only its owner may enter.
pub fn private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| path.display().to_string())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(|| path.display().to_string())
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&temporary);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_what_is_wrong() {
        assert_eq!("10.42.3.4/16".parse::<Cidr>().map(|c| c.to_string()), Ok("10.42.0.0/16".to_owned()));
        assert!("10.42.0.0".parse::<Cidr>().unwrap_err().contains("like 10.42.0.0/16"));
        assert!("10.42.0.0/31".parse::<Cidr>().unwrap_err().contains("between /8 and /24"));
        assert_eq!("10.43.0.0/16".parse::<Cidr>().map(|c| c.nth(10).to_string()), Ok("10.43.0.10".to_owned()));
    }

    #[test]
    fn a_config_file_is_strict() {
        let dir = std::env::temp_dir().join(format!("fk-config-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("temp dir");
        let path = dir.join("c.yaml");
        fs::write(&path, "apiPort: 7443\npodCidr: 10.0.0.0/16\n").expect("written");
        let error = read_file(&path).expect_err("podCidr is not a field").to_string();
        assert!(error.contains("podCidr") && error.contains("podCIDR"), "{error}");
        fs::write(&path, "apiPort: high\n").expect("written");
        assert!(read_file(&path).expect_err("a word is no port").to_string().contains("c.yaml"));
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn ports_and_ranges_of_two_clusters_never_meet() {
        let which = Which { name: "a".into(), data_dir: Some("/nowhere".into()) };
        let (a, b) = (which.fresh(0), which.fresh(1));
        assert!(!a.pod_cidr.overlaps(&b.pod_cidr) && !a.service_cidr.overlaps(&b.pod_cidr));
        assert_ne!(a.api_port, b.api_port);
        assert_ne!(a.bridge(), b.bridge());
    }
}
