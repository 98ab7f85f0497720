//! What a cluster can be told beyond its ports and ranges: each setting is a flag of `up` and `server` and a field of
//! `--config FILE`, and is kept in `cluster.json` until another value is said. Called by [`super::Which::resolve`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::network::{FlannelBackend, Network, SubnetManager};
use super::{gates, pool};

/// What is said of the cluster and of the host. `None` anywhere: nobody said anything, and the default holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct Options {
    #[command(flatten)]
    #[serde(flatten)]
    pub cluster: ClusterOptions,
    #[command(flatten)]
    #[serde(flatten)]
    pub host: HostOptions,
}

/// What all hosts of a cluster are told alike: names of its API, gates, flags of its control plane.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterOptions {
    /// Further names and addresses in the API server's certificate
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    #[serde(rename = "tlsSAN", skip_serializing_if = "Option::is_none")]
    pub tls_san: Option<Vec<String>>,
    /// Feature gates of every component that has them, A=true,B=false
    #[arg(long, value_name = "GATES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_gates: Option<Gates>,
    /// URLs of an etcd cluster to be the store, https://HOST:2379; several servers can then be a cluster [default: an etcd
    /// of its own]
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_servers: Option<Vec<String>>,
    /// Flag of kube-apiserver, name=value; may be said again
    #[arg(long, allow_hyphen_values = true, value_name = "FLAG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_apiserver_arg: Option<Vec<String>>,
    /// Flag of kube-controller-manager
    #[arg(long, allow_hyphen_values = true, value_name = "FLAG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_controller_manager_arg: Option<Vec<String>>,
    /// Flag of kube-scheduler
    #[arg(long, allow_hyphen_values = true, value_name = "FLAG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_scheduler_arg: Option<Vec<String>>,
    /// Flag of etcd
    #[arg(long, allow_hyphen_values = true, value_name = "FLAG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_arg: Option<Vec<String>>,
    /// Part to leave out: servicelb, which gives Services of type LoadBalancer the nodes' addresses
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable: Option<Vec<String>>,
    /// Addresses that Services of type LoadBalancer are given, 192.168.1.240-192.168.1.250 or 2001:db8::/120; each is
    /// announced by one node on its network [default: they have the nodes' addresses]
    #[arg(long, value_delimiter = ',', value_name = "RANGE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_pool: Option<Vec<String>>,
    /// What connects pods [default: flannel]
    #[arg(long, value_enum, value_name = "NETWORK")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// How flannel gets packets to other hosts [default: vxlan where the kernel has it, else udp]
    #[arg(long, value_enum, value_name = "BACKEND")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flannel_backend: Option<FlannelBackend>,
    /// Where flannel keeps which host which pod addresses are [default: kube]
    #[arg(long, value_enum, value_name = "MANAGER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flannel_subnet_manager: Option<SubnetManager>,
    /// Endpoints of the etcd that flannel keeps it in
    #[arg(long, value_delimiter = ',', value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flannel_etcd_endpoints: Option<Vec<String>>,
    /// Where its keys are there [default: /coreos.com/network]
    #[arg(long, value_name = "PREFIX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flannel_etcd_prefix: Option<String>,
    /// The network's number in VXLAN packets [default: the first that no link of this host has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    #[serde(rename = "flannelVNI", skip_serializing_if = "Option::is_none")]
    pub flannel_vni: Option<u32>,
}

/// What can be left out.
pub const SERVICE_LB: &str = "servicelb";

