//! Helm: a chart's whole life (install, test, upgrade, rollback, uninstall) with hooks, rights, a custom resource
//! definition and an object of it; a failing upgrade; and the chart that `helm create` writes.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::runner::Test;
use testkit::{Cluster, Space};

pub const TESTS: &[Test] = &[
    ("helm_installs_upgrades_and_removes_a_chart", life),
    ("helm_rolls_a_failed_upgrade_back", failure),
    ("helm_installs_its_own_standard_chart", standard),
];

/// The chart's files, by path.
const CHART: &[(&str, &str)] = &[
    ("Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\nappVersion: \"1\"\n"),
    ("values.yaml", "colour: red\nreplicas: 1\nimage: docker.io/library/busybox:test\n"),
    (
        "crds/menus.yaml",
        r#"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: menus.shop.example}
spec:
  group: shop.example
  scope: Namespaced
  names: {plural: menus, singular: menu, kind: Menu}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {dishes: {type: array, items: {type: string}}}}}
    additionalPrinterColumns: [{name: First, type: string, jsonPath: ".spec.dishes[0]"}]
"#,
    ),
    (
        "templates/all.yaml",
        r#"apiVersion: v1
kind: ServiceAccount
metadata: {name: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: shop}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: shop}
subjects: [{kind: ServiceAccount, name: shop, namespace: "{{ .Release.Namespace }}"}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shop}
data: {index.html: "{{ .Values.colour }}"}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80}]}
---
apiVersion: shop.example/v1
kind: Menu
metadata: {name: today}
spec: {dishes: ["{{ .Values.colour }} soup", bread]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}, annotations: {colour: "{{ .Values.colour }}"}}
    spec:
      serviceAccountName: shop
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: "{{ .Values.image }}"
        imagePullPolicy: IfNotPresent
        command: [httpd, -f, -h, /site]
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {port: 80, path: /}, periodSeconds: 1}
        volumeMounts: [{name: site, mountPath: /site}]
      volumes: [{name: site, configMap: {name: shop}}]
"#,
    ),
    (
        "templates/hook.yaml",
        r#"apiVersion: batch/v1
kind: Job
metadata:
  name: prepare
  annotations: {helm.sh/hook: "pre-install,pre-upgrade", helm.sh/hook-delete-policy: before-hook-creation}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: docker.io/library/busybox:test, command: [echo, "prepared {{ .Values.colour }}"]}]
"#,
    ),
    (
        "templates/test.yaml",
        r#"apiVersion: v1
kind: Pod
metadata:
  name: asks
  annotations: {helm.sh/hook: test, helm.sh/hook-delete-policy: before-hook-creation}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: docker.io/library/busybox:test
    command: [sh, -c, "printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 3 $SHOP_SERVICE_HOST 80 | grep {{ .Values.colour }}"]
"#,
    ),
    ("templates/NOTES.txt", "The shop is {{ .Values.colour }}.\n"),
];

fn chart(dir: &Path) -> Result<String> {
    for (name, text) in CHART {
        let file = dir.join(name);
        fs::create_dir_all(file.parent().unwrap_or(dir))?;
        fs::write(file, text)?;
    }
    Ok(dir.display().to_string())
}

fn helm(space: &Space<'_>, args: &[&str]) -> Result<String> {
    space.cluster.helm(&[&["-n", &space.name], args].concat())
}

