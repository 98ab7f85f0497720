//! Reading: get in every format, selectors, pages, describe, explain, api-resources, events, cluster-info.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use testkit::runner::Test;
use testkit::{Cluster, Space, eventually};

pub const TESTS: &[Test] = &[
    ("get_prints_every_format", formats),
    ("get_selects_sorts_and_pages", selection),
    ("tables_show_the_columns_that_people_know", tables),
    ("describe_tells_the_story_of_every_kind", describe),
    ("explain_documents_built_in_and_custom_kinds", explain),
    ("discovery_lists_resources_and_versions", discovery),
    ("events_tell_what_happened_to_an_object", events),
    ("raw_requests_and_cluster_info_answer", raw),
    ("top_says_that_there_are_no_metrics", top),
];

/// Three config maps `a b c` with sizes out of order.
fn maps(space: &Space<'_>) -> Result<()> {
    for (name, size, tier) in [("a", "3", "front"), ("b", "1", "back"), ("c", "2", "front")] {
        space.apply(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{tier: {tier}, app: shop}}}}\ndata: {{size: \"{size}\"}}\n"
        ))?;
    }
    Ok(())
}

fn formats(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("formats")?;
    maps(&space)?;
    let get = |format: &str| space.kubectl(&["get", "configmaps", "-l", "app=shop", "-o", format]);
    ensure!(get("name")? == "configmap/a\nconfigmap/b\nconfigmap/c\n");
    ensure!(get("jsonpath={range .items[*]}{.metadata.name}={.data.size};{end}")? == "a=3;b=1;c=2;");
    ensure!(get("jsonpath={.items[?(@.data.size=='1')].metadata.name}")? == "b");
    ensure!(
        get("custom-columns=NAME:.metadata.name,SIZE:.data.size")? == "NAME   SIZE\na      3\nb      1\nc      2\n"
    );
    ensure!(get("go-template={{range .items}}{{.metadata.name}} {{end}}")? == "a b c ");
    let list: Value = serde_json::from_str(&get("json")?)?;
    ensure!(list["kind"] == "List" && list["items"][0]["kind"] == "ConfigMap", "{list:#}");
    let yaml = space.kubectl(&["get", "configmap", "a", "-o", "yaml"])?;
    ensure!(yaml.starts_with("apiVersion: v1\ndata:\n  size: \"3\"\nkind: ConfigMap\nmetadata:\n"), "{yaml}");
    let wide = get("wide")?;
    ensure!(wide.starts_with("NAME   DATA   AGE\na      1      "), "{wide}");
    let labels =
        space.kubectl(&["get", "configmaps", "-l", "app=shop", "--show-labels", "-L", "tier", "--no-headers"])?;
    ensure!(
        labels
            .lines()
            .next()
            .is_some_and(|l| l.starts_with("a     1") && l.contains("front") && l.ends_with("app=shop,tier=front")),
        "{labels}"
    );
    ensure!(
        space.refused(&["get", "configmap", "none"])?
            == "Error from server (NotFound): configmaps \"none\" not found\n"
    );
    ensure!(space.refused(&["get", "nonsense"])? == "error: the server doesn't have a resource type \"nonsense\"\n");
    let nothing = space.kubectl_with(&["get", "pods"], "")?;
    ensure!(nothing.stderr == "No resources found in formats namespace.\n", "{nothing:?}");
    let two = space.kubectl(&["get", "configmap/a", "serviceaccount/default"])?;
    ensure!(two.contains("configmap/a   1") && two.contains("serviceaccount/default"), "{two}");
    Ok(())
}

