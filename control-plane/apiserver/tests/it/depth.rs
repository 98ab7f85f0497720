//! How deep and how big an object may become, whatever way it takes in: what one small request did to a server.

use std::future::Future;
use std::time::{Duration, Instant};

use meta::depth::{MAX_DEPTH, STACK_BYTES};
use serde_json::{Value, json};

use crate::world::{Reply, World};

const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Levels of managed fields above the field that they name.
const MANAGED: usize = 5;

/// Runs a test on threads with the stack that the server's threads have.
fn on_server_threads<F: Future<Output = ()> + Send + 'static>(test: F) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).thread_stack_size(STACK_BYTES).enable_all().build().unwrap();
    runtime.block_on(runtime.spawn(test)).unwrap();
}

/// Maps inside one another around a text.
fn maps(levels: usize) -> Value {
    // The macro would copy what is inside, at every level.
    (0..levels).fold(json!("x"), |inner, _| Value::Object([("a".to_owned(), inner)].into_iter().collect()))
}

/// A ControllerRevision of this many levels as it is sent.
fn revision(name: &str, levels: usize) -> Value {
    let mut revision =
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": name}, "revision": 1});
    revision["data"] = maps(levels - 1);
    revision
}

/// Every form in which an object may be sent to be made.
async fn make(world: &World, how: &str, name: &str, object: &Value) -> Reply {
    let send = |method: &'static str, path: String, kind: &'static str, body: Vec<u8>| async move {
        world.admin_sends(&[("content-type", kind), ("accept", "application/json")], method, &path, body).await
    };
    let text = object.to_string().into_bytes();
    match how {
        "json" => send("POST", REVISIONS.to_owned(), "application/json", text).await,
        "yaml" => send("POST", REVISIONS.to_owned(), "application/yaml", text).await,
        "protobuf" => {
            let body = codec::proto::encode_object(object).unwrap();
            send("POST", REVISIONS.to_owned(), "application/vnd.kubernetes.protobuf", body).await
        }
        "apply" => {
            let path = format!("{REVISIONS}/{name}?fieldManager=me&force=true");
            send("PATCH", path, "application/apply-patch+yaml", text).await
        }
        other => {
            send("POST", REVISIONS.to_owned(), "application/json", revision(name, 3).to_string().into_bytes())
                .await
                .ok();
            let data = &object["data"];
            let (kind, body) = match other {
                "merge" => {
                    ("application/merge-patch+json", json!({ "metadata": {"labels": {"a": "b"}}, "data": data }))
                }
                "strategic" => ("application/strategic-merge-patch+json", json!({ "data": data })),
                _ => ("application/json-patch+json", json!([{"op": "add", "path": "/data", "value": data}])),
            };
            send("PATCH", format!("{REVISIONS}/{name}"), kind, body.to_string().into_bytes()).await
        }
    }
}

#[test]
fn whatever_way_it_comes_in_an_object_is_as_deep_as_it_can_be_read() {
    on_server_threads(async {
        let world = World::new().await;
        for how in ["json", "yaml", "protobuf", "apply"] {
            let name = format!("edge-{how}");
            // The server's own additions count: managed fields nest deeper than what they are about.
            let edge = revision(&name, MAX_DEPTH - MANAGED);
            let reply = make(&world, how, &name, &edge).await;
            assert_eq!(reply.code, 201, "{how}: {reply:?}");
            for levels in [MAX_DEPTH - MANAGED + 1, MAX_DEPTH, MAX_DEPTH + 1, 123, 126, 500, 5_000] {
                let name = format!("deep-{levels}");
                let refused = make(&world, how, &name, &revision(&name, levels)).await;
                assert_eq!(refused.code, 400, "{how} {levels}: {refused:?}");
                assert!(refused.message().contains("exceeded max depth"), "{how} {levels}: {}", refused.message());
                assert!(refused.message().len() < 400, "{how} {levels}: {}", refused.message());
            }
        }
        for how in ["merge", "strategic", "json patch"] {
            for levels in [MAX_DEPTH + 1, 123, 126, 500] {
                let name = format!("{}-{levels}", how.replace(' ', "-"));
                let refused = make(&world, how, &name, &revision(&name, levels)).await;
                assert!(matches!(refused.code, 400 | 422), "{how} {levels}: {refused:?}");
                assert!(refused.message().len() < 2_000, "{how} {levels}: {}", refused.message());
                let path = format!("{REVISIONS}/{name}");
                assert_eq!(world.admin("GET", &path, Value::Null).await.body["data"], maps(2), "{how} {levels}");
            }
        }
        // What got in is read by everybody: in a list, in a table, in protobuf, in a watch.
        let list = world.admin("GET", REVISIONS, Value::Null).await;
        assert_eq!(list.body["items"].as_array().unwrap().len(), 16, "{:?}", list.warnings);
        for accept in [
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/vnd.kubernetes.protobuf",
            "application/yaml",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        ] {
            let query = format!("{REVISIONS}?includeObject=Object");
            let reply = world.admin_sends(&[("accept", accept)], "GET", &query, "").await;
            assert_eq!(reply.code, 200, "{accept}");
            if accept.contains("json") {
                assert!(reply.body.is_object(), "{accept}: a reader stops at 127 levels");
            }
        }
        let event = world.admin("GET", &format!("{REVISIONS}?watch=true&timeoutSeconds=1"), Value::Null).await;
        let lines = event.body.as_str().unwrap().lines();
        assert!(lines.clone().count() >= 16 && lines.clone().all(|line| serde_json::from_str::<Value>(line).is_ok()));
        assert!(list.warnings.is_empty());
    });
}

