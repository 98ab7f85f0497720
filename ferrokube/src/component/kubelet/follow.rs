//! What a cluster that isn't ours has in its KubeletConfiguration for all of its nodes, on one of ours: set as far as it can be
//! had, the rest is named. Asks whether two paths are there; pure but for that. Called by the node's part of a cluster.

use kubelet::config::Config;

use super::bounds::may;
use super::settings::{KIND, SETTINGS};
use crate::component::settings::{Followed, Intake};

/// What a cluster's KubeletConfiguration says of machines as it makes them, and what of it a node of ours has by other ways:
/// addresses and ports, files, groups, who its DNS and its runtime are, how it asks for certificates, how it logs.
const NODES: &[&str] = &[
    "address",
    "port",
    "healthzBindAddress",
    "healthzPort",
    "tlsCertFile",
    "tlsPrivateKeyFile",
    "authentication.x509",
    "cgroupDriver",
    "cgroupRoot",
    "clusterDNS",
    "clusterDomain",
    "containerRuntimeEndpoint",
    "imageServiceEndpoint",
    "podLogsDir",
    "registerNode",
    "providerID",
    "rotateCertificates",
    "serverTLSBootstrap",
    "logging",
];

/// Sets what a cluster has in its KubeletConfiguration for all of its nodes, as far as it can be had here. Answers the fields
/// that can't.
pub fn follow(config: &mut Config, text: &str) -> Result<Vec<String>, String> {
    let (own, resolver) = (config.static_pod_path.clone(), config.resolv_conf.clone());
    let percents = (config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent);
    let mut intake = Intake::new(config, SETTINGS);
    intake.follow(text, &KIND, Followed { own: NODES, may })?;
    let mut left = intake.without_effect;
    // Which no kubelet takes.
    if config.image_gc_low_threshold_percent >= config.image_gc_high_threshold_percent {
        (config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent) = percents;
        left.extend(["imageGCHighThresholdPercent", "imageGCLowThresholdPercent"].map(str::to_owned));
    }
    // kubeadm's names a directory that its own nodes have: nothing is made for it here.
    if config.static_pod_path.as_ref().is_some_and(|dir| !dir.is_dir()) {
        config.static_pod_path = own;
    }
    // As does the file of systemd-resolved, which is there where the first of kubeadm's nodes has it. Empty is none.
    if !config.resolv_conf.as_os_str().is_empty() && !config.resolv_conf.is_file() {
        config.resolv_conf = resolver;
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use kubelet::config::Threshold;

    use super::super::settings::tests::{KUBEADM, head};
    use super::*;

    /// As it is in its ConfigMap.
    fn kubeadms() -> String {
        KUBEADM.replace("cgroupDriver: cgroupfs", "cgroupDriver: systemd\nrotateCertificates: true")
    }

    #[test]
    fn a_clusters_configuration_is_followed_as_far_as_it_can_be_and_the_rest_is_named() {
        let text = head()
            + &kubeadms().replace("crashLoopBackOff: {}\n", "").replace("memorySwap: {}\n", "")
            + "
maxPods: 42
podPidsLimit: 512
evictionHard: {memory.available: 200Mi, nodefs.available: 7%}
systemReserved: {cpu: 200m, memory: 500Mi}
kubeReserved: {memory: 300Mi}
imageGCHighThresholdPercent: 80
imageGCLowThresholdPercent: 70
imageMinimumGCAge: 5m
containerLogMaxSize: 20Mi
containerLogMaxFiles: 3
nodeStatusUpdateFrequency: 20s
nodeLeaseDurationSeconds: 20
shutdownGracePeriodByPodPriority: [{priority: 0, shutdownGracePeriodSeconds: 5}]
seccompDefault: true
registerWithTaints: [{key: a, effect: NoSchedule}]
crashLoopBackOff: {maxContainerRestartPeriod: 30s}
registryPullQPS: 10
cpuManagerPolicy: static
evictionSoft: {memory.available: 1Gi}
featureGates: {SomeGate: true}
kubeletsNext: {field: 1}
memorySwap: {swapBehavior: LimitedSwap}
";
        let mut config = Config::new("n1");
        (config.static_pod_path, config.server.port) = (Some("/own".into()), 7);
        let text = text + "resolvConf: /nowhere/resolv.conf\n";
        let mut left = follow(&mut config, &text).expect("followed");
        left.sort();
        assert_eq!(
            left,
            [
                "cpuManagerPolicy",
                "evictionSoft",
                "featureGates",
                "kubeletsNext",
                "memorySwap.swapBehavior",
                "registryPullQPS"
            ]
        );
        assert_eq!((config.max_pods, config.pod_pids_limit, config.seccomp_default), (42, 512, true));
        assert_eq!(config.eviction.hard["memory.available"], Threshold::Amount(200 << 20));
        assert_eq!(
            (config.system_reserved["cpu"].as_str(), config.kube_reserved["memory"].as_str()),
            ("200m", "300Mi")
        );
        assert_eq!((config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent), (80, 70));
        assert_eq!((config.image_minimum_gc_age.as_secs(), config.node_lease_duration.as_secs()), (300, 20));
        assert_eq!(config.node_status_update_frequency.as_secs(), 20);
        assert_eq!((kubelet::shutdown::longest(&config).as_secs(), config.register_with_taints.len()), (5, 1));
        assert_eq!(config.max_container_restart_period.as_secs(), 30);
        // What is the node's own stays.
        assert_eq!((config.server.port, config.server.client_ca_file, config.cluster_dns.len()), (7, None, 0));
        assert_eq!(config.static_pod_path.as_deref(), Some("/own".as_ref()), "there is no such directory here");
        assert_eq!(config.resolv_conf, Config::new("n1").resolv_conf, "nor such a file");
        assert!(follow(&mut Config::new("n1"), "kind: Pod").is_err());
    }

    #[test]
    fn nothing_from_afar_opens_a_kubelet_or_keeps_it_from_running() {
        let own = format!("{:?}", Config::new("n1"));
        for (field, value) in [
            ("authentication.anonymous.enabled", "true"),
            ("authorization.mode", "AlwaysAllow"),
            ("allowedUnsafeSysctls", "['kernel.msg*']"),
            ("cgroupsPerQOS", "false"),
            ("readOnlyPort", "10255"),
            ("enableServer", "false"),
            ("tlsMinVersion", "VersionTLS10"),
            ("tlsCipherSuites", "[TLS_RSA_WITH_RC4_128_SHA]"),
            ("streamingConnectionIdleTimeout", "2000000h"),
            ("nodeStatusUpdateFrequency", "1ns"),
            ("nodeStatusReportFrequency", "2000000h"),
            ("nodeLeaseDurationSeconds", "4294967295"),
            ("nodeLeaseDurationSeconds", "1"),
            ("shutdownGracePeriod", "2000000h"),
            (
                "shutdownGracePeriodByPodPriority",
                "[{priority: 0, shutdownGracePeriodSeconds: 9223372036854775807}, \
                 {priority: 1, shutdownGracePeriodSeconds: 9223372036854775807}, \
                 {priority: 2, shutdownGracePeriodSeconds: 9223372036854775807}]",
            ),
            ("crashLoopBackOff.maxContainerRestartPeriod", "1ns"),
            ("cpuCFSQuotaPeriod", "1us"),
            ("evictionPressureTransitionPeriod", "2000000h"),
            ("imageMinimumGCAge", "2000000h"),
            ("containerLogMaxFiles", "4294967295"),
            ("evictionHard", "{memory.available: 100%}"),
            ("evictionHard", "{memory.available: 8Ei}"),
            ("systemReserved", "{memory: 7Ei}"),
            ("kubeReserved", "{cpu: 9000P}"),
        ] {
            let mut path = field.split('.').rev();
            let leaf = format!("{}: {value}", path.next().unwrap_or_default());
            let text = path.fold(leaf, |inner, name| format!("{name}: {{{inner}}}"));
            let mut config = Config::new("n1");
            let left = follow(&mut config, &format!("{}{text}\n", head()));
            assert_eq!(left, Ok(vec![field.to_owned()]), "{text}");
            assert_eq!(format!("{config:?}"), own, "{text}");
        }
        let mut config = Config::new("n1");
        let percents = "imageGCHighThresholdPercent: 20\nimageGCLowThresholdPercent: 90\n";
        assert_eq!(follow(&mut config, &(head() + percents)).map(|left| left.len()), Ok(2));
        assert_eq!(format!("{config:?}"), own);
    }

    #[test]
    fn what_tightens_a_kubelet_is_followed() {
        let mut config = Config::new("n1");
        let text = "authentication: {anonymous: {enabled: false}, webhook: {enabled: false}}\nseccompDefault: true\n\
            enableDebuggingHandlers: false\nenableSystemLogHandler: false\nprotectKernelDefaults: true\n\
            tlsMinVersion: VersionTLS13\nstreamingConnectionIdleTimeout: 5m\nreadOnlyPort: 0\n\
            authorization: {mode: Webhook}\n";
        assert_eq!(follow(&mut config, &(head() + text)), Ok(vec![]));
        let server = &config.server;
        assert!(server.webhook_authorization && !server.anonymous && !server.webhook_authentication);
        assert!(!server.enable_debugging_handlers && !server.enable_system_log_handler && server.tls.only_13);
        assert!(config.seccomp_default && config.protect_kernel_defaults);
        assert_eq!(server.streaming_idle_timeout.as_secs(), 300);
    }

    #[test]
    fn what_kubeadm_writes_by_itself_warns_of_nothing() {
        assert_eq!(follow(&mut Config::new("n1"), &(head() + &kubeadms())), Ok(vec![]));
    }
}
