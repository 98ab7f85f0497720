//! What a kubelet can be told: KubeletConfiguration v1beta1 and upstream's flags, in one table. Defaults are
//! upstream's, but for `authorization.mode`: callers are always asked about (`Webhook`), by whichever way it is set.

use kubelet::config::Config;

use super::values::{not_negative, percent, reserved, shutdown_groups, taint, thresholds};
use crate::component::settings::{
    Kind, Setting, Shape, duration, list, nothing, number, only, pairs, parsed, sets, switch, text,
};

pub const KIND: Kind = Kind { api_version: "kubelet.config.k8s.io/v1beta1", kind: "KubeletConfiguration" };

const ADDRESS: &str = "an IP address";

pub const SETTINGS: &[Setting<Config>] = &[
    // The node.
    sets("", "hostname-override", Shape::Text, "Name of this node [default: the host's name]", |c, v| {
        c.node_name = text(v)?.to_owned();
        c.hostname_override = Some(c.node_name.clone());
        Ok(())
    }),
    sets("", "node-ip", Shape::List, "Addresses that the node reports", |c, v| {
        list(v, ADDRESS).map(|ips| c.node_ips = ips)
    }),
    sets("", "node-labels", Shape::Map('='), "Labels that the node registers with", |c, v| {
        pairs(v).map(|labels| c.node_labels = labels.map(|(key, value)| (key.to_owned(), value)).collect())
    }),
    sets("registerNode", "register-node", Shape::Switch, "Register the node [default: true]", |c, v| {
        switch(v).map(|on| c.register_node = on)
    }),
    sets(
        "registerWithTaints",
        "register-with-taints",
        Shape::List,
        "Taints of a new node, key=value:effect",
        |c, v| {
            let taints = v.as_array().ok_or_else(|| format!("{v} is not a list"))?;
            c.register_with_taints = taints.iter().map(taint).collect::<Result<_, _>>()?;
            Ok(())
        },
    ),
    sets("providerID", "provider-id", Shape::Text, "The cloud's name of the machine", |c, v| {
        text(v).map(|id| c.provider_id = Some(id.to_owned()))
    }),
    sets(
        "nodeStatusUpdateFrequency",
        "node-status-update-frequency",
        Shape::Duration,
        "How often the node's status is compared with the API's [default: 10s]",
        |c, v| duration(v).map(|time| c.node_status_update_frequency = time),
    ),
    sets("eventRecordQPS", "event-qps", Shape::Number, "Most Events a second; 0 is no limit [default: 50]", |c, v| {
        not_negative(v).map(|most| c.event_record_qps = most)
    }),
    sets("eventBurst", "event-burst", Shape::Number, "Most Events at once, after a pause [default: 100]", |c, v| {
        not_negative(v).map(|most| c.event_burst = most)
    }),
    sets(
        "protectKernelDefaults",
        "protect-kernel-defaults",
        Shape::Switch,
        "Refuse to run where the kernel is set otherwise than Kubernetes wants it [default: false]",
        |c, v| switch(v).map(|on| c.protect_kernel_defaults = on),
    ),
    sets("nodeStatusReportFrequency", "", Shape::Duration, "", |c, v| {
        duration(v).map(|time| c.node_status_report_frequency = time)
    }),
    sets("nodeLeaseDurationSeconds", "", Shape::Count, "", |c, v| {
        number(v).map(|seconds: u32| c.node_lease_duration = std::time::Duration::from_secs(seconds.into()))
    }),
    sets(
        "nodeStatusMaxImages",
        "node-status-max-images",
        Shape::Number,
        "Most images in the node's status; -1 is all [default: 50]",
        |c, v| number(v).map(|most| c.node_status_max_images = most),
    ),
    // Pods.
    sets(
        "containerRuntimeEndpoint",
        "container-runtime-endpoint",
        Shape::Text,
        "Socket of the container runtime [default: unix:///run/containerd/containerd.sock]",
        |c, v| text(v).map(|url| c.container_runtime_endpoint = url.to_owned()),
    ),
    sets("", "root-dir", Shape::File, "Where pods' volumes are kept [default: /var/lib/kubelet]", |c, v| {
        text(v).map(|dir| c.root_dir = dir.into())
    }),
    sets("podLogsDir", "", Shape::File, "", |c, v| text(v).map(|dir| c.pod_logs_dir = dir.into())),
    sets("staticPodPath", "pod-manifest-path", Shape::File, "Directory of static pods", |c, v| {
        text(v).map(|dir| c.static_pod_path = Some(dir.into()))
    }),
    sets("clusterDNS", "cluster-dns", Shape::List, "Addresses of cluster DNS", |c, v| {
        list(v, ADDRESS).map(|ips| c.cluster_dns = ips)
    }),
    sets("clusterDomain", "cluster-domain", Shape::Text, "Zone of the cluster [default: cluster.local]", |c, v| {
        text(v).map(|name| c.cluster_domain = name.to_owned())
    }),
    sets(
        "resolvConf",
        "resolv-conf",
        Shape::File,
        "The host's resolver configuration [default: /etc/resolv.conf]",
        |c, v| text(v).map(|file| c.resolv_conf = file.into()),
    ),
    sets("maxPods", "max-pods", Shape::Count, "Most pods on this node [default: 110]", |c, v| {
        number(v).map(|most| c.max_pods = most)
    }),
    sets(
        "podPidsLimit",
        "pod-max-pids",
        Shape::Number,
        "Most processes of a pod; -1 is no limit [default: -1]",
        |c, v| number(v).map(|most| c.pod_pids_limit = most),
    ),
    sets(
        "seccompDefault",
        "seccomp-default",
        Shape::Switch,
        "Filter system calls of pods that say nothing [default: false]",
        |c, v| switch(v).map(|on| c.seccomp_default = on),
    ),
    sets(
        "allowedUnsafeSysctls",
        "allowed-unsafe-sysctls",
        Shape::List,
        "Unsafe sysctls that pods may set; a trailing * matches any end",
        |c, v| list(v, "a sysctl").map(|names| c.allowed_unsafe_sysctls = names),
    ),
    sets("shutdownGracePeriod", "", Shape::Duration, "", |c, v| duration(v).map(|time| c.shutdown_grace_period = time)),
    sets("shutdownGracePeriodCriticalPods", "", Shape::Duration, "", |c, v| {
        duration(v).map(|time| c.shutdown_grace_period_critical_pods = time)
    }),
    sets("shutdownGracePeriodByPodPriority", "", Shape::List, "", |c, v| {
        shutdown_groups(v).map(|groups| c.shutdown_grace_by_priority = groups)
    }),
    sets("crashLoopBackOff.maxContainerRestartPeriod", "", Shape::Duration, "", |c, v| {
        duration(v).map(|time| c.max_container_restart_period = time)
    }),
    // Resources.
    sets("cgroupRoot", "cgroup-root", Shape::Text, "Group below which kubepods is [default: /]", |c, v| {
        text(v).map(|path| c.cgroup_root = path.to_owned())
    }),
    sets(
        "cgroupsPerQOS",
        "cgroups-per-qos",
        Shape::Switch,
        "A group of processes for each class of pods and each pod [default: true]",
        |c, v| switch(v).map(|on| c.cgroups_per_qos = on),
    ),
    sets("cpuCFSQuota", "cpu-cfs-quota", Shape::Switch, "Enforce limits of CPU [default: true]", |c, v| {
        switch(v).map(|on| c.cpu_cfs_quota = on)
    }),
    sets(
        "cpuCFSQuotaPeriod",
        "cpu-cfs-quota-period",
        Shape::Duration,
        "Period in which a limit of CPU holds [default: 100ms]",
        |c, v| duration(v).map(|time| c.cpu_cfs_quota_period = time),
    ),
    sets(
        "systemReserved",
        "system-reserved",
        Shape::Map('='),
        "Resources kept for the system, such as cpu=200m,memory=500Mi",
        |c, v| reserved(v).map(|all| c.system_reserved = all),
    ),
    sets("kubeReserved", "kube-reserved", Shape::Map('='), "Resources kept for Kubernetes itself", |c, v| {
        reserved(v).map(|all| c.kube_reserved = all)
    }),
    sets(
        "evictionHard",
        "eviction-hard",
        Shape::Map('<'),
        "Pods are evicted at once below these, such as memory.available<100Mi,nodefs.available<10%",
        |c, v| thresholds(v).map(|hard| c.eviction.hard = hard),
    ),
    sets(
        "evictionPressureTransitionPeriod",
        "eviction-pressure-transition-period",
        Shape::Duration,
        "How long pressure must be over before the node says so [default: 5m]",
        |c, v| duration(v).map(|time| c.eviction.pressure_transition_period = time),
    ),
    // Images and logs.
    sets(
        "imageGCHighThresholdPercent",
        "image-gc-high-threshold",
        Shape::Number,
        "Disk use in percent at which unused images are removed [default: 85]",
        |c, v| percent(v).map(|percent| c.image_gc_high_threshold_percent = percent),
    ),
    sets(
        "imageGCLowThresholdPercent",
        "image-gc-low-threshold",
        Shape::Number,
        "Disk use in percent down to which they are removed [default: 80]",
        |c, v| percent(v).map(|percent| c.image_gc_low_threshold_percent = percent),
    ),
    sets(
        "imageMinimumGCAge",
        "minimum-image-ttl-duration",
        Shape::Duration,
        "Age before which no unused image is removed [default: 2m]",
        |c, v| duration(v).map(|time| c.image_minimum_gc_age = time),
    ),
    sets(
        "serializeImagePulls",
        "serialize-image-pulls",
        Shape::Switch,
        "Pull one image at a time [default: false]",
        |c, v| switch(v).map(|on| c.serialize_image_pulls = on),
    ),
    sets(
        "containerLogMaxSize",
        "container-log-max-size",
        Shape::Text,
        "Size at which a container's log is rotated [default: 10Mi]",
        |c, v| {
            let size = parsed::<meta::Quantity>(v, "a quantity such as 10Mi")?;
            let wrong = || format!("{v} is too small");
            c.container_log_max_size = u64::try_from(size.value()).ok().filter(|n| *n > 0).ok_or_else(wrong)?;
            Ok(())
        },
    ),
    sets(
        "containerLogMaxFiles",
        "container-log-max-files",
        Shape::Number,
        "Files of a container's log, at least 2 [default: 5]",
        |c, v| {
            let files: u32 = number(v)?;
            if files < 2 {
                return Err(format!("{files} is too few: at least 2"));
            }
            c.container_log_max_files = files;
            Ok(())
        },
    ),
    // The HTTPS API.
    sets("address", "address", Shape::Text, "Address of the HTTPS API [default: 0.0.0.0]", |c, v| {
        parsed(v, ADDRESS).map(|ip| c.server.address = ip)
    }),
    sets("port", "port", Shape::Count, "Port of the HTTPS API [default: 10250]", |c, v| {
        number(v).map(|port| c.server.port = port)
    }),
    sets(
        "healthzBindAddress",
        "healthz-bind-address",
        Shape::Text,
        "Address of /healthz [default: 127.0.0.1]",
        |c, v| parsed(v, ADDRESS).map(|ip| c.server.healthz_bind_address = ip),
    ),
    sets("healthzPort", "healthz-port", Shape::Number, "Port of /healthz; 0 turns it off [default: 10248]", |c, v| {
        number(v).map(|port| c.server.healthz_port = port)
    }),
    sets("tlsCertFile", "tls-cert-file", Shape::File, "The server's certificate", |c, v| {
        text(v).map(|file| c.server.tls_cert_file = Some(file.into()))
    }),
    sets("tlsPrivateKeyFile", "tls-private-key-file", Shape::File, "The server's key", |c, v| {
        text(v).map(|file| c.server.tls_private_key_file = Some(file.into()))
    }),
    sets(
        "tlsMinVersion",
        "tls-min-version",
        Shape::Text,
        "Oldest TLS of the server, VersionTLS12 or VersionTLS13 [default: VersionTLS12]",
        |c, v| c.server.tls.set_min_version(text(v)?),
    ),
    sets(
        "tlsCipherSuites",
        "tls-cipher-suites",
        Shape::List,
        "Cipher suites of TLS 1.2 [default: all that are safe]",
        |c, v| c.server.tls.set_suites(list(v, "a cipher suite")?),
    ),
    sets(
        "streamingConnectionIdleTimeout",
        "streaming-connection-idle-timeout",
        Shape::Duration,
        "How long exec, attach and port-forward may be silent; 0 is for ever [default: 4h]",
        |c, v| duration(v).map(|time| c.server.streaming_idle_timeout = time),
    ),
    sets(
        "authentication.x509.clientCAFile",
        "client-ca-file",
        Shape::File,
        "CA whose client certificates are identities",
        |c, v| text(v).map(|file| c.server.client_ca_file = Some(file.into())),
    ),
    sets(
        "authentication.anonymous.enabled",
        "anonymous-auth",
        Shape::Switch,
        "Let callers without identity be system:anonymous [default: false]",
        |c, v| switch(v).map(|on| c.server.anonymous = on),
    ),
    sets(
        "authentication.webhook.enabled",
        "authentication-token-webhook",
        Shape::Switch,
        "Ask the API server whose a token is [default: true]",
        |c, v| switch(v).map(|on| c.server.webhook_authentication = on),
    ),
    sets(
        "authorization.mode",
        "authorization-mode",
        Shape::Text,
        "Webhook asks the API server what a caller may, AlwaysAllow allows [default: Webhook]",
        |c, v| {
            c.server.webhook_authorization = match text(v)? {
                "Webhook" => true,
                "AlwaysAllow" => false,
                other => return Err(format!("{other:?} is neither Webhook nor AlwaysAllow")),
            };
            Ok(())
        },
    ),
    sets(
        "enableDebuggingHandlers",
        "enable-debugging-handlers",
        Shape::Switch,
        "Serve logs, exec, attach and port-forward [default: true]",
        |c, v| switch(v).map(|on| c.server.enable_debugging_handlers = on),
    ),
    sets("enableSystemLogHandler", "", Shape::Switch, "", |c, v| {
        switch(v).map(|on| c.server.enable_system_log_handler = on)
    }),
    // One way is done.
    only("enableServer", "enable-server", Shape::Switch, &["true"]),
    only("readOnlyPort", "read-only-port", Shape::Number, &["0"]),
    only("cgroupDriver", "cgroup-driver", Shape::Text, &["cgroupfs"]),
    only("cpuManagerPolicy", "cpu-manager-policy", Shape::Text, &["none"]),
    only("memoryManagerPolicy", "memory-manager-policy", Shape::Text, &["None"]),
    only("memoryReservationPolicy", "", Shape::Text, &["None"]),
    only("topologyManagerPolicy", "topology-manager-policy", Shape::Text, &["none"]),
    only("memorySwap.swapBehavior", "", Shape::Text, &["NoSwap"]),
    only("singleProcessOOMKill", "", Shape::Switch, &["false"]),
    only("enforceNodeAllocatable", "enforce-node-allocatable", Shape::List, &["pods"]),
    only("imagePullCredentialsVerificationPolicy", "", Shape::Text, &["NeverVerifyPreloadedImages", "NeverVerify"]),
    only("podsPerCore", "pods-per-core", Shape::Number, &["0"]),
    only("mergeDefaultEvictionSettings", "", Shape::Switch, &["false"]),
    only("evictionMaxPodGracePeriod", "eviction-max-pod-grace-period", Shape::Number, &["0"]),
    only("evictionSoft", "eviction-soft", Shape::Map('<'), &[""]),
    only("evictionSoftGracePeriod", "eviction-soft-grace-period", Shape::Map('='), &[""]),
    only("evictionMinimumReclaim", "eviction-minimum-reclaim", Shape::Map('='), &[""]),
    only("qosReserved", "qos-reserved", Shape::Map('='), &[""]),
    only("reservedMemory", "reserved-memory", Shape::List, &[""]),
    only("reservedSystemCPUs", "reserved-cpus", Shape::Text, &[""]),
    only("systemReservedCgroup", "system-reserved-cgroup", Shape::Text, &[""]),
    only("kubeReservedCgroup", "kube-reserved-cgroup", Shape::Text, &[""]),
    only("systemCgroups", "system-cgroups", Shape::Text, &[""]),
    only("kubeletCgroups", "kubelet-cgroups", Shape::Text, &[""]),
    only("staticPodURL", "manifest-url", Shape::Text, &[""]),
    only("staticPodURLHeader", "manifest-url-header", Shape::Any, &[""]),
    only("rotateCertificates", "rotate-certificates", Shape::Switch, &["false"]),
    only("serverTLSBootstrap", "rotate-server-certificates", Shape::Switch, &["false"]),
    only("imageMaximumGCAge", "", Shape::Duration, &["0s"]),
    only("imageServiceEndpoint", "image-service-endpoint", Shape::Text, &[""]),
    only("enableSystemLogQuery", "", Shape::Switch, &["false"]),
    // What is built differently here, or has nothing to tune.
    nothing("authentication.webhook.cacheTTL", "authentication-token-webhook-cache-ttl", Shape::Duration),
    nothing("authorization.webhook.cacheAuthorizedTTL", "authorization-webhook-cache-authorized-ttl", Shape::Duration),
    nothing(
        "authorization.webhook.cacheUnauthorizedTTL",
        "authorization-webhook-cache-unauthorized-ttl",
        Shape::Duration,
    ),
    nothing("syncFrequency", "sync-frequency", Shape::Duration),
    nothing("fileCheckFrequency", "file-check-frequency", Shape::Duration),
    nothing("httpCheckFrequency", "http-check-frequency", Shape::Duration),
    nothing("volumeStatsAggPeriod", "volume-stats-agg-period", Shape::Duration),
    nothing("runtimeRequestTimeout", "runtime-request-timeout", Shape::Duration),
    nothing("cpuManagerReconcilePeriod", "cpu-manager-reconcile-period", Shape::Duration),
    nothing("topologyManagerScope", "topology-manager-scope", Shape::Text),
    nothing("registryPullQPS", "registry-qps", Shape::Number),
    nothing("registryBurst", "registry-burst", Shape::Number),
    nothing("kubeAPIQPS", "kube-api-qps", Shape::Number),
    nothing("kubeAPIBurst", "kube-api-burst", Shape::Number),
    nothing("contentType", "kube-api-content-type", Shape::Text),
    nothing("oomScoreAdj", "oom-score-adj", Shape::Number),
    nothing("maxOpenFiles", "max-open-files", Shape::Number),
    nothing("maxParallelImagePulls", "", Shape::Number),
    nothing("hairpinMode", "hairpin-mode", Shape::Text),
    nothing("makeIPTablesUtilChains", "make-iptables-util-chains", Shape::Switch),
    nothing("iptablesMasqueradeBit", "", Shape::Number),
    nothing("iptablesDropBit", "", Shape::Number),
    nothing("failSwapOn", "fail-swap-on", Shape::Switch),
    nothing("failCgroupV1", "fail-cgroupv1", Shape::Switch),
    nothing("containerLogMaxWorkers", "", Shape::Number),
    nothing("containerLogMonitorInterval", "", Shape::Duration),
    nothing("configMapAndSecretChangeDetectionStrategy", "", Shape::Text),
    nothing("enableControllerAttachDetach", "enable-controller-attach-detach", Shape::Switch),
    nothing("volumePluginDir", "volume-plugin-dir", Shape::File),
    nothing("localStorageCapacityIsolation", "local-storage-capacity-isolation", Shape::Switch),
    nothing("", "cert-dir", Shape::File),
    nothing("", "housekeeping-interval", Shape::Duration),
    nothing("", "maximum-dead-containers", Shape::Number),
    nothing("", "maximum-dead-containers-per-container", Shape::Number),
    nothing("", "minimum-container-ttl-duration", Shape::Duration),
    nothing("", "runtime-cgroups", Shape::Text),
    nothing("enableProfilingHandler", "", Shape::Switch),
    nothing("enableDebugFlagsHandler", "", Shape::Switch),
    nothing("enableContentionProfiling", "", Shape::Switch),
    nothing("kernelMemcgNotification", "kernel-memcg-notification", Shape::Switch),
    nothing("logging", "", Shape::Any),
    nothing("featureGates", "", Shape::Any),
    nothing("tracing", "", Shape::Any),
];

