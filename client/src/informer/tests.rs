//! What handlers are told, from what a watch brings; and what the log says of a server that refuses.

use std::sync::atomic::AtomicUsize;

use http::Response;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use parking_lot::Mutex;

use super::*;

fn map(name: &str, version: &str, label: &str) -> ConfigMap {
    let mut m = ConfigMap::default();
    m.metadata.namespace = Some("ns".into());
    m.metadata.name = Some(name.into());
    m.metadata.resource_version = Some(version.into());
    m.metadata.labels = Some([("l".to_owned(), label.to_owned())].into());
    m
}

fn read(name: &str, version: &str, label: &str) -> Item<ConfigMap> {
    item(&map(name, version, label))
}

/// As a server sends it.
fn item(map: &ConfigMap) -> Item<ConfigMap> {
    serde_json::from_str(&serde_json::to_string(map).unwrap()).unwrap()
}

fn informer() -> (Informer<ConfigMap>, std::sync::mpsc::Receiver<String>) {
    let (tx, rx) = std::sync::mpsc::channel();
    let service =
        tower::service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>(std::io::Error::other("unused")) });
    let api = Api::namespaced(crate::in_process(service), "ns");
    let mut informer = Informer::<ConfigMap>::new(api).on(move |delta| {
        let what = match delta {
            Delta::Added(_) => "added",
            Delta::Updated { .. } => "updated",
            Delta::Deleted(_) => "deleted",
        };
        let _ = tx.send(format!("{what} {}", Key::of(delta.object().as_ref())));
    });
    let index: IndexFn<ConfigMap> = Box::new(|m| m.labels().values().cloned().collect());
    informer.cache.indexed(HashMap::from([("label", index)]));
    (informer, rx)
}

#[tokio::test]
async fn a_relist_tells_only_the_differences() {
    let (informer, told) = informer();
    let mut listing = None;
    let events = vec![
        watcher::Event::Init,
        watcher::Event::InitApply(read("a", "1", "x")),
        watcher::Event::InitApply(read("b", "2", "x")),
        watcher::Event::InitDone,
        watcher::Event::Init,
        watcher::Event::InitApply(read("b", "2", "x")),
        watcher::Event::InitApply(read("c", "3", "y")),
        watcher::Event::InitDone,
        watcher::Event::Apply(read("c", "4", "x")),
    ];
    events.into_iter().for_each(|e| informer.take(e, &mut listing));
    let told: Vec<String> = told.try_iter().collect();
    assert_eq!(told, ["added ns/a", "added ns/b", "added ns/c", "deleted ns/a", "updated ns/c"]);
    assert!(informer.cache.is_synced());
    assert_eq!(informer.cache.by("label", "x").len(), 2);
    assert!(informer.cache.by("label", "y").is_empty(), "an index forgets what an object no longer says");
}

