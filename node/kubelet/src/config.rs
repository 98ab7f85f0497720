//! What a kubelet is told: the fields of KubeletConfiguration v1beta1 that have an effect here, and the flags that are
//! no part of it. Plain data; `ferrokube` fills it from flags and files, defaults are upstream's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::node::addresses::Addresses;
use crate::node::shutdown::Group;
use crate::pod::quantity;

/// Where the HTTPS API listens and whom it believes.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub address: IpAddr,
    /// 0 takes any free port.
    pub port: u16,
    /// PEM files; the API is not served without them.
    pub tls_cert_file: Option<PathBuf>,
    pub tls_private_key_file: Option<PathBuf>,
    /// Clients with a certificate of this authority are who the certificate says.
    pub client_ca_file: Option<PathBuf>,
    pub tls: serving::tls::Policy,
    /// How long a stream (exec, attach, port-forward) may carry nothing; zero is for ever.
    pub streaming_idle_timeout: Duration,
    pub anonymous: bool,
    /// Bearer tokens are asked of the API server (TokenReview).
    pub webhook_authentication: bool,
    /// What a caller may do is asked of the API server (SubjectAccessReview); otherwise everything is allowed.
    pub webhook_authorization: bool,
    pub healthz_bind_address: IpAddr,
    /// 0 turns it off.
    pub healthz_port: u16,
    pub enable_debugging_handlers: bool,
    /// Serve the host's log files.
    pub enable_system_log_handler: bool,
}

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            address: IpAddr::from([0, 0, 0, 0]),
            port: 10250,
            tls_cert_file: None,
            tls_private_key_file: None,
            client_ca_file: None,
            tls: serving::tls::Policy::default(),
            streaming_idle_timeout: Duration::from_secs(4 * 60 * 60),
            anonymous: false,
            webhook_authentication: true,
            webhook_authorization: true,
            healthz_bind_address: IpAddr::from([127, 0, 0, 1]),
            healthz_port: 10248,
            enable_debugging_handlers: true,
            enable_system_log_handler: true,
        }
    }
}

/// Thresholds under which the node defends itself: a share of the capacity (`0.1`) or bytes/pids.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    Share(f64),
    Amount(u64),
}

impl std::str::FromStr for Threshold {
    type Err = String;

    /// `10%`, or a quantity.
    fn from_str(text: &str) -> Result<Threshold, String> {
        let wrong = || format!("{text:?} is neither a share such as 10% nor a quantity such as 100Mi");
        match text.strip_suffix('%') {
            Some(percent) => {
                let share = percent.parse::<f64>().ok().filter(|share| (0.0..=100.0).contains(share));
                share.map(|share| Threshold::Share(share / 100.0)).ok_or_else(wrong)
            }
            None => {
                let amount = text.parse::<meta::Quantity>().ok().and_then(|q| u64::try_from(q.value()).ok());
                amount.map(Threshold::Amount).ok_or_else(wrong)
            }
        }
    }
}

