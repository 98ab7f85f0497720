//! What can be wrong with the host or with what a person asks for: one sentence that says what to do, an exit code
//! that isn't 0, and nothing half-made left.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use testkit::runner::Test;
use testkit::{Cluster, Own, binary, output};

pub const TESTS: &[Test] = &[
    ("a_port_in_use_is_told_of", port),
    ("root_is_needed", root),
    ("a_half_removed_directory_is_told_of", half),
    ("a_damaged_log_is_refused", damaged),
    ("a_firewall_that_drops_is_told_of", firewall),
    ("all_mistakes_of_a_manifest_are_named", mistakes),
    ("callers_without_a_right_are_refused", strangers),
];

/// One sentence with these words, and no data directory where there was none.
fn refused(own: &Cluster, args: &[&str], words: &[&str]) -> Result<()> {
    let existed = own.data_dir().exists();
    let failed = own.run(args)?;
    let said = failed.stderr.trim_end();
    ensure!(failed.code == 1 && said.lines().count() == 1, "{failed:?}");
    ensure!(words.iter().all(|word| said.contains(word)), "{words:?} in {said:?}");
    ensure!(existed || !own.data_dir().exists(), "nothing is left of it");
    ensure!(existed || !fs::exists(format!("/run/ferrokube/{}", own.name))?, "nothing is left of it");
    ensure!(!own.home().join(".kube").exists(), "the kubeconfig wasn't touched");
    Ok(())
}

fn port(cluster: &Cluster) -> Result<()> {
    let own = cluster.another("port")?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    refused(&own, &["up", "--api-port", &port], &[&port, "the API server", "choose another with --api-port"])?;
    refused(&own, &["server", "--api-port", &port], &[&port, "the API server"])?;
    // The cluster that runs is in nobody's way, but its ports are taken.
    let server = cluster.status()?["server"].as_str().unwrap_or_default().to_owned();
    let port = server.rsplit(':').next().unwrap_or_default();
    refused(&own, &["up", "--api-port", port], &[port, "in use"])?;
    if let Ok(_socket) = UdpSocket::bind("0.0.0.0:53") {
        refused(&own, &["up"], &["53", "cluster DNS", "stop what listens there"])?;
    }
    own.up()?;
    Ok(())
}

fn root(cluster: &Cluster) -> Result<()> {
    // The binary where everyone may run it.
    let copy = Path::new("/tmp").join(format!("{}-ferrokube", cluster.name));
    fs::copy(binary(), &copy)?;
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&copy).args(args);
        output(command.args(["--name", "nobodys"]).env("HOME", "/nonexistent"), "")
    };
    let asked: Result<Vec<_>> = [&["up"][..], &["server"], &["down"], &["reset"]].into_iter().map(as_nobody).collect();
    let printed = as_nobody(&["version"]);
    fs::remove_file(&copy)?;
    for said in asked? {
        ensure!(said.code == 1 && said.stderr.lines().count() == 1 && said.stderr.contains("try sudo"), "{said:?}");
    }
    printed?.ok()?;
    Ok(())
}

fn stopped(cluster: &Cluster, suffix: &str) -> Result<Own> {
    let own = cluster.another(suffix)?;
    own.up()?;
    own.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"])?;
    own.run(&["down"])?.ok()?;
    fs::remove_dir_all(own.home().join(".kube"))?;
    Ok(own)
}

fn half(cluster: &Cluster) -> Result<()> {
    let own = stopped(cluster, "half")?;
    for part in ["etcd", "pki/ca.key", "pki/ca.crt", "pki/sa.key", "cluster.json"] {
        let (there, aside) = (own.data_dir().join(part), own.dir.join("aside"));
        fs::rename(&there, &aside)?;
        refused(&own, &["up"], &["half removed", part, "restore it from a backup, or `ferrokube reset"])?;
        fs::rename(&aside, &there)?;
    }
    own.up()?;
    ensure!(own.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"])? == "b");
    let foreign = cluster.another("foreign")?;
    fs::create_dir_all(foreign.data_dir())?;
    fs::write(foreign.data_dir().join("thesis.txt"), "years of work")?;
    refused(&foreign, &["up"], &["holds files that aren't a cluster's", "--data-dir"])?;
    foreign.run(&["reset", "--yes"])?.ok()?;
    ensure!(foreign.data_dir().join("thesis.txt").exists(), "reset doesn't take what isn't a cluster's");
    Ok(())
}

fn damaged(cluster: &Cluster) -> Result<()> {
    let own = stopped(cluster, "damaged")?;
    let log =
        fs::read_dir(own.data_dir().join("etcd"))?.flatten().find(|e| e.file_name().to_string_lossy().contains("wal"));
    let log = log.context("a log")?.path();
    let whole = fs::read(&log)?;
    let mut file = fs::OpenOptions::new().write(true).open(&log)?;
    file.seek(SeekFrom::Start(5000))?;
    file.write_all(&[0x5a; 64])?;
    drop(file);
    refused(&own, &["up"], &[&log.display().to_string(), "offset", "restore"])?;
    ensure!(own.status()?["state"] == "stopped");
    fs::write(&log, whole)?;
    own.up()?;
    ensure!(own.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"])? == "b");
    Ok(())
}

fn firewall(cluster: &Cluster) -> Result<()> {
    let own = cluster.elsewhere("firewall")?;
    let host = own.host.clone().context("a host")?;
    host.sh(
        "nft add table inet guard; nft 'add chain inet guard fw { type filter hook forward priority 0; policy drop; }'",
    )?;
    refused(&own, &["up"], &["drops forwarded packets", "inet guard fw", "nft insert rule"])?;
    // What it says to do works.
    let said = own.run(&["up"])?.stderr;
    let advised: Vec<&str> = said.split('`').filter(|part| part.starts_with("nft insert rule")).collect();
    ensure!(advised.len() == 2, "{said}");
    for rule in advised {
        host.sh(rule)?;
    }
    own.up()?;
    own.import_busybox("docker.io/library/busybox:test")?;
    for name in ["a", "b"] {
        let serve = ["run", name, "--image=docker.io/library/busybox:test", "--", "httpd", "-f", "-h", "/var/www"];
        own.kubectl(&serve)?;
    }
    let ip = own.ready("b")?["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    own.ready("a")?;
    let get = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {ip} 80");
    let heard = own.kubectl(&["exec", "a", "--", "sh", "-c", &get])?;
    ensure!(heard.ends_with("hello\n"), "{heard:?}");
    Ok(())
}

const TEN: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: Wrong_Name, labels: {"bad key!": x}}
spec:
  replicas: -1
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: b}}
    spec:
      restartPolicy: Sometimes
      containers:
      - name: UPPER
        image: ""
        ports: [{containerPort: 70000}]
        env: [{name: "1 bad"}]
        resources: {limits: {cpu: "-1"}, requests: {memory: 2Gi}}
        volumeMounts: [{name: nowhere, mountPath: ""}]
