//! `ferrokube flannel`: the pod network's way between hosts alone, with the flags and the environment of upstream's
//! `flanneld`. Go's flags are taken in its two spellings, `-iface=eth1` and `--iface eth1`; a flag that was not given is
//! looked for in the environment as `FLANNELD_IFACE`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{ArgAction, Parser};
use flannel::{
    AnnotationNames, Config, Endpoints, EtcdOptions, ManagerOptions, Masquerade, NodesOptions, Own as OwnLinks, Secret,
    Source, Told, Wish,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use regex::Regex;
use tokio::sync::watch;

use super::extra::{Extra, Own};
use super::refused::Refused;
use super::{Ignored, LOGGING, parse_refusing, until_signal};
use crate::fault::Fault;

/// What the names of flags begin with in the environment.
const ENVIRONMENT: &str = "FLANNELD_";
/// Our nftables table.
const TABLE: &str = "ferrokube-flannel";

/// Our table drops nothing, so that nothing has to be accepted.
const RULES: Ignored = Ignored {
    values: &["log_dir", "log_file", "log_file_max_size", "log_backtrace_at", "stderrthreshold"],
    switches: &["iptables-forward-rules", "logtostderr", "alsologtostderr", "add_dir_header", "skip_headers"],
};

const REFUSED: &[Refused] = &[
    Refused { flag: "kube-api-url", nothing: "", why: "say --kubeconfig-file" },
    Refused { flag: "ip-blackhole-route", nothing: "false", why: "make the route with a program of yours" },
];

/// flannel: a subnet of the pod network for this host, and ways to the other hosts'
#[derive(Debug, Parser)]
#[command(name = "flannel")]
struct Flags {
    /// Endpoints of etcd
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "http://127.0.0.1:4001,http://127.0.0.1:2379",
        value_name = "URL"
    )]
    etcd_endpoints: Vec<String>,
    /// Where the network's keys are
    #[arg(long, default_value = "/coreos.com/network", value_name = "PREFIX")]
    etcd_prefix: String,
    /// Key of --etcd-certfile
    #[arg(long, value_name = "FILE")]
    etcd_keyfile: Option<PathBuf>,
    /// Certificate by which etcd knows us
    #[arg(long, value_name = "FILE")]
    etcd_certfile: Option<PathBuf>,
    /// CA of etcd's certificate
    #[arg(long, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// User of etcd
    #[arg(long, default_value = "", value_name = "NAME")]
    etcd_username: String,
    /// His password; better said as FLANNELD_ETCD_PASSWORD, where nobody lists it
    #[arg(long, default_value = "", value_name = "WORD", hide_default_value = true)]
    etcd_password: String,
    /// Leases are annotations of nodes, not keys of etcd
    #[arg(long)]
    kube_subnet_mgr: bool,
    /// How to reach the API server [default: as a pod does]
    #[arg(long, value_name = "FILE")]
    kubeconfig_file: Option<PathBuf>,
    /// What the names of these annotations begin with
    #[arg(long, default_value = "flannel.alpha.coreos.com", value_name = "PREFIX", value_parser = AnnotationNames::new)]
    kube_annotation_prefix: AnnotationNames,
    /// The network's configuration where leases are annotations
    #[arg(long, default_value = "/etc/kube-flannel/net-conf.json", value_name = "FILE")]
    net_config_path: PathBuf,
    /// Take back the condition NetworkUnavailable of the node
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    set_node_network_unavailable: bool,
    /// Link by which others are reached, by name or address; said more than once, the first that is there
    #[arg(long, value_name = "NAME|IP")]
    iface: Vec<String>,
    /// The same by a regular expression, after all of --iface
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    iface_regex: Vec<Regex>,
    /// The link by which this address is reached
    #[arg(long, value_name = "IP", conflicts_with_all = ["iface", "iface_regex"])]
    iface_can_reach: Option<IpAddr>,
    /// Address by which others reach this host [default: the link's]
    #[arg(long, value_name = "IP")]
    public_ip: Option<Ipv4Addr>,
    /// The same of IPv6
    #[arg(long, value_name = "IP")]
    public_ipv6: Option<Ipv6Addr>,
    /// File that tells programs of this host their subnet
    #[arg(long, default_value = "/run/flannel/subnet.env", value_name = "FILE")]
    subnet_file: PathBuf,
    /// How long before its end the lease is renewed, in minutes
    #[arg(long, default_value_t = 60, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=1439))]
    subnet_lease_renew_margin: u64,
    /// What pods send outside takes this host's address
    #[arg(long)]
    ip_masq: bool,
    /// How often our nftables rules are looked at, in seconds
    #[arg(long, default_value_t = flannel::RESYNC.as_secs(), value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    iptables_resync: u64,
    /// Address of /healthz and /readyz
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    healthz_ip: IpAddr,
    /// Port of /healthz and /readyz; 0 turns them off
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    healthz_port: u16,
}

