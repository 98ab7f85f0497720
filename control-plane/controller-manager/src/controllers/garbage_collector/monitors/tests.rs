//! The monitors against a fake API server whose kinds come, go and change.

use serde_json::{Value, json};
use testkit::fake_api::FakeApi;
use tokio::time::{Instant, sleep};

use super::*;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/example.com/v1/things";
const OTHERS: &str = "/apis/other.example/v1/others";

/// Discovery of these resources: group, version, plural, kind.
fn discovery(resources: &[(&str, &str, &str, &str)]) -> Value {
    let one = |(group, version, plural, kind): &(&str, &str, &str, &str)| {
        let resource = json!({"resource": plural, "scope": "Namespaced", "singularResource": "",
            "responseKind": {"group": group, "version": version, "kind": kind},
            "verbs": ["get", "list", "watch", "delete", "patch"]});
        json!({"metadata": {"name": group}, "versions": [{"version": version, "resources": [resource]}]})
    };
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
        "items": resources.iter().map(one).collect::<Vec<_>>()})
}

const DEFINITIONS: (&str, &str, &str, &str) =
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition");
const THING: (&str, &str, &str, &str) = ("example.com", "v1", "things", "Thing");
const OTHER: (&str, &str, &str, &str) = ("other.example", "v1", "others", "Other");

fn object(name: &str, owners: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "ownerReferences": owners}})
}

fn owner() -> OwnerReference {
    let owner = json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "a", "uid": "a"});
    serde_json::from_value(owner).expect("a reference")
}

/// A server with a thing `a` that owns another `b`, watched.
async fn world() -> (FakeApi, Monitors) {
    let api = FakeApi::new();
    api.document("/api", discovery(&[]));
    api.document("/apis", discovery(&[DEFINITIONS, THING, OTHER]));
    api.put(CRDS, json!({"metadata": {"name": "things.example.com", "uid": "crd-1"}}));
    api.put(THINGS, object("a", json!([])));
    api.put(OTHERS, object("b", json!([owner()])));
    let monitors = Monitors::start(api.client(), Collector::default(), CancellationToken::new());
    monitors.synced().await;
    assert_eq!(owned(&monitors), ["b"]);
    (api, monitors)
}

fn owned(monitors: &Monitors) -> Vec<String> {
    monitors.collector.graph.lock().dependents("a").map(|(uid, _)| uid.clone()).collect()
}

fn sees(monitors: &Monitors, uid: &str) -> bool {
    monitors.collector.graph.lock().item(uid).is_some()
}

/// Its watch has been refused so often that it would wait long before it tries again.
#[tokio::test(start_paused = true)]
async fn a_kind_whose_definition_was_made_anew_is_watched_again_at_once() {
    let (api, monitors) = world().await;
    api.unserve(THINGS);
    sleep(Duration::from_secs(40)).await;
    api.serve(THINGS);
    api.put(THINGS, object("c", json!([])));
    api.put(CRDS, json!({"metadata": {"name": "things.example.com", "uid": "crd-2"}}));
    let made = Instant::now();
    while !sees(&monitors, "c") {
        assert!(made.elapsed() < Duration::from_secs(1), "not seen");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Nobody waits for a kind that the server says it doesn't serve.
#[tokio::test(start_paused = true)]
async fn a_kind_that_is_listed_and_not_served_holds_nobody_up() {
    let api = FakeApi::new();
    api.document("/api", discovery(&[]));
    api.document("/apis", discovery(&[DEFINITIONS, THING]));
    api.unserve(THINGS);
    let monitors = Monitors::start(api.client(), Collector::default(), CancellationToken::new());
    let begun = Instant::now();
    monitors.synced().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// A version that is served no more, or a definition of which none is, once cost the dependents their lives.
#[tokio::test(start_paused = true)]
async fn a_kind_that_is_served_no_more_says_nothing_of_its_objects() {
    let (api, monitors) = world().await;
    api.document("/apis", discovery(&[DEFINITIONS, OTHER]));
    api.put(CRDS, json!({"metadata": {"name": "things.example.com", "uid": "crd-1"}}));
    sleep(Duration::from_secs(10)).await;
    assert!(!sees(&monitors, "a"));
    assert!(!monitors.collector.graph.lock().is_gone(&owner(), "ns"));
    assert!(monitors.resource_of(&owner()).is_none(), "who asks waits for the kind");
    assert_eq!(owned(&monitors), ["b"]);
}

/// Discovery showed the kind, and woke who waited for it, just before this one came to wait: it did so for ever.
#[tokio::test(start_paused = true)]
async fn who_comes_to_wait_for_a_kind_that_is_served_by_now_is_woken() {
    let (_api, monitors) = world().await;
    sleep(Duration::from_secs(10)).await;
    let mut other = owner();
    other.kind = "Unknown".into();
    let before = monitors.collector.queue.len();
    monitors.wait_for_kind(Wake::Item("unheard-of".into()), &other);
    assert_eq!(monitors.collector.queue.len(), before);
    monitors.wait_for_kind(Wake::Item("late".into()), &owner());
    assert_eq!(monitors.collector.queue.len(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn objects_stay_known_when_another_version_of_their_kind_is_watched() {
    let (api, monitors) = world().await;
    api.put("/apis/example.com/v2/things", object("a", json!([])));
    api.document("/apis", discovery(&[DEFINITIONS, ("example.com", "v2", "things", "Thing"), OTHER]));
    api.put(CRDS, json!({"metadata": {"name": "things.example.com", "uid": "crd-1"}}));
    sleep(Duration::from_secs(10)).await;
    let graph = monitors.collector.graph.lock();
    assert_eq!(graph.item("a").map(|i| i.resource.version.as_str()), Some("v2"));
    assert_eq!(graph.dependents("a").count(), 1);
    assert!(!graph.is_gone(&owner(), "ns"));
}
