//! The server's metrics, with upstream's names, labels and buckets. A request costs a few label lookups and nothing
//! that allocates. Pure, but for the page of `/metrics`, which asks the store for its size. I/O.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Response;
use http_body::Body as _;
use telemetry::health::Record;
use telemetry::process;
use telemetry::{Counter, Family, Gauge, Histogram, Registry};

use super::limits::Limits;
use crate::authz::Decision;
use crate::http::body::{Body, BoxError, Frames};
use crate::http::call::Call;
use crate::http::request::RequestInfo;
use crate::http::respond::response;
use crate::registry::{self, Served};
use crate::storage::Store;
use crate::storage::encryption::EncryptedStore;

/// This component in labels.
const COMPONENT: &str = "apiserver";
/// The store in labels: upstream's name of the first cluster.
const STORE: &str = "etcd-0";

/// Upstream's buckets, in seconds or bytes.
const REQUEST_SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const SLI_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const RESPONSE_BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const EVENT_BYTES: &[f64] = &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];
const BODY_BYTES: &[f64] = &[
    5e4, 1.5e5, 2.5e5, 3.5e5, 4.5e5, 5.5e5, 6.5e5, 7.5e5, 8.5e5, 9.5e5, 1.05e6, 1.15e6, 1.25e6, 1.35e6, 1.45e6, 1.55e6,
    1.65e6, 1.75e6, 1.85e6, 1.95e6, 2.05e6, 2.15e6, 2.25e6, 2.35e6, 2.45e6, 2.55e6, 2.65e6, 2.75e6, 2.85e6, 2.95e6,
    3.05e6,
];
const AUTH_SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
const ADMISSION_SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// See the module's head.
pub struct Metrics {
    registry: Registry,
    /// How the health checks ended: `/metrics/slis`.
    pub checks: Record,
    requests: Requests,
    watches: Watches,
    storage: Storage,
    callers: Callers,
    /// Filled by the admission chain.
    pub(crate) admission_seconds: Family<Histogram, 4>,
    /// TLS handshakes that failed.
    pub handshake_errors: Counter,
    /// Counted by `service::repair`: trouble with node ports by sort, and repairs that failed.
    pub node_port_errors: Family<Counter, 1>,
    pub repair_errors: Counter,
}

/// What is known of a request beside its code: `component`, `group`, … `version`, in the order of the labels.
type Labels<'a> = [&'a str; 7];

const REQUEST: Labels<'static> = ["component", "group", "resource", "scope", "subresource", "verb", "version"];

struct Requests {
    total: Family<Counter, 9>,
    seconds: Family<Histogram, 8>,
    sli_seconds: Family<Histogram, 7>,
    response_bytes: Family<Histogram, 7>,
    body_bytes: Family<Histogram, 3>,
    long_running: Family<Gauge, 7>,
    terminations: Family<Counter, 8>,
}

impl Requests {
    fn declare(r: &Registry) -> Requests {
        let [component, group, resource, scope, subresource, verb, version] = REQUEST;
        let coded = ["code", component, "dry_run", group, resource, scope, subresource, verb, version];
        let timed = [component, "dry_run", group, resource, scope, subresource, verb, version];
        let ended = ["code", component, group, resource, scope, subresource, verb, version];
        let name = "apiserver_request_duration_seconds";
        let seconds = r.histogram(name, "How long requests took.", timed, REQUEST_SECONDS);
        let name = "apiserver_request_sli_duration_seconds";
        let sli_seconds = r.histogram(name, "The same without watches and streams.", REQUEST, SLI_SECONDS);
        let name = "apiserver_response_sizes";
        let response_bytes = r.histogram(name, "Bytes of answers to GET and LIST.", REQUEST, RESPONSE_BYTES);
        let name = "apiserver_request_body_size_bytes";
        let body_bytes = r.histogram(name, "Bytes of request bodies.", [group, resource, verb], BODY_BYTES);
        let name = "apiserver_request_terminations_total";
        let terminations = r.counter(name, "Requests that the server ended in its own defence.", ended);
        Requests {
            total: r.counter("apiserver_request_total", "Requests answered.", coded),
            seconds,
            sli_seconds,
            response_bytes,
            body_bytes,
            long_running: r.gauge("apiserver_longrunning_requests", "Watches and streams now.", REQUEST),
            terminations,
        }
    }
}

struct Watches {
    events: Family<Counter, 3>,
    event_bytes: Family<Histogram, 3>,
}

