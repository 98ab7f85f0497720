//! `/configz`: the settings that this kubelet runs with, as KubeletConfiguration names them. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{Config, Threshold};

/// The whole document.
pub fn configuration(config: &Config) -> Value {
    let mut all = node(config);
    for part in [server(config), images_and_logs(config)] {
        if let (Value::Object(all), Value::Object(part)) = (&mut all, part) {
            all.extend(part);
        }
    }
    json!({"kubeletconfig": all})
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

fn node(c: &Config) -> Value {
    let dns: Vec<String> = c.cluster_dns.iter().map(ToString::to_string).collect();
    let shown = |threshold: &Threshold| match threshold {
        Threshold::Share(share) => format!("{}%", share * 100.0),
        Threshold::Amount(amount) => amount.to_string(),
    };
    let hard: Value = c.eviction.hard.iter().map(|(k, t)| (k.clone(), Value::from(shown(t)))).collect();
    json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "podLogsDir": c.pod_logs_dir,
        "staticPodPath": c.static_pod_path,
        "clusterDomain": c.cluster_domain,
        "clusterDNS": dns,
        "resolvConf": c.resolv_conf,
        "maxPods": c.max_pods,
        "podPidsLimit": c.pod_pids_limit,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": c.cgroup_root,
        "cgroupsPerQOS": c.cgroups_per_qos,
        "cpuCFSQuota": c.cpu_cfs_quota,
        "cpuCFSQuotaPeriod": format!("{}ms", c.cpu_cfs_quota_period.as_millis()),
        "systemReserved": c.system_reserved,
        "kubeReserved": c.kube_reserved,
        "evictionHard": hard,
        "evictionPressureTransitionPeriod": seconds(c.eviction.pressure_transition_period),
        "nodeStatusUpdateFrequency": seconds(c.node_status_update_frequency),
        "nodeStatusReportFrequency": seconds(c.node_status_report_frequency),
        "nodeLeaseDurationSeconds": c.node_lease_duration.as_secs(),
        "nodeStatusMaxImages": c.node_status_max_images,
        "seccompDefault": c.seccomp_default,
        "allowedUnsafeSysctls": c.allowed_unsafe_sysctls,
        "protectKernelDefaults": c.protect_kernel_defaults,
        // No rules of iptables are made here at all.
        "makeIPTablesUtilChains": false,
        "registerNode": c.register_node,
        "containerRuntimeEndpoint": c.container_runtime_endpoint,
        "crashLoopBackOff": {"maxContainerRestartPeriod": seconds(c.max_container_restart_period)},
    })
}

fn server(c: &Config) -> Value {
    let s = &c.server;
    json!({
        "enableServer": true,
        "address": s.address.to_string(),
        "port": s.port,
        "readOnlyPort": 0,
        "authentication": {
            "x509": {"clientCAFile": s.client_ca_file},
            "webhook": {"enabled": s.webhook_authentication},
            "anonymous": {"enabled": s.anonymous},
        },
        "authorization": {"mode": if s.webhook_authorization { "Webhook" } else { "AlwaysAllow" }},
        "tlsCertFile": s.tls_cert_file,
        "tlsPrivateKeyFile": s.tls_private_key_file,
        "tlsMinVersion": if s.tls.only_13 { "VersionTLS13" } else { "VersionTLS12" },
        "tlsCipherSuites": s.tls.suites,
        "rotateCertificates": false,
        "serverTLSBootstrap": false,
        "streamingConnectionIdleTimeout": seconds(s.streaming_idle_timeout),
        "healthzPort": s.healthz_port,
        "healthzBindAddress": s.healthz_bind_address.to_string(),
        "enableDebuggingHandlers": s.enable_debugging_handlers,
        "enableSystemLogHandler": s.enable_system_log_handler,
        "eventRecordQPS": c.event_record_qps,
        "eventBurst": c.event_burst,
    })
}

fn images_and_logs(c: &Config) -> Value {
    json!({
        "imageMinimumGCAge": seconds(c.image_minimum_gc_age),
        "imageGCHighThresholdPercent": c.image_gc_high_threshold_percent,
        "imageGCLowThresholdPercent": c.image_gc_low_threshold_percent,
        "serializeImagePulls": c.serialize_image_pulls,
        "containerLogMaxSize": c.container_log_max_size.to_string(),
        "containerLogMaxFiles": c.container_log_max_files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_show_as_they_are() {
        let mut config = Config::new("n1");
        config.pod_pids_limit = 1024;
        config.seccomp_default = true;
        config.server.tls.only_13 = true;
        config.server.streaming_idle_timeout = Duration::from_secs(300);
        config.event_record_qps = 5;
        let shown = &configuration(&config)["kubeletconfig"];
        for (field, value) in [
            ("podPidsLimit", json!(1024)),
            ("seccompDefault", json!(true)),
            ("tlsMinVersion", json!("VersionTLS13")),
            ("streamingConnectionIdleTimeout", json!("300s")),
            ("eventRecordQPS", json!(5)),
            ("eventBurst", json!(100)),
            ("protectKernelDefaults", json!(false)),
            ("readOnlyPort", json!(0)),
            ("rotateCertificates", json!(false)),
            ("nodeStatusUpdateFrequency", json!("10s")),
            (
                "evictionHard",
                json!({"memory.available": "104857600", "nodefs.available": "10%",
                "nodefs.inodesFree": "5%", "imagefs.available": "15%"}),
            ),
        ] {
            assert_eq!(shown[field], value, "{field}");
        }
    }
}