/// What one host is told: where its servers listen, what its node is, where its files are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(rename_all = "camelCase", default)]
pub struct HostOptions {
    /// Address that the API server listens on; with 127.0.0.1 only this host and its pods reach it [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_address: Option<IpAddr>,
    /// Run a control plane alone: this host is no node and has no pods
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_node: Option<bool>,
    /// CA of --etcd-servers
    #[arg(long, value_name = "FILE")]
    #[serde(rename = "etcdCAFile", skip_serializing_if = "Option::is_none")]
    pub etcd_cafile: Option<PathBuf>,
    /// Certificate to show to --etcd-servers
    #[arg(long, value_name = "FILE")]
    #[serde(rename = "etcdCertFile", skip_serializing_if = "Option::is_none")]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of --etcd-certfile
    #[arg(long, value_name = "FILE")]
    #[serde(rename = "etcdKeyFile", skip_serializing_if = "Option::is_none")]
    pub etcd_keyfile: Option<PathBuf>,
    /// Labels of the node, key=value
    #[arg(long, value_delimiter = ',', value_name = "LABEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_label: Option<Vec<String>>,
    /// Taints that the node registers with, key=value:effect
    #[arg(long, value_delimiter = ',', value_name = "TAINT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_taint: Option<Vec<String>>,
    /// Flag of the kubelet
    #[arg(long, allow_hyphen_values = true, value_name = "FLAG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet_arg: Option<Vec<String>>,
    /// Flag of kube-proxy
    #[arg(long, allow_hyphen_values = true, value_name = "FLAG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_proxy_arg: Option<Vec<String>>,
    /// Flag of flannel
    #[arg(long, allow_hyphen_values = true, value_name = "FLAG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flannel_arg: Option<Vec<String>>,
    /// Mirrors, CAs and credentials of registries, a file as k3s has it [default: /etc/ferrokube/registries.yaml]
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registries: Option<PathBuf>,
    /// Folder of image archives to import at each start [default: images in the data directory]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// Folder of YAML to apply at each start and when it changes [default: apply in the data directory]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply: Option<PathBuf>,
    /// Run a node alone, of a cluster on another host, with what is in this folder: kubelet.conf, kube-proxy.conf and
    /// kube-dns.conf, which lead to its API server, ca.crt, kubelet.crt and kubelet.key
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
}

/// Feature gates, as upstream's flag writes them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gates(pub BTreeMap<String, bool>);

impl FromStr for Gates {
    type Err = String;

    fn from_str(text: &str) -> Result<Gates, String> {
        let one = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let on = value.parse().map_err(|_| format!("{pair:?} is not written like Name=true"))?;
            Ok((name.to_owned(), on))
        };
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
        pairs.map(one).collect::<Result<_, String>>().map(Gates)
    }
}

impl Options {
    /// One field of the file.
    pub fn field(name: &str, value: &Value) -> Result<Options, String> {
        serde_json::from_value(json!({name: value})).map_err(|error| match error.to_string() {
            why if why.ends_with("expected a sequence") => format!("{value} is not a list: write it like [a, b]"),
            why => why,
        })
    }

    /// What is said here, and of `base` what isn't.
    pub fn over(self, base: &Options) -> Options {
        Options { cluster: self.cluster.over(&base.cluster), host: self.host.over(&base.host) }
    }

    /// What it says can be had, and the daemon, which is in another directory, finds the files that it names.
    pub fn checked(self) -> Result<Options, String> {
        Ok(Options { cluster: self.cluster.checked()?, host: self.host.checked()? })
    }
}

impl ClusterOptions {
    fn over(self, base: &ClusterOptions) -> ClusterOptions {
        ClusterOptions {
            tls_san: self.tls_san.or_else(|| base.tls_san.clone()),
            feature_gates: self.feature_gates.or_else(|| base.feature_gates.clone()),
            etcd_servers: self.etcd_servers.or_else(|| base.etcd_servers.clone()),
            kube_apiserver_arg: self.kube_apiserver_arg.or_else(|| base.kube_apiserver_arg.clone()),
            kube_controller_manager_arg: self
                .kube_controller_manager_arg
                .or_else(|| base.kube_controller_manager_arg.clone()),
            kube_scheduler_arg: self.kube_scheduler_arg.or_else(|| base.kube_scheduler_arg.clone()),
            etcd_arg: self.etcd_arg.or_else(|| base.etcd_arg.clone()),
            disable: self.disable.or_else(|| base.disable.clone()),
            load_balancer_pool: self.load_balancer_pool.or_else(|| base.load_balancer_pool.clone()),
            network: self.network.or(base.network),
            flannel_backend: self.flannel_backend.or(base.flannel_backend),
            flannel_subnet_manager: self.flannel_subnet_manager.or(base.flannel_subnet_manager),
            flannel_etcd_endpoints: self.flannel_etcd_endpoints.or_else(|| base.flannel_etcd_endpoints.clone()),
            flannel_etcd_prefix: self.flannel_etcd_prefix.or_else(|| base.flannel_etcd_prefix.clone()),
            flannel_vni: self.flannel_vni.or(base.flannel_vni),
        }
    }

