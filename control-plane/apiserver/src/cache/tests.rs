//! The watch cache against a store: order, windows, selective delivery, slow watchers.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::hub::Hub;
use super::*;
use crate::storage::memory::MemoryStore;
use crate::storage::{Store, Txn, TxnOutcome, Write};

struct Fixture {
    store: MemoryStore,
    hub: Arc<Hub>,
    cache: Arc<Cache>,
}

async fn fixture() -> Fixture {
    let store = MemoryStore::default();
    let hub = Arc::new(Hub::new(Arc::new(store.clone()), Bytes::from_static(b"/registry/")));
    let path = vec!["spec".to_owned(), "nodeName".to_owned()];
    let fields = [FieldSpec { paths: vec![path], absent: String::new(), indexed: true }];
    let cache = hub.declare(Bytes::from_static(b"/registry/pods/"), HeaderSpec::new(fields), plain_reader());
    let (ready, wait) = oneshot::channel();
    tokio::spawn(hub.clone().run(ready, CancellationToken::new()));
    wait.await.expect("loaded");
    Fixture { store, hub, cache }
}

fn body(name: &str, node: &str) -> Bytes {
    Bytes::from(format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"nodeName":"{node}"}}}}"#))
}

impl Fixture {
    async fn write(&self, txn: Txn) -> i64 {
        match self.store.txn(txn).await.expect("store") {
            TxnOutcome::Committed { revision } => revision,
            other => panic!("{other:?}"),
        }
    }

    async fn create(&self, name: &str, node: &str) -> i64 {
        self.write(Txn::create(self.cache.key("ns", name), body(name, node), 0)).await
    }

    async fn caught_up(&self) -> Snapshot {
        self.hub.catch_up().await.expect("caught up");
        self.cache.snapshot()
    }
}

