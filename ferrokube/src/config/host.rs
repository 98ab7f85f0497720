//! A host of a cluster: where the cluster lives on it, what the node is called, which parts run there, and what is called
//! after it in the kernel. What is equal on all hosts is [`super::Cluster`]. Kept as `cluster.json` in the data
//! directory, so that the next `up` continues from it. I/O: writes that file and its copies.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::register::{register, run_copy};
use super::{
    BRIDGE, Cluster, HostOptions, NodeIp, RUN_ROOT, Roles, SERVERS_FILE, STATE_FILE, private_dir, write_private_all,
};

/// Where registries are described when `--registries` says nothing.
const REGISTRIES: &str = "/etc/ferrokube/registries.yaml";

/// See the module's head.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    #[serde(flatten)]
    pub cluster: Cluster,
    pub data_dir: PathBuf,
    /// Which of the host's clusters this is: ports and ranges follow from it where nobody chose.
    pub slot: u16,
    pub node_name: String,
    /// What was said; none: what the host has, as it changes.
    pub node_ip: Option<NodeIp>,
    /// `--open-firewall`; not in files of older versions.
    #[serde(default)]
    pub open_firewall: bool,
    #[serde(flatten)]
    pub options: HostOptions,
}

impl Host {
    /// What runs here: everything, the node alone where credentials lead to another host's API server, or the control
    /// plane alone.
    pub fn roles(&self) -> Roles {
        match (&self.options.credentials, self.options.disable_node) {
            (Some(_), _) => Roles::NODE,
            (None, Some(true)) => Roles::CONTROL_PLANE,
            (None, _) => Roles::CONTROL_PLANE | Roles::NODE,
        }
    }

    /// Whether it has joined by itself: what it was given then is in its own directory.
    pub fn has_joined(&self) -> bool {
        let own = self.options.credentials.as_ref().is_some_and(|dir| *dir == self.joined_pki());
        own && self.joined_pki().join("kubelet-client.crt").exists()
    }

    /// Where a host that joins keeps what it is given.
    pub fn joined_pki(&self) -> PathBuf {
        self.data_dir.join("pki")
    }