#[derive(Debug, Clone)]
pub struct EvictionConfig {
    /// Keys: `memory.available`, `nodefs.available`, `nodefs.inodesFree`, `imagefs.available`, `pid.available`.
    pub hard: BTreeMap<String, Threshold>,
    pub pressure_transition_period: Duration,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    /// The addresses that the node reports, first the primary one. Empty: that of this host, as it changes.
    pub node_ips: Vec<IpAddr>,
    /// Whoever runs this kubelet follows them; goes before the former.
    pub addresses: Option<Addresses>,
    pub hostname_override: Option<String>,
    /// `/var/lib/kubelet` upstream.
    pub root_dir: PathBuf,
    /// `/var/log/pods` upstream.
    pub pod_logs_dir: PathBuf,
    /// `unix:///run/…/cri.sock`.
    pub container_runtime_endpoint: String,
    pub static_pod_path: Option<PathBuf>,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub resolv_conf: PathBuf,
    pub max_pods: u32,
    pub pod_pids_limit: i64,
    pub register_node: bool,
    pub node_labels: BTreeMap<String, String>,
    /// `key=value:effect` as the node registers with.
    pub register_with_taints: Vec<k8s_openapi::api::core::v1::Taint>,
    pub provider_id: Option<String>,
    pub server: ServerConfig,
    pub eviction: EvictionConfig,
    /// Parent of `kubepods`, `/` at the root of each hierarchy. Several nodes on one host have one each.
    pub cgroup_root: String,
    pub cgroups_per_qos: bool,
    pub cpu_cfs_quota: bool,
    pub cpu_cfs_quota_period: Duration,
    /// Resources kept from pods: names to quantities.
    pub system_reserved: BTreeMap<String, String>,
    pub kube_reserved: BTreeMap<String, String>,
    /// How often the node's status is compared with what the API has.
    pub node_status_update_frequency: Duration,
    /// How often it is written when nothing changed.
    pub node_status_report_frequency: Duration,
    pub node_lease_duration: Duration,
    pub node_status_max_images: i32,
    pub image_gc_high_threshold_percent: u8,
    pub image_gc_low_threshold_percent: u8,
    pub image_minimum_gc_age: Duration,
    pub serialize_image_pulls: bool,
    pub container_log_max_size: u64,
    pub container_log_max_files: u32,
    pub max_container_restart_period: Duration,
    pub seccomp_default: bool,
    /// Refuse to run where the kernel is set otherwise than Kubernetes wants it.
    pub protect_kernel_defaults: bool,
    /// Events a second, 0 is no limit, and at once after a pause.
    pub event_record_qps: u32,
    pub event_burst: u32,
    pub allowed_unsafe_sysctls: Vec<String>,
    /// How long pods have in all when the machine stops; zero leaves them as they are.
    pub shutdown_grace_period: Duration,
    /// What of it is for critical pods.
    pub shutdown_grace_period_critical_pods: Duration,
    /// Times of groups of priority, instead of the two.
    pub shutdown_grace_by_priority: Vec<Group>,
    /// Set by whoever runs this kubelet when the machine is about to stop.
    pub leaving: client::Latch,
    /// Set when its pods have ended then.
    pub left: client::Latch,
    /// `v1.37.2` and the like, as `kubectl get nodes` shows it.
    pub version: String,
    /// Names this run of the kubelet among all that ever were; made anew by each.
    pub run: String,
    /// Set when the first status of this life is in the API: what stood there before said how a former life ended.
    pub ready: client::Latch,
}

impl Config {
    /// Thousandths of a resource that are kept from pods.
    pub fn reserved(&self, name: &str) -> i64 {
        let of = |map: &BTreeMap<String, String>| map.get(name).map_or(0, |q| quantity::milli(&Quantity(q.clone())));
        of(&self.system_reserved) + of(&self.kube_reserved)
    }

    /// Upstream's defaults for a node of this name.
    pub fn new(node_name: &str) -> Config {
        let hard = [
            ("memory.available", Threshold::Amount(100 << 20)),
            ("nodefs.available", Threshold::Share(0.10)),
            ("nodefs.inodesFree", Threshold::Share(0.05)),
            ("imagefs.available", Threshold::Share(0.15)),
        ];
        Config {
            node_name: node_name.to_owned(),
            node_ips: Vec::new(),
            addresses: None,
            hostname_override: None,
            root_dir: "/var/lib/kubelet".into(),
            pod_logs_dir: "/var/log/pods".into(),
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".into(),
            static_pod_path: None,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            max_pods: 110,
            pod_pids_limit: -1,
            register_node: true,
            node_labels: BTreeMap::new(),
            register_with_taints: Vec::new(),
            provider_id: None,
            server: ServerConfig::default(),
            eviction: EvictionConfig {
                hard: hard.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
                pressure_transition_period: Duration::from_secs(300),
            },
            cgroup_root: "/".into(),
            cgroups_per_qos: true,
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: Duration::from_millis(100),
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            node_status_update_frequency: Duration::from_secs(10),
            node_status_report_frequency: Duration::from_secs(300),
            node_lease_duration: Duration::from_secs(40),
            node_status_max_images: 50,
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            image_minimum_gc_age: Duration::from_secs(120),
            serialize_image_pulls: false,
            container_log_max_size: 10 << 20,
            container_log_max_files: 5,
            max_container_restart_period: Duration::from_secs(300),
            seccomp_default: false,
            protect_kernel_defaults: false,
            event_record_qps: 50,
            event_burst: 100,
            allowed_unsafe_sysctls: Vec::new(),
            shutdown_grace_period: Duration::ZERO,
            shutdown_grace_period_critical_pods: Duration::ZERO,
            shutdown_grace_by_priority: Vec::new(),
            leaving: client::Latch::default(),
            left: client::Latch::default(),
            version: meta::version::GIT_VERSION.into(),
            run: String::new(),
            ready: client::Latch::default(),
        }
    }

    /// `<root>/pods/<uid>`.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// `<logs>/<namespace>_<name>_<uid>`.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs_dir.join(format!("{namespace}_{name}_{uid}"))
    }
}