impl Watches {
    fn declare(r: &Registry) -> Watches {
        let labels = ["group", "resource", "version"];
        let name = "apiserver_watch_events_sizes";
        let event_bytes = r.histogram(name, "Bytes of events sent to watchers.", labels, EVENT_BYTES);
        Watches { events: r.counter("apiserver_watch_events_total", "Events sent to watchers.", labels), event_bytes }
    }
}

struct Storage {
    requests: Family<Counter, 3>,
    seconds: Family<Histogram, 3>,
    bytes: Gauge,
}

impl Storage {
    fn declare(r: &Registry) -> Storage {
        let labels = ["group", "operation", "resource"];
        let name = "etcd_request_duration_seconds";
        let seconds = r.histogram(name, "How long the store took.", labels, REQUEST_SECONDS);
        let name = "apiserver_storage_size_bytes";
        let bytes = r.gauge(name, "Bytes that the store takes on disk.", ["storage_cluster_id"]).with([STORE]);
        Storage { requests: r.counter("etcd_requests_total", "Requests to the store.", labels), seconds, bytes }
    }
}

struct Callers {
    authentications: Family<Counter, 1>,
    authentication_seconds: Family<Histogram, 1>,
    users: Family<Counter, 1>,
    authorizations: Family<Counter, 1>,
    authorization_seconds: Family<Histogram, 1>,
}

impl Callers {
    fn declare(r: &Registry) -> Callers {
        let result = ["result"];
        let name = "authentication_duration_seconds";
        let authentication_seconds = r.histogram(name, "Finding out who calls.", result, AUTH_SECONDS);
        let name = "authorization_duration_seconds";
        let authorization_seconds = r.histogram(name, "Deciding whether a caller may.", result, AUTH_SECONDS);
        Callers {
            authentications: r.counter("authentication_attempts", "Callers who were asked who they are.", result),
            authentication_seconds,
            users: r.counter("authenticated_user_requests", "Requests by sort of caller.", ["username"]),
            authorizations: r.counter("authorization_attempts_total", "Decisions whether a caller may.", result),
            authorization_seconds,
        }
    }
}

impl Metrics {
    pub fn new(limits: &Limits) -> Metrics {
        let registry = Registry::default();
        let r = &registry;
        process::declare(r);
        process::declare_build(r, meta::version::GIT_VERSION);
        in_flight(r, limits);
        let name = "apiserver_admission_controller_admission_duration_seconds";
        let labels = ["name", "operation", "rejected", "type"];
        let admission_seconds = r.histogram(name, "How long admission plugins took.", labels, ADMISSION_SECONDS);
        let name = "apiserver_tls_handshake_errors_total";
        let handshake_errors = r.counter(name, "TLS handshakes that failed.", []).with([]);
        let name = "apiserver_nodeport_repair_port_errors_total";
        let node_port_errors = r.counter(name, "Trouble with node ports that was found, by sort.", ["type"]);
        let name = "apiserver_nodeport_repair_reconcile_errors_total";
        let repair_errors = r.counter(name, "Repairs of node ports that failed.", []).with([]);
        Metrics {
            requests: Requests::declare(r),
            watches: Watches::declare(r),
            storage: Storage::declare(r),
            callers: Callers::declare(r),
            admission_seconds,
            handshake_errors,
            node_port_errors,
            repair_errors,
            checks: Record::default(),
            registry,
        }
    }

    /// Declares what is read from the caches of whatever is served when the page is made.
    pub fn follow(&self, served: &Arc<ArcSwap<registry::Registry>>) {
        type Read = fn(&registry::Stored) -> Option<f64>;
        let rows: [(&str, &str, &str, Read); 5] = [
            ("apiserver_resource_objects", "Objects stored.", "gauge", |s| Some(s.cache.len() as f64)),
            ("apiserver_watch_cache_resource_version", "Revision of the cache.", "gauge", |s| {
                Some(s.cache.revision() as f64)
            }),
            ("apiserver_watch_cache_events_received_total", "Events from the store.", "counter", |s| {
                Some(s.cache.events() as f64)
            }),
            ("apiserver_storage_decode_errors_total", "Stored objects that could not be read.", "counter", |s| {
                Some(s.cache.decode_errors()).filter(|errors| *errors > 0).map(|errors| errors as f64)
            }),
            ("watch_cache_capacity", "Events that the cache keeps at most.", "gauge", |_| {
                Some(crate::cache::window::MOST_EVENTS as f64)
            }),
        ];
        for (name, help, kind, read) in rows {
            let served = Arc::downgrade(served);
            self.registry.collect(name, help, kind, move |out| {
                let Some(served) = served.upgrade() else { return };
                for served in served.load().iter() {
                    // A resource is told once, in the version that is stored.
                    let store = served.store.as_ref().filter(|_| served.native());
                    if let Some(value) = store.and_then(read) {
                        out.add(["group", "resource"], [&served.kind.group, &served.kind.plural], value);
                    }
                }
            });
        }
    }

