//! What a proxy can be told: KubeProxyConfiguration v1alpha1 and upstream's flags, in one table. Defaults are
//! upstream's, but for the mode: `nftables` is the one that is done.

use std::path::PathBuf;

use proxy::LocalDetector;
use serde_json::Value;

use crate::component::settings::{
    Kind, Setting, Shape, duration, list, nothing, number, only, parsed, sets, switch, text,
};

pub const KIND: Kind = Kind { api_version: "kubeproxy.config.k8s.io/v1alpha1", kind: "KubeProxyConfiguration" };

/// All that flags and file say.
#[derive(Default)]
pub struct Told {
    pub config: proxy::Config,
    pub kubeconfig: Option<PathBuf>,
    detect_local_mode: String,
    bridge: Option<String>,
}

impl Told {
    /// The configuration, once everything is said.
    pub fn config(&self) -> Result<proxy::Config, String> {
        let detect_local = match (self.detect_local_mode.as_str(), &self.bridge) {
            ("BridgeInterface", Some(bridge)) => LocalDetector::BridgeInterface(bridge.clone()),
            ("BridgeInterface", None) => {
                return Err("--detect-local-mode=BridgeInterface needs --pod-bridge-interface NAME".to_owned());
            }
            ("NodeCIDR", _) => LocalDetector::NodeCidr,
            _ => LocalDetector::ClusterCidr,
        };
        Ok(proxy::Config { detect_local, ..self.config.clone() })
    }
}

const RANGE: &str = "a range such as 10.42.0.0/16";
const SOCKET: &str = "an address with port such as 127.0.0.1:10249";