fn selection(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("selecting")?;
    maps(&space)?;
    let names = |args: &[&str]| space.kubectl(&[&["get", "configmaps", "-o", "name"], args].concat());
    ensure!(names(&["-l", "tier=front"])? == "configmap/a\nconfigmap/c\n");
    ensure!(names(&["-l", "tier notin (front),app"])? == "configmap/b\n");
    ensure!(names(&["-l", "!app"])? == "configmap/kube-root-ca.crt\n");
    ensure!(
        names(&["--field-selector", "metadata.name!=a,metadata.name!=kube-root-ca.crt"])?
            == "configmap/b\nconfigmap/c\n"
    );
    ensure!(names(&["-l", "app=shop", "--sort-by={.data.size}"])? == "configmap/b\nconfigmap/c\nconfigmap/a\n");
    ensure!(names(&["--chunk-size=1"])?.lines().count() == 4);
    let page: Value =
        serde_json::from_str(&space.kubectl(&["get", "--raw", "/api/v1/namespaces/selecting/configmaps?limit=3"])?)?;
    ensure!(
        page["items"].as_array().is_some_and(|i| i.len() == 3) && page["metadata"]["remainingItemCount"] == 1,
        "{page:#}"
    );
    let wrong = space.refused(&["get", "configmaps", "--field-selector", "data.size=1"])?;
    ensure!(wrong.contains("(BadRequest)") && wrong.contains("\"data.size\" is not a known field selector"), "{wrong}");
    let all = space.kubectl(&["get", "configmaps", "-A", "-l", "app=shop", "--no-headers"])?;
    ensure!(all.lines().count() == 3 && all.starts_with("selecting   a "), "{all}");
    let running =
        cluster.kubectl(&["get", "pods", "-A", "--field-selector=status.phase=Failed,spec.nodeName=nowhere"])?;
    ensure!(running.is_empty(), "{running}");
    Ok(())
}