/// The largest automaton that an expression may become.
const PATTERN_BYTES: usize = 1 << 20;

fn pattern(text: &str) -> Result<Regex, String> {
    let built = regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
    built.map_err(|_| format!("{text:?} is no regular expression"))
}

impl Flags {
    async fn manager(&self) -> Result<ManagerOptions> {
        if self.kube_subnet_mgr {
            return self.nodes().await.map(ManagerOptions::Nodes);
        }
        Ok(ManagerOptions::Etcd(EtcdOptions {
            endpoints: Endpoints { urls: self.etcd_endpoints.clone(), ..self.etcd() },
            prefix: self.etcd_prefix.clone(),
            renew_margin: self.renew_margin(),
        }))
    }

    /// By what an etcd is believed, and believes us.
    fn etcd(&self) -> Endpoints {
        Endpoints {
            urls: Vec::new(),
            ca_file: self.etcd_cafile.clone(),
            cert_file: self.etcd_certfile.clone(),
            key_file: self.etcd_keyfile.clone(),
            username: self.etcd_username.clone(),
            password: Secret(self.etcd_password.clone()),
        }
    }

    fn renew_margin(&self) -> Duration {
        Duration::from_secs(self.subnet_lease_renew_margin * 60)
    }

    fn health(&self) -> Option<SocketAddr> {
        (self.healthz_port != 0).then(|| SocketAddr::new(self.healthz_ip, self.healthz_port))
    }

    fn interface(&self) -> Wish {
        Wish {
            interfaces: self.iface.clone(),
            patterns: self.iface_regex.clone(),
            can_reach: self.iface_can_reach,
            public_v4: self.public_ip,
            public_v6: self.public_ipv6,
            elsewhere_v6: None,
        }
    }

    async fn nodes(&self) -> Result<NodesOptions> {
        let client = match &self.kubeconfig_file {
            Some(file) => client::from_kubeconfig(file).await.map_err(|error| Fault::usage(error.to_string()))?,
            None => {
                let as_pod = kube::Config::incluster();
                let config =
                    as_pod.map_err(|error| Fault::usage(format!("--kubeconfig-file is missing, and {error}")))?;
                kube::Client::try_from(config)?
            }
        };
        Ok(NodesOptions {
            node: node_name(&client).await?,
            client,
            config: Source::File(self.net_config_path.clone()),
            names: self.kube_annotation_prefix.clone(),
            sets_condition: self.set_node_network_unavailable,
        })
    }

    async fn config(self) -> Result<Config> {
        Ok(Config {
            manager: self.manager().await?,
            interface: watch::Sender::new(self.interface()).subscribe(),
            subnet_file: self.subnet_file.clone(),
            masquerade: if self.ip_masq { Masquerade::All } else { Masquerade::Nothing },
            table: TABLE.to_owned(),
            resync: Duration::from_secs(self.iptables_resync),
            health: self.health(),
            own: OwnLinks { tag: None, number: 0, key_file: key_file() },
            told: watch::Sender::new(Told::default()),
        })
    }
}

/// Upstream's place of WireGuard's private key, and the variable that says another.
fn key_file() -> PathBuf {
    let said = std::env::var_os("WIREGUARD_KEY_FILE").filter(|path| !path.is_empty());
    said.map_or_else(|| PathBuf::from("/run/flannel/wgkey"), PathBuf::from)
}

const FLAG: &str = "--flannel-arg";
const OWN: Own = &[
    ("etcd-endpoints", "say --flannel-etcd-endpoints"),
    ("etcd-prefix", "say --flannel-etcd-prefix"),
    ("kube-subnet-mgr", "say --flannel-subnet-manager"),
    ("kubeconfig-file", "it is in the same process as the node"),
    ("net-config-path", "say --flannel-backend and --pod-cidr"),
    ("subnet-file", "it is subnet.env in the cluster's directory below /run/ferrokube"),
    ("ip-masq", "the pods' bridge does it"),
];
/// Flags that say by which link others reach this host.
const INTERFACE: &[&str] = &["iface", "iface_regex", "iface_can_reach", "public_ip", "public_ipv6"];
const TAKEN: &[&str] = &[
    "etcd_keyfile",
    "etcd_certfile",
    "etcd_cafile",
    "etcd_username",
    "etcd_password",
    "subnet_lease_renew_margin",
    "healthz_ip",
    "healthz_port",
];

