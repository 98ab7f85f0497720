//! Plugins that are off unless asked for, and the lives of tokens.

use serde_json::{Value, json};

use crate::world::{World, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const EVENTS: &str = "/api/v1/namespaces/default/events";

async fn with(plugins: &'static [&'static str]) -> World {
    let world =
        World::with(|config| config.enable_admission_plugins.extend(plugins.iter().map(|p| (*p).to_owned()))).await;
    world.account("default").await;
    world
}

fn service(name: &str, ips: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "externalIPs": ips}})
}

#[tokio::test]
async fn external_addresses_are_denied_where_that_is_asked_for() {
    let world = with(&[]).await;
    world.admin("POST", SERVICES, service("s", &["10.1.1.1"])).await.ok();
    let world = with(&["DenyServiceExternalIPs"]).await;
    let reply = world.admin("POST", SERVICES, service("s", &["10.1.1.1"])).await;
    let denied = "services \"s\" is forbidden: Use of external IPs is denied by admission control";
    assert_eq!((reply.code, reply.message()), (403, denied));
    world.admin("POST", SERVICES, service("s", &[])).await.ok();
    let path = format!("{SERVICES}/s");
    let reply = world.admin("PATCH", &path, json!({"spec": {"externalIPs": ["10.1.1.1"]}})).await;
    assert_eq!((reply.code, reply.message()), (403, denied));
    world.admin("PATCH", &path, json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    // Both flags name it: off wins, as upstream has it.
    let world = World::with(|config| {
        config.enable_admission_plugins.push("DenyServiceExternalIPs".to_owned());
        config.disable_admission_plugins.push("DenyServiceExternalIPs".to_owned());
    })
    .await;
    world.admin("POST", SERVICES, service("s", &["10.1.1.1"])).await.ok();
}

#[tokio::test]
async fn images_are_always_pulled_where_that_is_asked_for() {
    let world = with(&["AlwaysPullImages"]).await;
    let mut spec = pod("p", json!({"initContainers": [{"name": "i", "image": "j", "imagePullPolicy": "Never"}]}));
    spec["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    spec["spec"]["volumes"] = json!([{"name": "v", "image": {"reference": "r", "pullPolicy": "Never"}}]);
    let made = world.admin("POST", PODS, spec).await.ok();
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(made["spec"]["initContainers"][0]["imagePullPolicy"], "Always");
    assert_eq!(made["spec"]["volumes"][0]["image"]["pullPolicy"], "Always");
    assert!(made["spec"].get("ephemeralContainers").is_none(), "{made}");
    let path = format!("{PODS}/p/ephemeralcontainers");
    let body = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i", "imagePullPolicy": "Never"}]}});
    let made = world.admin("PATCH", &path, body).await.ok();
    assert_eq!(made["spec"]["ephemeralContainers"][0]["imagePullPolicy"], "Always");
}

#[tokio::test]
async fn events_are_limited_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("admission.yaml");
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n- name: EventRateLimit\n  \
        configuration:\n    apiVersion: eventratelimit.admission.k8s.io/v1alpha1\n    kind: Configuration\n    limits:\n    \
        - {type: Namespace, qps: 1, burst: 2}\n    - {type: User, qps: 100, burst: 100}\n";
    std::fs::write(&file, text).unwrap();
    let world = World::with(|config| {
        config.enable_admission_plugins.push("EventRateLimit".to_owned());
        config.admission_control_config_file = Some(file.clone());
    })
    .await;
    let about = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    let event = |name: &str| json!({"metadata": {"name": name}, "involvedObject": about});
    for name in ["a", "b"] {
        world.admin("POST", EVENTS, event(name)).await.ok();
    }
    let reply = world.admin("POST", EVENTS, event("c")).await;
    assert_eq!((reply.code, reply.message()), (429, "limit reached on type Namespace for key default"));
    // What stores nothing is not counted, nor is anything but events.
    world.admin("POST", "/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "c"}})).await.ok();
}

#[tokio::test]
async fn owners_are_guarded_where_that_is_asked_for() {
    let world = with(&["OwnerReferencesPermissionEnforcement"]).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let owner = world.admin("POST", maps, json!({"metadata": {"name": "owner"}})).await.ok();
    let owned = |blocks: bool| {
        json!({"metadata": {"name": "c", "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap",
            "name": "owner", "uid": owner["metadata"]["uid"], "blockOwnerDeletion": blocks}]}})
    };
    let rule = |resource: &str, verbs: &[&str]| json!({"apiGroups": [""], "resources": [resource], "verbs": verbs});
    world.grant("bob", json!([rule("configmaps", &["create", "patch"])])).await;
    world.grant("eve", json!([rule("configmaps", &["create", "patch", "delete"])])).await;
    world
        .grant(
            "zoe",
            json!([rule("configmaps", &["create", "patch", "delete"]), rule("configmaps/finalizers", &["update"])]),
        )
        .await;
    let [bob, eve, zoe] = ["bob", "eve", "zoe"].map(|name| world.user(name, &[]));
    let reply = world.by(&bob, "POST", maps, owned(true)).await;
    let held = "configmaps \"c\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>";
    assert_eq!((reply.code, reply.message()), (403, held));
    world.by(&bob, "POST", maps, json!({"metadata": {"name": "c"}})).await.ok();
    let path = format!("{maps}/c");
    let reply = world.by(&bob, "PATCH", &path, owned(false)).await;
    let kept = "configmaps \"c\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>";
    assert_eq!((reply.code, reply.message()), (403, kept));
    world.by(&bob, "PATCH", &path, json!({"data": {"a": "b"}})).await.ok();
    world.by(&eve, "PATCH", &path, owned(false)).await.ok();
    assert_eq!(world.by(&eve, "PATCH", &path, owned(true)).await.message(), held);
    world.by(&zoe, "PATCH", &path, owned(true)).await.ok();
}

/// What a token of a mounted volume says: when it expires, and when it is to be warned of.
async fn mounted(world: &World) -> (i64, Value, Vec<String>) {
    world.account("default").await;
    let made = world.pod("default", "p", json!({})).await;
    let request = json!({"spec": {"expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1",
        "name": "p", "uid": made["metadata"]["uid"]}}});
    let reply = world.admin("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", request).await;
    let warnings = reply.warnings.clone();
    let token = reply.ok();
    let claims = token["status"]["token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    use base64::Engine as _;
    let claims: Value =
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    (life, claims["kubernetes.io"]["warnafter"].clone(), warnings)
}

#[tokio::test]
async fn mounted_tokens_live_a_year_only_where_they_may() {
    let (life, warn, _) = mounted(&World::new().await).await;
    assert_eq!((life, warn.is_i64()), (365 * 24 * 3600, true));
    let world = World::with(|config| config.service_account_extend_token_expiration = false).await;
    let (life, warn, _) = mounted(&world).await;
    assert_eq!((life, warn), (3607, Value::Null));
    let hour = std::time::Duration::from_secs(3600);
    let world = World::with(|config| config.service_account_max_token_expiration = Some(hour)).await;
    let (life, warn, warnings) = mounted(&world).await;
    assert_eq!((life, warn), (3600, Value::Null));
    assert_eq!(warnings, ["\"requested expiration of 3607 seconds shortened to 3600 seconds\""]);
}
