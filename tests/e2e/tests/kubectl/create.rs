//! kubectl's generators: every `create` subcommand, shown by the client, checked by the server, and made.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testkit::runner::Test;
use testkit::{Cluster, output};

pub const TESTS: &[Test] = &[
    ("every_generator_makes_its_object", generators),
    ("secrets_and_config_maps_come_from_files", files),
    ("a_job_is_made_from_a_cron_job", job_from_cron_job),
    ("autoscale_and_expose_refer_to_their_target", autoscale_and_expose),
];

/// What follows `create`; what kubectl calls the object; a value in it as the server keeps it.
const GENERATORS: &[(&str, &str, &str, &str)] = &[
    (
        "clusterrole e2e-reader --verb=get,list --resource=pods,deployments.apps",
        "ClusterRole/e2e-reader",
        "{.rules[*].apiGroups}",
        r#"[""] ["apps"]"#,
    ),
    (
        "clusterrole e2e-health --verb=get --non-resource-url=/healthz",
        "ClusterRole/e2e-health",
        "{.rules[0].nonResourceURLs[0]}",
        "/healthz",
    ),
    (
        "clusterrolebinding e2e-reader --clusterrole=e2e-reader --user=ann --group=staff",
        "ClusterRoleBinding/e2e-reader",
        "{.subjects[*].kind}",
        "User Group",
    ),
    ("configmap settings --from-literal=a=b", "ConfigMap/settings", "{.data.a}", "b"),
    (
        "cronjob nightly --image=busybox --schedule=0_3_*_*_* -- date",
        "CronJob/nightly",
        "{.spec.concurrencyPolicy}",
        "Allow",
    ),
    (
        "deployment web --image=busybox --replicas=0 --port=80",
        "Deployment/web",
        "{.spec.progressDeadlineSeconds}",
        "600",
    ),
    (
        "ingress front --rule=shop.example/cart*=web:80,tls=cert --class=any",
        "Ingress/front",
        "{.spec.rules[0].http.paths[0].pathType}",
        "Prefix",
    ),
    (
        "poddisruptionbudget most --selector=app=web --min-available=50%",
        "PodDisruptionBudget/most",
        "{.spec.minAvailable}",
        "50%",
    ),
    (
        "priorityclass e2e-high --value=1000 --description=first",
        "PriorityClass/e2e-high",
        "{.preemptionPolicy}",
        "PreemptLowerPriority",
    ),
    ("quota small --hard=pods=2 --scopes=BestEffort", "ResourceQuota/small", "{.spec.hard.pods}", "2"),
    (
        "role reader --verb=get --resource=pods --resource-name=one",
        "Role/reader",
        "{.rules[0].resourceNames[0]}",
        "one",
    ),
    (
        "rolebinding reader --role=reader --serviceaccount=default:default",
        "RoleBinding/reader",
        "{.subjects[0].namespace}",
        "default",
    ),
    ("secret generic word --from-literal=password=xyz", "Secret/word", "{.data.password}", "eHl6"),
    (
        "secret docker-registry pull --docker-server=r.example --docker-username=u --docker-password=p",
        "Secret/pull",
        "{.type}",
        "kubernetes.io/dockerconfigjson",
    ),
    ("service clusterip web --tcp=80:8080", "Service/web", "{.spec.ports[0].targetPort}", "8080"),
    ("service clusterip headless --clusterip=None", "Service/headless", "{.spec.clusterIP}", "None"),
    ("service nodeport outside --tcp=80", "Service/outside", "{.spec.externalTrafficPolicy}", "Cluster"),
    (
        "service externalname elsewhere --external-name=example.com",
        "Service/elsewhere",
        "{.spec.externalName}",
        "example.com",
    ),
    ("service loadbalancer balanced --tcp=80", "Service/balanced", "{.spec.allocateLoadBalancerNodePorts}", "true"),
    ("serviceaccount robot", "ServiceAccount/robot", "{.metadata.name}", "robot"),
    ("job once --image=busybox -- true", "Job/once", "{.spec.backoffLimit}", "6"),
];

