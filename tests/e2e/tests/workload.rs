//! A person's first workload: a Deployment behind a Service with a DNS name, logs, exec.

use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, eventually};

pub const TESTS: &[Test] = &[
    ("a_pod_runs", pod),
    ("a_deployment_answers_by_its_dns_name", deployment),
    ("a_program_that_is_missing_is_told_and_tried_again", missing),
    ("a_pod_shows_its_start_and_end_as_upstreams_do", start_and_end),
];

fn pod(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["run", "one", "--image", BUSYBOX, "--", "sh", "-c", "echo hello; sleep 1000"])?;
    let pod = cluster.ready("one")?;
    ensure!(pod["status"]["podIP"].as_str().is_some_and(|ip| ip.starts_with("10.")), "{}", pod["status"]);
    eventually(Duration::from_secs(5), || {
        let logs = cluster.kubectl(&["logs", "one"])?;
        ensure!(logs == "hello\n", "{logs:?}");
        Ok(())
    })?;
    ensure!(cluster.kubectl(&["exec", "one", "--", "echo", "inside"])? == "inside\n");
    let failed = cluster.kubectl_with(&["exec", "one", "--", "sh", "-c", "exit 7"], "")?;
    ensure!(failed.code == 7, "{failed:?}");
    cluster.kubectl(&["delete", "pod", "one", "--grace-period=1"])?;
    Ok(())
}

fn deployment(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&[
        "create",
        "deployment",
        "web",
        "--image",
        BUSYBOX,
        "--replicas=2",
        "--port=80",
        "--",
        "httpd",
        "-f",
        "-h",
        "/var/www",
    ])?;
    cluster.kubectl(&["expose", "deployment", "web"])?;
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    cluster.kubectl(&["run", "client", "--image", BUSYBOX, "--", "sleep", "1000"])?;
    cluster.ready("client")?;
    let ip = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    // A static glibc has no getaddrinfo: busybox's nslookup speaks DNS itself.
    let ask = ["exec", "client", "--", "nslookup", "web.default.svc.cluster.local"];
    eventually(Duration::from_secs(10), || {
        let answer = cluster.kubectl(&ask)?;
        ensure!(answer.contains(&ip), "{answer}");
        Ok(())
    })?;
    // Its wget needs a getaddrinfo that a static glibc doesn't have: nc does without.
    let get = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {ip} 80");
    let fetch = ["exec", "client", "--", "sh", "-c", &get];
    eventually(Duration::from_secs(10), || {
        let page = cluster.kubectl(&fetch)?;
        ensure!(page.ends_with("hello\n"), "{page:?}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "deployment/web", "service/web", "pod/client", "--grace-period=1"])?;
    Ok(())
}

fn missing(cluster: &Cluster) -> Result<()> {
    let patience = Duration::from_secs(30);
    for (name, policy) in [("never", "Never"), ("always", "Always")] {
        let policy = format!("--restart={policy}");
        cluster.kubectl(&["run", name, "--image", BUSYBOX, &policy, "--command", "--", "no-such-program"])?;
    }
    let ended = cluster.wait_for("pod/never", patience, |p| p["status"]["phase"] == "Failed")?;
    let end = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
    ensure!(end["reason"] == "StartError" && end["exitCode"] == 128, "{end}");
    ensure!(end["message"].as_str().is_some_and(|m| m.contains("executable file not found in $PATH")), "{end}");
    let again = |p: &serde_json::Value| {
        let status = &p["status"]["containerStatuses"][0];
        status["restartCount"].as_i64() >= Some(1) && status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    };
    let looping = cluster.wait_for("pod/always", patience, again)?;
    let last = &looping["status"]["containerStatuses"][0]["lastState"]["terminated"];
    ensure!(last["reason"] == "StartError", "{}", looping["status"]);
    cluster.kubectl(&["delete", "pod/never", "pod/always", "--now"])?;
    Ok(())
}

fn start_and_end(cluster: &Cluster) -> Result<()> {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: last-line}}\nspec:\n  restartPolicy: Never\n  \
         initContainers: [{{name: i, image: \"{BUSYBOX}\", command: [sleep, \"2\"]}}, \
         {{name: j, image: \"{BUSYBOX}\", command: [\"true\"]}}]\n  \
         containers: [{{name: a, image: \"{BUSYBOX}\", command: [sh, -c, \"printf DONE; exit 1\"], \
         terminationMessagePolicy: FallbackToLogsOnError}}]\n"
    ))?;
    eventually(Duration::from_secs(10), || {
        let shown = cluster.kubectl(&["get", "pod", "last-line", "--no-headers"])?;
        ensure!(shown.contains("Init:0/2"), "{shown}");
        Ok(())
    })?;
    let ended = |pod: &serde_json::Value| pod["status"]["phase"] == "Failed";
    let pod = cluster.wait_for("pod/last-line", Duration::from_secs(20), ended)?;
    ensure!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "DONE", "{:#}", pod["status"]);
    ensure!(cluster.kubectl(&["logs", "last-line"])? == "DONE");
    cluster.kubectl(&["delete", "pod/last-line", "--now"])?;
    Ok(())
}