#[tokio::test]
async fn one_object_that_can_not_be_read_keeps_no_other_away() {
    let (informer, told) = informer();
    let mut listing = None;
    let broken = |name: &str| -> Item<ConfigMap> {
        let text = format!(r#"{{"metadata":{{"name":"{name}","namespace":"ns","resourceVersion":"9"}},"data":5}}"#);
        serde_json::from_str(&text).unwrap()
    };
    let events = vec![
        watcher::Event::Init,
        watcher::Event::InitApply(broken("never")),
        watcher::Event::InitApply(read("a", "1", "x")),
        watcher::Event::InitApply(read("b", "1", "x")),
        watcher::Event::InitDone,
        watcher::Event::Apply(broken("a")),
        watcher::Event::Init,
        watcher::Event::InitApply(broken("a")),
        watcher::Event::InitDone,
    ];
    events.into_iter().for_each(|e| informer.take(e, &mut listing));
    let told: Vec<String> = told.try_iter().collect();
    assert_eq!(told, ["added ns/a", "added ns/b", "deleted ns/b"]);
    assert!(informer.cache.is_synced());
    let kept = informer.cache.get_in("ns", "a").unwrap();
    assert_eq!(kept.resource_version().as_deref(), Some("1"), "as it last could be read");
    informer.take(watcher::Event::Delete(broken("a")), &mut listing);
    assert!(informer.cache.is_empty());
}

fn life(name: &str, version: &str, uid: &str) -> Item<ConfigMap> {
    let mut object = map(name, version, uid);
    object.metadata.uid = Some(uid.into());
    item(&object)
}

/// An informer that tells its deltas with UIDs, and whether its cache then holds what they say.
fn informer_of_lives() -> (Informer<ConfigMap>, Arc<Mutex<Vec<String>>>) {
    let (mut informer, _) = informer();
    informer.handlers.clear();
    let (told, cache) = (Arc::new(Mutex::new(Vec::new())), informer.cache());
    let log = told.clone();
    let informer = informer.on(move |delta| {
        let uid = |o: &ConfigMap| o.metadata.uid.clone().unwrap_or_default();
        let here = cache.get(&Key::of(delta.object().as_ref())).map(|o| uid(&o)).unwrap_or_default();
        log.lock().push(match delta {
            Delta::Added(o) => format!("added {}, cache {here}", uid(o)),
            Delta::Updated { old, new } => format!("updated {} to {}, cache {here}", uid(old), uid(new)),
            Delta::Deleted(o) => format!("deleted {}, cache {here}", uid(o)),
        });
    });
    (informer, told)
}

#[tokio::test]
async fn an_object_made_again_under_its_name_is_another_life() {
    for relisted in [true, false] {
        let (informer, told) = informer_of_lives();
        let mut listing = None;
        informer.take(watcher::Event::Apply(life("a", "1", "one")), &mut listing);
        informer.take(watcher::Event::Apply(life("a", "2", "one")), &mut listing);
        if relisted {
            informer.take(watcher::Event::Init, &mut listing);
            informer.take(watcher::Event::InitApply(life("a", "7", "two")), &mut listing);
            informer.take(watcher::Event::InitDone, &mut listing);
        } else {
            informer.take(watcher::Event::Apply(life("a", "7", "two")), &mut listing);
        }
        let wanted =
            ["added one, cache one", "updated one to one, cache one", "deleted one, cache ", "added two, cache two"];
        assert_eq!(*told.lock(), wanted);
        assert_eq!(informer.cache.by("label", "one").len(), 0, "its index entries went with it");
        assert_eq!(informer.cache.by("label", "two").len(), 1);
    }
}

#[tokio::test]
async fn another_life_that_can_not_be_read_ends_the_one_before() {
    let (informer, told) = informer_of_lives();
    let mut listing = None;
    let broken: Item<ConfigMap> = serde_json::from_str(
        r#"{"metadata":{"name":"a","namespace":"ns","uid":"two","resourceVersion":"9"},"data":5}"#,
    )
    .unwrap();
    informer.take(watcher::Event::Apply(life("a", "1", "one")), &mut listing);
    informer.take(watcher::Event::Apply(broken), &mut listing);
    assert_eq!(*told.lock(), ["added one, cache one", "deleted one, cache "]);
}

#[tokio::test]
async fn what_is_told_of_the_deleted_is_trimmed_too() {
    let (informer, told) = informer();
    let informer = informer.on(|delta| assert!(delta.object().metadata.managed_fields.is_none()));
    let mut last = map("a", "2", "x");
    last.metadata.managed_fields = Some(Vec::new());
    let mut listing = None;
    informer.take(watcher::Event::Apply(read("a", "1", "x")), &mut listing);
    informer.take(watcher::Event::Delete(item(&last)), &mut listing);
    assert_eq!(told.try_iter().count(), 2);
    assert_eq!(*informer.cache.version().borrow(), 2, "as far as the deletion");
}

/// Keeps the messages of a level and above.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO && metadata.target().starts_with("client")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().push(format!("{} {}", event.metadata().level(), message.0));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Answers 403 to the first `refused` requests; then lists nothing, and watches in silence.
fn server(refused: usize) -> kube::Client {
    let asked = Arc::new(AtomicUsize::new(0));
    crate::in_process(tower::service_fn(move |request: Request<Body>| {
        let asked = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            let watch = request.uri().query().unwrap_or_default().contains("watch=true");
            let (code, body) = match (asked < refused, watch) {
                (true, _) => (403, r#"{"kind":"Status","status":"Failure","code":403,"reason":"Forbidden"}"#),
                (false, false) => (200, r#"{"metadata":{"resourceVersion":"1"},"items":[]}"#),
                (false, true) => (200, ""),
            };
            let text = futures::stream::iter([Ok::<_, std::io::Error>(http_body::Frame::data(body.into()))]);
            let silence = futures::stream::pending();
            let body: std::pin::Pin<Box<dyn Stream<Item = _> + Send>> =
                if watch { Box::pin(text.chain(silence)) } else { Box::pin(text) };
            let body = http_body_util::combinators::UnsyncBoxBody::<bytes::Bytes, std::io::Error>::new(
                http_body_util::StreamBody::new(body),
            );
            let mut response = Response::new(body);
            *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
            Ok::<_, std::io::Error>(response)
        }
    }))
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_is_told_once_and_once_that_it_is_there() {
    for (refused, wanted) in [
        (0, vec![]),
        (1, vec![]),
        (9, vec!["WARN list and watch fail; trying again until they work", "INFO list and watch work again"]),
    ] {
        let log = Log::default();
        let _guard = tracing::subscriber::set_default(log.clone());
        let informer = Informer::<ConfigMap>::new(Api::all(server(refused)));
        let (cache, task) = informer.run(CancellationToken::new());
        cache.synced().await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        task.abort();
        assert_eq!(*log.0.lock(), wanted, "{refused} refused");
    }
}

/// A server that answers lists of ConfigMaps with these, or not at all; watches stay open.
fn answering(maps: Option<Vec<ConfigMap>>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let maps = maps.clone();
        async move {
            let Some(maps) = maps else { return Err(std::io::Error::other("nobody is there")) };
            if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                std::future::pending::<()>().await;
            }
            let list = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "9"},
                "items": maps});
            Ok(Response::new(Body::from(list.to_string().into_bytes())))
        }
    });
    crate::in_process(service)
}

