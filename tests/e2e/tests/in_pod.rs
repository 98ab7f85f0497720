//! Programs inside: what a pod is given to speak with the API, what it may and may not do there, and a real server
//! program of Debian's behind a Service, asked from everywhere.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::image::{BUSYBOX, NGINX};
use testkit::runner::Test;
use testkit::{Cluster, Space, eventually, output};

pub const TESTS: &[Test] = &[
    ("a_pod_reaches_the_api_with_exactly_its_rights", rights),
    ("a_pod_without_a_token_has_none", without_token),
    ("nginx_answers_by_every_way_to_a_service", nginx),
];

const PATIENCE: Duration = Duration::from_secs(30);

/// Imports the image with nginx and curl, once.
fn import(cluster: &Cluster) -> Result<()> {
    let file = cluster.dir.join("nginx.tar");
    if file.exists() {
        return Ok(());
    }
    testkit::image::nginx_archive(&file, NGINX)?;
    cluster.run(&["image", "import", &file.display().to_string()])?.ok()?;
    Ok(())
}

const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A pod with curl that runs as a service account.
fn caller(space: &Space<'_>, name: &str, account: &str) -> Result<()> {
    space.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  serviceAccountName: {account}\n  \
         terminationGracePeriodSeconds: 0\n  containers: [{{name: c, image: \"{NGINX}\", command: [sleep, \"1000\"]}}]\n"
    ))?;
    space.ready(name)?;
    Ok(())
}

/// HTTP status and body of what curl in the pod gets from the API; options before the path.
fn ask(space: &Space<'_>, pod: &str, options: &str, path: &str) -> Result<(u32, Value)> {
    let script = format!("curl -s -m 10 -w '\\n%{{http_code}}' {options} https://kubernetes.default{path}");
    let said = space.kubectl(&["exec", pod, "--", "sh", "-c", &script])?;
    let (body, code) = said.trim_end().rsplit_once('\n').with_context(|| said.clone())?;
    Ok((code.parse()?, serde_json::from_str(body).unwrap_or_default()))
}

/// A CA certificate that has nothing to do with the cluster.
fn foreign_ca(cluster: &Cluster) -> Result<String> {
    let file = |name: &str| cluster.dir.join(name).display().to_string();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=kubernetes"]);
    output(openssl.args(["-keyout", &file("foreign.key"), "-out", &file("foreign.crt")]), "")?.ok()?;
    Ok(std::fs::read_to_string(file("foreign.crt"))?)
}

fn rights(cluster: &Cluster) -> Result<()> {
    import(cluster)?;
    let space = cluster.space("in-pod")?;
    space.kubectl(&["create", "serviceaccount", "reader"])?;
    space.kubectl(&["create", "role", "reader", "--verb=get,list", "--resource=pods"])?;
    space.kubectl(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=in-pod:reader"])?;
    caller(&space, "caller", "reader")?;
    let read = |file: &str| space.kubectl(&["exec", "caller", "--", "cat", &format!("{MOUNT}/{file}")]);
    ensure!(read("namespace")? == "in-pod");
    ensure!(read("ca.crt")? == space.path("configmap/kube-root-ca.crt", "{.data.ca\\.crt}")?);
    let token = format!("--cacert {MOUNT}/ca.crt -H \"Authorization: Bearer $(cat {MOUNT}/token)\"");
    let ours = "/api/v1/namespaces/in-pod";
    let (code, list) = ask(&space, "caller", &token, &format!("{ours}/pods"))?;
    ensure!(code == 200 && list["items"][0]["metadata"]["name"] == "caller", "{code} {list:#}");
    for (options, path, why) in [
        (
            "",
            format!("{ours}/secrets"),
            "User \"system:serviceaccount:in-pod:reader\" cannot list resource \"secrets\" in API group \"\" in the namespace \"in-pod\"",
        ),
        (
            "",
            "/api/v1/namespaces/default/pods".to_owned(),
            "cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        ),
        ("", "/api/v1/nodes".to_owned(), "cannot list resource \"nodes\" in API group \"\" at the cluster scope"),
        ("-X DELETE", format!("{ours}/pods/caller"), "cannot delete resource \"pods\""),
        ("", format!("{ours}/pods/caller/log"), "cannot get resource \"pods/log\""),
    ] {
        let (code, status) = ask(&space, "caller", &format!("{token} {options}"), &path)?;
        let message = status["message"].as_str().unwrap_or_default();
        ensure!(code == 403 && message.contains(why), "{options} {path}: {code} {message}");
    }
    let (code, status) = ask(&space, "caller", &format!("--cacert {MOUNT}/ca.crt"), &format!("{ours}/pods"))?;
    ensure!(
        code == 403 && status["message"].as_str().is_some_and(|m| m.contains("system:anonymous")),
        "{code} {status:#}"
    );
    let wrong = format!("--cacert {MOUNT}/ca.crt -H 'Authorization: Bearer wrong'");
    ensure!(ask(&space, "caller", &wrong, &format!("{ours}/pods"))?.0 == 401);
    let foreign = format!("cat > /tmp/foreign && curl -s --cacert /tmp/foreign https://kubernetes.default{ours}/pods");
    let distrust = space.kubectl_with(&["exec", "-i", "caller", "--", "sh", "-c", &foreign], &foreign_ca(cluster)?)?;
    ensure!(distrust.code == 60, "another CA's word on the server counts for nothing: {distrust:?}");
    // A right that is given counts at once; one that is taken is gone at once.
    space.kubectl(&["create", "rolebinding", "editor", "--clusterrole=edit", "--serviceaccount=in-pod:reader"])?;
    let secrets = |code: u32| {
        eventually(PATIENCE, || {
            let (got, _) = ask(&space, "caller", &token, &format!("{ours}/secrets"))?;
            ensure!(got == code, "{got}");
            Ok(())
        })
    };
    secrets(200)?;
    space.kubectl(&["delete", "rolebinding", "editor"])?;
    secrets(403)?;
    // The token is bound to its pod: it dies with it.
    let token = read("token")?;
    caller(&space, "other", "default")?;
    let stolen = format!("--cacert {MOUNT}/ca.crt -H 'Authorization: Bearer {token}'");
    ensure!(ask(&space, "other", &stolen, &format!("{ours}/pods"))?.0 == 200);
    space.kubectl(&["delete", "pod", "caller", "--now"])?;
    eventually(PATIENCE, || {
        let (code, _) = ask(&space, "other", &stolen, &format!("{ours}/pods"))?;
        ensure!(code == 401, "{code}");
        Ok(())
    })
}

fn without_token(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("no-token")?;
    let overrides = r#"{"spec":{"automountServiceAccountToken":false}}"#;
    let image = format!("--image={BUSYBOX}");
    space.kubectl(&["run", "bare", &image, "--overrides", overrides, "--command", "--", "sleep", "1000"])?;
    space.ready("bare")?;
    let listed = space.kubectl_with(&["exec", "bare", "--", "ls", MOUNT], "")?;
    ensure!(listed.code != 0, "{listed:?}");
    ensure!(space.kubectl(&["exec", "bare", "--", "env"])?.contains("KUBERNETES_SERVICE_HOST="));
    Ok(())
}

const SITE: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: site}
data:
  default.conf: |
    server { listen 8080; location / { return 200 "$hostname\n"; } }
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: nginx
        image: docker.io/library/nginx:test
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
        livenessProbe: {tcpSocket: {port: http}}
        volumeMounts: [{name: site, mountPath: /etc/nginx/conf.d}]
      volumes: [{name: site, configMap: {name: site}}]
"#;

fn nginx(cluster: &Cluster) -> Result<()> {
    import(cluster)?;
    let space = cluster.space("nginx")?;
    space.apply(SITE)?;
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    caller(&space, "client", "default")?;
    let service = space.get("service/web")?;
    let ip = service["spec"]["clusterIP"].as_str().context("an address")?.to_owned();
    let port = service["spec"]["ports"][0]["nodePort"].as_i64().context("a node port")?;
    let node = space.path("nodes", "{.items[0].status.addresses[?(@.type=='InternalIP')].address}")?;
    let pods = names(&space)?;
    let from_pod = |pod: &str, url: &str| space.kubectl(&["exec", pod, "--", "curl", "-sS", "-m", "5", url]);
    let from_host = |url: &str| output(Command::new("curl").args(["-sS", "-m", "5", "--noproxy", "*", url]), "")?.ok();
    let one_of_ours = |way: &str, said: String| {
        ensure!(pods.split_whitespace().any(|p| p == said.trim()), "{way}: {said:?} is none of {pods}");
        Ok(())
    };
    let urls = [format!("http://{ip}"), format!("http://{node}:{port}")];
    for url in &urls {
        one_of_ours(url, eventually(PATIENCE, || from_host(url))?)?;
    }
    let names = ["web", "web.nginx", "web.nginx.svc", "web.nginx.svc.cluster.local"].map(|n| format!("http://{n}"));
    for url in urls.iter().chain(&names) {
        one_of_ours(url, eventually(PATIENCE, || from_pod("client", url))?)?;
    }
    // A pod of the Service reaches it too, even when the choice falls on itself; in the end both answer.
    let first = pods.split_whitespace().next().context("a pod")?;
    let mut answered = std::collections::BTreeSet::new();
    eventually(PATIENCE, || {
        answered.insert(from_pod(first, &urls[0])?);
        ensure!(answered.len() == 2, "only {answered:?} answers");
        Ok(())
    })?;
    by_hand(&space, first, from_pod)?;
    space.kubectl(&["scale", "deployment/web", "--replicas=0"])?;
    eventually(PATIENCE, || {
        let refused = output(Command::new("curl").args(["-sS", "-m", "5", "--noproxy", "*", &urls[0]]), "")?;
        ensure!(refused.code == 7, "a Service without endpoints refuses: {refused:?}");
        Ok(())
    })
}

/// A Service whose endpoints a person writes: they are mirrored, so proxy and DNS know them, and gone with them.
fn by_hand(space: &Space<'_>, pod: &str, get: impl Fn(&str, &str) -> Result<String>) -> Result<()> {
    let ip = space.path(&format!("pod/{pod}"), "{.status.podIP}")?;
    space.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: by-hand}}\nspec: {{ports: [{{port: 80, targetPort: 8080}}]}}\n\
         ---\napiVersion: v1\nkind: Endpoints\nmetadata: {{name: by-hand}}\n\
         subsets: [{{addresses: [{{ip: {ip}}}], ports: [{{port: 8080}}]}}]\n"
    ))?;
    let said = eventually(PATIENCE, || get("client", "http://by-hand"))?;
    ensure!(said.trim() == pod, "{said:?} is not {pod}");
    let slices = ["get", "endpointslices", "-l", "kubernetes.io/service-name=by-hand", "-o", "name"];
    ensure!(space.kubectl(&slices)?.lines().count() == 1, "one slice mirrors them");
    space.kubectl(&["delete", "endpoints/by-hand"])?;
    eventually(PATIENCE, || {
        let left = space.kubectl(&slices)?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

fn names(space: &Space<'_>) -> Result<String> {
    space.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"])
}
