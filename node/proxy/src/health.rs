//! What the proxy tells over HTTP: /healthz and /livez for load balancers and probes, /metrics, and one port for each
//! Service that wants its local endpoints counted. Does I/O.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use serving::{Body, Connections, Http, Listener, Peer, Port};
use telemetry::{Counter, Family, Gauge, Histogram, Registry};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::daemon::Error;
use crate::model::Name;
use crate::render::NoLocal;
use crate::service::HealthCheck;

/// Upstream's buckets of applying rules, in seconds.
const SYNC_SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// Our rules of both families are one transaction: each series is told for both.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// Upstream's buckets of the time from a change to the kernel's rules: quarters, seconds, then minutes.
const PROGRAMMING_SECONDS: &[f64] = &[
    0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0,
    20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0, 27.0, 28.0, 29.0, 30.0, 31.0, 32.0, 33.0, 34.0, 35.0, 36.0, 37.0, 38.0,
    39.0, 40.0, 41.0, 42.0, 43.0, 44.0, 45.0, 46.0, 47.0, 48.0, 49.0, 50.0, 51.0, 52.0, 53.0, 54.0, 55.0, 56.0, 57.0,
    58.0, 59.0, 60.0, 65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 100.0, 105.0, 110.0, 115.0, 120.0, 150.0, 180.0, 210.0,
    240.0, 270.0, 300.0,
];

/// The metrics, with upstream's names.
#[derive(Debug)]
struct Metrics {
    registry: Registry,
    syncs: Family<Histogram, 1>,
    full_syncs: Family<Histogram, 1>,
    partial_syncs: Family<Histogram, 1>,
    updated: Family<Gauge, 1>,
    queued: Family<Gauge, 1>,
    failures: Family<Counter, 1>,
    programming: Family<Histogram, 1>,
    services: Changes,
    endpoints: Changes,
    no_local: Family<Gauge, 2>,
    flows: Family<Histogram, 1>,
    flows_deleted: Family<Counter, 1>,
    healthz: Family<Counter, 1>,
    livez: Family<Counter, 1>,
}

/// Changes of one kind: all that came, and those that the kernel does not have yet.
#[derive(Debug)]
struct Changes {
    total: Family<Counter, 0>,
    pending: Family<Gauge, 0>,
}

impl Changes {
    fn came(&self) {
        self.total.with([]).inc();
        self.pending.with([]).add(1.0);
    }