/// What is given besides (`--flannel-arg`), for a flannel beside the rest of a node.
#[derive(Debug, Clone)]
pub struct Given {
    /// By which link others reach this host; none: by that of the node's address.
    pub interface: Option<Wish>,
    /// Files for an etcd; the endpoints are the cluster's.
    pub etcd: Endpoints,
    pub renew_margin: Duration,
    pub health: Option<SocketAddr>,
}

impl Default for Given {
    fn default() -> Given {
        Given { interface: None, etcd: Endpoints::default(), renew_margin: RENEW_MARGIN, health: None }
    }
}

/// Upstream's `--subnet-lease-renew-margin`.
const RENEW_MARGIN: Duration = Duration::from_secs(60 * 60);

/// Reads it.
pub fn given(args: &[String]) -> Result<Given, Fault> {
    let Some(extra) = Extra::<Flags>::read(FLAG, args, OWN, IGNORED)? else { return Ok(Given::default()) };
    extra.only(&[INTERFACE, TAKEN], IGNORED)?;
    let flags = &extra.flags;
    Ok(Given {
        interface: INTERFACE.iter().any(|field| extra.given(field)).then(|| flags.interface()),
        etcd: flags.etcd(),
        renew_margin: flags.renew_margin(),
        health: flags.health(),
    })
}

/// This host's Node: upstream's manifests name it, or the pod that runs on it.
async fn node_name(client: &kube::Client) -> Result<String> {
    let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(name) = said("NODE_NAME") {
        return Ok(name);
    }
    let sentence = "which node this is, is said by the environment: NODE_NAME, or POD_NAME and POD_NAMESPACE";
    let asked = || Fault::usage(sentence);
    let (pod, namespace) = said("POD_NAME").zip(said("POD_NAMESPACE")).ok_or_else(asked)?;
    let found = Api::<Pod>::namespaced(client.clone(), &namespace).get(&pod).await?;
    Ok(found.spec.and_then(|spec| spec.node_name).ok_or_else(asked)?)
}

pub fn run(args: &[OsString]) -> Result<()> {
    let known = super::names::<Flags>(IGNORED, REFUSED);
    let args = with_environment(args, &known, |name| std::env::var(name).ok());
    let flags = parse_refusing::<Flags>(&args, IGNORED, REFUSED);
    crate::preflight::root("flannel")?;
    until_signal(|shutdown| async move {
        let config = flags.config().await?;
        flannel::run(config, shutdown).await.map_err(|error| Fault::failed(error.to_string()).into())
    })
}

const IGNORED: &[&Ignored] = &[&LOGGING, &RULES];

/// The command line with Go's single dashes doubled, and with what the environment says of flags that are not on it.
fn with_environment(args: &[OsString], known: &[String], get: impl Fn(&str) -> Option<String>) -> Vec<OsString> {
    let mut line: Vec<OsString> = args.iter().map(|arg| doubled(arg, known)).collect();
    let given = |flag: &String| {
        let spelled = |arg: &OsString| {
            let name = arg.to_str().and_then(|text| text.strip_prefix("--")).and_then(|text| text.split('=').next());
            name == Some(flag.as_str())
        };
        line.iter().any(spelled)
    };
    let said = known.iter().filter(|flag| !given(flag)).filter_map(|flag| {
        let value = get(&format!("{ENVIRONMENT}{}", flag.to_uppercase().replace('-', "_")))?;
        (!value.is_empty()).then(|| OsString::from(format!("--{flag}={value}")))
    });
    let said: Vec<OsString> = said.collect();
    // Behind the name of the program: nothing can take them for a value of its own.
    line.splice(1.min(line.len())..1.min(line.len()), said);
    line
}