#[cfg(test)]
pub(super) mod tests {
    use kubelet::config::Threshold;
    use serde_json::Value;

    use super::*;
    use crate::component::settings::{Intake, command};

    fn from_file(text: &str) -> Result<(Config, Vec<String>), String> {
        let mut config = Config::new("n1");
        let mut intake = Intake::new(&mut config, SETTINGS);
        intake.file(text, &KIND)?;
        let warnings = intake.without_effect;
        Ok((config, warnings))
    }

    pub fn head() -> String {
        format!("apiVersion: {}\nkind: {}\n", KIND.api_version, KIND.kind)
    }

    /// What kubeadm writes, but for the group driver and the rotation of certificates.
    pub const KUBEADM: &str = "
authentication:
  anonymous: {enabled: false}
  webhook: {cacheTTL: 0s, enabled: true}
  x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}
authorization:
  mode: Webhook
  webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}
cgroupDriver: cgroupfs
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: ''
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
logging:
  flushFrequency: 0
  options: {json: {infoBufferSize: '0'}}
memorySwap: {}
shutdownGracePeriod: 0s
staticPodPath: /etc/kubernetes/manifests
";

    #[test]
    fn a_file_of_kubeadm_is_taken() {
        let (config, warnings) = from_file(&(head() + KUBEADM)).expect("taken");
        assert_eq!(config.cluster_dns, ["10.96.0.10".parse::<std::net::IpAddr>().expect("ip")]);
        assert_eq!(config.static_pod_path.as_deref(), Some("/etc/kubernetes/manifests".as_ref()));
        assert_eq!(config.server.client_ca_file.as_deref(), Some("/etc/kubernetes/pki/ca.crt".as_ref()));
        assert_eq!(config.eviction.pressure_transition_period, std::time::Duration::from_secs(300));
        assert_eq!(warnings, ["logging"]);
    }

    #[test]
    fn what_upstream_serves_as_its_configuration_is_taken() {
        let served = include_str!("configz.json");
        let value: Value = serde_json::from_str(served).expect("JSON");
        let (config, _) = from_file(&value["kubeletconfig"].to_string()).expect("taken");
        assert_eq!(config.eviction.hard["memory.available"], Threshold::Amount(10 << 20));
        assert_eq!(config.eviction.hard["nodefs.available"], Threshold::Share(0.01));
        assert!(config.serialize_image_pulls && !config.server.anonymous);
    }

    #[test]
    fn what_can_not_be_had_is_refused_with_its_path() {
        let says = |text: &str| from_file(&(head() + text)).err().unwrap_or_default();
        let driver = "cgroupDriver: systemd can't be had here yet: only cgroupfs";
        assert_eq!(says("cgroupDriver: systemd"), driver);
        assert_eq!(says("maxPod: 7").split(';').next(), Some("maxPod: there is no such field"));
        let signal = says("evictionHard: {memory.free: 1Gi}");
        assert!(signal.starts_with("evictionHard: \"memory.free\" can't be watched"), "{signal}");
        let taint = says("registerWithTaints: [{key: a, effect: Never}]");
        assert!(taint.contains("is not a taint such as key=value:NoSchedule"), "{taint}");
        for (text, name) in [
            ("rotateCertificates: true", "rotateCertificates: true"),
            ("serverTLSBootstrap: true", "serverTLSBootstrap: true"),
            ("readOnlyPort: 10255", "readOnlyPort: 10255"),
            ("tlsMinVersion: VersionTLS10", "tlsMinVersion: VersionTLS10"),
            ("tlsCipherSuites: [TLS_RSA_WITH_RC4_128_SHA]", "tlsCipherSuites: TLS_RSA_WITH_RC4_128_SHA"),
        ] {
            let said = says(text);
            assert!(said.starts_with(&format!("{name} can't be had here")), "{said}");
        }
        assert_eq!(says("eventRecordQPS: -1"), "eventRecordQPS: -1 must not be a negative number");
        assert!(says("evictionSoft: {memory.available: 1Gi}").contains("can't be had here yet"));
    }

    #[test]
    fn a_graceful_end_of_the_machine_is_described_either_way() {
        let (two, _) =
            from_file(&(head() + "shutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s\n")).expect("taken");
        assert_eq!((two.shutdown_grace_period.as_secs(), two.shutdown_grace_period_critical_pods.as_secs()), (30, 10));
        let text = "shutdownGracePeriodByPodPriority: [{priority: 1000, shutdownGracePeriodSeconds: 5}]";
        let (groups, _) = from_file(&(head() + text)).expect("taken");
        assert_eq!(kubelet::shutdown::longest(&groups).as_secs(), 5);
        let wrong =
            from_file(&(head() + "shutdownGracePeriodByPodPriority: [{priority: high}]")).err().unwrap_or_default();
        assert!(wrong.contains("shutdownGracePeriodSeconds"), "{wrong}");
    }

    #[test]
    fn what_an_audit_asks_for_has_its_effect_by_field_and_by_flag() {
        let text = "
podPidsLimit: 1024
seccompDefault: true
streamingConnectionIdleTimeout: 5m
eventRecordQPS: 5
eventBurst: 7
protectKernelDefaults: true
makeIPTablesUtilChains: true
readOnlyPort: 0
tlsMinVersion: VersionTLS13
tlsCipherSuites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305]
";
        let (filed, warnings) = from_file(&(head() + text)).expect("taken");
        assert_eq!(warnings, ["makeIPTablesUtilChains"], "no chains are made here, and that is said");
        let line = "kubelet --pod-max-pids=1024 --seccomp-default --streaming-connection-idle-timeout=5m --event-qps=5 \
                    --event-burst=7 --protect-kernel-defaults --tls-min-version=VersionTLS13 \
                    --tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";
        let mut flagged = Config::new("n1");
        let matches =
            command("kubelet", "", &KIND, SETTINGS).try_get_matches_from(line.split_whitespace()).expect("flags");
        let mut intake = Intake::new(&mut flagged, SETTINGS);
        intake.flags(&matches).expect("taken");
        assert_eq!(intake.without_effect, Vec::<String>::new());
        for c in [filed, flagged] {
            assert_eq!((c.pod_pids_limit, c.seccomp_default, c.protect_kernel_defaults), (1024, true, true));
            assert_eq!((c.event_record_qps, c.event_burst), (5, 7));
            assert_eq!(c.server.streaming_idle_timeout, std::time::Duration::from_secs(300));
            assert!(c.server.tls.only_13 && c.server.tls.suites.len() == 2);
        }
    }

    #[test]
    fn flags_have_the_last_word() {
        let mut config = Config::new("n1");
        config.max_pods = 50;
        let line = [
            "kubelet",
            "--max-pods=20",
            "--eviction-hard=memory.available<1Gi,nodefs.available<5%",
            "--register-with-taints=dedicated=web:NoSchedule,gone:NoExecute",
            "--node-labels=zone=a",
            "--seccomp-default",
            "--anonymous-auth=true",
        ];
        let matches = command("kubelet", "", &KIND, SETTINGS).try_get_matches_from(line).expect("flags");
        let mut intake = Intake::new(&mut config, SETTINGS);
        intake.flags(&matches).expect("taken");
        let warnings = intake.without_effect;
        assert_eq!((config.max_pods, config.seccomp_default, config.server.anonymous), (20, true, true));
        assert_eq!(config.eviction.hard["memory.available"], Threshold::Amount(1 << 30));
        let taints: Vec<_> = config.register_with_taints.iter().map(|t| (t.key.as_str(), t.value.as_deref())).collect();
        assert_eq!(taints, [("dedicated", Some("web")), ("gone", None)]);
        assert_eq!((config.node_labels["zone"].as_str(), warnings.len()), ("a", 0));
    }

    #[test]
    fn no_field_or_flag_is_listed_twice() {
        let names = [
            SETTINGS.iter().map(|s| s.field).filter(|name| !name.is_empty()).collect::<Vec<_>>(),
            SETTINGS.iter().map(|s| s.flag).filter(|name| !name.is_empty()).collect(),
        ];
        for mut names in names {
            names.sort_unstable();
            let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
            assert!(twice.is_empty(), "{twice:?}");
        }
    }
}