    /// Counts what a store that encrypts does.
    pub fn follow_encryption(&self, store: &EncryptedStore) {
        store.measure(&self.registry);
    }

    /// Begins to measure a request; the size of its body when it is known.
    pub fn begin(&self, served: &registry::Registry, call: &Call, body: Option<u64>) -> Measure {
        let known = is_served(served, &call.info);
        let started = Instant::now();
        if let Some(size) = body.filter(|size| *size > 0 && known) {
            let labels = [call.info.group.as_str(), &call.info.resource, call.info.verb];
            self.requests.body_bytes.with(labels).observe(size as f64);
        }
        let running = call.info.is_long_running().then(|| {
            let gauge = self.requests.long_running.with(labels(call, known));
            gauge.add(1.0);
            Running(gauge)
        });
        Measure { known, started, running }
    }

    /// Ends the measurement of a request with its answer; a stream is counted when it ends.
    pub fn end(&self, measure: Measure, call: &Call, answer: Response<Body>) -> Response<Body> {
        let labels = labels(call, measure.known);
        let [component, group, resource, scope, subresource, verb, version] = labels;
        let number;
        let code = match code_text(answer.status().as_u16()) {
            "" => {
                number = answer.status().as_u16().to_string();
                number.as_str()
            }
            known => known,
        };
        let dry_run = if call.query.get("dryRun").is_some() { "All" } else { "" };
        let requests =
            self.requests.total.with([code, component, dry_run, group, resource, scope, subresource, verb, version]);
        let seconds =
            self.requests.seconds.with([component, dry_run, group, resource, scope, subresource, verb, version]);
        if let Some(running) = measure.running {
            let ending = Ending { requests, seconds, started: measure.started, _running: running };
            let events = (verb == "WATCH").then(|| {
                let labels = [group, resource, version];
                (self.watches.events.with(labels), self.watches.event_bytes.with(labels))
            });
            return answer.map(|body| Counted::around(body, ending, events));
        }
        let took = measure.started.elapsed();
        requests.inc();
        seconds.time(took);
        self.requests.sli_seconds.with(labels).time(took);
        if let Some(size) = answer.body().size_hint().exact().filter(|_| matches!(verb, "GET" | "LIST")) {
            self.requests.response_bytes.with(labels).observe(size as f64);
        }
        answer
    }

    /// Notes a request that the server refused or gave up.
    pub fn terminated(&self, served: &registry::Registry, call: &Call, code: &'static str) {
        let known = is_served(served, &call.info);
        let [component, group, resource, scope, subresource, verb, version] = labels(call, known);
        self.requests.terminations.with([code, component, group, resource, scope, subresource, verb, version]).inc();
    }

    /// Notes how the authentication of a caller ended; the name when it succeeded.
    pub fn authenticated(&self, user: Option<&str>, started: Instant) {
        let result = if user.is_some() { "success" } else { "failure" };
        self.callers.authentications.with([result]).inc();
        self.callers.authentication_seconds.with([result]).time(started.elapsed());
        if let Some(user) = user {
            self.callers.users.with([user_sort(user)]).inc();
        }
    }

    pub fn authorized(&self, decision: &Decision, started: Instant) {
        let result = match decision {
            Decision::Allow(_) => "allowed",
            Decision::Deny(_) => "denied",
            Decision::NoOpinion(_) => "no-opinion",
        };
        self.callers.authorizations.with([result]).inc();
        self.callers.authorization_seconds.with([result]).time(started.elapsed());
    }

    /// Measures a request to the store until it is dropped; `operation` is upstream's word.
    pub fn store(&self, operation: &'static str, served: &Served) -> StoreCall {
        let labels = [served.kind.group.as_ref(), operation, served.kind.plural.as_ref()];
        self.storage.requests.with(labels).inc();
        StoreCall { seconds: self.storage.seconds.with(labels), started: Instant::now() }
    }
}

/// `/metrics`.
pub async fn page(metrics: &Metrics, store: &dyn Store) -> Response<Body> {
    if let Ok(status) = store.status().await {
        metrics.storage.bytes.set(status.db_size as f64);
    }
    response(200, telemetry::CONTENT_TYPE, metrics.registry.text())
}

/// `/metrics/slis`.
pub fn slis(metrics: &Metrics) -> Response<Body> {
    response(200, telemetry::CONTENT_TYPE, metrics.checks.text())
}