fn generators(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("generators")?;
    for (line, name, path, expected) in GENERATORS {
        // Blanks inside an argument are written as underscores.
        let words: Vec<String> = line.split(' ').map(|w| w.replace('_', " ")).collect();
        let command = words.iter().position(|w| w == "--").unwrap_or(words.len());
        let run = |options: &[&str]| {
            let head = words[..command].iter().map(String::as_str);
            let tail = words[command..].iter().map(String::as_str);
            let args: Vec<&str> =
                std::iter::once("create").chain(head).chain(options.iter().copied()).chain(tail).collect();
            space.kubectl(&args)
        };
        let client: Value = serde_json::from_str(&run(&["--dry-run=client", "-o", "json"])?)?;
        let server: Value = serde_json::from_str(&run(&["--dry-run=server", "-o", "json"])?)?;
        ensure!(client["kind"] == server["kind"] && client["kind"].is_string(), "{line}: {client} {server}");
        ensure!(server["metadata"]["uid"].is_string(), "{line}: the server has completed it: {server}");
        let made = run(&["-o", &format!("jsonpath={{.kind}}/{{.metadata.name}} {path}")])?;
        ensure!(made == format!("{name} {expected}"), "{line}: {made}");
    }
    let cluster_wide =
        ["clusterrole/e2e-reader", "clusterrole/e2e-health", "clusterrolebinding/e2e-reader", "priorityclass/e2e-high"];
    space.kubectl(&[&["delete"], &cluster_wide[..]].concat())?;
    Ok(())
}

fn files(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("files")?;
    let dir = cluster.dir.join("files");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("text.conf"), "x = 1\n")?;
    fs::write(dir.join("binary"), [0, 159, 146, 150])?;
    fs::write(dir.join("env"), "COLOUR=red\n# a comment\nSIZE=2\n")?;
    let path = |name: &str| dir.join(name).display().to_string();
    let (text, binary) = (format!("--from-file={}", path("text.conf")), format!("--from-file=bin={}", path("binary")));
    space.kubectl(&["create", "configmap", "mixed", &text, &binary])?;
    let map = space.get("configmap/mixed")?;
    ensure!(
        map["data"] == json!({"text.conf": "x = 1\n"}) && map["binaryData"] == json!({"bin": "AJ+Slg=="}),
        "{map:#}"
    );
    space.kubectl(&["create", "configmap", "env", &format!("--from-env-file={}", path("env"))])?;
    ensure!(space.get("configmap/env")?["data"] == json!({"COLOUR": "red", "SIZE": "2"}));
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=shop.example", "-days", "1"];
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(request).args(["-keyout", &path("tls.key"), "-out", &path("tls.crt")]);
    output(&mut openssl, "")?.ok()?;
    space.kubectl(&[
        "create",
        "secret",
        "tls",
        "cert",
        &format!("--cert={}", path("tls.crt")),
        &format!("--key={}", path("tls.key")),
    ])?;
    ensure!(space.path("secret/cert", "{.type}")? == "kubernetes.io/tls");
    Ok(())
}

fn job_from_cron_job(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("job-from-cron-job")?;
    let image = format!("--image={}", testkit::image::BUSYBOX);
    space.kubectl(&["create", "cronjob", "nightly", &image, "--schedule=0 3 1 1 *", "--", "echo", "ran"])?;
    space.kubectl(&["create", "job", "now", "--from=cronjob/nightly"])?;
    space.kubectl(&["wait", "--for=condition=Complete", "job/now", "--timeout=60s"])?;
    ensure!(space.kubectl(&["logs", "job/now"])?.ends_with("ran\n"));
    let owner = space.path("job/now", "{.metadata.ownerReferences[0].kind}")?;
    ensure!(owner == "CronJob", "{owner}");
    Ok(())
}

fn autoscale_and_expose(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("autoscale")?;
    space.kubectl(&["create", "deployment", "web", "--image=busybox", "--replicas=0", "--port=8080"])?;
    let said = space.kubectl(&["autoscale", "deployment", "web", "--min=1", "--max=3", "--cpu=80%"])?;
    ensure!(said == "horizontalpodautoscaler.autoscaling/web autoscaled\n", "{said}");
    let scaler = space.get("hpa/web")?;
    ensure!(
        scaler["spec"]["scaleTargetRef"]["kind"] == "Deployment" && scaler["spec"]["maxReplicas"] == 3,
        "{scaler:#}"
    );
    let said = space.kubectl(&[
        "expose",
        "deployment",
        "web",
        "--name=front",
        "--port=80",
        "--target-port=8080",
        "--type=NodePort",
    ])?;
    ensure!(said == "service/front exposed\n", "{said}");
    let service = space.get("service/front")?;
    ensure!(service["spec"]["selector"] == json!({"app": "web"}), "{service:#}");
    let port = service["spec"]["ports"][0]["nodePort"].as_i64().context("a node port")?;
    ensure!((30000..=32767).contains(&port), "{service:#}");
    Ok(())
}