#[tokio::test]
async fn old_states_are_rebuilt_from_the_window() {
    let f = fixture().await;
    let first = f.create("a", "").await;
    let second = f.create("b", "").await;
    let third = f.write(Txn::delete(f.cache.key("ns", "a"), first)).await;
    assert_eq!(f.caught_up().await.len(), 1);
    let names = |s: Snapshot| {
        let prefix = f.cache.namespace_prefix("ns");
        s.range(&prefix, &Bytes::new()).map(|e| e.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(f.cache.snapshot_at(first).expect("in the window")), ["a"]);
    assert_eq!(names(f.cache.snapshot_at(second).expect("in the window")), ["a", "b"]);
    assert_eq!(names(f.cache.snapshot_at(third).expect("in the window")), ["b"]);
    assert!(matches!(f.cache.snapshot_at(0), Err(WindowError::TooOld { .. })));
    assert!(matches!(f.cache.snapshot_at(third + 9), Err(WindowError::TooNew { .. })));
}

#[tokio::test]
async fn watchers_get_what_their_scope_covers_in_order() {
    let f = fixture().await;
    let start = f.caught_up().await.revision;
    let mut on_n1 = f.cache.watch(start, Scope::Field(0, "n1".to_owned())).expect("watch");
    let mut all = f.cache.watch(start, Scope::All).expect("watch");
    let first = f.create("a", "n1").await;
    f.create("b", "n2").await;
    let key = f.cache.key("ns", "a");
    f.write(Txn::update(key, body("a", "n2"), first, 0)).await;
    f.caught_up().await;
    let seen = [on_n1.next().await.expect("event"), on_n1.next().await.expect("event")];
    assert_eq!(
        seen.each_ref().map(|e| (e.event, e.entry.name())),
        [(EventType::Added, "a"), (EventType::Modified, "a")]
    );
    assert_eq!(seen[1].previous.as_ref().map(|p| p.field(0)), Some("n1"));
    let mut revisions = Vec::new();
    for _ in 0..3 {
        revisions.push(all.next().await.expect("event").revision());
    }
    assert!(revisions.is_sorted());
    drop((all, on_n1));
    assert_eq!(f.cache.watcher_count(), 0);
}

#[tokio::test]
async fn the_index_follows_every_change() {
    let f = fixture().await;
    let on = |node: &str| -> Vec<String> {
        f.cache.with_field("spec.nodeName", node).iter().map(|entry| entry.name().to_owned()).collect()
    };
    let first = f.create("b", "n1").await;
    f.create("a", "n1").await;
    f.create("c", "").await;
    f.caught_up().await;
    assert_eq!((on("n1"), on("")), (vec!["a".to_owned(), "b".to_owned()], vec![]));
    let moved = f.write(Txn::update(f.cache.key("ns", "b"), body("b", "n2"), first, 0)).await;
    f.caught_up().await;
    assert_eq!((on("n1"), on("n2")), (vec!["a".to_owned()], vec!["b".to_owned()]));
    f.write(Txn::delete(f.cache.key("ns", "b"), moved)).await;
    f.caught_up().await;
    assert!(on("n2").is_empty());
}

#[tokio::test]
async fn a_watcher_that_fell_behind_continues_without_loss_or_repetition() {
    let f = fixture().await;
    let start = f.caught_up().await.revision;
    let mut slow = f.cache.watch(start, Scope::Namespace("ns".to_owned())).expect("watch");
    const EVENTS: usize = 1500;
    for i in 0..EVENTS / 2 {
        // Two objects in one transaction share a revision; neither may get lost.
        let put = |key: Bytes| Write::Put { key, value: body("x", ""), lease: 0 };
        let writes = vec![put(f.cache.key("ns", &format!("a{i}"))), put(f.cache.key("ns", &format!("b{i}")))];
        f.write(Txn { guards: vec![], writes }).await;
    }
    f.caught_up().await;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..EVENTS {
        assert!(names.insert(slow.next().await.expect("event").entry.name().to_owned()));
    }
}

#[tokio::test]
async fn a_cache_added_later_is_complete_and_cut_when_removed() {
    let f = fixture().await;
    let key = Bytes::from_static(b"/registry/example.com/widgets/ns/w");
    f.write(Txn::create(key.clone(), body("w", ""), 0)).await;
    let prefix = Bytes::from_static(b"/registry/example.com/widgets/");
    let cache = f.hub.add(prefix.clone(), HeaderSpec::new([]), plain_reader()).await;
    assert_eq!(cache.len(), 1);
    let mut watcher = cache.watch(cache.revision(), Scope::All).expect("watch");
    f.hub.remove(&prefix);
    assert!(watcher.next().await.is_none());
}

/// `{"a": {"a": … }}` in a member of an object, this many levels with the object itself.
fn nested(levels: usize) -> Bytes {
    let (open, close) = (r#"{"a":"#.repeat(levels - 1), "}".repeat(levels - 1));
    Bytes::from(format!(r#"{{"metadata":{{"name":"deep"}},"spec":{open}1{close}}}"#))
}

#[tokio::test]
async fn what_can_not_be_read_is_left_out_and_remembered() {
    let f = fixture().await;
    let key = |name: &str| f.cache.key("ns", name);
    let good = f.create("a", "n1").await;
    f.create("b", "n1").await;
    for (name, bytes) in [
        ("torn", Bytes::from_static(br#"{"metadata":{"name":"torn"#)),
        ("text", Bytes::from_static(b"k8s\x00\xff")),
        ("list", Bytes::from_static(b"[]")),
        ("bare", Bytes::from_static(b"{}")),
        ("deep", nested(meta::depth::MAX_DEPTH + 1)),
    ] {
        f.write(Txn::create(key(name), bytes, 0)).await;
    }
    f.write(Txn::create(key("edge"), nested(meta::depth::MAX_DEPTH), 0)).await;
    let broken = f.write(Txn::update(key("a"), Bytes::from_static(b"{"), good, 0)).await;
    let names: Vec<String> =
        f.caught_up().await.range(&f.cache.prefix, &Bytes::new()).map(|e| e.path().to_owned()).collect();
    assert_eq!(names, ["ns/b", "ns/edge"]);
    let all = ["ns/a", "ns/bare", "ns/deep", "ns/list", "ns/text", "ns/torn"];
    assert_eq!(f.cache.corrupt_below(&f.cache.prefix), all);
    assert_eq!(f.cache.corrupt_below(&f.cache.namespace_prefix("n")), [""; 0]);
    assert_eq!(f.cache.with_field("spec.nodeName", "n1").len(), 1, "an index forgets what can't be read");
    assert!(f.cache.decode_errors() >= 6);
    // A load finds the same; what is mended or gone is forgotten.
    f.write(Txn::update(key("a"), body("a", "n1"), broken, 0)).await;
    f.write(Txn::default().and_delete(key("torn"))).await;
    f.caught_up().await;
    assert_eq!(f.cache.corrupt_below(&f.cache.prefix), ["ns/bare", "ns/deep", "ns/list", "ns/text"]);
    let (_, kv) = f.store.get(key("list")).await.expect("store");
    f.cache.load(kv.into_iter().collect(), broken + 10);
    assert_eq!(f.cache.corrupt_below(&f.cache.prefix), ["ns/list"]);
}

#[tokio::test]
async fn what_can_not_be_read_is_not_gone_for_watchers() {
    let f = fixture().await;
    let first = f.create("a", "n1").await;
    f.create("b", "n1").await;
    let other = f.create("c", "n1").await;
    f.caught_up().await;
    let mut watcher = f.cache.watch(other, Scope::All).expect("a watcher");
    let torn = |name: &str, revision: i64| Txn::update(f.cache.key("ns", name), Bytes::from_static(b"{"), revision, 0);
    let broken = f.write(torn("a", first)).await;
    f.write(torn("b", first + 1)).await;
    f.write(Txn::update(f.cache.key("ns", "a"), body("a", "n2"), broken, 0)).await;
    f.write(Txn::default().and_delete(f.cache.key("ns", "b"))).await;
    assert_eq!(f.caught_up().await.len(), 2);
    for (kind, name, node) in [(EventType::Modified, "a", "n2"), (EventType::Deleted, "b", "n1")] {
        let event = watcher.next().await.expect("an event");
        assert_eq!((event.event, event.entry.name(), event.entry.field(0)), (kind, name, node));
    }
    assert_eq!(f.cache.with_field("spec.nodeName", "n1").len(), 1);
}