fn in_flight(registry: &Registry, limits: &Limits) {
    let (reading, writing) = limits.running();
    let name = "apiserver_current_inflight_requests";
    registry.collect(name, "Requests now, watches and streams left out.", "gauge", move |out| {
        let count = |of: &AtomicUsize| of.load(Ordering::Relaxed) as f64;
        out.add(["request_kind"], ["mutating"], count(&writing));
        out.add(["request_kind"], ["readOnly"], count(&reading));
    });
}

/// Names that clients choose freely are not told apart: what is not served has no labels.
fn labels(call: &Call, known: bool) -> Labels<'_> {
    let info = &call.info;
    let verb = verb(call);
    if !info.resource_request {
        return [COMPONENT, "", "", "", page_of(&info.path), verb, ""];
    }
    if !known {
        return [COMPONENT, "", "", scope(info), "", verb, ""];
    }
    [COMPONENT, &info.group, &info.resource, scope(info), &info.subresource, verb, &info.version]
}

/// Whether the resource and its subresource are served, so that their names may be labels.
fn is_served(served: &registry::Registry, info: &RequestInfo) -> bool {
    let Some(served) = served.get(&info.group, &info.version, &info.resource) else { return false };
    let sub = info.subresource.as_str();
    sub.is_empty() || served.kind.subresources.iter().any(|known| known.name == sub)
}

/// Pages that are worth a series of their own.
fn page_of(path: &str) -> &'static str {
    const PAGES: [&str; 6] = ["/healthz", "/livez", "/readyz", "/metrics", "/version", "/openapi/v2"];
    PAGES.into_iter().find(|page| path.starts_with(page)).unwrap_or_default()
}

fn scope(info: &RequestInfo) -> &'static str {
    if !info.name.is_empty() || info.verb == "create" {
        "resource"
    } else if !info.namespace.is_empty() {
        "namespace"
    } else {
        "cluster"
    }
}

/// The verb as upstream's metrics name it.
fn verb(call: &Call) -> &'static str {
    match call.info.verb {
        _ if call.info.is_long_running() && !matches!(call.info.verb, "watch") && call.info.subresource != "log" => {
            "CONNECT"
        }
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" if call.header(http::header::CONTENT_TYPE).starts_with("application/apply-patch") => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "GET",
    }
}

fn code_text(code: u16) -> &'static str {
    match code {
        101 => "101",
        200 => "200",
        201 => "201",
        202 => "202",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        406 => "406",
        409 => "409",
        410 => "410",
        413 => "413",
        415 => "415",
        422 => "422",
        429 => "429",
        500 => "500",
        503 => "503",
        504 => "504",
        _ => "",
    }
}

/// Sorts of callers, as upstream tells them apart.
fn user_sort(name: &str) -> &'static str {
    const KNOWN: [&str; 5] = ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];
    match KNOWN.into_iter().find(|known| *known == name) {
        Some(known) => known,
        None if name.contains('@') => "email_id",
        None => "other",
    }
}

/// A request that is being measured.
pub struct Measure {
    /// The resource is served, so that its names may be labels.
    known: bool,
    started: Instant,
    running: Option<Running>,
}

struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

/// A request to the store that is being measured.
pub struct StoreCall {
    seconds: Histogram,
    started: Instant,
}

impl Drop for StoreCall {
    fn drop(&mut self) {
        self.seconds.time(self.started.elapsed());
    }
}

/// Counts a long-running request when its stream ends.
struct Ending {
    requests: Counter,
    seconds: Histogram,
    started: Instant,
    _running: Running,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.requests.inc();
        self.seconds.time(self.started.elapsed());
    }
}

/// A stream that is counted.
struct Counted {
    frames: Pin<Box<dyn Frames>>,
    events: Option<(Counter, Histogram)>,
    _ending: Ending,
}

impl Counted {
    fn around(body: Body, ending: Ending, events: Option<(Counter, Histogram)>) -> Body {
        match body {
            // All at once: it has ended.
            Body::Full(bytes) => Body::Full(bytes),
            Body::Stream(frames, length) => Body::Stream(Box::pin(Counted { frames, events, _ending: ending }), length),
        }
    }
}

impl Frames for Counted {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let frame = std::task::ready!(self.frames.as_mut().poll_frame(cx));
        if let (Some(Ok(bytes)), Some((count, sizes))) = (&frame, &self.events) {
            count.inc();
            sizes.observe(bytes.len() as f64);
        }
        Poll::Ready(frame)
    }
}