/// Header lines as upstream prints them with `-o wide`.
const HEADERS: &[(&str, &str)] = &[
    ("nodes", "NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME"),
    ("namespaces", "NAME STATUS AGE"),
    ("pods", "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES"),
    ("deployments", "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR"),
    ("replicasets", "NAME DESIRED CURRENT READY AGE CONTAINERS IMAGES SELECTOR"),
    ("services", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR"),
    ("endpointslices", "NAME ADDRESSTYPE PORTS ENDPOINTS AGE"),
    ("serviceaccounts", "NAME AGE"),
    ("secrets", "NAME TYPE DATA AGE"),
    ("jobs", "NAME STATUS COMPLETIONS DURATION AGE CONTAINERS IMAGES SELECTOR"),
    ("cronjobs", "NAME SCHEDULE TIMEZONE SUSPEND ACTIVE LAST SCHEDULE AGE CONTAINERS IMAGES SELECTOR"),
    ("statefulsets", "NAME READY AGE CONTAINERS IMAGES"),
    ("daemonsets", "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE CONTAINERS IMAGES SELECTOR"),
];

const EVERYTHING: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: "docker.io/library/busybox:test", command: [sleep, "1000"], ports: [{containerPort: 80}]}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Secret, metadata: {name: word}, stringData: {password: xyz}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: "docker.io/library/busybox:test", command: ["true"]}]}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 1 1 *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: b}]}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: store}
spec: {replicas: 0, serviceName: web, selector: {matchLabels: {app: s}}, template: {metadata: {labels: {app: s}}, spec: {containers: [{name: c, image: b}]}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec: {selector: {matchLabels: {app: d}}, template: {metadata: {labels: {app: d}}, spec: {nodeSelector: {none: such}, containers: [{name: c, image: b}]}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: front}
spec: {rules: [{host: shop.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
---
{apiVersion: v1, kind: ResourceQuota, metadata: {name: small}, spec: {hard: {pods: "9"}}}
---
{apiVersion: v1, kind: LimitRange, metadata: {name: limits}, spec: {limits: [{type: PersistentVolumeClaim, max: {storage: 9Gi}}]}}
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: most}, spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec: {maxReplicas: 1, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: reader}, rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: default}]
"#;

/// Makes [`EVERYTHING`] and waits until it has settled.
fn everything(space: &Space<'_>) -> Result<()> {
    space.apply(EVERYTHING)?;
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    space.kubectl(&["wait", "--for=condition=Complete", "job/once", "--timeout=60s"])?;
    Ok(())
}

fn tables(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("tables")?;
    everything(&space)?;
    for (kind, expected) in HEADERS {
        let table = space.kubectl(&["get", kind, "-o", "wide"])?;
        let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
        ensure!(header.join(" ") == *expected, "{kind}: {table}");
    }
    let row = |what: &str| -> Result<String> {
        let line = space.kubectl(&["get", what, "--no-headers"])?;
        Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    for (what, starts) in [
        ("deployment/web", "web 1/1 1 1 "),
        ("job/once", "once Complete 1/1 "),
        ("cronjob/nightly", "nightly 0 3 1 1 * <none> False 0 <none> "),
        ("statefulset/store", "store 0/0 "),
        ("secret/word", "word Opaque 1 "),
        ("hpa/web", "web Deployment/web "),
        ("pdb/most", "most 1 N/A 0 "),
        ("ingress/front", "front <none> shop.example 80 "),
        ("rolebinding/reader", "reader Role/reader "),
        ("networkpolicy/closed", "closed <none> "),
    ] {
        ensure!(row(what)?.starts_with(starts), "{what}: {}", row(what)?);
    }
    Ok(())
}

/// What `describe` must tell, by kind.
const STORIES: &[(&str, &[&str])] = &[
    (
        "deployment/web",
        &[
            "Replicas:               1 desired | 1 updated | 1 total | 1 available | 0 unavailable",
            "Scaled up replica set web-",
            "StrategyType:           RollingUpdate",
            "NewReplicaSet:   web-",
        ],
    ),
    ("replicaset -l app=web", &["Controlled By:  Deployment/web", "1 Running / 0 Waiting", "SuccessfulCreate"]),
    (
        "pod -l app=web",
        &[
            "Status:           Running",
            "Controlled By:  ReplicaSet/web-",
            "Successfully assigned describing/web-",
            "Container started",
            "QoS Class:                   BestEffort",
            "/var/run/secrets/kubernetes.io/serviceaccount from kube-api-access-",
        ],
    ),
    (
        "service/web",
        &[
            "Selector:                 app=web",
            "Port:                     <unset>  80/TCP",
            "Endpoints:                10.",
        ],
    ),
    ("secret/word", &["Type:  Opaque", "password:  3 bytes"]),
    ("job/once", &["Completion Mode:  NonIndexed", "1 Succeeded", "SuccessfulCreate", "Job completed"]),
    ("cronjob/nightly", &["Schedule:                      0 3 1 1 *"]),
    ("statefulset/store", &["0 desired | 0 total"]),
    ("daemonset/agent", &["Node-Selector:  none=such", "Desired Number of Nodes Scheduled: 0"]),
    ("ingress/front", &["shop.example", "web:80 (10."]),
    ("quota/small", &["Resource    Used  Hard"]),
    ("limitrange/limits", &["PersistentVolumeClaim  storage"]),
    ("pdb/most", &["Min available:  1"]),
    ("hpa/web", &["Deployment/web", "Max replicas:"]),
    ("networkpolicy/closed", &["<none> (Selected pods are isolated for ingress connectivity)"]),
    ("role/reader", &["pods       []                 []              [get]"]),
    ("rolebinding/reader", &["Name:  reader", "ServiceAccount  default"]),
    ("serviceaccount/default", &["Image pull secrets:"]),
    ("configmap/kube-root-ca.crt", &["-----BEGIN CERTIFICATE-----"]),
    (
        "endpointslice -l kubernetes.io/service-name=web",
        &["AddressType:  IPv4", "Ready:    true", "TargetRef:  Pod/web-"],
    ),
    ("namespace/describing", &["Status:       Active"]),
    ("node", &["Allocatable:", "KubeletReady", "Non-terminated Pods:", "Allocated resources:"]),
    ("clusterrole/view", &["pods/log"]),
    ("priorityclass/system-node-critical", &["Value:             2000001000"]),
];

fn describe(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("describing")?;
    everything(&space)?;
    for (what, parts) in STORIES {
        let args: Vec<&str> = std::iter::once("describe").chain(what.split(' ')).collect();
        // Events are told a moment after what they tell.
        eventually(Duration::from_secs(10), || {
            let story = space.kubectl(&args)?;
            for part in *parts {
                ensure!(story.contains(part), "describe {what}: no {part:?} in:\n{story}");
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn explain(cluster: &Cluster) -> Result<()> {
    let explain = |what: &str, more: &[&str]| cluster.kubectl(&[&["explain", what], more].concat());
    let pod = explain("pod.spec.restartPolicy", &[])?;
    ensure!(pod.starts_with("KIND:       Pod\nVERSION:    v1\n\nFIELD: restartPolicy <string>\n"), "{pod}");
    ensure!(pod.contains("ENUM:\n    Always\n    Never\n    OnFailure"), "{pod}");
    let all = explain("deployment", &["--recursive"])?;
    ensure!(all.contains("GROUP:      apps\nKIND:       Deployment\nVERSION:    v1\n"), "{all}");
    ensure!(all.contains("    template\t<PodTemplateSpec> -required-\n"), "{all}");
    let old = explain("cronjobs.spec.schedule", &["--output=plaintext-openapiv2"])?;
    ensure!(old.contains("KIND:     CronJob\nVERSION:  batch/v1\n\nFIELD:    schedule <string>"), "{old}");
    let versioned = explain("hpa.spec", &["--api-version=autoscaling/v1"])?;
    ensure!(
        versioned.contains("VERSION:    v1") && versioned.contains("targetCPUUtilizationPercentage\t<integer>"),
        "{versioned}"
    );
    let wrong = cluster.kubectl_with(&["explain", "pod.spec.nonsense"], "")?.fails()?;
    ensure!(wrong.contains("field \"nonsense\" does not exist"), "{wrong}");
    Ok(())
}

fn discovery(cluster: &Cluster) -> Result<()> {
    let all = cluster.kubectl(&["api-resources", "-o", "wide", "--no-headers"])?;
    let line = |name: &str| {
        let words = all.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "));
        words.into_iter().find(|l| l.starts_with(&format!("{name} "))).unwrap_or_default()
    };
    ensure!(
        line("pods") == "pods po v1 true Pod create,delete,deletecollection,get,list,patch,update,watch all",
        "{all}"
    );
    ensure!(
        line("deployments")
            == "deployments deploy apps/v1 true Deployment create,delete,deletecollection,get,list,patch,update,watch all"
    );
    ensure!(
        line("nodes") == "nodes no v1 false Node create,delete,deletecollection,get,list,patch,update,watch",
        "{}",
        line("nodes")
    );
    let cluster_wide =
        cluster.kubectl(&["api-resources", "--namespaced=false", "--api-group=storage.k8s.io", "-o", "name"])?;
    ensure!(cluster_wide.contains("storageclasses.storage.k8s.io\n"), "{cluster_wide}");
    let versions = cluster.kubectl(&["api-versions"])?;
    for version in ["v1", "apps/v1", "batch/v1", "rbac.authorization.k8s.io/v1", "apiextensions.k8s.io/v1"] {
        ensure!(versions.lines().any(|l| l == version), "{versions}");
    }
    let version = cluster.kubectl(&["version"])?;
    ensure!(version.contains("Server Version: v1.37."), "{version}");
    Ok(())
}

fn events(cluster: &Cluster) -> Result<()> {
    let space = cluster.space("events")?;
    space.shell_pod("told", testkit::space::STAY)?;
    eventually(Duration::from_secs(10), || {
        let told = space.kubectl(&["events", "--for=pod/told"])?;
        for part in ["Normal   Scheduled", "Pulled", "Created", "Started", "Pod/told"] {
            ensure!(told.contains(part), "{told}");
        }
        Ok(())
    })?;
    ensure!(space.kubectl(&["events", "--types=Warning"])?.is_empty());
    let sorted = space.kubectl(&[
        "get",
        "events",
        "--sort-by=.metadata.creationTimestamp",
        "--field-selector=reason=Scheduled",
    ])?;
    ensure!(sorted.lines().count() == 2 && sorted.contains("pod/told"), "{sorted}");
    Ok(())
}

fn raw(cluster: &Cluster) -> Result<()> {
    for path in ["/healthz", "/livez", "/readyz"] {
        ensure!(cluster.kubectl(&["get", "--raw", path])? == "ok", "{path}");
    }
    let info = cluster.kubectl(&["cluster-info"])?;
    ensure!(info.contains("Kubernetes control plane") && info.contains("is running at"), "{info}");
    let dir = cluster.dir.join("dump").display().to_string();
    cluster.kubectl(&["cluster-info", "dump", "--output-directory", &dir, "--namespaces=kube-system"])?;
    let nodes: Value = serde_json::from_str(&std::fs::read_to_string(format!("{dir}/nodes.json"))?)?;
    ensure!(nodes["items"].as_array().is_some_and(|n| n.len() == 1), "{nodes:#}");
    Ok(())
}

fn top(cluster: &Cluster) -> Result<()> {
    for what in ["nodes", "pods"] {
        let said = cluster.kubectl_with(&["top", what], "")?.fails()?;
        ensure!(said == "error: Metrics API not available\n", "{said}");
    }
    Ok(())
}