    fn checked(self) -> Result<ClusterOptions, String> {
        for name in list(&self.tls_san) {
            let wrong = meta::names::dns1123_subdomain(name.strip_prefix("*.").unwrap_or(name));
            if name.parse::<std::net::IpAddr>().is_err()
                && let Some(why) = wrong.first()
            {
                return Err(format!("--tls-san {name}: it is neither an address nor a name: {why}"));
            }
        }
        for url in list(&self.etcd_servers) {
            let told = url.parse::<http::Uri>().ok();
            if !told.is_some_and(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()) {
                return Err(format!("--etcd-servers {url}: it is written like https://192.0.2.1:2379"));
            }
        }
        if let Some(part) = list(&self.disable).iter().find(|part| *part != SERVICE_LB) {
            return Err(format!("--disable {part}: what can be left out is {SERVICE_LB}"));
        }
        let pool = pool::read(list(&self.load_balancer_pool))?;
        if !pool.is_empty() && list(&self.disable).iter().any(|part| part == SERVICE_LB) {
            let why = "what gives addresses out of the pool is left out: take one of them back";
            return Err(format!("--load-balancer-pool and --disable {SERVICE_LB}: {why}"));
        }
        for name in self.feature_gates.iter().flat_map(|gates| gates.0.keys()) {
            gates::check(name).map_err(|why| format!("--feature-gates {name}: {why}"))?;
        }
        let etcd = self.flannel_subnet_manager == Some(SubnetManager::Etcd);
        if etcd && list(&self.flannel_etcd_endpoints).is_empty() {
            let needs = "it needs --flannel-etcd-endpoints URL, an etcd that every host reaches";
            return Err(format!("--flannel-subnet-manager etcd: {needs}"));
        }
        if self.flannel_vni.is_some_and(|vni| !(1..1 << 24).contains(&vni)) {
            return Err("--flannel-vni: it is a number from 1 to 16777215".to_owned());
        }
        Ok(self)
    }
}

impl HostOptions {
    fn over(self, base: &HostOptions) -> HostOptions {
        HostOptions {
            bind_address: self.bind_address.or(base.bind_address),
            disable_node: self.disable_node.or(base.disable_node),
            etcd_cafile: self.etcd_cafile.or_else(|| base.etcd_cafile.clone()),
            etcd_certfile: self.etcd_certfile.or_else(|| base.etcd_certfile.clone()),
            etcd_keyfile: self.etcd_keyfile.or_else(|| base.etcd_keyfile.clone()),
            node_label: self.node_label.or_else(|| base.node_label.clone()),
            node_taint: self.node_taint.or_else(|| base.node_taint.clone()),
            kubelet_arg: self.kubelet_arg.or_else(|| base.kubelet_arg.clone()),
            kube_proxy_arg: self.kube_proxy_arg.or_else(|| base.kube_proxy_arg.clone()),
            flannel_arg: self.flannel_arg.or_else(|| base.flannel_arg.clone()),
            registries: self.registries.or_else(|| base.registries.clone()),
            images: self.images.or_else(|| base.images.clone()),
            apply: self.apply.or_else(|| base.apply.clone()),
            credentials: self.credentials.or_else(|| base.credentials.clone()),
        }
    }

