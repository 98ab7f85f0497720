//! Lives of pods, seen from the API and from the runtime.

use std::time::Duration;

use serde_json::json;

use crate::kubelet::{NODE, Node, has_condition, path};

fn one(image: &str) -> serde_json::Value {
    json!({"containers": [{"name": "c", "image": image, "imagePullPolicy": "IfNotPresent"}]})
}

#[tokio::test]
async fn a_pod_runs_is_shown_and_leaves_nothing() {
    let node = Node::start(|_, _| {}).await;
    node.create("a", one("busybox")).await;
    let pod = node.until_ready("a").await;
    let status = &pod["status"];
    assert_eq!(
        (&status["phase"], &status["podIP"], &status["hostIP"]),
        (&json!("Running"), &json!("10.1.0.5"), &json!("127.0.0.1"))
    );
    assert_eq!(status["observedGeneration"], 1);
    let ready = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    assert!(ready.get("reason").is_none(), "what was said before it was ready is gone: {ready}");
    assert!(status["containerStatuses"][0]["containerID"].as_str().unwrap().starts_with("fake://container"));
    node.delete("a");
    node.until_gone("a").await;
    let empty = || {
        let state = node.runtime.state.lock();
        state.sandboxes.is_empty() && state.containers.is_empty()
    };
    while !empty() || node.config.root_dir.join("pods/a-uid").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let events = node.api.events();
    for text in [
        "Pulling: Pulling image \"busybox\"",
        "Created: Container created",
        "Started: Container started",
        "Killing: Stopping container c",
    ] {
        assert!(events.iter().any(|e| e == text), "{text} is missing in {events:#?}");
    }
    assert!(
        events.iter().any(|e| e.starts_with("Pulled: Successfully pulled image \"busybox\" in ")
            && e.ends_with("Image size: 7 bytes."))
    );
}