/// What an informer knows a while after its start, and that it is told of each.
async fn known(dir: &Path, maps: Option<Vec<ConfigMap>>) -> (Vec<String>, bool) {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let stop = CancellationToken::new();
    let (cache, task) = Informer::<ConfigMap>::new(Api::namespaced(answering(maps), "ns"))
        .keep_in(Some(dir))
        .on(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })
        .run(stop.clone());
    tokio::time::sleep(kept::PATIENCE * 2).await;
    let known: Vec<String> = cache.list().iter().map(|map| map.name_any()).collect();
    assert_eq!(told.load(Ordering::Relaxed), known.len());
    let synced = cache.is_synced();
    stop.cancel();
    task.await.expect("it ends");
    (known, synced)
}

#[tokio::test(start_paused = true)]
async fn without_a_server_an_informer_goes_on_with_what_it_knew() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(known(dir.path(), None).await, (vec![], false), "it never knew anything");
    let both = vec![map("a", "1", "x"), map("b", "2", "x")];
    assert_eq!(known(dir.path(), Some(both)).await.0, ["a", "b"]);
    assert_eq!(known(dir.path(), None).await, (vec!["a".to_owned(), "b".to_owned()], true));
    let file = dir.path().join("configmaps.jsonl");
    let mut text = std::fs::read_to_string(&file).expect("written");
    text.insert_str(0, "torn\n");
    std::fs::write(&file, text).expect("damaged");
    assert_eq!(known(dir.path(), None).await.0, ["a", "b"], "what can be read is");
    assert_eq!(known(dir.path(), Some(vec![map("b", "3", "y")])).await.0, ["b"], "the server's word counts");
    assert_eq!(known(dir.path(), None).await.0, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn what_came_of_a_list_is_newer_than_what_was_written_down() {
    let dir = tempfile::tempdir().expect("a directory");
    known(dir.path(), Some(vec![map("a", "1", "old"), map("b", "1", "old")])).await;
    let (mut informer, _told) = informer();
    informer.kept = Some(Kept::new(dir.path()));
    let mut listing = None;
    informer.take(watcher::Event::Init, &mut listing);
    informer.take(watcher::Event::InitApply(read("a", "2", "new")), &mut listing);
    informer.recall();
    assert!(informer.cache.is_synced() && informer.cache.len() == 2);
    assert_eq!(informer.cache.get_in("ns", "a").expect("there").labels()["l"], "new");
    informer.take(watcher::Event::InitDone, &mut listing);
    assert_eq!(informer.cache.len(), 1, "the rest of the list has no b");
}