    /// The kernel has those that had come before its transaction.
    fn done(&self, before: u64) {
        self.pending.with([]).set(self.total.with([]).get().saturating_sub(before) as f64);
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        let registry = Registry::default();
        telemetry::process::declare(&registry);
        telemetry::process::declare_build(&registry, meta::version::GIT_VERSION);
        let (r, family) = (&registry, ["ip_family"]);
        let seconds = |name, help| r.histogram(name, help, family, SYNC_SECONDS);
        let changes =
            |total, pending, of| Changes { total: r.counter(total, of, []), pending: r.gauge(pending, of, []) };
        let metrics = Metrics {
            syncs: seconds("kubeproxy_sync_proxy_rules_duration_seconds", "How long rules took to reach the kernel."),
            full_syncs: seconds("kubeproxy_sync_full_proxy_rules_duration_seconds", "The same when all were sent."),
            partial_syncs: seconds("kubeproxy_sync_partial_proxy_rules_duration_seconds", "The same when some were."),
            updated: r.gauge(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "When rules last reached the kernel.",
                family,
            ),
            queued: r.gauge(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "When a change last came in.",
                family,
            ),
            failures: r.counter(
                "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
                "Transactions that the kernel refused.",
                family,
            ),
            programming: r.histogram(
                "kubeproxy_network_programming_duration_seconds",
                "From a change of a Service's pods to the kernel's rules.",
                family,
                PROGRAMMING_SECONDS,
            ),
            services: changes(
                "kubeproxy_sync_proxy_rules_service_changes_total",
                "kubeproxy_sync_proxy_rules_service_changes_pending",
                "Changes of Services.",
            ),
            endpoints: changes(
                "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                "Changes of EndpointSlices.",
            ),
            no_local: r.gauge(
                "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                "Ports with the policy Local that have endpoints, but none on this node.",
                ["ip_family", "traffic_policy"],
            ),
            flows: seconds(
                "kubeproxy_conntrack_reconciler_sync_duration_seconds",
                "How long it took to look for flows to endpoints that are gone.",
            ),
            flows_deleted: r.counter(
                "kubeproxy_conntrack_reconciler_deleted_entries_total",
                "Flows to endpoints that are gone, forgotten.",
                family,
            ),
            healthz: r.counter("kubeproxy_proxy_healthz_total", "Answers of /healthz.", ["code"]),
            livez: r.counter("kubeproxy_proxy_livez_total", "Answers of /livez.", ["code"]),
            registry,
        };
        // A chain that nobody leads to goes with the element that did: there is nothing to clean up later.
        let cleanup = "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total";
        let cleanup = metrics.registry.counter(cleanup, "Chains that could not be removed.", family);
        FAMILIES.iter().for_each(|family| {
            cleanup.with([family]).add(0);
            metrics.failures.with([family]).add(0);
        });
        metrics
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

/// How the proxy is.
#[derive(Debug)]
pub struct Health {
    metrics: Metrics,
    state: Mutex<State>,
    eligible: AtomicBool,
    /// An update that waits longer than this is a sign of trouble.
    patience: Duration,
}

#[derive(Debug, Default)]
struct State {
    updated: Option<Timestamp>,
    /// The first change that waits.
    queued: Option<Timestamp>,
}

impl Health {
    pub fn new(sync_period: Duration) -> Self {
        Health {
            metrics: Metrics::default(),
            state: Mutex::default(),
            eligible: AtomicBool::new(true),
            patience: sync_period * 2,
        }
    }

    /// A change came in.
    pub fn queued(&self) {
        let now = Timestamp::now();
        let mut state = self.state.lock();
        state.queued.get_or_insert(now);
        FAMILIES.iter().for_each(|family| self.metrics.queued.with([family]).set(seconds(now)));
    }

    pub fn service_changed(&self) {
        self.metrics.services.came();
    }

    pub fn endpoints_changed(&self) {
        self.metrics.endpoints.came();
    }

    /// The changes of Services and of EndpointSlices that have come.
    pub fn seen(&self) -> (u64, u64) {
        (self.metrics.services.total.with([]).get(), self.metrics.endpoints.total.with([]).get())
    }

    /// The kernel refused a transaction.
    pub fn refused(&self) {
        FAMILIES.iter().for_each(|family| self.metrics.failures.with([family]).inc());
    }

    /// Flows to endpoints that are gone were looked for.
    pub fn forgot(&self, took: Duration, flows: usize) {
        for family in FAMILIES {
            self.metrics.flows.with([family]).time(took);
        }
        self.metrics.flows_deleted.with([FAMILIES[0]]).add(flows as u64);
    }

    /// Changes of pods that the kernel has now, with the time at which each happened.
    pub fn programmed(&self, triggers: &[(bool, Timestamp)], now: Timestamp) {
        for (v6, at) in triggers {
            let took = now.duration_since(*at).as_secs_f64().max(0.0);
            self.metrics.programming.with([FAMILIES[usize::from(*v6)]]).observe(took);
        }
    }

    pub fn no_local(&self, counts: NoLocal) {
        for (i, family) in FAMILIES.into_iter().enumerate() {
            self.metrics.no_local.with([family, "internal"]).set(counts.internal[i] as f64);
            self.metrics.no_local.with([family, "external"]).set(counts.external[i] as f64);
        }
    }

    /// The kernel has all changes that had been seen before its transaction.
    pub fn updated(&self, took: Duration, full: bool, seen: (u64, u64)) {
        self.metrics.services.done(seen.0);
        self.metrics.endpoints.done(seen.1);
        let mut state = self.state.lock();
        let now = Timestamp::now();
        state.updated = Some(now);
        state.queued = None;
        for family in FAMILIES {
            self.metrics.syncs.with([family]).time(took);
            self.metrics.updated.with([family]).set(seconds(now));
            let kind = if full { &self.metrics.full_syncs } else { &self.metrics.partial_syncs };
            kind.with([family]).time(took);
        }
    }

    pub fn set_eligible(&self, eligible: bool) {
        self.eligible.store(eligible, Ordering::Relaxed);
    }

    /// Whether changes reach the kernel.
    pub fn is_healthy(&self, now: Timestamp) -> bool {
        let state = self.state.lock();
        let waiting = state.queued.map(|since| now.duration_since(since));
        state.updated.is_some() && waiting.is_none_or(|w| w.as_secs_f64() < self.patience.as_secs_f64())
    }

    /// The answer of /healthz, and of /livez for which a node that is about to go is as good as any.
    fn answer(&self, now: Timestamp, live: bool) -> Response<Full<Bytes>> {
        let eligible = live || self.eligible.load(Ordering::Relaxed);
        let healthy = self.is_healthy(now);
        let updated = if healthy { now } else { self.state.lock().updated.unwrap_or(Timestamp::UNIX_EPOCH) };
        let body = format!(
            r#"{{"lastUpdated": "{}","currentTime": "{}", "nodeEligible": {eligible}}}"#,
            go_time(updated),
            go_time(now)
        );
        let status = if healthy && eligible { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let answers = if live { &self.metrics.livez } else { &self.metrics.healthz };
        answers.with([status.as_str()]).inc();
        json(status, body)
    }
}

/// A time as upstream's programs print it.
fn go_time(t: Timestamp) -> String {
    t.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(Full::new(body.into()))
        .expect("constant headers")
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Full::new(body.into()))
        .expect("constant headers")
}

/// Opens the health and metrics ports.
pub(crate) async fn serve(config: &Config, health: Arc<Health>, shutdown: &CancellationToken) -> Result<(), Error> {
    if let Some(address) = config.healthz_bind_address {
        let health = health.clone();
        let answer = move |request: &Request<Body>| match request.uri().path() {
            "/healthz" => health.answer(Timestamp::now(), false),
            "/livez" => health.answer(Timestamp::now(), true),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        listen("--healthz-bind-address", pages(address), answer, shutdown.clone()).await?;
    }
    if let Some(address) = config.metrics_bind_address {
        let answer = move |request: &Request<Body>| match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok"),
            "/proxyMode" => text(StatusCode::OK, "nftables"),
            "/metrics" => text(StatusCode::OK, health.metrics.registry.text()),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        listen("--metrics-bind-address", pages(address), answer, shutdown.clone()).await?;
    }
    Ok(())
}

fn pages(address: SocketAddr) -> (Arc<Connections>, SocketAddr) {
    (Connections::of(Port::Pages), address)
}

/// Answers at an address until `stop`.
async fn listen(
    flag: &'static str,
    (connections, address): (Arc<Connections>, SocketAddr),
    answer: impl Fn(&Request<Body>) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
    stop: CancellationToken,
) -> Result<(), Error> {
    let listener = Listener::bind_within(connections, address).await;
    let listener = listener.map_err(|source| Error::Bind { flag, address, source })?;
    let handler = move |request: Request<Body>, _: Peer| std::future::ready(answer(&request));
    tokio::spawn(serving::serve(listener, Http::pages(None), handler, stop));
    Ok(())
}

/// The ports of Services whose load balancer asks which nodes have endpoints.
#[derive(Debug)]
pub struct HealthChecks {
    health: Arc<Health>,
    /// However many Services there are, their ports share one limit.
    connections: Arc<Connections>,
    open: HashMap<(Name, u16), OpenCheck>,
}

#[derive(Debug)]
struct OpenCheck {
    local: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl HealthChecks {
    pub fn new(health: Arc<Health>) -> Self {
        HealthChecks { health, connections: Connections::of(Port::HealthChecks), open: HashMap::new() }
    }

    /// Opens, updates and closes ports so that they are these.
    pub async fn set(&mut self, wanted: Vec<(Name, HealthCheck)>) {
        self.open.retain(|key, check| {
            let keep = wanted.iter().any(|(name, w)| *name == key.0 && w.port == key.1);
            if !keep {
                check.stop.cancel();
            }
            keep
        });
        for (name, check) in wanted {
            let key = (name, check.port);
            if let Some(open) = self.open.get(&key) {
                open.local.store(check.local_endpoints, Ordering::Relaxed);
                continue;
            }
            match self.start(&key.0, check).await {
                Ok(open) => {
                    self.open.insert(key, open);
                }
                Err(error) => tracing::warn!(%error, service = %key.0, "the Service's health check port is not served"),
            }
        }
    }

    async fn start(&self, name: &Name, check: HealthCheck) -> Result<OpenCheck, Error> {
        let local = Arc::new(AtomicUsize::new(check.local_endpoints));
        let stop = CancellationToken::new();
        let (health, count, name) = (self.health.clone(), local.clone(), name.clone());
        let answer = move |_: &Request<Body>| {
            let healthy = health.is_healthy(Timestamp::now());
            health_check_answer(&name, count.load(Ordering::Relaxed), healthy)
        };
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, check.port));
        listen("healthCheckNodePort", (self.connections.clone(), address), answer, stop.clone()).await?;
        Ok(OpenCheck { local, stop })
    }
}

fn health_check_answer(name: &str, local: usize, healthy: bool) -> Response<Full<Bytes>> {
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\
         \"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    let status = if local > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = json(status, body);
    response.headers_mut().insert("x-load-balancing-endpoint-weight", local.into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_waits_too_long_is_unhealthy() {
        let health = Health::new(Duration::from_secs(30));
        let now = Timestamp::now();
        assert!(!health.is_healthy(now), "not before the first sync");
        health.updated(Duration::from_millis(3), true, (0, 0));
        assert!(health.is_healthy(now));
        health.queued();
        assert!(health.is_healthy(now + Duration::from_secs(50)));
        assert!(!health.is_healthy(now + Duration::from_secs(70)));
        assert_eq!(health.answer(now + Duration::from_secs(70), false).status(), 503);
        health.updated(Duration::from_millis(3), false, (0, 0));
        health.set_eligible(false);
        assert_eq!(health.answer(now, false).status(), 503);
        assert_eq!(health.answer(now, true).status(), 200);
    }

    #[test]
    fn changes_wait_until_the_kernel_has_them() {
        let health = Health::new(Duration::from_secs(30));
        health.service_changed();
        let seen = health.seen();
        health.service_changed();
        health.endpoints_changed();
        health.updated(Duration::from_millis(3), false, seen);
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        health.programmed(&[(true, at)], at + Duration::from_secs(2));
        health.no_local(NoLocal { internal: [0, 2], external: [1, 0] });
        let page = health.metrics.registry.text();
        for line in [
            "kubeproxy_sync_proxy_rules_service_changes_total 2",
            "kubeproxy_sync_proxy_rules_service_changes_pending 1",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 1",
            "kubeproxy_network_programming_duration_seconds_sum{ip_family=\"IPv6\"} 2",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"internal\"} 2",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line}\n{page}");
        }
    }

    #[test]
    fn times_are_printed_as_upstream_does() {
        let t: Timestamp = "2026-01-02T03:04:05.25Z".parse().unwrap();
        assert_eq!(go_time(t), "2026-01-02 03:04:05.25 +0000 UTC");
    }
}
