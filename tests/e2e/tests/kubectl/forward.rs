//! Ways into the cluster: port-forward to pods, services and deployments, `kubectl proxy`, and the API server's own
//! proxy to pods, services and nodes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::runner::Test;
use testkit::{Cluster, Running, Space};

use super::streams::{PROTOCOLS, speaking};

pub const TESTS: &[Test] = &[
    ("port_forward_reaches_pods_services_and_deployments", port_forward),
    ("kubectl_proxy_serves_the_api", proxy),
    ("the_api_server_proxies_to_pods_services_and_nodes", api_proxy),
];

const PATIENCE: Duration = Duration::from_secs(20);

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: docker.io/library/busybox:test
        command: [httpd, -f, -p, "8080", -h, /var/www]
        ports: [{name: http, containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: page, port: 80, targetPort: http}]}
"#;

fn web(space: &Space<'_>) -> Result<String> {
    space.apply(WEB)?;
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    space.path("pods", "{.items[0].metadata.name}")
}

/// The local port that `Forwarding from 127.0.0.1:PORT ->` or `Starting to serve on 127.0.0.1:PORT` names.
fn port(said: &str) -> Result<u16> {
    let digits = said.split("127.0.0.1:").nth(1).context("a port")?.split(|c: char| !c.is_ascii_digit()).next();
    Ok(digits.context("digits")?.parse()?)
}

/// The answer to a GET, whole.
fn fetch(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn port_forward(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("forward")?;
    let pod = web(&space)?;
    for (name, protocol) in PROTOCOLS {
        for (target, ports) in [(pod.as_str(), ":8080"), ("service/web", ":80"), ("deployment/web", ":http")] {
            let mut command = space.command(&["port-forward", target, ports]);
            let forward = Running::start(speaking(&mut command, protocol))?;
            let said = forward.expect(PATIENCE, "Forwarding from 127.0.0.1:")?;
            ensure!(said.contains("-> 8080"), "{name} {target}: {said}");
            let port = port(&said)?;
            for _ in 0..3 {
                let page = fetch(port, "/")?;
                ensure!(page.contains("200 OK") && page.ends_with("hello\n"), "{name} {target}: {page:?}");
            }
        }
        // Nobody listens on this port of the pod: kubectl says so and gives up.
        let mut command = space.command(&["port-forward", &pod, ":9"]);
        let mut forward = Running::start(speaking(&mut command, protocol))?;
        let port = port(&forward.expect(PATIENCE, "Forwarding from 127.0.0.1:")?)?;
        ensure!(fetch(port, "/").map_or(true, |answer| answer.is_empty()), "{name}");
        let (code, said) = forward.end(PATIENCE)?;
        ensure!(
            code == 1 && said.contains("onnection refused") && said.contains("lost connection to pod"),
            "{name}: {said}"
        );
    }
    Ok(())
}

fn proxy(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("proxying")?;
    let proxy = Running::start(&mut space.command(&["proxy", "--port=0"]))?;
    let port = port(&proxy.expect(PATIENCE, "Starting to serve on 127.0.0.1:")?)?;
    let answer = fetch(port, "/api/v1/namespaces/proxying/configmaps")?;
    ensure!(answer.contains("ConfigMapList") && answer.contains("kube-root-ca.crt"), "{answer}");
    ensure!(fetch(port, "/api/v1/namespaces/proxying/pods/none")?.contains("404 Not Found"));
    // A watch through it brings what happens while it is open.
    let mut watch = TcpStream::connect(("127.0.0.1", port))?;
    watch.set_read_timeout(Some(PATIENCE))?;
    watch.write_all(b"GET /api/v1/namespaces/proxying/configmaps?watch=1&fieldSelector=metadata.name=new HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    space.kubectl(&["create", "configmap", "new"])?;
    let (mut seen, mut block) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&seen).contains("\"ADDED\"") {
        let size = watch.read(&mut block).context("the watch brings the new object")?;
        ensure!(size > 0, "the watch ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&block[..size]);
    }
    Ok(())
}

fn api_proxy(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("api-proxy")?;
    let pod = web(&space)?;
    let raw = |path: &str| space.kubectl(&["get", "--raw", path]);
    for target in [
        format!("pods/{pod}/proxy/"),
        format!("pods/{pod}:8080/proxy/"),
        format!("pods/{pod}:http/proxy/index.html"),
        format!("pods/http:{pod}:8080/proxy/"),
        "services/web/proxy/".to_owned(),
        "services/web:page/proxy/".to_owned(),
        "services/web:80/proxy/".to_owned(),
        "services/http:web:page/proxy/index.html".to_owned(),
    ] {
        let page = raw(&format!("/api/v1/namespaces/api-proxy/{target}")).with_context(|| target.clone())?;
        ensure!(page == "hello\n", "{target}: {page:?}");
    }
    for (port, why) in [
        ("none", "no endpoints available for service \"web:none\""),
        ("81", "no service port 81 found for service \"web\""),
    ] {
        let missing =
            space.refused(&["get", "--raw", &format!("/api/v1/namespaces/api-proxy/services/web:{port}/proxy/")])?;
        ensure!(missing == format!("Error from server (ServiceUnavailable): {why}\n"), "{missing}");
    }
    let closed = space.refused(&["get", "--raw", &format!("/api/v1/namespaces/api-proxy/pods/{pod}:9/proxy/")])?;
    ensure!(
        closed.contains("error trying to reach service: dial tcp 10.")
            && closed.contains(":9: connect: connection refused"),
        "{closed}"
    );
    let node = space.path("nodes", "{.items[0].metadata.name}")?;
    ensure!(raw(&format!("/api/v1/nodes/{node}/proxy/healthz"))? == "ok");
    ensure!(raw(&format!("/api/v1/nodes/{node}/proxy/pods"))?.contains(&pod));
    Ok(())
}
