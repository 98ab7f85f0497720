//! What an operator sees, on a whole server over a store that can be stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::authn::{MASTERS, UserInfo};
use crate::config::Config;
use crate::http::body::request_body;
use crate::proxy::Tcp;
use crate::server::Server;
use crate::storage::memory::MemoryStore;
use crate::storage::{RangeRequest, RangeResponse, Store, StoreError, StoreStatus, Txn, TxnOutcome, WatchStream};

const FAILS: u8 = 1;
const HANGS: u8 = 2;

/// A store whose reads can be made to fail or to hang.
#[derive(Clone, Default)]
struct Moody {
    store: MemoryStore,
    mood: Arc<AtomicU8>,
}

#[async_trait]
impl Store for Moody {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        match self.mood.load(Ordering::Acquire) {
            FAILS => Err(StoreError::Unavailable("it is down".to_owned())),
            HANGS => std::future::pending().await,
            _ => self.store.range(request).await,
        }
    }
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.store.txn(txn).await
    }
    async fn watch(&self, key: Bytes, end: Bytes, start_revision: i64) -> Result<WatchStream, StoreError> {
        self.store.watch(key, end, start_revision).await
    }
    async fn request_progress(&self) -> Result<(), StoreError> {
        self.store.request_progress().await
    }
    async fn grant_lease(&self, ttl_seconds: i64) -> Result<i64, StoreError> {
        self.store.grant_lease(ttl_seconds).await
    }
    async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }
    async fn revision(&self) -> Result<i64, StoreError> {
        self.store.revision().await
    }
    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.store.status().await
    }
}

struct Bench {
    server: Server,
    store: Moody,
    shutdown: CancellationToken,
}

struct Reply {
    code: u16,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }
}

async fn bench(config: Config) -> Bench {
    bench_over(Moody::default(), config).await
}

async fn bench_over(store: Moody, config: Config) -> Bench {
    let shutdown = CancellationToken::new();
    let config = Config { authorization_mode: vec!["AlwaysAllow".to_owned()], ..config };
    let server = crate::daemon::assemble(config, Arc::new(store.clone()), None, Arc::new(Tcp), &shutdown);
    Bench { server: server.await.expect("server"), store, shutdown }
}

impl Bench {
    async fn send(&self, method: &str, target: &str, group: &str, body: impl Into<Bytes>) -> Reply {
        let user = UserInfo { name: "me".to_owned(), groups: vec![group.to_owned()], ..UserInfo::default() };
        let request = Request::builder().method(method).uri(target).body(request_body(Full::new(body.into())));
        let response = self.server.handle(request.expect("request"), Arc::new(user)).await;
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.expect("body").to_vec()).expect("text");
        Reply { code: parts.status.as_u16(), headers: parts.headers, text }
    }

    async fn get(&self, target: &str) -> Reply {
        self.send("GET", target, "people", "").await
    }

    /// Opens a watch and hangs up.
    async fn glance(&self, target: &str) -> u16 {
        let user = UserInfo { name: "me".to_owned(), groups: vec!["people".to_owned()], ..UserInfo::default() };
        let request = Request::get(target).body(request_body(Full::new(Bytes::new()))).expect("request");
        self.server.handle(request, Arc::new(user)).await.status().as_u16()
    }

    fn feels(&self, mood: u8) {
        self.store.mood.store(mood, Ordering::Release);
    }
}