pub const SETTINGS: &[Setting<Told>] = &[
    sets("clientConnection.kubeconfig", "kubeconfig", Shape::File, "How to reach the API server", |t, v| {
        text(v).map(|file| t.kubeconfig = Some(file.into()))
    }),
    sets(
        "hostnameOverride",
        "hostname-override",
        Shape::Text,
        "Name of the Node that this host is [default: the host's name]",
        |t, v| text(v).map(|name| t.config.hostname_override = name.to_owned()),
    ),
    // In the file it is one text with commas.
    sets("clusterCIDR", "cluster-cidr", Shape::Text, "Addresses of pods", |t, v| {
        let ranges: Value = text(v)?.split(',').collect();
        list(&ranges, RANGE).map(|ranges| t.config.cluster_cidr = ranges)
    }),
    sets(
        "nodePortAddresses",
        "nodeport-addresses",
        Shape::List,
        "Addresses that node ports answer on [default: all]",
        |t, v| list(v, RANGE).map(|ranges| t.config.nodeport_addresses = ranges),
    ),
    sets(
        "detectLocalMode",
        "detect-local-mode",
        Shape::Text,
        "How pods of this node are told: ClusterCIDR, NodeCIDR or BridgeInterface [default: ClusterCIDR]",
        |t, v| {
            let mode = text(v)?;
            if !["ClusterCIDR", "NodeCIDR", "BridgeInterface"].contains(&mode) {
                return Err(format!("{mode:?} can't be had here yet: only ClusterCIDR, NodeCIDR or BridgeInterface"));
            }
            t.detect_local_mode = mode.to_owned();
            Ok(())
        },
    ),
    sets(
        "detectLocal.bridgeInterface",
        "pod-bridge-interface",
        Shape::Text,
        "The bridge of --detect-local-mode=BridgeInterface",
        |t, v| text(v).map(|name| t.bridge = Some(name.to_owned())),
    ),
    sets(
        "nftables.masqueradeAll",
        "masquerade-all",
        Shape::Switch,
        "Translate the source of everything that is sent to a Service [default: false]",
        |t, v| switch(v).map(|on| t.config.masquerade_all = on),
    ),
    sets("nftables.masqueradeBit", "", Shape::Number, "", |t, v| match number::<u8>(v)? {
        bit @ 0..=31 => {
            t.config.iptables_masquerade_bit = bit;
            Ok(())
        }
        bit => Err(format!("{bit} is not a bit of the packet mark: 0 to 31")),
    }),
    sets("nftables.minSyncPeriod", "", Shape::Duration, "", |t, v| {
        duration(v).map(|time| t.config.min_sync_period = time)
    }),
    sets(
        "healthzBindAddress",
        "healthz-bind-address",
        Shape::Text,
        "Where /healthz answers [default: 0.0.0.0:10256]",
        |t, v| parsed(v, SOCKET).map(|address| t.config.healthz_bind_address = Some(address)),
    ),
    sets(
        "metricsBindAddress",
        "metrics-bind-address",
        Shape::Text,
        "Where /metrics answers [default: 127.0.0.1:10249]",
        |t, v| parsed(v, SOCKET).map(|address| t.config.metrics_bind_address = Some(address)),
    ),
    only("mode", "proxy-mode", Shape::Text, &["nftables"]),
    only("detectLocal.interfaceNamePrefix", "pod-interface-name-prefix", Shape::Text, &[""]),
    // The other modes' own.
    nothing("iptables", "", Shape::Any),
    nothing("", "iptables-masquerade-bit", Shape::Number),
    nothing("", "iptables-min-sync-period", Shape::Duration),
    nothing("", "iptables-sync-period", Shape::Duration),
    nothing("ipvs", "", Shape::Any),
    nothing("", "ipvs-scheduler", Shape::Text),
    nothing("", "ipvs-sync-period", Shape::Duration),
    nothing("", "ipvs-min-sync-period", Shape::Duration),
    nothing("", "ipvs-exclude-cidrs", Shape::List),
    nothing("", "ipvs-strict-arp", Shape::Switch),
    nothing("", "ipvs-tcp-timeout", Shape::Duration),
    nothing("", "ipvs-tcpfin-timeout", Shape::Duration),
    nothing("", "ipvs-udp-timeout", Shape::Duration),
    sets(
        "",
        "iptables-localhost-nodeports",
        Shape::Switch,
        "Node ports answer on 127.0.0.1 too [default: true]",
        |t, v| switch(v).map(|on| t.config.iptables_localhost_nodeports = on),
    ),
    nothing("winkernel", "", Shape::Any),
    nothing("nftables.syncPeriod", "", Shape::Duration),
    // The kernel's table of connections is left as it is.
    nothing("conntrack", "", Shape::Any),
    nothing("", "conntrack-max-per-core", Shape::Number),
    nothing("", "conntrack-min", Shape::Number),
    nothing("", "conntrack-tcp-be-liberal", Shape::Switch),
    nothing("", "conntrack-udp-timeout", Shape::Duration),
    nothing("", "conntrack-udp-timeout-stream", Shape::Duration),
    nothing("", "conntrack-tcp-timeout-close-wait", Shape::Duration),
    nothing("", "conntrack-tcp-timeout-established", Shape::Duration),
    nothing("bindAddress", "bind-address", Shape::Text),
    nothing("bindAddressHardFail", "bind-address-hard-fail", Shape::Switch),
    nothing("configSyncPeriod", "config-sync-period", Shape::Duration),
    nothing("clientConnection.acceptContentTypes", "", Shape::Text),
    nothing("clientConnection.contentType", "kube-api-content-type", Shape::Text),
    nothing("clientConnection.qps", "kube-api-qps", Shape::Number),
    nothing("clientConnection.burst", "kube-api-burst", Shape::Number),
    nothing("oomScoreAdj", "oom-score-adj", Shape::Number),
    nothing("portRange", "", Shape::Text),
    nothing("enableProfiling", "", Shape::Switch),
    nothing("showHiddenMetricsForVersion", "", Shape::Text),
    nothing("logging", "", Shape::Any),
    nothing("featureGates", "", Shape::Any),
    nothing("windowsRunAsService", "", Shape::Switch),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::settings::{Intake, command};

    fn from_file(text: &str) -> Result<(Told, Vec<String>), String> {
        let mut told = Told::default();
        let mut intake = Intake::new(&mut told, SETTINGS);
        intake.file(&format!("apiVersion: {}\nkind: {}\n{text}", KIND.api_version, KIND.kind), &KIND)?;
        let warnings = intake.without_effect;
        Ok((told, warnings))
    }

    #[test]
    fn a_file_says_what_flags_say() {
        let file = "
clientConnection: {kubeconfig: /k}
clusterCIDR: 10.42.0.0/16,10.44.0.0/16
detectLocalMode: BridgeInterface
detectLocal: {bridgeInterface: cni0}
mode: nftables
nftables: {masqueradeAll: true, masqueradeBit: 5, minSyncPeriod: 1s, syncPeriod: 30s}
conntrack: {maxPerCore: 32768}
";
        let (told, warnings) = from_file(file).expect("taken");
        let config = told.config().expect("whole");
        assert_eq!(config.detect_local, LocalDetector::BridgeInterface("cni0".to_owned()));
        assert_eq!((config.cluster_cidr.len(), config.masquerade_all, config.iptables_masquerade_bit), (2, true, 5));
        assert_eq!(told.kubeconfig.as_deref(), Some("/k".as_ref()));
        assert_eq!(warnings, ["conntrack", "nftables.syncPeriod"]);
    }

    /// As kubeadm writes it.
    #[test]
    fn kubeadms_file_is_taken() {
        let file = "
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: '', burst: 0, contentType: '', kubeconfig: /var/lib/kube-proxy/kubeconfig.conf, qps: 0}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null}
detectLocal: {bridgeInterface: '', interfaceNamePrefix: ''}
detectLocalMode: ''
enableProfiling: false
healthzBindAddress: ''
hostnameOverride: ''
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: '', strictARP: false, syncPeriod: 0s}
logging: {flushFrequency: 0, verbosity: 0}
metricsBindAddress: ''
mode: ''
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ''
showHiddenMetricsForVersion: ''
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: '', rootHnsEndpointName: '', sourceVip: ''}
";
        let (told, _) = from_file(file).expect("taken");
        let config = told.config().expect("whole");
        assert_eq!((config.detect_local, config.cluster_cidr.len()), (LocalDetector::ClusterCidr, 1));
        assert_eq!(config.healthz_bind_address, proxy::Config::default().healthz_bind_address);
    }

    #[test]
    fn other_modes_and_half_said_ones_are_refused() {
        assert_eq!(from_file("mode: ipvs").err().expect("refused"), "mode: ipvs can't be had here yet: only nftables");
        let mut told = Told::default();
        let line = ["kube-proxy", "--detect-local-mode=BridgeInterface"];
        let matches = command("kube-proxy", "", &KIND, SETTINGS).try_get_matches_from(line).expect("flags");
        let mut intake = Intake::new(&mut told, SETTINGS);
        intake.flags(&matches).expect("taken");
        assert!(told.config().expect_err("refused").contains("needs --pod-bridge-interface"));
    }
}