#[tokio::test]
async fn environment_and_files_come_from_the_api() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let node = Node::start(|_, _| {}).await;
    node.create(
        "v",
        json!({"serviceAccountName": "default", "containers": [{"name": "c", "image": "i", "command": ["run", "$(KEY)"],
            "env": [{"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "volumeMounts": [{"name": "all", "mountPath": "/all"}, {"name": "all", "mountPath": "/one", "subPath": "k"}]}],
            "volumes": [{"name": "all", "projected": {"sources": [
                {"configMap": {"name": "m"}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"serviceAccountToken": {"path": "token"}}]}}]}),
    )
    .await;
    // The pod waits for what it refers to, says so, and goes on as soon as it is there.
    let missing = "FailedMount: MountVolume.SetUp failed for volume \"all\" : configmap \"m\" not found";
    while !node.api.events().iter().any(|e| e == missing) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let map = "/api/v1/namespaces/ns/configmaps/m";
    node.api.put(map, json!({"metadata": {"name": "m", "namespace": "ns"}, "data": {"k": "v1"}}));
    node.until_ready("v").await;
    let dir = node.config.root_dir.join("pods/v-uid/volumes/kubernetes.io~projected/all");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    assert_eq!((read("k"), read("labels"), read("token")), ("v1".into(), "app=\"v\"".into(), "token-1".into()));
    {
        let state = node.runtime.state.lock();
        let config = &state.containers.values().next().unwrap().config;
        assert_eq!(config.command, ["run", "v1"]);
        let env = |name: &str| config.envs.iter().find(|e| e.key == name).map(|e| e.value.clone());
        assert_eq!(env("IP").unwrap(), "10.1.0.5");
        let mount = |at: &str| config.mounts.iter().find(|m| m.container_path == at).unwrap().host_path.clone();
        assert_eq!(std::fs::read_to_string(mount("/one")).unwrap(), "v1");
        assert!(std::fs::read_to_string(mount("/etc/hosts")).unwrap().contains("10.1.0.5\tv\n"));
    }
    node.api.change(map, |m| m["data"]["k"] = "v2".into());
    node.api.change(&path("v"), |p| p["metadata"]["labels"]["app"] = "w".into());
    while read("k") != "v2" || read("labels") != "app=\"w\"" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.delete("v");
    node.until_gone("v").await;
}

#[tokio::test]
async fn a_container_that_ends_leaves_its_message_and_is_restarted() {
    let node = Node::start(|_, _| {}).await;
    let mut spec = one("i");
    spec["containers"][0]["terminationMessagePath"] = "/dev/termination-log".into();
    node.create("r", spec).await;
    node.until_ready("r").await;
    let id = node.runtime.running("c").unwrap();
    let file = {
        let state = node.runtime.state.lock();
        let mounts = &state.containers[&id].config.mounts;
        mounts.iter().find(|m| m.container_path == "/dev/termination-log").unwrap().host_path.clone()
    };
    std::fs::write(file, "my last words").unwrap();
    node.runtime.exit(&id, 3);
    let pod = node.until("r", |p| p["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["reason"], &last["message"]),
        (&json!(3), &json!("Error"), &json!("my last words"))
    );
}

#[tokio::test]
async fn a_restarted_kubelet_leaves_containers_alone_and_removes_what_nobody_knows() {
    let mut node = Node::start(|_, _| {}).await;
    for name in ["keep", "go"] {
        node.create(name, one("i")).await;
        node.until_ready(name).await;
    }
    let before: Vec<String> = node.runtime.state.lock().containers.keys().cloned().collect();
    node.restart().await;
    node.api.remove(&path("go"));
    let left = || node.runtime.state.lock().containers.keys().cloned().collect::<Vec<_>>();
    while left().len() != 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(left()[0], before[0]);
    let pod = node.until_ready("keep").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
}

#[tokio::test]
async fn probes_decide_readiness_and_restarts() {
    let node = Node::start(|_, _| {}).await;
    node.runtime.state.lock().exec.insert("alive".into(), 1);
    node.create(
        "p",
        json!({"containers": [{"name": "c", "image": "i",
            "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1},
            "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1}}]}),
    )
    .await;
    node.until("p", |p| p["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    node.runtime.state.lock().exec.clear();
    node.until_ready("p").await;
    let events = node.api.events();
    assert!(events.iter().any(|e| e == "Unhealthy: Liveness probe failed: ran alive"), "{events:#?}");
    assert!(events.iter().any(|e| e == "Killing: Container c failed liveness probe, will be restarted"));
}

#[tokio::test]
async fn a_pod_that_does_not_fit_fails_with_the_reason() {
    let node = Node::start(|_, _| {}).await;
    let mut spec = one("i");
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "1000"}});
    node.create("big", spec).await;
    let pod = node.until("big", |p| p["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    assert!(
        pod["status"]["message"]
            .as_str()
            .unwrap()
            .starts_with("Pod was rejected: Node didn't have enough resource: cpu")
    );
    assert!(node.runtime.state.lock().sandboxes.is_empty());
}

#[tokio::test]
async fn volumes_that_are_not_supported_are_said_to_be() {
    let node = Node::start(|_, _| {}).await;
    let mut spec = one("i");
    spec["volumes"] = json!([{"name": "x", "nfs": {"server": "s", "path": "/"}}]);
    node.create("nfs", spec).await;
    let text = "FailedMount: MountVolume.SetUp failed for volume \"x\" : volumes of type nfs are not supported by this kubelet";
    while !node.api.events().iter().any(|e| e == text) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let pod = node.api.get(&path("nfs")).unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
}

#[tokio::test]
async fn static_pods_run_and_have_mirrors() {
    let mut manifests = std::path::PathBuf::new();
    let node = Node::start(|config, dir| {
        manifests = dir.join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        config.static_pod_path = Some(manifests.clone());
    })
    .await;
    let text = "metadata: {name: web, namespace: ns}\nspec: {containers: [{name: c, image: i}]}\n";
    std::fs::write(manifests.join("web.yaml"), text).unwrap();
    let mirror = node.until_ready("web-n1").await;
    assert_eq!(mirror["metadata"]["ownerReferences"][0]["name"], "n1");
    std::fs::remove_file(manifests.join("web.yaml")).unwrap();
    node.until_gone("web-n1").await;
    while node.runtime.running("c").is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_node_tells_what_it_is_and_stays_alive() {
    let node = Node::start(|_, _| {}).await;
    let object = node.api.get(NODE).unwrap();
    assert!(has_condition(&object, "Ready") && !has_condition(&object, "MemoryPressure"));
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(object["status"]["nodeInfo"]["containerRuntimeVersion"], "fake://1");
    assert_eq!(object["status"]["allocatable"]["pods"], "110");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let lease = node.api.until(lease, |l| l.is_some()).await.unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
    assert_eq!(node.runtime.state.lock().pod_cidr, "10.1.0.0/24,fd01::/64");
}

#[tokio::test]
async fn a_renewal_of_the_lease_leaves_what_others_write_into_it() {
    let node = Node::start(|config, _| config.node_lease_duration = Duration::from_secs(1)).await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let first = node.api.until(path, |lease| lease.is_some()).await.unwrap();
    // The announcer's sign, and a hand that takes the lease over.
    node.api.change(path, |lease| {
        lease["metadata"]["annotations"] = json!({"sign": "1"});
        lease["spec"]["holderIdentity"] = "another".into();
        lease["spec"]["renewTime"] = first["spec"]["renewTime"].clone();
    });
    let renewed =
        |lease: Option<&serde_json::Value>| lease.is_some_and(|l| l["spec"]["renewTime"] != first["spec"]["renewTime"]);
    let lease = node.api.until(path, renewed).await.unwrap();
    assert_eq!(
        (&lease["metadata"]["annotations"]["sign"], &lease["spec"]["holderIdentity"]),
        (&json!("1"), &json!("n1"))
    );
    node.api.remove(path);
    let lease = node.api.until(path, |lease| lease.is_some()).await.unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "n1", "one that is gone is made again");
}

#[tokio::test]
async fn forty_containers_of_a_runtime_whose_events_come_late_all_live_and_keep_their_logs() {
    let node = Node::start(|_, _| {}).await;
    let lag = Duration::from_millis(300);
    node.runtime.state.lock().event_lag = lag;
    let containers: Vec<_> = (0..40).map(|i| json!({"name": format!("c{i}"), "image": "i"})).collect();
    node.create("many", json!({"restartPolicy": "Never", "containers": containers})).await;
    node.until_ready("many").await;
    // What was told of the containers before they were started arrives now.
    tokio::time::sleep(2 * lag).await;
    let running: Vec<String> = (0..40).filter_map(|i| node.runtime.running(&format!("c{i}"))).collect();
    assert_eq!(running.len(), 40, "all that were started run");
    for id in &running {
        node.runtime.write_log(id, &["hello"]);
        node.runtime.exit(id, 0);
    }
    let pod = node.until("many", |p| p["status"]["phase"] == "Succeeded").await;
    tokio::time::sleep(2 * lag).await;
    let statuses = pod["status"]["containerStatuses"].as_array().unwrap();
    assert!(statuses.iter().all(|s| s["restartCount"] == 0 && s["state"]["terminated"]["exitCode"] == 0), "{pod}");
    let state = node.runtime.state.lock();
    assert_eq!(state.containers.len(), 40, "none was removed");
    assert!(state.containers.values().all(|c| std::fs::read_to_string(&c.log).is_ok_and(|log| log.contains("hello"))));
}

#[tokio::test]
async fn a_node_that_was_given_up_is_ready_again_within_seconds() {
    let node = Node::start(|_, _| {}).await;
    // As the node lifecycle controller does after a pause.
    let give_up = |node: &Node| {
        node.api.change(NODE, |n| {
            for condition in n["status"]["conditions"].as_array_mut().unwrap() {
                condition["status"] = "Unknown".into();
                condition["reason"] = "NodeStatusUnknown".into();
            }
        });
    };
    for _ in 0..2 {
        give_up(&node);
        let ready = node.api.until(NODE, |n| n.is_some_and(|n| has_condition(n, "Ready")));
        let object = tokio::time::timeout(Duration::from_secs(5), ready).await.expect("it says so itself").unwrap();
        let of = |kind: &str| {
            let all = object["status"]["conditions"].as_array().unwrap();
            all.iter().find(|c| c["type"] == kind).unwrap().clone()
        };
        assert_eq!((&of("Ready")["reason"], &of("DiskPressure")["status"]), (&json!("KubeletReady"), &json!("False")));
    }
}

#[tokio::test]
async fn a_node_is_compared_with_the_api_again_and_again_and_written_only_when_it_differs() {
    let node = Node::start(|config, _| config.node_status_update_frequency = Duration::from_millis(20)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before = node.api.get(NODE).unwrap()["metadata"]["resourceVersion"].clone();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.api.get(NODE).unwrap()["metadata"]["resourceVersion"], before, "nothing new is not written");
    // The runtime has no event for images: comparing finds them.
    node.runtime.state.lock().images.push("new".into());
    let has_image = |n: &serde_json::Value| n["status"]["images"].as_array().is_some_and(|i| !i.is_empty());
    let found = node.api.until(NODE, |n| n.is_some_and(has_image));
    tokio::time::timeout(Duration::from_secs(5), found).await.expect("the difference is written");
}

#[tokio::test]
async fn a_node_and_its_pods_say_the_hosts_new_address_while_they_run() {
    let told = tokio::sync::watch::Sender::new(vec![[192, 0, 2, 1].into()]);
    let followed = kubelet::addresses::Addresses::followed(told.subscribe());
    let node = Node::start(|config, _| config.addresses = Some(followed)).await;
    node.create("a", one("busybox")).await;
    let mut shared = one("busybox");
    shared["hostNetwork"] = true.into();
    node.create("h", shared).await;
    assert_eq!(node.until_ready("a").await["status"]["hostIP"], "192.0.2.1");
    assert_eq!(node.until_ready("h").await["status"]["podIP"], "192.0.2.1");
    told.send_replace(vec![[192, 0, 2, 2].into()]);
    let all = async {
        let says = |n: &serde_json::Value| n["status"]["addresses"].to_string().contains("192.0.2.2");
        node.api.until(NODE, |n| n.is_some_and(says)).await;
        node.until("a", |p| p["status"]["hostIP"] == "192.0.2.2" && p["status"]["podIP"] == "10.1.0.5").await;
        node.until("h", |p| p["status"]["hostIP"] == "192.0.2.2" && p["status"]["podIP"] == "192.0.2.2").await;
    };
    tokio::time::timeout(Duration::from_secs(5), all).await.expect("within 5 s");
    assert_eq!(node.runtime.state.lock().containers.len(), 2, "nobody is restarted");
}