    fn checked(mut self) -> Result<HostOptions, String> {
        for label in list(&self.node_label) {
            label_of(label).map_err(|why| format!("--node-label {label}: {why}"))?;
        }
        if self.etcd_certfile.is_some() != self.etcd_keyfile.is_some() {
            return Err("--etcd-certfile and --etcd-keyfile: one is of no use without the other".into());
        }
        if self.disable_node == Some(true) && self.credentials.is_some() {
            return Err("--disable-node and --credentials: nothing would run here".into());
        }
        let files = [&mut self.etcd_cafile, &mut self.etcd_certfile, &mut self.etcd_keyfile];
        let paths = [&mut self.registries, &mut self.images, &mut self.apply, &mut self.credentials];
        for path in paths.into_iter().chain(files).flatten() {
            *path = std::path::absolute(&*path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(self)
    }

    /// The node's labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        list(&self.node_label).iter().filter_map(|label| label_of(label).ok()).collect()
    }
}

/// What a list says; nothing was said is an empty one.
pub fn list(said: &Option<Vec<String>>) -> &[String] {
    said.as_deref().unwrap_or_default()
}

fn label_of(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it like key=value")?;
    match meta::names::qualified_name(key).into_iter().chain(meta::names::label_value(value)).next() {
        Some(why) => Err(why),
        None => Ok((key.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::config::settings::options;

    /// Everything is said.
    pub fn all() -> Options {
        options().fold(Options::default(), |all, setting| said(setting.field).over(&all))
    }

    /// Only this is said.
    fn said(field: &str) -> Options {
        let words = ["flannel", "vxlan", "kube"].map(|word| json!(word));
        let values = [json!("10.0.0.1"), json!(["a"]), json!({"A": true}), json!(7), json!(true)];
        let values: Vec<_> = values.into_iter().chain(words).collect();
        let mut taken = values.iter().filter_map(|value| Options::field(field, value).ok());
        taken.find(|options| *options != Options::default()).unwrap_or_else(|| panic!("{field} is no field"))
    }

    #[test]
    fn every_setting_is_a_flag_and_a_field() {
        use clap::Args;
        let command = Options::augment_args(clap::Command::new("up"));
        let flags: Vec<String> = command.get_arguments().map(|a| format!("--{}", a.get_long().unwrap())).collect();
        assert_eq!(flags, options().filter_map(|setting| setting.flag).collect::<Vec<_>>());
        for setting in options() {
            assert!(!serde_json::to_value(said(setting.field)).unwrap()[setting.key].is_null(), "{}", setting.field);
        }
    }

    #[test]
    fn what_is_said_has_the_last_word_and_an_empty_list_takes_it_back() {
        let both = ClusterOptions {
            tls_san: Some(vec!["a".into()]),
            etcd_arg: Some(vec!["b".into()]),
            ..ClusterOptions::default()
        };
        let said = ClusterOptions { tls_san: Some(vec![]), ..ClusterOptions::default() }.over(&both);
        assert_eq!((list(&said.tls_san).len(), list(&said.etcd_arg)), (0, &["b".to_owned()][..]));
        assert_eq!(serde_json::to_value(Options::default()).unwrap(), json!({}), "nothing said leaves no trace");
    }

    #[test]
    fn what_can_not_be_had_is_refused_with_its_flag() {
        let says = |cluster: ClusterOptions| cluster.checked().expect_err("refused");
        let san = says(ClusterOptions { tls_san: Some(vec!["my_host".into()]), ..ClusterOptions::default() });
        assert!(san.starts_with("--tls-san my_host: it is neither an address nor a name"), "{san}");
        let etcd =
            says(ClusterOptions { etcd_servers: Some(vec!["192.0.2.1:2379".into()]), ..ClusterOptions::default() });
        assert_eq!(etcd, "--etcd-servers 192.0.2.1:2379: it is written like https://192.0.2.1:2379");
        let half = HostOptions { etcd_keyfile: Some("k".into()), ..HostOptions::default() };
        assert!(half.checked().is_err_and(|said| said.starts_with("--etcd-certfile and --etcd-keyfile")));
        let part = says(ClusterOptions { disable: Some(vec!["traefik".into()]), ..ClusterOptions::default() });
        assert_eq!(part, "--disable traefik: what can be left out is servicelb");
        let pool = |pool: &str, part: &str| {
            let all = |text: &str| Some(vec![text.to_owned()]);
            says(ClusterOptions { load_balancer_pool: all(pool), disable: all(part), ..ClusterOptions::default() })
        };
        assert!(pool("192.0.2.240-192.0.2.1", SERVICE_LB).contains("ends before it begins"));
        assert!(pool("192.0.2.240", SERVICE_LB).starts_with("--load-balancer-pool and --disable servicelb: "));
        let label = HostOptions { node_label: Some(vec!["zone".into()]), ..HostOptions::default() };
        assert_eq!(label.checked().expect_err("refused"), "--node-label zone: write it like key=value");
        let gates = Some("SideCarContainers=true".parse().expect("gates"));
        let gate = says(ClusterOptions { feature_gates: gates, ..ClusterOptions::default() });
        assert!(gate.ends_with("there is no such gate; did you mean SidecarContainers?"), "{gate}");
        let etcd = says(ClusterOptions { flannel_subnet_manager: Some(SubnetManager::Etcd), ..Default::default() });
        assert!(etcd.starts_with("--flannel-subnet-manager etcd: it needs --flannel-etcd-endpoints"), "{etcd}");
        assert!("A".parse::<Gates>().is_err() && "A=maybe".parse::<Gates>().is_err());
        let good =
            ClusterOptions { tls_san: Some(vec!["*.example".into(), "::1".into()]), ..ClusterOptions::default() };
        assert!(good.checked().is_ok());
    }
}