/// `-iface=eth1` as `--iface=eth1`.
fn doubled(arg: &OsString, known: &[String]) -> OsString {
    let single = arg.to_str().and_then(|text| text.strip_prefix('-')).filter(|text| !text.starts_with('-'));
    let name = single.and_then(|text| text.split('=').next()).filter(|name| name.len() > 1);
    match (single, name) {
        (Some(text), Some(name)) if known.iter().any(|flag| flag == name) => format!("--{text}").into(),
        _ => arg.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, environment: &[(&str, &str)]) -> Vec<OsString> {
        let args: Vec<OsString> = text.split(' ').map(Into::into).collect();
        let get = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        with_environment(&args, &super::super::names::<Flags>(IGNORED, REFUSED), get)
    }

    fn flags(text: &str, environment: &[(&str, &str)]) -> Result<Flags, clap::Error> {
        super::super::read_refusing::<Flags>(&line(text, environment), IGNORED, REFUSED).map(|(flags, _)| flags)
    }

    fn etcd(flags: &Flags) -> EtcdOptions {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        match runtime.block_on(flags.manager()) {
            Ok(ManagerOptions::Etcd(options)) => options,
            _ => panic!("leases are in etcd"),
        }
    }

    #[test]
    fn what_is_not_said_is_as_upstream_has_it() {
        let flags = flags("flannel", &[]).expect("flags");
        let etcd = etcd(&flags);
        assert_eq!(etcd.endpoints.urls, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
        assert_eq!((etcd.prefix.as_str(), etcd.renew_margin.as_secs()), ("/coreos.com/network", 3600));
        assert_eq!(flags.subnet_file, PathBuf::from("/run/flannel/subnet.env"));
        assert_eq!(flags.kube_annotation_prefix, AnnotationNames::new("flannel.alpha.coreos.com").expect("names"));
        assert!(!flags.ip_masq && flags.healthz_port == 0 && flags.set_node_network_unavailable);
    }

    #[test]
    fn go_spellings_and_the_environment_are_taken_and_the_line_goes_first() {
        let environment = [
            ("FLANNELD_IFACE", "eth7"),
            ("FLANNELD_ETCD_ENDPOINTS", "http://a:1,http://b:2"),
            ("FLANNELD_IP_MASQ", "true"),
            ("FLANNELD_PUBLIC_IP", ""),
            ("FLANNELD_V", "4"),
        ];
        let flags = flags("flannel -iface=eth1 -iface eth2 -v=2 --healthz-port=8471 -etcd-username=root", &environment)
            .expect("flags");
        assert_eq!(flags.iface, ["eth1", "eth2"]);
        assert!(flags.ip_masq && flags.public_ip.is_none());
        assert_eq!(etcd(&flags).endpoints.urls, ["http://a:1", "http://b:2"]);
        assert_eq!(etcd(&flags).endpoints.username, "root");
        assert_eq!(flags.healthz_port, 8471);
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        let said = |text: &str| flags(text, &[]).expect_err("refused").to_string();
        for (text, why) in [
            ("flannel --kube-api-url=http://a", "--kube-api-url http://a can't be had here: say --kubeconfig-file"),
            ("flannel --kube-annotation-prefix=a/b/c", "is no prefix of annotations"),
            ("flannel --subnet-lease-renew-margin=0", "0 is not in 1..=1439"),
            ("flannel --iface-regex=(", "is no regular expression"),
            ("flannel --public-ip=fd00::1", "--public-ip"),
            ("flannel --nosuch", "--nosuch"),
        ] {
            assert!(said(text).contains(why), "{}", said(text));
        }
        assert!(flags("flannel --kube-subnet-mgr=false --iptables-resync=5 --iptables-forward-rules", &[]).is_ok());
    }

    #[test]
    fn what_is_given_besides_is_read_by_the_same_flags() {
        let args = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let nothing = given(&[]).expect("nothing");
        assert!(nothing.interface.is_none() && nothing.health.is_none() && nothing.renew_margin == RENEW_MARGIN);
        let some = given(&args("iface=eth1 --etcd-cafile=/ca subnet-lease-renew-margin=5")).expect("taken");
        assert_eq!(some.interface.expect("a wish").interfaces, ["eth1"]);
        assert_eq!((some.etcd.ca_file, some.renew_margin.as_secs()), (Some("/ca".into()), 300));
        assert!(given(&args("etcd-cafile=/ca")).expect("taken").interface.is_none());
        let own = given(&args("etcd-endpoints=http://a")).expect_err("refused").to_string();
        assert!(own.contains("say --flannel-etcd-endpoints"), "{own}");
    }
}
