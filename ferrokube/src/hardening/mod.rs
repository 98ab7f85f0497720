//! `up --hardened`: what a CIS audit wants beyond upstream's defaults, where a cluster of ordinary charts still runs on
//! it. Settings of the API server, the controller manager and the kubelet; files in `security/`; a policy in each
//! system namespace. What it doesn't set, and why, is told by `check --cis` and in SECURITY.md. I/O: writes the files.

mod audit;
pub mod encryption;

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::api::Identity;
use crate::apply::put;
use crate::config::{Cluster, Host, Network, private_dir, write_private};

/// Processes and threads of one pod: no program that serves needs more, and a fork bomb ends there.
const POD_PIDS: i64 = 4096;
/// Events a second: of the whole cluster, and of one source. A cluster that is well makes a few; when a hundred pods
/// fail at once, the same events are counted in one.
const EVENTS: [(&str, u32, u32, u32); 2] = [("Server", 100, 1000, 1), ("SourceAndObject", 10, 100, 4096)];
/// Namespaces whose pods belong to the cluster: a network plugin or a storage driver needs the host.
const EXEMPT: [&str; 1] = ["kube-system"];
/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Writes the files that the settings name.
pub fn write(host: &Host) -> Result<()> {
    if host.cluster.hardened {
        private_dir(&host.security())?;
        private_dir(&host.audit())?;
        let files = [(admission_file(host), admission()), (audit::policy_file(host), audit::policy())];
        for (file, content) in files {
            write_private(&file, format!("{content:#}\n").as_bytes())?;
        }
    }
    encryption::write(host)
}

fn admission_file(host: &Host) -> PathBuf {
    host.security().join("admission.yaml")
}

/// JSON is YAML.
fn admission() -> Value {
    let limits =
        EVENTS.map(|(kind, qps, burst, cache)| json!({"type": kind, "qps": qps, "burst": burst, "cacheSize": cache}));
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [
            {"name": "EventRateLimit", "configuration": {
                "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration", "limits": limits}},
            // Enforcing `restricted` would keep most charts from running: what breaks it is told instead.
            {"name": "PodSecurity", "configuration": {
                "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
                "defaults": {"enforce": "baseline", "enforce-version": "latest", "audit": "restricted",
                    "audit-version": "latest", "warn": "restricted", "warn-version": "latest"},
                "exemptions": {"usernames": [], "runtimeClasses": [], "namespaces": EXEMPT}}},
        ],
    })
}

/// The API server's settings.
pub fn api_server(host: &Host, config: &mut apiserver::Config) {
    // Also where it was taken back: what was sealed must be read.
    config.encryption_provider_config = encryption::config_file(host);
    if !host.cluster.hardened {
        return;
    }
    config.audit_policy_file = Some(audit::policy_file(host));
    config.audit_log = Some(audit::log(host));
    // Not AlwaysPullImages: an image that was imported has no registry to be pulled from.
    config.enable_admission_plugins.extend(["DenyServiceExternalIPs", "EventRateLimit"].map(str::to_owned));
    config.admission_control_config_file = Some(admission_file(host));
    config.service_account_extend_token_expiration = false;
}

/// The kubelet's settings.
pub fn kubelet(cluster: &Cluster, config: &mut kubelet::config::Config) {
    if cluster.hardened {
        config.pod_pids_limit = POD_PIDS;
        config.seccomp_default = true;
    }
}

/// Objects: pods of a namespace of the system are reached from it alone, and its account `default` mounts no token.
/// The policies are stored; nothing enforces them yet.
pub async fn apply(client: &kube::Client, cluster: &Cluster) -> Result<()> {
    if !cluster.hardened {
        return Ok(());
    }
    let flannels = (cluster.network() == Network::Flannel).then_some(Identity::FLANNEL_NAMESPACE);
    for namespace in NAMESPACES.into_iter().chain(flannels) {
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "default-network-policy", "namespace": namespace},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]}});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace}, "automountServiceAccountToken": false});
        put(client, "networkpolicies", &policy).await?;
        put(client, "serviceaccounts", &account).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_a_configuration_of_upstreams_kinds() {
        let admission = admission();
        assert_eq!(admission["plugins"][1]["configuration"]["defaults"]["enforce"], "baseline");
        assert_eq!(admission["plugins"][0]["configuration"]["limits"][0]["qps"], 100);
    }

    #[test]
    fn nothing_changes_where_it_was_not_asked_for() {
        let cluster = crate::config::tests::host(std::path::Path::new("/nowhere")).cluster;
        let mut config = kubelet::config::Config::new("node");
        kubelet(&cluster, &mut config);
        assert_eq!((config.pod_pids_limit, config.seccomp_default), (-1, false));
        kubelet(&Cluster { hardened: true, ..cluster }, &mut config);
        assert_eq!((config.pod_pids_limit, config.seccomp_default), (POD_PIDS, true));
    }
}
