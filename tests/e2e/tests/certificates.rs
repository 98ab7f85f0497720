//! Certificates while a cluster runs: a year passes over it, and all that speaks TLS goes on.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Clock, Cluster, eventually, output};

pub const TESTS: &[Test] = &[("a_year_passes_and_nothing_is_started_again", year)];

/// A day more than the life of the cluster's certificates.
const YEAR: i64 = 366 * 86_400;
/// Certificates are looked at once a minute.
const RENEWED_WITHIN: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(30);
/// kubectl lives in the present, where the server's new certificate has not begun; the server, in the future, still
/// checks the client's.
const FROM_THE_PAST: &str = "--insecure-skip-tls-verify";

const SERVED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: served, labels: {app: served}}
spec:
  containers:
  - name: web
    image: docker.io/library/busybox:test
    command: [sh, -c, "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www"]
    readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: served}
spec: {selector: {app: served}, ports: [{port: 80}]}
"#;

fn year(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("year")?;
    let clock = Clock::new(&own.dir)?;
    output(clock.worn_by(&mut own.command(&["up"])), "")?.ok()?;
    own.import_busybox(BUSYBOX)?;
    own.apply(SERVED)?;
    own.ready("served")?;
    let daemon = own.pids("daemon")?;
    clock.set(YEAR)?;
    // By the certificates of its servers, as a client sees them that lives in the future, too.
    for (what, port, path) in [
        ("kube-apiserver", 6443, "/version"),
        ("kubelet", 10250, "/healthz"),
        ("kube-controller-manager", 10257, "/healthz"),
        ("kube-scheduler", 10259, "/healthz"),
    ] {
        eventually(RENEWED_WITHIN, || ask(&own, &clock, "ca", "admin", port, path)).context(what)?;
    }
    let health = ask(&own, &clock, "etcd/ca", "etcd/healthcheck-client", 2379, "/health").context("etcd")?;
    ensure!(health.contains("true"), "{health}");
    works(&own).with_context(|| own.log_tail())?;
    ensure!(own.pids("daemon")? == daemon, "the same daemon");
    let status = own.status()?;
    ensure!(status["crashes"].as_object().is_none_or(serde_json::Map::is_empty), "{status:#}");
    let served: Value = serde_json::from_str(&kubectl(&own, &["get", "-o", "json", "pod/served"])?)?;
    ensure!(served["status"]["containerStatuses"][0]["restartCount"] == 0, "{served:#}");
    Ok(())
}

/// All parts work together: the API with kubectl, kubelet and runtime, scheduler and controllers, DNS and proxy.
fn works(own: &Cluster) -> Result<()> {
    ensure!(kubectl(own, &["auth", "whoami"])?.contains("kubernetes-admin"), "the administrator has a new certificate");
    // The API server asks the kubelet, by both of their new certificates.
    eventually(SOON, || {
        ensure!(kubectl(own, &["exec", "served", "--", "echo", "heard"])? == "heard\n");
        kubectl(own, &["logs", "served"])
    })?;
    kubectl(own, &["create", "deployment", "later", "--image", BUSYBOX, "--", "sleep", "1000"])?;
    kubectl(own, &["rollout", "status", "deployment/later", "--timeout=60s"])?;
    eventually(SOON, || {
        kubectl(own, &["exec", "deployment/later", "--", "nslookup", "served.default.svc.cluster.local"])?;
        let address = kubectl(own, &["get", "service", "served", "-o", "jsonpath={.spec.clusterIP}"])?;
        // Its wget needs a getaddrinfo that a static glibc doesn't have: nc does without.
        let get = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} 80");
        let page = kubectl(own, &["exec", "deployment/later", "--", "sh", "-c", &get])?;
        ensure!(page.ends_with("hello\n"), "{page}");
        Ok(())
    })
}

fn kubectl(own: &Cluster, args: &[&str]) -> Result<String> {
    own.kubectl(&[&[FROM_THE_PAST], args].concat())
}

/// A page of a server of the cluster, asked for by who believes this authority and the clock.
fn ask(own: &Cluster, clock: &Clock, ca: &str, client: &str, port: u64, path: &str) -> Result<String> {
    /// How far the ports of two clusters on a host are apart.
    const APART: u64 = 20;
    let record: Value = serde_json::from_slice(&std::fs::read(own.data_dir().join("cluster.json"))?)?;
    let port = match port {
        6443 => record["apiPort"].as_u64().context("a port")?,
        other => other + APART * record["slot"].as_u64().context("a slot")?,
    };
    let pki = own.data_dir().join("pki");
    let mut curl = own.program(Path::new("curl"));
    curl.args(["-sSf", "--max-time", "5", "--cacert"]).arg(pki.join(format!("{ca}.crt")));
    curl.arg("--cert").arg(pki.join(format!("{client}.crt"))).arg("--key").arg(pki.join(format!("{client}.key")));
    output(clock.preloaded(curl.arg(format!("https://127.0.0.1:{port}{path}"))), "")?.ok()
}
