//! Services and names as a person changes them: the configuration of cluster DNS, load balancers on the nodes' addresses.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, Own, eventually, output};

pub const TESTS: &[Test] = &[
    ("dns_follows_its_config_map_within_a_second_or_two", names),
    ("a_load_balancer_has_the_nodes_address_and_no_port_of_the_host", balancer),
];

/// A change of the configuration is in force by then.
const SOON: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);
/// The node's address.
const NODE: &str = "192.0.2.2";

fn started(cluster: &Cluster, name: &str) -> Result<Own> {
    let own = cluster.elsewhere(name)?;
    own.up()?;
    own.import_busybox(BUSYBOX)?;
    Ok(own)
}

fn names(cluster: &Cluster) -> Result<()> {
    let own = started(cluster, "names")?;
    own.kubectl(&["run", "client", "--image", BUSYBOX, "--", "sleep", "1000"])?;
    own.ready("client")?;
    let ask = |name: &str| -> Result<String> {
        Ok(own.kubectl_with(&["exec", "client", "--", "nslookup", name], "")?.stdout)
    };
    let becomes = |name: &str, address: &str| {
        eventually(SOON, || {
            let said = ask(name)?;
            ensure!(said.contains(address), "{name}: {said}");
            Ok(())
        })
    };
    // The stub domain is another block, the host a line; the rest is as it was.
    own.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: coredns, namespace: kube-system}\ndata:\n  Corefile: |\n    \
         .:53 {\n        errors\n        hosts {\n            192.0.2.9 printer.example\n            fallthrough\n        }\n        \
         kubernetes cluster.local in-addr.arpa ip6.arpa {\n            pods insecure\n            fallthrough in-addr.arpa \
         ip6.arpa\n        }\n        prometheus :9153\n        forward . /etc/resolv.conf\n        cache 30\n        \
         loop\n        reload\n        loadbalance\n    }\n    corp.example {\n        template IN A {\n            answer \
         \"{{ .Name }} 5 IN A 192.0.2.53\"\n        }\n    }\n",
    )?;
    becomes("printer.example", "192.0.2.9")?;
    becomes("x.corp.example", "192.0.2.53")?;
    let kubernetes = own.kubectl(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"])?;
    becomes("kubernetes.default.svc.cluster.local", &kubernetes)?;
    let edit = |script: &str| {
        let mut edit = own.kubectl_command(&["edit", "configmap/coredns", "-n", "kube-system"]);
        edit.env("KUBE_EDITOR", format!("sed -i {script}"));
        output(&mut edit, "")?.ok()
    };
    edit("s/192.0.2.9/192.0.2.10/")?;
    becomes("printer.example", "192.0.2.10")?;
    // What can't be read is told, and changes nothing.
    edit("s/loadbalance/lodbalance/")?;
    let told = || -> Result<()> {
        let events = own.kubectl(&["get", "events", "-n", "kube-system", "-o", "wide"])?;
        ensure!(events.contains("InvalidCorefile") && events.contains("lodbalance"), "{events}");
        Ok(())
    };
    eventually(PATIENCE, told)?;
    becomes("printer.example", "192.0.2.10")?;
    own.kubectl(&["delete", "configmap/coredns", "-n", "kube-system"])?;
    eventually(SOON, || {
        let said = ask("printer.example")?;
        ensure!(!said.contains("192.0.2.10"), "{said}");
        Ok(())
    })
}

fn balancer(cluster: &Cluster) -> Result<()> {
    let own = started(cluster, "balancer")?;
    let host = own.host.clone().context("a host")?;
    let serve = ["create", "deployment", "web", "--image", BUSYBOX, "--port=80", "--"];
    own.kubectl(&[&serve[..], &["httpd", "-f", "-h", "/var/www"]].concat())?;
    own.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let expose = |name: &str, port: &str| {
        let port = format!("--port={port}");
        own.kubectl(&["expose", "deployment", "web", "--name", name, "--type=LoadBalancer", &port, "--target-port=80"])
    };
    let has_address = |object: &serde_json::Value| object["status"]["loadBalancer"]["ingress"][0]["ip"] == NODE;
    let page = |port: &str| host.sh(&format!("curl -s --max-time 3 http://{NODE}:{port}/"));
    expose("web", "80")?;
    own.wait_for("service/web", PATIENCE, has_address)?;
    let service = own.get("service/web")?;
    let finalizers = &service["metadata"]["finalizers"];
    ensure!(finalizers[0] == "service.kubernetes.io/load-balancer-cleanup", "{finalizers}");
    eventually(PATIENCE, || {
        ensure!(page("80")? == "hello\n");
        Ok(())
    })?;
    // A port of the cluster's own, and one of a program of the host: neither is a Service's.
    let api = own.status()?["server"].as_str().and_then(|s| s.rsplit_once(':')).map(|(_, p)| p.to_owned());
    let api = api.context("the API server's port")?;
    expose("evil", &api)?;
    let refused = || -> Result<()> {
        let events = own.kubectl(&["get", "events", "-o", "wide"])?;
        ensure!(events.contains("SyncLoadBalancerFailed") && events.contains(&format!("port {api}/TCP")), "{events}");
        Ok(())
    };
    eventually(PATIENCE, refused)?;
    ensure!(own.kubectl(&["get", "service", "evil"])?.contains("<pending>"));
    let mut listener =
        host.command("python3").args(["-m", "http.server", "8000", "--directory", "/proc/self/net"]).spawn()?;
    let own_page = || page("8000").map(|page| page.contains("Directory listing"));
    let listens = eventually(PATIENCE, || {
        ensure!(own_page()?);
        Ok(())
    });
    let kept = listens.and_then(|()| {
        expose("shadow", "8000")?;
        eventually(PATIENCE, || {
            let events = own.kubectl(&["get", "events", "-o", "wide"])?;
            ensure!(events.contains("PortInUse"), "{events}");
            Ok(())
        })?;
        ensure!(own_page()?, "the host's program answers");
        Ok(())
    });
    listener.kill()?;
    listener.wait()?;
    kept?;
    // Another type: no address any more, and nothing that answers.
    own.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"type":"ClusterIP"}}"#])?;
    let gone = |object: &serde_json::Value| {
        object["metadata"]["finalizers"].is_null() && object["status"]["loadBalancer"]["ingress"].is_null()
    };
    own.wait_for("service/web", PATIENCE, gone)?;
    eventually(PATIENCE, || {
        ensure!(page("80").is_err(), "nothing listens");
        Ok(())
    })?;
    own.kubectl(&["delete", "service", "shadow", "evil", "web", "--timeout=20s"])?;
    Ok(())
}
