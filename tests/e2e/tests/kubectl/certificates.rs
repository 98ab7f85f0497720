//! A user's certificate from request to use: approved, denied, refused by its signer; and what it then may do.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::runner::Test;
use testkit::{Cluster, eventually, output};

pub const TESTS: &[Test] = &[("a_user_gets_a_certificate_and_uses_it", user)];

const PATIENCE: Duration = Duration::from_secs(20);

/// What `kubectl get csr` says at the end of the line.
fn condition(cluster: &Cluster, name: &str) -> Result<String> {
    let line = cluster.kubectl(&["get", "csr", name, "--no-headers"])?;
    Ok(line.split_whitespace().next_back().unwrap_or_default().to_owned())
}

fn becomes(cluster: &Cluster, name: &str, wanted: &str) -> Result<()> {
    eventually(PATIENCE, || {
        let now = condition(cluster, name)?;
        ensure!(now == wanted, "{name} is {now}");
        Ok(())
    })
}

fn user(cluster: &Cluster) -> Result<()> {
    let dir = cluster.dir.join("csr");
    fs::create_dir_all(&dir)?;
    let path = |name: &str| dir.join(name).display().to_string();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/O=staff/O=ops/CN=cert-ann"]);
    output(openssl.args(["-keyout", &path("key"), "-out", &path("csr")]), "")?.ok()?;
    let request = output(Command::new("base64").args(["-w0", &path("csr")]), "")?.ok()?;
    let apply = |name: &str, usage: &str| {
        cluster.apply(&format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec:\n  \
             request: {request}\n  signerName: kubernetes.io/kube-apiserver-client\n  expirationSeconds: 3600\n  \
             usages: [{usage}]\n"
        ))
    };
    apply("e2e-ann", "client auth")?;
    apply("e2e-refused", "client auth")?;
    apply("e2e-server", "server auth")?;
    ensure!(condition(cluster, "e2e-ann")? == "Pending");
    let said = cluster.kubectl(&["certificate", "approve", "e2e-ann", "e2e-server"])?;
    ensure!(said.contains("certificatesigningrequest.certificates.k8s.io/e2e-ann approved"), "{said}");
    cluster.kubectl(&["certificate", "deny", "e2e-refused"])?;
    becomes(cluster, "e2e-ann", "Approved,Issued")?;
    becomes(cluster, "e2e-server", "Approved,Failed")?;
    ensure!(condition(cluster, "e2e-refused")? == "Denied");
    let failed = cluster.get("csr e2e-server")?["status"]["conditions"].to_string();
    ensure!(failed.contains("invalid usage for client certificate: server auth"), "{failed}");
    let both = cluster.kubectl_with(&["certificate", "approve", "e2e-refused"], "")?.fails()?;
    ensure!(both.contains("is already Denied"), "{both}");

    let certificate = cluster.kubectl(&["get", "csr", "e2e-ann", "-o", "jsonpath={.status.certificate}"])?;
    fs::write(path("crt"), output(Command::new("base64").arg("-d"), &certificate)?.ok()?)?;
    let ca = cluster.data_dir().join("pki/ca.crt").display().to_string();
    output(Command::new("openssl").args(["verify", "-CAfile", &ca, "-purpose", "sslclient", &path("crt")]), "")?
        .ok()?;
    let server = cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
    let (cert, key) = (path("crt"), path("key"));
    let ann = |args: &[&str]| {
        let how = ["--kubeconfig=/dev/null", "--server", &server, "--certificate-authority", &ca];
        let who = ["--client-certificate", &cert, "--client-key", &key];
        cluster.kubectl_with(&[&how, &who[..], args].concat(), "")
    };
    let who = ann(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}"])?.ok()?;
    ensure!(who == r#"cert-ann ["staff","ops","system:authenticated"]"#, "{who}");
    let refused = ann(&["get", "configmaps"])?.fails()?;
    ensure!(refused.contains("User \"cert-ann\" cannot list resource \"configmaps\""), "{refused}");
    cluster.kubectl(&["create", "rolebinding", "e2e-ops", "--clusterrole=view", "--group=ops"])?;
    eventually(PATIENCE, || ann(&["get", "configmaps"])?.ok())?;
    ann(&["delete", "configmap", "kube-root-ca.crt"])?.fails()?;
    cluster.kubectl(&["delete", "rolebinding", "e2e-ops"])?;
    cluster.kubectl(&["delete", "csr", "e2e-ann", "e2e-refused", "e2e-server"])?;
    Ok(())
}