    /// Certificates and keys: those of the cluster, or what this node was given.
    pub fn pki(&self) -> PathBuf {
        self.options.credentials.clone().unwrap_or_else(|| self.data_dir.join("pki"))
    }
    /// Configuration that `--hardened` writes.
    pub fn security(&self) -> PathBuf {
        self.data_dir.join("security")
    }
    /// The audit log and those before it.
    pub fn audit(&self) -> PathBuf {
        self.data_dir.join("audit")
    }
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }
    pub fn log(&self) -> PathBuf {
        self.data_dir.join("daemon.log")
    }
    pub fn run_dir(&self) -> PathBuf {
        Path::new(RUN_ROOT).join(&self.cluster.name)
    }
    pub fn pid_file(&self) -> PathBuf {
        self.run_dir().join("daemon.pid")
    }
    pub fn supervisor_file(&self) -> PathBuf {
        self.run_dir().join("supervisor.pid")
    }
    pub fn cri_socket(&self) -> PathBuf {
        self.run_dir().join("cri.sock")
    }
    pub fn runtime_root(&self) -> PathBuf {
        self.data_dir.join("runtime")
    }
    /// The API servers that a node alone knows of.
    pub fn servers_file(&self) -> PathBuf {
        self.data_dir.join(SERVERS_FILE)
    }
    /// What of the API's objects a node alone knew last.
    pub fn last_known(&self) -> PathBuf {
        self.data_dir.join("last-known")
    }
    /// What a cluster that isn't ours says to all of its kubelets, as a node alone read it last.
    pub fn kubelet_config(&self) -> PathBuf {
        self.data_dir.join("kubelet-config.yaml")
    }
    /// The node's range of pod addresses, once it is decided.
    pub fn node_range_file(&self) -> PathBuf {
        self.data_dir.join("node-pod-cidr")
    }
    pub fn kubelet_root(&self) -> PathBuf {
        self.data_dir.join("kubelet")
    }
    /// What flannel has told of this host.
    pub fn subnet_file(&self) -> PathBuf {
        self.run_dir().join("subnet.env")
    }
    /// This host's private key, where pods' packets go by WireGuard.
    pub fn wireguard_key(&self) -> PathBuf {
        self.run_dir().join("wgkey")
    }
    /// In what the cluster's network is other than this host's, as flannel has found it out.
    pub fn network_notice(&self) -> PathBuf {
        self.run_dir().join("network-notice")
    }
    /// What `--registries` names, or the host's own file.
    pub fn registries(&self) -> PathBuf {
        self.options.registries.clone().unwrap_or_else(|| REGISTRIES.into())
    }
    /// Archives of images that are imported at a start.
    pub fn images(&self) -> PathBuf {
        self.options.images.clone().unwrap_or_else(|| self.data_dir.join("images"))
    }
    /// YAML that is applied. Not `manifests`, where the kubelet looks for static pods.
    pub fn to_apply(&self) -> PathBuf {
        self.options.apply.clone().unwrap_or_else(|| self.data_dir.join("apply"))
    }

    /// Ports of this cluster's slot: upstream's, 20 further for each further cluster.
    pub fn port(&self, upstream: u16) -> u16 {
        upstream + 20 * self.slot
    }
    pub fn etcd_port(&self) -> u16 {
        self.port(2379)
    }
    /// Where the parts of a node alone find an API server, on loopback.
    pub fn servers_port(&self) -> u16 {
        self.port(10253)
    }
    pub fn kubelet_port(&self) -> u16 {
        self.port(10250)
    }
    /// What our links, tables and cgroups are called: two clusters never share one.
    pub fn tag(&self) -> String {
        if self.slot == 0 { "ferrokube".into() } else { format!("ferrokube{}", self.slot) }
    }
    /// The group in each hierarchy below which everything of the cluster is on this host.
    pub fn cgroup(&self) -> String {
        format!("/{}", self.tag())
    }
    pub fn bridge(&self) -> String {
        format!("{BRIDGE}{}", self.slot)
    }

    /// Whether it was started before.
    pub fn exists(&self) -> bool {
        self.state_file().exists()
    }

    fn state_file(&self) -> PathBuf {
        self.data_dir.join(STATE_FILE)
    }

    /// Writes `cluster.json`, the host's register of clusters, and a copy by which the cluster is known, until the
    /// next reboot, when its data directory is gone.
    pub fn save(&self) -> Result<()> {
        for dir in [&self.data_dir, &register(), &self.run_dir()] {
            private_dir(dir)?;
        }
        let json = serde_json::to_vec_pretty(self)?;
        let name = &self.cluster.name;
        let files = [
            (self.state_file(), json.as_slice()),
            (run_copy(name), json.as_slice()),
            (register().join(name), self.data_dir.as_os_str().as_encoded_bytes()),
        ];
        write_private_all(&files.each_ref().map(|(path, bytes)| (path.as_path(), *bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 0.1 wrote it, before hosts and clusters were told apart.
    const OLD: &str = r#"{"name": "ferrokube", "dataDir": "/var/lib/ferrokube/ferrokube", "slot": 0, "apiPort": 6443,
        "podCidr": "10.42.0.0/16", "serviceCidr": "10.43.0.0/16", "clusterDomain": "cluster.local", "nodeName": "n1",
        "nodeIp": null, "openFirewall": false, "hardened": true, "bindAddress": "127.0.0.1", "tlsSAN": ["a.example"],
        "featureGates": {"AllAlpha": true}, "kubeletArg": ["max-pods=7"], "etcdArg": ["quota-backend-bytes=1"]}"#;

    #[test]
    fn a_file_of_an_older_version_opens_and_is_written_as_it_was() {
        let host: Host = serde_json::from_str(OLD).expect("opens");
        assert_eq!((host.cluster.api_port, host.cluster.hardened, host.node_name.as_str()), (6443, true, "n1"));
        assert_eq!(host.cluster.options.tls_san, Some(vec!["a.example".to_owned()]));
        assert_eq!(host.options.kubelet_arg, Some(vec!["max-pods=7".to_owned()]));
        assert_eq!(host.roles(), Roles::CONTROL_PLANE | Roles::NODE);
        assert!(!host.cluster.has_etcd_elsewhere() && !host.has_joined());
        let old: serde_json::Value = serde_json::from_str(OLD).expect("JSON");
        assert_eq!(serde_json::to_value(&host).expect("JSON"), old);
        let older = r#"{"name": "a", "dataDir": "/d", "slot": 1, "apiPort": 6444, "podCidr": "10.44.0.0/16",
            "serviceCidr": "10.45.0.0/16", "clusterDomain": "cluster.local", "nodeName": "n", "nodeIp": "192.0.2.1"}"#;
        assert!(serde_json::from_str::<Host>(older).is_ok_and(|host| !host.open_firewall && !host.cluster.hardened));
    }
}
