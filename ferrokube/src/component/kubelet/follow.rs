//! What a cluster that isn't ours has in its KubeletConfiguration for all of its nodes, on one of ours: set as far as it can be
//! had, the rest is named. Asks whether two paths are there; pure but for that. Called by the node's part of a cluster.

use kubelet::config::Config;

use super::settings::{KIND, SETTINGS};
use crate::component::settings::Intake;

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
    let mut intake = Intake::new(config, SETTINGS);
    intake.follow(text, &KIND, NODES)?;
    let left = intake.without_effect;
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
    fn what_kubeadm_writes_by_itself_warns_of_nothing() {
        assert_eq!(follow(&mut Config::new("n1"), &(head() + &kubeadms())), Ok(vec![]));
    }
}
