//! Chapter 4 of the benchmark: the node's files, the kubelet, kube-proxy.

use super::control_plane::{loopback, strong_ciphers};
use super::facts::Facts;
use super::{Row, Verdict, holds, na, pass, row};

const HARDENED: &str = "`up --hardened`";

pub const ROWS: &[Row] = &[
    row("4.1.1", "Permissions of the kubelet's service file", no_file),
    row("4.1.2", "Owner of the kubelet's service file", no_file),
    row("4.1.3", "Permissions of kube-proxy's kubeconfig", no_file),
    row("4.1.4", "Owner of kube-proxy's kubeconfig", no_file),
    row("4.1.5", "Permissions of the kubelet's kubeconfig", no_file),
    row("4.1.6", "Owner of the kubelet's kubeconfig", no_file),
    row("4.1.7", "Permissions of the client CA's file: 644 or stricter", |f| {
        let open = f.below("pki/ca.crt").any(|e| e.mode & !0o644 & 0o777 != 0);
        holds(!open, "pki/ca.crt", "pki/ca.crt is open", "chmod 600")
    }),
    row("4.1.8", "Owner of the client CA's file: root", |f| {
        holds(f.below("pki/ca.crt").all(|e| e.root), "root:root", "pki/ca.crt is not root's", "chown root:root")
    }),
    row("4.1.9", "Permissions of the kubelet's configuration file", no_file),
    row("4.1.10", "Owner of the kubelet's configuration file", no_file),
    row("4.2.1", "The kubelet answers nobody without a name", |f| {
        holds(
            f.kubelet["authentication"]["anonymous"]["enabled"] == false,
            "it doesn't",
            "it does",
            "--anonymous-auth=false",
        )
    }),
    row("4.2.2", "The kubelet asks what callers may do", |f| {
        holds(f.kubelet["authorization"]["mode"] == "Webhook", "Webhook", "AlwaysAllow", "--authorization-mode=Webhook")
    }),
    row("4.2.3", "The kubelet checks client certificates", |f| {
        let ca = f.kubelet["authentication"]["x509"]["clientCAFile"].is_string();
        holds(ca, "by the cluster's CA", "it does not", "--client-ca-file")
    }),
    row("4.2.4", "No read-only port", |_| pass("there is no such port")),
    row("4.2.5", "Idle streams end", |f| {
        let after = f.kubelet["streamingConnectionIdleTimeout"].as_str().unwrap_or("0s");
        holds(after != "0s", format!("after {after}"), "they don't", "--streaming-connection-idle-timeout")
    }),
    row("4.2.6", "iptables chains", |_| na("rules are nftables' own, in tables that nobody else writes to")),
    row("4.2.7", "The host's name is not overridden", |_| {
        pass("the certificate is made for the name that the node has")
    }),
    row("4.2.8", "Events are limited", |f| {
        let most = f.kubelet["eventRecordQPS"].as_i64().unwrap_or(0);
        holds(most > 0, format!("{most} a second"), "they are not", "--event-qps")
    }),
    row("4.2.9", "The kubelet's certificate", |f| {
        holds(f.kubelet["tlsCertFile"].is_string(), "of the cluster's CA", "it signs itself", "--tls-cert-file")
    }),
    row("4.2.10", "The kubelet's client certificate rotates", |_| {
        na("it has none: it speaks to the API server in its process")
    }),
    row("4.2.11", "The kubelet's serving certificate rotates", |_| {
        pass("the daemon renews certificates while it runs")
    }),
    row("4.2.12", "Strong ciphers only", strong_ciphers),
    row("4.2.13", "Processes of a pod are limited", |f| {
        let most = f.kubelet["podPidsLimit"].as_i64().unwrap_or(-1);
        holds(most > 0, format!("{most}"), "they are not", HARDENED)
    }),
    row("4.2.14", "Pods that say nothing get the default seccomp profile", |f| {
        holds(f.kubelet["seccompDefault"] == true, "they do", "they run unconfined, upstream's default", HARDENED)
    }),
    row("4.3.1", "kube-proxy's metrics are on loopback", |f| loopback(f, f.port_of.proxy_metrics)),
];

fn no_file(_: &Facts) -> Verdict {
    na("there is no such file: the node's components run in the daemon")
}
