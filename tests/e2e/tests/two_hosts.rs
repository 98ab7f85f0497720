//! Two hosts of one cluster, each a process of its own in a network of its own: the second has only a node, and reaches
//! the first's API server over TLS with what it was given. Their pods reach each other in `pods_of_hosts`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::image::BUSYBOX;
use testkit::runner::Test;
use testkit::{Cluster, Own, Running, Signal, eventually, output};

pub const TESTS: &[Test] = &[
    ("a_node_alone_works_for_another_hosts_api_server", node_alone),
    ("a_machine_joins_with_a_token", joins_with_a_token),
];

pub const FIRST: &str = "198.51.100.1";
pub const SECOND: &str = "198.51.100.2";
pub const NODE: &str = "second";
const STARTS_WITHIN: Duration = Duration::from_secs(60);
pub const SOON: Duration = Duration::from_secs(20);

fn node_alone(cluster: &Cluster) -> Result<()> {
    let (first, second) = (cluster.elsewhere("first")?, cluster.elsewhere("second")?);
    wire(&first, &second)?;
    up_at(&first, &[])?;
    let record: Value = serde_json::from_slice(&fs::read(first.data_dir().join("cluster.json"))?)?;
    let told = |field: &str| record[field].as_str().map(str::to_owned).with_context(|| field.to_owned());
    let folder = credentials(&first, &second, record["apiPort"].as_u64().context("a port")?)?;
    let config = second.dir.join("config.yaml");
    fs::write(&config, format!("nodeName: {NODE}\nnodeIP: {SECOND}\nnodeLabel: [zone=b]\n"))?;
    let (pods, services) = (told("podCidr")?, told("serviceCidr")?);
    let mut server = second.command(&["server", "--credentials", &folder, "--config", &config.display().to_string()]);
    let server = Running::start(server.args(["--pod-cidr", &pods, "--service-cidr", &services]))?;
    eventually(STARTS_WITHIN, || {
        ensure!(server.said().contains(&format!("Ready. The node {NODE} is in the cluster")), "{}", server.said());
        Ok(())
    })?;
    ensure!(!second.data_dir().join("pki").exists() && !second.data_dir().join("etcd").exists(), "a node alone");
    works(&first, &second, &services).with_context(|| server.said())?;
    server.signal(Signal::TERM)?;
    eventually(SOON, || {
        ensure!(second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })
}

fn joins_with_a_token(cluster: &Cluster) -> Result<()> {
    let (first, second) = (cluster.elsewhere("first")?, cluster.elsewhere("second")?);
    wire(&first, &second)?;
    up_at(&first, &[])?;
    let record: Value = serde_json::from_slice(&fs::read(first.data_dir().join("cluster.json"))?)?;
    let services = record["serviceCidr"].as_str().context("a range")?.to_owned();
    let server = format!("https://{FIRST}:{}", record["apiPort"]);
    let token = first.run(&["token", "create", "--description", "for the second"])?.ok()?.trim().to_owned();
    let listed = first.run(&["token", "list"])?.ok()?;
    ensure!(listed.contains("for the second") && !listed.contains(&token[7..23]), "{listed}");
    // Of the token all counts: its secret, and the CA that it names.
    let join = ["agent", "--server", &server, "--node-name", NODE, "--node-ip", SECOND, "--node-label", "zone=b"];
    for (wrong, says) in [
        (format!("{}.0000000000000000{}", &token[..6], &token[23..]), "not signed by this token"),
        (format!("{}@sha256:{}", &token[..23], "0".repeat(64)), "another cluster's"),
    ] {
        let said = second.run(&[&join[..], &["--token", &wrong]].concat())?.fails()?;
        ensure!(said.contains(says) && !second.data_dir().join("cluster.json").exists(), "{said}");
    }
    let agent = Running::start(&mut second.command(&[&join[..], &["--token", &token]].concat()))?;
    ready(&agent)?;
    works(&first, &second, &services).with_context(|| agent.said())?;
    first.run(&["token", "revoke", &token])?.ok()?;
    // Another machine of that name: the node lives.
    let another = first.run(&["token", "create"])?.ok()?.trim().to_owned();
    agent.signal(Signal::TERM)?;
    eventually(SOON, || {
        ensure!(second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })?;
    let third = cluster.elsewhere("third")?;
    let (a, b) = (first.host.as_ref().context("a host")?, third.host.as_ref().context("a host")?);
    a.sh(&format!("ip link add wire3 type veth peer name wire netns {}", b.pid()))?;
    a.sh("ip address add 203.0.113.1/24 dev wire3; ip link set wire3 up")?;
    b.sh(&format!(
        "ip address add 203.0.113.3/24 dev wire; ip link set wire up; ip route add {FIRST}/32 via 203.0.113.1"
    ))?;
    let said = third.run(&[&join[..], &["--token", &another]].concat())?.fails()?;
    ensure!(said.contains(&format!("kubectl delete node {NODE}")), "{said}");
    ensure!(!third.data_dir().join("cluster.json").exists(), "nothing is left of what was refused");
    // The second needs no token any more.
    let agent = Running::start(&mut second.command(&["agent"]))?;
    ready(&agent)?;
    agent.signal(Signal::TERM)?;
    eventually(SOON, || {
        ensure!(second.pids("daemon")?.is_empty(), "it still runs");
        Ok(())
    })
}

pub fn ready(agent: &Running) -> Result<()> {
    eventually(STARTS_WITHIN, || {
        ensure!(agent.said().contains(&format!("Ready. The node {NODE} is in the cluster")), "{}", agent.said());
        Ok(())
    })
}

fn works(first: &Own, second: &Own, services: &str) -> Result<()> {
    let node = first.get(&format!("node {NODE}"))?;
    ensure!(node["metadata"]["labels"]["zone"] == "b", "{node:#}");
    ensure!(node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"].is_null(), "{node:#}");
    second.import_busybox(BUSYBOX)?;
    let pod = json!({"spec": {"nodeName": NODE, "tolerations": [{"operator": "Exists"}]}}).to_string();
    first.kubectl(&["run", "there", "--image", BUSYBOX, "--overrides", &pod, "--", "sleep", "1000"])?;
    first.ready("there")?;
    // From the first host's API server to the second's kubelet, whose certificate the cluster's CA has signed.
    eventually(SOON, || {
        ensure!(first.kubectl(&["exec", "there", "--", "echo", "heard"])? == "heard\n");
        Ok(())
    })?;
    // The second's DNS has its Services from the first, and its proxy leads to the first's API server.
    eventually(SOON, || {
        first.kubectl(&["exec", "there", "--", "nslookup", "kubernetes.default.svc.cluster.local"]).map(drop)
    })?;
    let address = services.replace(".0/16", ".1").replace("/16", "");
    let ca = first.data_dir().join("pki/ca.crt").display().to_string();
    let host = second.host.as_ref().context("a host")?;
    eventually(SOON, || {
        let version = host.sh(&format!("curl -sS --max-time 3 --cacert {ca} https://{address}/version"))?;
        ensure!(version.contains("gitVersion"), "{version}");
        Ok(())
    })
}

/// A link between the two hosts.
pub fn wire(first: &Own, second: &Own) -> Result<()> {
    let (a, b) = (first.host.as_ref().context("a host")?, second.host.as_ref().context("a host")?);
    a.sh(&format!("ip link add wire type veth peer name wire netns {}", b.pid()))?;
    for (host, address) in [(a, FIRST), (b, SECOND)] {
        host.sh(&format!("ip address add {address}/24 dev wire; ip link set wire up"))?;
    }
    Ok(())
}

/// What `up` says on the first host.
pub fn up_at(first: &Own, said: &[&str]) -> Result<String> {
    let config = first.dir.join("config.yaml");
    fs::write(&config, format!("nodeName: first\nnodeIP: {FIRST}\n"))?;
    first.run(&[&["up", "--config", &config.display().to_string()], said].concat())?.ok()
}

/// The second joins the first, and its node is Ready.
pub fn agent(first: &Own, second: &Own) -> Result<Running> {
    let record: Value = serde_json::from_slice(&fs::read(first.data_dir().join("cluster.json"))?)?;
    let server = format!("https://{FIRST}:{}", record["apiPort"]);
    let token = first.run(&["token", "create"])?.ok()?.trim().to_owned();
    let join = ["agent", "--server", &server, "--token", &token, "--node-name", NODE, "--node-ip", SECOND];
    let agent = Running::start(&mut second.command(&join))?;
    ready(&agent)?;
    Ok(agent)
}

/// What the second host is given: kubeconfigs of its components, and its kubelet's certificate.
fn credentials(first: &Own, second: &Own, port: u64) -> Result<String> {
    let folder = second.dir.join("credentials");
    fs::create_dir_all(&folder)?;
    fs::copy(first.data_dir().join("pki/ca.crt"), folder.join("ca.crt"))?;
    let names = format!("subjectAltName=DNS:{NODE},DNS:localhost,IP:127.0.0.1,IP:{SECOND}");
    certificate(first, &folder, "kubelet", &format!("/O=system:nodes/CN=system:node:{NODE}"), &names)?;
    for (name, subject) in [
        ("kubelet", format!("/O=system:nodes/CN=system:node:{NODE}")),
        ("kube-proxy", "/CN=system:kube-proxy".to_owned()),
        ("kube-dns", "/CN=system:serviceaccount:kube-system:coredns".to_owned()),
    ] {
        let client = format!("{name}-client");
        certificate(first, &folder, &client, &subject, "extendedKeyUsage=clientAuth")?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{FIRST}:{port}"), "certificate-authority": folder.join("ca.crt")}}],
            "users": [{"name": "u", "user": {
                "client-certificate": folder.join(format!("{client}.crt")),
                "client-key": folder.join(format!("{client}.key"))}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(folder.join(format!("{name}.conf")), config.to_string())?;
    }
    Ok(folder.display().to_string())
}

/// A key and a certificate that the first host's CA has signed.
fn certificate(first: &Own, folder: &Path, name: &str, subject: &str, extension: &str) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]);
    openssl.arg("-CA").arg(first.data_dir().join("pki/ca.crt"));
    openssl.arg("-CAkey").arg(first.data_dir().join("pki/ca.key"));
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", extension, "-subj", subject]);
    openssl.arg("-keyout").arg(folder.join(format!("{name}.key")));
    openssl.arg("-out").arg(folder.join(format!("{name}.crt")));
    output(&mut openssl, "")?.ok().map(drop)
}