#[test]
fn a_json_patch_neither_deepens_nor_multiplies_an_object_without_end() {
    on_server_threads(async {
        let world = World::new().await;
        world.grant("patcher", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}])).await;
        let patcher = world.user("patcher", &[]);
        let map = json!({"metadata": {"name": "m"}, "data": {"secret": "hunter2"}});
        world.admin("POST", MAPS, map.clone()).await.ok();
        let path = format!("{MAPS}/m");
        let kind = [("content-type", "application/json-patch+json")];
        let deepening =
            |n: usize| json!({"op": "copy", "from": "/data", "path": format!("/data{}", "/x".repeat(1 << n))});
        let doubling = |n: usize| json!({"op": "copy", "from": "/data", "path": format!("/data/k{n}")});
        let level = |n: usize| json!({"op": "copy", "from": "/data", "path": format!("/data{}", "/x".repeat(n + 1))});
        let began = Instant::now();
        for (what, patch) in [
            ("deepening", (0..14).map(deepening).collect::<Vec<Value>>()),
            ("doubling", (0..18).map(doubling).collect()),
            ("doubling less", (0..14).map(doubling).collect()),
            ("a level each time", (0..1_000).map(level).collect()),
            ("no text", vec![json!({"op": "add", "path": "/data/secret", "value": 5})]),
        ] {
            let reply = world.send(Some(&patcher), &kind, "PATCH", &path, json!(patch).to_string()).await;
            assert!(matches!(reply.code, 400 | 422), "{what}: {reply:?}");
            assert!(
                !reply.message().contains("hunter2") && reply.message().len() < 2_000,
                "{what}: {}",
                reply.message()
            );
        }
        let many = vec![json!({"op": "test", "path": "/data"}); 10_001];
        assert_eq!(world.send(Some(&patcher), &kind, "PATCH", &path, json!(many).to_string()).await.code, 413);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert_eq!(world.admin("GET", &path, Value::Null).await.body["data"], map["data"]);
    });
}

#[test]
fn a_refused_patch_shows_nothing_of_an_object_that_its_sender_may_not_read() {
    on_server_threads(async {
        let world = World::new().await;
        world.grant("patcher", json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["patch"]}])).await;
        let patcher = world.user("patcher", &[]);
        let secrets = "/api/v1/namespaces/default/secrets";
        world.admin("POST", secrets, json!({"metadata": {"name": "s"}, "stringData": {"p": "hunter2"}})).await.ok();
        let path = format!("{secrets}/s");
        for (kind, patch) in [
            ("application/json-patch+json", json!([{"op": "add", "path": "/data/q", "value": 5}])),
            ("application/json-patch+json", json!([{"op": "replace", "path": "/kind", "value": "Pod"}])),
            ("application/json-patch+json", json!([{"op": "test", "path": "/data/p", "value": "x"}])),
            ("application/merge-patch+json", json!({"data": {"q": 5}})),
            ("application/merge-patch+json", json!({"metadata": 5})),
            ("application/strategic-merge-patch+json", json!({"data": {"q": 5}})),
        ] {
            let reply = world.send(Some(&patcher), &[("content-type", kind)], "PATCH", &path, patch.to_string()).await;
            assert_eq!(reply.code, 422, "{reply:?}");
            let said = reply.body.to_string();
            assert!(!said.contains("aHVudGVyMg"), "{said}");
        }
    });
}