"#;

fn mistakes(cluster: &Cluster) -> Result<()> {
    let applied = cluster.kubectl_with(&["apply", "-f", "-"], TEN)?;
    ensure!(applied.code == 1, "{applied:?}");
    let said = applied.stderr;
    for field in [
        "metadata.name",
        "metadata.labels",
        "spec.replicas",
        "spec.template.metadata.labels",
        "spec.template.spec.restartPolicy",
        "spec.template.spec.containers[0].name",
        "spec.template.spec.containers[0].image",
        "spec.template.spec.containers[0].ports[0].containerPort",
        "spec.template.spec.containers[0].resources.limits",
        "spec.template.spec.containers[0].volumeMounts[0].name",
        "spec.template.spec.containers[0].volumeMounts[0].mountPath",
    ] {
        ensure!(said.contains(field), "{field} is named in {said}");
    }
    let strict = cluster
        .kubectl_with(&["apply", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nspec: 1\n")?;
    ensure!(strict.code == 1 && strict.stderr.contains("unknown field \"spec\""), "{strict:?}");
    ensure!(cluster.kubectl(&["get", "deployments", "-o", "name"])?.is_empty(), "nothing was made");
    Ok(())
}

fn strangers(cluster: &Cluster) -> Result<()> {
    let server = cluster.status()?["server"].as_str().unwrap_or_default().to_owned();
    let ca = cluster.data_dir().join("pki/ca.crt").display().to_string();
    let ask = |more: &[&str]| {
        let url = format!("{server}/api/v1/namespaces/default/secrets");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "5", "--cacert", &ca, "-o", "/dev/null", "-w", "%{http_code}"]).args(more);
        output(curl.arg(url), "").map(|o| o.stdout)
    };
    ensure!(ask(&[])? == "403", "anonymous callers may not");
    ensure!(ask(&["-H", "Authorization: Bearer nonsense"])? == "401");
    let token = |args: &[&str]| cluster.kubectl(&[&["create", "token", "default"], args].concat());
    let bearer = |token: &str| format!("Authorization: Bearer {}", token.trim());
    ensure!(ask(&["-H", &bearer(&token(&[])?)])? == "403", "known, but without a right");
    ensure!(ask(&["-H", &bearer(&token(&["--audience=elsewhere"])?)])? == "401", "made for others");
    // Another CA's certificate in our administrator's name.
    let (key, cert) = (cluster.dir.join("foreign.key"), cluster.dir.join("foreign.crt"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]);
    openssl.args(["-subj", "/O=system:masters/CN=kubernetes-admin", "-keyout"]).arg(&key).arg("-out").arg(&cert);
    output(&mut openssl, "")?.ok()?;
    let code = ask(&["--cert", &cert.display().to_string(), "--key", &key.display().to_string()])?;
    ensure!(code == "401" || code == "000", "a foreign CA's certificate: {code}");
    // And one of ours that has expired.
    let sign = |args: &[&str]| output(Command::new("openssl").args(args).current_dir(&cluster.dir), "")?.ok();
    let pki = cluster.data_dir().join("pki");
    let [ca_cert, ca_key] = ["ca.crt", "ca.key"].map(|f| pki.join(f).display().to_string());
    sign(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        "old.key",
        "-out",
        "old.csr",
        "-subj",
        "/O=system:masters/CN=kubernetes-admin",
    ])?;
    let dates = ["-not_before", "20200101000000Z", "-not_after", "20200102000000Z"];
    let issue = ["x509", "-req", "-in", "old.csr", "-CA", &ca_cert, "-CAkey", &ca_key, "-out", "old.crt"];
    let issued = sign(&[&issue[..], &dates[..]].concat());
    if issued.is_err() {
        // OpenSSL before 3.4 gives dates only as days from now.
        sign(&[&issue[..], &["-days", "-1"]].concat())?;
    }
    let code = ask(&[
        "--cert",
        &cluster.dir.join("old.crt").display().to_string(),
        "--key",
        &cluster.dir.join("old.key").display().to_string(),
    ])?;
    ensure!(code == "401" || code == "000", "an expired certificate: {code}");
    Ok(())
}