#[tokio::test]
async fn health_checks_have_names_and_ask_the_store() {
    let bench = bench(Config::default()).await;
    for endpoint in ["/livez", "/readyz", "/healthz", "/livez/ping", "/readyz/poststarthook/rbac/bootstrap-roles"] {
        let reply = bench.get(endpoint).await;
        assert_eq!((reply.code, reply.text.as_str()), (200, "ok"), "{endpoint}");
    }
    let verbose = bench.get("/readyz?verbose").await.text;
    assert!(verbose.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\n"), "{verbose}");
    assert!(verbose.ends_with("[+]shutdown ok\nreadyz check passed\n"), "{verbose}");
    assert_eq!(bench.get("/livez/shutdown").await.code, 404);
    bench.feels(FAILS);
    let failed = bench.get("/livez").await;
    assert_eq!(failed.code, 500);
    assert!(failed.text.contains("[-]etcd failed: reason withheld\n"), "{}", failed.text);
    assert_eq!(bench.get("/livez?exclude=etcd").await.text, "ok");
    assert_eq!(bench.get("/livez/etcd").await.text, "internal server error: store unavailable: it is down\n");
    let slis = bench.get("/metrics/slis").await.text;
    assert!(slis.contains("kubernetes_healthcheck{name=\"etcd\",type=\"livez\"} 0\n"), "{slis}");
    let index = bench.get("/").await.json();
    assert!(index["paths"].as_array().expect("paths").contains(&json!("/livez/etcd")));
}

#[tokio::test]
async fn a_server_that_ends_is_alive_and_not_ready() {
    let bench = bench(Config::default()).await;
    bench.server.core.set_ending();
    assert_eq!(bench.get("/livez").await.code, 200);
    let reply = bench.get("/readyz").await;
    assert_eq!(reply.code, 500);
    assert!(reply.text.ends_with("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{}", reply.text);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_full_server_refuses_and_says_when_to_come_back() {
    let bench = bench(Config { max_requests_inflight: 1, ..Config::default() }).await;
    bench.feels(HANGS);
    let path = "/api/v1/namespaces/default";
    let first = bench.get(path);
    tokio::pin!(first);
    // Polled once, the first request has its place and waits for the store.
    assert!(futures::poll!(&mut first).is_pending());
    let second = bench.get(path).await;
    assert_eq!(second.code, 429);
    assert_eq!(second.headers["retry-after"], "1");
    assert_eq!(bench.send("GET", "/version", MASTERS, "").await.code, 200);
    assert_eq!(bench.glance("/api/v1/namespaces?watch=1&resourceVersion=0").await, 200);
    let metrics = bench.send("GET", "/metrics", MASTERS, "").await.text;
    assert!(metrics.contains("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 2\n"), "{metrics}");
    assert!(metrics.contains("apiserver_request_terminations_total{code=\"429\""), "{metrics}");
}

#[tokio::test]
async fn a_request_takes_no_longer_than_it_may() {
    let bench = bench(Config::default()).await;
    bench.feels(HANGS);
    let late = bench.get("/api/v1/namespaces/default?timeout=20ms").await;
    assert_eq!((late.code, late.json()["reason"].as_str()), (504, Some("Timeout")), "{}", late.text);
    assert_eq!(bench.get("/api/v1/namespaces/default?timeout=soon").await.code, 400);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let bench = bench(Config::default()).await;
    let body = vec![b' '; crate::http::body::MAX_REQUEST_BODY + 1];
    let reply = bench.send("POST", "/api/v1/namespaces/default/configmaps", "people", body).await;
    assert_eq!(reply.code, 413);
    assert_eq!(reply.json()["message"], "Request entity too large: limit is 3145728");
}

#[tokio::test]
async fn a_continued_list_expires_with_its_history() {
    let bench = bench(Config::default()).await;
    let page = bench.get("/api/v1/namespaces?limit=1").await.json();
    let token = page["metadata"]["continue"].as_str().expect("token").to_owned();
    let path = format!("/api/v1/namespaces?limit=1&continue={token}");
    assert_eq!(bench.get(&path).await.code, 200);
    let revision: i64 = page["metadata"]["resourceVersion"].as_str().expect("revision").parse().expect("number");
    let compacted: &AtomicI64 = &bench.server.core.objects.compacted;
    compacted.store(revision + 1, Ordering::Release);
    let gone = bench.get(&path).await;
    assert_eq!((gone.code, gone.json()["reason"].as_str()), (410, Some("Expired")));
    let fresh = gone.json()["metadata"]["continue"].as_str().expect("another token").to_owned();
    assert_eq!(bench.get(&format!("/api/v1/namespaces?limit=1&continue={fresh}")).await.code, 200);
    let exact = format!("/api/v1/namespaces?resourceVersion={revision}&resourceVersionMatch=Exact");
    assert_eq!(bench.get(&exact).await.code, 410);
}

#[tokio::test]
async fn who_watches_from_what_another_server_has_forgotten_hears_so_in_the_stream() {
    let first = bench(Config::default()).await;
    let second = bench_over(first.store.clone(), Config::default()).await;
    let watched = second.get("/api/v1/namespaces?watch=1&resourceVersion=1").await;
    assert_eq!(watched.code, 200, "{}", watched.text);
    let event = watched.json();
    assert_eq!((event["type"].as_str(), event["object"]["code"].as_i64()), (Some("ERROR"), Some(410)));
    assert_eq!(event["object"]["reason"], "Expired");
}

#[tokio::test]
async fn keys_are_below_the_prefix_that_is_asked_for() {
    let bench = bench(Config { etcd_prefix: "/other".to_owned(), ..Config::default() }).await;
    assert_eq!(bench.get("/api/v1/namespaces/default").await.code, 200);
    let request = |key: &'static str, end: &'static str| RangeRequest {
        key: Bytes::from_static(key.as_bytes()),
        end: Bytes::from_static(end.as_bytes()),
        ..RangeRequest::default()
    };
    assert_eq!(bench.store.range(request("/registry/", "/registry0")).await.expect("range").count, 0);
    assert!(bench.store.range(request("/other/namespaces/", "/other/namespaces0")).await.expect("range").count > 0);
}

/// Upstream's metrics: name, type, labels.
const UPSTREAM: &str = include_str!("upstream-metrics.tsv");
/// Metrics that upstream has and that had no value when it was recorded.
const UNRECORDED: [&str; 2] = ["apiserver_request_terminations_total", "apiserver_nodeport_repair_port_errors_total"];

/// Families of a page: their type and labels.
fn families(page: &str) -> BTreeMap<String, (String, Vec<String>)> {
    let mut found: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("a type");
            found.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
        } else if let Some((name, rest)) = line.split_once('{') {
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let labels = rest.split("\",").filter_map(|part| part.split_once('=')).map(|(label, _)| label.to_owned());
            let family = found.get_mut(name).expect("declared");
            family.1 = labels.filter(|label| label != "le").collect();
        }
    }
    found
}

#[tokio::test]
async fn metrics_are_upstreams_in_name_type_and_labels() {
    let bench = bench(Config::default()).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}).to_string();
    assert_eq!(bench.send("POST", "/api/v1/namespaces/default/configmaps", "people", map).await.code, 201);
    assert_eq!(bench.glance("/api/v1/namespaces/default/configmaps?watch=1").await, 200);
    assert_eq!(bench.get("/api/v1/nonsense/x").await.code, 404);
    let page = bench.get("/metrics").await;
    assert_eq!(page.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let upstream: BTreeMap<&str, (&str, &str)> = UPSTREAM
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(name, rest)| Some((name, rest.split_once('\t')?)))
        .collect();
    let ours = families(&page.text);
    for (name, (kind, labels)) in &ours {
        if UNRECORDED.contains(&name.as_str()) {
            continue;
        }
        let theirs = upstream.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not upstream's"));
        assert_eq!((kind.as_str(), labels.join(",").as_str()), *theirs, "{name}");
    }
    for line in [
        "apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",\
         scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 1\n",
        "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",\
         scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1\n",
        "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"configmaps\",\
         scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 0\n",
        "apiserver_resource_objects{group=\"\",resource=\"configmaps\"} 1\n",
        "etcd_request_duration_seconds_count{group=\"\",operation=\"create\",resource=\"configmaps\"} 1\n",
    ] {
        assert!(page.text.contains(line), "{line} in {}", page.text);
    }
    assert!(!page.text.contains("nonsense"), "names that nobody serves are no labels");
}