#[test]
fn what_conversion_makes_of_an_annotation_is_checked_before_it_is_stored() {
    on_server_threads(async {
        let world = World::new().await;
        let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
        let scaler = |name: &str, metrics: &str| {
            json!({
                "metadata": {"name": name, "annotations": {"autoscaling.alpha.kubernetes.io/metrics": metrics}},
                "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "maxReplicas": 2},
            })
        };
        let deep = format!("[{{\"type\": {}{}}}]", "[".repeat(125), "]".repeat(125));
        for (name, metrics) in [("typed", r#"[{"type": 5}]"#), ("deep", &deep)] {
            let reply = world.admin("POST", path, scaler(name, metrics)).await;
            assert!(matches!(reply.code, 400 | 422), "{name}: {reply:?}");
            assert!(reply.message().len() < 1_000, "{}", reply.message());
        }
        // What is no JSON stays where it is.
        world.admin("POST", path, scaler("text", "[{")).await.ok();
        let kept = world.admin("GET", &format!("{path}/text"), Value::Null).await.ok();
        assert_eq!(kept["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"], "[{");
        assert!(world.admin("GET", path, Value::Null).await.warnings.is_empty());
    });
}

#[test]
fn an_object_with_thousands_of_terms_costs_what_its_bytes_cost() {
    on_server_threads(async {
        let world = World::new().await;
        const TERMS: usize = 10_000;
        let terms = |of: fn(usize) -> Value| json!({"matchExpressions": (0..TERMS).map(of).collect::<Vec<_>>()});
        let labels: serde_json::Map<String, Value> = (0..TERMS).map(|n| (format!("k{n}"), json!("v"))).collect();
        let values: Vec<String> = (0..TERMS).map(|n| format!("v{n}")).collect();
        for (what, selector, code) in [
            ("terms", terms(|n| json!({"key": format!("k{n}"), "operator": "In", "values": ["v"]})), 201),
            ("labels", json!({ "matchLabels": labels }), 201),
            ("values", json!({"matchExpressions": [{"key": "k", "operator": "In", "values": values}]}), 201),
            ("wrong", terms(|n| json!({"key": format!("-k{n}"), "operator": "Like", "values": ["-v"]})), 422),
        ] {
            let spec = json!({"minAvailable": 1, "selector": selector});
            let budget = json!({"metadata": {"name": what}, "spec": spec});
            let sent = budget.to_string().len();
            let began = Instant::now();
            let reply = world.admin("POST", "/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget).await;
            assert_eq!(reply.code, code, "{what}");
            // A hundredth of what anything quadratic would take, without the optimiser and beside other tests.
            assert!(began.elapsed() < Duration::from_secs(20), "{what}: {:?}", began.elapsed());
            assert!(reply.body.to_string().len() < 2 * sent, "{what}: an answer far larger than the question");
        }
    });
}

#[test]
fn defaults_of_a_custom_resource_do_not_multiply_what_is_sent() {
    on_server_threads(async {
        let world = World::new().await;
        let item = json!({"type": "object", "properties": {"a": {"type": "string", "default": "x".repeat(1_000)}}});
        let schema = json!({"type": "object", "properties": {"list": {"type": "array", "items": item}}});
        let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
        let names = json!({"plural": "bombs", "singular": "bomb", "kind": "Bomb", "listKind": "BombList"});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "bombs.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
        });
        world.admin("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await.ok();
        let path = "/apis/example.com/v1/namespaces/default/bombs";
        let bomb = |name: &str, items: usize| json!({"apiVersion": "example.com/v1", "kind": "Bomb", "metadata": {"name": name}, "list": vec![json!({}); items]});
        for _ in 0..100 {
            if world.admin("GET", path, Value::Null).await.code == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.admin("POST", path, bomb("small", 100)).await.ok();
        let began = Instant::now();
        let reply = world.admin("POST", path, bomb("big", 500_000)).await;
        assert_eq!((reply.code, &reply.body["reason"]), (413, &json!("RequestEntityTooLarge")), "{reply:?}");
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        // Deep ones are refused in the same words as objects of built-in kinds.
        let mut deep = bomb("deep", 0);
        deep["spec"] = maps(MAX_DEPTH);
        let reply = world.admin("POST", path, deep).await;
        assert_eq!(reply.code, 400, "{reply:?}");
        assert!(reply.message().contains("exceeded max depth"), "{}", reply.message());
    });
}