pub fn life(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("helm")?;
    let chart = chart(&cluster.dir.join("shop"))?;
    let said = helm(&space, &["install", "shop", &chart, "--wait", "--timeout=60s"])?;
    ensure!(
        said.contains("STATUS: deployed") && said.contains("REVISION: 1") && said.contains("The shop is red."),
        "{said}"
    );
    ensure!(space.kubectl(&["logs", "job/prepare"])? == "prepared red\n", "the hook ran before");
    ensure!(space.path("deployment/shop", "{.status.readyReplicas}")? == "1", "--wait has waited");
    let menu = space.kubectl(&["get", "menus"])?;
    ensure!(menu.contains("NAME    FIRST\ntoday   red soup"), "{menu}");
    let list: Value = serde_json::from_str(&helm(&space, &["list", "-o", "json"])?)?;
    ensure!(
        list[0]["name"] == "shop" && list[0]["status"] == "deployed" && list[0]["chart"] == "shop-1.0.0",
        "{list:#}"
    );
    let tested = helm(&space, &["test", "shop", "--timeout=60s"])?;
    ensure!(tested.contains("Phase:          Succeeded") || tested.contains("Succeeded"), "{tested}");
    helm(&space, &["upgrade", "shop", &chart, "--set=colour=blue,replicas=2", "--wait", "--timeout=60s"])?;
    ensure!(space.path("menu/today", "{.spec.dishes[0]}")? == "blue soup");
    ensure!(space.path("deployment/shop", "{.status.readyReplicas}")? == "2");
    let status: Value = serde_json::from_str(&helm(&space, &["status", "shop", "-o", "json"])?)?;
    ensure!(status["version"] == 2 && status["info"]["status"] == "deployed", "{status:#}");
    helm(&space, &["rollback", "shop", "1", "--wait", "--timeout=60s"])?;
    ensure!(space.path("configmap/shop", "{.data.index\\.html}")? == "red");
    let history = helm(&space, &["history", "shop"])?;
    ensure!(history.contains("superseded") && history.contains("Rollback to 1"), "{history}");
    let got = helm(&space, &["get", "manifest", "shop"])?;
    ensure!(got.contains("kind: Menu") && helm(&space, &["get", "values", "shop", "--all"])?.contains("colour: red"));
    let gone = helm(&space, &["uninstall", "shop", "--wait", "--timeout=60s"])?;
    ensure!(gone.contains("release \"shop\" uninstalled"), "{gone}");
    let left = space.kubectl(&["get", "deployments,services,menus,roles,secrets", "-o", "name"])?;
    ensure!(left.is_empty(), "{left}");
    cluster.kubectl(&["delete", "crd", "menus.shop.example"])?;
    let unknown = space.refused(&["get", "menus"])?;
    ensure!(unknown.contains("the server could not find the requested resource"), "{unknown}");
    Ok(())
}

fn failure(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("helm-failure")?;
    let chart = chart(&cluster.dir.join("shop"))?;
    helm(&space, &["install", "shop", &chart, "--wait", "--timeout=60s"])?;
    let upgrade = [
        "upgrade",
        "shop",
        &chart,
        "--set=colour=green,image=localhost/none:1",
        "--rollback-on-failure",
        "--timeout=5s",
    ];
    let failed = cluster.helm_with(&[&["-n", "helm-failure"], &upgrade[..]].concat())?.fails()?;
    ensure!(failed.contains("rolled back") || failed.contains("rollback"), "{failed}");
    ensure!(space.path("configmap/shop", "{.data.index\\.html}")? == "red");
    ensure!(space.path("deployment/shop", "{.spec.template.spec.containers[0].image}")? == testkit::image::BUSYBOX);
    helm(&space, &["uninstall", "shop", "--wait", "--timeout=60s"])?;
    cluster.kubectl(&["delete", "crd", "menus.shop.example"])?;
    Ok(())
}

fn standard(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("helm-standard")?;
    cluster.helm(&["create", "standard"])?;
    let (repository, tag) = testkit::image::NGINX.rsplit_once(':').unwrap_or_default();
    let image =
        format!("--set=image.repository={repository},image.tag={tag},autoscaling.enabled=true,ingress.enabled=true");
    helm(&space, &["install", "mine", "standard", &image, "--wait", "--timeout=60s"])?;
    ensure!(space.path("deployment/mine-standard", "{.status.readyReplicas}")? == "1");
    let made = space.kubectl(&[
        "get",
        "all,ingresses,serviceaccounts",
        "-l",
        "app.kubernetes.io/instance=mine",
        "-o",
        "name",
    ])?;
    for name in [
        "service/mine-standard",
        "horizontalpodautoscaler.autoscaling/mine-standard",
        "ingress.networking.k8s.io/mine-standard",
        "serviceaccount/mine-standard",
    ] {
        ensure!(made.contains(name), "{made}");
    }
    helm(&space, &["uninstall", "mine", "--wait", "--timeout=60s"])?;
    Ok(())
}
